//! A worker full of peers that each send sound to nobody: what is left of the path is finding a packet's peer and stream,
//! and measuring it.

use std::net::SocketAddr;

use strait_core::command::{
    Codec, CodecKind, Command, Encoding, Extensions, Kind, PeerId, PublicationId, ScopeId,
};
use strait_core::drop::DropReason;
use strait_core::egress::Egress;
use strait_core::limits::{EVENTS, PEERS_PER_SCOPE};
use strait_core::port::{Meta, Path};
use strait_core::time::{Duration, Now};
use strait_core::worker::{Worker, WorkerConfig};
use strait_wire::rtp;

const OPUS: u8 = 111;
/// 20 ms of Opus at 40 kbit/s.
const PAYLOAD_BYTES: usize = 100;

/// A worker and its peers, which are plain.
pub struct Crowd {
    worker: Worker,
    egress: Egress,
    now: Now,
    /// The last sequence number of each.
    seqs: Vec<u16>,
}

impl Crowd {
    /// So many peers, [`PEERS_PER_SCOPE`] to a scope, each of which has sent a packet.
    ///
    /// # Panics
    /// With more than [`strait_core::limits::PEERS`].
    #[must_use]
    pub fn new(peers: u32) -> Self {
        let mut crowd = Self {
            worker: Worker::new(WorkerConfig { hash_seed: [3, 5], ..WorkerConfig::default() }),
            egress: Egress::default(),
            now: Now::default(),
            seqs: vec![0; peers as usize],
        };
        for id in 0..peers {
            let (scope, peer) = (ScopeId(id / PEERS_PER_SCOPE as u32), PeerId(id));
            if id % PEERS_PER_SCOPE as u32 == 0 {
                crowd.command(Command::CreateScope { scope });
            }
            crowd.command(Command::AddFixedPeer { scope, peer, path: path(id) });
            crowd.command(Command::SetPlain { peer });
            crowd.command(Command::Publish {
                peer,
                publication: PublicationId(id),
                kind: Kind::Audio,
                mid: "0".into(),
                codecs: vec![opus()],
                extensions: Extensions::default(),
                encodings: vec![Encoding { rid: String::new(), ssrc: ssrc(id), rtx_ssrc: 0 }],
                muted: false,
                report_ssrc: 900,
            });
        }
        let all: Vec<u32> = (0..peers).collect();
        for some in all.chunks(EVENTS) {
            let mut packets = crowd.packets(some);
            crowd.turn(&mut packets);
            while crowd.worker.poll_event().is_some() {}
        }
        crowd
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.seqs.len() as u32
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seqs.is_empty()
    }

    /// The next packet of each of these, in this order.
    ///
    /// # Panics
    /// If there is no such peer.
    pub fn packets(&mut self, of: &[u32]) -> Vec<(Path, Vec<u8>)> {
        of.iter().map(|id| (path(*id), self.packet(*id))).collect()
    }

    /// Takes the packets in.
    pub fn turn(&mut self, packets: &mut [(Path, Vec<u8>)]) {
        self.now.at = self.now.at + Duration::from_micros(100);
        for (path, bytes) in packets {
            let meta = Meta { path: *path, at: self.now.at, ecn: 0 };
            self.worker.on_datagram(self.now, meta, bytes, &mut self.egress);
        }
    }

    /// How many packets were found to belong to a stream that nobody listens to, and how many were dropped before.
    #[must_use]
    pub fn found(&self) -> (u64, u64) {
        let drops = DropReason::ALL.iter().zip(self.worker.drops());
        let of = |found: bool| {
            let drops = drops.clone().filter(|drop| (*drop.0 == DropReason::NoSubscriber) == found);
            drops.map(|drop| drop.1).sum()
        };
        (of(true), of(false))
    }

    fn command(&mut self, command: Command) {
        self.worker.on_command(self.now, command, &mut self.egress).expect("accepted");
        self.egress.clear();
        while self.worker.poll_event().is_some() {}
    }

    fn packet(&mut self, id: u32) -> Vec<u8> {
        let seq = &mut self.seqs[id as usize];
        *seq = seq.wrapping_add(1);
        let header = rtp::HeaderBuilder {
            marker: false,
            pt: OPUS,
            seq: *seq,
            timestamp: u32::from(*seq) * 960,
            ssrc: ssrc(id),
            padding: false,
        };
        let mut bytes = vec![7; rtp::FIXED_HEADER_LEN + PAYLOAD_BYTES];
        header.write(&[], std::iter::empty(), &mut bytes).expect("fits");
        bytes
    }
}

/// Numbers that say nothing about each other, as browsers choose them.
fn ssrc(id: u32) -> u32 {
    (id + 1).wrapping_mul(0x9e37_79b1)
}

fn path(id: u32) -> Path {
    let [_, high, middle, low] = id.to_be_bytes();
    let remote = SocketAddr::from(([10, high, middle, low], 40_000));
    Path::udp([192, 0, 2, 2].into(), remote)
}

fn opus() -> Codec {
    Codec {
        pt: OPUS,
        rtx_pt: None,
        kind: CodecKind::Opus,
        identity: "opus/48000/2".into(),
        clock_rate_hz: 48_000,
        nack: false,
        pli: false,
        fir: false,
        transport_cc: false,
        remb: false,
        ccfb: false,
        reduced_size: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_found() {
        let mut crowd = Crowd::new(5001);
        for _ in 0..3 {
            let mut packets = crowd.packets(&[5000, 0, 7, 500, 499, 7]);
            crowd.turn(&mut packets);
        }
        assert_eq!(crowd.found(), (5001 + 3 * 6, 0));
    }
}
