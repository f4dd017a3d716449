//! The kernel: its version, io_uring, eBPF, capabilities.

use std::fs;
use std::path::Path;

use super::Finding;

/// Batched UDP with segmentation offload and control messages as the relay uses them.
const VERSION_MIN: (u32, u32) = (4, 18);
/// Where BTF, SK_REUSEPORT programs and io_uring's multishot receive are all there.
const VERSION_FULL: (u32, u32) = (6, 1);

/// Capabilities that a feature needs: bit (capability.h), name, and what for.
const CAPABILITIES: &[(u32, &str, &str)] = &[
    (10, "CAP_NET_BIND_SERVICE", "ports below 1024"),
    (23, "CAP_SYS_NICE", "workers with real-time priority"),
    (38, "CAP_PERFMON", "packet steering in the kernel"),
    (39, "CAP_BPF", "packet steering in the kernel"),
];

/// Looks at this host's kernel.
pub fn look() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    vec![
        version(&read("/proc/sys/kernel/osrelease")),
        io_uring(&read("/proc/sys/kernel/io_uring_disabled"), || read("/proc/kallsyms")),
        bpf(Path::new("/sys/kernel/btf/vmlinux").exists()),
        capabilities(&read("/proc/self/status")),
    ]
}

fn version(release: &str) -> Finding {
    const NAME: &str = "kernel";
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Finding::fail(NAME, format!("not Linux? {release:?}"), "Strait runs on Linux only");
    };
    let found = format!("Linux {release}");
    let older = |(x, y): (u32, u32)| format!("a kernel from {x}.{y}; every current one is newer");
    if (major, minor) < VERSION_MIN {
        Finding::fail(NAME, found, older(VERSION_MIN))
    } else if (major, minor) < VERSION_FULL {
        Finding::warn(NAME, found, older(VERSION_FULL))
    } else {
        Finding::ok(NAME, found)
    }
}

/// `disabled` is the sysctl's text (kernels before 6.6 have none: then the kernel's symbols tell).
fn io_uring(disabled: &str, symbols: impl Fn() -> String) -> Finding {
    const NAME: &str = "io_uring";
    const LESS: &str = "nothing today: the relay receives and sends by recvmmsg and sendmmsg; for \
                        a later backend: ";
    match disabled {
        "0" => Finding::ok(NAME, "allowed"),
        "" if symbols().contains("io_uring_setup") => Finding::ok(NAME, "allowed"),
        "" => Finding::warn(NAME, "not in this kernel", format!("{LESS}a kernel that has it")),
        level => Finding::warn(
            NAME,
            format!("kernel.io_uring_disabled = {level}"),
            format!("{LESS}sysctl -w kernel.io_uring_disabled=0"),
        ),
    }
}

fn bpf(btf: bool) -> Finding {
    const NAME: &str = "eBPF";
    if btf {
        Finding::ok(NAME, "type information (BTF) is there")
    } else {
        Finding::warn(
            NAME,
            "no /sys/kernel/btf/vmlinux",
            "nothing must be done: the kernel's hash spreads packets over the workers; for \
             steering, a kernel with CONFIG_DEBUG_INFO_BTF",
        )
    }
}

/// `status` is the text of /proc/self/status.
fn capabilities(status: &str) -> Finding {
    const NAME: &str = "capabilities";
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let missing: Vec<String> = CAPABILITIES
        .iter()
        .filter(|(bit, ..)| effective >> bit & 1 == 0)
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    if missing.is_empty() {
        return Finding::ok(NAME, "all that any feature needs");
    }
    Finding::warn(
        NAME,
        format!("without {}", missing.join(", ")),
        "nothing must be done; for these features, the units in tools/packaging give them, or \
         setcap",
    )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.3-amd64").state, State::Ok);
        assert_eq!(version("6.1.0").state, State::Ok);
        assert_eq!(version("5.15.0-91-generic").state, State::Warn);
        assert_eq!(version("4.9.1").state, State::Fail);
        assert_eq!(version("").state, State::Fail);
    }

    #[test]
    fn io_uring_may_be_switched_off_or_absent() {
        assert_eq!(io_uring("0", String::new).state, State::Ok);
        assert_eq!(io_uring("", || "T __x64_sys_io_uring_setup".into()).state, State::Ok);
        assert_eq!(io_uring("", String::new).state, State::Warn);
        assert!(io_uring("2", String::new).remedy.contains("sysctl"));
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(capabilities("CapEff:\t000001ffffffffff\n").state, State::Ok);
        let none = capabilities("Name:\tx\nCapEff:\t0000000000000000\n");
        assert!(none.found.contains("CAP_BPF") && none.state == State::Warn, "{none:?}");
    }
}
