//! In which region a client is, by its address.

use std::net::IpAddr;

use crate::config::cluster::Region;

/// Networks with their regions.
#[derive(Debug, Default)]
pub struct Regions {
    /// The smallest first.
    networks: Vec<(Network, String)>,
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Regions {
    /// Those of the configuration. What is no network was refused when that was read.
    pub fn new(regions: &[Region]) -> Self {
        let read =
            |region: &Region| Some((Network::parse(&region.network)?, region.region.clone()));
        let mut networks: Vec<_> = regions.iter().filter_map(read).collect();
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.bits));
        Self { networks }
    }

    /// The region of an address, where it is known.
    pub fn of(&self, address: IpAddr) -> Option<&str> {
        let address = address.to_canonical();
        let found = self.networks.iter().find(|(network, _)| network.holds(address));
        found.map(|(_, region)| region.as_str())
    }
}

impl Network {
    /// Reads `ADDRESS/BITS`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, bits })
    }

    fn holds(self, address: IpAddr) -> bool {
        let differ = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        differ >= self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_network_counts() {
        let region =
            |network: &str, region: &str| Region { network: network.into(), region: region.into() };
        let regions = Regions::new(&[
            region("10.0.0.0/8", "wide"),
            region("10.1.0.0/16", "near"),
            region("2001:db8::/32", "six"),
            region("192.0.2.7/32", "one"),
        ]);
        let of = |address: &str| regions.of(address.parse().unwrap());
        assert_eq!(of("10.1.2.3"), Some("near"));
        assert_eq!(of("10.2.2.3"), Some("wide"));
        assert_eq!(of("::ffff:10.2.2.3"), Some("wide"));
        assert_eq!(of("2001:db8::9"), Some("six"));
        assert_eq!(of("192.0.2.7"), Some("one"));
        assert_eq!(of("192.0.2.8"), None);
        let all = Regions::new(&[region("0.0.0.0/0", "all")]);
        assert_eq!(all.of("198.51.100.1".parse().unwrap()), Some("all"));
    }
}
