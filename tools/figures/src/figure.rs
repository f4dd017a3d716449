//! A figure: what is promised, what was measured.

use serde::Serialize;

/// Which side of the bound is good.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// The value may not be above.
    AtMost(f64),
    /// The value may not be below.
    AtLeast(f64),
}

/// A promise: every one of docs/specification.md is here.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// As docs/specification.md names it.
    pub name: &'static str,
    /// What is promised.
    pub bound: Bound,
    /// The unit of value and bound.
    pub unit: &'static str,
}

/// Memory of a peer that is connected and silent.
pub const IDLE_PEER_MEMORY: Promise =
    Promise { name: "idle_peer_memory", bound: Bound::AtMost(64.0), unit: "KiB" };
/// Memory of a peer with one video subscription.
pub const VIDEO_SUBSCRIPTION_MEMORY: Promise =
    Promise { name: "video_subscription_memory", bound: Bound::AtMost(256.0), unit: "KiB" };
/// Joins that one core carries in a second.
pub const JOINS_PER_CORE_SECOND: Promise =
    Promise {
        name: "joins_per_core_second", bound: Bound::AtLeast(100.0), unit: "joins/(s·core)"
    };
/// Time from Join to the first picture.
pub const JOIN_TO_FIRST_PICTURE: Promise =
    Promise { name: "join_to_first_picture", bound: Bound::AtMost(1.0), unit: "s" };

/// What `./dev figures call` prints.
pub const CALL: &[Promise] =
    &[IDLE_PEER_MEMORY, VIDEO_SUBSCRIPTION_MEMORY, JOINS_PER_CORE_SECOND, JOIN_TO_FIRST_PICTURE];

/// CPU time for each forwarded packet over its floor: sending in the same runs, and the cipher.
pub const OVER_FLOOR: Promise =
    Promise { name: "forward_over_floor", bound: Bound::AtMost(1.35), unit: "×" };
/// CPU time for each forwarded packet over a bare sendto without crypto, one to 50.
pub const OVER_SENDTO_50: Promise =
    Promise { name: "forward_over_sendto_50", bound: Bound::AtMost(1.0), unit: "×" };
/// The same, one to 100.
pub const OVER_SENDTO_100: Promise =
    Promise { name: "forward_over_sendto_100", bound: Bound::AtMost(1.0), unit: "×" };
/// CPU time for each forwarded packet over that of the best other server.
pub const OVER_PEER: Promise =
    Promise { name: "forward_over_best_peer", bound: Bound::AtMost(0.2), unit: "×" };
/// The same without rewriting, over coturn and rtpengine in user space.
pub const OVER_PLAIN_PEER: Promise =
    Promise { name: "plain_over_best_peer", bound: Bound::AtMost(0.25), unit: "×" };
/// The same for packets that come one by one, which leave nothing to gather.
pub const PACED_OVER_PLAIN_PEER: Promise =
    Promise { name: "plain_paced_over_best_peer", bound: Bound::AtMost(0.25), unit: "×" };
/// Datagrams that leave by one call, one camera to 50.
pub const RUN_LENGTH: Promise =
    Promise { name: "run_length_at_50", bound: Bound::AtLeast(8.0), unit: "datagrams" };
/// From ingress to egress at 70 % of the core.
pub const LATENCY_P99: Promise =
    Promise { name: "latency_p99", bound: Bound::AtMost(500.0), unit: "µs" };
/// See [`LATENCY_P99`].
pub const LATENCY_P999: Promise =
    Promise { name: "latency_p99_9", bound: Bound::AtMost(2000.0), unit: "µs" };
/// Datagrams that the owning worker reads itself.
pub const OWNED: Promise =
    Promise { name: "owning_worker_share", bound: Bound::AtLeast(99.9), unit: "%" };
/// What two workers carry over what one does.
pub const SECOND_WORKER: Promise =
    Promise { name: "second_worker", bound: Bound::AtLeast(1.8), unit: "×" };

/// What `io = "auto"` picks over the other way to speak UDP, on a core that is full.
pub const DEFAULT_IO: Promise =
    Promise { name: "default_io_over_other", bound: Bound::AtMost(1.05), unit: "×" };

/// What `./dev figures path` prints.
pub const PATH: &[Promise] = &[
    OVER_FLOOR,
    OVER_SENDTO_50,
    OVER_SENDTO_100,
    OVER_PEER,
    OVER_PLAIN_PEER,
    PACED_OVER_PLAIN_PEER,
    RUN_LENGTH,
    LATENCY_P99,
    LATENCY_P999,
    OWNED,
    SECOND_WORKER,
    DEFAULT_IO,
];

/// What the relay says is lost, beside what the lab lost.
pub const LOSS_ERROR: Promise =
    Promise { name: "loss_error", bound: Bound::AtMost(0.1), unit: "points" };
/// What the relay says that packets waited, beside what they waited in the lab.
pub const QUEUE_DELAY_ERROR: Promise =
    Promise { name: "queue_delay_error_p95", bound: Bound::AtMost(2.0), unit: "ms" };

/// From the beginning until the budget is 90 % of the line, the worst of the matrix.
pub const CAPACITY_REACHED: Promise =
    Promise { name: "capacity_reached", bound: Bound::AtMost(5.0), unit: "s" };
/// How long 95 % of the packets wait at most before the line, the worst of the matrix.
pub const STANDING_QUEUE: Promise =
    Promise { name: "standing_queue_p95", bound: Bound::AtMost(100.0), unit: "ms" };
/// After a line lost 70 % of what it carried, until the queue before it is short again.
pub const DROP_SETTLED: Promise =
    Promise { name: "drop_settled", bound: Bound::AtMost(3.0), unit: "s" };
/// Lines that are not used again after others left them.
pub const STUCK_LOW: Promise =
    Promise { name: "stuck_low", bound: Bound::AtMost(0.0), unit: "of 1000" };
/// Sound that is lost where no picture fits beside it.
pub const SQUEEZED_SOUND_LOSS: Promise =
    Promise { name: "squeezed_sound_loss", bound: Bound::AtMost(1.0), unit: "%" };
/// A joiner's first picture, beyond a round trip.
pub const JOINER_PICTURE: Promise =
    Promise { name: "joiner_first_picture", bound: Bound::AtMost(150.0), unit: "ms" };
/// Key frames that a publisher is asked for within half a second.
pub const KEY_FRAME_REQUESTS: Promise =
    Promise { name: "key_frame_requests", bound: Bound::AtMost(1.0), unit: "per 500 ms" };
/// A browser whose line narrows to 300 kbit/s: until the low layer is forwarded to it.
pub const NARROW_FALLS: Promise =
    Promise { name: "narrow_browser_falls", bound: Bound::AtMost(3.0), unit: "s" };
/// Until the high layer is, once the line is wide again.
pub const NARROW_CLIMBS: Promise =
    Promise { name: "narrow_browser_climbs", bound: Bound::AtMost(10.0), unit: "s" };
/// The longest time without another picture meanwhile.
pub const NARROW_FREEZE: Promise =
    Promise { name: "narrow_browser_freeze", bound: Bound::AtMost(1.0), unit: "s" };

/// Frames that a decoder cannot decode, or shows otherwise than without the relay, over all changes of layers.
pub const DAMAGED_PICTURES: Promise =
    Promise { name: "switch_damaged_pictures", bound: Bound::AtMost(0.0), unit: "pictures" };
/// The longest time without a picture around changes of layers.
pub const SWITCH_FREEZE: Promise =
    Promise { name: "switch_freeze", bound: Bound::AtMost(100.0), unit: "ms" };

/// What `./dev figures media` prints.
pub const MEDIA: &[Promise] = &[
    LOSS_ERROR,
    QUEUE_DELAY_ERROR,
    CAPACITY_REACHED,
    STANDING_QUEUE,
    DROP_SETTLED,
    STUCK_LOW,
    SQUEEZED_SOUND_LOSS,
    JOINER_PICTURE,
    KEY_FRAME_REQUESTS,
    NARROW_FALLS,
    NARROW_CLIMBS,
    NARROW_FREEZE,
    DAMAGED_PICTURES,
    SWITCH_FREEZE,
];

/// Joins over the link that one core carries in a second.
pub const LINK_JOINS: Promise =
    Promise { name: "link_joins_per_core", bound: Bound::AtLeast(500.0), unit: "joins/(s·core)" };
/// Memory of a native client that is connected and silent.
pub const LINK_CLIENT_MEMORY: Promise =
    Promise { name: "link_client_memory", bound: Bound::AtMost(32.0), unit: "KiB" };
/// Messages from one native client to another that one core carries in a second.
pub const LINK_MESSAGES: Promise =
    Promise {
        name: "link_messages_per_core", bound: Bound::AtLeast(50_000.0), unit: "1/(s·core)"
    };

/// From the second join to the first packet that came directly.
pub const LINK_DIRECT_FIRST: Promise =
    Promise { name: "link_direct_first", bound: Bound::AtMost(1.0), unit: "s" };
/// Frames of sound lost at the moves to the direct way and back.
pub const LINK_DIRECT_LOST: Promise =
    Promise { name: "link_direct_lost", bound: Bound::AtMost(0.0), unit: "frames" };
/// From the start of a client without UDP to sound.
pub const LINK_BLOCKED_FIRST: Promise =
    Promise { name: "link_blocked_first", bound: Bound::AtMost(3.0), unit: "s" };
/// From the release of UDP to media on UDP alone.
pub const LINK_BLOCKED_BACK: Promise =
    Promise { name: "link_blocked_back", bound: Bound::AtMost(10.0), unit: "s" };
/// Sound lost at that change.
pub const LINK_BLOCKED_LOST: Promise =
    Promise { name: "link_blocked_lost", bound: Bound::AtMost(100.0), unit: "ms" };

/// CPU of the relay for a packet that goes out over TLS, of that for one over UDP.
pub const LINK_FALLBACK_COST: Promise =
    Promise { name: "link_fallback_cost", bound: Bound::AtMost(3.0), unit: "times" };
/// The same over QUIC, where strait-control carries it: the CPU of both programs for a packet, divided
/// by that of the relay over UDP.
pub const LINK_QUIC_COST: Promise =
    Promise { name: "link_quic_cost", bound: Bound::AtMost(3.0), unit: "times" };

/// What `./dev figures link` prints.
pub const LINK: &[Promise] = &[
    LINK_JOINS,
    LINK_CLIENT_MEMORY,
    LINK_MESSAGES,
    LINK_DIRECT_FIRST,
    LINK_DIRECT_LOST,
    LINK_BLOCKED_FIRST,
    LINK_BLOCKED_BACK,
    LINK_BLOCKED_LOST,
    LINK_FALLBACK_COST,
    LINK_QUIC_COST,
];

/// Answers to clients that look for their node that one core gives in a second.
pub const CLUSTER_RESOLVES: Promise = Promise {
    name: "cluster_resolves_per_core",
    bound: Bound::AtLeast(10_000.0),
    unit: "1/(s·core)",
};
/// How long such an answer takes, with both cores busy.
pub const CLUSTER_RESOLVE_P99: Promise =
    Promise { name: "cluster_resolve_p99", bound: Bound::AtMost(5.0), unit: "ms" };
/// From the death of a partition's master to the answer about a scope there.
pub const CLUSTER_REDIS_BACK: Promise =
    Promise { name: "cluster_redis_back", bound: Bound::AtMost(2.0), unit: "s" };
/// Mappings that clients were told and that are gone afterwards.
pub const CLUSTER_MAPPINGS_LOST: Promise =
    Promise { name: "cluster_mappings_lost", bound: Bound::AtMost(0.0), unit: "mappings" };

/// How long 99 of 100 listeners hear nothing when their node is killed, native clients and browsers.
pub const CLUSTER_FAILOVER: Promise =
    Promise { name: "cluster_failover_p99", bound: Bound::AtMost(5.0), unit: "s" };
/// The same of the browsers among them.
pub const CLUSTER_FAILOVER_BROWSERS: Promise =
    Promise { name: "cluster_failover_browsers_p99", bound: Bound::AtMost(5.0), unit: "s" };
/// Scopes that CnCs say are on different nodes afterwards, or on the dead one.
pub const CLUSTER_SPLIT: Promise =
    Promise { name: "cluster_scopes_split", bound: Bound::AtMost(0.0), unit: "scopes" };

/// Between what clients used and what is recorded, of any session.
pub const CLUSTER_USAGE: Promise =
    Promise { name: "cluster_usage_off", bound: Bound::AtMost(1.0), unit: "s" };

/// Packets that listeners miss while Redis and SQL, and then control too, are away, and after.
pub const CLUSTER_OUTAGE_LOST: Promise =
    Promise { name: "cluster_outage_lost", bound: Bound::AtMost(0.0), unit: "packets" };
/// The longest time in all that in which a listener heard nothing: of packets each 20 ms, on a host
/// that is busy with the rest.
pub const CLUSTER_OUTAGE_GAP: Promise =
    Promise { name: "cluster_outage_gap", bound: Bound::AtMost(0.2), unit: "s" };
/// Joins to scopes that there are which failed while Redis and SQL were away.
pub const CLUSTER_OUTAGE_JOINS: Promise =
    Promise { name: "cluster_outage_joins_failed", bound: Bound::AtMost(0.0), unit: "joins" };
/// Scopes that are on another node afterwards, or on two.
pub const CLUSTER_OUTAGE_MOVED: Promise =
    Promise { name: "cluster_outage_moved", bound: Bound::AtMost(0.0), unit: "scopes" };
/// From the start of the last part until all clients are back in their sessions, and new scopes are placed.
pub const CLUSTER_OUTAGE_BACK: Promise =
    Promise { name: "cluster_outage_back", bound: Bound::AtMost(15.0), unit: "s" };

/// What `./dev figures cluster` prints.
pub const CLUSTER: &[Promise] = &[
    CLUSTER_RESOLVES,
    CLUSTER_RESOLVE_P99,
    CLUSTER_REDIS_BACK,
    CLUSTER_MAPPINGS_LOST,
    CLUSTER_FAILOVER,
    CLUSTER_FAILOVER_BROWSERS,
    CLUSTER_SPLIT,
    CLUSTER_USAGE,
    CLUSTER_OUTAGE_LOST,
    CLUSTER_OUTAGE_GAP,
    CLUSTER_OUTAGE_JOINS,
    CLUSTER_OUTAGE_MOVED,
    CLUSTER_OUTAGE_BACK,
];

/// A line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// As docs/specification.md names it.
    pub name: &'static str,
    /// The bound, with its direction: `<= 64`.
    pub bound: String,
    /// What was measured; nothing when that failed.
    pub value: Option<f64>,
    /// The unit of value and bound.
    pub unit: &'static str,
    /// Whether the bound was met. A figure that could not be measured does not meet it.
    pub ok: bool,
    /// How it was measured, and what belongs to it.
    pub how: String,
}

impl Promise {
    /// The figure that a measurement gave.
    pub fn measured(self, value: f64, how: impl Into<String>) -> Figure {
        let ok = match self.bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        };
        self.figure(value.is_finite().then_some(value), ok && value.is_finite(), how.into())
    }

    /// The figure that could not be measured, and why.
    pub fn missed(self, why: impl std::fmt::Display) -> Figure {
        self.figure(None, false, format!("not measured: {why}"))
    }

    fn figure(self, value: Option<f64>, ok: bool, how: String) -> Figure {
        let bound = match self.bound {
            Bound::AtMost(most) => format!("<= {most}"),
            Bound::AtLeast(least) => format!(">= {least}"),
        };
        Figure { name: self.name, bound, value, unit: self.unit, ok, how }
    }
}

/// The report for people.
pub fn table(figures: &[Figure]) -> String {
    let mut text = String::new();
    for Figure { name, bound, value, unit, ok, how } in figures {
        let value = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let verdict = if *ok { "ok    " } else { "MISSED" };
        text.push_str(&format!("{verdict}  {name:27} {value:>10} {unit:15} bound {bound}\n"));
        text.push_str(&format!("{:38}{how}\n", ""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_itself_is_met() {
        assert!(IDLE_PEER_MEMORY.measured(64.0, "").ok);
        assert!(!IDLE_PEER_MEMORY.measured(64.1, "").ok);
        assert!(JOINS_PER_CORE_SECOND.measured(100.0, "").ok);
        assert!(!JOINS_PER_CORE_SECOND.measured(99.9, "").ok);
        assert!(!JOINS_PER_CORE_SECOND.measured(f64::INFINITY, "").ok);
    }

    #[test]
    fn what_could_not_be_measured_is_not_left_out() {
        let missed = JOIN_TO_FIRST_PICTURE.missed("no Chromium");
        assert!(!missed.ok && missed.value.is_none());
        let json = serde_json::to_value(&missed).expect("JSON");
        for member in ["name", "bound", "value", "unit", "ok", "how"] {
            assert!(json.get(member).is_some(), "{member}");
        }
        assert!(table(&[missed]).contains("MISSED  join_to_first_picture"));
    }
}
