//! What the host does, from `/proc`: so that nobody needs another agent to see why a node is slow.
//!
//! Everything is read when it is asked for. What a kernel or a sandbox does not show is left out.

pub mod now;

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Ticks of `/proc/stat` in a second: the same on all architectures that Linux tells users of.
const TICKS_PER_SECOND: f64 = 100.0;

/// A value with its labels.
type Sample = (&'static str, f64);

/// What is told under one name.
#[derive(Debug, PartialEq)]
pub struct Figure {
    /// Name of the metric.
    pub name: &'static str,
    /// `gauge` or `counter`.
    pub kind: &'static str,
    /// A sentence.
    pub help: &'static str,
    /// The name of the label that tells the samples apart; none where there is one sample.
    pub label: &'static str,
    /// Values by that label.
    pub samples: Vec<Sample>,
}

/// All that can be read now below `proc` (`/proc`), and of the disk that `folder` is on.
pub fn figures(proc: &Path, folder: &Path) -> Vec<Figure> {
    let read = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
    let mut all = vec![
        Figure {
            name: "control_host_cpu_seconds_total",
            kind: "counter",
            help: "Time of all cores together, by what they did.",
            label: "mode",
            samples: cpu(&read("stat")),
        },
        gauge("control_host_cpus", "Cores.", "", cpus(&read("stat"))),
        gauge("control_host_load1", "Load average of a minute.", "", load(&read("loadavg"))),
        gauge("control_host_memory_bytes", "Memory.", "state", memory(&read("meminfo"))),
        gauge("control_host_disk_bytes", "The disk of the store's folder.", "state", disk(folder)),
        Figure {
            name: "control_host_network_bytes_total",
            kind: "counter",
            help: "Bytes from and to the network of all interfaces but loopback.",
            label: "direction",
            samples: network(&read("net/dev")),
        },
        Figure {
            name: "control_host_softnet_total",
            kind: "counter",
            help: "Packets that the kernel dropped before any socket, and rounds cut short.",
            label: "what",
            samples: softnet(&read("net/softnet_stat")),
        },
        Figure {
            name: "control_host_udp_errors_total",
            kind: "counter",
            help: "Datagrams of the host lost at its sockets, by cause.",
            label: "cause",
            samples: udp(&read("net/snmp"), &read("net/snmp6")),
        },
        gauge(
            "control_host_files",
            "Open files of the host, and how many there may be.",
            "state",
            files(&read("sys/fs/file-nr")),
        ),
        gauge(
            "control_process_files",
            "Open files of this process, and how many there may be.",
            "state",
            own_files(&proc.join("self/fd"), &read("self/limits")),
        ),
    ];
    let pressure = ["cpu", "memory", "io"]
        .into_iter()
        .filter_map(|resource| Some((resource, stalled(&read(&format!("pressure/{resource}")))?)));
    all.push(Figure {
        name: "control_host_pressure_seconds_total",
        kind: "counter",
        help: "Time in which something waited for a resource (PSI, some).",
        label: "resource",
        samples: pressure.collect(),
    });
    all.retain(|figure| !figure.samples.is_empty());
    all
}

/// As Prometheus text.
pub fn write(out: &mut String, figures: &[Figure]) {
    for Figure { name, kind, help, label, samples } in figures {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (value_of, value) in samples {
            let _ = match *label {
                "" => writeln!(out, "{name} {value}"),
                label => writeln!(out, "{name}{{{label}=\"{value_of}\"}} {value}"),
            };
        }
    }
}

fn gauge(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    samples: Vec<Sample>,
) -> Figure {
    Figure { name, kind: "gauge", help, label, samples }
}

/// `cpu user nice system idle iowait irq softirq steal …` (proc_stat(5)).
fn cpu(stat: &str) -> Vec<Sample> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks = line.map(numbers).unwrap_or_default();
    let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks.as_slice() else {
        return Vec::new();
    };
    let modes = [
        ("busy", user + nice + system + irq + softirq),
        ("softirq", *softirq),
        ("iowait", *iowait),
        ("steal", *steal),
        ("idle", *idle),
    ];
    modes.map(|(mode, ticks)| (mode, ticks / TICKS_PER_SECOND)).into()
}

fn cpus(stat: &str) -> Vec<Sample> {
    let is_core = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    #[allow(clippy::cast_precision_loss)] // a count of cores
    let count = stat.lines().filter(is_core).count() as f64;
    Some(("", count)).filter(|_| count > 0.0).into_iter().collect()
}

fn load(loadavg: &str) -> Vec<Sample> {
    numbers(loadavg).first().map(|load| ("", *load)).into_iter().collect()
}

fn memory(meminfo: &str) -> Vec<Sample> {
    let of = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        numbers(line).first().map(|kib| kib * 1_024.0)
    };
    let states = [("total", "MemTotal:"), ("available", "MemAvailable:")];
    states.into_iter().filter_map(|(state, name)| Some((state, of(name)?))).collect()
}

#[allow(clippy::cast_precision_loss)] // bytes of disks below 9 PB
fn disk(folder: &Path) -> Vec<Sample> {
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Vec::new() };
    let bytes = |blocks: u64| blocks as f64 * disk.f_frsize as f64;
    let inodes = [("inodes", disk.f_files as f64), ("inodes_free", disk.f_favail as f64)];
    // What only root could still write is not free for this process.
    let states = [("total", bytes(disk.f_blocks)), ("available", bytes(disk.f_bavail))];
    states.into_iter().chain(inodes).collect()
}

/// `NAME: bytes packets errs drop fifo frame compressed multicast`, and the same eight for what was sent.
fn network(dev: &str) -> Vec<Sample> {
    let mut sums = [0.0; 2];
    let mut is_there = false;
    for (name, counts) in dev.lines().filter_map(|line| line.split_once(':')) {
        let counts = numbers(counts);
        let (Some(received), Some(sent)) = (counts.first(), counts.get(8)) else { continue };
        if name.trim() != "lo" {
            sums[0] += received;
            sums[1] += sent;
        }
        is_there = true;
    }
    let [received, sent] = sums;
    let all = [("received", received), ("sent", sent)];
    all.into_iter().filter(|_| is_there).collect()
}

/// A line for each core, in hexadecimal: processed, dropped, squeezed, and more.
fn softnet(stat: &str) -> Vec<Sample> {
    let mut sums = [0_u64; 2];
    for line in stat.lines() {
        let fields = line.split_whitespace().skip(1);
        for (sum, field) in sums.iter_mut().zip(fields) {
            *sum = sum.saturating_add(u64::from_str_radix(field, 16).unwrap_or_default());
        }
    }
    #[allow(clippy::cast_precision_loss)] // counts of packets
    let [dropped, squeezed] = sums.map(|sum| sum as f64);
    let is_there = !stat.trim().is_empty();
    let all = [("dropped", dropped), ("squeezed", squeezed)];
    all.into_iter().filter(|_| is_there).collect()
}

/// IPv4 has two lines of `Udp:`, names and values; IPv6 a name and a value in each line.
fn udp(snmp: &str, snmp6: &str) -> Vec<Sample> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let of = |name: &str| {
        let four = names.split_whitespace().zip(numbers(values));
        let six = snmp6.lines().filter_map(|line| {
            let (key, value) = line.split_once(char::is_whitespace)?;
            Some((key.strip_prefix("Udp6")?, value.trim().parse().ok()?))
        });
        four.chain(six).filter(|(key, _)| *key == name).map(|(_, value): (_, f64)| value).sum()
    };
    let causes = [
        ("receive_buffer", "RcvbufErrors"),
        ("send_buffer", "SndbufErrors"),
        ("checksum", "InCsumErrors"),
    ];
    let is_there = !values.is_empty();
    causes.into_iter().filter(|_| is_there).map(|(cause, name)| (cause, of(name))).collect()
}

/// `allocated unused maximum`.
fn files(file_nr: &str) -> Vec<Sample> {
    match numbers(file_nr).as_slice() {
        [open, unused, most] => vec![("open", open - unused), ("most", *most)],
        _ => Vec::new(),
    }
}

#[allow(clippy::cast_precision_loss)] // a count of files
fn own_files(folder: &Path, limits: &str) -> Vec<Sample> {
    let open = fs::read_dir(folder).map(|entries| ("open", entries.count() as f64)).ok();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let most = line.and_then(|line| numbers(line).first().map(|most| ("most", *most)));
    open.into_iter().chain(most).collect()
}

/// Seconds in which some task waited: `some avg10=… total=MICROSECONDS`.
fn stalled(pressure: &str) -> Option<f64> {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = some.split_whitespace().find_map(|word| word.strip_prefix("total="))?;
    total.parse::<f64>().ok().map(|microseconds| microseconds / 1e6)
}

/// The numbers at the beginning of a text.
fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().map_while(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(figures: &[Figure], name: &str, of: &str) -> Option<f64> {
        let figure = figures.iter().find(|figure| figure.name == name)?;
        figure.samples.iter().find(|(label, _)| *label == of).map(|(_, value)| *value)
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("stat", "cpu  100 20 30 4000 50 6 7 8 0 0\ncpu0 1 2\ncpu1 1 2\nintr 5\n"),
            ("loadavg", "1.25 0.50 0.10 2/345 6789\n"),
            ("meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n"),
            (
                "net/dev",
                "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n    \
                 lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0: 100 2 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n\
                 eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n",
            ),
            ("net/softnet_stat", "00000abc 00000010 00000001 0\n00000001 00000002 0000000f 0\n"),
            (
                "net/snmp",
                "Ip: A B\nIp: 1 2\nUdp: InDatagrams RcvbufErrors SndbufErrors InCsumErrors\n\
                 Udp: 9 5 3 1\nUdpLite: RcvbufErrors\nUdpLite: 77\n",
            ),
            ("net/snmp6", "Udp6RcvbufErrors                \t4\nUdpLite6RcvbufErrors\t88\n"),
            ("sys/fs/file-nr", "900\t100\t5000\n"),
            ("self/limits", "Limit  Soft Limit\nMax open files            1024   4096   files\n"),
            ("self/fd/0", ""),
            ("self/fd/1", ""),
            ("pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n"),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let all = figures(folder.path(), folder.path());
        let of = |name: &str, label: &str| value(&all, &format!("control_{name}"), label);
        assert_eq!(of("host_cpu_seconds_total", "busy"), Some(1.63));
        assert_eq!(of("host_cpu_seconds_total", "steal"), Some(0.08));
        assert_eq!((of("host_cpus", ""), of("host_load1", "")), (Some(2.0), Some(1.25)));
        assert_eq!(of("host_memory_bytes", "available"), Some(256_000.0));
        assert!(of("host_disk_bytes", "total") >= of("host_disk_bytes", "available"));
        assert_eq!(of("host_network_bytes_total", "received"), Some(101.0));
        assert_eq!(of("host_network_bytes_total", "sent"), Some(32.0));
        assert_eq!(of("host_softnet_total", "dropped"), Some(18.0));
        assert_eq!(of("host_softnet_total", "squeezed"), Some(16.0));
        assert_eq!(of("host_udp_errors_total", "receive_buffer"), Some(9.0));
        assert_eq!(of("host_udp_errors_total", "send_buffer"), Some(3.0));
        assert_eq!((of("host_files", "open"), of("host_files", "most")), (Some(800.0), Some(5e3)));
        assert_eq!(of("process_files", "open"), Some(2.0));
        assert_eq!(of("process_files", "most"), Some(1_024.0));
        assert_eq!(of("host_pressure_seconds_total", "cpu"), Some(2.5));
        let mut text = String::new();
        write(&mut text, &all);
        assert!(text.contains("\ncontrol_host_load1 1.25\n"), "{text}");
        assert!(text.contains("control_host_udp_errors_total{cause=\"receive_buffer\"} 9\n"));
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let nowhere = Path::new("/nowhere/at/all");
        assert_eq!(figures(nowhere, nowhere), []);
        let here = figures(Path::new("/proc"), Path::new("/"));
        assert!(value(&here, "control_process_files", "open") > Some(2.0), "{here:?}");
        assert!(here.len() >= 8, "{here:?}");
    }
}
