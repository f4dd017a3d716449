//! Which core a worker runs on, and how exact its timers are.

use std::io;

/// Binds the calling thread to `cpu`.
///
/// # Errors
/// The core does not exist, is offline, or is outside of the process's cpuset.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: a cpu_set_t is a bit set, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` is below CPU_SETSIZE. Worth it: a worker that moves between cores loses its caches.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: thread 0 is the caller, and `set` is valid for its size.
    let failed = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the calling thread's timers ring when they are due: by default the kernel may be 50 µs late to save power.
///
/// # Errors
/// A seccomp filter forbids it.
pub fn exact_timers() -> io::Result<()> {
    // SAFETY: no pointers. Worth it: frames are held back for a few hundred microseconds.
    let failed = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The cores that this process may use, in ascending order.
#[must_use]
pub fn available() -> Vec<usize> {
    // SAFETY: as in `pin`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid to write its size to.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: each number is below CPU_SETSIZE.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_an_available_core_only() {
        let cores = available();
        assert!(!cores.is_empty());
        let last = *cores.last().unwrap();
        std::thread::spawn(move || {
            pin(last).unwrap();
            assert_eq!(available(), [last]);
            assert!(pin(100_000).is_err());
        })
        .join()
        .unwrap();
    }
}
