//! CnCs, which know what node has a scope: which of them is asked, and what.

use super::path::Random;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;
use strait_link::v1::auth::Credential;

/// What a CnC is given to answer, connection and TLS included.
pub const ANSWER: Duration = Duration::from_secs(2);
/// CnCs that are asked, in one round or at all: a round of silent ones takes half a minute.
pub const RESOLVERS: usize = 16;
/// The application of development tokens.
const DEV_APPLICATION: &str = "dev";

/// Where something listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Place {
    /// Reads `HOST:PORT`; an IPv6 address stands in brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let inside = host.strip_prefix('[').map(|host| host.strip_suffix(']'));
        let host = inside.unwrap_or((!host.contains(':')).then_some(host))?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let is_one = !host.is_empty() && host.bytes().all(is_host);
        is_one.then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A CnC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// HTTPS.
    pub tls: bool,
    /// Where it listens.
    pub place: Place,
    /// What stands before `/resolve`.
    path: String,
}

impl Resolver {
    /// Reads `https://HOST[:PORT][/PATH]`; the same with `http` of a loopback or private host alone: whoever could change
    /// the answer on its way would choose the node.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        Self::parse_insecure(url).filter(|it| it.tls || is_private(&it.place.host))
    }

    /// The same with `http` of any host. The node itself is known by its certificate all the same.
    #[must_use]
    pub fn parse_insecure(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (tls, port) = match scheme {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return None,
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let with_port = || Place::parse(&format!("{authority}:{port}"));
        let place = Place::parse(authority).or_else(with_port)?;
        let path = path.trim_end_matches('/');
        let is_path = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        path.bytes().all(is_path).then_some(Self { tls, place, path })
    }
}

/// Of this machine or a network that is not the internet, by its address or by what such names end in (RFC 6761, 6762,
/// 8375, and those of one word).
fn is_private(host: &str) -> bool {
    match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Err(_) => {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            let ends = [".localhost", ".local", ".internal", ".home.arpa"];
            !host.contains(['.', ':']) || ends.iter().any(|end| host.ends_with(end))
        }
    }
}

/// Several nodes, and those who know which of them has a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The CnCs; the first is random, the others follow in turn until one answers. At most [`RESOLVERS`].
    pub resolvers: Vec<Resolver>,
    /// Whose scope it is. Empty: the application of the credential.
    pub application_id: String,
    /// Where the client is, if it knows; empty otherwise.
    pub region: String,
}

/// A question to a CnC: GET of this over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who is asked.
    pub resolver: Resolver,
    /// Path and query.
    pub target: String,
}

/// The rounds.
pub(super) struct Search {
    resolvers: Vec<Resolver>,
    /// Path and query, but for what failed.
    target: String,
    next: Option<usize>,
    left: usize,
}

impl Search {
    pub(super) fn new(cluster: &Cluster, credential: &Credential, scope_id: &str) -> Option<Self> {
        let mut resolvers = cluster.resolvers.clone();
        resolvers.truncate(RESOLVERS);
        let application_id = match cluster.application_id.as_str() {
            "" => application_of(credential),
            named => named.to_owned(),
        };
        let (application_id, scope_id) = (encoded(&application_id), encoded(scope_id));
        let mut target = format!("/resolve?applicationId={application_id}&scopeId={scope_id}");
        if !cluster.region.is_empty() {
            let _infallible = write!(target, "&region={}", encoded(&cluster.region));
        }
        (!resolvers.is_empty()).then_some(Self { resolvers, target, next: None, left: 0 })
    }

    /// A round begins: at a random CnC the first time, then at the one that answered, or behind those that did not.
    pub(super) fn begin(&mut self, random: &mut dyn Random) {
        self.left = self.resolvers.len();
        if self.next.is_none() {
            let mut chance = [0; 4];
            random.fill(&mut chance);
            self.next = usize::try_from(u32::from_be_bytes(chance)).ok();
        }
    }

    /// Who is asked next; none once all were in this round. `failed`: the node that did.
    pub(super) fn ask(&mut self, failed: &str) -> Option<Question> {
        self.left = self.left.checked_sub(1)?;
        let at = self.next.unwrap_or(0) % self.resolvers.len();
        let resolver = self.resolvers.get(at)?.clone();
        self.next = Some(at + 1);
        let mut target = format!("{}{}", resolver.path, self.target);
        if !failed.is_empty() {
            let _infallible =
                write!(target, "&reconnect=true&streamerEndpoint={}", encoded(failed));
        }
        Some(Question { resolver, target })
    }

    /// The one that was asked last answered.
    pub(super) fn answered(&mut self) {
        self.next = self.next.map(|next| next.wrapping_sub(1));
    }
}

/// Whom a credential is of. Who verifies it is the node: this finds it alone.
fn application_of(credential: &Credential) -> String {
    let token = match credential {
        Credential::Signed(signed) => return signed.application_id.clone(),
        Credential::Token(token) => token,
    };
    let claims = token.split('.').nth(1).and_then(|claims| {
        let claims = crate::base64::decode(&claims.replace('-', "+").replace('_', "/"))?;
        serde_json::from_slice::<serde_json::Value>(&claims).ok()
    });
    let issuer = claims.as_ref().and_then(|claims| claims.get("iss")?.as_str());
    issuer.unwrap_or(DEV_APPLICATION).to_owned()
}

/// As a part of a query (RFC 3986 section 2).
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    struct Fixed(u8);

    impl Random for Fixed {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn search(count: usize, credential: &Credential) -> Search {
        let resolvers = (0..count).map(|n| Resolver::parse(&format!("https://cnc{n}/")).unwrap());
        let (application_id, region) = (String::new(), "eu west".into());
        let cluster = Cluster { resolvers: resolvers.collect(), application_id, region };
        Search::new(&cluster, credential, "room/1").unwrap()
    }

    #[test]
    fn places_and_resolvers_are_read() {
        for text in ["a.example:443", "[::1]:8443", "10.0.0.1:1"] {
            assert_eq!(Place::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "a", ":1", "a:0", "a:65536", "::1:443", "[::1:443", "a b:1", "a/b:1"] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
        for (url, tls, place, path) in [
            ("https://a.example", true, "a.example:443", ""),
            ("https://a.example:8443/", true, "a.example:8443", ""),
            ("http://[::1]/cnc/", false, "[::1]:80", "/cnc"),
        ] {
            let found = Resolver::parse(url).unwrap();
            assert_eq!((found.tls, found.place.to_string(), found.path.as_str()), {
                (tls, place.to_owned(), path)
            });
        }
        for wrong in ["a.example:443", "ftp://a", "https://", "https://a/?x", "https://a/ b"] {
            assert_eq!(Resolver::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn without_tls_a_resolver_is_on_a_private_host_or_taken_on_purpose() {
        for host in [
            "127.0.1.3:8080",
            "[::1]",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.1.1",
            "[fd00::1]",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
            "localhost:80",
            "cnc",
            "a.LOCALHOST",
            "cnc.local",
            "cnc.internal.",
            "cnc.home.arpa",
        ] {
            assert!(Resolver::parse(&format!("http://{host}")).is_some(), "{host}");
        }
        for host in ["8.8.8.8", "cnc.example.org", "[2001:db8::1]", "172.32.0.1", "notlocal.com"] {
            assert_eq!(Resolver::parse(&format!("http://{host}")), None, "{host}");
            assert!(Resolver::parse(&format!("https://{host}")).is_some(), "{host}");
            assert!(Resolver::parse_insecure(&format!("http://{host}")).is_some(), "{host}");
        }
    }

    #[test]
    fn a_random_one_is_asked_first_and_each_once_in_a_round() {
        let token = Credential::Token("secret".into());
        let first = |chance| {
            let mut search = search(3, &token);
            search.begin(&mut Fixed(chance));
            let round = std::iter::from_fn(|| search.ask("")).collect::<Vec<_>>();
            assert_eq!(round.len(), 3);
            let hosts = round.iter().map(|asked| asked.resolver.place.host.clone());
            assert_eq!(hosts.collect::<HashSet<_>>().len(), 3);
            round[0].resolver.place.host.clone()
        };
        assert_eq!((0..3).map(first).collect::<HashSet<_>>().len(), 3);
        let mut search = search(3, &token);
        search.begin(&mut Fixed(0));
        let asked = [search.ask("").unwrap(), search.ask("").unwrap()];
        search.answered();
        search.begin(&mut Fixed(9));
        let again = search.ask("[::1]:8443").unwrap();
        assert_eq!(again.resolver, asked[1].resolver, "who answered is asked again");
        assert_eq!(
            again.target,
            "/resolve?applicationId=dev&scopeId=room%2F1&region=eu%20west\
             &reconnect=true&streamerEndpoint=%5B%3A%3A1%5D%3A8443"
        );
    }

    #[test]
    fn the_application_is_that_of_the_credential() {
        // {"alg":"none"}.{"iss":"acme","x":"~~~???"}, with both letters that base64url has for itself.
        let token = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJhY21lIiwieCI6In5-fj8_PyJ9.x";
        let signed =
            strait_link::v1::SignedCredential { application_id: "acme".into(), ..<_>::default() };
        for credential in [Credential::Token(token.into()), Credential::Signed(signed)] {
            let mut search = search(1, &credential);
            search.begin(&mut Fixed(0));
            assert!(search.ask("").unwrap().target.contains("applicationId=acme&"));
        }
    }
}
