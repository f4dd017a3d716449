//! The host: cores, memory, clock, and the programs themselves.

use std::env;
use std::fs;
use std::path::Path;
use std::thread;

use super::Finding;

/// One core for a media worker, one for everything else.
const CORES_GOOD: usize = 2;
/// Memory that should be free before the first peer comes.
const MEMORY_KIB_GOOD: u64 = 512 << 10;
/// Clock sources that are read without a system call (and what stands in for them in guests).
const CLOCKS_CHEAP: &[&str] =
    &["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];
/// Programs that keep the clock right.
const CLOCK_KEEPERS: &[&str] =
    &["chronyd", "ntpd", "systemd-timesyn", "ptp4l", "phc2sys", "openntpd"];

/// Looks at this host.
pub fn look() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    vec![
        cores(thread::available_parallelism().map_or(1, usize::from)),
        memory(&read("/proc/meminfo")),
        clock_source(
            read("/sys/devices/system/clocksource/clocksource0/current_clocksource").trim(),
        ),
        clock_sync(Path::new("/run/systemd/timesync/synchronized").exists(), keeper().as_deref()),
        programs(),
    ]
}

fn cores(count: usize) -> Finding {
    const NAME: &str = "cores";
    if count >= CORES_GOOD {
        Finding::ok(NAME, count.to_string())
    } else {
        Finding::warn(
            NAME,
            count.to_string(),
            "give it two: signalling and media workers share this one",
        )
    }
}

fn memory(meminfo: &str) -> Finding {
    const NAME: &str = "memory";
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    match available {
        Some(kib) if kib >= MEMORY_KIB_GOOD => Finding::ok(NAME, format!("{} MiB free", kib >> 10)),
        Some(kib) => {
            Finding::warn(NAME, format!("{} MiB free", kib >> 10), "free some, or a larger host")
        }
        None => Finding::warn(NAME, "cannot be told (/proc/meminfo)", "mount /proc"),
    }
}

fn clock_source(name: &str) -> Finding {
    const NAME: &str = "clock source";
    if CLOCKS_CHEAP.contains(&name) {
        return Finding::ok(NAME, name);
    }
    let found = if name.is_empty() { "cannot be told" } else { name };
    Finding::warn(
        NAME,
        found,
        "every turn of a worker reads the clock: choose tsc (boot with clocksource=tsc), or ask \
         the provider of the virtual machine",
    )
}

fn clock_sync(timesyncd_says_so: bool, keeper: Option<&str>) -> Finding {
    const NAME: &str = "clock set by";
    match (keeper, timesyncd_says_so) {
        (Some(keeper), _) => Finding::ok(NAME, keeper),
        (None, true) => Finding::ok(NAME, "systemd-timesyncd"),
        (None, false) => Finding::warn(
            NAME,
            "no program that keeps it right was found",
            "apt-get install chrony: tokens expire, and sender reports carry wall-clock time (a \
             virtual machine's host may keep it right unseen)",
        ),
    }
}

/// The name of a running program that keeps the clock right.
fn keeper() -> Option<String> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut names = processes.filter_map(|p| fs::read_to_string(p.path().join("comm")).ok());
    names.find(|name| CLOCK_KEEPERS.contains(&name.trim())).map(|name| name.trim().to_owned())
}

fn programs() -> Finding {
    const NAME: &str = "programs";
    let folder = env::current_exe().ok().and_then(|own| own.parent().map(Path::to_path_buf));
    let Some(folder) = folder else {
        return Finding::warn(NAME, "cannot tell where this program is", "start it by its path");
    };
    let missing: Vec<&str> = ["strait-relay", "strait-control"]
        .into_iter()
        .filter(|name| !folder.join(name).is_file())
        .collect();
    if missing.is_empty() {
        Finding::ok(NAME, format!("relay and control are in {}", folder.display()))
    } else {
        Finding::warn(
            NAME,
            format!("{} is not in {}", missing.join(" and "), folder.display()),
            "./dev run builds them; `strait dev` needs them beside itself",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn memory_is_what_the_kernel_can_give() {
        assert_eq!(memory("MemFree: 1 kB\nMemAvailable:   524288 kB\n").state, State::Ok);
        assert_eq!(memory("MemAvailable:   524287 kB\n").state, State::Warn);
        assert_eq!(memory("").state, State::Warn);
    }

    #[test]
    fn clocks_and_cores() {
        assert_eq!(clock_source("kvm-clock").state, State::Ok);
        assert_eq!(clock_source("hpet").state, State::Warn);
        assert_eq!(clock_sync(false, Some("chronyd")).state, State::Ok);
        assert_eq!(clock_sync(false, None).state, State::Warn);
        assert_eq!(cores(1).state, State::Warn);
        assert_eq!(cores(2).state, State::Ok);
    }
}
