//! CPU time of another process.

use std::fs;
use std::io;

/// CPU time of all threads of a process, in nanoseconds: the scheduler's own count, because ticks miss what runs for
/// less than one.
pub(crate) fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut spent = 0_u64;
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // A thread that has just ended takes its time along.
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let ns = text.split(' ').next().and_then(|first| first.parse::<u64>().ok());
        spent = spent.saturating_add(ns.unwrap_or(0));
    }
    Ok(spent)
}

#[cfg(test)]
mod tests {
    #[test]
    fn our_own_time_goes_on() {
        let own = std::process::id();
        let before = super::cpu_ns(own).unwrap();
        let mut sum = 0_u64;
        while super::cpu_ns(own).unwrap() < before + 2_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(super::cpu_ns(u32::MAX).is_err());
    }
}
