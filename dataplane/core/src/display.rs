//! What a subscriber gets to see of a stream: for how long which layers, how many key frames, and which pictures came too
//! late.

use crate::layer;
use crate::statistics::LayerTime;
use crate::time::{Duration, Instant};

/// A picture freezes when the next one comes later than this ...
const FREEZE_MIN: Duration = Duration::from_millis(200);
/// ... and so many mean intervals after it.
const FREEZE_INTERVALS: u32 = 3;
/// One interval in so many makes the mean.
const MEAN_WEIGHT: u32 = 8;

/// The encoding that goes out, and what of it.
type On = (u8, layer::Share);

/// The pictures of one subscription.
#[derive(Debug)]
pub(crate) struct Display {
    /// Outgoing timestamp of the newest picture.
    timestamp: Option<u32>,
    /// When it began; `None` when what follows is no continuation.
    picture_at: Option<Instant>,
    /// Mean interval between pictures.
    interval: Option<Duration>,
    on: Option<On>,
    /// Since when.
    since: Instant,
    /// What went out before, and how long. As many as there are layers, at most.
    times: Vec<(Option<On>, Duration)>,
    pub(crate) key_frames: u64,
    pub(crate) freezes: u64,
    pub(crate) frozen: Duration,
}

impl Display {
    /// Of a subscription that begins.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            timestamp: None,
            picture_at: None,
            interval: None,
            on: None,
            since: now,
            times: Vec::new(),
            key_frames: 0,
            freezes: 0,
            frozen: Duration::ZERO,
        }
    }

    /// Whether a packet with this timestamp belongs to another picture than the one before.
    #[inline]
    pub(crate) fn is_new(&self, timestamp: u32) -> bool {
        self.timestamp != Some(timestamp)
    }

    /// A picture begins to go out.
    pub(crate) fn on_picture(&mut self, at: Instant, timestamp: u32, on: On, key_frame: bool) {
        self.timestamp = Some(timestamp);
        self.key_frames += u64::from(key_frame);
        if let Some(before) = self.picture_at {
            self.on_interval(at.since(before));
        }
        self.picture_at = Some(self.picture_at.map_or(at, |before| before.max(at)));
        if self.on != Some(on) {
            self.credit(at);
            self.on = Some(on);
        }
    }

    fn on_interval(&mut self, interval: Duration) {
        let Some(mean) = self.interval else {
            self.interval = Some(interval);
            return;
        };
        if interval > FREEZE_MIN + FREEZE_INTERVALS * mean {
            self.freezes += 1;
            self.frozen += interval;
        }
        self.interval = Some((mean * (MEAN_WEIGHT - 1) + interval) / MEAN_WEIGHT);
    }

    /// Nothing follows for now, and nothing is expected to: it was paused, muted, or taken away.
    pub(crate) fn interrupt(&mut self) {
        if let Some(last) = self.picture_at.take() {
            self.credit(last);
            self.on = None;
        }
    }

    /// What went out until then has its time.
    fn credit(&mut self, at: Instant) {
        let time = at.since(self.since);
        let on = self.on;
        match self.times.iter_mut().find(|(other, _)| *other == on) {
            Some((_, total)) => *total += time,
            None => self.times.push((on, time)),
        }
        self.since = self.since.max(at);
    }

    /// How long what went out, until now or else the last picture. The lowest first.
    pub(crate) fn times(&self, now: Option<Instant>) -> Vec<LayerTime> {
        let until = now.or(self.picture_at).unwrap_or(self.since);
        let mut all = self.times.clone();
        match all.iter_mut().find(|(on, _)| *on == self.on) {
            Some((_, total)) => *total += until.since(self.since),
            None => all.push((self.on, until.since(self.since))),
        }
        all.retain(|(_, time)| *time > Duration::ZERO);
        let entry = |(on, time): (Option<On>, Duration)| LayerTime {
            layer: on.map(|(encoding, _)| encoding),
            inner: on.and_then(|(_, share)| share).map(|t| (t.spatial(), t.temporal())),
            time,
        };
        let mut all: Vec<LayerTime> = all.into_iter().map(entry).collect();
        all.sort_unstable_by_key(|entry| (entry.layer, entry.inner.is_none(), entry.inner));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Target;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    /// Pictures of encoding 1 at these times.
    fn show(display: &mut Display, times: impl IntoIterator<Item = u64>) {
        times.into_iter().for_each(|ms| display.on_picture(at(ms), ms as u32, (1, None), false));
    }

    #[test]
    fn a_picture_that_comes_late_is_a_freeze() {
        let mut display = Display::new(at(0));
        show(&mut display, (0..1000).step_by(40));
        show(&mut display, [960 + 319]);
        assert_eq!(display.freezes, 0, "200 ms and three intervals are forgiven");
        show(&mut display, (1300..2300).step_by(40));
        show(&mut display, [2260 + 400]);
        assert_eq!((display.freezes, display.frozen), (1, Duration::from_millis(400)));
        show(&mut display, (4000..40_000).step_by(1000));
        assert!(display.freezes < 10, "of slow pictures it gets used to: {}", display.freezes);
    }

    #[test]
    fn a_pause_is_no_freeze() {
        let mut display = Display::new(at(0));
        show(&mut display, (0..1000).step_by(40));
        display.interrupt();
        show(&mut display, (9000..10_000).step_by(40));
        assert_eq!(display.freezes, 0);
    }

    #[test]
    fn each_layer_has_its_time() {
        let mut display = Display::new(at(1000));
        let low = Target::new(0, 0);
        for (ms, on) in [(2000, (0, None)), (5000, (2, None)), (6000, (2, Some(low)))] {
            display.on_picture(at(ms), ms as u32, on, true);
        }
        display.on_picture(at(7000), 7000, (2, None), false);
        display.on_picture(at(8000), 8000, (2, None), false);
        display.interrupt();
        let of = |layer, inner, seconds| {
            let time = Duration::from_secs(seconds);
            LayerTime { layer, inner, time }
        };
        assert_eq!(
            display.times(Some(at(11_000))),
            [
                of(None, None, 4),
                of(Some(0), None, 3),
                of(Some(2), Some((0, 0)), 1),
                of(Some(2), None, 2)
            ]
        );
        assert_eq!(display.key_frames, 3);
    }
}
