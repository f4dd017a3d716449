//! Single datagrams: what a port of a busy relay reads, and an ICE check with the worker that answers it.

use std::net::SocketAddr;

use crate::random::Random;
use strait_core::command::{Command, IceCredentials, PeerId, ScopeId};
use strait_core::egress::Egress;
use strait_core::port::{Meta, Path};
use strait_core::time::{Duration, Now};
use strait_core::worker::{Worker, WorkerConfig};
use strait_crypt::StunKey;
use strait_wire::demux::Kind;
use strait_wire::stun;

/// Of a hundred datagrams that a relay reads in a call with cameras: media, reports, and now and then a check or a
/// record of DTLS.
const MIX: [(Kind, usize, usize); 6] = [
    (Kind::Rtp, 1200, 60),
    (Kind::Rtp, 110, 24),
    (Kind::Rtcp, 60, 12),
    (Kind::Stun, 100, 2),
    (Kind::Dtls, 600, 1),
    (Kind::Unknown, 40, 1),
];

/// A hundred datagrams as they come, in an order without pattern but the same in every run, with what they are.
#[must_use]
pub fn mixed() -> Vec<(Kind, Vec<u8>)> {
    let mut datagrams: Vec<_> = MIX
        .iter()
        .flat_map(|(kind, len, count)| vec![(*kind, datagram(*kind, *len)); *count])
        .collect();
    Random::new(1).shuffle(&mut datagrams);
    datagrams
}

fn datagram(kind: Kind, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x55; len];
    let start: &[u8] = match kind {
        Kind::Rtp => &[0x90, 96],
        Kind::Rtcp => &[0x81, 201],
        Kind::Stun => &[0, 1, 0, 80, 0x21, 0x12, 0xa4, 0x42],
        Kind::Dtls => &[22, 254, 253],
        Kind::Zrtp => &[16],
        Kind::TurnChannel => &[64],
        Kind::Unknown => &[255],
    };
    bytes[..start.len()].copy_from_slice(start);
    bytes
}

/// A worker with one peer that is about to check its path, as it does every few seconds.
pub struct Check {
    worker: Worker,
    egress: Egress,
    now: Now,
    meta: Meta,
    bytes: Vec<u8>,
}

impl Check {
    /// A peer whose first checks have passed.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is made at some cost")]
    pub fn new() -> Self {
        const UFRAG: &str = "aaUser1";
        const PWD: &str = "a password of the relay";
        let remote = SocketAddr::from(([192, 0, 2, 1], 10_000));
        let path = Path::udp([192, 0, 2, 2].into(), remote);
        let now = Now::default();
        let mut bytes = vec![0; 200];
        let key = StunKey::new(PWD.as_bytes());
        let len = stun::Builder::binding_request(&mut bytes, [7; 12])
            .username(UFRAG.as_bytes(), b"them")
            .priority(1)
            .ice_controlling(1)
            .use_candidate()
            .integrity(|parts| key.sign(parts))
            .fingerprint()
            .finish()
            .expect("fits");
        bytes.truncate(len);
        let mut check = Self {
            worker: Worker::new(WorkerConfig { hash_seed: [3, 5], ..WorkerConfig::default() }),
            egress: Egress::default(),
            now,
            meta: Meta { path, at: now.at, ecn: 0 },
            bytes,
        };
        let (scope, peer) = (ScopeId(1), PeerId(1));
        let local = IceCredentials { ufrag: UFRAG.into(), pwd: PWD.into() };
        let remote = IceCredentials { ufrag: "them".into(), pwd: "x".repeat(24) };
        check.command(Command::CreateScope { scope });
        check.command(Command::AddPeer { scope, peer, local, remote });
        for _ in 0..3 {
            assert_eq!(check.turn(), 1, "it is answered");
        }
        check
    }

    /// Takes the check in; how many answers that makes.
    pub fn turn(&mut self) -> usize {
        self.now.at = self.now.at + Duration::from_millis(1);
        self.meta.at = self.now.at;
        self.worker.on_datagram(self.now, self.meta, &mut self.bytes, &mut self.egress);
        let answers = self.egress.len();
        self.egress.clear();
        answers
    }

    fn command(&mut self, command: Command) {
        self.worker.on_command(self.now, command, &mut self.egress).expect("accepted");
        self.egress.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strait_wire::demux::classify;

    #[test]
    fn the_mix_is_what_it_says() {
        let mixed = mixed();
        assert_eq!(mixed.len(), 100);
        assert!(mixed.iter().all(|(kind, bytes)| classify(bytes) == *kind));
        let media = mixed.iter().filter(|(kind, _)| *kind == Kind::Rtp).count();
        assert_eq!(media, 84);
        assert!(mixed[..50].iter().any(|(kind, _)| *kind == Kind::Rtcp), "shuffled");
    }

    #[test]
    fn every_check_is_answered() {
        let mut check = Check::new();
        assert_eq!((0..100).map(|_| check.turn()).sum::<usize>(), 100);
    }
}
