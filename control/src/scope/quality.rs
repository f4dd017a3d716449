//! How streams fare, told to those whom it concerns and who asked for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strait_proto::v1::{self, subscription_statistics::HeldBack};
use tokio::sync::watch as latest;

use super::statistics::{held_back, round_trip};
use crate::limits;

/// How long viewers are counted together: each is told of about every 2 s.
const WINDOW: Duration = Duration::from_secs(2);
/// What nobody viewed for this long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// How many want to know. The relay is asked while anybody does.
#[derive(Clone, Debug, Default)]
pub struct Wishes(Arc<latest::Sender<usize>>);

/// One who wants to know, until it is dropped.
#[derive(Debug)]
pub struct Wish(Arc<latest::Sender<usize>>);

impl Wishes {
    /// One more wants to know.
    pub fn wish(&self) -> Wish {
        self.0.send_modify(|count| *count += 1);
        Wish(Arc::clone(&self.0))
    }

    /// How many do, from now on.
    pub fn watch(&self) -> latest::Receiver<usize> {
        self.0.subscribe()
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Those who view a scope's publications, by publication.
#[derive(Debug, Default)]
pub struct Viewers(HashMap<String, Counted>);

#[derive(Debug)]
struct Counted {
    since: Instant,
    now: Summary,
    before: Summary,
}

/// How a publication's viewers fared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Summary {
    count: u32,
    lowered: u32,
    paused: u32,
    fraction_lost_max: f64,
}

impl Viewers {
    /// Counts what one peer views.
    pub fn count(&mut self, now: Instant, subscriber: &v1::SubscriberQuality) {
        let each = subscriber.subscriptions.iter().filter_map(|each| each.statistics.as_ref());
        for viewed in each.filter(|viewed| !viewed.publication_id.is_empty()) {
            if !self.0.contains_key(&viewed.publication_id) {
                self.0.retain(|_, counted| now.duration_since(counted.since) < FORGOTTEN);
                if self.0.len() >= limits::PUBLICATIONS_VIEWED {
                    continue;
                }
            }
            let fresh =
                || Counted { since: now, now: Summary::default(), before: Summary::default() };
            let counted = self.0.entry(viewed.publication_id.clone()).or_insert_with(fresh);
            counted.turn(now);
            let summary = &mut counted.now;
            summary.count += 1;
            summary.lowered += u32::from(viewed.held_back() == HeldBack::Lowered);
            summary.paused += u32::from(viewed.held_back() == HeldBack::Paused);
            summary.fraction_lost_max = summary.fraction_lost_max.max(viewed.fraction_lost);
        }
    }

    /// The viewers of the last whole window.
    fn of(&mut self, now: Instant, publication: &str) -> Summary {
        let Some(counted) = self.0.get_mut(publication) else { return Summary::default() };
        counted.turn(now);
        counted.before
    }
}

impl Counted {
    fn turn(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.since);
        if elapsed >= WINDOW {
            // After a pause nobody is left.
            let last = std::mem::take(&mut self.now);
            self.before = if elapsed < 2 * WINDOW { last } else { Summary::default() };
            self.since = now;
        }
    }
}

/// What a subscriber is told.
pub fn of_subscriber(interval_seconds: f64, told: &v1::SubscriberQuality) -> Value {
    let each = told.subscriptions.iter().filter_map(|each| {
        let now = each.statistics.as_ref().filter(|now| !now.publication_id.is_empty())?;
        Some(json!({
            "publication": now.publication_id,
            "packets": each.packets,
            "bytes": each.bytes,
            "fractionLost": now.fraction_lost,
            "jitterSeconds": now.jitter_seconds,
            "roundTripSeconds": round_trip(now),
            "layer": now.layer,
            "layerWanted": now.layer_wanted,
            "layerPermitted": now.layer_permitted,
            "heldBack": held_back(now.held_back()),
            "keyFrames": now.key_frames,
            "freezes": now.freezes,
            "frozenSeconds": now.frozen_seconds,
        }))
    });
    json!({
        "event": "quality",
        "intervalSeconds": interval_seconds,
        "budgetBps": told.budget_bps,
        "roundTripSeconds": told.round_trip_seconds,
        "subscriptions": each.collect::<Vec<_>>(),
    })
}

/// What a publisher is told of one of its encodings and of those who view it.
pub fn of_publisher(now: Instant, told: &v1::MediaQuality, viewers: &mut Viewers) -> Value {
    let Summary { count, lowered, paused, fraction_lost_max } =
        viewers.of(now, &told.publication_id);
    let loss = told.loss.clone().unwrap_or_default();
    json!({
        "event": "quality",
        "intervalSeconds": told.interval_seconds,
        "publications": [{
            "publication": told.publication_id,
            "rid": told.rid,
            "packets": told.packets,
            "bytes": told.bytes,
            "expected": loss.expected,
            "lost": loss.lost,
            "repaired": loss.repaired,
            "queueDelaySeconds": told.queue_delay_seconds,
            "queueDelayP95Seconds": told.queue_delay_p95_seconds,
            "jitterSeconds": told.jitter_seconds,
            "keyFrames": told.key_frames,
            "viewers": {
                "count": count,
                "lowered": lowered,
                "paused": paused,
                "fractionLostMax": fraction_lost_max,
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(publication: &str, held_back: HeldBack, fraction_lost: f64) -> v1::SubscriberQuality {
        let statistics = v1::SubscriptionStatistics {
            publication_id: publication.into(),
            held_back: held_back.into(),
            fraction_lost,
            ..Default::default()
        };
        let each = v1::SubscriptionQuality { statistics: Some(statistics), ..Default::default() };
        v1::SubscriberQuality { subscriptions: vec![each], ..Default::default() }
    }

    #[test]
    fn viewers_are_summed_up_by_windows() {
        let (began, mut viewers) = (Instant::now(), Viewers::default());
        let at = |seconds: f64| began + Duration::from_secs_f64(seconds);
        viewers.count(at(0.0), &view("pub-1", HeldBack::Nothing, 0.1));
        viewers.count(at(0.5), &view("pub-1", HeldBack::Lowered, 0.3));
        viewers.count(at(1.0), &view("pub-1", HeldBack::Paused, 0.0));
        viewers.count(at(1.0), &view("", HeldBack::Nothing, 1.0));
        assert_eq!(viewers.of(at(1.5), "pub-1"), Summary::default(), "the window is not over");
        let whole = Summary { count: 3, lowered: 1, paused: 1, fraction_lost_max: 0.3 };
        assert_eq!(viewers.of(at(2.1), "pub-1"), whole);
        viewers.count(at(2.2), &view("pub-1", HeldBack::Nothing, 0.0));
        assert_eq!(viewers.of(at(3.0), "pub-1"), whole);
        assert_eq!(viewers.of(at(4.2), "pub-1").count, 1);
        assert_eq!(viewers.of(at(9.0), "pub-1").count, 0, "they went");
        viewers.count(at(20.0), &view("pub-2", HeldBack::Nothing, 0.0));
        assert_eq!(viewers.0.len(), 1, "what nobody views is forgotten");
        for n in 0..limits::PUBLICATIONS_VIEWED + 5 {
            viewers.count(at(20.0), &view(&format!("many-{n}"), HeldBack::Nothing, 0.0));
        }
        assert_eq!(viewers.0.len(), limits::PUBLICATIONS_VIEWED);
    }

    #[test]
    fn wishes_end_with_those_who_wish() {
        let wishes = Wishes::default();
        let watch = wishes.watch();
        let (first, second) = (wishes.wish(), wishes.wish());
        assert_eq!(*watch.borrow(), 2);
        drop(first);
        drop(second);
        assert_eq!(*watch.borrow(), 0);
    }
}
