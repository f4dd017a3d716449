//! Bare loops: what the kernel, and the cipher, cost without a server around them.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use strait_io::batch::{Incoming, Outgoing, Poller, Socket, thread_cpu_time};
use strait_io::limits::BATCH;

/// How the loop sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// One `sendto` for each packet.
    Sendto,
    /// Batches of packets by `sendmmsg`.
    Sendmmsg,
    /// Batches of runs by `sendmmsg` with UDP_SEGMENT.
    Runs,
}

/// A loop to be run.
#[derive(Clone, Debug, clap::Args)]
pub struct Loop {
    /// How to send
    #[arg(long, value_enum)]
    pub way: Way,
    /// Destination address; its ports count up from --port
    #[arg(long)]
    pub to: std::net::IpAddr,
    /// First destination port
    #[arg(long)]
    pub port: u16,
    /// Destinations
    #[arg(long)]
    pub destinations: u16,
    /// Packets that each destination gets at a time
    #[arg(long)]
    pub run: usize,
    /// Bytes of a packet
    #[arg(long)]
    pub bytes: usize,
    /// Times a second that every destination gets its packets
    #[arg(long)]
    pub bursts: f64,
    /// Seconds that are counted, after one that is not
    #[arg(long)]
    pub seconds: f64,
}

/// What came out.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Packets that the kernel took.
    pub packets: u64,
    /// CPU time of the loop's thread for each, in nanoseconds.
    pub ns_per_packet: f64,
    /// Share of a core.
    pub cores: f64,
}

impl Loop {
    /// Runs it.
    ///
    /// # Errors
    /// The socket cannot be made, or the kernel takes nothing.
    pub fn run(&self) -> io::Result<Cost> {
        let socket = Socket::bind(SocketAddr::new(strait_side(self.to), 0))?;
        let payload = vec![0x5a_u8; self.bytes * self.run.max(1)];
        let destinations: Vec<SocketAddr> =
            (0..self.destinations).map(|n| SocketAddr::new(self.to, self.port + n)).collect();
        let interval = Duration::from_secs_f64(1.0 / self.bursts.max(0.001));
        let warm = Duration::from_secs(1);
        let start = Instant::now();
        let (mut next, mut counted) = (start, None);
        let mut packets = 0;
        loop {
            let now = Instant::now();
            if counted.is_none() && now - start >= warm {
                counted = Some((now, thread_cpu_time()));
                packets = 0;
            }
            if let Some((from, cpu)) = counted
                && (now - from).as_secs_f64() >= self.seconds
            {
                let cpu = thread_cpu_time().saturating_sub(cpu);
                return Ok(Cost {
                    packets,
                    ns_per_packet: cpu.as_nanos() as f64 / packets.max(1) as f64,
                    cores: cpu.as_secs_f64() / (now - from).as_secs_f64(),
                });
            }
            if let Some(wait) = next.checked_duration_since(now) {
                std::thread::sleep(wait);
            }
            next += interval;
            packets += self.burst(&socket, &destinations, &payload)?;
        }
    }

    fn burst(&self, socket: &Socket, to: &[SocketAddr], payload: &[u8]) -> io::Result<u64> {
        let packet = payload.get(..self.bytes).unwrap_or(payload);
        match self.way {
            Way::Sendto => {
                for _ in 0..self.run {
                    for to in to {
                        socket.send_to(packet, *to)?;
                    }
                }
            }
            Way::Sendmmsg => {
                let one = |to: &SocketAddr| Outgoing { to: Some(*to), bytes: packet, segment: 0 };
                for _ in 0..self.run {
                    let messages: Vec<_> = to.iter().map(one).collect();
                    send_all(socket, &messages)?;
                }
            }
            Way::Runs => {
                let segment = if self.run > 1 { self.bytes as u16 } else { 0 };
                let one = |to: &SocketAddr| Outgoing { to: Some(*to), bytes: payload, segment };
                let messages: Vec<_> = to.iter().map(one).collect();
                send_all(socket, &messages)?;
            }
        }
        Ok((self.run * to.len()) as u64)
    }
}

fn send_all(socket: &Socket, messages: &[Outgoing<'_>]) -> io::Result<()> {
    let mut rest = messages;
    while !rest.is_empty() {
        let sent = socket.send(rest.get(..rest.len().min(BATCH)).unwrap_or(rest))?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Any address of the family.
fn strait_side(to: std::net::IpAddr) -> std::net::IpAddr {
    match to {
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Reads and forgets what comes to `count` ports from `port` on, for so long. How many datagrams came.
///
/// # Errors
/// A port is taken.
pub fn sink(address: std::net::IpAddr, port: u16, count: u16, seconds: f64) -> io::Result<u64> {
    let poller = Poller::new()?;
    let sockets = (0..count).map(|n| Socket::bind(SocketAddr::new(address, port + n)));
    let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
    for (token, socket) in (0..).zip(&sockets) {
        poller.add(socket, token)?;
    }
    let (mut incoming, mut ready, mut datagrams) = (Incoming::new(), Vec::new(), 0_u64);
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        poller.wait(Duration::from_millis(50), &mut ready);
        let now = strait_io::Clock.instant();
        for token in &ready {
            let Some(socket) = sockets.get(*token as usize) else { continue };
            let received = socket.receive(now, &mut incoming);
            for at in 0..received {
                datagrams +=
                    incoming.message(at).map_or(0, |(arrival, _)| arrival.datagrams as u64);
            }
        }
    }
    Ok(datagrams)
}

/// CPU time of AES-128-GCM over one packet out of place, in nanoseconds, with so many keys in turn, `run` packets each.
#[must_use]
pub fn gcm(bytes: usize, keys: usize, run: usize) -> f64 {
    let key = |n: usize| UnboundKey::new(&AES_128_GCM, &[n as u8; 16]).map(LessSafeKey::new);
    let Ok(keys) = (0..keys.max(1)).map(key).collect::<Result<Vec<_>, _>>() else {
        return f64::NAN;
    };
    let (header, plain) = ([0x90_u8; 24], vec![7_u8; bytes]);
    let mut out = vec![0_u8; (bytes + 16) * run.max(1)];
    let (mut nonce, mut packets) = (0_u64, 0_u64);
    let mut best = f64::INFINITY;
    // The best of several: what the cipher costs when nothing else disturbs it.
    for _ in 0..7 {
        let (start, first) = (thread_cpu_time(), packets);
        while thread_cpu_time() - start < Duration::from_millis(100) {
            for key in &keys {
                for room in out.chunks_exact_mut(bytes + 16) {
                    nonce += 1;
                    let mut number = [0; NONCE_LEN];
                    number[..8].copy_from_slice(&nonce.to_be_bytes());
                    let (to, tag) = room.split_at_mut(bytes);
                    let number = Nonce::assume_unique_for_key(number);
                    let sealed = key.seal_out_of_place_scatter(
                        number,
                        Aad::from(&header),
                        &plain,
                        to,
                        &[],
                        tag,
                    );
                    packets += u64::from(sealed.is_ok());
                }
            }
        }
        let cpu = thread_cpu_time() - start;
        best = best.min(cpu.as_nanos() as f64 / (packets - first).max(1) as f64);
    }
    best
}
