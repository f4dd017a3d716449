//! The configuration: a TOML file with strict keys, overridden by environment and flags. The words beside each field are
//! the reference: `--print-default-config` and docs/reference/relay-config.md show them.

use crate::limits::{BUSY_POLL_US_MAX, FURTHER_PORTS, GATHER_US_MAX, SPREAD_MAX, WORKERS};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// All that an operator can set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Unix socket of the RPC (strait.relay.v1). Mode 0660; the folder must exist.
    pub rpc_socket: PathBuf,
    /// Users (numeric) that may call the RPC, beside the relay's own and root.
    pub rpc_allowed_uids: Vec<u32>,
    /// Addresses for media, at most one IPv4 and one IPv6 address. The default is loopback alone; "0.0.0.0" and "::" are
    /// all addresses of the host.
    pub listen: Vec<IpAddr>,
    /// Takes UDP from programs of this host alone (a socket filter lets in what the loopback device delivers), and on some
    /// more of its addresses than `listen` names. For trying things out: Firefox pairs no loopback candidates, so a
    /// Firefox on the same host cannot reach a relay that has nothing but 127.0.0.1.
    pub this_host_only: bool,
    /// UDP port for all peers. 0 lets the system choose.
    pub port: u16,
    /// UDP ports that native clients try first, one for sound and RTCP, one for pictures, so that a network can tell them
    /// apart by their ports. Both or none: 0 is none. Each port, and each of `further_ports`, has sockets of its own on each
    /// address and, with `steering`, 7 MiB of kernel memory. Ports below 1024 need CAP_NET_BIND_SERVICE.
    pub audio_port: u16,
    /// See `audio_port`.
    pub video_port: u16,
    /// UDP ports for whoever does not get through to `port`, best first, such as 3478 and 443, which firewalls often let
    /// through. Browsers are told them as further candidates. At most 5.
    pub further_ports: Vec<u16>,
    /// Addresses to tell peers instead of those listened on, for a host behind a one-to-one NAT.
    pub announced: Vec<IpAddr>,
    /// Whether plain STUN requests (RFC 8489) at these ports are answered: each browser that goes directly to another one learns
    /// so where its NAT lets it be seen. An answer is hardly larger than its question, and there are few a second.
    pub stun: bool,
    /// Whether to take peers over TCP as well, for networks that let no UDP through: ICE-TCP, and framed media over TLS that a
    /// control plane hands over (at `rpc_socket` with ".tcp" at its end).
    pub ice_tcp: bool,
    /// Address and port for ICE-TCP, such as "127.0.0.1:18443" behind a front door that shares the port with HTTPS.
    /// Empty: the addresses and the port of UDP.
    #[serde(deserialize_with = "optional_address", serialize_with = "address_or_empty")]
    pub ice_tcp_listen: Option<SocketAddr>,
    /// TCP port to tell peers instead, when a front door accepts for us. 0: the one listened on.
    pub ice_tcp_announced_port: u16,
    /// Who encrypts media that goes by TLS (framed media, TURN): "auto" has the kernel do it where it can (its `tls` module is
    /// loaded; TLS 1.3), once a worker knows the peer, or "off". Otherwise it is done on a thread of the relay.
    pub kernel_tls: KernelTls,
    /// How many workers, each on a core of its own. 0: one for each core.
    pub workers: usize,
    /// Cores to pin the workers to, in order. Empty: the cores of the process.
    pub cpus: Vec<usize>,
    /// Whether an eBPF program brings each datagram to the worker that owns its peer, and keeps what strangers send out of
    /// the buffers of those in a call: "auto" where the kernel allows it (CAP_BPF and CAP_PERFMON, or root), or "off".
    /// Without it the workers hand datagrams over to each other, which costs a copy and a wake-up each.
    pub steering: Steering,
    /// How UDP is spoken: "mmsg" (recvmmsg and sendmmsg), "uring" (io_uring, from Linux 6.1 on, and where it is not to be had
    /// once more mmsg), or "auto", which is what docs/performance.md found faster.
    pub io: Io,
    /// How long a worker with nothing to do looks for more before it sleeps, in microseconds. It burns its core in that time,
    /// and saves the wake-up, some tens of microseconds of latency. 0: it sleeps at once.
    pub busy_poll_us: u32,
    /// How long the first packets of a video frame may wait for the others, in microseconds, so that they leave in one run:
    /// most of what a relay costs is paid per run. A frame that is complete never waits. 0: each packet leaves by itself.
    pub gather_us: u32,
    /// Follows one media datagram in so many through the worker, from the kernel's receive timestamp to its send timestamp, to
    /// tell in which stage how much time goes by (`relay_stage_latency_seconds`, `strait top`). 0: none.
    pub latency_one_in: u32,
    /// How media is marked for routers that mark packets instead of dropping them (ECN, RFC 3168): "off", "ect0", or "ect1" for
    /// networks with L4S (RFC 9331). The relay slows down for marks that peers report, which only those do that agreed on RFC
    /// 8888 ("ack ccfb"): browsers do not by default, and then a marking router is not heard. Marks on what comes in are
    /// counted and reported to its sender whatever is set here.
    pub ecn_mark: EcnMark,
    /// DSCP of all that leaves by UDP (RFC 2474): one value for sound, pictures and RTCP. 0 is best effort; RFC 8837 names 46
    /// for sound and 34 for pictures. Networks that are not yours mostly clear it. At most 63.
    pub dscp: u8,
    /// Subscriptions of one scope that its worker carries before further peers of the scope go to other workers; six to
    /// sounds count as one to a picture. Each packet is decrypted once and copied to each worker that has subscribers of it.
    /// The default is what a core sends a key frame to (60 packets to each) before the next frame is due. At most 500.
    pub scope_subscriptions_per_worker: u32,
    /// Address and port of /metrics, /livez and /readyz. Keep it off public networks. Empty: none.
    #[serde(deserialize_with = "optional_address", serialize_with = "address_or_empty")]
    pub metrics_listen: Option<SocketAddr>,
    /// How long SIGTERM waits for peers to leave, in seconds. A second SIGTERM ends the process at once.
    pub drain_seconds: u32,
    /// What to log: error, warn, info, debug, trace, or a filter such as "info,strait_relay=debug".
    pub log: String,
}

/// How UDP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Io {
    /// What the benchmarks found faster.
    #[default]
    Auto,
    /// By io_uring.
    Uring,
    /// By recvmmsg and sendmmsg.
    Mmsg,
}

/// What routers may do to a packet instead of dropping it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EcnMark {
    /// Nothing.
    #[default]
    Off,
    /// Mark it, as seldom as they would drop it: ECT(0).
    Ect0,
    /// Mark it early and often: ECT(1).
    Ect1,
}

impl EcnMark {
    /// The two bits (RFC 3168 section 5).
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Ect0 => 2,
            Self::Ect1 => 1,
        }
    }
}

/// Whether the kernel steers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Steering {
    /// Where it can.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Whether the kernel does TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelTls {
    /// Where it can.
    #[default]
    Auto,
    /// Never.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rpc_socket: "/run/strait/relay.sock".into(),
            rpc_allowed_uids: Vec::new(),
            listen: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            this_host_only: false,
            port: 8443,
            audio_port: 0,
            video_port: 0,
            further_ports: Vec::new(),
            announced: Vec::new(),
            stun: true,
            ice_tcp: true,
            ice_tcp_listen: None,
            ice_tcp_announced_port: 0,
            kernel_tls: KernelTls::Auto,
            workers: 0,
            cpus: Vec::new(),
            steering: Steering::Auto,
            io: Io::Auto,
            busy_poll_us: 0,
            gather_us: 250,
            latency_one_in: 1024,
            ecn_mark: EcnMark::Off,
            dscp: 0,
            scope_subscriptions_per_worker: 400,
            metrics_listen: Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9464)),
            drain_seconds: 60,
            log: "info".to_owned(),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {error}: check the path given by --config")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// No TOML, or a key or a value that is not understood.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what, with a suggestion.
        message: String,
    },
    /// A value that makes no sense.
    #[error("{key}: {problem}")]
    Value {
        /// Which.
        key: &'static str,
        /// Why, and what to do.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read or is wrong; the message says where and what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        Self::parse(&text).map_err(|message| ConfigError::Syntax { path: path.to_owned(), message })
    }

    /// Reads a text; its values are not checked against each other yet.
    ///
    /// # Errors
    /// What is wrong with it, with the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let message = error.to_string();
            match suggestion(&message) {
                Some(known) => format!("{}\ndid you mean `{known}`?", message.trim_end()),
                None => message,
            }
        })
    }

    /// Checks the values against each other.
    ///
    /// # Errors
    /// The first that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong =
            |key, problem: &str| Err(ConfigError::Value { key, problem: problem.to_owned() });
        let families = |ips: &[IpAddr]| ips.iter().filter(|ip| ip.is_ipv6()).count();
        let ipv6 = families(&self.listen);
        if self.listen.is_empty() {
            return wrong("listen", "is empty: name at least one address");
        }
        if ipv6 > 1 || self.listen.len() - ipv6 > 1 {
            return wrong(
                "listen",
                "names two addresses of one family: name one, or \"0.0.0.0\" or \"::\" for all",
            );
        }
        if (self.audio_port == 0) != (self.video_port == 0) {
            let missing = if self.audio_port == 0 { "audio_port" } else { "video_port" };
            return wrong(missing, "is 0: name a port for sound and one for pictures, or neither");
        }
        if self.further_ports.len() > FURTHER_PORTS {
            let problem = format!("names {}: at most {FURTHER_PORTS}", self.further_ports.len());
            return wrong("further_ports", &problem);
        }
        if self.further_ports.contains(&0) {
            return wrong("further_ports", "names port 0: firewalls let through what they know");
        }
        let mut ports: Vec<u16> = [self.port, self.audio_port, self.video_port].into();
        ports.extend(&self.further_ports);
        ports.retain(|port| *port != 0);
        ports.sort_unstable();
        if let Some([port, _]) = ports.array_windows().find(|[port, next]| port == next) {
            let problem = format!("names UDP port {port}, which is another one's already");
            return wrong("further_ports", &problem);
        }
        if self.announced.iter().any(|ip| ip.is_unspecified() || ip.is_multicast()) {
            return wrong(
                "announced",
                "names an address that no peer can reach: name the public one",
            );
        }
        if self.gather_us > GATHER_US_MAX {
            let problem = format!("is {}: at most {GATHER_US_MAX}", self.gather_us);
            return wrong("gather_us", &problem);
        }
        if self.busy_poll_us > BUSY_POLL_US_MAX {
            let problem = format!("is {}: at most {BUSY_POLL_US_MAX}", self.busy_poll_us);
            return wrong("busy_poll_us", &problem);
        }
        if self.dscp > 63 {
            let problem = format!("is {}: DSCP has six bits, at most 63", self.dscp);
            return wrong("dscp", &problem);
        }
        if !(1..=SPREAD_MAX).contains(&self.scope_subscriptions_per_worker) {
            let per_worker = self.scope_subscriptions_per_worker;
            let problem = format!("is {per_worker}: at least 1, at most {SPREAD_MAX}");
            return wrong("scope_subscriptions_per_worker", &problem);
        }
        if self.workers > WORKERS {
            let problem = format!("is {}: at most {WORKERS}", self.workers);
            return wrong("workers", &problem);
        }
        if !self.cpus.is_empty() && self.workers > self.cpus.len() {
            return wrong(
                "cpus",
                "names fewer cores than there are workers: name as many, or none",
            );
        }
        if self.rpc_socket.as_os_str().len() > 107 {
            return wrong(
                "rpc_socket",
                "is longer than the 107 bytes that a Unix socket's path can have",
            );
        }
        if self.rpc_socket.as_os_str().is_empty() {
            return wrong("rpc_socket", "is empty: name a path such as /run/strait/relay.sock");
        }
        if u64::from(self.drain_seconds) > crate::limits::DRAIN_MAX.as_secs() {
            return wrong("drain_seconds", "is more than a day (86400)");
        }
        if self.log.parse::<tracing_subscriber::EnvFilter>().is_err() {
            return wrong(
                "log",
                "is no filter: use error, warn, info, debug, trace, or \"info,strait_relay=debug\"",
            );
        }
        Ok(())
    }
}

/// The default configuration as a commented file.
#[must_use]
pub fn default_toml() -> String {
    let values = toml::Table::try_from(Config::default()).unwrap_or_default();
    let mut text = String::from("# strait-relay: every key with its default.\n");
    for (key, words) in reference() {
        text.push('\n');
        for line in &words {
            let _ = writeln!(text, "# {line}");
        }
        let value = values.get(&key).map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "{key} = {value}");
    }
    text
}

/// Each key with the words beside it in this file: said once.
#[must_use]
pub fn reference() -> Vec<(String, Vec<String>)> {
    let source = include_str!("config.rs");
    let fields = source.split_once("pub struct Config {").map_or("", |(_, rest)| rest);
    let fields = fields.split_once("\n}").map_or("", |(fields, _)| fields);
    let mut found = Vec::new();
    let mut words = Vec::new();
    for line in fields.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            words.push(text.to_owned());
        } else if let Some((key, _)) =
            line.strip_prefix("pub ").and_then(|rest| rest.split_once(':'))
        {
            found.push((key.to_owned(), std::mem::take(&mut words)));
        }
    }
    found
}

/// The known key that an unknown one most resembles.
fn suggestion(message: &str) -> Option<String> {
    let unknown = message.split_once("unknown field `")?.1.split_once('`')?.0;
    let known = reference().into_iter().map(|(key, _)| (distance(unknown, &key), key));
    known.min().filter(|(distance, key)| *distance <= key.len() / 3 + 1).map(|(_, key)| key)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (y, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let best = (corner + usize::from(x != y)).min(left + 1).min(*cell + 1);
            corner = std::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn optional_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        serde::de::Error::custom(format!(
            "`{text}` is no address and port: write \"127.0.0.1:9464\", \"[::1]:9464\", or \"\" for none"
        ))
    })
}

fn address_or_empty<S: serde::Serializer>(
    address: &Option<SocketAddr>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(&address.map_or_else(String::new, |address| address.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_says_every_key_with_its_words_and_reads_as_the_default() {
        let text = default_toml();
        assert_eq!(Config::parse(&text).unwrap(), Config::default(), "{text}");
        Config::default().check().unwrap();
        let documented = reference();
        let values = toml::Table::try_from(Config::default()).unwrap();
        assert_eq!(documented.len(), values.len());
        assert!(
            documented.iter().all(|(key, words)| values.contains_key(key) && !words.is_empty())
        );
    }

    #[test]
    fn the_reference_page_is_the_source() {
        let page = include_str!("../../docs/reference/relay-config.md");
        let block = page.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
        assert_eq!(block, default_toml(), "copy `strait-relay --print-default-config` there");
    }

    #[test]
    fn mistakes_are_named_with_their_line_and_a_suggestion() {
        let error = Config::parse("port = 1\nlissten = []\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("did you mean `listen`?"), "{error}");
        let error = Config::parse("metric_listen = \"\"").unwrap_err();
        assert!(error.contains("did you mean `metrics_listen`?"), "{error}");
        let error = Config::parse("colour = 3").unwrap_err();
        assert!(!error.contains("did you mean"), "{error}");
        let error = Config::parse("metrics_listen = \"9464\"").unwrap_err();
        assert!(error.contains("no address and port"), "{error}");
        assert!(Config::parse("port = 70000").is_err());
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let problem = |text: &str| Config::parse(text).unwrap().check().unwrap_err().to_string();
        assert!(problem("listen = []").starts_with("listen: is empty"));
        assert!(problem("listen = [\"127.0.0.1\", \"127.0.0.2\"]").contains("two addresses"));
        assert!(problem("announced = [\"::\"]").starts_with("announced"));
        assert!(problem("audio_port = 5000").starts_with("video_port: is 0"));
        assert!(problem("video_port = 5000").starts_with("audio_port: is 0"));
        let twice = "audio_port = 5000\nvideo_port = 5000";
        assert!(problem(twice).contains("UDP port 5000, which is another"));
        assert!(problem("further_ports = [443, 8443]").contains("UDP port 8443"));
        assert!(problem("further_ports = [0]").contains("port 0"));
        assert!(problem("further_ports = [1, 2, 3, 4, 5, 6]").contains("names 6: at most 5"));
        assert!(problem("busy_poll_us = 2000000").starts_with("busy_poll_us"));
        assert!(problem("workers = 5000").starts_with("workers"));
        for wrong in [0, 501] {
            let text = format!("scope_subscriptions_per_worker = {wrong}");
            assert!(problem(&text).starts_with("scope_subscriptions_per_worker"));
        }
        assert!(problem("workers = 2\ncpus = [0]").starts_with("cpus"));
        assert!(problem("rpc_socket = \"\"").starts_with("rpc_socket"));
        assert!(problem("drain_seconds = 100000").starts_with("drain_seconds"));
        assert!(problem("log = \"a=b=c\"").starts_with("log"));
    }
}
