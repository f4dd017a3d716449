//! One-way queuing delay of one encoding on its way to us: how much longer its packets take than on the same way when
//! nothing waits.
//!
//! Neither clock knows the other: what is seen is arrival minus send time, which is a constant, plus the drift of the two
//! clocks against each other, plus the queue. The queue is never negative, so the line below all points is the empty way:
//! its slope is the drift, and what a packet has above it is its queuing delay. The line rests on the lowest points of
//! [`DELAY_WINDOWS`] windows; between windows each packet costs a subtraction and a comparison.
//!
//! What it cannot know: a queue that is not empty for a moment within these 4 minutes counts as a longer way from then on,
//! and the figure is how far it is above its least. A way that gets longer reads as a queue until that time is over, or
//! until it stood still to a millisecond for [`STILL`] windows without loss, as no queue does. One that gets shorter is
//! seen at once. Without abs-send-time the send time is the RTP timestamp of a frame's first packet, and what the sender
//! itself takes more than at best to encode and to pace is part of the figure.

use crate::limits::{DELAY_WINDOW, DELAY_WINDOWS};
use crate::time::{Duration, Instant};

/// When a packet was sent, by the sender's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendTime {
    /// abs-send-time: 24 bits, 6.18 fixed point seconds.
    Absolute(u32),
    /// RTP timestamp, and the ticks of its clock in a second.
    Timestamp(u32, u32),
}

/// Queuing delay of one source.
#[derive(Debug, Default)]
pub(crate) struct Delay {
    clock: Option<SendClock>,
    line: Line,
    /// The lowest point of the window that is open.
    low: Option<Low>,
    opened: i64,
    /// Of the open window: what packets had above the line, and how many there were.
    above: (i64, u32),
    /// Losses by the time that the window was opened.
    lost: u64,
    past: Past,
    current: i64,
    interval: Histogram,
}

/// Nanoseconds since the first packet arrived, and how much later the packet came than that one did.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    at: i64,
    transit: i64,
}

/// The transit on the empty way at any time.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    at: i64,
    transit: i64,
    /// Drift in billionths: nanoseconds for each second.
    slope: i64,
}

/// The lowest point of a window, with how far the mean was above it.
#[derive(Clone, Copy, Debug, Default)]
struct Low {
    point: Point,
    /// Above the line of its time.
    above: i64,
    mean: i64,
    lossy: bool,
}

const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;
const WINDOW: i64 = DELAY_WINDOW.as_nanos() as i64;
/// A packet this far below the line came on another, shorter way.
const SHORTER: i64 = 3 * MILLISECOND;
/// Beyond this it is a clock that was set, not a queue.
const CLOCK_SET: i64 = 10 * SECOND;
/// Windows over which a longer way shows itself by standing still.
const STILL: usize = 6;

impl Line {
    /// How far a point is above it.
    fn above(self, point: Point) -> i64 {
        // Windows are refitted long before this overflows; a stream that paused for days is refitted first.
        let since = point.at.saturating_sub(self.at);
        point.transit - self.transit - since.saturating_mul(self.slope) / SECOND
    }
}

impl Delay {
    /// An original packet came. `lost` counts the encoding's losses so far.
    pub(crate) fn on_packet(&mut self, at: Instant, sent: SendTime, lost: u64) {
        let clock = match &mut self.clock {
            Some(clock) if clock.is_of(sent) => clock,
            // Send times are worth more than timestamps; one packet without among others is left out.
            Some(clock) if clock.absolute => return,
            _ => return self.begin(at, sent, lost),
        };
        let Some(point) = clock.point(at, sent) else { return };
        let mut above = self.line.above(point);
        if above.abs() > CLOCK_SET {
            return self.begin(at, sent, lost);
        }
        if point.at - self.opened >= WINDOW {
            self.close(point, lost);
            above = self.line.above(point);
        }
        if above < 0 {
            if above < -SHORTER {
                self.past.clear();
                self.low = None;
            }
            self.line.transit += above;
            self.above.0 -= above.saturating_mul(self.above.1.into());
            above = 0;
        }
        if self.low.is_none_or(|low| self.line.above(low.point) > above) {
            self.low = Some(Low { point, above, mean: 0, lossy: false });
        }
        self.above = (self.above.0.saturating_add(above), self.above.1.saturating_add(1));
        self.current = above;
        self.interval.add(above as u64);
    }

    /// Of the newest packet; `None` before there is any.
    pub(crate) fn current(&self) -> Option<Duration> {
        self.clock.as_ref().map(|_| Duration::from_nanos(self.current.max(0) as u64))
    }

    /// What all but a twentieth of the packets since [`Delay::end_interval`] did not exceed, to 6 %; `None` without any.
    pub(crate) fn p95(&self) -> Option<Duration> {
        self.interval.quantile(95, 100)
    }

    /// Begins another interval.
    pub(crate) fn end_interval(&mut self) {
        self.interval = Histogram::default();
    }

    /// Drift of the sender's clock against ours in parts per million: positive where ours is faster.
    pub(crate) fn drift_ppm(&self) -> f64 {
        self.line.slope as f64 / 1000.0
    }

    fn begin(&mut self, at: Instant, sent: SendTime, lost: u64) {
        let interval = std::mem::take(&mut self.interval);
        *self = Self { clock: Some(SendClock::new(at, sent)), interval, lost, ..Self::default() };
        self.low = Some(Low::default());
        self.above.1 = 1;
    }

    /// The window is over: its lowest point is kept, and the line is laid below all that are.
    fn close(&mut self, now: Point, lost: u64) {
        if let Some(mut low) = self.low.take() {
            low.above = self.line.above(low.point);
            low.mean = self.above.0 / i64::from(self.above.1.max(1)) - low.above;
            low.lossy = lost != self.lost;
            self.past.push(low);
            if self.past.stands_still() {
                self.past.keep_last(STILL);
            }
            if let Some(line) = self.past.fit(self.line.slope) {
                self.line = line;
            }
        }
        (self.opened, self.above, self.lost) = (now.at, (0, 0), lost);
    }
}

/// The lowest points of the windows that are over, oldest first.
#[derive(Debug)]
struct Past {
    lows: [Low; DELAY_WINDOWS],
    count: usize,
    /// How sure the slope is: the time in seconds that it was taken from, with points all along.
    sure: f64,
}

impl Default for Past {
    fn default() -> Self {
        Self { lows: [Low::default(); DELAY_WINDOWS], count: 0, sure: 0.0 }
    }
}

/// Clocks differ by less than this, as parts of one: a steeper line is a queue that grows.
const DRIFT_MAX: f64 = 400e-6;
/// A point this close to a line, in seconds, is on it.
const ON_LINE: f64 = 0.5e-3;
/// From so many seconds on a slope is worth something.
const SLOPE_SPAN: f64 = 8.0;
/// A slope that is sure changes by this part of what a new one says: clocks drift slowly.
const SLOPE_WEIGHT: f64 = 0.125;
/// What an old point is forgiven for each second, as the slope may be wrong by so much.
const FORGIVEN: f64 = 5e-6;

impl Past {
    fn push(&mut self, low: Low) {
        if self.count == DELAY_WINDOWS {
            self.lows.rotate_left(1);
            self.count -= 1;
        }
        if let Some(place) = self.lows.get_mut(self.count) {
            *place = low;
            self.count += 1;
        }
    }

    fn clear(&mut self) {
        self.count = 0;
    }

    fn keep_last(&mut self, count: usize) {
        let gone = self.count.saturating_sub(count);
        self.lows.rotate_left(gone);
        self.count -= gone;
    }

    fn lows(&self) -> &[Low] {
        self.lows.get(..self.count).unwrap_or_default()
    }

    /// Whether the last windows have all been equally high above the line, with packets close to their lowest, and
    /// without loss: the way has become longer.
    fn stands_still(&self) -> bool {
        let lows = self.lows();
        let Some(last) = lows.len().checked_sub(STILL).and_then(|from| lows.get(from..)) else {
            return false;
        };
        let least = last.iter().map(|low| low.above).min().unwrap_or(0);
        let most = last.iter().map(|low| low.above).max().unwrap_or(0);
        let calm = |low: &Low| low.mean < 2 * MILLISECOND && !low.lossy;
        least > SHORTER && most - least < MILLISECOND && last.iter().all(calm)
    }

    /// The line below all points. `slope` is what it was, in billionths.
    fn fit(&mut self, slope: i64) -> Option<Line> {
        let newest = self.lows().last()?.point;
        let mut points = [(0.0, 0.0); DELAY_WINDOWS];
        let used = points.get_mut(..self.count)?;
        for (point, low) in used.iter_mut().zip(self.lows()) {
            let seconds = |ns: i64| ns as f64 / SECOND as f64;
            *point =
                (seconds(low.point.at - newest.at), seconds(low.point.transit - newest.transit));
        }
        let used = &*used;
        let slope = self.slope(used, slope as f64 / SECOND as f64);
        let forgiven = |(at, transit): &(f64, f64)| transit - slope * at - FORGIVEN * at;
        let least = used.iter().map(forgiven).fold(f64::INFINITY, f64::min);
        Some(Line {
            at: newest.at,
            transit: newest.transit + (least.min(0.0) * SECOND as f64) as i64,
            slope: (slope * SECOND as f64) as i64,
        })
    }

    /// The slope of the empty way, from points in order of time.
    fn slope(&mut self, points: &[(f64, f64)], before: f64) -> f64 {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return before };
        let span = last.0 - first.0;
        if span < SLOPE_SPAN {
            return before;
        }
        let Some((slope, from)) = edge_below(points) else { return before };
        if slope.abs() > DRIFT_MAX {
            return before;
        }
        // A line is the empty way if points lie on it all along; between two steps of the way, or two moments of a busy
        // one, only its ends do.
        let mut parts = [false; 4];
        for (at, transit) in points {
            if transit - from.1 - slope * (at - from.0) < ON_LINE {
                let part = ((at - first.0) / span * 4.0) as usize;
                parts.get_mut(part.min(3)).into_iter().for_each(|part| *part = true);
            }
        }
        let spread = parts.iter().filter(|part| **part).count() >= 3;
        match (self.sure, spread) {
            (sure, true) if span >= sure => {
                // A whole history is as sure as it gets.
                let full = (DELAY_WINDOWS - 2) as f64 * DELAY_WINDOW.as_secs_f64();
                self.sure = span;
                if sure < full { slope } else { before + (slope - before) * SLOPE_WEIGHT }
            }
            (sure, true) => before + (slope - before) * SLOPE_WEIGHT * (span / sure).powi(2),
            (0.0, false) => slope,
            (_, false) => before,
        }
    }
}

/// The edge of the lower hull of points, in order of time, that spans their mean time: no line below all of them is closer
/// to them in sum. Its slope, and where it begins.
fn edge_below(points: &[(f64, f64)]) -> Option<(f64, (f64, f64))> {
    let mean = points.iter().map(|point| point.0).sum::<f64>() / points.len() as f64;
    let mut hull = [(0.0, 0.0); DELAY_WINDOWS];
    let mut count = 0_usize;
    for point in points {
        while let Some([a, b]) = count.checked_sub(2).and_then(|at| hull.get(at..count)) {
            // Whether the last corner lies on or above the line from the one before it to the new point.
            if (b.1 - a.1) * (point.0 - a.0) < (point.1 - a.1) * (b.0 - a.0) {
                break;
            }
            count -= 1;
        }
        *hull.get_mut(count)? = *point;
        count += 1;
    }
    let edges = hull.get(..count)?.windows(2);
    edges.filter_map(|edge| <&[_; 2]>::try_from(edge).ok()).find_map(|[a, b]| {
        let spans = a.0 <= mean && mean <= b.0 && b.0 > a.0;
        spans.then(|| ((b.1 - a.1) / (b.0 - a.0), *a))
    })
}

/// A sender's clock, unrolled.
#[derive(Debug)]
struct SendClock {
    absolute: bool,
    /// The first arrival.
    begin: Instant,
    /// The last arrival, and what the sender's clock showed.
    at: Instant,
    shown: u32,
    /// Send time since the first packet, in whole nanoseconds and parts of one.
    sent: i64,
    rest: i64,
}

/// Bits of the fraction of abs-send-time.
const ABSOLUTE_HZ: u32 = 1 << 18;
const ABSOLUTE_BITS: u32 = 24;

impl SendClock {
    fn new(at: Instant, sent: SendTime) -> Self {
        let (absolute, shown) = match sent {
            SendTime::Absolute(shown) => (true, shown),
            SendTime::Timestamp(shown, _) => (false, shown),
        };
        Self { absolute, begin: at, at, shown, sent: 0, rest: 0 }
    }

    fn is_of(&self, sent: SendTime) -> bool {
        self.absolute == matches!(sent, SendTime::Absolute(_))
    }

    /// Where the packet is; `None` for one that says nothing, as only the first of a frame does.
    fn point(&mut self, at: Instant, sent: SendTime) -> Option<Point> {
        let (shown, hz, bits) = match sent {
            SendTime::Absolute(shown) => (shown, ABSOLUTE_HZ, ABSOLUTE_BITS),
            SendTime::Timestamp(shown, hz) => (shown, hz.max(1), 32),
        };
        let step = shown.wrapping_sub(self.shown);
        if !self.absolute && step.cast_signed() <= 0 {
            return None;
        }
        // Of all steps that differ by whole turns of the sender's clock, the one closest to what ours shows.
        let ours = i64::try_from(at.since(self.at).as_nanos()).unwrap_or(i64::MAX) / 1000;
        let ours = ours.saturating_mul(hz.into()) / 1_000_000;
        let off = step.wrapping_sub(ours as u32) << (32 - bits);
        let ticks = ours + i64::from(off.cast_signed() >> (32 - bits));
        let parts = ticks.saturating_mul(SECOND).saturating_add(self.rest);
        self.sent = self.sent.saturating_add(parts.div_euclid(hz.into()));
        self.rest = parts.rem_euclid(hz.into());
        (self.at, self.shown) = (at, shown);
        let at = at.0.saturating_sub(self.begin.0) as i64;
        Some(Point { at, transit: at.saturating_sub(self.sent) })
    }
}

/// Counts of delays in classes that grow with the delay, to 6 %.
#[derive(Clone, Copy, Debug)]
struct Histogram {
    counts: [u16; CLASSES],
    total: u32,
}

/// Classes of one width, up to 8 ms; and those of each doubling above.
const EVEN: usize = 16;
const EVEN_NS: u64 = 500_000;
const OF_DOUBLING: usize = 8;
/// Up to 4 s.
const DOUBLINGS: usize = 9;
const CLASSES: usize = EVEN + DOUBLINGS * OF_DOUBLING;

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; CLASSES], total: 0 }
    }
}

impl Histogram {
    fn add(&mut self, ns: u64) {
        let units = ns / EVEN_NS;
        let class = if units < EVEN as u64 {
            units as usize
        } else {
            let power = units.ilog2() as usize;
            let within = (units >> (power - 3)) as usize - OF_DOUBLING;
            EVEN + (power - 4) * OF_DOUBLING + within
        };
        if let Some(count) = self.counts.get_mut(class.min(CLASSES - 1)) {
            *count = count.saturating_add(1);
            self.total = self.total.saturating_add(1);
        }
    }

    /// The middle of the class in which the delay is that a share of all does not exceed.
    fn quantile(&self, share: u32, of: u32) -> Option<Duration> {
        let counted: u32 = self.counts.iter().map(|count| u32::from(*count)).sum();
        let rank = (u64::from(counted) * u64::from(share)).div_ceil(u64::from(of.max(1)));
        let mut seen = 0;
        let class = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank && seen > 0
        })?;
        let lower = |class: usize| match class.checked_sub(EVEN) {
            None => class as u64 * 2,
            Some(above) => {
                let (power, within) = (above / OF_DOUBLING + 4, above % OF_DOUBLING);
                ((OF_DOUBLING + within) as u64) << (power - 2)
            }
        };
        // In half units, so that the middle is whole; nothing waits in the first class, mostly.
        let middle = if class == 0 { 0 } else { (lower(class) + lower(class + 1)) / 2 };
        Some(Duration::from_nanos(middle * EVEN_NS / 2))
    }
}

#[cfg(test)]
mod tests;
