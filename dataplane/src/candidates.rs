//! Where peers reach this relay (ICE host candidates), best first.

use std::net::{IpAddr, SocketAddr};
use strait_core::port::LocalPort;
use strait_proto::v1::Candidate;
use strait_proto::v1::candidate::{Protocol, Purpose};

/// Type preference of a UDP host candidate (RFC 8445 section 5.1.2.2).
const TYPE_UDP: u32 = 126;
/// Of a TCP host candidate: below all UDP ones (RFC 6544 section 4.2).
const TYPE_TCP: u32 = 90;
/// Direction preference of a passive one (RFC 6544 section 4.2).
const PASSIVE: u32 = 4;

/// Addresses beside loopback, for each family, where only this host is served: a browser has the first one, and each more
/// is a check more.
const OTHERS_OF_THIS_HOST: usize = 2;

/// What the candidates are made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Where UDP listens.
    pub udp: Vec<SocketAddr>,
    /// Where it does at further ports.
    pub further: Vec<(LocalPort, Vec<SocketAddr>)>,
    /// Where ICE-TCP listens.
    pub tcp: Vec<SocketAddr>,
    /// The addresses to tell peers instead, if configured.
    pub announced: Vec<IpAddr>,
    /// The TCP port to tell peers instead, if a front door accepts for us.
    pub tcp_announced_port: Option<u16>,
    /// The host's own addresses, for listeners on all of them.
    pub interfaces: Vec<IpAddr>,
    /// UDP takes datagrams from this host alone, on addresses that the front door does not listen on.
    pub this_host_only: bool,
}

/// The candidates: UDP before TCP, the port for everything before further ones, IPv6 before IPv4 (RFC 8421 section 4), never
/// an unspecified address; and last what is for sound or for pictures alone, without a priority, for no browser is told it.
#[must_use]
pub fn candidates(sources: &Sources) -> Vec<Candidate> {
    let udp = reachable(&sources.udp, sources);
    let tcp = match sources.tcp_announced_port {
        // The front door listens on the same addresses as our UDP sockets, but for those of this host alone.
        Some(port) if !sources.tcp.is_empty() => udp
            .iter()
            .filter(|address| !sources.this_host_only || address.ip().is_loopback())
            .map(|address| SocketAddr::new(address.ip(), port))
            .collect(),
        _ => reachable(&sources.tcp, sources),
    };
    let at = |wanted: Purpose| {
        let ports = sources.further.iter().filter(move |(port, _)| purpose(*port) == wanted);
        ports.flat_map(|(_, places)| reachable(places, sources))
    };
    let of = |protocol: Protocol, addresses: Vec<SocketAddr>| {
        (0_u32..).zip(addresses).map(move |(index, address)| {
            candidate(protocol, Purpose::Any, address, priority(protocol, index))
        })
    };
    let apart = [Purpose::Audio, Purpose::Video].into_iter().flat_map(|purpose| {
        at(purpose).map(move |address| candidate(Protocol::Udp, purpose, address, 0))
    });
    let udp = udp.iter().copied().chain(at(Purpose::Any)).collect();
    of(Protocol::Udp, udp).chain(of(Protocol::TcpPassive, tcp)).chain(apart).collect()
}

fn purpose(port: LocalPort) -> Purpose {
    match port {
        LocalPort::AUDIO => Purpose::Audio,
        LocalPort::VIDEO => Purpose::Video,
        _ => Purpose::Any,
    }
}

fn candidate(
    protocol: Protocol,
    purpose: Purpose,
    address: SocketAddr,
    priority: u32,
) -> Candidate {
    Candidate {
        protocol: protocol.into(),
        address: address.ip().to_string(),
        port: address.port().into(),
        priority,
        purpose: purpose.into(),
    }
}

fn reachable(listeners: &[SocketAddr], sources: &Sources) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for listener in listeners {
        let same_family = |ip: &&IpAddr| ip.is_ipv6() == listener.is_ipv6();
        let announced: Vec<IpAddr> =
            sources.announced.iter().filter(same_family).copied().collect();
        let ips = if !announced.is_empty() {
            announced
        } else if listener.ip().is_unspecified() {
            own(sources.interfaces.iter().filter(same_family).copied().collect())
        } else {
            vec![listener.ip()]
        };
        for ip in ips {
            let address = SocketAddr::new(ip, listener.port());
            if !ip.is_unspecified() && !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found.sort_by_key(SocketAddr::is_ipv4);
    found
}

/// What others can reach; loopback if there is nothing else.
fn own(interfaces: Vec<IpAddr>) -> Vec<IpAddr> {
    let (loopback, mut others): (Vec<_>, Vec<_>) =
        interfaces.into_iter().partition(IpAddr::is_loopback);
    others.retain(|ip| !is_link_local(ip));
    if others.is_empty() { loopback } else { others }
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Where a relay for this host alone listens beside loopback: the first addresses of the families in `listen`, for
/// browsers that do not pair loopback candidates.
#[must_use]
pub fn others_of_this_host(listen: &[IpAddr], interfaces: &[IpAddr]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        let wanted = |ip: &&IpAddr| ip.is_ipv6() == ipv6;
        if !listen.iter().any(|ip| wanted(&ip)) {
            continue;
        }
        let usable = |ip: &&IpAddr| !ip.is_loopback() && !is_link_local(ip) && !listen.contains(ip);
        let others = interfaces.iter().filter(wanted).filter(usable);
        found.extend(others.take(OTHERS_OF_THIS_HOST));
    }
    found
}

/// RFC 8445 section 5.1.2.1, component 1; the n-th address of a kind has the n-th best local preference.
fn priority(protocol: Protocol, index: u32) -> u32 {
    let (kind, local) = match protocol {
        Protocol::TcpPassive => (TYPE_TCP, (PASSIVE << 13) + 0x1fff_u32.saturating_sub(index)),
        _ => (TYPE_UDP, 0xffff_u32.saturating_sub(index)),
    };
    (kind << 24) + (local << 8) + 255
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }
    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }
    fn shown(sources: &Sources) -> Vec<String> {
        let made = candidates(sources);
        assert!(made.windows(2).all(|pair| pair[0].priority > pair[1].priority), "{made:?}");
        let protocol = |c: &Candidate| if c.protocol() == Protocol::Udp { "udp" } else { "tcp" };
        made.iter().map(|c| format!("{} {} {}", protocol(c), c.address, c.port)).collect()
    }

    #[test]
    fn udp_comes_before_tcp_and_ipv6_before_ipv4() {
        let listeners = sockets(&["127.0.0.1:8443", "[::1]:8443"]);
        let sources = Sources { udp: listeners.clone(), tcp: listeners, ..Sources::default() };
        let expected = ["udp ::1 8443", "udp 127.0.0.1 8443", "tcp ::1 8443", "tcp 127.0.0.1 8443"];
        assert_eq!(shown(&sources), expected);
        assert_eq!(candidates(&sources)[0].priority, (126 << 24) + (65535 << 8) + 255);
    }

    #[test]
    fn further_ports_come_after_the_first_and_those_for_one_kind_last() {
        let at = |port: u16| sockets(&[&format!("0.0.0.0:{port}"), &format!("[::]:{port}")]);
        let sources = Sources {
            udp: at(1),
            further: vec![
                (LocalPort::AUDIO, at(2)),
                (LocalPort::VIDEO, at(3)),
                (LocalPort::further(0), at(5)),
                (LocalPort::further(1), at(4)),
            ],
            tcp: at(1),
            announced: ips(&["203.0.113.9"]),
            interfaces: ips(&["2001:db8::1"]),
            ..Sources::default()
        };
        let made = candidates(&sources);
        let (any, apart): (Vec<_>, Vec<_>) =
            made.iter().partition(|one| one.purpose() == Purpose::Any);
        assert!(any.windows(2).all(|pair| pair[0].priority > pair[1].priority), "{any:?}");
        let shown = |made: &[&Candidate]| {
            let one = |c: &&Candidate| format!("{:?} {} {}", c.protocol(), c.address, c.port);
            made.iter().map(one).collect::<Vec<_>>()
        };
        let (v6, v4) = ("2001:db8::1", "203.0.113.9");
        let udp = [1, 5, 4].map(|port| [format!("Udp {v6} {port}"), format!("Udp {v4} {port}")]);
        let tcp = [format!("TcpPassive {v6} 1"), format!("TcpPassive {v4} 1")];
        assert_eq!(shown(&any), [&udp.concat()[..], &tcp].concat());
        let udp = [2, 3].map(|port| [format!("Udp {v6} {port}"), format!("Udp {v4} {port}")]);
        assert_eq!(shown(&apart), udp.concat());
        assert_eq!(apart[0].purpose(), Purpose::Audio);
    }

    #[test]
    fn an_unspecified_address_is_never_told() {
        let mut sources = Sources {
            udp: sockets(&["0.0.0.0:1", "[::]:1"]),
            interfaces: ips(&["127.0.0.1", "192.0.2.1", "169.254.1.1", "::1", "fe80::1"]),
            ..Sources::default()
        };
        assert_eq!(shown(&sources), ["udp ::1 1", "udp 192.0.2.1 1"]);
        sources.interfaces.clear();
        assert_eq!(shown(&sources), [""; 0]);
    }

    #[test]
    fn for_this_host_alone_there_are_some_more_addresses_and_the_front_door_has_none_of_them() {
        let interfaces = ips(&[
            "192.0.2.1",
            "127.0.0.1",
            "169.254.0.1",
            "192.0.2.2",
            "192.0.2.3",
            "::1",
            "fd00::1",
        ]);
        let loopback = ips(&["127.0.0.1"]);
        let others = others_of_this_host(&loopback, &interfaces);
        assert_eq!(others, ips(&["192.0.2.1", "192.0.2.2"]), "no IPv6 was asked for");
        let sources = Sources {
            udp: sockets(&["127.0.0.1:1", "192.0.2.1:1"]),
            tcp: sockets(&["127.0.0.1:40000"]),
            tcp_announced_port: Some(8443),
            this_host_only: true,
            ..Sources::default()
        };
        let expected = ["udp 127.0.0.1 1", "udp 192.0.2.1 1", "tcp 127.0.0.1 8443"];
        assert_eq!(shown(&sources), expected);
    }

    #[test]
    fn announced_addresses_and_the_front_doors_port_are_told_instead() {
        let sources = Sources {
            udp: sockets(&["10.0.0.5:8443"]),
            tcp: sockets(&["127.0.0.1:40000"]),
            announced: ips(&["203.0.113.9", "2001:db8::1"]),
            tcp_announced_port: Some(8443),
            ..Sources::default()
        };
        assert_eq!(shown(&sources), ["udp 203.0.113.9 8443", "tcp 203.0.113.9 8443"]);
    }
}
