//! Whether the two of a scope may send to one another: `docs/reference/transports.md`. Pure state.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::limits;
use crate::sdp::IceCredentials;

/// How the other of two gets to know where one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A native client: the node says where the relay sees it over UDP.
    Told(SocketAddr),
    /// A browser: it tells by itself, and the node passes that on.
    Signalled,
}

/// Who of the members may go directly, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directly {
    /// Nobody is to know its address, or it cannot.
    No,
    /// As native clients do.
    Native,
    /// As browsers do.
    Browser,
}

/// A member of a scope, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Who.
    pub peer: &'a str,
    /// None for one that is not reached over UDP, whose address nobody is to know, or who may not
    /// get all that the other one sends.
    pub way: Option<Way>,
}

/// What one of two is told of the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// The other one.
    pub peer: String,
    /// Which pair this is: what is signalled names it.
    pub number: u64,
    /// How it is found.
    pub way: Way,
    /// Its credentials.
    pub remote: IceCredentials,
    /// Those of who is told.
    pub local: IceCredentials,
    /// Who is told nominates.
    pub controlling: bool,
    /// What the other one takes of who is told, a native client.
    pub wanted: Vec<String>,
}

impl fmt::Debug for Offer {
    // Passwords are nothing for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offer {} of {}: {:?}", self.number, self.peer, self.way)
    }
}

/// What one of two browsers says to the other, which alone understands it.
#[derive(Clone, PartialEq, Eq)]
pub struct Signal {
    /// Which pair it is about.
    pub number: u64,
    /// What it says.
    pub text: String,
}

impl fmt::Debug for Signal {
    // Addresses and fingerprints are nothing for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal of pair {}, {} bytes", self.number, self.text.len())
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
pub struct Pair {
    ends: Option<[End; 2]>,
    /// Pairs that there were.
    number: u64,
    /// Each beginning makes both open connections, and one alone can cause it.
    beginnings: Allowance,
    /// When the two that had to wait may begin, and whether that was told.
    held: Option<(Instant, bool)>,
}

#[derive(Debug)]
struct End {
    peer: String,
    way: Way,
    ice: IceCredentials,
}

/// So many at once, and then one every so often.
#[derive(Debug, Default, Clone, Copy)]
pub struct Allowance {
    /// When as many as were taken would have come one by one.
    used: Option<Instant>,
}

impl Allowance {
    /// Takes one.
    ///
    /// # Errors
    /// When there is one again.
    pub fn take(&mut self, now: Instant, at_once: u32, each: Duration) -> Result<(), Instant> {
        let used = self.used.map_or(now, |used| used.max(now)) + each;
        match used.checked_sub(each * at_once).filter(|free| *free > now) {
            Some(free) => Err(free),
            None => {
                self.used = Some(used);
                Ok(())
            }
        }
    }
}

impl Pair {
    /// Compares with who is there now, and returns what is to be told to whom. `fresh` makes
    /// credentials, which no earlier pair had.
    pub fn settle<'a>(
        &mut self,
        now: Instant,
        members: impl Iterator<Item = Member<'a>>,
        mut fresh: impl FnMut() -> Option<IceCredentials>,
    ) -> Vec<(String, Told)> {
        let wanted = two(members);
        if let (Some(ends), Ok(two)) = (&self.ends, &wanted)
            && ends.iter().zip(two).all(|(end, (peer, way))| end.peer == *peer && end.way == *way)
        {
            return Vec::new();
        }
        let before = self.ends.take();
        let made = wanted.and_then(|[one, other]| {
            self.begin(now)?;
            let mut end = |(peer, way): (&str, Way)| -> Result<End, &'static str> {
                let ice = fresh().ok_or("there is no randomness for credentials")?;
                Ok(End { peer: peer.to_owned(), way, ice })
            };
            Ok([end(one)?, end(other)?])
        });
        match made {
            Ok(ends) => {
                let told = ends.iter().map(|end| end.peer.clone()).collect::<Vec<_>>();
                self.ends = Some(ends);
                self.number += 1;
                let offer = |peer: String| Some((peer.clone(), Told::Offered(self.offer(&peer)?)));
                told.into_iter().filter_map(offer).collect()
            }
            Err(reason) => {
                let ends = before.into_iter().flatten();
                ends.map(|end| (end.peer, Told::Ended(reason))).collect()
            }
        }
    }

    fn begin(&mut self, now: Instant) -> Result<(), &'static str> {
        let (at_once, each) = (limits::DIRECT_BEGINNINGS, limits::DIRECT_BEGINNING_EACH);
        self.beginnings.take(now, at_once, each).map_err(|free| {
            if self.held.is_none_or(|(at, _)| at != free) {
                self.held = Some((free, false));
            }
            "it began anew too often, and has to wait for some seconds"
        })
    }

    /// When to settle once more, as two had to wait. Each time is told once.
    pub fn due(&mut self) -> Option<Instant> {
        let (at, is_told) = self.held.as_mut()?;
        (!std::mem::replace(is_told, true)).then_some(*at)
    }

    /// What one of the two was told, but for what is wanted; none for anybody else.
    pub fn offer(&self, peer: &str) -> Option<Offer> {
        let [one, other] = self.ends.as_ref()?;
        let (own, other, controlling) = match peer {
            _ if one.peer == peer => (one, other, true),
            _ if other.peer == peer => (other, one, false),
            _ => return None,
        };
        Some(Offer {
            peer: other.peer.clone(),
            number: self.number,
            way: other.way,
            remote: other.ice.clone(),
            local: own.ice.clone(),
            controlling,
            wanted: Vec::new(),
        })
    }

    /// For whom is what one of two browsers signals to the other. None: that pair is no more, or
    /// never was; who signals may not have heard of it yet.
    pub fn signal(&self, from: &str, number: u64) -> Option<&str> {
        let [one, other] = self.ends.as_ref().filter(|_| number == self.number)?;
        let (own, other) = match from {
            _ if one.peer == from => (one, other),
            _ if other.peer == from => (other, one),
            _ => return None,
        };
        (own.way == Way::Signalled).then_some(&*other.peer)
    }
}

/// The two, or why there are none.
fn two<'a>(
    mut members: impl Iterator<Item = Member<'a>>,
) -> Result<[(&'a str, Way); 2], &'static str> {
    let (Some(one), Some(other)) = (members.next(), members.next()) else {
        return Err("the other one left");
    };
    if members.next().is_some() {
        return Err("a third one came");
    }
    let (Some(a), Some(b)) = (one.way, other.way) else {
        return Err("one of the two is not reached over UDP, or may not go directly");
    };
    match (a, b) {
        (Way::Told(a), Way::Told(b)) if a.is_ipv4() != b.is_ipv4() => {
            Err("one of the two has IPv4, the other IPv6")
        }
        (Way::Told(_), Way::Told(_)) | (Way::Signalled, Way::Signalled) => {
            Ok([(one.peer, a), (other.peer, b)])
        }
        _ => Err("one of the two is a browser, the other is none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: &str = "the other one left";
    const THIRD: &str = "a third one came";
    const NO_UDP: &str = "one of the two is not reached over UDP, or may not go directly";
    const FAMILIES: &str = "one of the two has IPv4, the other IPv6";
    const KINDS: &str = "one of the two is a browser, the other is none";

    /// Members as "a1 b2": who, and the last number of the address; "a-": not over UDP; "a6": IPv6;
    /// "aw": a browser. Long after whatever was before.
    fn settle(pair: &mut Pair, members: &str, made: &mut u32) -> Vec<(String, Told)> {
        pair.beginnings = Allowance::default();
        settle_at(Instant::now(), pair, members, made)
    }

    fn settle_at(
        now: Instant,
        pair: &mut Pair,
        members: &str,
        made: &mut u32,
    ) -> Vec<(String, Told)> {
        let place = |text: &str| match text {
            "-" => None,
            "w" => Some(Way::Signalled),
            "6" => Some(Way::Told("[2001:db8::1]:5".parse().unwrap())),
            host => Some(Way::Told(format!("192.0.2.{host}:5").parse().unwrap())),
        };
        let each = |text: &'static str| {
            let (peer, at) = text.split_at(1);
            Member { peer, way: place(at) }
        };
        let members: &'static str = String::leak(members.to_owned());
        let fresh = || {
            *made += 1;
            IceCredentials::new(&format!("user{made}"), &"x".repeat(22))
        };
        pair.settle(now, members.split_whitespace().map(each), fresh)
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
            ("", "a1 bw", String::new()),
            ("", "aw bw", "ab".into()),
            ("", "aw bw c-", String::new()),
            ("", "a1 b2", "ab".into()),
            ("a1 b2", "a1 b2", String::new()),
            ("a1 b2", "a1 b3", "ab".into()),
            ("a1 b2", "a1 c2", "ac".into()),
            ("a1 b2", "a1 b2 c3", both(THIRD)),
            ("a1 b2", "a1 b2 c-", both(THIRD)),
            ("a1 b2", "a1 b-", both(NO_UDP)),
            ("a1 b2", "a1 b6", both(FAMILIES)),
            ("a1 b2", "a1 bw", both(KINDS)),
            ("aw bw", "aw bw", String::new()),
            ("aw bw", "aw bw c1", both(THIRD)),
            ("aw bw", "aw b-", both(NO_UDP)),
            ("aw bw", "aw cw", "ac".into()),
            ("aw bw", "aw", both(LEFT)),
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
        let told = |place: &str| Way::Told(place.parse().unwrap());
        assert_eq!((a.way, b.way), (told("192.0.2.2:5"), told("192.0.2.1:5")));
        assert_eq!(pair.offer("c"), None);
        settle(&mut pair, "a1 b2 c3", &mut made);
        settle(&mut pair, "a1 b2", &mut made);
        let again = pair.offer("a").unwrap();
        assert!(again.local != a.local && again.remote != a.remote);
        assert!(!format!("{a:?}").contains("xxxx"), "passwords are nothing for logs");
    }

    #[test]
    fn signals_reach_the_other_of_this_pair_alone() {
        let (mut pair, mut made) = (Pair::default(), 0);
        assert_eq!(pair.signal("a", 0), None);
        settle(&mut pair, "a1 b2", &mut made);
        assert_eq!(pair.signal("a", 1), None, "native clients have no need to");
        settle(&mut pair, "aw bw", &mut made);
        let number = pair.offer("a").unwrap().number;
        assert_eq!(pair.offer("b").unwrap().number, number);
        assert_eq!(pair.signal("a", number), Some("b"));
        assert_eq!(pair.signal("b", number), Some("a"));
        assert_eq!(pair.signal("c", number), None);
        assert_eq!(pair.signal("a", number - 1), None);
        settle(&mut pair, "aw bw c1", &mut made);
        assert_eq!(pair.signal("a", number), None);
        settle(&mut pair, "aw bw", &mut made);
        assert_eq!(pair.signal("a", number), None, "that was another pair");
        assert_eq!(pair.signal("a", number + 1), Some("b"));
    }

    #[test]
    fn who_changes_its_mind_all_the_time_makes_it_begin_seldom() {
        let (mut pair, mut made) = (Pair::default(), 0);
        let start = Instant::now();
        let mut offered = Vec::new();
        for tenths in 0..600_u32 {
            let now = start + Duration::from_millis(100) * tenths;
            let told = shown(&settle_at(now, &mut pair, "aw bw", &mut made));
            if told == "ab" {
                offered.push(tenths);
            }
            settle_at(now, &mut pair, "aw b-", &mut made);
        }
        let at_once = usize::try_from(limits::DIRECT_BEGINNINGS).unwrap();
        let later = 60 / usize::try_from(limits::DIRECT_BEGINNING_EACH.as_secs()).unwrap();
        assert_eq!(offered[..at_once], [0, 1, 2, 3, 4, 5], "who has a reason need not wait");
        assert_eq!(offered.len(), at_once + later - 1, "{offered:?}");
    }

    #[test]
    fn two_that_had_to_wait_begin_when_they_may() {
        let (mut pair, mut made) = (Pair::default(), 0);
        let start = Instant::now();
        for _ in 0..limits::DIRECT_BEGINNINGS {
            settle_at(start, &mut pair, "aw bw", &mut made);
            assert_eq!(pair.due(), None);
            settle_at(start, &mut pair, "aw", &mut made);
        }
        for members in ["aw bw", "aw cw"] {
            assert_eq!(settle_at(start, &mut pair, members, &mut made), []);
        }
        let due = pair.due().expect("when to settle again");
        assert!(due > start && due <= start + limits::DIRECT_BEGINNING_EACH);
        assert_eq!(pair.due(), None, "told once");
        settle_at(start, &mut pair, "aw cw", &mut made);
        assert_eq!(pair.due(), None, "nor when they wait for the same time");
        assert_eq!(shown(&settle_at(due, &mut pair, "aw cw", &mut made)), "ac");
        // What stands already and is to be another one ends meanwhile.
        let told = shown(&settle_at(due, &mut pair, "aw bw", &mut made));
        assert!(told.contains("too often"), "{told}");
        assert!(pair.due().is_some_and(|next| next > due));
    }

    #[test]
    fn without_randomness_nothing_is_offered() {
        let mut pair = Pair::default();
        let members = ["192.0.2.1:5", "192.0.2.2:5"].map(|place| place.parse().ok());
        let members = ["a", "b"].into_iter().zip(members);
        let members = members.map(|(peer, place)| Member { peer, way: place.map(Way::Told) });
        assert_eq!(pair.settle(Instant::now(), members, || None), Vec::new());
        assert_eq!(pair.offer("a"), None);
    }
}
