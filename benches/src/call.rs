//! A call with the network taken out: one camera and its subscribers on one worker, which is warm, so that what is
//! measured is neither its first packets nor its memory growing.

use std::net::SocketAddr;

use strait_core::command::{
    Codec, CodecKind, Command, Encoding, Extensions, Kind, PeerId, Preferences, PublicationId,
    ScopeId, SubscriptionId,
};
use strait_core::egress::Egress;
use strait_core::port::{Meta, Path};
use strait_core::time::{Duration, Now};
use strait_core::worker::{Worker, WorkerConfig};
use strait_crypt::srtp::{Outbound, Profile, SessionKeys, TAG_MAX};
use strait_wire::rtp;

/// How long an open frame waits for its last packet, as the relay does by default.
pub const GATHER: Duration = Duration::from_micros(250);
/// The most subscribers of one camera: its scope has room for one peer less than
/// [`strait_core::limits::PEERS_PER_SCOPE`].
pub const SUBSCRIBERS_MAX: u32 = strait_core::limits::PEERS_PER_SCOPE as u32 - 1;
/// Bytes of media in a packet; every other one has a byte less, as encoders split frames.
pub const PAYLOAD_BYTES: usize = 1160;

const SCOPE: ScopeId = ScopeId(1);
const PUBLICATION: PublicationId = PublicationId(0);
const VIDEO_SSRC: u32 = 5;
const VP8: u8 = 96;
const RTX: u8 = 97;
const IDS: Extensions = Extensions {
    mid: 1,
    rid: 0,
    repaired_rid: 0,
    audio_level: 0,
    abs_send_time: 2,
    transport_cc: 3,
    playout_delay: 0,
    video_orientation: 0,
    dependency_descriptor: 0,
};
/// 30 frames a second.
const FRAME: Duration = Duration::from_micros(33_333);
/// Between two turns without a rest.
const TURN: Duration = Duration::from_micros(100);
const FRAME_TICKS: u32 = 3000;
/// Packets after which nothing grows any more: more than a retransmission cache holds.
const WARM_UP_PACKETS: usize = 1100;

/// A camera and its subscribers.
pub struct Call {
    worker: Worker,
    egress: Egress,
    now: Now,
    publisher: Option<Outbound>,
    seq: u16,
    frames: u32,
    subscribers: u32,
}

/// The packets of one frame as they come from the network. Each can be taken in once: it is decrypted in place, and
/// would be a replay the second time.
pub type Frame = Vec<Vec<u8>>;

impl Call {
    /// A call whose peers have keys of their own, or send RTP as it is; what each subscriber gets is rewritten for it in
    /// either case.
    ///
    /// # Panics
    /// With more than [`SUBSCRIBERS_MAX`] subscribers.
    #[must_use]
    pub fn new(profile: Option<Profile>, subscribers: u32) -> Self {
        let mut call = Self {
            worker: Worker::new(WorkerConfig { hash_seed: [3, 5], gather: GATHER, stun: false }),
            egress: Egress::default(),
            now: Now::default(),
            publisher: profile.map(|profile| {
                let SessionKeys { remote_key, remote_salt, .. } = &keys(profile, 0);
                Outbound::new(profile, remote_key, remote_salt).expect("lengths of the profile")
            }),
            seq: 0,
            frames: 0,
            subscribers,
        };
        call.command(Command::CreateScope { scope: SCOPE });
        for id in 0..=subscribers {
            let peer = PeerId(id);
            call.command(Command::AddFixedPeer { scope: SCOPE, peer, path: path(id) });
            call.command(match profile {
                Some(profile) => Command::SetKeys { peer, keys: keys(profile, id) },
                None => Command::SetPlain { peer },
            });
        }
        call.command(Command::Publish {
            peer: PeerId(0),
            publication: PUBLICATION,
            kind: Kind::Video,
            mid: "0".into(),
            codecs: codecs(),
            extensions: IDS,
            encodings: vec![Encoding { rid: String::new(), ssrc: VIDEO_SSRC, rtx_ssrc: 0 }],
            muted: false,
            report_ssrc: 900,
        });
        for id in 1..=subscribers {
            call.command(Command::Subscribe {
                peer: PeerId(id),
                subscription: SubscriptionId(id),
                kind: Kind::Video,
                mid: "1".into(),
                codecs: codecs(),
                extensions: IDS,
                ssrc: 1000 + id,
                rtx_ssrc: 2000 + id,
                first_seq: 7,
                as_sent: false,
                publication: Some(PUBLICATION),
                preferences: Preferences::default(),
            });
        }
        for _ in 0..WARM_UP_PACKETS.div_ceil(10) {
            let mut frame = call.frame(10);
            let sent = call.turn(&mut frame);
            assert!(sent >= call.copies(10), "every copy goes out, and requests for a key frame");
            call.rest();
        }
        call
    }

    /// The next frame of the camera.
    pub fn frame(&mut self, packets: usize) -> Frame {
        let frame = (1..=packets).map(|n| self.packet(n == 1, n == packets)).collect();
        self.frames += 1;
        frame
    }

    /// Takes a frame in and forwards it; how many datagrams that makes.
    pub fn turn(&mut self, frame: &mut [Vec<u8>]) -> usize {
        self.now.at = self.now.at + TURN;
        let meta = Meta { path: path(0), at: self.now.at, ecn: 0 };
        for bytes in frame {
            self.worker.on_datagram(self.now, meta, bytes, &mut self.egress);
        }
        let mut sent = 0;
        if self.worker.is_due(self.now.at) {
            self.worker.forward(self.now, &mut self.egress, |egress| {
                sent += egress.len();
                egress.clear();
            });
        }
        sent += self.egress.len();
        self.egress.clear();
        sent
    }

    /// Does what is due between frames: reports, feedback, timers.
    pub fn rest(&mut self) {
        self.now.at = self.now.at + FRAME;
        self.worker.on_timeout(self.now, &mut self.egress);
        self.egress.clear();
        while self.worker.poll_event().is_some() {}
    }

    /// Copies that a frame of so many packets makes.
    #[must_use]
    pub fn copies(&self, packets: usize) -> usize {
        packets * self.subscribers as usize
    }

    fn command(&mut self, command: Command) {
        self.worker.on_command(self.now, command, &mut self.egress).expect("accepted");
        self.egress.clear();
    }

    fn packet(&mut self, first: bool, last: bool) -> Vec<u8> {
        self.seq = self.seq.wrapping_add(1);
        let header = rtp::HeaderBuilder {
            marker: last,
            pt: VP8,
            seq: self.seq,
            timestamp: self.frames.wrapping_mul(FRAME_TICKS),
            ssrc: VIDEO_SSRC,
            padding: false,
        };
        let number = self.seq.to_be_bytes();
        let elements =
            [(IDS.mid, &b"0"[..]), (IDS.abs_send_time, &[0; 3]), (IDS.transport_cc, &number)];
        let mut bytes = vec![7; 100 + PAYLOAD_BYTES + TAG_MAX];
        let start = header.write(&[], elements, &mut bytes).expect("fits");
        let len = start + PAYLOAD_BYTES - usize::from(self.seq % 2);
        // A VP8 descriptor with a picture id (RFC 7741); only the first frame is a key frame.
        let [high, low] = (self.frames as u16 | 0x8000).to_be_bytes();
        let descriptor =
            [if first { 0x90 } else { 0x80 }, 0x80, high, low, u8::from(self.frames != 0)];
        bytes[start..start + descriptor.len()].copy_from_slice(&descriptor);
        let len = self
            .publisher
            .as_mut()
            .map_or(len, |keys| keys.protect_rtp(&mut bytes, len).expect("a new packet"));
        bytes.truncate(len);
        bytes
    }
}

/// Keys of a peer, seen from the relay.
pub(crate) fn keys(profile: Profile, id: u32) -> SessionKeys {
    let of = |len: usize, what: u8| (0..len).map(|at| at as u8 ^ what ^ id as u8).collect();
    SessionKeys {
        profile,
        local_key: of(profile.key_len(), 1),
        local_salt: of(profile.salt_len(), 2),
        remote_key: of(profile.key_len(), 3),
        remote_salt: of(profile.salt_len(), 4),
    }
}

fn path(id: u32) -> Path {
    let remote = SocketAddr::from(([192, 0, 2, 1], 10_000 + id as u16));
    Path::udp([192, 0, 2, 2].into(), remote)
}

fn codecs() -> Vec<Codec> {
    vec![Codec {
        pt: VP8,
        rtx_pt: Some(RTX),
        kind: CodecKind::Vp8,
        identity: "vp8/90000".into(),
        clock_rate_hz: 90_000,
        nack: true,
        pli: true,
        fir: false,
        transport_cc: true,
        remb: false,
        ccfb: false,
        reduced_size: false,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_to_everyone_however_it_is_protected() {
        for profile in [None, Some(Profile::AeadAes128Gcm), Some(Profile::AesCm128HmacSha1_80)] {
            let mut call = Call::new(profile, 3);
            for packets in [1, 10] {
                let mut frame = call.frame(packets);
                assert_eq!(frame.len(), packets);
                assert_eq!(call.turn(&mut frame), call.copies(packets), "{profile:?}");
                call.rest();
            }
        }
    }

    #[test]
    fn a_scope_full_of_subscribers_is_served() {
        let mut call = Call::new(None, SUBSCRIBERS_MAX);
        let mut frame = call.frame(10);
        assert_eq!(call.turn(&mut frame), 4990);
    }
}
