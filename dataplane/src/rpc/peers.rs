//! Peers: their transports.

use super::{State, lock, of_half_open, of_mailbox, of_random, peer, taken, validate};
use crate::mailbox::MailboxError;
use crate::random;
use crate::registry::{Contents, Peer, Scope};
use std::sync::Arc;
use strait_core::command::{Command, CommandError, IceCredentials, PeerId};
use strait_proto::v1;
use tonic::Status;

pub(super) async fn add(
    state: Arc<State>,
    request: v1::AddPeerRequest,
) -> Result<v1::AddPeerResponse, Status> {
    validate::id("peer_id", &request.peer_id)?;
    let remote = validate::credentials(request.remote_ice)?;
    let fingerprint = validate::fingerprint(request.remote_fingerprint)?;
    let role = validate::role(request.dtls_role)?;
    state.refuse_while_draining()?;
    let scope = state.scope(&request.scope_id)?;
    let mut contents = lock(&scope).await?;
    if contents.peers.contains_key(&request.peer_id) {
        return Err(taken("peer", &request.peer_id));
    }
    let worker = state.worker(&scope)?;
    let local = random::credentials(scope.worker).map_err(of_random)?;
    let id = PeerId(state.registry.number());
    // Known everywhere before the worker says a word about it.
    state.handshakes.add(scope.worker, id, role, fingerprint).map_err(of_half_open)?;
    state.registry.note_peer(id, &scope);
    let command = Command::AddPeer { scope: scope.id, peer: id, local: local.clone(), remote };
    if let Err(error) = worker.command(command).await {
        state.handshakes.remove(id);
        state.registry.forget_peer(id);
        return Err(of_mailbox(error));
    }
    contents.peers.insert(request.peer_id, Peer { id, connected: false });
    Ok(v1::AddPeerResponse {
        local_ice: Some(told(local)),
        candidates: state.identity.candidates.clone(),
        fingerprint_sha256: state.identity.fingerprint.clone(),
    })
}

pub(super) async fn restart_ice(
    state: Arc<State>,
    request: v1::RestartIceRequest,
) -> Result<v1::RestartIceResponse, Status> {
    let remote = validate::credentials(request.remote_ice)?;
    let scope = state.scope(&request.scope_id)?;
    let contents = lock(&scope).await?;
    let id = peer(&contents, &request.peer_id)?.id;
    let local = random::credentials(scope.worker).map_err(of_random)?;
    let command = Command::RestartIce { peer: id, local: local.clone(), remote };
    state.worker(&scope)?.command(command).await.map_err(of_mailbox)?;
    Ok(v1::RestartIceResponse {
        local_ice: Some(told(local)),
        candidates: state.identity.candidates.clone(),
    })
}

pub(super) async fn remove(
    state: Arc<State>,
    request: v1::RemovePeerRequest,
) -> Result<v1::RemovePeerResponse, Status> {
    validate::id("scope_id", &request.scope_id)?;
    validate::id("peer_id", &request.peer_id)?;
    let Some(scope) = state.registry.scope(&request.scope_id) else {
        return Ok(v1::RemovePeerResponse {});
    };
    let mut contents = scope.state.lock().await;
    if let Some(Peer { id, .. }) = contents.peers.get(&request.peer_id) {
        match state.worker(&scope)?.command(Command::RemovePeer { peer: *id }).await {
            // It left by itself a moment ago, and its event is on the way.
            Ok(()) | Err(MailboxError::Refused(CommandError::NotFound(_))) => {}
            Err(error) => return Err(of_mailbox(error)),
        }
        let detail = "removed by the control plane".to_owned();
        let reason = v1::peer_left::Reason::Removed;
        gone(&state, &scope, &mut contents, &request.peer_id, reason, detail);
    }
    Ok(v1::RemovePeerResponse {})
}

/// Forgets a peer that its worker has forgotten, and tells the readers.
pub(super) fn gone(
    state: &State,
    scope: &Scope,
    contents: &mut Contents,
    name: &str,
    reason: v1::peer_left::Reason,
    detail: String,
) {
    for publication in contents.publications.values().filter(|entry| entry.peer == name) {
        state.registry.forget_publication(publication.id);
    }
    let Some(peer) = contents.remove_peer(name) else { return };
    state.registry.forget_peer(peer.id);
    state.handshakes.remove(peer.id);
    state.tell(v1::event::Event::PeerLeft(v1::PeerLeft {
        scope_id: scope.name.clone(),
        peer_id: name.to_owned(),
        reason: reason.into(),
        detail,
    }));
}

fn told(IceCredentials { ufrag, pwd }: IceCredentials) -> v1::IceCredentials {
    v1::IceCredentials { ufrag, pwd }
}
