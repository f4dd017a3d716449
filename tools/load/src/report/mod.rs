//! What a run found.

mod page;
mod table;

pub(crate) use table::time;

use std::collections::BTreeMap;

use serde::Serialize;

/// Share of a core beyond which the generator's own limits show.
const BUSY: f64 = 0.9;

/// What a run found. Times in the units that the names say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was sent, in words.
    pub shape: String,
    /// Peers that sent.
    pub publishers: usize,
    /// Peers that received.
    pub subscribers: usize,
    /// Streams that were received, over all subscribers.
    pub streams: usize,
    /// Scopes.
    pub scopes: usize,
    /// The SRTP profile that was agreed, or all of them; empty for plain RTP.
    pub srtp_profile: String,
    /// From the first join to the last connected peer.
    pub join_seconds: f64,
    /// How long packets were counted.
    pub seconds: f64,
    /// Packets that publishers sent while it was counted.
    pub packets_sent: u64,
    /// Packets that subscribers should have received.
    pub packets_expected: u64,
    /// Packets that they received, each once.
    pub packets_received: u64,
    /// Bytes of these packets, with RTP header and tag.
    pub bytes_received: u64,
    /// Packets that did not arrive.
    pub packets_lost: u64,
    /// The same as a share.
    pub loss_percent: f64,
    /// Video frames that arrived whole.
    pub frames_whole: u64,
    /// Video frames of which a part is missing.
    pub frames_broken: u64,
    /// Packets that came by RTX.
    pub packets_repaired: u64,
    /// What was wrong, by kind; see `docs/load.md`.
    pub violations: BTreeMap<String, u64>,
    /// From the write of a packet by its publisher to its arrival in the kernel at a subscriber.
    pub latency: Latency,
    /// Packets that the kernel handed over as one (UDP_GRO), on average and at most.
    pub receive_run_mean: f64,
    /// See above.
    pub receive_run_max: u64,
    /// CPU time of the server, where its process was named.
    pub server: Option<Server>,
    /// Whether this process kept up.
    pub generator: Generator,
    /// The run in pieces of the plan's window.
    pub windows: Vec<Window>,
    /// Why the run has failed, one sentence each; empty when all is well.
    pub failures: Vec<String>,
}

/// A distribution of latencies, in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    /// How many packets.
    pub packets: u64,
    /// Half of them were faster.
    pub p50_us: f64,
    /// 90 % were faster.
    pub p90_us: f64,
    /// 99 % were faster.
    pub p99_us: f64,
    /// 99.9 % were faster.
    pub p99_9_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// Upper bound in microseconds, and number of packets, of each class that holds any; for plots.
    pub classes: Vec<(f64, u64)>,
}

/// Median and quartiles over the windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quartiles {
    /// A quarter of the windows is below.
    pub q1: f64,
    /// Half of the windows is below.
    pub median: f64,
    /// A quarter of the windows is above.
    pub q3: f64,
}

/// What the server spent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Server {
    /// Nanoseconds of CPU time of all its threads per packet that a subscriber received.
    pub cpu_ns_per_packet: Quartiles,
    /// CPU time per time: 1 is one core.
    pub cores: Quartiles,
}

/// Whether the load itself kept up: where it did not, its figures say more about itself than about the server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Generator {
    /// Share of one core that its thread used while it counted.
    pub utilisation: f64,
    /// How late packets left after they were due: 99 % were earlier, in microseconds.
    pub lag_p99_us: f64,
    /// Packets that the kernel did not take.
    pub send_errors: u64,
    /// Datagrams that the kernel dropped before this process read them.
    pub receive_overflows: u64,
}

/// One piece of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Window {
    /// When it began, in seconds since the count began.
    pub at_seconds: f64,
    /// How long it was.
    pub seconds: f64,
    /// Packets that publishers sent.
    pub packets_sent: u64,
    /// Packets that subscribers received.
    pub packets_received: u64,
    /// Packets that were found missing.
    pub packets_missing: u64,
    /// CPU time of the server, in nanoseconds.
    pub server_cpu_ns: Option<u64>,
}

impl Report {
    /// Whether nothing was wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures.is_empty()
    }
}
