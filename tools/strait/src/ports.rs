//! Whether a port is free, and if not, who holds it.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A process that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process identifier.
    pub pid: u32,
    /// Its name, as the kernel keeps it (at most 15 bytes).
    pub name: String,
}

/// Why a port cannot be bound.
#[derive(Debug)]
pub enum Taken {
    /// Another socket is there; its process where we may see it.
    By(Option<Holder>),
    /// The address is not this host's, or the port is for the privileged.
    Refused(io::Error),
}

/// Tries to bind, and lets go at once.
pub fn probe(protocol: Protocol, address: SocketAddr) -> Result<(), Taken> {
    let bound = match protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    };
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Taken::By(holder(protocol, address)),
        _ => Taken::Refused(error),
    })
}

/// A port that is free now on an address, for listeners whose number does not matter.
pub fn free(protocol: Protocol, address: IpAddr) -> io::Result<u16> {
    let any = SocketAddr::new(address, 0);
    match protocol {
        Protocol::Tcp => TcpListener::bind(any)?.local_addr(),
        Protocol::Udp => UdpSocket::bind(any)?.local_addr(),
    }
    .map(|bound| bound.port())
}

/// Whether this host speaks IPv6, at least with itself.
pub fn ipv6_works() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

impl Taken {
    /// What, who, remedy.
    pub fn explain(&self, protocol: Protocol, address: SocketAddr, option: &str) -> String {
        match self {
            Self::By(Some(Holder { pid, name })) => format!(
                "{protocol} {address} is taken by {name} (process {pid}); remedy: end it \
                 (kill {pid}), or choose another port with {option}"
            ),
            Self::By(None) => format!(
                "{protocol} {address} is taken by another user's process; remedy: find it with \
                 `ss -lnp` as root, or choose another port with {option}"
            ),
            Self::Refused(error) if error.kind() == io::ErrorKind::PermissionDenied => format!(
                "{protocol} {address} is for the privileged only; remedy: a port from 1024, with \
                 {option}, or the capability CAP_NET_BIND_SERVICE"
            ),
            Self::Refused(error) => format!(
                "{protocol} {address} cannot be bound: {error}; remedy: an address of this host \
                 (`ip address` lists them)"
            ),
        }
    }
}

fn holder(protocol: Protocol, address: SocketAddr) -> Option<Holder> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inodes: Vec<u64> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes(&table, protocol, address.port()))
        .collect();
    processes().find(|process| holds(process.pid, &inodes))
}

/// The inodes of the sockets that are bound to `port`, from a table of /proc/net.
fn inodes(table: &str, protocol: Protocol, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter_map(|columns| {
        let local = columns.get(1)?.rsplit_once(':')?.1;
        let bound = u16::from_str_radix(local, 16).ok()? == port;
        let listens = protocol == Protocol::Udp || *columns.get(3)? == LISTEN;
        if bound && listens { columns.get(9)?.parse().ok() } else { None }
    })
    .collect()
}

fn processes() -> impl Iterator<Item = Holder> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(Holder { pid, name: name.trim().to_owned() })
    })
}

fn holds(pid: u32, inodes: &[u64]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.and_then(|i| i.parse().ok()).is_some_and(|i: u64| inodes.contains(&i))
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let tcp = TcpListener::bind(any).expect("a TCP socket");
            let udp = UdpSocket::bind(any).expect("a UDP socket");
            let address = match protocol {
                Protocol::Tcp => tcp.local_addr(),
                Protocol::Udp => udp.local_addr(),
            }
            .expect("its address");
            let taken = probe(protocol, address).expect_err("it is taken");
            let Taken::By(Some(holder)) = &taken else { panic!("no holder: {taken:?}") };
            assert_eq!(holder.pid, std::process::id());
            let text = taken.explain(protocol, address, "--some-port");
            assert!(text.contains("--some-port") && text.contains(&holder.name), "{text}");
        }
    }

    #[test]
    fn a_foreign_address_is_explained() {
        let foreign = SocketAddr::from(([192, 0, 2, 1], 4000));
        let taken = probe(Protocol::Udp, foreign).expect_err("not an address of this host");
        assert!(taken.explain(Protocol::Udp, foreign, "--x").contains("address of this host"));
    }

    #[test]
    fn tables_of_the_kernel_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1\n\
             1: 0100007F:20FB 0100007F:9999 01 00000000:00000000 00:00000000 00000000  0  0 4712 1\n\
             garbage\n";
        assert_eq!(inodes(table, Protocol::Tcp, 8443), [4711]);
        assert_eq!(inodes(table, Protocol::Tcp, 8444), [0; 0]);
    }
}
