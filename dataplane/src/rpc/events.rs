//! What happens, from the workers to every reader.

use super::{State, peers};
use crate::limits::WATCHERS;
use crate::registry::Publication;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use strait_core::command::{Event, LeaveReason, PublicationId};
use strait_core::port::{Path, Protocol};
use strait_proto::v1;
use strait_proto::v1::event::Event as Told;
use strait_proto::v1::peer_left::Reason;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What a reader reads.
pub(super) type Stream = ReceiverStream<Result<v1::Event, Status>>;

/// Opens a reader: a snapshot, then what happens from before the snapshot on. What is in both is the same.
pub(super) fn watch(state: Arc<State>) -> Result<Stream, Status> {
    if state.watchers.fetch_add(1, Ordering::Relaxed) >= WATCHERS {
        state.watchers.fetch_sub(1, Ordering::Relaxed);
        return Err(Status::resource_exhausted(format!(
            "the limit of {WATCHERS} readers of events is reached: end one"
        )));
    }
    let mut happened = state.events.subscribe();
    let (reader, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let first = Told::Snapshot(snapshot(&state).await);
        let mut next = Some(v1::Event { lost: 0, event: Some(first) });
        let mut lost = 0;
        loop {
            if let Some(event) = next.take()
                && reader.send(Ok(event)).await.is_err()
            {
                break;
            }
            let received = tokio::select! {
                received = happened.recv() => received,
                () = reader.closed() => break,
            };
            match received {
                Ok(event) => {
                    next = Some(v1::Event { lost: std::mem::take(&mut lost), event: Some(event) });
                }
                Err(RecvError::Lagged(missed)) => lost += missed,
                Err(RecvError::Closed) => break,
            }
        }
        state.watchers.fetch_sub(1, Ordering::Relaxed);
    });
    Ok(ReceiverStream::new(stream))
}

/// Takes the workers' events, until all workers ended.
pub(crate) async fn pump(state: Arc<State>, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::PeerConnected { peer, path } => {
                let Some(scope) = state.registry.scope_of_peer(peer) else { continue };
                let mut contents = scope.state.lock().await;
                let Some(name) = contents.peer_named(peer).map(str::to_owned) else { continue };
                if let Some(entry) = contents.peers.get_mut(&name) {
                    entry.connected = true;
                    entry.path = Some(path);
                }
                state.tell(Told::PeerConnected(v1::PeerConnected {
                    scope_id: scope.name.clone(),
                    peer_id: name,
                    remote_address: path.remote.to_string(),
                    protocol: protocol(path),
                }));
            }
            Event::PeerMoved { peer, path } => {
                let Some(scope) = state.registry.scope_of_peer(peer) else { continue };
                let mut contents = scope.state.lock().await;
                let Some(name) = contents.peer_named(peer).map(str::to_owned) else { continue };
                if let Some(entry) = contents.peers.get_mut(&name) {
                    entry.path = Some(path);
                }
                state.tell(Told::PeerMoved(v1::PeerMoved {
                    scope_id: scope.name.clone(),
                    peer_id: name,
                    remote_address: path.remote.to_string(),
                    protocol: protocol(path),
                }));
            }
            Event::PeerLeft { peer, reason, detail } => {
                // Removed by a call: forgotten and told already.
                let Some(scope) = state.registry.scope_of_peer(peer) else { continue };
                let mut contents = scope.state.lock().await;
                let Some(name) = contents.peer_named(peer).map(str::to_owned) else { continue };
                let reason = match reason {
                    LeaveReason::Removed => Reason::Removed,
                    LeaveReason::ConsentExpired => Reason::ConsentExpired,
                    LeaveReason::Closed => Reason::Closed,
                    LeaveReason::HandshakeFailed => Reason::HandshakeFailed,
                    LeaveReason::ScopeDisposed => Reason::ScopeDisposed,
                };
                peers::gone(&state, &scope, &mut contents, &name, reason, detail);
            }
            Event::PublicationStarted { publication } => {
                let Some(Named { scope_id, peer_id, publication_id }) =
                    named(&state, publication).await
                else {
                    continue;
                };
                state.tell(Told::PublicationStarted(v1::PublicationStarted {
                    scope_id,
                    peer_id,
                    publication_id,
                }));
            }
            Event::SpeechStarted { publication } | Event::SpeechEnded { publication } => {
                let speaking = matches!(event, Event::SpeechStarted { .. });
                let Some(Named { scope_id, peer_id, publication_id }) =
                    named(&state, publication).await
                else {
                    continue;
                };
                state.tell(Told::SpeechChanged(v1::SpeechChanged {
                    scope_id,
                    peer_id,
                    publication_id,
                    speaking,
                }));
            }
            Event::DominantSpeaker { publication } => {
                let Some(Named { scope_id, peer_id, publication_id }) =
                    named(&state, publication).await
                else {
                    continue;
                };
                state.tell(Told::DominantSpeakerChanged(v1::DominantSpeakerChanged {
                    scope_id,
                    peer_id,
                    publication_id,
                }));
            }
            Event::LayersWanted { publication, encodings } => {
                let Some(scope) = state.registry.scope_of_publication(publication) else {
                    continue;
                };
                let mut contents = scope.state.lock().await;
                let mut all = contents.publications.iter_mut();
                let found = all.find(|(_, entry)| entry.id == publication);
                // Workers repeat it, in case that one is lost.
                let changed = found.filter(|(_, entry)| entry.wanted != Some(encodings));
                let Some((name, entry)) = changed else { continue };
                entry.wanted = Some(encodings);
                state.tell(Told::LayersWanted(layers_wanted(&scope.name, name, entry, encodings)));
            }
        }
    }
}

/// A publication as callers call it.
struct Named {
    scope_id: String,
    peer_id: String,
    publication_id: String,
}

/// `None` for one that ended meanwhile.
async fn named(state: &State, publication: PublicationId) -> Option<Named> {
    let scope = state.registry.scope_of_publication(publication)?;
    let contents = scope.state.lock().await;
    let found = contents.publications.iter().find(|(_, entry)| entry.id == publication);
    let (name, entry) = found?;
    Some(Named {
        scope_id: scope.name.clone(),
        peer_id: entry.peer.clone(),
        publication_id: name.clone(),
    })
}

fn layers_wanted(
    scope: &str,
    name: &str,
    publication: &Publication,
    encodings: u8,
) -> v1::LayersWanted {
    v1::LayersWanted {
        scope_id: scope.to_owned(),
        peer_id: publication.peer.clone(),
        publication_id: name.to_owned(),
        encodings: (0..u8::BITS).filter(|bit| encodings >> bit & 1 == 1).collect(),
    }
}

fn protocol(path: Path) -> String {
    match path.protocol {
        Protocol::Udp => "udp".to_owned(),
        Protocol::Tcp => "tcp".to_owned(),
    }
}

async fn snapshot(state: &State) -> v1::Snapshot {
    let mut scopes = Vec::new();
    for scope in state.registry.scopes() {
        let contents = scope.state.lock().await;
        if contents.disposed {
            continue;
        }
        let peers = contents.peers.iter().map(|(name, peer)| {
            let publications =
                contents.publications.iter().filter(|(_, entry)| entry.peer == *name);
            let subscriptions =
                contents.subscriptions.iter().filter(|(_, entry)| entry.peer == *name);
            v1::PeerState {
                peer_id: name.clone(),
                connected: peer.connected,
                publication_ids: publications.map(|(name, _)| name.clone()).collect(),
                subscription_ids: subscriptions.map(|(name, _)| name.clone()).collect(),
                remote_address: peer.path.map(|path| path.remote.to_string()).unwrap_or_default(),
                protocol: peer.path.map(protocol).unwrap_or_default(),
            }
        });
        let peers = peers.collect();
        let told = contents.publications.iter();
        let told = told.filter_map(|(name, entry)| Some((name, entry, entry.wanted?)));
        let wanted =
            told.map(|(name, entry, wanted)| layers_wanted(&scope.name, name, entry, wanted));
        let layers_wanted = wanted.collect();
        scopes.push(v1::ScopeState { scope_id: scope.name.clone(), peers, layers_wanted });
    }
    scopes.sort_by(|a, b| a.scope_id.cmp(&b.scope_id));
    v1::Snapshot { scopes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::EVENTS;
    use crate::rpc::testing;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
        let state = testing::state(Vec::new());
        let mut slow = watch(state.clone()).unwrap();
        let first = slow.next().await.unwrap().unwrap();
        assert!(matches!(first.event, Some(Told::Snapshot(_))));

        let sent = EVENTS + 1000;
        for n in 0..sent {
            state.tell(Told::ScopeDisposed(v1::ScopeDisposed { scope_id: n.to_string() }));
        }
        let (mut seen, mut lost, mut last) = (0, 0, None);
        while last != Some(sent - 1) {
            let event = slow.next().await.unwrap().unwrap();
            lost += event.lost;
            seen += 1;
            let Some(Told::ScopeDisposed(told)) = event.event else { panic!("{event:?}") };
            let n: usize = told.scope_id.parse().unwrap();
            assert!(last < Some(n), "in order");
            assert_eq!(n as u64 + 1, seen + lost, "what is missing is told");
            last = Some(n);
        }
        assert_eq!(lost, 1000);
        state.handshakes.stop();
    }
}
