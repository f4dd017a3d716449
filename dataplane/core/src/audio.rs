//! Whether a stream holds speech, and how much of it, by the levels in its packets (RFC 6464): nothing is decoded.
//!
//! Time is cut into slots of one usual Opus frame. What a packet says holds for the slots since the packet before it, so
//! that long packets, short ones and a little jitter come to the same; a longer gap (DTX, a pause of the network) is
//! silence. A slot holds speech when it is well above the stream's own noise floor.

use crate::time::{Duration, Instant};
use strait_wire::ext::AudioLevel;

/// One frame as browsers send it.
const SLOT: Duration = Duration::from_millis(20);
/// Slots that one packet can stand for: Opus packets hold up to 120 ms (RFC 7587 section 4.2).
const PACKET_SLOTS: u64 = 6;
/// Of so many slots, [`STARTED`] with speech begin it: no click does.
const STARTING_SLOTS: u32 = 10;
const STARTED: u32 = 6;
/// Speech ends after so long without any: words of one sentence stand closer.
const HANGOVER: Duration = Duration::from_millis(600);
const HANGOVER_SLOTS: u32 = (HANGOVER.as_millis() / SLOT.as_millis()) as u32;
/// How many slots the three intervals of a comparison take: 100 ms, 400 ms and 1.5 s.
const IMMEDIATE_SLOTS: u32 = 5;
const MEDIUM_SLOTS: u32 = 20;
const LONG_SLOTS: u32 = 75;
const _: () = assert!(LONG_SLOTS < u128::BITS && HANGOVER_SLOTS < u128::BITS);
const _: () = assert!(IMMEDIATE_SLOTS * 8 <= u64::BITS);

/// A step of loudness, in dB.
const STEP_DB: u8 = 4;
/// The most steps above the floor that are told apart: shouting is not more of a speech than speaking.
const STEPS: u8 = 12;
/// So far above its floor a slot holds speech, in dB.
const MARGIN_DB: u8 = 10;
/// Bounds of the noise floor, in dB above digital silence (127 dB below overload). Above the upper one everything counts:
/// a tone, or music without pauses.
const FLOOR_DB: std::ops::RangeInclusive<u8> = 57..=82;
/// The floor is the quietest slot of about this long: hardly anybody speaks so long without a gap between two words.
const FLOOR_SLOTS: u64 = 150;

/// The speech of one stream, as far as its levels tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    /// The newest slot that a packet stands for, counted from the clock's start.
    slot: u64,
    /// Which slots held speech, the newest in the lowest bit.
    active: u128,
    /// Steps above the floor, a byte for each of the last slots, the newest in the lowest.
    steps: u64,
    floor: Floor,
    speaking: bool,
}

impl Default for Voice {
    fn default() -> Self {
        let floor = Floor { before: *FLOOR_DB.start(), quietest: u8::MAX, until: 0 };
        Self { slot: 0, active: 0, steps: 0, floor, speaking: false }
    }
}

/// What the stream is like when nobody speaks.
#[derive(Clone, Copy, Debug)]
struct Floor {
    /// In the window before this one.
    before: u8,
    /// In this one, so far.
    quietest: u8,
    /// The slot in which this one ends.
    until: u64,
}

impl Floor {
    /// Takes note of a loudness and says the floor. It falls at once, and rises with the next window.
    fn observe(&mut self, slot: u64, loudness: u8) -> u8 {
        if slot >= self.until {
            if self.quietest != u8::MAX {
                self.before = self.quietest;
            }
            (self.quietest, self.until) = (u8::MAX, slot + FLOOR_SLOTS);
        }
        self.quietest = self.quietest.min(loudness);
        self.before.min(self.quietest).clamp(*FLOOR_DB.start(), *FLOOR_DB.end())
    }
}

/// How much speech there was, in three intervals that end now (after Volfin and Cohen, "Dominant speaker identification
/// for multipoint videoconferencing", 2012): whether this is speech, a word of it, a sentence of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Steps above the floor, summed over 100 ms.
    pub(crate) immediate: u32,
    /// Slots with speech of 400 ms.
    pub(crate) medium: u32,
    /// Slots with speech of 1.5 s.
    pub(crate) long: u32,
}

/// What a packet changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Speech began.
    Started,
    /// It is over.
    Ended,
}

impl Voice {
    /// Takes note of a packet that arrived now, with what its extension says.
    pub(crate) fn hear(&mut self, now: Instant, level: Option<AudioLevel>) -> Option<Turn> {
        let Some(level) = level else { return self.look(now) };
        let slot = slot_of(now);
        // Packets that a connection held back come at once: they are of one moment.
        let passed = slot.saturating_sub(self.slot);
        let stands_for = if passed <= PACKET_SLOTS { passed } else { 1 };
        self.pass(passed);
        self.slot = self.slot.max(slot);
        let loudness = 127_u8.saturating_sub(level.below_overload_db);
        let above = loudness.saturating_sub(self.floor.observe(slot, loudness));
        if above >= MARGIN_DB {
            let steps = u64::from((above / STEP_DB).min(STEPS));
            for back in 0..stands_for.max(1) {
                self.active |= 1 << back;
                let place = back as u32 * 8;
                let held = self.steps.checked_shr(place).unwrap_or_default() & 0xFF;
                self.steps |= steps.saturating_sub(held).checked_shl(place).unwrap_or_default();
            }
        }
        self.look(now)
    }

    /// What the time that passed changed.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Turn> {
        let seen = self.seen_at(now);
        if self.speaking {
            (seen.slots(HANGOVER_SLOTS) == 0).then(|| {
                self.speaking = false;
                Turn::Ended
            })
        } else {
            (seen.slots(STARTING_SLOTS) >= STARTED).then(|| {
                self.speaking = true;
                Turn::Started
            })
        }
    }

    /// Forgets what it heard: the stream was muted. Its floor stays.
    pub(crate) fn hush(&mut self) -> Option<Turn> {
        (self.active, self.steps) = (0, 0);
        std::mem::take(&mut self.speaking).then_some(Turn::Ended)
    }

    /// Whether somebody speaks, pauses between words included.
    pub(crate) fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// Whether nobody has spoken for as long as speech takes to end.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.seen_at(now).slots(HANGOVER_SLOTS) == 0
    }

    /// When speech will have ended if no more comes.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        let silent = u64::from(self.active.trailing_zeros().min(HANGOVER_SLOTS));
        let last = self.slot.saturating_sub(silent);
        let end = last + u64::from(HANGOVER_SLOTS) + PACKET_SLOTS + 1;
        self.speaking.then(|| Instant(end.saturating_mul(SLOT.as_nanos() as u64)))
    }

    /// How much speech there was until now.
    pub(crate) fn activity(&self, now: Instant) -> Activity {
        let seen = self.seen_at(now);
        let immediate = seen.steps.to_le_bytes();
        let immediate = immediate.iter().take(IMMEDIATE_SLOTS as usize);
        Activity {
            immediate: immediate.map(|steps| u32::from(*steps)).sum(),
            medium: seen.slots(MEDIUM_SLOTS),
            long: seen.slots(LONG_SLOTS),
        }
    }

    /// With the silence since the last packet, beyond what the next one may yet stand for.
    fn seen_at(mut self, now: Instant) -> Self {
        let passed = slot_of(now).saturating_sub(self.slot);
        self.pass(if passed <= PACKET_SLOTS { 0 } else { passed });
        self
    }

    fn pass(&mut self, slots: u64) {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        self.active = self.active.checked_shl(slots).unwrap_or_default();
        self.steps = self.steps.checked_shl(slots.saturating_mul(8)).unwrap_or_default();
    }

    /// How many of the newest slots held speech.
    fn slots(&self, of: u32) -> u32 {
        (self.active & ((1 << of) - 1)).count_ones()
    }
}

fn slot_of(at: Instant) -> u64 {
    at.0 / SLOT.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A level by its dB below overload.
    fn level(below_overload_db: u8) -> Option<AudioLevel> {
        Some(AudioLevel { voice: true, below_overload_db })
    }

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(1_000_000 + ms)
    }

    /// Feeds packets of `each` ms with what `db` says, from `from` to `to` ms; when speech started and ended.
    fn feed(
        voice: &mut Voice,
        (from, to, each): (u64, u64, u64),
        db: impl Fn(u64) -> u8,
    ) -> Vec<(u64, Turn)> {
        let times = (from..to).step_by(each as usize);
        times.filter_map(|ms| Some((ms, voice.hear(at(ms), level(db(ms)))?))).collect()
    }

    #[test]
    fn speech_starts_soon_and_ends_after_a_while() {
        let mut voice = Voice::default();
        assert_eq!(feed(&mut voice, (0, 1000, 20), |_| 70), []);
        let started = feed(&mut voice, (1000, 3000, 20), |_| 30);
        assert!(matches!(started[..], [(1000..=1160, Turn::Started)]), "{started:?}");
        // A gap between two words.
        assert_eq!(feed(&mut voice, (3000, 3400, 20), |_| 70), []);
        assert_eq!(feed(&mut voice, (3400, 4000, 20), |_| 30), []);
        let ended = feed(&mut voice, (4000, 6000, 20), |_| 70);
        assert!(matches!(ended[..], [(4580..=4640, Turn::Ended)]), "{ended:?}");
    }

    #[test]
    fn packets_of_any_length_come_to_the_same() {
        for each in [10, 20, 40, 60, 120] {
            let mut voice = Voice::default();
            feed(&mut voice, (0, 960, each), |_| 90);
            let turns = feed(&mut voice, (960, 2880, each), |_| 30);
            assert!(matches!(turns[..], [(960..=1120, Turn::Started)]), "{each} ms: {turns:?}");
            let activity = voice.activity(at(2880));
            assert!(activity.long >= LONG_SLOTS - 1, "{each} ms: {activity:?}");
        }
    }

    #[test]
    fn a_click_is_no_speech() {
        let mut voice = Voice::default();
        // 40 ms every half a second.
        assert_eq!(feed(&mut voice, (0, 10_000, 20), |ms| if ms % 500 < 40 { 10 } else { 80 }), []);
    }

    #[test]
    fn who_stops_sending_stops_speaking() {
        let mut voice = Voice::default();
        feed(&mut voice, (0, 1000, 20), |_| 30);
        assert!(voice.is_speaking());
        assert_eq!(voice.look(at(1300)), None);
        let end = voice.ends_at().unwrap();
        assert!(end > at(1580) && end <= at(1780), "{end:?}");
        assert_eq!((voice.look(end), voice.ends_at()), (Some(Turn::Ended), None));
        assert_eq!(voice.activity(at(5000)), Activity::default());
    }

    #[test]
    fn steady_noise_becomes_the_floor_and_speech_stands_out_of_it() {
        let mut voice = Voice::default();
        feed(&mut voice, (0, 6000, 20), |_| 52);
        assert!(!voice.is_speaking(), "a fan");
        feed(&mut voice, (6000, 7000, 20), |_| 35);
        assert!(voice.is_speaking());
        // What is loud is never taken for noise.
        let mut voice = Voice::default();
        feed(&mut voice, (0, 60_000, 20), |_| 30);
        assert!(voice.is_speaking(), "a tone");
    }

    #[test]
    fn a_muted_stream_is_silent_at_once() {
        let mut voice = Voice::default();
        feed(&mut voice, (0, 1000, 20), |_| 30);
        assert_eq!((voice.hush(), voice.hush()), (Some(Turn::Ended), None));
        assert_eq!(voice.activity(at(1000)), Activity::default());
    }

    #[test]
    fn clocks_and_gaps_of_any_size_are_taken() {
        let mut voice = Voice::default();
        for ms in [0, u64::MAX / 2_000_000, 5, 0, 40, u64::MAX / 1_500_000] {
            voice.hear(Instant(ms.saturating_mul(1_000_000)), level(0));
            voice.hear(Instant(u64::MAX), None);
            voice.activity(Instant(u64::MAX));
            voice.ends_at();
        }
    }
}
