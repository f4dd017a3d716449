//! What one subscriber should see of one stream, packet by packet.

use crate::limits::REMEMBERED;
use crate::payload::Identity;
use crate::signalling::MediaKind;
use crate::violation::{Violation, Violations};

const WORDS: usize = REMEMBERED / 64;

/// Which packets of one encoding count: those that its publisher numbered from `from` until before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    pub from: u64,
    pub until: u64,
}

impl Marks {
    /// Before the count began, and as long as it goes on.
    pub(crate) const NONE: Self = Self { from: u64::MAX, until: u64::MAX };

    fn contains(self, counter: u64) -> bool {
        (self.from..self.until).contains(&counter)
    }

    /// How many of `first..=last` count.
    fn overlap(self, first: u64, last: u64) -> u64 {
        last.saturating_add(1).min(self.until).saturating_sub(first.max(self.from))
    }
}

/// A packet as a subscriber sees it, its payload read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub identity: Identity,
    pub seq: u16,
    pub timestamp: u32,
    pub marker: bool,
    /// Came by RTX: late by nature.
    pub repaired: bool,
}

/// What came of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// It counts: new, and numbered within the marks.
    pub counts: bool,
    /// Packets before it that have not come (yet).
    pub newly_missing: u64,
    /// It had been missing.
    pub fills_gap: bool,
}

/// What was counted of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub expected: u64,
    pub received: u64,
    pub frames_whole: u64,
    pub frames_broken: u64,
}

/// One stream of one subscriber.
#[derive(Debug)]
pub(crate) struct Checker {
    kind: MediaKind,
    run: Option<Run>,
    tally: Tally,
    frame: Option<Frame>,
}

/// Packets of one encoding, without a switch.
#[derive(Debug)]
struct Run {
    /// [`Identity::stream`].
    stream: u32,
    first: u64,
    highest: u64,
    /// Bit n of word 0 is packet `highest - n`, and so on.
    window: [u64; WORDS],
    /// RTP sequence number, less the publisher's count.
    seq_offset: u16,
    highest_seq: u16,
    timestamp_offset: u32,
    highest_timestamp: u32,
}

#[derive(Debug)]
struct Frame {
    stream: u32,
    number: u32,
    seen: u16,
    counts: bool,
    whole: bool,
}

impl Checker {
    pub(crate) fn new(kind: MediaKind) -> Self {
        Self { kind, run: None, tally: Tally::default(), frame: None }
    }

    /// Whether anything came.
    pub(crate) fn has_begun(&self) -> bool {
        self.run.is_some()
    }

    /// Takes a packet. `marks` are those of the packet's encoding, `marks_of` finds those of another.
    pub(crate) fn take(
        &mut self,
        seen: &Seen,
        marks_of: impl Fn(u32) -> Marks,
        violations: &mut Violations,
    ) -> Outcome {
        let identity = &seen.identity;
        let marks = marks_of(identity.stream);
        if self.kind == MediaKind::Video && seen.marker != (identity.index + 1 == identity.count) {
            violations.add(Violation::Marker, 1);
        }
        let outcome = match &mut self.run {
            Some(run) if run.stream == identity.stream => run.take(seen, violations),
            Some(run) => {
                let starts = identity.index == 0 && identity.key;
                if !starts && run.stream != identity.stream && self.left(identity.stream, seen) {
                    // A straggler of the layer that was left.
                    violations.add(Violation::Reordered, 1);
                    return Outcome::default();
                }
                self.switch(seen, starts, &marks_of, violations)
            }
            None => {
                self.run = Some(Run::begin(seen));
                Outcome { counts: true, ..Outcome::default() }
            }
        };
        let counts = outcome.counts && marks.contains(identity.counter);
        self.tally.received += u64::from(counts);
        if outcome.counts {
            self.frame(identity, counts);
        }
        Outcome { counts, ..outcome }
    }

    /// A packet without payload: it takes a sequence number, and nothing else.
    pub(crate) fn take_padding(&mut self, seq: u16) {
        if let Some(run) = &mut self.run
            && seq == run.highest_seq.wrapping_add(1)
        {
            run.seq_offset = run.seq_offset.wrapping_add(1);
            run.highest_seq = seq;
        }
    }

    /// What was counted; of what is missing at the end the caller knows nothing yet.
    pub(crate) fn finish(
        mut self,
        marks_of: impl Fn(u32) -> Marks,
        violations: &mut Violations,
    ) -> Tally {
        match self.run.take() {
            Some(run) => {
                let marks = marks_of(run.stream);
                // The last encoding is expected to the end.
                let last = marks.until.saturating_sub(1).max(run.highest);
                self.tally.expected += marks.overlap(run.first, last);
            }
            None => violations.add(Violation::Silent, 1),
        }
        self.close_frame();
        let missing = self.tally.expected.saturating_sub(self.tally.received);
        violations.add(Violation::Missing, missing);
        self.tally
    }

    /// Whether the packet's place in the sequence is before the run's begin.
    fn left(&self, stream: u32, seen: &Seen) -> bool {
        self.run.as_ref().is_some_and(|run| {
            run.stream != stream && (seen.seq.wrapping_sub(run.highest_seq) as i16) < 0
        })
    }

    fn switch(
        &mut self,
        seen: &Seen,
        starts: bool,
        marks_of: &impl Fn(u32) -> Marks,
        violations: &mut Violations,
    ) -> Outcome {
        if !starts {
            violations.add(Violation::Switch, 1);
        }
        if let Some(old) = self.run.take() {
            self.tally.expected += marks_of(old.stream).overlap(old.first, old.highest);
            if seen.seq != old.highest_seq.wrapping_add(1) {
                violations.add(Violation::Sequence, 1);
            }
            if (seen.timestamp.wrapping_sub(old.highest_timestamp) as i32) <= 0 {
                violations.add(Violation::Timestamp, 1);
            }
        }
        self.run = Some(Run::begin(seen));
        Outcome { counts: true, ..Outcome::default() }
    }

    fn frame(&mut self, identity: &Identity, counts: bool) {
        if self.kind != MediaKind::Video {
            return;
        }
        let ours =
            |frame: &Frame| frame.stream == identity.stream && frame.number == identity.frame;
        if !self.frame.as_ref().is_some_and(ours) {
            // A straggler of a frame that was closed changes nothing any more.
            if self.frame.as_ref().is_some_and(|frame| {
                frame.stream == identity.stream
                    && (identity.frame.wrapping_sub(frame.number) as i32) < 0
            }) {
                return;
            }
            self.close_frame();
            let (stream, number) = (identity.stream, identity.frame);
            self.frame = Some(Frame { stream, number, seen: 0, counts, whole: false });
        }
        if let Some(frame) = &mut self.frame {
            frame.seen += 1;
            frame.whole = frame.seen == identity.count;
            frame.counts &= counts;
        }
    }

    fn close_frame(&mut self) {
        if let Some(frame) = self.frame.take().filter(|frame| frame.counts) {
            self.tally.frames_whole += u64::from(frame.whole);
            self.tally.frames_broken += u64::from(!frame.whole);
        }
    }
}

impl Run {
    fn begin(seen: &Seen) -> Self {
        let counter = seen.identity.counter;
        let mut window = [0; WORDS];
        window[0] = 1;
        Self {
            stream: seen.identity.stream,
            first: counter,
            highest: counter,
            window,
            seq_offset: seen.seq.wrapping_sub(counter as u16),
            highest_seq: seen.seq,
            timestamp_offset: seen.timestamp.wrapping_sub(seen.identity.timestamp),
            highest_timestamp: seen.timestamp,
        }
    }

    fn take(&mut self, seen: &Seen, violations: &mut Violations) -> Outcome {
        let counter = seen.identity.counter;
        if seen.timestamp != seen.identity.timestamp.wrapping_add(self.timestamp_offset) {
            violations.add(Violation::Timestamp, 1);
            // What follows is compared with this one.
            self.timestamp_offset = seen.timestamp.wrapping_sub(seen.identity.timestamp);
        }
        if seen.seq != self.seq_offset.wrapping_add(counter as u16) {
            violations.add(Violation::Sequence, 1);
            self.seq_offset = seen.seq.wrapping_sub(counter as u16);
        }
        if let Some(ahead @ 1..) = counter.checked_sub(self.highest) {
            self.shift(ahead);
            self.highest = counter;
            self.highest_seq = seen.seq;
            self.highest_timestamp = seen.timestamp;
            return Outcome { counts: true, newly_missing: ahead - 1, fills_gap: false };
        }
        let behind = self.highest - counter;
        if counter < self.first {
            // Before the first that came, nothing was expected; what comes from there now is out of order.
            violations.add(Violation::Reordered, 1);
            return Outcome::default();
        }
        let (word, bit) = ((behind / 64) as usize, behind % 64);
        match self.window.get_mut(word) {
            Some(bits) if *bits >> bit & 1 == 0 => {
                *bits |= 1 << bit;
                if !seen.repaired {
                    violations.add(Violation::Reordered, 1);
                }
                Outcome { counts: true, newly_missing: 0, fills_gap: true }
            }
            Some(_) => {
                // Whoever asks twice, because the first answer is slow, is answered twice.
                if !seen.repaired {
                    violations.add(Violation::Duplicate, 1);
                }
                Outcome::default()
            }
            None => {
                violations.add(Violation::Reordered, 1);
                Outcome::default()
            }
        }
    }

    /// Makes room for `ahead` newer packets, of which the last came.
    fn shift(&mut self, ahead: u64) {
        let (words, bits) = ((ahead / 64) as usize, (ahead % 64) as u32);
        for at in (0..WORDS).rev() {
            let word = |at: Option<usize>| at.and_then(|at| self.window.get(at)).copied();
            let high = word(at.checked_sub(words)).unwrap_or(0);
            let low = word(at.checked_sub(words + 1)).unwrap_or(0);
            let carried = if bits == 0 { 0 } else { low >> (64 - bits) };
            if let Some(word) = self.window.get_mut(at) {
                *word = high << bits | carried;
            }
        }
        if let Some(first) = self.window.first_mut() {
            *first |= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { from: 100, until: 200 };

    /// Frames of four packets; the first of all is a key frame.
    fn packet(counter: u64) -> Seen {
        let frame = (counter / 4) as u32;
        let identity = Identity {
            stream: 4,
            counter,
            sent_ns: 0,
            frame,
            timestamp: frame * 3000,
            index: (counter % 4) as u16,
            count: 4,
            key: counter < 4,
        };
        Seen {
            identity,
            seq: (counter as u16).wrapping_add(65_000),
            timestamp: identity.timestamp.wrapping_add(77),
            marker: counter % 4 == 3,
            repaired: false,
        }
    }

    fn check(packets: impl IntoIterator<Item = Seen>) -> (Tally, Violations) {
        let (mut checker, mut violations) = (Checker::new(MediaKind::Video), Violations::default());
        for seen in packets {
            checker.take(&seen, |_| MARKS, &mut violations);
        }
        (checker.finish(|_| MARKS, &mut violations), violations)
    }

    fn only(violations: &Violations, kind: Violation, count: u64) {
        assert_eq!(violations.of(kind), count, "{violations:?}");
        assert_eq!(violations.by_name().len(), 1, "{violations:?}");
    }

    #[test]
    fn all_is_well_over_a_wrap() {
        let (tally, violations) = check((0..1000).map(packet));
        let all = Tally { expected: 100, received: 100, frames_whole: 25, frames_broken: 0 };
        assert_eq!(tally, all);
        assert!(violations.by_name().is_empty(), "{violations:?}");
    }

    #[test]
    fn gaps_are_found_wherever_they_are() {
        for gap in [100..101, 150..153, 140..160, 199..200, 195..300] {
            let lost = gap.clone().filter(|n| *n < 200).count() as u64;
            let (tally, violations) = check((50..300).filter(|n| !gap.contains(n)).map(packet));
            only(&violations, Violation::Missing, lost);
            assert_eq!((tally.expected, tally.received), (100, 100 - lost));
            assert!(tally.frames_broken > 0 || lost >= 4, "{tally:?}");
        }
        // What is lost before and after the count is not counted.
        let (_, violations) = check((50..300).filter(|n| ![60, 250].contains(n)).map(packet));
        assert!(violations.by_name().is_empty(), "{violations:?}");
    }

    #[test]
    fn a_stream_that_begins_late_misses_its_beginning() {
        // The first key frame came within the count: what was before it was expected by nobody.
        let (tally, violations) = check((120..300).map(packet));
        assert_eq!((tally.expected, tally.received), (80, 80));
        assert!(violations.by_name().is_empty(), "{violations:?}");
        let (tally, violations) = check([]);
        assert_eq!(tally.expected, 0);
        only(&violations, Violation::Silent, 1);
    }

    #[test]
    fn planted_faults_are_found() {
        let good = || (90..250).map(packet);
        let (tally, violations) = check(good().chain([packet(240), packet(150)]));
        only(&violations, Violation::Duplicate, 2);
        assert_eq!(tally.received, 100);

        let mut swapped: Vec<Seen> = good().collect();
        swapped.swap(30, 33);
        let (tally, violations) = check(swapped);
        only(&violations, Violation::Reordered, 3);
        assert_eq!(tally.received, 100);

        let plant = |change: fn(&mut Seen)| {
            let mut packets: Vec<Seen> = good().collect();
            change(&mut packets[40]);
            check(packets).1
        };
        only(&plant(|seen| seen.marker = !seen.marker), Violation::Marker, 1);
        only(&plant(|seen| seen.seq += 1), Violation::Sequence, 2);
        only(&plant(|seen| seen.timestamp += 1), Violation::Timestamp, 2);
    }

    #[test]
    fn repaired_packets_are_not_out_of_order_and_may_come_twice() {
        let mut packets: Vec<Seen> = (90..250).filter(|n| *n != 150).map(packet).collect();
        for _ in 0..2 {
            packets.insert(80, Seen { repaired: true, ..packet(150) });
        }
        let (tally, violations) = check(packets);
        assert!(violations.by_name().is_empty(), "{violations:?}");
        assert_eq!((tally.received, tally.frames_broken), (100, 1), "too late for its frame");
    }

    #[test]
    fn a_switch_continues_with_a_key_frame() {
        // The other layer counts from 1000 on, and its key frame begins at 1000.
        let other = |n: u64, key: bool, seq: u16| {
            let frame = (n / 4) as u32;
            let identity = Identity { stream: 5, counter: n, frame, key, ..packet(n).identity };
            let timestamp = 1_000_000 + frame * 3000;
            let identity = Identity { timestamp, ..identity };
            Seen { identity, seq, timestamp: timestamp + 5, ..packet(n) }
        };
        let marks = |stream| if stream == 4 { MARKS } else { Marks { from: 990, until: 1100 } };
        let run = |key: bool, skip: u16| {
            let (mut checker, mut violations) =
                (Checker::new(MediaKind::Video), Violations::default());
            for seen in (80..160).map(packet) {
                checker.take(&seen, marks, &mut violations);
            }
            let next = packet(160).seq.wrapping_add(skip);
            for n in 0..120 {
                let seen = other(1000 + n, key && n < 4, next.wrapping_add(n as u16));
                checker.take(&seen, marks, &mut violations);
            }
            (checker.finish(marks, &mut violations), violations)
        };
        let (tally, violations) = run(true, 0);
        assert!(violations.by_name().is_empty(), "{violations:?}");
        assert_eq!((tally.expected, tally.received), (60 + 100, 60 + 100));
        only(&run(false, 0).1, Violation::Switch, 1);
        only(&run(true, 1).1, Violation::Sequence, 1);
    }

    #[test]
    fn padding_takes_a_sequence_number() {
        let (mut checker, mut violations) = (Checker::new(MediaKind::Video), Violations::default());
        for n in 90..120 {
            checker.take(&packet(n), |_| MARKS, &mut violations);
        }
        checker.take_padding(packet(120).seq);
        for n in 120..200 {
            let seen = Seen { seq: packet(n).seq.wrapping_add(1), ..packet(n) };
            checker.take(&seen, |_| MARKS, &mut violations);
        }
        checker.finish(|_| MARKS, &mut violations);
        assert!(violations.by_name().is_empty(), "{violations:?}");
    }
}
