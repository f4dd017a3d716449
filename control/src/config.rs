//! Configuration: TOML with strict keys, every field with a default.

pub mod cluster;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use strait_proto::pace::Rates;

use crate::auth::Secret;
use crate::limits::{AUDIO_STREAMS_MAX, UPLINK_BPS_MIN};
use crate::sdp::Fec;
use crate::store::CqlAddress;

/// The whole configuration of strait-control. `docs/reference/control-config.md` explains it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Listeners, certificate, page.
    pub http: Http,
    /// The relay that this process drives.
    pub relay: Relay,
    /// Where applications, sessions and what was used are kept.
    pub store: Store,
    /// Where sessions and what was used are kept, if not there.
    pub statistics: Statistics,
    /// Who may come in.
    pub auth: Auth,
    /// Where keys of applications are copied to and from.
    pub keys: Keys,
    /// Who may ask for everything.
    pub api: Api,
    /// What is told of scopes.
    pub events: Events,
    /// What is made of it.
    pub agent: Agent,
    /// WebSocket signalling.
    pub signal: Signal,
    /// Links of native clients.
    pub link: Link,
    /// What is agreed to with peers.
    pub media: Media,
    /// Maxima that depend on the machine.
    pub limits: Limits,
    /// What this process is in a cluster.
    pub cluster: cluster::Cluster,
    /// What is logged.
    pub log: Log,
}

/// Listeners, certificate, page.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Addresses that serve HTTPS. Empty: none.
    pub https_listen: Vec<SocketAddr>,
    /// Addresses that serve plain HTTP, to clients on this machine only. Empty: none.
    pub http_listen: Vec<SocketAddr>,
    /// Certificate chain, PEM. Empty: one is made, self-signed, and kept in `state_dir`.
    pub certificate: PathBuf,
    /// Private key of the certificate, PEM.
    pub key: PathBuf,
    /// Names and addresses that a self-signed certificate is made for.
    pub certificate_names: Vec<String>,
    /// Directory for what this process makes itself (self-signed certificate).
    pub state_dir: PathBuf,
    /// Origins that browsers may call from; `*` is any. Tokens are bearer tokens, never cookies.
    pub cors_origins: Vec<String>,
    /// Whether `/metrics` answers clients that are not on this machine.
    pub metrics_public: bool,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            https_listen: vec![([127, 0, 0, 1], 8443).into(), (LOOPBACK_V6, 8443).into()],
            http_listen: vec![([127, 0, 0, 1], 8080).into(), (LOOPBACK_V6, 8080).into()],
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            certificate_names: vec!["localhost".into(), "127.0.0.1".into(), "::1".into()],
            state_dir: ".strait/control".into(),
            cors_origins: vec!["*".into()],
            metrics_public: false,
        }
    }
}

const LOOPBACK_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::LOCALHOST;

/// The relay that this process drives.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// Unix socket of the relay's RPC.
    pub rpc_socket: PathBuf,
    /// ICE-TCP listener of the relay. When given, the HTTPS listeners pass connections that open
    /// with a framed STUN message (RFC 4571) on to it, so that media and HTTPS share one TCP port.
    /// Framed media over TLS is handed over to the relay by the socket beside that of its RPC.
    pub ice_tcp: Option<SocketAddr>,
}

impl Default for Relay {
    fn default() -> Self {
        Self { rpc_socket: ".strait/relay.sock".into(), ice_tcp: None }
    }
}

/// Where applications, sessions and what was used are kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `sqlite:PATH`, a file that is made when absent; `mysql://USER:PASSWORD@HOST/DATABASE` or
    /// `postgres://…`, a database that is there.
    pub url: Secret,
}

impl Default for Store {
    fn default() -> Self {
        Self { url: "sqlite:.strait/control/control.db".into() }
    }
}

/// Where sessions and what was used are kept, if not in the store.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Statistics {
    /// `cql://[USER:PASSWORD@]HOST:PORT[,HOST:PORT]/KEYSPACE`, a keyspace of Cassandra or ScyllaDB
    /// that is there. Empty: the store.
    pub url: Secret,
}

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Tokens that open every scope of the application `dev`. For development; keep empty on a
    /// machine that others can reach. Applications with signed tokens come from the store.
    pub dev_tokens: Vec<Secret>,
    /// How far ahead a signed credential may expire, in seconds. Its salt is remembered until then.
    pub expires_ahead_seconds_max: u64,
}

impl Default for Auth {
    fn default() -> Self {
        Self { dev_tokens: Vec::new(), expires_ahead_seconds_max: 24 * 3_600 }
    }
}

/// Where keys of applications are copied to and from. Without either the store is asked each time.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Redis that this process pushes applications and keys of the store to: `redis://HOST:PORT`.
    /// Empty: it does not.
    pub master: Secret,
    /// Redis beside this node that replicates it: `redis+unix:PATH`, or `redis://HOST:PORT`. Empty:
    /// the store is asked.
    pub replica: Secret,
}

/// Who may ask for everything, and how often.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Tokens of operators: they see all applications and manage them.
    pub tokens: Vec<Secret>,
    /// Calls of the API from one address, and with one token, each second; twice as many in a burst.
    /// 0 is no limit.
    pub calls_per_second: u32,
}

impl Default for Api {
    fn default() -> Self {
        Self { tokens: Vec::new(), calls_per_second: 50 }
    }
}

/// What is told of scopes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Whether the quality of all streams is recorded, minute by minute.
    pub quality: bool,
    /// Redis with the stream that agents read: `redis://HOST:PORT`,
    /// `redis+sentinel://HOST:PORT,HOST:PORT/MASTER` or `redis+unix:PATH`. Empty: this process
    /// writes its events to the store itself.
    pub redis: Secret,
}

impl Default for Events {
    fn default() -> Self {
        Self { quality: true, redis: Secret::default() }
    }
}

/// What is made of events.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// How long sessions, their quality, diagnostics, and sums by minute and hour are kept, in days.
    pub keep_days: u32,
}

impl Default for Agent {
    fn default() -> Self {
        Self { keep_days: 90 }
    }
}

/// WebSocket signalling.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signal {
    /// Subprotocol name (RFC 6455 section 1.9).
    pub websocket_subprotocol: String,
    /// How long a session lives on after its WebSocket broke, in seconds.
    pub reconnect_seconds: u64,
    /// STUN and TURN servers told to clients.
    pub ice_servers: Vec<IceServer>,
}

impl Default for Signal {
    fn default() -> Self {
        Self {
            websocket_subprotocol: "strait.jsonrtc.v1".into(),
            reconnect_seconds: 30,
            ice_servers: Vec::new(),
        }
    }
}

/// Links of native clients.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// How long a session lives on after its link broke, in seconds: peer, publications and
    /// messages that were not confirmed stay.
    pub reconnect_seconds: u64,
    /// After so many seconds of silence either side pings; after three times that a link is dead.
    pub ping_seconds: u64,
    /// Addresses (UDP) that serve links over QUIC. Empty: none.
    pub quic_listen: Vec<SocketAddr>,
    /// Whether the media of exactly two goes directly where it can: each then knows the other's
    /// address. A client that does not want that says so (`Auth.relay_only`).
    pub direct: bool,
    /// Applications whose clients never go directly.
    pub relayed_applications: Vec<String>,
    /// Another node, "HOST:PORT", that clients are sent to instead of being let in: for one that is
    /// to become empty. Sessions that there are go on. Empty: none.
    pub redirect: String,
    /// Requests and messages of one client, media and confirmations apart, each second; twice as
    /// many in a burst. What comes faster is read later. 0 is no limit.
    pub messages_per_second: u32,
    /// KiB of messages of one client each second, in the same way. 0 is no limit.
    pub kibibytes_per_second: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            reconnect_seconds: 30,
            ping_seconds: 10,
            quic_listen: Vec::new(),
            direct: true,
            relayed_applications: Vec::new(),
            redirect: String::new(),
            messages_per_second: 200,
            kibibytes_per_second: 1024,
        }
    }
}

impl Link {
    /// How fast a client may speak, be it by a link, a WebSocket or a data channel.
    pub fn rates(&self) -> Rates {
        Rates::new(self.messages_per_second, self.kibibytes_per_second)
    }

    /// Where new clients are sent: host and port.
    pub fn redirect_to(&self) -> Option<(String, u16)> {
        let (host, port) = self.redirect.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| (host.to_owned(), port))
    }
}

/// A STUN or TURN server told to clients.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    /// `stun:host:port` or `turn:host:port?transport=udp`.
    pub url: String,
    /// TURN user name.
    #[serde(default)]
    pub username: String,
    /// TURN password.
    #[serde(default)]
    pub credential: Secret,
}

/// What is agreed to with peers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// Forward error correction that is taken from publishers who offer it.
    pub fec: Vec<Fec>,
    /// TURN over TLS.
    pub turn: Turn,
}

impl Default for Media {
    fn default() -> Self {
        Self { fec: vec![Fec::FlexFec], turn: Turn::default() }
    }
}

/// TURN over TLS on the port of HTTPS, for browsers that nothing else gets out of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Turn {
    /// Whether clients are told of it, and the relay serves it.
    pub enabled: bool,
}

impl Default for Turn {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Maxima that depend on the machine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// WebSocket sessions together, those that wait for a reconnect included.
    pub websocket_sessions: usize,
    /// WHIP and WHEP sessions together.
    pub http_sessions: usize,
    /// Links of native clients together, with sessions that wait for a reconnect.
    pub links: usize,
    /// Sessions of each kind from one address.
    pub sessions_per_address: usize,
    /// Scopes at a time.
    pub scopes: usize,
    /// Peers of one scope.
    pub peers_per_scope: usize,
    /// Audio streams that each peer of a scope gets, the loudest; 0: all, otherwise at most 64.
    pub audio_streams_per_scope: u32,
    /// What each peer of a scope may send altogether, in bits per second; 0: no cap.
    pub uplink_bps_per_peer: u64,
    /// ICE-TCP connections passed on to the relay.
    pub spliced_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            websocket_sessions: 10_000,
            http_sessions: 10_000,
            links: 10_000,
            sessions_per_address: 2_000,
            scopes: 10_000,
            peers_per_scope: 500,
            audio_streams_per_scope: 0,
            uplink_bps_per_peer: 0,
            spliced_connections: 4_096,
        }
    }
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Filter: `error`, `warn`, `info`, `debug`, or per module (`strait_control::http=debug`).
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into() }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {cause}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The text is not TOML, or a key or value is not ours. Carries line, column and a guess.
    #[error("{0}")]
    Syntax(String),
    /// Each value is fine, but they do not fit together.
    #[error("{0}")]
    Content(String),
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        Self::parse(&text)
    }

    /// Parses and checks a text.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`], [`ConfigError::Content`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let message = error.to_string();
            ConfigError::Syntax(match did_you_mean(error.message()) {
                Some(guess) => format!("{}; did you mean `{guess}`?", message.trim_end()),
                None => message,
            })
        })?;
        config.check()?;
        Ok(config)
    }

    /// Where this process writes: the folder of the store, or of its own files where that is a server.
    pub fn folder(&self) -> &Path {
        let url = self.store.url.expose();
        let path = url.strip_prefix("sqlite:").map(|path| path.trim_start_matches("//"));
        let path = path.and_then(|path| Path::new(path.split('?').next()?).parent());
        path.filter(|path| !path.as_os_str().is_empty()).unwrap_or(&self.http.state_dir)
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// [`ConfigError::Content`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |text: &str| Err(ConfigError::Content(text.into()));
        let http = &self.http;
        if http.https_listen.is_empty() && http.http_listen.is_empty() {
            return fail("http: neither https_listen nor http_listen has an address; give one");
        }
        if http.certificate.as_os_str().is_empty() != http.key.as_os_str().is_empty() {
            return fail("http: certificate and key go together; give both or none");
        }
        if let Some(address) = http.http_listen.iter().find(|a| !a.ip().is_loopback()) {
            return Err(ConfigError::Content(format!(
                "http.http_listen: {address} is not a loopback address, and plain HTTP is for \
                 clients on this machine only; use https_listen"
            )));
        }
        crate::store::address::check(self.store.url.expose())
            .map_err(|why| ConfigError::Content(format!("store.url: {why}")))?;
        let statistics = &self.statistics.url;
        // Without what it is, which may hold the password.
        if !statistics.is("") && CqlAddress::parse(statistics.expose()).is_none() {
            return fail(
                "statistics.url: this is not cql://[USER:PASSWORD@]HOST:PORT[,HOST:PORT]/KEYSPACE, \
                 with ?consistency=one, local_quorum or quorum, and &datacenter=NAME; the name of \
                 a keyspace has small letters, digits and _",
            );
        }
        if self.api.tokens.iter().any(|token| token.expose().len() < 32) {
            return fail(
                "api.tokens: shorter than 32 characters could be guessed, and they open \
                 everything; take random ones (openssl rand -hex 32)",
            );
        }
        if self.agent.keep_days == 0 {
            return fail("agent.keep_days: 0 would keep nothing; give 1 at least");
        }
        self.cluster.check()?;
        if !self.events.redis.is("") {
            crate::cluster::redis::Address::parse(self.events.redis.expose())
                .map_err(|why| ConfigError::Content(format!("events.redis: {why}")))?;
        } else if !self.cluster.has(cluster::Role::Agent) {
            return fail(
                "cluster.roles: without \"agent\" nobody takes the events of this process; add \
                 that role, or give the Redis that the agents of others read (events.redis)",
            );
        }
        let keys = [("master", &self.keys.master), ("replica", &self.keys.replica)];
        for (key, url) in keys.into_iter().filter(|(_, url)| !url.is("")) {
            // Without the cause, which may hold the password.
            redis::Client::open(url.expose()).map_err(|_| {
                ConfigError::Content(format!(
                    "keys.{key}: no address of a Redis; give redis://HOST:PORT or redis+unix:PATH"
                ))
            })?;
        }
        if self.auth.dev_tokens.iter().any(|token| token.is("")) {
            return fail("auth.dev_tokens: an empty token would let everyone in; remove it");
        }
        if self.auth.expires_ahead_seconds_max == 0 {
            return fail(
                "auth.expires_ahead_seconds_max: 0 would refuse every signed credential; give \
                 some minutes at least",
            );
        }
        if self.limits.audio_streams_per_scope > AUDIO_STREAMS_MAX {
            return Err(ConfigError::Content(format!(
                "limits.audio_streams_per_scope: at most {AUDIO_STREAMS_MAX}; 0 is all of them"
            )));
        }
        if (1..UPLINK_BPS_MIN).contains(&self.limits.uplink_bps_per_peer) {
            return Err(ConfigError::Content(format!(
                "limits.uplink_bps_per_peer: less than {UPLINK_BPS_MIN} carries no call; 0 is no cap"
            )));
        }
        if !(1..=600).contains(&self.link.ping_seconds) || self.link.reconnect_seconds > 600 {
            return fail("link: ping_seconds is 1 to 600, reconnect_seconds 0 to 600");
        }
        if !self.link.redirect.is_empty() && self.link.redirect_to().is_none() {
            return fail(
                "link.redirect: this is no \"HOST:PORT\"; give the name and the HTTPS port of the \
                 other node, or nothing",
            );
        }
        // The largest message takes a second of it: a link is never held up for long.
        if (1..64).contains(&self.link.kibibytes_per_second) {
            return fail("link.kibibytes_per_second: at least 64, or 0 for no limit");
        }
        let name = &self.signal.websocket_subprotocol;
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(token) {
            return fail("signal.websocket_subprotocol: must be a token as in RFC 9110 5.6.2");
        }
        let printable = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && c != '"');
        let is_good = |server: &IceServer| {
            let texts = [&server.url, &server.username, server.credential.expose()];
            texts.into_iter().all(printable)
                && ["stun:", "stuns:", "turn:", "turns:"].iter().any(|p| server.url.starts_with(p))
        };
        if !self.signal.ice_servers.iter().all(is_good) {
            return fail(
                "signal.ice_servers: a url starts with stun:, stuns:, turn: or turns:, and holds, \
                 as user name and credential, printable ASCII only",
            );
        }
        Ok(())
    }
}

/// The default configuration as a commented file.
pub fn default_toml() -> String {
    include_str!("default.toml").to_owned()
}

/// The nearest of the names that serde expected, from its message.
fn did_you_mean(message: &str) -> Option<String> {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (unknown, expected) = names.split_first()?;
    if !message.starts_with("unknown field") {
        return None;
    }
    let near = expected.iter().min_by_key(|name| distance(unknown, name))?;
    (distance(unknown, near) <= unknown.len().max(near.len()) / 2).then(|| (*near).to_owned())
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let cost = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = cost.min(*cell + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_is_the_default() {
        assert_eq!(Config::parse(&default_toml()).unwrap(), Config::default());
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_names_line_and_guess() {
        let error = Config::parse("[http]\nhttps_lisen = []\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(error.contains("did you mean `https_listen`?"), "{error}");
    }

    #[test]
    fn values_must_fit_together() {
        for text in [
            "[http]\nhttps_listen = []\nhttp_listen = []",
            "[http]\ncertificate = 'a.pem'",
            "[http]\nhttp_listen = ['0.0.0.0:8080']",
            "[store]\nurl = 'redis:x'",
            "[statistics]\nurl = 'cql://here'",
            "[api]\ntokens = ['short']",
            "[agent]\nkeep_days = 0",
            "[events]\nredis = 'localhost'",
            "[cluster]\nroles = ['node', 'cnc', 'api']",
            "[auth]\ndev_tokens = ['']",
            "[auth]\nexpires_ahead_seconds_max = 0",
            "[limits]\nuplink_bps_per_peer = 1000",
            "[link]\nping_seconds = 0",
            "[link]\nkibibytes_per_second = 63",
            "[signal]\nwebsocket_subprotocol = 'a b'",
            "[[signal.ice_servers]]\nurl = 'http://x'",
        ] {
            assert!(matches!(Config::parse(text), Err(ConfigError::Content(_))), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = Config::parse(
            "[auth]\ndev_tokens = ['hush']\n[signal]\n\
             ice_servers = [{url = 'turn:x', username = 'u', credential = 'hush'}]",
        )
        .unwrap();
        assert!(config.auth.dev_tokens[0].is("hush"));
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
