//! A viewer behind a line of the lab: what arrives there, and what it says about that.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use strait_core::command::PeerId;
use strait_core::port::Path;
use strait_lab::link::{Conditions, Fate, Link};
use strait_lab::rng::Rng;
use strait_wire::rtcp::{self, Arrival};
use strait_wire::rtp::Packet;

use super::call::{is_picture, is_sound};

/// The extension's id on the viewers' legs.
pub const TRANSPORT_CC: u8 = 6;
/// What others send over the line.
const OTHERS_BYTES: usize = 1200;
/// IPv4 and UDP.
const HEADERS: f64 = 28.0;
/// The viewer's clock is ahead of the lab's by so much.
const AHEAD_US: u64 = 7_000_000;

/// Conditions of both ways from when on.
pub type Timeline = Vec<(Duration, Conditions)>;

/// Somebody else on the same line: from when to when, bits per second.
pub type Other = (Duration, Duration, f64);

/// Who watches.
pub struct Viewer {
    pub peer: PeerId,
    pub path: Path,
    /// When it came.
    pub joined: Duration,
    down: Link,
    up: Link,
    feedback_every: Duration,
    others: Vec<Other>,
    next_other: Duration,
    flying: Vec<Flying>,
    arrivals: Vec<Arrival>,
    reports: VecDeque<(Duration, Vec<u8>)>,
    count: u8,
    /// When a packet had left the line's queue, how long it had waited there, and its bytes.
    pub passed: Vec<(Duration, Duration, usize)>,
    /// Packets of sound that arrived.
    pub sounds: u64,
    /// When the first picture was whole, by stream.
    pub pictures: BTreeMap<u32, Duration>,
    /// Of the key frame that is arriving: first number and how many packets of it are there.
    key_frames: BTreeMap<u32, (u16, u16)>,
}

struct Flying {
    at: Duration,
    seq: Option<u16>,
    sound: bool,
    picture: Option<Picture>,
}

#[derive(Clone, Copy)]
struct Picture {
    ssrc: u32,
    seq: u16,
    begins_key_frame: bool,
    begins: bool,
    ends: bool,
}

impl Viewer {
    /// Behind such a line; `up` is what its feedback goes through.
    pub fn new(path: Path, down: &Timeline, up: &Timeline, seed: u64) -> Self {
        let rng = Rng::new(seed);
        Self {
            peer: PeerId(0),
            path,
            joined: Duration::ZERO,
            down: Link::new(down, rng.fork(1)),
            up: Link::new(up, rng.fork(2)),
            feedback_every: Duration::from_millis(100),
            others: Vec::new(),
            next_other: Duration::ZERO,
            flying: Vec::new(),
            arrivals: Vec::new(),
            reports: VecDeque::new(),
            count: 0,
            passed: Vec::new(),
            sounds: 0,
            pictures: BTreeMap::new(),
            key_frames: BTreeMap::new(),
        }
    }

    /// Shares the line with others, and says so often what arrived.
    pub fn with(mut self, others: Vec<Other>, feedback_every: Duration) -> Self {
        (self.others, self.feedback_every) = (others, feedback_every);
        self
    }

    /// Something is sent to it.
    pub fn carry(&mut self, time: Duration, bytes: &[u8]) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        if bytes.get(1).is_some_and(|second| (192..=223).contains(second)) {
            return;
        }
        let fate = self.down.carry(time, bytes.len());
        let Fate::Carried(passage) = fate else { return };
        self.passed.push((passage.out, passage.waited, bytes.len()));
        let number = packet.extension(TRANSPORT_CC).and_then(|data| data.try_into().ok());
        let seq = number.map(u16::from_be_bytes);
        let payload = packet.payload();
        let begins = payload.first() == Some(&0x90);
        let picture = is_picture(packet.pt()).then(|| Picture {
            ssrc: packet.ssrc(),
            seq: packet.seq(),
            begins,
            begins_key_frame: begins && payload.get(6).is_some_and(|byte| byte & 1 == 0),
            ends: packet.marker(),
        });
        let sound = is_sound(packet.pt());
        for at in fate.arrivals() {
            self.flying.push(Flying { at, seq, sound, picture });
        }
    }

    /// A millisecond passes: others send, and what was on its way arrives.
    pub fn receive(&mut self, time: Duration) {
        let other = self.others.iter().find(|(from, to, _)| (*from..*to).contains(&time));
        if let Some((_, _, bps)) = other {
            self.next_other = self.next_other.max(time);
            while self.next_other < time + Duration::from_millis(1) {
                let _ = self.down.carry(self.next_other, OTHERS_BYTES);
                self.next_other += Duration::from_secs_f64(OTHERS_BYTES as f64 * 8.0 / bps);
            }
        }
        let mut arrived: Vec<Flying> =
            self.flying.extract_if(.., |flying| flying.at <= time).collect();
        arrived.sort_by_key(|flying| flying.at);
        for Flying { at, seq, sound, picture } in arrived {
            self.sounds += u64::from(sound);
            if let Some(picture) = picture {
                self.look_at(at, picture);
            }
            if let Some(seq) = seq {
                let at_us = at.as_micros() as u64 + AHEAD_US;
                self.arrivals.push(Arrival { seq, at_us });
            }
        }
    }

    /// A picture can be shown when all packets of a key frame are there; here it is enough that so many arrived.
    fn look_at(&mut self, at: Duration, picture: Picture) {
        let Picture { ssrc, seq, begins_key_frame, begins, ends } = picture;
        if self.pictures.contains_key(&ssrc) {
            return;
        }
        if begins_key_frame {
            self.key_frames.insert(ssrc, (seq, 0));
        } else if begins {
            self.key_frames.remove(&ssrc);
        }
        let Some((first, count)) = self.key_frames.get_mut(&ssrc) else { return };
        *count += 1;
        if ends && seq.wrapping_sub(*first).wrapping_add(1) == *count {
            self.pictures.insert(ssrc, at);
        }
    }

    /// The feedback that reaches the relay by now.
    pub fn reports(&mut self, time: Duration) -> Vec<Vec<u8>> {
        if time.as_millis().is_multiple_of(self.feedback_every.as_millis().max(1)) {
            self.report(time);
        }
        let mut due = Vec::new();
        while let Some((_, report)) = self.reports.pop_front_if(|(at, _)| *at <= time) {
            due.push(report);
        }
        due
    }

    fn report(&mut self, time: Duration) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let Some(first) = arrivals.first().map(|arrival| arrival.seq) else { return };
        arrivals.sort_by_key(|arrival| strait_wire::seq::distance(first, arrival.seq));
        arrivals.dedup_by_key(|arrival| arrival.seq);
        let mut rest = arrivals.as_slice();
        while !rest.is_empty() {
            let mut bytes = vec![0; 4000];
            let mut writer = rtcp::Writer::new(&mut bytes);
            let Ok(told) = writer.transport_cc(1, 2, self.count, rest) else { return };
            self.count = self.count.wrapping_add(1);
            let length = writer.len();
            bytes.truncate(length);
            rest = rest.get(told.max(1)..).unwrap_or_default();
            if let Some(passage) = self.up.carry(time, length).passage() {
                self.reports.push_back((passage.arrival, bytes));
            }
        }
    }

    /// What of the line's bits is left for packets: the rest are their IPv4 and UDP headers, which count there alone.
    pub fn payload_share(&self, from: Duration, to: Duration) -> f64 {
        let within = self.passed.iter().filter(|(out, ..)| (from..to).contains(out));
        let (packets, bytes) =
            within.fold((0.0, 0.0), |(n, sum), (_, _, bytes)| (n + 1.0, sum + *bytes as f64));
        if packets > 0.0 { bytes / (bytes + packets * HEADERS) } else { 1.0 }
    }

    /// How long 95 of 100 packets wait at most, in milliseconds.
    pub fn queue_p95_ms(&self, from: Duration, to: Duration) -> f64 {
        let within = self.passed.iter().filter(|(out, ..)| (from..to).contains(out));
        let mut waits: Vec<Duration> = within.map(|(_, waited, _)| *waited).collect();
        waits.sort_unstable();
        waits.get(waits.len() * 95 / 100).map_or(0.0, |waited| waited.as_secs_f64() * 1e3)
    }
}
