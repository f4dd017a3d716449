//! In which region a client is, by its address.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;

use crate::config::cluster::{Cluster, Maxmind, Region};
use crate::fault::Fault;
use crate::limits::MAXMIND_BYTES;

/// Networks with their regions.
#[derive(Default)]
pub struct Regions {
    /// The smallest first.
    networks: Vec<(Network, String)>,
    countries: Option<Countries>,
}

/// Which country an address is in, and what region that is in.
struct Countries {
    file: Reader<Vec<u8>>,
    by_country: BTreeMap<String, String>,
    by_continent: BTreeMap<String, String>,
}

/// What is read of a record.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Country<'a>>,
    #[serde(borrow)]
    continent: Option<Continent<'a>>,
}

#[derive(Deserialize)]
struct Country<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Continent<'a> {
    code: Option<&'a str>,
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Regions {
    /// Those of the configuration. What is no network was refused when that was read.
    ///
    /// # Errors
    /// [`crate::fault::Class::Internal`]: the file of countries cannot be read, or is none.
    pub fn new(config: &Cluster) -> Result<Self, Fault> {
        let read =
            |region: &Region| Some((Network::parse(&region.network)?, region.region.clone()));
        let mut networks: Vec<_> = config.regions.iter().filter_map(read).collect();
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.bits));
        let maxmind = &config.maxmind;
        let countries = match maxmind.file.as_os_str().is_empty() {
            true => None,
            false => Some(Countries::new(maxmind)?),
        };
        Ok(Self { networks, countries })
    }

    /// The region of an address, where it is known.
    pub fn of(&self, address: IpAddr) -> Option<&str> {
        let address = address.to_canonical();
        let found = self.networks.iter().find(|(network, _)| network.holds(address));
        let found = found.map(|(_, region)| region.as_str());
        found.or_else(|| self.countries.as_ref()?.of(address))
    }
}

impl Countries {
    fn new(config: &Maxmind) -> Result<Self, Fault> {
        let fail = |why: String| {
            Fault::internal(format!(
                "cluster.maxmind.file: {}: {why}; give a file of countries in MaxMind's format, \
                 such as GeoLite2-Country.mmdb",
                config.file.display()
            ))
        };
        let bytes = read(&config.file).map_err(|error| fail(error.to_string()))?;
        let broken = |error: MaxMindDbError| fail(error.to_string());
        let file = Reader::from_source(bytes).map_err(broken)?;
        // A file that was cut off is found out now, and not when somebody comes.
        file.verify().map_err(broken)?;
        let by_country = config.countries.clone();
        Ok(Self { file, by_country, by_continent: config.continents.clone() })
    }

    fn of(&self, address: IpAddr) -> Option<&str> {
        let record: Record<'_> = self.file.lookup(address).ok()?.decode().ok()??;
        let country = record.country.and_then(|country| country.iso_code);
        let continent = record.continent.and_then(|continent| continent.code);
        let by_country = country.and_then(|code| self.by_country.get(code));
        by_country.or_else(|| self.by_continent.get(continent?)).map(String::as_str)
    }
}

/// A file that is not too large to be kept.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAXMIND_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAXMIND_BYTES {
        true => Err(std::io::Error::other(format!("more than {MAXMIND_BYTES} bytes"))),
        false => Ok(bytes),
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

    fn regions(networks: &[(&str, &str)], maxmind: Maxmind) -> Result<Regions, Fault> {
        let region = |&(network, region): &(&str, &str)| Region {
            network: network.into(),
            region: region.into(),
        };
        let regions = networks.iter().map(region).collect();
        Regions::new(&Cluster { regions, maxmind, ..Cluster::default() })
    }

    #[test]
    fn the_smallest_network_counts() {
        let networks = [
            ("10.0.0.0/8", "wide"),
            ("10.1.0.0/16", "near"),
            ("2001:db8::/32", "six"),
            ("192.0.2.7/32", "one"),
        ];
        let regions_of = regions(&networks, Maxmind::default()).unwrap();
        let of = |address: &str| regions_of.of(address.parse().unwrap());
        assert_eq!(of("10.1.2.3"), Some("near"));
        assert_eq!(of("10.2.2.3"), Some("wide"));
        assert_eq!(of("::ffff:10.2.2.3"), Some("wide"));
        assert_eq!(of("2001:db8::9"), Some("six"));
        assert_eq!(of("192.0.2.7"), Some("one"));
        assert_eq!(of("192.0.2.8"), None);
        let all = regions(&[("0.0.0.0/0", "all")], Maxmind::default()).unwrap();
        assert_eq!(all.of("198.51.100.1".parse().unwrap()), Some("all"));
    }

    /// Writes files of countries (MaxMind DB File Format Specification 2.0): a tree over the bits of
    /// addresses, what its leaves point to, and what it is.
    mod mmdb {
        const TEXT: u8 = 2 << 5;
        const UINT16: u8 = 5 << 5;
        const UINT32: u8 = 6 << 5;
        const MAP: u8 = 7 << 5;

        fn text(out: &mut Vec<u8>, text: &str) {
            out.push(TEXT | u8::try_from(text.len()).unwrap());
            out.extend(text.as_bytes());
        }

        fn number(out: &mut Vec<u8>, kind: u8, value: u32) {
            let bytes = value.to_be_bytes();
            let used = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(kind | u8::try_from(used.len()).unwrap());
            out.extend(used);
        }

        /// Of networks of IPv6, in which `::/96` is IPv4: its first bits, country, continent.
        pub fn file(networks: &[(u128, u32, &str, &str)]) -> Vec<u8> {
            const EMPTY: u32 = u32::MAX;
            let (mut nodes, mut data) = (vec![[EMPTY; 2]], Vec::new());
            // Where data begins is known when all nodes are: until then their places are marked.
            const DATA: u32 = 1 << 30;
            for &(address, bits, country, continent) in networks {
                let mut at = 0;
                for bit in 0..bits {
                    let side = (address >> (127 - bit) & 1) as usize;
                    if bit + 1 == bits {
                        nodes[at][side] = DATA + u32::try_from(data.len()).unwrap();
                    } else {
                        if nodes[at][side] == EMPTY {
                            nodes[at][side] = u32::try_from(nodes.len()).unwrap();
                            nodes.push([EMPTY; 2]);
                        }
                        at = nodes[at][side] as usize;
                    }
                }
                data.push(MAP | 2);
                for (name, key, code) in
                    [("continent", "code", continent), ("country", "iso_code", country)]
                {
                    text(&mut data, name);
                    data.push(MAP | 1);
                    text(&mut data, key);
                    text(&mut data, code);
                }
            }
            let count = u32::try_from(nodes.len()).unwrap();
            let mut out = Vec::new();
            for record in nodes.into_iter().flatten() {
                let value = match record {
                    EMPTY => count,
                    data if data >= DATA => count + 16 + data - DATA,
                    node => node,
                };
                out.extend(&value.to_be_bytes()[1..]);
            }
            out.extend([0; 16]);
            out.extend(data);
            out.extend(b"\xab\xcd\xefMaxMind.com");
            out.push(MAP | 9);
            for (name, kind, value) in [
                ("node_count", UINT32, count),
                ("record_size", UINT16, 24),
                ("ip_version", UINT16, 6),
                ("binary_format_major_version", UINT16, 2),
                ("binary_format_minor_version", UINT16, 0),
            ] {
                text(&mut out, name);
                number(&mut out, kind, value);
            }
            text(&mut out, "database_type");
            text(&mut out, "Test-Country");
            // Types above 7 have a byte of their own: 9 is a uint64, 11 a list.
            text(&mut out, "build_epoch");
            out.extend([1, 2, 1]);
            text(&mut out, "languages");
            out.extend([0, 4]);
            text(&mut out, "description");
            out.push(MAP | 1);
            text(&mut out, "en");
            text(&mut out, "made up");
            out
        }
    }

    #[test]
    fn countries_and_continents_say_the_region_of_other_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("countries.mmdb");
        let four = |a: u128, b: u128| a << 24 | b << 16;
        let bytes = mmdb::file(&[
            (four(198, 51), 96 + 16, "DE", "EU"),
            (four(203, 0), 96 + 16, "GB", "EU"),
            (four(192, 0), 96 + 16, "NA", "AF"),
            (0x2001_0db8 << 96, 32, "US", "NA"),
        ]);
        std::fs::write(&path, &bytes).unwrap();
        let codes = |all: &[(&str, &str)]| {
            all.iter().map(|(code, region)| ((*code).into(), (*region).into())).collect()
        };
        let maxmind = Maxmind {
            file: path.clone(),
            countries: codes(&[("GB", "uk")]),
            continents: codes(&[("EU", "eu"), ("NA", "us")]),
        };
        let known = regions(&[("198.51.7.0/24", "office")], maxmind.clone()).unwrap();
        let of = |address: &str| known.of(address.parse().unwrap());
        assert_eq!(of("198.51.100.1"), Some("eu"));
        assert_eq!(of("198.51.7.1"), Some("office"), "the configuration's own comes first");
        assert_eq!(of("203.0.113.1"), Some("uk"));
        assert_eq!(of("::ffff:203.0.113.1"), Some("uk"));
        assert_eq!(of("2001:db8::1"), Some("us"));
        assert_eq!(of("192.0.2.1"), None, "Namibia is not North America");
        assert_eq!(of("127.0.0.1"), None);

        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            regions(&[], maxmind.clone()).err().expect("it is no such file").reason
        };
        for wrong in [&b"no such file"[..], &bytes[..40], &bytes[bytes.len() - 40..]] {
            let reason = refused(wrong);
            assert!(reason.contains("cluster.maxmind.file"), "{reason}");
            assert!(reason.contains("countries.mmdb"), "{reason}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(regions(&[], maxmind.clone()).err().unwrap().reason.contains("No such file"));
    }
}
