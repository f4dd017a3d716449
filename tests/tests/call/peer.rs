//! A WebRTC peer by str0m on a real socket, driven by a thread.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::frames::{Kind, Seen, frame};

/// How long media may take to arrive.
const PATIENCE: Duration = Duration::from_secs(40);
/// The longest sleep of a peer's thread: what it is asked waits so long.
const NAP: Duration = Duration::from_millis(5);

/// Who a peer is, and what it sends.
#[derive(Clone, Copy)]
pub struct Traits {
    /// Where its socket is.
    pub address: IpAddr,
    /// In every frame that it sends.
    pub mark: u8,
    /// Between frames of either kind.
    pub interval: Duration,
    /// Bytes of a video frame. Several packets, so that order and reassembly count.
    pub video_bytes: usize,
}

impl Traits {
    pub fn new(mark: u8) -> Self {
        let address = Ipv4Addr::LOCALHOST.into();
        Self { address, mark, interval: Duration::from_millis(20), video_bytes: 3000 }
    }
}

pub struct Peer {
    traits: Traits,
    rtc: Rtc,
    socket: UdpSocket,
    pending: Option<SdpPendingOffer>,
    wanted: Vec<(Kind, Direction)>,
    mids: HashMap<Mid, Kind>,
    sending: Vec<(Kind, Mid)>,
}

/// Something to be done by the peer's thread.
type Errand = Box<dyn FnOnce(&mut Peer) + Send>;

/// A peer whose thread runs.
pub struct Running {
    received: Arc<Mutex<Seen>>,
    errands: SyncSender<Errand>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    pub fn new(traits: Traits) -> Self {
        str0m::crypto::from_feature_flags().install_process_default();
        let socket = UdpSocket::bind((traits.address, 0)).expect("a socket");
        let config = RtcConfig::new().clear_codecs().enable_opus(true, false).enable_vp8(true);
        let mut rtc = config.build(Instant::now());
        let address = socket.local_addr().expect("its address");
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
        Self {
            traits,
            rtc,
            socket,
            pending: None,
            wanted: Vec::new(),
            mids: HashMap::new(),
            sending: Vec::new(),
        }
    }

    /// Adds an m-line to send on to the next offer.
    pub fn send(&mut self, kind: Kind) {
        self.wanted.push((kind, Direction::SendOnly));
    }

    /// Adds an m-line to receive on to the next offer.
    pub fn receive(&mut self, kind: Kind) {
        self.wanted.push((kind, Direction::RecvOnly));
    }

    /// The m-lines to receive on.
    pub fn slots(&self) -> Vec<(Kind, String)> {
        let is_sending = |mid: &Mid| self.sending.iter().any(|(_, sending)| sending == mid);
        let slots = self.mids.iter().filter(|(mid, _)| !is_sending(mid));
        slots.map(|(mid, kind)| (*kind, mid.to_string())).collect()
    }

    /// The offer, and its new m-lines in the order in which they were added.
    pub fn offer(&mut self) -> (String, Vec<String>) {
        let mut api = self.rtc.sdp_api();
        let mut added = Vec::new();
        for (kind, direction) in self.wanted.drain(..) {
            let media = match kind {
                Kind::Audio => MediaKind::Audio,
                Kind::Video => MediaKind::Video,
            };
            let mid = api.add_media(media, direction, None, None, None);
            added.push(mid.to_string());
            self.mids.insert(mid, kind);
            if direction == Direction::SendOnly {
                self.sending.push((kind, mid));
            }
        }
        let (offer, pending) = api.apply().expect("an offer");
        self.pending = Some(pending);
        (offer.to_sdp_string(), added)
    }

    /// Takes the answer.
    pub fn answer(&mut self, sdp: &str) {
        let answer = SdpAnswer::from_sdp_string(sdp).expect("an answer that str0m reads");
        let pending = self.pending.take().expect("an offer before");
        self.rtc.sdp_api().accept_answer(pending, answer).expect("an answer that str0m takes");
    }

    /// Starts the thread: it sends on each sending m-line and takes note of what comes.
    pub fn run(self) -> Running {
        let received = Arc::<Mutex<Seen>>::default();
        let end = Arc::new(AtomicBool::new(false));
        let (errands, todo) = sync_channel(1);
        let (from, ends) = (Arc::clone(&received), Arc::clone(&end));
        let thread = std::thread::spawn(move || drive(self, &todo, &from, &ends));
        Running { received, errands, end, thread: Some(thread) }
    }
}

impl Running {
    /// Has the peer's thread do something, and waits for it.
    pub fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Peer) -> T + Send + 'static) -> T {
        let (done, result) = sync_channel(1);
        let errand = Box::new(move |peer: &mut Peer| {
            let _ = done.send(work(peer));
        });
        self.errands.send(errand).expect("the peer's thread lives");
        result.recv_timeout(PATIENCE).expect("the peer's thread does it")
    }

    /// Waits until `count` frames of each kind have come from each of so many senders.
    pub fn wait_for(&self, senders: usize, count: usize) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.received.lock().expect("frames").clone();
            let found = seen.senders(count);
            if found >= senders {
                return seen;
            }
            let faults = &seen.faults;
            assert!(
                Instant::now() < deadline,
                "{count} frames from {found} of {senders} senders only; {faults:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
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

fn drive(mut peer: Peer, todo: &Receiver<Errand>, received: &Mutex<Seen>, end: &AtomicBool) {
    let local = peer.socket.local_addr().expect("an address");
    let mut buffer = vec![0; 2048];
    let (mut next, mut number) = (Instant::now(), 0u64);
    while !end.load(Ordering::Relaxed) {
        todo.try_iter().for_each(|errand| errand(&mut peer));
        if peer.rtc.is_connected() && Instant::now() >= next {
            next = (next + peer.traits.interval).max(Instant::now());
            for (kind, mid) in peer.sending.clone() {
                write(&mut peer, kind, mid, number);
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
                    received.lock().expect("frames").take(*kind, &data.data);
                }
                continue;
            }
            Output::Event(_) => continue,
            Output::Timeout(at) => at.saturating_duration_since(Instant::now()),
        };
        peer.socket.set_read_timeout(Some(wait.clamp(NAP / 5, NAP))).expect("a timeout");
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

/// Writes the frame of this number.
fn write(peer: &mut Peer, kind: Kind, mid: Mid, number: u64) {
    let Traits { mark, interval, video_bytes, .. } = peer.traits;
    let filling = if kind == Kind::Video { video_bytes } else { 0 };
    let ticks = number * u64::from(kind.frequency().get()) * interval.as_millis() as u64 / 1000;
    let Some(writer) = peer.rtc.writer(mid) else { return };
    let Some(payload_type) = writer.payload_params().next().map(|params| params.pt()) else {
        return;
    };
    let time = MediaTime::new(ticks, kind.frequency());
    // What is refused is missed at the other end.
    let _ = writer.write(payload_type, Instant::now(), time, frame(kind, mark, number, filling));
}
