//! What a process holds and spends, from /proc.

use std::fs;
use std::io;
use std::time::Duration;

/// A process of this host.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its name.
    pub name: String,
    pid: u32,
}

impl Process {
    /// The child of `parent` that is called `name`.
    pub fn child_of(parent: u32, name: &str) -> io::Result<Self> {
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else {
                continue;
            };
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let is_child = field(&status, "PPid:").is_some_and(|p| p == u64::from(parent));
            // The kernel keeps 15 bytes of a name.
            let kept = name.get(..15).unwrap_or(name);
            if is_child && status.lines().next() == Some(&format!("Name:\t{kept}")) {
                return Ok(Self { name: name.to_owned(), pid });
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} does not run")))
    }

    /// The process of that number.
    pub fn of(name: &str, pid: u32) -> Self {
        Self { name: name.to_owned(), pid }
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let kib = field(&status, "VmRSS:").ok_or_else(|| self.gone())?;
        Ok(kib << 10)
    }

    /// CPU time of all its threads. The scheduler's own count, in nanoseconds: ticks would miss
    /// what runs for less than one.
    pub fn cpu(&self) -> io::Result<Duration> {
        let mut spent = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))?.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
            spent += Duration::from_nanos(nanoseconds.unwrap_or(0));
        }
        Ok(spent)
    }

    fn gone(&self) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, format!("{} is gone", self.name))
    }
}

/// The number behind `name` in a status file.
fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_and_time_are_found() {
        let own = Process { name: "self".to_owned(), pid: std::process::id() };
        assert!(own.resident_bytes().expect("memory") > 100 << 10);
        let before = own.cpu().expect("time");
        let mut sum = 0_u64;
        while own.cpu().expect("time") < before + Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }

    #[test]
    fn fields_of_a_status_file() {
        assert_eq!(field("Name:\tx\nPPid:\t17\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
        assert_eq!(field("Name:\tx\n", "PPid:"), None);
    }
}
