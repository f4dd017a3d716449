//! The network: IPv6, and whether the ports are free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Finding;
use crate::ports::{self, Protocol, Taken};

/// Our own processes: a port that one of them holds is in good hands.
const OURS: &[&str] = &["strait-relay", "strait-control"];

/// Tries the ports on every address of this host, as far as nothing else has them.
pub fn look(media: u16, https: u16, http: u16) -> Vec<Finding> {
    let ipv6 = ports::ipv6_works();
    let mut findings = vec![if ipv6 {
        Finding::ok("IPv6", "works")
    } else {
        Finding::warn(
            "IPv6",
            "not on this host",
            "peers without IPv4 cannot reach it: sysctl -w net.ipv6.conf.all.disable_ipv6=0",
        )
    }];
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    if ipv6 {
        addresses.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
    let mut check = |name, protocol, port, option| {
        findings.push(free(name, protocol, &addresses, port, option));
    };
    check("media port", Protocol::Udp, media, "--media-port");
    check("HTTPS port", Protocol::Tcp, https, "--https-port");
    if media != https {
        check("media port over TCP", Protocol::Tcp, media, "--media-port");
    }
    check("HTTP port", Protocol::Tcp, http, "--http-port");
    findings
}

fn free(
    name: &'static str,
    protocol: Protocol,
    addresses: &[IpAddr],
    port: u16,
    option: &str,
) -> Finding {
    for address in addresses.iter().map(|ip| SocketAddr::new(*ip, port)) {
        let Err(taken) = ports::probe(protocol, address) else { continue };
        return match &taken {
            Taken::By(Some(holder)) if OURS.contains(&holder.name.as_str()) => {
                Finding::ok(name, format!("{protocol} {port}: {} has it", holder.name))
            }
            _ => {
                let explained = taken.explain(protocol, address, option);
                let (found, remedy) =
                    explained.split_once("; remedy: ").unwrap_or((&explained, ""));
                Finding::fail(name, found, remedy)
            }
        };
    }
    Finding::ok(name, format!("{protocol} {port} is free"))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::State;
    use super::*;

    #[test]
    fn a_taken_port_fails_with_its_holder() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let port = socket.local_addr().expect("its address").port();
        let local = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let finding = free("x", Protocol::Udp, &local, port, "--media-port");
        assert_eq!(finding.state, State::Fail);
        assert!(finding.remedy.contains("--media-port"), "{finding:?}");
        drop(socket);
        assert_eq!(free("x", Protocol::Udp, &local, port, "").state, State::Ok);
    }
}
