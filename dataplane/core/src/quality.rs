//! The quality of what publishers send, told every [`QUALITY_INTERVAL`] for each encoding, and counted for the worker; and
//! that of what subscribers get, told as often for each peer when that is asked for.

use crate::arrival::loss::LossStatistics;
use crate::command::{PeerId, PublicationId};
use crate::limits::{QUALITY_EVENTS, QUALITY_INTERVAL};
use crate::publication::Encoding;
use crate::statistics::{SubscriptionStatistics, Traffic, ticks};
use crate::time::{Duration, Instant, Now};
use crate::worker::Worker;
use std::collections::VecDeque;

/// How an encoding fared over an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaQuality {
    /// Whose.
    pub peer: PeerId,
    /// Which.
    pub publication: PublicationId,
    /// RID; empty without simulcast.
    pub rid: String,
    /// 0 while it is not known.
    pub ssrc: u32,
    /// How long the interval was.
    pub interval: Duration,
    /// What arrived within it, retransmissions included.
    pub received: Traffic,
    /// Loss among the packets that had the time to arrive.
    pub loss: LossStatistics,
    /// One-way queuing delay of the newest packet; `None` before there is one.
    pub queue_delay: Option<Duration>,
    /// What 95 % of the interval's packets did not exceed; `None` without any.
    pub queue_delay_p95: Option<Duration>,
    /// Interarrival jitter (RFC 3550 section 6.4.1).
    pub jitter: Duration,
    /// Key frames that began.
    pub key_frames: u64,
}

/// How all that a peer subscribes to fared over an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriberQuality {
    /// Whose.
    pub peer: PeerId,
    /// How long the interval was.
    pub interval: Duration,
    /// What may be sent to it in bits per second, if that is known.
    pub budget_bps: Option<u64>,
    /// From sending to it until its transport-wide feedback says so, if it sends that.
    pub round_trip: Option<Duration>,
    /// Each of its subscriptions.
    pub subscriptions: Vec<SubscriptionQuality>,
}

/// How a subscription fared over an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionQuality {
    /// As it is at the interval's end, counters since the beginning.
    pub statistics: SubscriptionStatistics,
    /// What was sent within it, without retransmissions.
    pub sent: Traffic,
}

/// Upper bounds of the classes of queuing delays.
pub const DELAY_CLASSES: [Duration; 10] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];
/// Upper bounds of the classes of shares of lost packets.
pub const LOSS_CLASSES: [f64; 8] = [0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25];

/// What the intervals of all encodings of a worker were like: one count for each encoding every [`QUALITY_INTERVAL`] in
/// which packets came.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QualityStatistics {
    /// Intervals by the queuing delay that 95 % of their packets did not exceed: at most [`DELAY_CLASSES`], and beyond.
    pub delays: [u64; DELAY_CLASSES.len() + 1],
    /// Sum of these delays.
    pub delay_sum: Duration,
    /// Intervals by the share of packets lost: at most [`LOSS_CLASSES`], and beyond.
    pub losses: [u64; LOSS_CLASSES.len() + 1],
    /// Sum of these shares.
    pub loss_sum: f64,
    /// Packets that had the time to arrive.
    pub expected: u64,
    /// Those of them that did not.
    pub lost: u64,
    /// Those of the lost that came by retransmission, or were had from forward error correction.
    pub repaired: u64,
}

impl QualityStatistics {
    fn count(&mut self, quality: &MediaQuality) {
        fn add<T: PartialOrd>(counts: &mut [u64], classes: &[T], value: &T) {
            let class = classes.iter().position(|most| value <= most).unwrap_or(classes.len());
            counts.get_mut(class).into_iter().for_each(|count| *count += 1);
        }
        if let Some(delay) = quality.queue_delay_p95 {
            add(&mut self.delays, &DELAY_CLASSES, &delay);
            self.delay_sum += delay;
        }
        if quality.loss.expected > 0 {
            let fraction = quality.loss.fraction();
            add(&mut self.losses, &LOSS_CLASSES, &fraction);
            self.loss_sum += fraction;
        }
        self.expected += quality.loss.expected;
        self.lost += quality.loss.lost;
        self.repaired += quality.loss.repaired;
    }
}

/// What an encoding had counted when its interval began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Before {
    received: Traffic,
    loss: LossStatistics,
    key_frames: u64,
}

impl Encoding {
    /// Ends the interval; `None` when nothing came.
    fn end_interval(&mut self, now: Instant) -> Option<(Before, Option<Duration>)> {
        self.loss.settle(now);
        let total = Before {
            received: Traffic { packets: self.packets, bytes: self.bytes },
            loss: self.loss.statistics(),
            key_frames: self.key_frames,
        };
        let before = std::mem::replace(&mut self.before, total);
        let p95 = self.delay.p95();
        self.delay.end_interval();
        let added = Before {
            received: Traffic {
                packets: total.received.packets.saturating_sub(before.received.packets),
                bytes: total.received.bytes.saturating_sub(before.received.bytes),
            },
            loss: total.loss.since(&before.loss),
            key_frames: total.key_frames.saturating_sub(before.key_frames),
        };
        (added.received.packets > 0 || added.loss.expected > 0).then_some((added, p95))
    }
}

/// What was told and not fetched yet, and the sums.
#[derive(Debug, Default)]
pub(crate) struct Quality {
    told: VecDeque<MediaQuality>,
    /// Somebody wants to know how subscribers fare.
    subscribers_asked: bool,
    subscribers: VecDeque<SubscriberQuality>,
    pub(crate) total: QualityStatistics,
}

impl Worker {
    /// Tells of a peer's encodings, and of its subscriptions if that is asked for, when it is time, and says when it is next.
    pub(crate) fn tell_quality(&mut self, now: Now, slot: u32) -> Option<Instant> {
        let asked = self.quality.subscribers_asked;
        let peer = self.peers.get_mut(slot)?;
        if peer.publications.is_empty() && (!asked || peer.subscriptions.is_empty()) {
            return None;
        }
        if peer.quality_at > now.at {
            return Some(peer.quality_at);
        }
        let interval = now.at.since(peer.quality_at) + QUALITY_INTERVAL;
        peer.quality_at = now.at + QUALITY_INTERVAL;
        let round_trip = peer.subscriptions.iter().filter_map(|slot| {
            self.subscriptions.get(*slot).and_then(|subscription| subscription.reported.round_trip)
        });
        let round_trip = round_trip.min();
        for slot in &peer.publications {
            let Some(publication) = self.publications.get_mut(*slot) else { continue };
            for encoding in &mut publication.encodings {
                if let Some(round_trip) = round_trip {
                    encoding.loss.set_round_trip(round_trip);
                }
                let Some((added, queue_delay_p95)) = encoding.end_interval(now.at) else {
                    continue;
                };
                let quality = MediaQuality {
                    peer: peer.id,
                    publication: publication.id,
                    rid: encoding.rid.to_string(),
                    ssrc: encoding.ssrc,
                    interval,
                    received: added.received,
                    loss: added.loss,
                    queue_delay: encoding.delay.current(),
                    queue_delay_p95,
                    jitter: ticks(encoding.reception.jitter(), encoding.clock_rate_hz),
                    key_frames: added.key_frames,
                };
                self.quality.total.count(&quality);
                if self.quality.told.len() >= QUALITY_EVENTS {
                    self.quality.told.pop_front();
                }
                self.quality.told.push_back(quality);
            }
        }
        let next = peer.quality_at;
        if asked {
            self.tell_subscriber(now.at, slot, interval);
        }
        Some(next)
    }

    fn tell_subscriber(&mut self, now: Instant, slot: u32, interval: Duration) {
        let Some(peer) = self.peers.get(slot).filter(|peer| !peer.subscriptions.is_empty()) else {
            return;
        };
        let each = peer.subscriptions.iter().filter_map(|slot| self.subscriptions.get(*slot));
        let subscriptions = each.map(|subscription| SubscriptionQuality {
            statistics: self.of_subscription(subscription, Some(now)),
            sent: subscription.sent.since(subscription.told),
        });
        let quality = SubscriberQuality {
            peer: peer.id,
            interval,
            budget_bps: peer.budget_bps,
            round_trip: peer.bandwidth.as_ref().and_then(|bandwidth| bandwidth.round_trip()),
            subscriptions: subscriptions.collect(),
        };
        for slot in &peer.subscriptions {
            let subscription = self.subscriptions.get_mut(*slot);
            subscription.into_iter().for_each(|subscription| subscription.told = subscription.sent);
        }
        if self.quality.subscribers.len() >= QUALITY_EVENTS {
            self.quality.subscribers.pop_front();
        }
        self.quality.subscribers.push_back(quality);
    }

    /// Whether to tell how subscribers fare. What was not fetched is thrown away when that ends.
    pub fn ask_subscriber_quality(&mut self, asked: bool) {
        if !asked {
            self.quality.subscribers.clear();
        }
        self.quality.subscribers_asked = asked;
    }

    /// The oldest figures of a subscriber that were not fetched.
    pub fn poll_subscriber_quality(&mut self) -> Option<SubscriberQuality> {
        self.quality.subscribers.pop_front()
    }

    /// The oldest figures that were not fetched. They are not [`crate::command::Event`]s, which none of them may push out:
    /// who does not fetch them misses figures and nothing else.
    pub fn poll_quality(&mut self) -> Option<MediaQuality> {
        self.quality.told.pop_front()
    }
}
