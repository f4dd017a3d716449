//! How much of this node is free, by what was measured since the last look.

use std::time::Instant;

use strait_proto::v1::WorkerStatistics;

use crate::config::cluster::Cluster;

/// Headroom is in thousandths.
pub const ALL: u32 = 1000;

/// What was seen at the last look.
#[derive(Debug, Default)]
pub struct Load {
    cpu: Option<Ticks>,
    sent: Option<Sent>,
    /// Of the CPU, smoothed: half a second is short.
    idle: Option<f64>,
}

/// Time of all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    bytes: u64,
    packets: u64,
}

impl Load {
    /// Looks again. What cannot be measured is not counted.
    pub fn headroom(
        &mut self,
        now: Instant,
        config: &Cluster,
        workers: &[WorkerStatistics],
        stat: &str,
    ) -> u32 {
        let idle = self.idle(stat);
        let sent = Sent {
            at: now,
            bytes: workers.iter().map(|worker| worker.bytes_sent).sum(),
            packets: workers.iter().map(|worker| worker.packets_sent).sum(),
        };
        let before = self.sent.replace(sent);
        let free = |count: u64, before: u64, seconds: f64, capacity: u64| {
            let used = count.saturating_sub(before) as f64 / seconds;
            (capacity > 0).then(|| 1.0 - used / capacity as f64)
        };
        let rates = before.and_then(|before| {
            let seconds = now.saturating_duration_since(before.at).as_secs_f64();
            (seconds > 0.0).then(|| {
                [
                    free(sent.bytes, before.bytes, seconds, config.capacity_mbps * 125_000),
                    free(sent.packets, before.packets, seconds, config.capacity_packets_per_second),
                ]
            })
        });
        let parts = rates.into_iter().flatten().flatten().chain(idle);
        let scarcest = parts.fold(1.0, f64::min);
        (scarcest.clamp(0.0, 1.0) * f64::from(ALL)).round() as u32
    }

    fn idle(&mut self, stat: &str) -> Option<f64> {
        if let Some(now) = ticks(stat)
            && let Some(before) = self.cpu.replace(now)
        {
            let all = now.all.saturating_sub(before.all);
            if all > 0 {
                let idle = now.idle.saturating_sub(before.idle) as f64 / all as f64;
                self.idle = Some(self.idle.map_or(idle, |smooth| 0.5 * (smooth + idle)));
            }
        }
        self.idle
    }
}

/// Reads the first line of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, …
fn ticks(stat: &str) -> Option<Ticks> {
    let mut words = stat.lines().next()?.split_ascii_whitespace();
    if words.next()? != "cpu" {
        return None;
    }
    // Guests' times, from the ninth on, are in user's and nice's already.
    let times: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
    let idle = times.get(3)? + times.get(4)?;
    Some(Ticks { idle, all: times.iter().sum() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_scarcest_counts() {
        let config =
            Cluster { capacity_mbps: 8, capacity_packets_per_second: 10_000, ..Cluster::default() };
        let start = Instant::now();
        let at = |half_seconds| start + half_seconds * Duration::from_millis(500);
        let workers = |bytes_sent, packets_sent| {
            [WorkerStatistics { bytes_sent, packets_sent, ..WorkerStatistics::default() }]
        };
        let mut load = Load::default();
        let mut look = |half_seconds, bytes, packets, stat: &str| {
            load.headroom(at(half_seconds), &config, &workers(bytes, packets), stat)
        };
        assert_eq!(look(0, 0, 0, "cpu 0 0 0 100 0 0 0 0"), ALL);
        // A tenth of the bytes, a fifth of the packets, three tenths of the CPU.
        assert_eq!(look(1, 50_000, 1_000, "cpu 30 0 0 160 10 0 0 0 7 7\ncpu0"), 700);
        assert_eq!(look(2, 50_000, 5_500, "cpu 30 0 0 260 10 0 0 0"), 100);
        assert_eq!(look(3, 550_000, 5_500, "cpu 30 0 0 360 10 0 0 0"), 0);
        assert_eq!(look(4, 550_000, 5_500, "what is that"), 925, "smoothed CPU");
    }
}
