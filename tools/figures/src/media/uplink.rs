//! A publisher behind a line of the lab, and the real worker at the other end, on a clock of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use strait_core::command::{
    Codec, CodecKind, Command, Encoding, Extensions, Kind, PeerId, PublicationId, ScopeId,
};
use strait_core::egress::Egress;
use strait_core::port::{Meta, Path};
use strait_core::statistics::EncodingStatistics;
use strait_core::time::{Instant, Now};
use strait_core::worker::{Worker, WorkerConfig};
use strait_wire::rtp::HeaderBuilder;

const SSRC: u32 = 77;
const VP8: u8 = 96;
const VP8_RTX: u8 = 97;
const ABS_SEND_TIME: u8 = 3;
/// The worker's clock when the lab's begins.
const BEGIN: Instant = Instant(1_000_000_000_000);
const PEER: PeerId = PeerId(1);

/// The worker, and the publisher's packets.
pub struct Uplink {
    worker: Worker,
    egress: Egress,
    now: Now,
    path: Path,
    /// Sends abs-send-time.
    absolute: bool,
    /// How much faster the publisher's clock is than the worker's, in parts of one.
    drift: f64,
}

impl Uplink {
    /// A plain peer with one video stream.
    pub fn new(absolute: bool, drift: f64) -> Result<Self, String> {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let path = Path::udp(ip, SocketAddr::new(ip, 9));
        let mut uplink = Self {
            worker: Worker::new(WorkerConfig::default()),
            egress: Egress::default(),
            now: Now { at: BEGIN, ntp: 0 },
            path,
            absolute,
            drift,
        };
        let scope = ScopeId(1);
        let codec = Codec {
            pt: VP8,
            rtx_pt: Some(VP8_RTX),
            kind: CodecKind::Vp8,
            identity: "vp8/90000".into(),
            clock_rate_hz: 90_000,
            nack: true,
            pli: true,
            fir: false,
            transport_cc: false,
            remb: false,
            ccfb: false,
            reduced_size: false,
        };
        let commands = [
            Command::CreateScope { scope },
            Command::AddFixedPeer { scope, peer: PEER, path },
            Command::SetPlain { peer: PEER },
            Command::Publish {
                peer: PEER,
                publication: PublicationId(1),
                kind: Kind::Video,
                mid: "0".into(),
                codecs: vec![codec],
                extensions: Extensions { abs_send_time: ABS_SEND_TIME, ..Extensions::default() },
                encodings: vec![Encoding { rid: String::new(), ssrc: SSRC, rtx_ssrc: SSRC + 1 }],
                muted: false,
                report_ssrc: 9,
            },
        ];
        for command in commands {
            let done = uplink.worker.on_command(uplink.now, command, &mut uplink.egress);
            done.map_err(|error| error.to_string())?;
        }
        Ok(uplink)
    }

    /// A packet that leaves at `sent` and was captured at `captured`, on the lab's clock.
    pub fn packet(&self, seq: u16, sent: Duration, captured: Duration) -> Vec<u8> {
        let timestamp = (self.theirs(captured) * 90_000.0) as u64 as u32;
        self.write((SSRC, VP8, seq, timestamp), sent, &[])
    }

    /// The same packet by RTX, with a number of its own.
    pub fn rtx(&self, seq: u16, of: u16, sent: Duration) -> Vec<u8> {
        let timestamp = (self.theirs(sent) * 90_000.0) as u64 as u32;
        self.write((SSRC + 1, VP8_RTX, seq, timestamp), sent, &of.to_be_bytes())
    }

    fn write(
        &self,
        (ssrc, pt, seq, timestamp): (u32, u8, u16, u32),
        sent: Duration,
        before: &[u8],
    ) -> Vec<u8> {
        let header = HeaderBuilder { marker: false, pt, seq, timestamp, ssrc, padding: false };
        let [_, a, b, c] = ((self.theirs(sent) * f64::from(1 << 18)) as u64 as u32).to_be_bytes();
        let extension: &[u8] = &[a, b, c];
        let extensions = self.absolute.then_some((ABS_SEND_TIME, extension));
        let mut bytes = vec![0; 64];
        let length = header.write(&[], extensions, &mut bytes).unwrap_or(0);
        bytes.truncate(length);
        bytes.extend_from_slice(before);
        // A VP8 descriptor, and something of a frame.
        bytes.extend_from_slice(&[0x10, 1, 2, 3, 4, 5, 6, 7]);
        bytes
    }

    fn theirs(&self, at: Duration) -> f64 {
        at.as_secs_f64() * (1.0 + self.drift) + 4321.0
    }

    /// Something arrives, after all that arrived before.
    pub fn arrive(&mut self, at: Duration, bytes: &mut [u8]) {
        self.pass(at);
        let meta = Meta { path: self.path, at: self.now.at, ecn: 0 };
        self.worker.on_datagram(self.now, meta, bytes, &mut self.egress);
        self.egress.clear();
    }

    /// Time passes.
    pub fn pass(&mut self, until: Duration) {
        let end = BEGIN + until;
        while let Some(due) = self.worker.next_timeout().filter(|due| *due <= end) {
            self.now.at = due.max(self.now.at);
            self.worker.on_timeout(self.now, &mut self.egress);
            self.egress.clear();
            while self.worker.poll_quality().is_some() {}
        }
        self.now.at = end.max(self.now.at);
    }

    /// What the relay says of the stream.
    pub fn told(&self) -> Option<EncodingStatistics> {
        let peer = self.worker.peer_statistics(PEER)?;
        peer.publications.into_iter().next()?.encodings.into_iter().next()
    }
}
