//! Follows the relay's events, and reconciles when it comes back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use strait_proto::v1::{self, event::Event, peer_left::Reason};
use tonic::Request;
use tracing::{info, warn};

use super::{Relay, timed};
use crate::scope::{Reached, Scopes};

/// First pause after a lost connection; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts: a relay that restarts is found again within this time.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Follows the relay for as long as the process lives.
pub async fn follow(relay: Relay, scopes: Arc<Scopes>) {
    let mut pause = PAUSE;
    let mut is_announced = false;
    loop {
        match follow_once(&relay, &scopes, &mut is_announced).await {
            Ok(()) => pause = PAUSE,
            Err(status) if is_announced => {
                warn!(socket = %relay.socket.display(), "the relay is away: {}", status.message());
                is_announced = false;
                pause = PAUSE;
            }
            Err(_) => {}
        }
        relay.info.send_replace(None);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Follows how streams fare, while somebody wants to know, for as long as the process lives.
pub async fn follow_quality(relay: Relay, scopes: Arc<Scopes>) {
    let mut wishes = scopes.quality_wishes().watch();
    loop {
        if wishes.wait_for(|count| *count > 0).await.is_err() {
            return;
        }
        let followed = async { follow_quality_once(&relay, &scopes).await.is_ok() };
        let unwanted = async { wishes.wait_for(|count| *count == 0).await.is_ok() };
        let is_lost = tokio::select! {
            _ = followed => true,
            _ = unwanted => false,
        };
        if is_lost {
            // What is wrong with the relay is said by who follows its events.
            tokio::time::sleep(PAUSE_MAX).await;
        }
    }
}

async fn follow_quality_once(relay: &Relay, scopes: &Arc<Scopes>) -> Result<(), tonic::Status> {
    let request = v1::WatchQualityRequest { scope_ids: Vec::new(), subscriptions: true };
    let mut told = relay.client.clone().watch_quality(Request::new(request)).await?.into_inner();
    while let Some(quality) = told.message().await? {
        scopes.quality_told(&quality);
    }
    Ok(())
}

async fn follow_once(
    relay: &Relay,
    scopes: &Arc<Scopes>,
    is_announced: &mut bool,
) -> Result<(), tonic::Status> {
    let mut client = relay.client.clone();
    let info = client.get_info(timed(v1::GetInfoRequest {})).await?.into_inner();
    // No deadline: the stream lives as long as the relay.
    let mut events =
        client.watch_events(Request::new(v1::WatchEventsRequest {})).await?.into_inner();
    info!(
        version = info.version,
        instance = info.instance_id,
        workers = info.workers,
        stun = info.stun,
        turn = info.turn,
        "connected to the relay"
    );
    for degradation in &info.degradations {
        warn!("the relay says: {degradation}");
    }
    *is_announced = true;
    relay.info.send_replace(Some(info));
    relay.is_forgetful.store(false, Ordering::Relaxed);
    scopes.note_process(false).await;
    while let Some(event) = events.message().await? {
        if event.lost > 0 {
            // What was lost is unknown: a new stream opens with a snapshot of everything.
            warn!(lost = event.lost, "relay events were lost; reconciling");
            return Ok(());
        }
        if let Some(event) = event.event {
            on_event(relay, scopes, event);
        }
    }
    Err(tonic::Status::unavailable("the event stream ended"))
}

fn on_event(relay: &Relay, scopes: &Arc<Scopes>, event: Event) {
    match event {
        Event::Snapshot(snapshot) => {
            // Peers of the relay that are unknown here stay: they may belong to another control
            // plane, or to this one before a restart; their media flows on until they leave.
            let named = |scope: &v1::ScopeState| {
                let peers = scope.peers.iter().map(|peer| peer.peer_id.clone());
                (scope.scope_id.clone(), peers.collect())
            };
            let there: HashMap<String, HashSet<String>> =
                snapshot.scopes.iter().map(named).collect();
            let alive = |scope_id: &str, peer_id: &str| {
                there.get(scope_id).is_some_and(|peers| peers.contains(peer_id))
            };
            scopes.reconcile(alive);
            for scope in &snapshot.scopes {
                for peer in scope.peers.iter().filter(|peer| !peer.protocol.is_empty()) {
                    let reached = reached(&peer.protocol, &peer.remote_address);
                    scopes.peer_reached(&scope.scope_id, &peer.peer_id, reached);
                }
            }
            let wanted = snapshot.scopes.into_iter().flat_map(|scope| scope.layers_wanted);
            wanted.for_each(|wanted| scopes.layers_wanted(wanted));
        }
        Event::PeerConnected(peer) => {
            let reached = reached(&peer.protocol, &peer.remote_address);
            scopes.peer_reached(&peer.scope_id, &peer.peer_id, reached);
        }
        Event::PeerMoved(peer) => {
            let reached = reached(&peer.protocol, &peer.remote_address);
            scopes.peer_reached(&peer.scope_id, &peer.peer_id, reached);
        }
        Event::PeerLeft(peer) => {
            let reason = match peer.reason() {
                Reason::Removed => return, // our own doing
                Reason::ConsentExpired => "no connectivity check for 30 s",
                Reason::Closed => "the peer closed its transport",
                Reason::HandshakeFailed => "ICE or DTLS was not finished in time",
                Reason::ScopeDisposed => "the scope was disposed",
                Reason::Unspecified => "the relay removed the peer",
            };
            let reason = match peer.detail.is_empty() {
                true => reason.to_owned(),
                false => format!("{reason}: {}", peer.detail),
            };
            scopes.peer_lost(&peer.scope_id, &peer.peer_id, &reason);
        }
        Event::ScopeDisposed(scope) => scopes.scope_lost(&scope.scope_id),
        Event::LayersWanted(wanted) => scopes.layers_wanted(wanted),
        Event::PublicationStarted(_) => {}
        Event::SpeechChanged(speech) => {
            scopes.speech_changed(&speech.scope_id, &speech.publication_id, speech.speaking);
        }
        Event::DominantSpeakerChanged(speaker) => {
            scopes.dominant_changed(&speaker.scope_id, &speaker.publication_id);
        }
        Event::Draining(draining) => {
            warn!(seconds = draining.deadline_seconds, "the relay drains");
            relay.info.send_modify(|info| {
                if let Some(info) = info {
                    info.draining = true;
                }
            });
        }
    }
}

fn reached(protocol: &str, place: &str) -> Reached {
    Reached { is_tcp: protocol == "tcp", place: place.parse().ok() }
}
