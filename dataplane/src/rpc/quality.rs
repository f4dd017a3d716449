//! How streams fare, from the workers to whoever asks.

use super::statistics::{Names, of_loss};
use super::{State, validate};
use crate::limits::{SUBSCRIPTIONS_TOLD, WATCHERS};
use crate::report::Quality;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use strait_core::quality::{MediaQuality, SubscriberQuality};
use strait_proto::v1;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What a reader reads.
pub(super) type Stream = ReceiverStream<Result<v1::MediaQuality, Status>>;

/// Opens a reader.
pub(super) fn watch(state: Arc<State>, request: v1::WatchQualityRequest) -> Result<Stream, Status> {
    for name in &request.scope_ids {
        validate::id("scope_ids", name)?;
    }
    if state.quality.receiver_count() >= WATCHERS {
        return Err(Status::resource_exhausted(format!(
            "the limit of {WATCHERS} readers of quality is reached: end one"
        )));
    }
    let mut told = state.quality.subscribe();
    let asked = request.subscriptions.then(|| Asked::new(&state));
    let (reader, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let wanted = request.scope_ids;
        loop {
            let quality = tokio::select! {
                quality = told.recv() => quality,
                () = reader.closed() => break,
            };
            match quality {
                Ok(quality) if quality.subscriber.is_some() && asked.is_none() => {}
                Ok(quality) if wanted.is_empty() || wanted.contains(&quality.scope_id) => {
                    if reader.send(Ok(quality)).await.is_err() {
                        break;
                    }
                }
                // Newer figures say more than those that were missed.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            }
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// Takes the workers' figures and gives them names, until all workers ended.
pub(crate) async fn pump(state: Arc<State>, mut told: mpsc::Receiver<Quality>) {
    while let Some(quality) = told.recv().await {
        if state.quality.receiver_count() == 0 {
            continue;
        }
        let named = match quality {
            Quality::Encoding(quality) => encoding(&state, quality).await,
            Quality::Subscriber(quality) => subscriber(&state, quality).await,
        };
        if let Some(quality) = named {
            // Whoever reads may have gone a moment ago.
            let _ = state.quality.send(quality);
        }
    }
}

async fn encoding(state: &State, quality: MediaQuality) -> Option<v1::MediaQuality> {
    let scope = state.registry.scope_of_publication(quality.publication)?;
    let contents = scope.state.lock().await;
    let mut all = contents.publications.iter();
    let (name, entry) = all.find(|(_, entry)| entry.id == quality.publication)?;
    Some(v1::MediaQuality {
        scope_id: scope.name.clone(),
        peer_id: entry.peer.clone(),
        publication_id: name.clone(),
        rid: quality.rid,
        ssrc: quality.ssrc,
        interval_seconds: quality.interval.as_secs_f64(),
        packets: quality.received.packets,
        bytes: quality.received.bytes,
        loss: Some(of_loss(&quality.loss)),
        queue_delay_seconds: quality.queue_delay.map(|delay| delay.as_secs_f64()),
        queue_delay_p95_seconds: quality.queue_delay_p95.map(|delay| delay.as_secs_f64()),
        jitter_seconds: quality.jitter.as_secs_f64(),
        key_frames: quality.key_frames,
        subscriber: None,
    })
}

/// `None` also for one of a scope that is too large.
async fn subscriber(state: &State, quality: SubscriberQuality) -> Option<v1::MediaQuality> {
    let scope = state.registry.scope_of_peer(quality.peer)?;
    let contents = scope.state.lock().await;
    let peer = contents.peer_named(quality.peer)?;
    if contents.subscriptions.len() > SUBSCRIPTIONS_TOLD {
        return None;
    }
    let names = Names::of_subscriber(&contents, peer);
    let subscriptions = quality.subscriptions.into_iter().filter_map(|entry| {
        Some(v1::SubscriptionQuality {
            statistics: Some(names.subscription(entry.statistics)?),
            packets: entry.sent.packets,
            bytes: entry.sent.bytes,
        })
    });
    Some(v1::MediaQuality {
        scope_id: scope.name.clone(),
        peer_id: peer.to_owned(),
        interval_seconds: quality.interval.as_secs_f64(),
        subscriber: Some(v1::SubscriberQuality {
            budget_bps: quality.budget_bps,
            round_trip_seconds: quality.round_trip.map(|time| time.as_secs_f64()),
            subscriptions: subscriptions.collect(),
        }),
        ..v1::MediaQuality::default()
    })
}

/// A reader that wants to know how subscribers fare, for as long as it lives.
struct Asked(Arc<State>);

impl Asked {
    fn new(state: &Arc<State>) -> Self {
        state.subscribers_asked.fetch_add(1, Ordering::Relaxed);
        Self(state.clone())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.subscribers_asked.fetch_sub(1, Ordering::Relaxed);
    }
}
