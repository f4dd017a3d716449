//! Limits: open files, locked memory, socket buffers.

use std::fs;

use super::Finding;

/// Open files that a relay with thousands of ICE-TCP peers needs, and the fewest that serve a few.
const FILES_GOOD: u64 = 65_536;
const FILES_MIN: u64 = 256;
/// Locked memory that rings and eBPF maps take.
const LOCKED_BYTES_GOOD: u64 = 64 << 20;
/// A socket buffer that holds 10 ms of one worker's packets at 200,000 per second.
const SOCKET_BUFFER_BYTES_GOOD: u64 = 4 << 20;

/// Looks at the limits of a process started from here, and at the kernel's.
pub fn look() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let limits = read("/proc/self/limits");
    vec![
        files(soft(&limits, "Max open files")),
        locked(soft(&limits, "Max locked memory")),
        buffer("receive buffers", "net.core.rmem_max", &read("/proc/sys/net/core/rmem_max")),
        buffer("send buffers", "net.core.wmem_max", &read("/proc/sys/net/core/wmem_max")),
    ]
}

/// The soft limit of the row that starts with `name`; `u64::MAX` is without limit.
fn soft(limits: &str, name: &str) -> Option<u64> {
    let row = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match row.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn files(limit: Option<u64>) -> Finding {
    const NAME: &str = "open files";
    let remedy = format!("ulimit -n {FILES_GOOD}; in a unit: LimitNOFILE=1048576");
    match limit {
        Some(n) if n >= FILES_GOOD => Finding::ok(NAME, counted(n)),
        Some(n) if n >= FILES_MIN => {
            Finding::warn(NAME, format!("{n}: enough for fewer peers over TCP than that"), remedy)
        }
        Some(n) => Finding::fail(NAME, format!("{n}: too few to serve"), remedy),
        None => Finding::warn(NAME, "cannot be told (/proc/self/limits)", remedy),
    }
}

fn locked(limit: Option<u64>) -> Finding {
    const NAME: &str = "locked memory";
    let remedy = "nothing today; for rings and eBPF maps, in a unit: LimitMEMLOCK=infinity";
    match limit {
        Some(u64::MAX) => Finding::ok(NAME, "without limit"),
        Some(n) if n >= LOCKED_BYTES_GOOD => Finding::ok(NAME, format!("{} KiB", n >> 10)),
        Some(n) => Finding::warn(NAME, format!("{} KiB", n >> 10), remedy),
        None => Finding::warn(NAME, "cannot be told (/proc/self/limits)", remedy),
    }
}

fn buffer(name: &'static str, sysctl: &str, text: &str) -> Finding {
    let remedy = format!(
        "sysctl -w {sysctl}={SOCKET_BUFFER_BYTES_GOOD} (and in /etc/sysctl.d): bursts overflow \
         smaller ones"
    );
    match text.trim().parse::<u64>() {
        Ok(n) if n >= SOCKET_BUFFER_BYTES_GOOD => Finding::ok(name, format!("{sysctl} = {n}")),
        Ok(n) => Finding::warn(name, format!("{sysctl} = {n}"), remedy),
        Err(_) => Finding::warn(name, format!("{sysctl} cannot be told from here"), remedy),
    }
}

fn counted(limit: u64) -> String {
    if limit == u64::MAX { "without limit".to_owned() } else { limit.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
        Max open files            1024                 524288               files\n\
        Max locked memory         unlimited            unlimited            bytes\n";

    #[test]
    fn the_soft_limit_counts() {
        assert_eq!(soft(LIMITS, "Max open files"), Some(1024));
        assert_eq!(soft(LIMITS, "Max locked memory"), Some(u64::MAX));
        assert_eq!(soft(LIMITS, "Max nonsense"), None);
    }

    #[test]
    fn bounds_are_met_exactly() {
        assert_eq!(files(Some(FILES_GOOD)).state, State::Ok);
        assert_eq!(files(Some(FILES_GOOD - 1)).state, State::Warn);
        assert_eq!(files(Some(FILES_MIN - 1)).state, State::Fail);
        assert_eq!(buffer("b", "s", "4194304\n").state, State::Ok);
        assert_eq!(buffer("b", "s", "212992\n").state, State::Warn);
        assert_eq!(buffer("b", "s", "").state, State::Warn);
        assert_eq!(locked(Some(LOCKED_BYTES_GOOD - 1)).state, State::Warn);
    }
}
