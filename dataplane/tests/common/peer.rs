//! A peer: ICE checks, DTLS, SRTP over one UDP socket, one TCP connection, or that with TLS. Blocking.

use super::Client;
use rustls::{ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use strait_crypt::StunKey;
use strait_crypt::dtls::{Certificate, Fingerprint, Handshake, Output, Role};
use strait_crypt::srtp::{Inbound, Outbound};
use strait_proto::v1;
use strait_proto::v1::candidate::Protocol;
use strait_wire::demux::{self, Kind};
use strait_wire::rtcp;
use strait_wire::rtp::{HeaderBuilder, Packet};
use strait_wire::stun::{Builder, Class, Message};

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Peer {
    wire: Wire,
    pub certificate: Certificate,
    local: v1::IceCredentials,
    remote: v1::IceCredentials,
    theirs: Fingerprint,
    inbound: Option<Inbound>,
    outbound: Option<Outbound>,
}

enum Wire {
    Udp(UdpSocket, SocketAddr),
    Tcp(TcpStream, Vec<u8>),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>, Vec<u8>),
}

/// A packet as the peer sees it after decryption.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    pub ssrc: u32,
    pub pt: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub mid: Option<Vec<u8>>,
    pub payload: Vec<u8>,
}

impl Peer {
    /// Adds itself to a scope and connects.
    pub async fn join(
        client: &mut Client,
        scope: &str,
        name: &str,
        over: Protocol,
        ipv6: bool,
    ) -> Self {
        let mut peer = Self::add(client, scope, name, over, ipv6, None).await;
        tokio::task::spawn_blocking(move || {
            peer.check();
            assert!(peer.try_shake(PATIENCE), "no DTLS handshake");
            peer
        })
        .await
        .unwrap()
    }

    /// Adds itself to a scope, with another fingerprint if one is given.
    pub async fn prepare(
        client: &mut Client,
        scope: &str,
        name: &str,
        fingerprint: Option<[u8; 32]>,
    ) -> Self {
        Self::add(client, scope, name, Protocol::Udp, false, fingerprint).await
    }

    async fn add(
        client: &mut Client,
        scope: &str,
        name: &str,
        over: Protocol,
        ipv6: bool,
        fingerprint: Option<[u8; 32]>,
    ) -> Self {
        let certificate = Certificate::generate().unwrap();
        let shown = fingerprint.unwrap_or(certificate.fingerprint_sha256());
        let local = super::ice(name.len() * 1000 + usize::from(name.as_bytes()[0]));
        let request = v1::AddPeerRequest {
            remote_ice: Some(local.clone()),
            remote_fingerprint: Some(super::fingerprint(&shown)),
            data_channels: Some(v1::DataChannels {
                message_bytes_max: 256 << 10,
                ..v1::DataChannels::default()
            }),
            ..super::add_peer(scope, name)
        };
        let answer = client.add_peer(request).await.unwrap().into_inner();
        let candidate = answer
            .candidates
            .iter()
            .find(|c| c.protocol() == over && c.address.contains(':') == ipv6)
            .unwrap();
        let to = SocketAddr::new(candidate.address.parse().unwrap(), candidate.port as u16);
        let wire = match over {
            Protocol::TcpPassive => {
                let stream = TcpStream::connect(to).unwrap();
                stream.set_nodelay(true).unwrap();
                Wire::Tcp(stream, Vec::new())
            }
            _ => Wire::Udp(UdpSocket::bind((to.ip(), 0)).unwrap(), to),
        };
        let remote = answer.local_ice.unwrap();
        let theirs = fingerprint_of(&answer.fingerprint_sha256);
        Self { wire, certificate, local, remote, theirs, inbound: None, outbound: None }
    }

    /// Goes by this connection from now on.
    pub fn go_by(&mut self, tls: StreamOwned<ClientConnection, TcpStream>) {
        self.wire = Wire::Tls(Box::new(tls), Vec::new());
    }

    /// Where the node is.
    pub fn node(&self) -> Option<SocketAddr> {
        match &self.wire {
            Wire::Udp(_, to) => Some(*to),
            Wire::Tcp(..) | Wire::Tls(..) => None,
        }
    }

    /// Sends there from now on, by UDP.
    pub fn send_to(&mut self, to: SocketAddr) {
        self.wire = Wire::Udp(UdpSocket::bind((to.ip(), 0)).unwrap(), to);
    }

    /// Sends from this address from now on, by UDP.
    pub fn send_from(&mut self, ip: IpAddr) {
        let to = self.node().expect("by UDP");
        self.wire = Wire::Udp(UdpSocket::bind((ip, 0)).unwrap(), to);
    }

    /// Somebody at this address saw a check of this peer's that nominates, and sends it again from there until it is answered.
    pub fn check_is_copied(&self, ip: IpAddr) -> UdpSocket {
        let copier = UdpSocket::bind((ip, 0)).unwrap();
        copier.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (check, to) = (self.request(), self.node().expect("by UDP"));
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "the copy is not answered");
            copier.send_to(&check, to).unwrap();
            if copier.recv(&mut [0; 2048]).is_ok() {
                return copier;
            }
        }
    }

    /// Marks what it sends from now on with an ECN code point.
    pub fn mark(&self, ecn: u8) {
        let Wire::Udp(socket, _) = &self.wire else { panic!("TCP marks by itself") };
        strait_io::set_traffic_class(socket, ecn).unwrap();
    }

    /// One ICE check that nominates; its answer is not waited for.
    pub fn check_while_media_flows(&mut self) {
        let check = self.request();
        self.send(&check);
    }

    /// One ICE check that nominates, until it is answered. Returns where it came from, as the node sees it.
    pub fn check(&mut self) -> SocketAddr {
        let check = self.request();
        let key = StunKey::new(self.remote.pwd.as_bytes());
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.send(&check);
            let Some(answer) = self.receive(Duration::from_millis(500)) else { continue };
            let Ok(answer) = Message::parse(&answer) else { continue };
            assert_eq!(answer.class(), Class::Success);
            answer.check_integrity(|parts| key.sign(parts)).unwrap();
            return answer.xor_mapped_address().unwrap();
        }
        panic!("no answer to an ICE check");
    }

    fn request(&self) -> Vec<u8> {
        let mut bytes = [0; 300];
        let key = StunKey::new(self.remote.pwd.as_bytes());
        let length = Builder::binding_request(&mut bytes, [5; 12])
            .username(self.remote.ufrag.as_bytes(), self.local.ufrag.as_bytes())
            .priority(1 << 24)
            .ice_controlling(77)
            .use_candidate()
            .integrity(|parts| key.sign(parts))
            .fingerprint()
            .finish()
            .unwrap();
        bytes[..length].to_vec()
    }

    /// Sends an ICE check from its own address for somebody else's user fragment, whose password it does not know.
    pub fn forge(&mut self, other: &Self) {
        let mut bytes = [0; 300];
        let key = StunKey::new(b"a guess");
        let length = Builder::binding_request(&mut bytes, [6; 12])
            .username(other.remote.ufrag.as_bytes(), other.local.ufrag.as_bytes())
            .priority(1 << 24)
            .ice_controlling(78)
            .use_candidate()
            .integrity(|parts| key.sign(parts))
            .fingerprint()
            .finish()
            .unwrap();
        self.send(&bytes[..length]);
    }

    /// Its side of DTLS, for who wants more of it than keys.
    pub fn begin(&self) -> Handshake {
        Handshake::new(&self.certificate, Role::Client, self.theirs.clone(), Instant::now())
    }

    /// Whether DTLS comes to an end in time.
    pub fn try_shake(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        let theirs = self.theirs.clone();
        let mut handshake = Handshake::new(&self.certificate, Role::Client, theirs, start);
        while start.elapsed() < patience {
            loop {
                match handshake.poll() {
                    Output::Transmit(datagram) => self.send(&datagram),
                    Output::Connected(keys) => {
                        self.inbound = Some(keys.inbound().unwrap());
                        self.outbound = Some(keys.outbound().unwrap());
                    }
                    Output::Timeout(_) => break,
                    other => panic!("{other:?}"),
                }
            }
            if self.inbound.is_some() {
                return true;
            }
            match self.receive(Duration::from_millis(50)) {
                Some(datagram) if demux::classify(&datagram) == Kind::Dtls => {
                    handshake.handle(Instant::now(), &datagram);
                }
                _ => handshake.handle_timeout(Instant::now()),
            }
        }
        false
    }

    /// Sends one RTP packet with its MID in extension 1.
    pub fn say(&mut self, ssrc: u32, seq: u16, payload: &[u8]) {
        self.say_as(super::OPUS as u8, ssrc, seq, payload);
    }

    /// The same with another payload type.
    pub fn say_as(&mut self, pt: u8, ssrc: u32, seq: u16, payload: &[u8]) {
        self.say_with(&[(1, &b"0"[..])], pt, ssrc, seq, payload);
    }

    /// The same so many dB below overload, in extension 2.
    pub fn say_at_level(&mut self, below_overload_db: u8, ssrc: u32, seq: u16) {
        let extensions = [(1, &b"0"[..]), (2, &[below_overload_db][..])];
        self.say_with(&extensions, super::OPUS as u8, ssrc, seq, &[7; 60]);
    }

    fn say_with(
        &mut self,
        extensions: &[(u8, &[u8])],
        pt: u8,
        ssrc: u32,
        seq: u16,
        payload: &[u8],
    ) {
        let mut packet = [0; 1500];
        let header = HeaderBuilder {
            pt,
            seq,
            timestamp: u32::from(seq) * 960,
            ssrc,
            ..HeaderBuilder::default()
        };
        let length = header.write(&[], extensions.iter().copied(), &mut packet).unwrap();
        packet[length..length + payload.len()].copy_from_slice(payload);
        let length = length + payload.len();
        let protected = self.outbound.as_mut().unwrap().protect_rtp(&mut packet, length).unwrap();
        self.send(&packet[..protected]);
    }

    /// The next RTP packet that comes within `patience`; RTCP is checked and passed over.
    pub fn hear(&mut self, patience: Duration) -> Option<Heard> {
        let start = Instant::now();
        while let Some(left) = patience.checked_sub(start.elapsed()) {
            let mut datagram = self.receive(left)?;
            let inbound = self.inbound.as_mut().unwrap();
            match demux::classify(&datagram) {
                Kind::Rtp => {
                    let length = inbound.unprotect_rtp(&mut datagram).unwrap();
                    let packet = Packet::parse(&datagram[..length]).unwrap();
                    let header = packet.header();
                    return Some(Heard {
                        ssrc: header.ssrc(),
                        pt: header.pt(),
                        seq: header.seq(),
                        timestamp: header.timestamp(),
                        mid: header.extension(3).map(<[u8]>::to_vec),
                        payload: packet.payload().to_vec(),
                    });
                }
                Kind::Rtcp => drop(inbound.unprotect_rtcp(&mut datagram).unwrap()),
                _ => {}
            }
        }
        None
    }

    /// The SSRC of which a key frame is asked for by PLI within `patience`; what else comes is passed over.
    pub fn asked(&mut self, patience: Duration) -> Option<u32> {
        let start = Instant::now();
        while let Some(left) = patience.checked_sub(start.elapsed()) {
            let mut datagram = self.receive(left)?;
            if demux::classify(&datagram) == Kind::Rtcp {
                let length = self.inbound.as_mut().unwrap().unprotect_rtcp(&mut datagram).unwrap();
                let pli = rtcp::packets(&datagram[..length]).find_map(|packet| match packet {
                    Ok(rtcp::Packet::Pli(pli)) => Some(pli.media_ssrc),
                    _ => None,
                });
                if pli.is_some() {
                    return pli;
                }
            }
        }
        None
    }

    /// What REMB says within `patience` that it may send; what else comes is passed over.
    pub fn told_bps(&mut self, patience: Duration) -> Option<u64> {
        let start = Instant::now();
        while let Some(left) = patience.checked_sub(start.elapsed()) {
            let mut datagram = self.receive(left)?;
            if demux::classify(&datagram) == Kind::Rtcp {
                let length = self.inbound.as_mut().unwrap().unprotect_rtcp(&mut datagram).unwrap();
                let told = rtcp::packets(&datagram[..length]).find_map(|packet| match packet {
                    Ok(rtcp::Packet::Remb(remb)) => Some(remb.bitrate),
                    _ => None,
                });
                if told.is_some() {
                    return told;
                }
            }
        }
        None
    }

    pub fn send(&mut self, datagram: &[u8]) {
        match &mut self.wire {
            Wire::Udp(socket, to) => drop(socket.send_to(datagram, *to).unwrap()),
            Wire::Tcp(stream, _) => stream.write_all(&framed(datagram)).unwrap(),
            Wire::Tls(tls, _) => tls.write_all(&framed(datagram)).unwrap(),
        }
    }

    pub fn receive(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let patience = patience.max(Duration::from_millis(1));
        match &mut self.wire {
            Wire::Udp(socket, _) => {
                socket.set_read_timeout(Some(patience)).unwrap();
                let mut bytes = [0; 2048];
                let length = socket.recv(&mut bytes).ok()?;
                Some(bytes[..length].to_vec())
            }
            Wire::Tcp(stream, waiting) => {
                stream.set_read_timeout(Some(patience)).unwrap();
                frame(stream, waiting)
            }
            Wire::Tls(tls, waiting) => {
                tls.sock.set_read_timeout(Some(patience)).unwrap();
                frame(tls, waiting)
            }
        }
    }
}

fn framed(datagram: &[u8]) -> Vec<u8> {
    [&(datagram.len() as u16).to_be_bytes(), datagram].concat()
}

fn frame(stream: &mut impl Read, waiting: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some((header, rest)) = waiting.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*header));
            if let Some(frame) = rest.get(..length) {
                let frame = frame.to_vec();
                waiting.drain(..2 + length);
                return Some(frame);
            }
        }
        let mut bytes = [0; 2048];
        match stream.read(&mut bytes) {
            Ok(0) => return None,
            Ok(length) => waiting.extend_from_slice(&bytes[..length]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn fingerprint_of(hex: &str) -> Fingerprint {
    let bytes: Vec<u8> = hex.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    Fingerprint::new("sha-256", &bytes).unwrap()
}
