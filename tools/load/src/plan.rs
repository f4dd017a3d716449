//! What a run is to do.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use strait_crypt::srtp::Profile;

use crate::limits;
use crate::signalling::SecurityKind;

/// What a run is to do. [`Plan::check`] says whether it can be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Peers that send, in all; dealt to the scopes in turn.
    pub publishers: usize,
    /// Peers that receive, in all; dealt to the scopes in turn. Each receives every stream of its scope.
    pub subscribers: usize,
    /// Scopes.
    pub scopes: usize,
    /// What each publisher sends.
    pub shape: Shape,
    /// Factor on the rate: packets come closer by it, and keep their sizes.
    pub rate_scale: f64,
    /// How long media flows before the count begins.
    pub warmup: Duration,
    /// How long packets are counted.
    pub duration: Duration,
    /// Length of the windows that figures over time, and their medians, are made of.
    pub window: Duration,
    /// How media is protected.
    pub security: SecurityKind,
    /// The only SRTP profile that is offered in DTLS, so that servers are compared doing the same work; `None` offers
    /// all. Also the profile of session keys.
    pub profile: Option<Profile>,
    /// Whether lost packets are asked for again (NACK and RTX).
    pub nack: bool,
    /// Share of packets that may be lost without the run having failed, in percent.
    pub allow_loss_percent: f64,
    /// Latency above which a packet counts as late, if any does.
    pub late: Option<Duration>,
    /// Addresses of this host to send from, taken in turn; empty lets the system choose.
    pub local_addresses: Vec<IpAddr>,
    /// The port that the first peer is bound to, the next peer to the next, publishers first: for servers that must be
    /// told of both ends at once. `None` lets the system choose.
    pub first_port: Option<u16>,
    /// Core to run on.
    pub cpu: Option<usize>,
    /// Process of the server, to count its CPU time.
    pub server_pid: Option<u32>,
    /// What frame sizes are drawn from.
    pub seed: u64,
    /// Whether subscribers take runs of packets from the kernel as one (UDP_GRO). Without, the kernel cuts what comes
    /// as a run over loopback or veth, at the server's cost, as a network card without segmentation would have it do.
    pub receive_runs: bool,
    /// Whether to show on stderr how far it is.
    pub progress: bool,
    /// Set from elsewhere, it ends the count at once; what was counted is reported.
    pub stop: Arc<AtomicBool>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            publishers: 1,
            subscribers: 50,
            scopes: 1,
            shape: Shape::default(),
            rate_scale: 1.0,
            warmup: Duration::from_secs(2),
            duration: Duration::from_secs(10),
            window: Duration::from_secs(2),
            security: SecurityKind::Dtls,
            profile: Some(Profile::AeadAes128Gcm),
            nack: false,
            allow_loss_percent: 0.0,
            late: None,
            local_addresses: Vec::new(),
            first_port: None,
            cpu: None,
            server_pid: None,
            seed: 1,
            receive_runs: true,
            progress: false,
            stop: Arc::default(),
        }
    }
}

/// What one publisher sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// VP8 of one layer: frames of sizes that vary, each sent as a burst.
    Video {
        /// Bits of payload per second.
        bitrate_bps: u32,
        /// Frames per second.
        fps: u32,
        /// Time between key frames; those asked for come besides.
        key_interval: Duration,
    },
    /// VP8 in three layers of 150 and 500 kbit/s and 2.5 Mbit/s, 30 frames per second.
    Simulcast {
        /// As above.
        key_interval: Duration,
    },
    /// Opus: 50 packets of 80 to 120 bytes per second.
    Opus,
    /// Packets of one size.
    Constant {
        /// Packets per second.
        packets_per_second: u32,
        /// Bytes of RTP payload.
        bytes: usize,
        /// Packets at a time.
        burst: u32,
    },
}

/// Time between the key frames of a conference: they come when asked for.
pub const KEY_INTERVAL: Duration = Duration::from_secs(10);

impl Shape {
    /// A camera at 720p: 2.5 Mbit/s, 30 frames per second.
    pub const VIDEO_720P: Self =
        Self::Video { bitrate_bps: 2_500_000, fps: 30, key_interval: KEY_INTERVAL };
}

impl Default for Shape {
    fn default() -> Self {
        Self::VIDEO_720P
    }
}

/// `video-720p`, `simulcast`, `opus`, `constant:PPSxBYTES` or `constant-burst:N:PPSxBYTES`.
impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text}: no such shape: video-720p, simulcast, opus, constant:PPSxBYTES (as in \
                 constant:300x1200) or constant-burst:N:PPSxBYTES"
            )
        };
        let constant = |rate: &str, burst: u32| {
            let (pps, bytes) = rate.split_once(['x', '×']).ok_or_else(wrong)?;
            let packets_per_second = pps.parse().map_err(|_| wrong())?;
            let bytes = bytes.parse().map_err(|_| wrong())?;
            Ok(Self::Constant { packets_per_second, bytes, burst })
        };
        match text.split_once(':') {
            None if text == "video-720p" => Ok(Self::VIDEO_720P),
            None if text == "simulcast" => Ok(Self::Simulcast { key_interval: KEY_INTERVAL }),
            None if text == "opus" => Ok(Self::Opus),
            Some(("constant", rate)) => constant(rate, 1),
            Some(("constant-burst", rest)) => {
                let (burst, rate) = rest.split_once(':').ok_or_else(wrong)?;
                constant(rate, burst.parse().map_err(|_| wrong())?)
            }
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Video { bitrate_bps, fps, .. } => {
                write!(f, "video {} kbit/s, {fps} frames/s", bitrate_bps / 1000)
            }
            Self::Simulcast { .. } => f.write_str("simulcast 150k/500k/2.5M"),
            Self::Opus => f.write_str("opus"),
            Self::Constant { packets_per_second, bytes, burst } => {
                write!(f, "constant {packets_per_second}/s of {bytes} bytes")?;
                if burst > 1 { write!(f, ", {burst} at a time") } else { Ok(()) }
            }
        }
    }
}

impl Plan {
    /// Whether the plan can be carried out.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let peers = self.publishers.saturating_add(self.subscribers);
        if self.publishers == 0 {
            return Err("no publishers: give at least one".into());
        }
        if peers > limits::PEERS {
            return Err(format!("{peers} peers: at most {} run in one process", limits::PEERS));
        }
        if self.scopes == 0 || self.scopes > self.publishers {
            return Err(format!(
                "{} scopes for {} publishers: each scope needs one, and there is at least one scope",
                self.scopes, self.publishers
            ));
        }
        let per_scope = self.publishers.div_ceil(self.scopes);
        if per_scope > limits::STREAMS_PER_SUBSCRIBER {
            return Err(format!(
                "{per_scope} streams for each subscriber: at most {}; spread the publishers over \
                 more scopes",
                limits::STREAMS_PER_SUBSCRIBER
            ));
        }
        if let Some(port) = self.first_port
            && (port == 0 || usize::from(port) + peers > usize::from(u16::MAX))
        {
            return Err(format!("ports from {port} on for {peers} peers: 1 to 65535 are there"));
        }
        for (what, given, most) in [
            ("duration", self.duration, limits::DURATION),
            ("warmup", self.warmup, limits::DURATION),
            ("window", self.window, limits::DURATION),
        ] {
            if given > most {
                return Err(format!("{what} of {given:?}: at most {most:?}"));
            }
        }
        if self.duration.is_zero() || self.window < limits::WINDOW_MIN {
            return Err(format!(
                "a run takes some time: a duration above 0, windows of at least {:?}",
                limits::WINDOW_MIN
            ));
        }
        if self.duration.div_duration_f64(self.window) > limits::WINDOWS as f64 {
            return Err(format!("more than {} windows: make them longer", limits::WINDOWS));
        }
        if !(0.001..=1000.0).contains(&self.rate_scale) {
            return Err(format!("rate scale of {}: 0.001 to 1000", self.rate_scale));
        }
        if !(0.0..=100.0).contains(&self.allow_loss_percent) {
            return Err(format!("{} % of loss: 0 to 100", self.allow_loss_percent));
        }
        match self.shape {
            Shape::Constant { packets_per_second, bytes, burst } => {
                let sizes = limits::PAYLOAD_MIN..=limits::PAYLOAD_MAX;
                if !sizes.contains(&bytes) {
                    return Err(format!("payloads of {bytes} bytes: {sizes:?} are possible"));
                }
                if !(1..=limits::PACKETS_PER_SECOND).contains(&packets_per_second)
                    || !(1..=limits::BURST).contains(&burst)
                {
                    return Err(format!(
                        "{packets_per_second} packets/s, {burst} at a time: 1 to {}, 1 to {}",
                        limits::PACKETS_PER_SECOND,
                        limits::BURST
                    ));
                }
                Ok(())
            }
            Shape::Video { bitrate_bps, fps, .. } => {
                if !(1..=240).contains(&fps) || !(10_000..=100_000_000).contains(&bitrate_bps) {
                    return Err(format!(
                        "{bitrate_bps} bit/s at {fps} frames/s: 10 kbit/s to 100 Mbit/s, 1 to 240"
                    ));
                }
                Ok(())
            }
            Shape::Simulcast { .. } | Shape::Opus => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read() {
        assert_eq!("video-720p".parse(), Ok(Shape::VIDEO_720P));
        assert_eq!("opus".parse(), Ok(Shape::Opus));
        assert_eq!(
            "constant:300x1200".parse(),
            Ok(Shape::Constant { packets_per_second: 300, bytes: 1200, burst: 1 })
        );
        assert_eq!(
            "constant-burst:8:300x1100".parse(),
            Ok(Shape::Constant { packets_per_second: 300, bytes: 1100, burst: 8 })
        );
        for wrong in ["", "video", "constant:300", "constant:ax3", "constant-burst:300x1200"] {
            assert!(wrong.parse::<Shape>().is_err_and(|e| e.contains("video-720p")), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        Plan::default().check().unwrap();
        let plan = Plan::default;
        for (wrong, word) in [
            (Plan { publishers: 0, ..plan() }, "publishers"),
            (Plan { subscribers: 10_000, ..plan() }, "peers"),
            (Plan { scopes: 2, ..plan() }, "scopes"),
            (Plan { publishers: 201, ..plan() }, "streams"),
            (Plan { first_port: Some(65_500), ..plan() }, "ports"),
            (Plan { duration: Duration::from_secs(3601), ..plan() }, "duration"),
            (Plan { duration: Duration::ZERO, ..plan() }, "duration"),
            (Plan { window: Duration::from_millis(1), ..plan() }, "window"),
            (Plan { rate_scale: f64::NAN, ..plan() }, "rate"),
            (Plan { allow_loss_percent: 101.0, ..plan() }, "loss"),
            (
                Plan {
                    shape: Shape::Constant { packets_per_second: 1, bytes: 3, burst: 1 },
                    ..plan()
                },
                "bytes",
            ),
        ] {
            let said = wrong.check().unwrap_err();
            assert!(said.contains(word), "{said}");
        }
    }
}
