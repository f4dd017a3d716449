//! What this process is in a cluster, and where the cluster keeps what all of it must know.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use crate::auth::Secret;
use crate::cluster::node::parse_endpoint;
use crate::cluster::region::Network;
use crate::limits::{NODE_NAME_BYTES, PARTITIONS};

/// What this process is in a cluster. With nothing configured it is all of one host.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// What this process does.
    pub roles: Vec<Role>,
    /// Name of this node, that no other has. Needed where there are `mappings`.
    pub name: String,
    /// Where clients reach this node, "HOST:PORT" of its HTTPS. Empty: the first name of the
    /// certificate, and the port that is listened on.
    pub public: String,
    /// The same for links over QUIC. Empty: the host of `public`, with the port listened on.
    pub public_quic: String,
    /// Region of this node. Empty: none.
    pub region: String,
    /// Redis servers that keep mappings and registry, a partition each, in an order that is the same
    /// everywhere. Empty: both are kept in this process, which then is alone.
    pub mappings: Vec<Secret>,
    /// What this node can send, in Mbit/s. 0: not known, and not counted.
    pub capacity_mbps: u64,
    /// Packets that it can send each second. 0: not known, and not counted.
    pub capacity_packets_per_second: u64,
    /// Regions of clients, by address.
    pub regions: Vec<Region>,
    /// The same by country, for addresses that `regions` does not know.
    pub maxmind: Maxmind,
    /// Requests for a scope's node from one address each second; twice as many in a burst. 0 is no
    /// limit.
    pub resolves_per_second: u32,
    /// Addresses of all CnCs, "HOST:PORT", which clients are told.
    pub cncs: Vec<String>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            roles: vec![Role::Node, Role::Cnc, Role::Agent, Role::Api],
            name: String::new(),
            public: String::new(),
            public_quic: String::new(),
            region: String::new(),
            mappings: Vec::new(),
            capacity_mbps: 0,
            capacity_packets_per_second: 0,
            regions: Vec::new(),
            maxmind: Maxmind::default(),
            resolves_per_second: 500,
            cncs: Vec::new(),
        }
    }
}

/// What a process can do in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Has a relay, and scopes on it.
    Node,
    /// Says which node a scope is on.
    Cnc,
    /// Makes usage and statistics of events.
    Agent,
    /// Answers operators and the dashboard.
    Api,
}

/// Clients of a network are in a region.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// "ADDRESS/BITS". Of several that hold an address, the smallest counts.
    pub network: String,
    /// Region.
    pub region: String,
}

/// Regions by country, from a file in MaxMind's format, such as GeoLite2-Country.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Maxmind {
    /// The file, which is read at the start. Empty: none.
    pub file: PathBuf,
    /// Region by country, "DE" and so on (ISO 3166-1).
    pub countries: BTreeMap<String, String>,
    /// Region by continent, of countries that are not listed: AF, AN, AS, EU, NA, OC, SA.
    pub continents: BTreeMap<String, String>,
}

impl Cluster {
    /// Whether this process does it.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        if self.name.is_empty() { "alone" } else { &self.name }
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// [`ConfigError::Content`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let fail = |text: String| Err(ConfigError::Content(text));
        if self.roles.is_empty() {
            return fail("cluster.roles: empty, so that this process would do nothing".into());
        }
        for (key, name) in [("name", &self.name), ("region", &self.region)] {
            if !is_name(name) {
                return fail(format!(
                    "cluster.{key}: {name:?} is not of letters, digits, dots, dashes and \
                     underscores, {NODE_NAME_BYTES} at most"
                ));
            }
        }
        for (key, endpoint) in [("public", &self.public), ("public_quic", &self.public_quic)] {
            if !endpoint.is_empty() && parse_endpoint(endpoint).is_none() {
                return fail(format!("cluster.{key}: {endpoint:?} is no \"HOST:PORT\""));
            }
        }
        if let Some(cnc) = self.cncs.iter().find(|cnc| parse_endpoint(cnc).is_none()) {
            return fail(format!("cluster.cncs: {cnc:?} is no \"HOST:PORT\""));
        }
        for region in &self.regions {
            if Network::parse(&region.network).is_none() {
                return fail(format!(
                    "cluster.regions: {:?} is no \"ADDRESS/BITS\"",
                    region.network
                ));
            }
            if region.region.is_empty() || !is_name(&region.region) {
                return fail(format!("cluster.regions: {:?} is no region", region.region));
            }
        }
        let maxmind = &self.maxmind;
        for (code, region) in maxmind.countries.iter().chain(&maxmind.continents) {
            if code.len() != 2 || !code.chars().all(|c| c.is_ascii_uppercase()) {
                return fail(format!(
                    "cluster.maxmind: {code:?} is no code of two capital letters"
                ));
            }
            if region.is_empty() || !is_name(region) {
                return fail(format!("cluster.maxmind: {region:?} is no region"));
            }
        }
        let is_mapped = !maxmind.countries.is_empty() || !maxmind.continents.is_empty();
        if maxmind.file.as_os_str().is_empty() == is_mapped {
            return fail(
                "cluster.maxmind: file goes with countries or continents, which say what region \
                 each is in; give both or neither"
                    .into(),
            );
        }
        if self.mappings.is_empty() {
            return Ok(());
        }
        if self.mappings.len() > PARTITIONS {
            return fail(format!("cluster.mappings: {PARTITIONS} partitions at most"));
        }
        for url in &self.mappings {
            crate::cluster::redis::Address::parse(url.expose())
                .map_err(|why| ConfigError::Content(format!("cluster.mappings: {why}")))?;
        }
        if self.has(Role::Node) && (self.name.is_empty() || self.public.is_empty()) {
            return fail(
                "cluster: a node of several needs a name that no other has (cluster.name), and \
                 the address that clients reach it by (cluster.public)"
                    .into(),
            );
        }
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    text.len() <= NODE_NAME_BYTES && text.chars().all(is_good)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};

    #[test]
    fn values_must_fit_together() {
        for text in [
            "roles = []",
            "name = 'a b'",
            "public = 'nowhere'",
            "cncs = ['a:0']",
            "regions = [{ network = '10.0.0.0/33', region = 'eu' }]",
            "regions = [{ network = '10.0.0.0/8', region = '' }]",
            "maxmind = { file = 'x.mmdb' }",
            "maxmind = { countries = { DE = 'eu' } }",
            "maxmind = { file = 'x.mmdb', countries = { Germany = 'eu' } }",
            "maxmind = { file = 'x.mmdb', continents = { EU = 'e u' } }",
            "mappings = ['http://x']",
            "mappings = ['redis://127.0.0.1:1']",
        ] {
            let text = format!("[cluster]\n{text}");
            assert!(matches!(Config::parse(&text), Err(ConfigError::Content(_))), "{text}");
        }
        let text = "[cluster]\nroles = ['node', 'cnc', 'agent']\nname = 'n1'\npublic = '[::1]:8443'\n\
                    mappings = ['redis://127.0.0.1:1', 'redis+sentinel://a:1,b:2/part']";
        assert!(Config::parse(text).is_ok());
    }
}
