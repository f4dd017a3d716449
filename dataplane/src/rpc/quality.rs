//! How streams fare, from the workers to whoever asks.

use super::statistics::of_loss;
use super::{State, validate};
use crate::limits::WATCHERS;
use std::sync::Arc;
use strait_core::quality::MediaQuality;
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
    let (reader, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let wanted = request.scope_ids;
        loop {
            let quality = tokio::select! {
                quality = told.recv() => quality,
                () = reader.closed() => break,
            };
            match quality {
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
pub(crate) async fn pump(state: Arc<State>, mut told: mpsc::Receiver<MediaQuality>) {
    while let Some(quality) = told.recv().await {
        if state.quality.receiver_count() == 0 {
            continue;
        }
        let Some(scope) = state.registry.scope_of_publication(quality.publication) else {
            continue;
        };
        let contents = scope.state.lock().await;
        let found = contents.publications.iter().find(|(_, entry)| entry.id == quality.publication);
        let Some((name, entry)) = found else { continue };
        // Whoever reads may have gone a moment ago.
        let _ = state.quality.send(v1::MediaQuality {
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
        });
    }
}
