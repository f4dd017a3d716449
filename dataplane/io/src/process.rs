//! What the process may use.

use std::io;

/// Raises the soft limit of open files to the hard one: each ICE-TCP connection is a file. Returns the limit.
///
/// # Errors
/// The system refused.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid to write to. Worth it: std has no limits, and the usual soft one is 1024.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid to read.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// How many files are open now; `None` where /proc does not tell.
#[must_use]
pub fn open_files() -> Option<usize> {
    // One of them is the folder that is being read.
    std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    #[test]
    fn open_files_are_counted() {
        let before = super::open_files().unwrap();
        let files: Vec<_> = (0..100).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests of this process may open and close some at the same time.
        assert!((before + 50..before + 150).contains(&super::open_files().unwrap()));
        drop(files);
    }

    #[test]
    fn the_limit_is_raised_and_stays() {
        let limit = super::raise_open_files().unwrap();
        assert!(limit >= 256);
        assert_eq!(super::raise_open_files().unwrap(), limit);
    }
}
