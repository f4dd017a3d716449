//! A SOCKS5 proxy (RFC 1928) for one client: it passes TCP, and UDP when it is told to.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A datagram before its payload, for IPv4: reserved, fragment, address type, address, port.
const HEADER: usize = 10;

/// A running proxy. Its threads end with the connections.
pub struct Gate {
    address: SocketAddr,
    passes: Arc<AtomicBool>,
}

impl Gate {
    /// Listens on loopback.
    pub fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, passes) = (listener.local_addr()?, Arc::new(AtomicBool::new(true)));
        let inner = Arc::clone(&passes);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let passes = Arc::clone(&inner);
                std::thread::spawn(move || serve(stream, &passes));
            }
        });
        Ok(Self { address, passes })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether UDP gets through from now on.
    pub fn pass(&self, on: bool) {
        self.passes.store(on, Ordering::Relaxed);
    }
}

fn serve(mut client: TcpStream, passes: &Arc<AtomicBool>) -> io::Result<()> {
    let mut methods = [0; 2];
    client.read_exact(&mut methods)?;
    let mut offered = vec![0; usize::from(methods[1])];
    client.read_exact(&mut offered)?;
    // No authentication.
    client.write_all(&[5, 0])?;
    let mut request = [0; HEADER];
    client.read_exact(&mut request)?;
    let [_, command, _, kind, a, b, c, d, high, low] = request;
    if kind != 1 {
        return client.write_all(&[5, 8, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
    let to = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])));
    if command == 1 {
        let server = TcpStream::connect(to)?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
        let (mut client, mut server) = (client, server);
        std::thread::spawn(move || {
            let _ended = io::copy(&mut up, &mut server);
            let _ended = server.shutdown(std::net::Shutdown::Both);
        });
        let _ended = io::copy(&mut down, &mut client);
        return client.shutdown(std::net::Shutdown::Both);
    }
    let inside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let [high, low] = inside.local_addr()?.port().to_be_bytes();
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, high, low])?;
    let passes = Arc::clone(passes);
    std::thread::spawn(move || relay(&inside, &passes));
    // The association lasts as long as the connection.
    let _ended = client.read(&mut [0; 1]);
    Ok(())
}

/// Passes datagrams between the client and whomever it names. It ends when nothing comes for a while.
fn relay(inside: &UdpSocket, passes: &AtomicBool) -> io::Result<()> {
    inside.set_read_timeout(Some(Duration::from_secs(30)))?;
    let outside = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    outside.set_read_timeout(Some(Duration::from_millis(1)))?;
    inside.set_read_timeout(Some(Duration::from_millis(1)))?;
    let (mut bytes, mut client) = ([0; 2048], None);
    let mut idle = 0;
    while idle < 30_000 {
        idle += 1;
        if let Ok((length, from)) = inside.recv_from(&mut bytes) {
            (client, idle) = (Some(from), 0);
            if let Some((&[_, _, _, 1, a, b, c, d, high, low], payload)) =
                bytes.get(..length).and_then(<[u8]>::split_first_chunk::<HEADER>)
                && passes.load(Ordering::Relaxed)
            {
                let to = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])));
                let _full = outside.send_to(payload, to);
            }
        }
        while let Ok((length, from)) = outside.recv_from(&mut bytes) {
            let (Some(client), SocketAddr::V4(from)) = (client, from) else { continue };
            if passes.load(Ordering::Relaxed) {
                let mut packet = vec![0, 0, 0, 1];
                packet.extend(from.ip().octets());
                packet.extend(from.port().to_be_bytes());
                packet.extend(bytes.get(..length).unwrap_or_default());
                let _full = inside.send_to(&packet, client);
            }
        }
    }
    Ok(())
}
