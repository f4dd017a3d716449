//! What the kernel refuses: on real interfaces in network namespaces, and by a filter that answers in its stead.

mod filter;
mod host;
mod injected;
mod old;
mod receive;
mod send;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use strait_core::egress::Egress;
use strait_core::port::Path;
use strait_io::{Backend, Bound, Counters, Drop, Options, bind};

/// Both ways to speak UDP.
const BACKENDS: [Backend; 2] = [Backend::Mmsg, Backend::Uring];

/// One worker's sockets on one address.
fn open(backend: Backend, ip: IpAddr) -> Bound {
    bind(&Options { udp: vec![ip], backend, ..Options::default() }).unwrap()
}

fn client(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn path(local: IpAddr, remote: SocketAddr) -> Path {
    Path::udp(local, remote)
}

fn push(egress: &mut Egress, path: Path, lengths: &[usize], fill: u8) {
    for length in lengths {
        assert!(egress.push(path, &vec![fill; *length]));
    }
}

/// Sends from near to far until something arrives: a link that was just made drops silently until the kernel's link watch
/// has seen it.
fn introduce(near: &UdpSocket, far: &UdpSocket) {
    far.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let to = far.local_addr().unwrap();
    while near.send_to(b"hello", to).is_err() || recv(far, &mut [0; 8]).is_err() {}
    // One more may be on its way that was taken for lost.
    while recv(far, &mut [0; 8]).is_ok() {}
    far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
}

/// The next datagram.
fn heard(client: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 2048];
    let length = recv(client, &mut bytes).expect("a datagram");
    bytes[..length].to_vec()
}

/// Receives; a ring of this thread that just ended interrupts it once.
fn recv(client: &UdpSocket, bytes: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match client.recv(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// How many were dropped, by reason; reasons without drops are left out.
fn drops(counters: &Counters) -> Vec<(&'static str, u64)> {
    let all = Drop::ALL.iter().map(|&reason| (reason.name(), counters.drops(reason)));
    all.filter(|(_, count)| *count > 0).collect()
}
