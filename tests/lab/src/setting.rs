//! Conditions in words, as `strait lab` and `strait load --impair` take them.
//!
//! `rate=300k queue=200ms delay=20ms jitter=5ms loss=1%`; a leading `up` or `down` names the direction, and before that a
//! time (`10s`) when it begins. What is not named stays as it was; `clear` takes everything back.
//!
//! | word | meaning |
//! |---|---|
//! | `rate=300k`, `rate=1.5M`, `rate=none` | bottleneck in bits per second, IPv4 and UDP headers included |
//! | `queue=200ms`, `queue=64k` | what fits before it, in time or in bytes; 200 ms unless named |
//! | `delay=20ms` | propagation delay |
//! | `jitter=5ms` | up to so much more, evenly; `overtake=yes` lets it reorder |
//! | `loss=1%` | each datagram on its own |
//! | `burst=1%,25%,100%` | Gilbert-Elliott: into the bad state, out of it, loss in it; `burst=none` |
//! | `reorder=2%,30ms` | a share takes a detour of up to so long |
//! | `duplicate=1%` | a share arrives twice |

use crate::link::{Bottleneck, Burst, Conditions, Queue};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The queue before a bottleneck of which nothing else is said.
const QUEUE: Queue = Queue::Time(Duration::from_millis(200));

/// A line of words: what changes, where, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// After so long; at once if nothing is said.
    pub after: Duration,
    /// Whether it is about the way from the client.
    pub up: bool,
    /// Whether it is about the way to the client.
    pub down: bool,
    settings: Vec<Setting>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Setting {
    Clear,
    Rate(Option<u64>),
    Queue(Queue),
    Delay(Duration),
    Jitter(Duration),
    Overtake(bool),
    Loss(f64),
    Burst(Option<Burst>),
    Reorder(f64, Duration),
    Duplicate(f64),
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderError(String);

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OrderError {}

impl Order {
    /// What holds after it, where `before` held.
    #[must_use]
    pub fn apply(&self, before: Conditions) -> Conditions {
        self.settings.iter().fold(before, |mut now, setting| {
            let queue = now.bottleneck.map_or(QUEUE, |bottleneck| bottleneck.queue);
            match *setting {
                Setting::Clear => now = Conditions::CLEAR,
                Setting::Rate(rate) => {
                    now.bottleneck = rate.map(|rate_bps| Bottleneck { rate_bps, queue });
                }
                Setting::Queue(queue) => {
                    now.bottleneck = now.bottleneck.map(|b| Bottleneck { queue, ..b });
                }
                Setting::Delay(delay) => now.delay = delay,
                Setting::Jitter(jitter) => now.jitter = jitter,
                Setting::Overtake(overtake) => now.jitter_reorders = overtake,
                Setting::Loss(loss) => now.loss = loss,
                Setting::Burst(burst) => now.burst = burst,
                Setting::Reorder(share, detour) => (now.reorder, now.detour) = (share, detour),
                Setting::Duplicate(share) => now.duplicate = share,
            }
            now
        })
    }
}

impl FromStr for Order {
    type Err = OrderError;

    fn from_str(line: &str) -> Result<Self, OrderError> {
        let mut order = Self { after: Duration::ZERO, up: true, down: true, settings: Vec::new() };
        let mut words = line.split_whitespace().peekable();
        if let Some(after) = words.peek().and_then(|word| duration(word).ok()) {
            order.after = after;
            words.next();
        }
        match words.peek().copied() {
            Some("up") => order.down = false,
            Some("down") => order.up = false,
            Some("both") => {}
            _ => return order.settings(words),
        }
        words.next();
        order.settings(words)
    }
}

impl Order {
    fn settings<'w>(mut self, words: impl Iterator<Item = &'w str>) -> Result<Self, OrderError> {
        self.settings = words.map(setting).collect::<Result<_, _>>()?;
        // The rate first: a queue needs one to stand before.
        self.settings.sort_by_key(|setting| match setting {
            Setting::Clear => 0,
            Setting::Rate(_) => 1,
            _ => 2,
        });
        if self.settings.is_empty() {
            return Err(OrderError("nothing is set: write KEY=VALUE, or clear".into()));
        }
        Ok(self)
    }
}

fn setting(word: &str) -> Result<Setting, OrderError> {
    if word == "clear" {
        return Ok(Setting::Clear);
    }
    let unknown = || {
        OrderError(format!(
            "'{word}' is not known: write clear, or one of rate= queue= delay= jitter= overtake= loss= burst= \
             reorder= duplicate="
        ))
    };
    let (key, value) = word.split_once('=').ok_or_else(unknown)?;
    Ok(match key {
        "rate" if value == "none" => Setting::Rate(None),
        "rate" => Setting::Rate(Some(count(value).filter(|rate| *rate > 0).ok_or_else(|| {
            OrderError(format!("'{word}': bits per second, above 0, as in 300k, 1.5M or none"))
        })?)),
        "queue" => match duration(value) {
            Ok(time) => Setting::Queue(Queue::Time(time)),
            Err(_) => Setting::Queue(Queue::Bytes(count(value.trim_end_matches('B')).ok_or_else(
                || OrderError(format!("'{word}': a time as in 200ms, or bytes as in 64k")),
            )?)),
        },
        "delay" => Setting::Delay(duration(value)?),
        "jitter" => Setting::Jitter(duration(value)?),
        "overtake" => Setting::Overtake(match value {
            "yes" => true,
            "no" => false,
            _ => return Err(OrderError(format!("'{word}': yes or no"))),
        }),
        "loss" => Setting::Loss(share(value)?),
        "burst" if value == "none" => Setting::Burst(None),
        "burst" => {
            let shares: Vec<f64> = value.split(',').map(share).collect::<Result<_, _>>()?;
            let [enter, leave, loss] = shares[..] else {
                return Err(OrderError(format!("'{word}': three shares as in 1%,25%,100%")));
            };
            Setting::Burst(Some(Burst { enter, leave, loss }))
        }
        "reorder" => {
            let (part, detour) = value.split_once(',').unwrap_or((value, "20ms"));
            Setting::Reorder(share(part)?, duration(detour)?)
        }
        "duplicate" => Setting::Duplicate(share(value)?),
        _ => return Err(unknown()),
    })
}

/// Longest time that can be named: an hour.
const TIME_MAX: f64 = 3600.0;

fn duration(text: &str) -> Result<Duration, OrderError> {
    let units = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0)];
    let found = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)));
    found
        .and_then(|(number, scale)| Some(number.parse::<f64>().ok()? * scale))
        .filter(|seconds| (0.0..=TIME_MAX).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| {
            OrderError(format!("'{text}': a time of an hour at most, as in 20ms or 1.5s"))
        })
}

fn share(text: &str) -> Result<f64, OrderError> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    let number = number.ok().filter(|share| (0.0..=1.0).contains(share));
    number.ok_or_else(|| OrderError(format!("'{text}': a share as in 1% or 0.01")))
}

fn count(text: &str) -> Option<u64> {
    let units = [("k", 1e3), ("M", 1e6), ("G", 1e9), ("", 1.0)];
    let (number, scale) =
        units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    let number = number.parse::<f64>().ok()? * scale;
    (0.0..1e15).contains(&number).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(line: &str) -> Order {
        line.parse().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn a_line_of_words_becomes_conditions() {
        let line = "queue=64kB rate=1.5M delay=20ms jitter=5ms overtake=yes loss=1% \
                    burst=1%,25%,100% reorder=2%,30ms duplicate=0.01";
        let now = order(line).apply(Conditions::CLEAR);
        let bottleneck = Bottleneck { rate_bps: 1_500_000, queue: Queue::Bytes(64_000) };
        let burst = Burst { enter: 0.01, leave: 0.25, loss: 1.0 };
        assert_eq!((now.bottleneck, now.burst), (Some(bottleneck), Some(burst)));
        assert_eq!([now.delay, now.jitter, now.detour].map(|d| d.as_millis()), [20, 5, 30]);
        assert_eq!((now.loss, now.reorder, now.duplicate), (0.01, 0.02, 0.01));
        assert!(now.jitter_reorders);
    }

    #[test]
    fn what_is_not_named_stays() {
        let before = order("rate=300k loss=1%").apply(Conditions::CLEAR);
        let now = order("delay=7ms rate=600k").apply(before);
        assert_eq!((now.loss, now.delay.as_millis()), (0.01, 7));
        assert_eq!(now.bottleneck, Some(Bottleneck { rate_bps: 600_000, queue: QUEUE }));
        assert_eq!(order("rate=none").apply(now).bottleneck, None);
        assert_eq!(
            order("loss=2% clear").apply(now),
            Conditions { loss: 0.02, ..Conditions::CLEAR }
        );
    }

    #[test]
    fn a_line_has_a_direction_and_a_time() {
        assert_eq!((order("down loss=1%").up, order("down loss=1%").down), (false, true));
        let both = order("both loss=1%");
        assert!(both.up && both.down && both == order("loss=1%"));
        let later = order("12.5s up clear");
        assert_eq!(
            (later.after, later.up, later.down),
            (Duration::from_millis(12_500), true, false)
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, word) in [
            ("", "nothing"),
            ("up", "nothing"),
            ("rat=3", "rat=3"),
            ("rate=0", "above 0"),
            ("rate=fast", "300k"),
            ("delay=20", "20ms"),
            ("delay=2h", "an hour"),
            ("loss=101%", "share"),
            ("burst=1%", "three"),
            ("queue=-1", "bytes"),
            ("overtake=maybe", "yes or no"),
            ("rate=NaN", "300k"),
        ] {
            let error = line.parse::<Order>().expect_err(line).to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
