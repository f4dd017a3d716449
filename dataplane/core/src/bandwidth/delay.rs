//! How long packets wait in queues on the way: what each took, less what the fastest took lately.
//!
//! draft-ietf-rmcat-gcc-02 section 4 looks at how the one-way delay changes; here its height over the smallest is looked
//! at as well, as LEDBAT (RFC 6817) does, because a height needs no time to build up and does not drift. What is jitter and
//! not a queue falls out: of several packets that follow each other, the luckiest counts.

/// The queuing delay towards one subscriber.
#[derive(Debug)]
pub(crate) struct Delay {
    /// The smallest one-way delay of this span of [`BASE_SPAN_US`] and of the one before.
    base_us: [i64; 2],
    base_began_us: Option<i64>,
    slots: [Slot; SLOTS],
    newest: i64,
    /// How far packets are behind the luckiest of their time, on average.
    spread_us: f64,
    /// How far the luckiest of a slot is from that of the slot before, on average.
    jitter_us: f64,
    before_us: Option<i64>,
    train: Train,
    queue_us: i64,
}

/// Packets that arrive together after nothing did for a while: whoever reads them slept, or the line did.
///
/// They waited for that and for nothing else, so that the last of them tells of the queue. But it waited too, for up to
/// as long as packets leave apart.
#[derive(Clone, Copy, Debug)]
struct Train {
    first_us: i64,
    last_us: i64,
    /// The longest that any of them took; `None` of those before which nobody slept.
    most_us: Option<i64>,
    /// When the last one left, and how far they left apart.
    sent_us: i64,
    apart_us: i64,
}

impl Train {
    const NONE: Self =
        Self { first_us: i64::MIN, last_us: i64::MIN, most_us: None, sent_us: 0, apart_us: 0 };

    /// How long a packet may have waited for nothing but that somebody woke up.
    fn waited_us(&mut self, sent_us: i64, arrived_us: i64) -> i64 {
        let took_us = arrived_us.saturating_sub(sent_us);
        let silent_us = arrived_us.saturating_sub(self.last_us);
        let lasts_us = arrived_us.saturating_sub(self.first_us);
        if silent_us > TOGETHER_US || lasts_us > TRAIN_US_MAX {
            let slept = silent_us >= SLEPT_US && self.last_us != i64::MIN;
            (self.first_us, self.most_us) = (arrived_us, slept.then_some(took_us));
            self.apart_us = 0;
        } else {
            self.apart_us = sent_us.saturating_sub(self.sent_us).max(self.apart_us);
        }
        (self.last_us, self.sent_us) = (self.last_us.max(arrived_us), sent_us);
        let Some(most_us) = &mut self.most_us else { return 0 };
        *most_us = took_us.max(*most_us);
        most_us.saturating_sub(took_us).min(self.apart_us).min(APART_US_MAX)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Which one, counted since the epoch of the subscriber's clock.
    number: i64,
    least_us: i64,
    /// The same, less what was waited for in a train.
    left_us: i64,
    packets: u16,
    /// Of all of them, and of the one that arrived first; when that was, how long it took, and when the last arrived.
    bytes: u32,
    first_bytes: u16,
    first_us: i64,
    first_took_us: i64,
    last_us: i64,
}

impl Slot {
    const NONE: Self = Self {
        number: i64::MIN,
        least_us: 0,
        left_us: 0,
        packets: 0,
        bytes: 0,
        first_bytes: 0,
        first_us: 0,
        first_took_us: 0,
        last_us: 0,
    };
}

const SLOT_US: i64 = 10_000;
const SLOTS: usize = 64;
/// How many packets, over how long, the luckiest is taken of; but none older than the last.
const LUCK_PACKETS: u16 = 6;
const LUCK_US: i64 = 60_000;
const LUCK_US_MAX: i64 = 400_000;
/// The way itself is taken for unchanged for one to two such spans. Clocks that differ by 200 ppm drift 2 ms in one.
const BASE_SPAN_US: i64 = 10_000_000;
/// A queue shorter than this is none.
const THRESHOLD_US: i64 = 25_000;
/// Where packets vary by themselves, more is one, up to this much.
const SPREAD_US_MAX: i64 = 25_000;

/// Nothing arrives for so long before a train: a little more than [`THRESHOLD_US`], as what slept less made no queue of
/// anything, and a little less than pictures are apart (33 ms), as else one of them would hide that somebody slept.
const SLEPT_US: i64 = 30_000;
/// Its packets come within this of each other: a reader takes less for each even where it has little of a processor, and
/// a line of less than 5 Mbit/s takes more (1200 bytes in 2 ms), so that what such a line holds back is no train.
const TOGETHER_US: i64 = 2_000;
/// And it is over after so long: 200 packets at half a millisecond each, which is a second of 2 Mbit/s. Who slept for
/// longer is told from the silence alone.
const TRAIN_US_MAX: i64 = 100_000;
/// Pictures and sound do not leave further apart than those of ten pictures per second: what does is no stream.
const APART_US_MAX: i64 = 100_000;

/// What arrives while packets wait is taken over this long, at least and at most, and of so many bytes.
const BUSY_US: i64 = 60_000;
const BUSY_US_MAX: i64 = 250_000;
const BUSY_BYTES: u64 = 3_000;

impl Default for Delay {
    fn default() -> Self {
        Self {
            base_us: [i64::MAX; 2],
            base_began_us: None,
            slots: [Slot::NONE; SLOTS],
            newest: i64::MIN,
            spread_us: 0.0,
            jitter_us: 0.0,
            before_us: None,
            train: Train::NONE,
            queue_us: 0,
        }
    }
}

impl Delay {
    /// A packet arrived. The clocks may differ by anything.
    pub(crate) fn on_packet(&mut self, sent_us: i64, arrived_us: i64, bytes: u16) {
        let took_us = arrived_us.saturating_sub(sent_us);
        let began_us = *self.base_began_us.get_or_insert(arrived_us);
        if arrived_us.saturating_sub(began_us) >= BASE_SPAN_US {
            let [this, _] = self.base_us;
            self.base_us = [i64::MAX, this];
            self.base_began_us = Some(arrived_us);
        }
        let [this, _] = &mut self.base_us;
        *this = took_us.min(*this);

        let left_us = took_us.saturating_sub(self.train.waited_us(sent_us, arrived_us));
        let number = arrived_us.div_euclid(SLOT_US);
        if number > self.newest {
            self.vary();
        }
        self.newest = self.newest.max(number);
        let Some(slot) = self.slots.get_mut(number.rem_euclid(SLOTS as i64) as usize) else {
            return;
        };
        if slot.number == number {
            let behind = took_us.saturating_sub(slot.least_us).max(0) as f64;
            self.spread_us += (behind.min(100_000.0) - self.spread_us) / 64.0;
            slot.least_us = slot.least_us.min(took_us);
            slot.left_us = slot.left_us.min(left_us);
            slot.packets = slot.packets.saturating_add(1);
            slot.bytes = slot.bytes.saturating_add(bytes.into());
            if arrived_us < slot.first_us {
                (slot.first_us, slot.first_bytes) = (arrived_us, bytes);
                slot.first_took_us = took_us;
            }
            slot.last_us = slot.last_us.max(arrived_us);
        } else {
            *slot = Slot {
                number,
                least_us: took_us,
                left_us,
                packets: 1,
                bytes: bytes.into(),
                first_bytes: bytes,
                first_us: arrived_us,
                first_took_us: took_us,
                last_us: arrived_us,
            };
        }
    }

    /// The feedback ends: what is to be made of it.
    pub(crate) fn close(&mut self) {
        let Some(left_us) = self.luckiest(|slot| slot.left_us) else { return };
        let base_us = self.base_us.into_iter().min().unwrap_or(left_us);
        self.queue_us = left_us.saturating_sub(base_us).max(0);
    }

    /// How long packets wait at the moment.
    pub(crate) fn queue_us(&self) -> i64 {
        self.queue_us
    }

    /// Beyond this they wait because too much is sent. At low rates the packets themselves take their time.
    pub(crate) fn threshold_us(&self, bps: f64) -> i64 {
        let half_us = (packet_us(bps) / 2.0).min(HALF_US_MAX) as i64;
        THRESHOLD_US + half_us + self.spread_us().min(SPREAD_US_MAX) / 2
    }

    /// By how much packets vary that follow each other closely.
    fn spread_us(&self) -> i64 {
        self.spread_us as i64
    }

    /// What seems to be a queue is the way: it got longer.
    pub(crate) fn rebase(&mut self) {
        let Some(least_us) = self.luckiest(|slot| slot.least_us) else { return };
        self.base_us = [least_us; 2];
        self.queue_us = 0;
    }

    /// The newest slot is over.
    fn vary(&mut self) {
        let Some(&Slot { least_us, .. }) = self.slot(self.newest) else { return };
        if let Some(before_us) = self.before_us.replace(least_us) {
            let by = before_us.saturating_sub(least_us).saturating_abs().min(100_000);
            self.jitter_us += (by as f64 - self.jitter_us) / 32.0;
        }
    }

    /// By how much packets vary that do not follow each other closely.
    pub(crate) fn jitter_us(&self) -> i64 {
        self.jitter_us as i64
    }

    /// What arrives in bits per second while packets wait, which is what the line carries; `None` if it is too little to
    /// say. What is taken together ends with the newest packet and begins where packets began to wait: before that the line
    /// was not full, and what arrived then says how much was sent.
    pub(crate) fn busy_bps(&self) -> Option<f64> {
        let base_us = self.base_us.into_iter().min()?;
        let waits_us = base_us.saturating_add(self.queue_us / 2);
        let (mut bytes, mut first, mut last_us) = (0_u64, None, i64::MIN);
        for back in 0..BUSY_US_MAX / SLOT_US {
            let Some(slot) = self.slot(self.newest.saturating_sub(back)) else { continue };
            let long = first.is_some_and(|(at, _)| last_us.saturating_sub(at) >= BUSY_US);
            if long && bytes >= BUSY_BYTES && slot.least_us < waits_us {
                break;
            }
            bytes += u64::from(slot.bytes);
            first = Some((slot.first_us, slot.first_bytes));
            last_us = last_us.max(slot.last_us);
        }
        let (first_us, first_bytes) = first?;
        let took_us = last_us.saturating_sub(first_us);
        let bytes = bytes.saturating_sub(first_bytes.into());
        (took_us >= BUSY_US && bytes >= BUSY_BYTES).then(|| bytes as f64 * 8e6 / took_us as f64)
    }

    /// Whether packets waited for a line or a reader that slept, and not because more was sent than `bps`, which is the
    /// estimate. A line that is slow carries others while a packet waits for it, and packets wait longer one after the
    /// other; here nothing at all arrived for most of that time, and what came then had waited for so much longer than what
    /// came before. That is longer than packets take at such a rate.
    pub(crate) fn slept(&self, bps: f64) -> bool {
        let Some(mut later) = self.slot(self.newest) else { return false };
        // Of a longer time not all is known.
        let waits_us = self.queue_us.min(SLOTS as i64 * SLOT_US);
        let least_us = (waits_us * 2 / 3).max((PACKETS_SLEPT * packet_us(bps)) as i64);
        let from_us = later.last_us.saturating_sub(waits_us);
        for back in 1..SLOTS as i64 {
            let Some(slot) = self.slot(self.newest.saturating_sub(back)) else { continue };
            let silent_us = later.first_us.saturating_sub(slot.last_us.max(from_us));
            let longer_us = later.first_took_us.saturating_sub(slot.least_us);
            if silent_us.min(longer_us) > least_us {
                return true;
            }
            if slot.first_us <= from_us {
                return false;
            }
            later = slot;
        }
        later.first_us.saturating_sub(from_us) > least_us
    }

    /// A slot that is still remembered.
    fn slot(&self, number: i64) -> Option<&Slot> {
        let slot = self.slots.get(number.rem_euclid(SLOTS as i64) as usize);
        slot.filter(|slot| slot.number == number && slot.packets > 0)
    }

    /// The smallest delay of the last packets.
    fn luckiest(&self, of: impl Fn(&Slot) -> i64) -> Option<i64> {
        let (mut least_us, mut packets) = (None, 0_u16);
        for back in 0..LUCK_US_MAX / SLOT_US {
            if packets >= LUCK_PACKETS && back * SLOT_US >= LUCK_US {
                break;
            }
            let Some(slot) = self.slot(self.newest.saturating_sub(back)) else { continue };
            let least = least_us.unwrap_or(of(slot));
            least_us = Some(of(slot).min(least));
            packets = packets.saturating_add(slot.packets);
        }
        least_us
    }
}

/// How long a large packet takes.
fn packet_us(bps: f64) -> f64 {
    1200.0 * 8e6 / bps.max(1.0)
}

/// Half of one adds this much to a queue that is none, at most.
const HALF_US_MAX: f64 = 15_000.0;
/// A line that has just become narrow lets nothing through for as long as a packet takes: so many at the rate of before are
/// more than that of a line that became half as wide.
const PACKETS_SLEPT: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets every 10 ms that take so long each; the queue that is seen in the end.
    fn queue_us(took_us: impl Fn(i64) -> i64, packets: i64) -> i64 {
        let mut delay = Delay::default();
        for n in 0..packets {
            delay.on_packet(n * 10_000, n * 10_000 + took_us(n), 1200);
            if n % 5 == 4 {
                delay.close();
            }
        }
        delay.queue_us()
    }

    #[test]
    fn a_queue_is_what_the_last_packets_wait_longer() {
        assert_eq!(queue_us(|_| -7_000_000, 100), 0, "whatever the clocks say");
        assert_eq!(queue_us(|n| if n < 50 { 20_000 } else { 70_000 }, 100), 50_000);
    }

    #[test]
    fn what_a_line_carries_is_seen_in_a_burst() {
        // A packet every 10 ms, and 60 at once, over a line that needs 2 ms for each.
        let mut delay = Delay::default();
        let (mut free_us, mut arrived_us) = (0, 0);
        let mut send = |delay: &mut Delay, sent_us: i64| {
            free_us = free_us.max(sent_us) + 2_000;
            arrived_us = free_us + 20_000;
            delay.on_packet(sent_us, arrived_us, 1200);
        };
        (0..100).for_each(|n| send(&mut delay, n * 10_000));
        (0..60).for_each(|_| send(&mut delay, 1_000_000));
        delay.close();
        assert!(delay.queue_us() > 20_000, "{}", delay.queue_us());
        let bps = delay.busy_bps().expect("it waits");
        let line_bps = 1200.0 * 8e6 / 2_000.0;
        assert!((0.7..1.01).contains(&(bps / line_bps)), "{bps} of {line_bps}");
    }

    #[test]
    fn packets_that_vary_do_so_whether_they_overtake_each_other_or_not() {
        for order in [false, true] {
            let (mut delay, mut last_us) = (Delay::default(), 0);
            for n in 0..1000 {
                let arrived_us = n * 10_000 + (n * 7919) % 30_000;
                last_us = if order { arrived_us.max(last_us) } else { arrived_us };
                delay.on_packet(n * 10_000, last_us, 1200);
            }
            assert!((3_000..15_000).contains(&delay.jitter_us()), "{}", delay.jitter_us());
        }
    }

    #[test]
    fn jitter_is_no_queue() {
        assert!(queue_us(|n| (n * 7919) % 30_000, 1000) < 10_000);
    }

    /// The queue that is seen when a reader wakes up that read nothing of the last 400 ms; what waits besides.
    fn woken_us(queue_us: i64) -> i64 {
        let mut delay = Delay::default();
        let (woke_us, mut read_us) = (1_320_000, 0);
        for n in 0..=40 {
            let sent_us = n * 33_000;
            let took_us = if n < 20 { 20_000 } else { 20_000 + queue_us };
            let arrived_us = sent_us + took_us;
            let slept = (woke_us - 400_000..woke_us).contains(&arrived_us);
            read_us = if slept { woke_us.max(read_us + 200) } else { arrived_us };
            if arrived_us < woke_us {
                delay.on_packet(sent_us, read_us, 600);
            }
        }
        delay.close();
        delay.queue_us()
    }

    #[test]
    fn what_waits_for_a_reader_that_slept_is_no_queue() {
        assert!(woken_us(0) < 5_000, "{}", woken_us(0));
        assert!((60_000..=110_000).contains(&woken_us(100_000)), "{}", woken_us(100_000));
    }

    /// Whether anybody slept: packets every so often, then some that arrive when they are told to.
    fn slept(apart_us: i64, arrives_us: impl Fn(i64) -> i64) -> bool {
        let mut delay = Delay::default();
        for n in -20..10 {
            let sent_us = n * apart_us;
            delay.on_packet(sent_us, if n < 0 { sent_us + 20_000 } else { arrives_us(n) }, 1200);
        }
        delay.close();
        assert!(delay.queue_us() > 30_000, "{}", delay.queue_us());
        delay.slept(1e6)
    }

    #[test]
    fn who_slept_is_known_by_silence() {
        assert!(slept(10_000, |n| 320_000 + n * 500), "all comes at once");
        assert!(!slept(10_000, |n| 120_000 + n * 120_000), "the line got narrow");
        assert!(!slept(40_000, |n| n * 40_000 + 20_000 + n * 9_000), "nothing was sent in between");
    }

    #[test]
    fn clocks_that_drift_do_not_fill_a_queue() {
        // 200 ppm: 2 µs every 10 ms; an hour.
        assert!(queue_us(|n| 2 * n, 360_000) <= 4_000);
        assert!(queue_us(|n| -2 * n, 360_000) <= 4_000);
    }

    #[test]
    fn what_stays_is_the_way() {
        assert_eq!(queue_us(|n| if n < 50 { 0 } else { 80_000 }, 50 + 2001), 0);
    }

    #[test]
    fn times_that_lie_do_no_harm() {
        let mut delay = Delay::default();
        for at in [i64::MAX, i64::MIN, 0, -1, i64::MAX / 2] {
            delay.on_packet(at, at.wrapping_neg(), 1200);
            delay.close();
            delay.on_packet(0, at, 1200);
            delay.close();
            assert!(delay.queue_us() >= 0 && delay.threshold_us(0.0) > 0);
            let _ = (delay.slept(0.0), delay.slept(1e6), delay.busy_bps());
        }
        delay.rebase();
    }
}
