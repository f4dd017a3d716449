//! Whether the two of a scope may send to one another: `docs/reference/transports.md`. Pure state.

use std::fmt;
use std::net::SocketAddr;

use crate::sdp::IceCredentials;

/// A member of a scope, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Who.
    pub peer: &'a str,
    /// Where the relay sees it over UDP. None for one that is not reached so, that is no native
    /// client, or whose address nobody is to know.
    pub place: Option<SocketAddr>,
}

/// What one of two is told of the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// The other one.
    pub peer: String,
    /// Where it is.
    pub place: SocketAddr,
    /// Its credentials.
    pub remote: IceCredentials,
    /// Those of who is told.
    pub local: IceCredentials,
    /// Who is told nominates.
    pub controlling: bool,
}

impl fmt::Debug for Offer {
    // Passwords are nothing for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offer of {} at {}", self.peer, self.place)
    }
}

/// What a member is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Media may go to the other one.
    Offered(Offer),
    /// It may do so no longer, and why.
    Ended(&'static str),
}

/// The two who send to one another, while there are such.
#[derive(Debug, Default)]
pub struct Pair(Option<[End; 2]>);

#[derive(Debug)]
struct End {
    peer: String,
    place: SocketAddr,
    ice: IceCredentials,
}

impl Pair {
    /// Compares with who is there now, and returns what is to be told to whom. `fresh` makes
    /// credentials, which no earlier pair had.
    pub fn settle<'a>(
        &mut self,
        members: impl Iterator<Item = Member<'a>>,
        mut fresh: impl FnMut() -> Option<IceCredentials>,
    ) -> Vec<(String, Told)> {
        let wanted = two(members);
        if let (Some(ends), Ok(two)) = (&self.0, &wanted)
            && ends
                .iter()
                .zip(two)
                .all(|(end, (peer, place))| end.peer == *peer && end.place == *place)
        {
            return Vec::new();
        }
        let before = self.0.take();
        let made = wanted.and_then(|[one, other]| {
            let mut end = |(peer, place): (&str, SocketAddr)| -> Result<End, &'static str> {
                let ice = fresh().ok_or("there is no randomness for credentials")?;
                Ok(End { peer: peer.to_owned(), place, ice })
            };
            Ok([end(one)?, end(other)?])
        });
        match made {
            Ok(ends) => {
                let told = ends.iter().map(|end| end.peer.clone()).collect::<Vec<_>>();
                self.0 = Some(ends);
                let offer = |peer: String| Some((peer.clone(), Told::Offered(self.offer(&peer)?)));
                told.into_iter().filter_map(offer).collect()
            }
            Err(reason) => {
                let ends = before.into_iter().flatten();
                ends.map(|end| (end.peer, Told::Ended(reason))).collect()
            }
        }
    }

    /// What one of the two was told; none for anybody else.
    pub fn offer(&self, peer: &str) -> Option<Offer> {
        let [one, other] = self.0.as_ref()?;
        let (own, other, controlling) = match peer {
            _ if one.peer == peer => (one, other, true),
            _ if other.peer == peer => (other, one, false),
            _ => return None,
        };
        Some(Offer {
            peer: other.peer.clone(),
            place: other.place,
            remote: other.ice.clone(),
            local: own.ice.clone(),
            controlling,
        })
    }
}

/// The two, or why there are none.
fn two<'a>(
    mut members: impl Iterator<Item = Member<'a>>,
) -> Result<[(&'a str, SocketAddr); 2], &'static str> {
    let (Some(one), Some(other)) = (members.next(), members.next()) else {
        return Err("the other one left");
    };
    if members.next().is_some() {
        return Err("a third one came");
    }
    let (Some(a), Some(b)) = (one.place, other.place) else {
        return Err("one of the two is not reached over UDP");
    };
    match a.is_ipv4() == b.is_ipv4() {
        true => Ok([(one.peer, a), (other.peer, b)]),
        false => Err("one of the two has IPv4, the other IPv6"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: &str = "the other one left";
    const THIRD: &str = "a third one came";
    const NO_UDP: &str = "one of the two is not reached over UDP";
    const FAMILIES: &str = "one of the two has IPv4, the other IPv6";

    /// Members as "a1 b2": who, and the last number of the address; "a-": not over UDP; "a6": IPv6.
    fn settle(pair: &mut Pair, members: &str, made: &mut u32) -> Vec<(String, Told)> {
        let place = |text: &str| match text {
            "-" => None,
            "6" => Some("[2001:db8::1]:5".parse().unwrap()),
            host => Some(format!("192.0.2.{host}:5").parse().unwrap()),
        };
        let each = |text: &'static str| {
            let (peer, at) = text.split_at(1);
            Member { peer, place: place(at) }
        };
        let members: &'static str = String::leak(members.to_owned());
        let fresh = || {
            *made += 1;
            IceCredentials::new(&format!("user{made}"), &"x".repeat(22))
        };
        pair.settle(members.split_whitespace().map(each), fresh)
    }

    /// "ab" for offers to both, a reason for its end, "" for nothing.
    fn shown(told: &[(String, Told)]) -> String {
        let each = |(peer, told): &(String, Told)| match told {
            Told::Offered(offer) => {
                assert_ne!(offer.peer, *peer);
                assert_ne!(offer.local, offer.remote);
                peer.clone()
            }
            Told::Ended(reason) => format!("{peer}: {reason}; "),
        };
        told.iter().map(each).collect()
    }

    #[test]
    fn exactly_two_over_udp_are_offered_it_and_it_ends_when_that_does() {
        let both = |reason: &str| format!("a: {reason}; b: {reason}; ");
        // Before, now, what is told.
        let table = [
            ("", "a1", String::new()),
            ("", "a1 b2 c3", String::new()),
            ("", "a1 b-", String::new()),
            ("", "a1 b6", String::new()),
            ("", "a1 b2", "ab".into()),
            ("a1 b2", "a1 b2", String::new()),
            ("a1 b2", "a1 b3", "ab".into()),
            ("a1 b2", "a1 c2", "ac".into()),
            ("a1 b2", "a1 b2 c3", both(THIRD)),
            ("a1 b2", "a1 b2 c-", both(THIRD)),
            ("a1 b2", "a1 b-", both(NO_UDP)),
            ("a1 b2", "a1 b6", both(FAMILIES)),
            ("a1 b2", "a1", both(LEFT)),
            ("a1 b2", "", both(LEFT)),
        ];
        for (before, now, expected) in table {
            let (mut pair, mut made) = (Pair::default(), 0);
            settle(&mut pair, before, &mut made);
            assert_eq!(shown(&settle(&mut pair, now, &mut made)), expected, "{before} → {now}");
            let offered = !expected.is_empty() && !expected.contains(':') || before == now;
            assert_eq!(pair.offer("a").is_some(), offered, "{before} → {now}");
            // Told once.
            assert_eq!(shown(&settle(&mut pair, now, &mut made)), "", "{now} again");
        }
    }

    #[test]
    fn the_two_are_told_the_same_and_never_twice_the_same_credentials() {
        let (mut pair, mut made) = (Pair::default(), 0);
        settle(&mut pair, "a1 b2", &mut made);
        let (a, b) = (pair.offer("a").unwrap(), pair.offer("b").unwrap());
        assert_eq!((&a.local, &a.remote), (&b.remote, &b.local));
        assert!(a.controlling && !b.controlling);
        assert_eq!(
            (a.place.to_string(), b.place.to_string()),
            ("192.0.2.2:5".into(), "192.0.2.1:5".into())
        );
        assert_eq!(pair.offer("c"), None);
        settle(&mut pair, "a1 b2 c3", &mut made);
        settle(&mut pair, "a1 b2", &mut made);
        let again = pair.offer("a").unwrap();
        assert!(again.local != a.local && again.remote != a.remote);
        assert!(!format!("{a:?}").contains("xxxx"), "passwords are nothing for logs");
    }

    #[test]
    fn without_randomness_nothing_is_offered() {
        let mut pair = Pair::default();
        let members = ["192.0.2.1:5", "192.0.2.2:5"].map(|place| place.parse().ok());
        let members = ["a", "b"].into_iter().zip(members);
        let members = members.map(|(peer, place)| Member { peer, place });
        assert_eq!(pair.settle(members, || None), Vec::new());
        assert_eq!(pair.offer("a"), None);
    }
}
