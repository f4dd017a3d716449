//! What a host does at this moment, in few figures: for whoever looks at all nodes at once.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Figure;

/// A host, as it was in the seconds before. What its kernel does not show is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Now {
    /// Of all cores together, in thousandths of their time.
    pub cpu: Option<u32>,
    /// Bytes of memory in all.
    pub memory: Option<u64>,
    /// Those that programs could have.
    pub memory_free: Option<u64>,
    /// Bytes of the disk of the store's folder in all.
    pub disk: Option<u64>,
    /// Those that this process could write.
    pub disk_free: Option<u64>,
    /// Bits per second from the network, without loopback.
    pub received: Option<u64>,
    /// And to it.
    pub sent: Option<u64>,
    /// Packets per second that the kernel dropped before any socket.
    pub dropped: Option<u64>,
}

/// What was read at the last look, for what is a difference of two.
#[derive(Debug, Default)]
pub struct Watch {
    before: Option<(Instant, Vec<Figure>)>,
}

impl Watch {
    /// Looks again.
    pub fn look(&mut self, at: Instant, figures: Vec<Figure>) -> Now {
        let of = |name, label| value(&figures, name, label).map(whole);
        let mut now = Now {
            memory: of("control_host_memory_bytes", "total"),
            memory_free: of("control_host_memory_bytes", "available"),
            disk: of("control_host_disk_bytes", "total"),
            disk_free: of("control_host_disk_bytes", "available"),
            ..Now::default()
        };
        if let Some((then, before)) = &self.before {
            let seconds = at.saturating_duration_since(*then).as_secs_f64();
            let grown = |name, label| {
                let (new, old) = (value(&figures, name, label)?, value(before, name, label)?);
                // A counter that begins anew tells nothing this time.
                Some(new - old).filter(|grown| *grown >= 0.0)
            };
            let rate = |name, label, of_one: f64| {
                let grown = grown(name, label).filter(|_| seconds > 0.0)?;
                Some(whole(grown * of_one / seconds))
            };
            let cpu = |mode| grown("control_host_cpu_seconds_total", mode);
            now.cpu = cpu("busy").and_then(|busy| {
                let all = busy + cpu("idle")? + cpu("iowait")? + cpu("steal")?;
                let share = (busy / all * 1_000.0).round();
                (all > 0.0).then_some(share.clamp(0.0, 1_000.0) as u32)
            });
            now.received = rate("control_host_network_bytes_total", "received", 8.0);
            now.sent = rate("control_host_network_bytes_total", "sent", 8.0);
            now.dropped = rate("control_host_softnet_total", "dropped", 1.0);
        }
        self.before = Some((at, figures));
        now
    }
}

fn value(figures: &[Figure], name: &str, of: &str) -> Option<f64> {
    let figure = figures.iter().find(|figure| figure.name == name)?;
    figure.samples.iter().find(|(label, _)| *label == of).map(|(_, value)| *value)
}

/// A sum that is no number of something is none of it.
fn whole(value: f64) -> u64 {
    value.round().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn figure(name: &'static str, samples: &[(&'static str, f64)]) -> Figure {
        Figure { name, kind: "counter", help: "", label: "what", samples: samples.to_vec() }
    }

    fn figures(busy: f64, idle: f64, received: f64) -> Vec<Figure> {
        let cpu =
            [("busy", busy), ("softirq", 7.0), ("idle", idle), ("iowait", 1.0), ("steal", 0.0)];
        vec![
            figure("control_host_cpu_seconds_total", &cpu),
            figure("control_host_memory_bytes", &[("total", 100.0), ("available", 25.0)]),
            figure("control_host_network_bytes_total", &[("received", received), ("sent", 5.0)]),
        ]
    }

    #[test]
    fn rates_are_of_two_looks() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let first = watch.look(start, figures(10.0, 90.0, 1_000.0));
        let memory = Now { memory: Some(100), memory_free: Some(25), ..Now::default() };
        assert_eq!(first, memory, "no rate yet");
        let later = start + Duration::from_secs(4);
        let second = watch.look(later, figures(13.0, 95.0, 3_000.0));
        let rates = Now { cpu: Some(375), received: Some(4_000), sent: Some(0), ..memory };
        assert_eq!(second, rates);
        // At the same moment, and of counters that began anew, there is none.
        let again = watch.look(later, figures(13.0, 95.0, 10.0));
        assert_eq!((again.cpu, again.received, again.sent), (None, None, None));
        assert_eq!(watch.look(later, Vec::new()), Now::default());
    }

    #[test]
    fn what_others_say_of_themselves_may_be_less_or_more() {
        let told: Now = serde_json::from_str(r#"{"cpu": 5, "another": 1}"#).unwrap();
        assert_eq!(told, Now { cpu: Some(5), ..Now::default() });
    }
}
