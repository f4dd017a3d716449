//! `cql://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]]/KEYSPACE[?consistency=…&datacenter=…]`.

use scylla::statement::Consistency;

/// Where the statistics are.
#[derive(Clone)]
pub struct Address {
    /// `HOST:PORT` of some of the servers; the others are learnt of them.
    pub nodes: Vec<String>,
    /// User and password.
    pub login: Option<(String, String)>,
    /// The keyspace, which is there already.
    pub keyspace: String,
    /// How many replicas confirm what is written and what is read.
    pub consistency: Consistency,
    /// Whose servers are preferred.
    pub datacenter: Option<String>,
}

/// The port of CQL.
const PORT: u16 = 9042;

impl Address {
    /// Reads one. None: it is no such address.
    pub fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("cql://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, keyspace) = rest.rsplit_once('/')?;
        let (login, hosts) = match place.rsplit_once('@') {
            Some((login, hosts)) => (Some(login.split_once(':')?), hosts),
            None => (None, place),
        };
        let is_word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        if !is_word(keyspace) || keyspace.len() > 48 {
            return None;
        }
        let mut address = Self {
            nodes: hosts.split(',').map(node).collect::<Option<_>>()?,
            login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
            keyspace: keyspace.to_owned(),
            consistency: Consistency::LocalQuorum,
            datacenter: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=')? {
                ("consistency", "one") => address.consistency = Consistency::One,
                ("consistency", "local_quorum") => address.consistency = Consistency::LocalQuorum,
                ("consistency", "quorum") => address.consistency = Consistency::Quorum,
                ("datacenter", name) if !name.is_empty() => address.datacenter = Some(name.into()),
                _ => return None,
            }
        }
        Some(address)
    }
}

fn node(text: &str) -> Option<String> {
    let bare = text.rsplit(']').next().unwrap_or_default();
    match bare.rsplit_once(':') {
        Some((_, port)) => port.parse::<u16>().ok().filter(|port| *port > 0).map(|_| text.into()),
        None if text.is_empty() => None,
        None => Some(format!("{text}:{PORT}")),
    }
    .filter(|node| !node.starts_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address = Address::parse("cql://ann:p@ss@a:9043,[::1],b/strait_1?consistency=one");
        let address = address.unwrap();
        assert_eq!(address.nodes, ["a:9043", "[::1]:9042", "b:9042"]);
        assert_eq!(address.login, Some(("ann".into(), "p@ss".into())));
        assert_eq!(
            (address.keyspace.as_str(), address.consistency),
            ("strait_1", Consistency::One)
        );
        let usual = Address::parse("cql://a/b?datacenter=eu").unwrap();
        assert_eq!(usual.consistency, Consistency::LocalQuorum);
        assert_eq!(usual.datacenter.as_deref(), Some("eu"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for url in [
            "cql://a",
            "cql:///b",
            "cql://a,/b",
            "cql://a:0/b",
            "cql://a:x/b",
            "cql://:9042/b",
            "cql://ann@a/b",
            "cql://a/Big",
            "cql://a/b?consistency=any",
            "cql://a/b?x=1",
            "mysql://a/b",
        ] {
            assert!(Address::parse(url).is_none(), "{url}");
        }
    }
}
