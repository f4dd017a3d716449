//! Has the kernel refuse calls of this thread: a seccomp filter answers in its stead.

use std::io;
use std::ops::RangeInclusive;

/// From now on, `call`s of this thread whose argument at this place is in `range` give this error. The filter sees
/// numbers, and nothing of what pointers point to.
pub fn refuse(call: libc::c_long, argument: usize, range: RangeInclusive<u32>, error: i32) {
    let op = |code: u32, yes: u8, no: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let compare = |how: u32| libc::BPF_JMP | how | libc::BPF_K;
    // Its lower half.
    let at = std::mem::offset_of!(libc::seccomp_data, args) + argument * size_of::<u64>();
    let at = at + if cfg!(target_endian = "big") { 4 } else { 0 };
    let program = [
        op(load, 0, 0, std::mem::offset_of!(libc::seccomp_data, nr) as u32),
        op(compare(libc::BPF_JEQ), 0, 4, call as u32),
        op(load, 0, 0, at as u32),
        op(compare(libc::BPF_JGE), 0, 2, *range.start()),
        op(compare(libc::BPF_JGT), 1, 0, *range.end()),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: no pointers; needed by whoever is not root to filter its own calls.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: `filter` points at a program of that many instructions, which the kernel copies.
    let set = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

/// The same for all calls of one kind.
pub fn refuse_all(call: libc::c_long, error: i32) {
    refuse(call, 0, 0..=u32::MAX, error);
}
