//! Adds up what the relay tells of a peer's streams every 2 s, minute by minute.

use std::collections::HashMap;

use strait_proto::v1::{self, subscription_statistics::HeldBack};

use super::event::Stream;
use crate::limits;
use crate::store::floor;

const MINUTE_MS: i64 = 60_000;

/// What is known of a peer's streams.
#[derive(Debug, Default)]
pub struct Meters {
    /// By stream: its name in events.
    now: HashMap<String, Meter>,
    /// For how long pictures stood still, by subscription, since it began.
    frozen: HashMap<String, f64>,
    /// Media from the peer since it came.
    pub bytes_in: u64,
    /// Media to it.
    pub bytes_out: u64,
}

/// Sums of one minute of one stream.
#[derive(Debug, Default)]
struct Meter {
    minute: i64,
    seconds: f64,
    packets: u64,
    bytes: u64,
    loss: Mean,
    round_trip: Mean,
    jitter: Mean,
    queue_delay: Option<f64>,
    frozen: f64,
    streams: f64,
    lowered: f64,
    paused: f64,
}

/// A mean with weights.
#[derive(Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, weight: f64) {
        if value.is_finite() && weight > 0.0 {
            self.sum += value * weight;
            self.weight += weight;
        }
    }

    fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

impl Meters {
    /// Takes what is told at `now`. Returns the minutes that are over by that.
    pub fn add(&mut self, now: i64, told: &v1::MediaQuality) -> Vec<(i64, Stream)> {
        let name = match (&told.subscriber, told.rid.as_str()) {
            (Some(_), _) => String::new(),
            (None, "") => told.publication_id.clone(),
            (None, rid) => format!("{}/{rid}", told.publication_id),
        };
        let over = self.turn(floor(now, MINUTE_MS));
        if !self.now.contains_key(&name) && self.now.len() >= limits::STREAMS_METERED {
            return over;
        }
        let fresh = || Meter { minute: floor(now, MINUTE_MS), ..Meter::default() };
        let meter = self.now.entry(name).or_insert_with(fresh);
        meter.seconds += told.interval_seconds.clamp(0.0, 60.0);
        match &told.subscriber {
            Some(subscriber) => {
                let sent: u64 = subscriber.subscriptions.iter().map(|each| each.bytes).sum();
                self.bytes_out = self.bytes_out.saturating_add(sent);
                meter.add_subscriber(subscriber, &mut self.frozen);
            }
            None => {
                self.bytes_in = self.bytes_in.saturating_add(told.bytes);
                meter.add_publication(told);
            }
        }
        over
    }

    /// The minutes of streams that were over before `minute`.
    pub fn turn(&mut self, minute: i64) -> Vec<(i64, Stream)> {
        let over: Vec<String> = self
            .now
            .iter()
            .filter(|(_, meter)| meter.minute < minute)
            .map(|(name, _)| name.clone())
            .collect();
        let minutes = over.into_iter().filter_map(|name| {
            let meter = self.now.remove(&name)?;
            Some((meter.minute, meter.stream(name)))
        });
        minutes.collect()
    }
}

impl Meter {
    #[allow(clippy::cast_precision_loss)] // packets of 2 s
    fn add_publication(&mut self, told: &v1::MediaQuality) {
        self.packets += told.packets;
        self.bytes += told.bytes;
        if let Some(loss) = &told.loss {
            let expected = loss.expected as f64;
            let lost = loss.lost.saturating_sub(loss.repaired) as f64;
            self.loss.add(lost / expected, expected);
        }
        self.jitter.add(told.jitter_seconds, told.interval_seconds);
        let delay = told.queue_delay_p95_seconds.filter(|delay| delay.is_finite());
        self.queue_delay = self.queue_delay.max_by_value(delay);
    }

    #[allow(clippy::cast_precision_loss)] // packets of 2 s
    fn add_subscriber(&mut self, told: &v1::SubscriberQuality, frozen: &mut HashMap<String, f64>) {
        if let Some(time) = told.round_trip_seconds {
            self.round_trip.add(time, 1.0);
        }
        let (mut stood, mut bound) = (0.0, 0.0);
        let mut there = HashMap::with_capacity(told.subscriptions.len());
        for each in told.subscriptions.iter().take(limits::SUBSCRIPTIONS_PER_PEER) {
            let Some(now) = each.statistics.as_ref().filter(|now| !now.publication_id.is_empty())
            else {
                continue;
            };
            self.packets += each.packets;
            self.bytes += each.bytes;
            self.loss.add(now.fraction_lost, each.packets as f64);
            self.jitter.add(now.jitter_seconds, each.packets as f64);
            bound += 1.0;
            self.lowered += f64::from(u8::from(now.held_back() == HeldBack::Lowered));
            self.paused += f64::from(u8::from(now.held_back() == HeldBack::Paused));
            // What stood still before the first telling is of an earlier minute, or of another node.
            let before = frozen.get(&now.subscription_id).copied();
            stood += (now.frozen_seconds - before.unwrap_or(now.frozen_seconds)).max(0.0);
            there.insert(now.subscription_id.clone(), now.frozen_seconds);
        }
        *frozen = there;
        self.streams += bound;
        if bound > 0.0 {
            self.frozen += stood / bound;
        }
    }

    fn stream(self, stream: String) -> Stream {
        let share = |part: f64| if self.streams > 0.0 { part / self.streams } else { 0.0 };
        Stream {
            stay: String::new(),
            stream,
            seconds: self.seconds,
            packets: self.packets,
            bytes: self.bytes,
            loss: self.loss.value(),
            round_trip: self.round_trip.value(),
            jitter: self.jitter.value(),
            queue_delay: self.queue_delay,
            frozen: self.frozen,
            lowered: share(self.lowered),
            paused: share(self.paused),
        }
    }
}

/// The larger of two, where there are any.
trait MaxByValue {
    fn max_by_value(self, other: Self) -> Self;
}

impl MaxByValue for Option<f64> {
    fn max_by_value(self, other: Self) -> Self {
        match (self, other) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(packets: u64, lost: u64, repaired: u64) -> v1::MediaQuality {
        v1::MediaQuality {
            publication_id: "pub-1".into(),
            interval_seconds: 2.0,
            packets,
            bytes: packets * 1_000,
            loss: Some(v1::Loss { expected: packets, lost, repaired, ..v1::Loss::default() }),
            queue_delay_p95_seconds: Some(0.05),
            ..v1::MediaQuality::default()
        }
    }

    fn subscriber(frozen_seconds: f64, held_back: HeldBack) -> v1::MediaQuality {
        let statistics = v1::SubscriptionStatistics {
            publication_id: "pub-1".into(),
            subscription_id: "sub-1".into(),
            held_back: held_back.into(),
            fraction_lost: 0.1,
            frozen_seconds,
            ..v1::SubscriptionStatistics::default()
        };
        let each =
            v1::SubscriptionQuality { statistics: Some(statistics), packets: 10, bytes: 9_000 };
        let told = v1::SubscriberQuality {
            round_trip_seconds: Some(0.2),
            subscriptions: vec![each],
            ..v1::SubscriberQuality::default()
        };
        v1::MediaQuality {
            interval_seconds: 2.0,
            subscriber: Some(told),
            ..v1::MediaQuality::default()
        }
    }

    #[test]
    fn a_minute_is_added_up() {
        let mut meters = Meters::default();
        assert_eq!(meters.add(60_000, &publication(100, 4, 3)), []);
        assert_eq!(meters.add(62_000, &publication(100, 5, 4)), []);
        assert_eq!(meters.add(62_000, &subscriber(5.0, HeldBack::Nothing)), []);
        assert_eq!(meters.add(64_000, &subscriber(7.0, HeldBack::Lowered)), []);
        let mut over = meters.add(120_000, &publication(50, 0, 0));
        over.sort_by(|a, b| a.1.stream.cmp(&b.1.stream));
        let [(first, out), (second, published)] = &over[..] else { panic!("{over:?}") };
        assert_eq!((*first, *second), (60_000, 60_000));
        assert_eq!((published.packets, published.bytes, published.seconds), (200, 200_000, 4.0));
        assert_eq!((published.loss, published.queue_delay), (Some(0.01), Some(0.05)));
        assert_eq!((out.packets, out.frozen, out.lowered, out.paused), (20, 2.0, 0.5, 0.0));
        assert_eq!((out.loss, out.round_trip), (Some(0.1), Some(0.2)));
        assert_eq!((meters.bytes_in, meters.bytes_out), (250_000, 18_000));
        assert_eq!(meters.turn(180_000).len(), 1);
        assert_eq!(meters.turn(180_000), []);
    }

    #[test]
    fn streams_are_bounded() {
        let mut meters = Meters::default();
        for n in 0..limits::STREAMS_METERED + 5 {
            let told = v1::MediaQuality { publication_id: format!("p{n}"), ..Default::default() };
            meters.add(0, &told);
        }
        assert_eq!(meters.now.len(), limits::STREAMS_METERED);
    }
}
