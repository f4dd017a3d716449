//! One outgoing stream out of many sources: sequence numbers, timestamps and picture ids continue over every switch.
//!
//! A *segment* is a run of one source. Within it an outgoing number is the incoming one plus a constant, so that a gap in
//! the source stays a gap and can be asked for again. At a switch the next segment starts right after the newest number
//! sent. Segments are kept for a while, so that what arrives late, or is asked for again, finds its number.

use crate::layer::Share;
use crate::limits::SEGMENTS;
use crate::time::Instant;
use std::collections::VecDeque;

/// One encoding of one publication while it keeps its SSRC, by a serial number of the worker that is never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source(pub(crate) u64);

/// A jump this far ahead (RFC 3550 appendix A.1, MAX_DROPOUT) is a new start, not loss.
const DROPOUT_MAX: u64 = 3000;
/// How far sender reports may move a switch from where the arrival times put it.
const REPORT_SLACK_MS: i64 = 500;

/// What is added to the numbers of a source's packets besides the sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    pub(crate) timestamp: u32,
    /// To the picture id of VP8 and VP9 (modulo its width).
    pub(crate) picture: u16,
    pub(crate) tl0: u8,
    /// To VP8's KEYIDX (modulo 32).
    pub(crate) key_idx: u8,
    /// To the frame number of the dependency descriptor.
    pub(crate) frame: u16,
}

impl Offsets {
    /// Whether they change the payload.
    pub(crate) fn reach_payload(self) -> bool {
        self.picture != 0 || self.tl0 != 0 || self.key_idx != 0
    }
}

/// What changes from a source's packet to the subscriber's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rewrite {
    /// Outgoing sequence number, extended.
    pub(crate) seq: u64,
    pub(crate) offsets: Offsets,
    /// What of the source was sent where it belongs.
    pub(crate) share: Share,
}

/// What the rewriter looks at in a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    /// Extended sequence number of the source.
    pub(crate) seq: u64,
    /// RTP timestamp of the source.
    pub(crate) timestamp: u32,
    /// VP8 picture id, if there is one.
    pub(crate) picture: Option<u16>,
    /// TL0PICIDX, if there is one.
    pub(crate) tl0: Option<u8>,
    /// VP8's KEYIDX, if there is one.
    pub(crate) key_idx: Option<u8>,
    /// Frame number of the dependency descriptor, if there is one.
    pub(crate) frame: Option<u16>,
    /// The picture goes on after this packet.
    pub(crate) open: bool,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    source: Source,
    first: u64,
    last: u64,
    /// Outgoing minus incoming sequence number.
    seq_offset: i64,
    offsets: Offsets,
    share: Share,
}

impl Segment {
    fn outgoing(&self, seq: u64) -> u64 {
        seq.saturating_add_signed(self.seq_offset)
    }
}

/// The numbers of one subscription.
#[derive(Debug)]
pub(crate) struct Rewriter {
    segments: VecDeque<Segment>,
    /// Whether the last segment goes on.
    open: bool,
    next: u64,
    /// None with this number or a later one has been sent; and what that was before the packet that was numbered last.
    unsent: u64,
    unsent_before: u64,
    /// The number with which what is sent now was entered: another source, or the same after an interruption.
    entered: u64,
    /// The newest packet sent, with outgoing numbers, and when.
    newest: Position,
    at: Instant,
    sent: bool,
    /// The last picture that was left out, by the source's id.
    left_out: Option<u16>,
}

impl Rewriter {
    /// Starts at `first_seq`.
    pub(crate) fn new(first_seq: u16) -> Self {
        // In the second cycle, so that a late first packet has a number too.
        let next = (1 << 16) | u64::from(first_seq);
        Self {
            segments: VecDeque::new(),
            open: false,
            next,
            unsent: next,
            unsent_before: next,
            entered: 0,
            newest: Position::default(),
            at: Instant::default(),
            sent: false,
            left_out: None,
        }
    }

    /// The numbers of a packet that is newer than all of the running segment, and near enough to belong to it.
    #[inline]
    pub(crate) fn ahead(&self, source: Source, seq: u64) -> Option<Rewrite> {
        let running = self.segments.back().filter(|_| self.open)?;
        let near = running.last..running.last.saturating_add(DROPOUT_MAX);
        (running.source == source && near.contains(&(seq.checked_sub(1)?))).then(|| Rewrite {
            seq: running.outgoing(seq),
            offsets: running.offsets,
            share: running.share,
        })
    }

    /// Whether this packet cannot belong to the running segment: another source, or too far ahead.
    pub(crate) fn needs_segment(&self, source: Source, seq: u64) -> bool {
        let running = self.segments.back().filter(|_| self.open);
        running.is_none_or(|segment| {
            segment.source != source || seq > segment.last.saturating_add(DROPOUT_MAX)
        })
    }

    /// Whether the packet is not newer than what was sent of its source: it may fill a hole there, but starts nothing.
    pub(crate) fn is_late(&self, source: Source, seq: u64) -> bool {
        let newest = self.segments.iter().rev().find(|segment| segment.source == source);
        newest.is_some_and(|segment| seq <= segment.last)
    }

    /// Ends the running segment: what follows, of whatever source, starts a new one.
    pub(crate) fn close(&mut self) {
        self.open = false;
        // Nothing more of it comes.
        self.newest.open = false;
    }

    /// Opens a segment whose first packet is at `position`, arriving `at`.
    ///
    /// `aligned` is the outgoing timestamp that sender reports give this packet; without one, or when it is far off, the
    /// time since the last packet decides.
    pub(crate) fn begin(
        &mut self,
        source: Source,
        position: Position,
        at: Instant,
        clock_rate_hz: u32,
        aligned: Option<u32>,
        share: Share,
    ) {
        let timestamp = if let Some(timestamp) = self.resumed_timestamp(source, position) {
            timestamp
        } else if self.sent {
            self.continue_timestamp(at, clock_rate_hz, aligned)
        } else {
            position.timestamp
        };
        let newest = self.newest;
        let offsets = Offsets {
            timestamp: timestamp.wrapping_sub(position.timestamp),
            picture: offset(newest.picture, position.picture, |last, new| {
                last.wrapping_add(1).wrapping_sub(new) & 0x7FFF
            }),
            tl0: offset(newest.tl0, position.tl0, |last, new| {
                last.wrapping_add(1).wrapping_sub(new)
            }),
            key_idx: offset(newest.key_idx, position.key_idx, |last, new| {
                last.wrapping_add(1).wrapping_sub(new) & 0x1F
            }),
            frame: offset(newest.frame, position.frame, |last, new| {
                last.wrapping_add(1).wrapping_sub(new)
            }),
        };
        // The rest of a picture that goes on is late, or lost: with a number left for it nobody takes what follows for it.
        if newest.open
            && let Some(before) = self.segments.back_mut().filter(|before| before.source != source)
        {
            before.last += 1;
            self.next += 1;
        }
        if !self.open || self.segments.back().is_none_or(|before| before.source != source) {
            self.entered = self.next;
        }
        self.push(Segment {
            source,
            first: position.seq,
            last: position.seq,
            seq_offset: (self.next as i64).wrapping_sub(position.seq as i64),
            offsets,
            share,
        });
        self.open = true;
        self.left_out = None;
    }

    /// From this packet of the running segment on, which is its newest, other layers are sent.
    pub(crate) fn cut(&mut self, seq: u64, share: Share) {
        let Some(running) = self.segments.back_mut().filter(|_| self.open) else { return };
        let after = Segment { first: seq, last: seq.saturating_sub(1), share, ..*running };
        if running.first == seq {
            running.share = share;
        } else {
            // What is missing in between still belongs to what was sent before.
            running.last = after.last;
            self.push(after);
        }
    }

    /// This packet of the running segment, which is its newest, is left out: the numbers close over it. Picture ids as
    /// well, if it is told which picture it is of.
    pub(crate) fn skip(&mut self, position: Position, picture: Option<u16>) {
        let seq = position.seq;
        let Some(running) = self.segments.back_mut().filter(|_| self.open) else { return };
        // The rest of the picture before it, if any, was due before it.
        self.newest.open = false;
        let mut after = Segment {
            first: seq + 1,
            last: seq,
            seq_offset: running.seq_offset.saturating_sub(1),
            ..*running
        };
        if picture.is_some() && picture != self.left_out {
            after.offsets.picture = after.offsets.picture.wrapping_sub(1) & 0x7FFF;
            self.left_out = picture;
        }
        // What is missing before it may still go out: what follows of another source is counted after that.
        if running.outgoing(seq) > self.next {
            let (newest, offsets) = (&mut self.newest, after.offsets);
            let picture = position.picture.map(|id| id.wrapping_add(offsets.picture) & 0x7FFF);
            newest.picture = picture.or(newest.picture);
            newest.tl0 = position.tl0.map(|tl0| tl0.wrapping_add(offsets.tl0)).or(newest.tl0);
            let frame = position.frame.map(|frame| frame.wrapping_add(offsets.frame));
            newest.frame = frame.or(newest.frame);
        }
        self.next = running.outgoing(seq);
        if running.first == seq {
            *running = after;
        } else {
            // The numbers of what is missing in between stay due.
            running.last = seq.saturating_sub(1);
            self.push(after);
        }
    }

    fn push(&mut self, segment: Segment) {
        if self.segments.len() == SEGMENTS {
            self.segments.pop_front();
        }
        self.segments.push_back(segment);
    }

    /// Whether nothing is missing before this packet, the newest of the running segment.
    pub(crate) fn follows(&self, seq: u64) -> bool {
        self.segments.back().is_some_and(|running| seq == running.last + 1)
    }

    /// Whether this is the timestamp of what was sent last.
    pub(crate) fn is_in(&self, timestamp: u32) -> bool {
        self.segments.back().is_some_and(|running| {
            timestamp.wrapping_add(running.offsets.timestamp) == self.newest.timestamp
        })
    }

    /// When the newest packet was received, if any was sent.
    pub(crate) fn sent_at(&self) -> Option<Instant> {
        self.sent.then_some(self.at)
    }

    /// The outgoing timestamp where a source goes on after an interruption: its own clock knows how long that was, when
    /// arrival does not (all that a connection held back arrives at once).
    fn resumed_timestamp(&self, source: Source, position: Position) -> Option<u32> {
        let before = self.segments.back().filter(|segment| segment.source == source)?;
        let timestamp = position.timestamp.wrapping_add(before.offsets.timestamp);
        let goes_on = position.seq <= before.last.saturating_add(DROPOUT_MAX);
        // The same: of the picture whose beginning was given up.
        let is_behind = timestamp.wrapping_sub(self.newest.timestamp).cast_signed() < 0;
        (goes_on && !is_behind).then_some(timestamp)
    }

    /// The next outgoing timestamp at a switch.
    fn continue_timestamp(&self, at: Instant, clock_rate_hz: u32, aligned: Option<u32>) -> u32 {
        let clock = i64::from(clock_rate_hz);
        let elapsed = (at.since(self.at).as_micros() as i64).saturating_mul(clock) / 1_000_000;
        let by_arrival = elapsed.clamp(1, i64::from(i32::MAX));
        let slack = REPORT_SLACK_MS * clock / 1000;
        let step = aligned
            .map(|aligned| i64::from(aligned.wrapping_sub(self.newest.timestamp).cast_signed()))
            .filter(|step| *step > 0 && (step - by_arrival).abs() <= slack)
            .unwrap_or(by_arrival);
        self.newest.timestamp.wrapping_add(step as u32)
    }

    /// The numbers of a packet; `None` for one that was never due in this stream.
    pub(crate) fn map(&self, source: Source, seq: u64) -> Option<Rewrite> {
        let mut open = self.open;
        for segment in self.segments.iter().rev() {
            let within = seq >= segment.first && (open || seq <= segment.last);
            if segment.source == source && within {
                return Some(Rewrite {
                    seq: segment.outgoing(seq),
                    offsets: segment.offsets,
                    share: segment.share,
                });
            }
            open = false;
        }
        None
    }

    /// Takes note that the packet was given its numbers, and is sent if [`Rewriter::wait_for`] does not follow: the next segment
    /// starts after it.
    pub(crate) fn advance(&mut self, position: Position, rewrite: Rewrite, at: Instant) {
        self.unsent_before = self.unsent;
        self.unsent = self.unsent.max(rewrite.seq + 1);
        if rewrite.seq < self.next {
            return;
        }
        self.next = rewrite.seq + 1;
        if let Some(segment) = self.segments.back_mut() {
            segment.last = segment.last.max(position.seq);
        }
        let offsets = rewrite.offsets;
        let timestamp = position.timestamp.wrapping_add(offsets.timestamp);
        if !self.sent || timestamp.wrapping_sub(self.newest.timestamp).cast_signed() > 0 {
            self.newest.timestamp = timestamp;
            self.at = at;
        }
        if let Some(picture) = position.picture {
            self.newest.picture = Some(picture.wrapping_add(offsets.picture) & 0x7FFF);
        }
        if let Some(tl0) = position.tl0 {
            self.newest.tl0 = Some(tl0.wrapping_add(offsets.tl0));
        }
        if let Some(key_idx) = position.key_idx {
            self.newest.key_idx = Some(key_idx.wrapping_add(offsets.key_idx) & 0x1F);
        }
        if let Some(frame) = position.frame {
            self.newest.frame = Some(frame.wrapping_add(offsets.frame));
        }
        self.newest.open = position.open;
        self.sent = true;
    }

    /// The packet that was numbered last waits until [`Rewriter::leaves`].
    pub(crate) fn wait_for(&mut self) {
        self.unsent = self.unsent_before;
    }

    /// A packet that waited is sent.
    pub(crate) fn leaves(&mut self, seq: u64) {
        self.unsent = self.unsent.max(seq + 1);
    }

    /// The first number that can be taken back: neither it nor any after it has been sent.
    pub(crate) fn floor(&self) -> u64 {
        self.unsent
    }

    /// Packets that waited will not be sent, those with this number and later ones: what comes next is numbered as if they
    /// had never been.
    pub(crate) fn give_up(&mut self, from: u64) {
        // Under no number two packets are ever sent: it is part of the nonce.
        let from = from.max(self.floor()).min(self.next);
        self.close();
        while let Some(segment) = self.segments.back_mut() {
            if segment.outgoing(segment.first) < from {
                if segment.outgoing(segment.last) >= from {
                    let last = from.saturating_sub(1);
                    segment.last = last.saturating_add_signed(segment.seq_offset.wrapping_neg());
                }
                break;
            }
            if self.segments.len() == 1 {
                // Nothing is sent of it, but the clock of its source goes on.
                self.segments.iter_mut().for_each(|s| s.last = s.first.saturating_sub(1));
                break;
            }
            self.segments.pop_back();
        }
        self.next = from;
    }

    /// What has this number and later ones of a source will not be sent. If another source comes after that, its numbers are
    /// counted from there, and what they were counted from until now is returned. If not, or if one of them was sent already,
    /// nothing is changed.
    pub(crate) fn close_over(&mut self, lost: Source, from: u64) -> Option<u64> {
        let has = |s: &Segment| s.source == lost && s.outgoing(s.first) <= from;
        let had = self.segments.iter().rposition(has).filter(|_| self.floor() <= from)?;
        let at = self.segments.iter().skip(had).position(|s| s.source != lost)? + had;
        let to = self.segments.get(at).map(|s| s.outgoing(s.first))?;
        let less = to.checked_sub(from)?;
        for segment in self.segments.range_mut(at..) {
            segment.seq_offset = segment.seq_offset.saturating_sub_unsigned(less);
        }
        for segment in self.segments.range_mut(..at) {
            if segment.outgoing(segment.last) >= from {
                let last = from.saturating_sub(1);
                let last = last.saturating_add_signed(segment.seq_offset.wrapping_neg());
                segment.last = last.max(segment.first.saturating_sub(1));
            }
        }
        self.next -= less;
        self.entered = if self.entered >= to { self.entered - less } else { self.entered };
        Some(to)
    }

    /// Which packet of which source was sent under this number, or would have been had it arrived.
    pub(crate) fn origin(&self, seq: u16) -> Option<(Source, u64)> {
        let newest = self.floor().checked_sub(1)?;
        let back = u64::from((newest as u16).wrapping_sub(seq));
        let outgoing = newest.checked_sub(back).filter(|_| back < 1 << 15)?;
        let segment = self
            .segments
            .iter()
            .rev()
            .find(|s| (s.outgoing(s.first)..=s.outgoing(s.last)).contains(&outgoing))?;
        Some((segment.source, outgoing.saturating_add_signed(segment.seq_offset.wrapping_neg())))
    }

    /// Whether this number lies before all of what is sent now.
    pub(crate) fn is_past(&self, seq: u16) -> bool {
        let newest = self.next.saturating_sub(1);
        let back = u64::from((newest as u16).wrapping_sub(seq));
        newest.saturating_sub(back) < self.entered
    }

    /// The newest number that was sent, and about its timestamp.
    pub(crate) fn newest(&self) -> Option<(u64, u32)> {
        self.sent.then(|| (self.floor().saturating_sub(1), self.newest.timestamp))
    }

    /// The newest source, and what is added to its timestamps.
    pub(crate) fn running(&self) -> Option<(Source, u32)> {
        self.segments.back().map(|segment| (segment.source, segment.offsets.timestamp))
    }
}

fn offset<T, O: Default>(last: Option<T>, new: Option<T>, step: impl Fn(T, T) -> O) -> O {
    last.zip(new).map(|(last, new)| step(last, new)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
