//! A WebRTC peer by str0m on a real socket, driven by a thread.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

/// How long media may take to arrive.
const PATIENCE: Duration = Duration::from_secs(40);
/// Interval of frames of either kind.
const INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Audio,
    Video,
}

pub struct Peer {
    rtc: Rtc,
    socket: UdpSocket,
    wanted: Vec<(Kind, Direction)>,
    pending: Option<SdpPendingOffer>,
    mids: HashMap<Mid, Kind>,
    sending: Vec<(Kind, Mid)>,
}

/// Frames, by kind.
#[derive(Default, Clone)]
pub struct Frames {
    pub audio: Vec<Vec<u8>>,
    pub video: Vec<Vec<u8>>,
}

impl Frames {
    fn of(&mut self, kind: Kind) -> &mut Vec<Vec<u8>> {
        match kind {
            Kind::Audio => &mut self.audio,
            Kind::Video => &mut self.video,
        }
    }
}

/// A peer whose thread runs.
pub struct Running {
    sent: Arc<Mutex<Frames>>,
    received: Arc<Mutex<Frames>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    pub fn new() -> Self {
        str0m::crypto::from_feature_flags().install_process_default();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut rtc = RtcConfig::new().build(Instant::now());
        let address = socket.local_addr().expect("its address");
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
        Self {
            rtc,
            socket,
            wanted: Vec::new(),
            pending: None,
            mids: HashMap::new(),
            sending: Vec::new(),
        }
    }

    /// Adds an m-line to send on.
    pub fn send(&mut self, kind: Kind) {
        self.wanted.push((kind, Direction::SendOnly));
    }

    /// Adds an m-line to receive on.
    pub fn receive(&mut self, kind: Kind) {
        self.wanted.push((kind, Direction::RecvOnly));
    }

    /// The m-line to receive on, once the offer is made.
    pub fn slot(&self, kind: Kind) -> String {
        let is_sending = |mid: &Mid| self.sending.iter().any(|(_, sending)| sending == mid);
        let mut slots = self.mids.iter().filter(|(mid, of)| **of == kind && !is_sending(mid));
        slots.next().expect("a slot of this kind").0.to_string()
    }

    /// The offer.
    pub fn offer(&mut self) -> String {
        let mut api = self.rtc.sdp_api();
        for (kind, direction) in &self.wanted {
            let media = match kind {
                Kind::Audio => MediaKind::Audio,
                Kind::Video => MediaKind::Video,
            };
            let mid = api.add_media(media, *direction, None, None, None);
            self.mids.insert(mid, *kind);
            if *direction == Direction::SendOnly {
                self.sending.push((*kind, mid));
            }
        }
        let (offer, pending) = api.apply().expect("an offer");
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    /// Takes the answer.
    pub fn answer(&mut self, sdp: &str) {
        let answer = SdpAnswer::from_sdp_string(sdp).expect("an answer that str0m reads");
        let pending = self.pending.take().expect("an offer before");
        self.rtc.sdp_api().accept_answer(pending, answer).expect("an answer that str0m takes");
    }

    /// Starts the thread: it sends on each sending m-line and keeps what comes.
    pub fn run(self) -> Running {
        let (sent, received) = (Arc::<Mutex<Frames>>::default(), Arc::<Mutex<Frames>>::default());
        let end = Arc::new(AtomicBool::new(false));
        let (to, from, ends) = (Arc::clone(&sent), Arc::clone(&received), Arc::clone(&end));
        let thread = std::thread::spawn(move || drive(self, &to, &from, &ends));
        Running { sent, received, end, thread: Some(thread) }
    }
}

impl Running {
    /// Waits until `count` frames of each kind have come.
    pub fn wait_for(&self, count: usize) -> Frames {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.received.lock().expect("frames").clone();
            if seen.audio.len() >= count && seen.video.len() >= count {
                return seen;
            }
            let (audio, video) = (seen.audio.len(), seen.video.len());
            assert!(Instant::now() < deadline, "{audio} audio and {video} video frames only");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Checks that each of these frames was sent by this peer, byte by byte, and none came twice.
    pub fn assert_sent(&self, seen: &Frames) {
        let sent = self.sent.lock().expect("frames");
        for (seen, sent) in [(&seen.audio, &sent.audio), (&seen.video, &sent.video)] {
            let sent: HashSet<&Vec<u8>> = sent.iter().collect();
            let unique: HashSet<&Vec<u8>> = seen.iter().collect();
            assert_eq!(unique.len(), seen.len(), "no frame comes twice");
            assert!(unique.is_subset(&sent), "what arrives is what was sent");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the peer's thread failed");
        }
    }
}

fn drive(mut peer: Peer, sent: &Mutex<Frames>, received: &Mutex<Frames>, end: &AtomicBool) {
    let local = peer.socket.local_addr().expect("an address");
    let mut buffer = vec![0; 2048];
    let (mut next, mut number) = (Instant::now(), 0u64);
    while !end.load(Ordering::Relaxed) {
        if peer.rtc.is_connected() && Instant::now() >= next {
            next += INTERVAL;
            for (kind, mid) in peer.sending.clone() {
                if let Some(frame) = write(&mut peer.rtc, kind, mid, number) {
                    sent.lock().expect("frames").of(kind).push(frame);
                }
            }
            number += 1;
        }
        let wait = match peer.rtc.poll_output().expect("str0m goes on") {
            Output::Transmit(packet) => {
                let _ = peer.socket.send_to(&packet.contents, packet.destination);
                continue;
            }
            Output::Event(Event::MediaData(data)) => {
                if let Some(kind) = peer.mids.get(&data.mid) {
                    received.lock().expect("frames").of(*kind).push(data.data.to_vec());
                }
                continue;
            }
            Output::Event(_) => continue,
            Output::Timeout(at) => at.saturating_duration_since(Instant::now()),
        };
        let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(5));
        peer.socket.set_read_timeout(Some(wait)).expect("a timeout");
        let input = match peer.socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                let Ok(contents) = buffer[..length].try_into() else { continue };
                let receive =
                    Receive { proto: Protocol::Udp, source, destination: local, contents };
                Input::Receive(Instant::now(), receive)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Input::Timeout(Instant::now())
            }
            Err(error) => panic!("{error}"),
        };
        peer.rtc.handle_input(input).expect("str0m goes on");
    }
}

/// Writes a frame that is unlike any other. Every video frame is a VP8 key frame, so that a
/// decoder could start anywhere (RFC 6386 section 9.1).
fn write(rtc: &mut Rtc, kind: Kind, mid: Mid, number: u64) -> Option<Vec<u8>> {
    let mut frame = match kind {
        Kind::Audio => vec![0xfc, 1, 2, 3],
        Kind::Video => vec![0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00],
    };
    frame.extend(number.to_be_bytes());
    if kind == Kind::Video {
        // Several packets, so that order and reassembly count.
        frame.extend((0..3000).map(|i| (number as usize * 31 + i) as u8));
    }
    let frequency = match kind {
        Kind::Audio => Frequency::FORTY_EIGHT_KHZ,
        Kind::Video => Frequency::NINETY_KHZ,
    };
    let ticks = number * u64::from(frequency.get()) / 50;
    let writer = rtc.writer(mid)?;
    let payload_type = writer.payload_params().next()?.pt();
    let time = MediaTime::new(ticks, frequency);
    writer.write(payload_type, Instant::now(), time, frame.clone()).ok()?;
    Some(frame)
}
