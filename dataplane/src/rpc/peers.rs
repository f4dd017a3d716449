//! Peers: their transports.

use super::{State, lock, of_half_open, of_mailbox, of_random, peer, spread, taken, validate};
use crate::channels::{Names, Permission};
use crate::limits::CHANNEL_MESSAGE_BYTES_DEFAULT;
use crate::mailbox::MailboxError;
use crate::notes::Note;
use crate::random;
use crate::registry::{Contents, Peer, Scope};
use std::sync::Arc;
use strait_core::command::{Command, CommandError, IceCredentials, PeerId};
use strait_core::port::Path;
use strait_crypt::dtls::{Fingerprint, Role};
use strait_crypt::srtp::SharedKey;
use strait_proto::pace::Rates;
use strait_proto::v1;
use tonic::Status;

/// How a peer's media is protected.
enum Protection {
    Dtls(Role, Fingerprint),
    SessionKey(SharedKey),
    Plain,
}

/// What a request asks for, and that it does not ask for two things at once.
fn protection(request: &mut v1::AddPeerRequest) -> Result<Protection, Status> {
    let key = request.session_key.take();
    let fingerprint = request.remote_fingerprint.take();
    match (key, fingerprint, request.plain) {
        (Some(key), None, false) => Ok(Protection::SessionKey(validate::session_key(key)?)),
        (None, None, true) if !request.remote_address.is_empty() => Ok(Protection::Plain),
        (None, None, true) => Err(Status::invalid_argument(
            "plain: needs remote_address: without keys nothing else tells who a peer is",
        )),
        (None, fingerprint, false) if request.remote_address.is_empty() => Ok(Protection::Dtls(
            validate::role(request.dtls_role)?,
            validate::fingerprint(fingerprint)?,
        )),
        (None, _, false) => Err(Status::invalid_argument(
            "remote_address: a peer without ICE needs session_key or plain: DTLS begins with ICE here",
        )),
        _ => Err(Status::invalid_argument(
            "session_key, remote_fingerprint, plain: name one of the three",
        )),
    }
}

/// Whether the peer may open data channels.
fn channels(
    request: &v1::AddPeerRequest,
    protection: &Protection,
) -> Result<Option<Permission>, Status> {
    let Some(asked) = request.data_channels else { return Ok(None) };
    if !matches!(protection, Protection::Dtls(..)) {
        return Err(Status::invalid_argument(
            "data_channels: go over DTLS, which needs remote_fingerprint",
        ));
    }
    let names = Names { scope: request.scope_id.clone(), peer: request.peer_id.clone() };
    let message_bytes_max = match usize::try_from(asked.message_bytes_max) {
        Ok(0) => CHANNEL_MESSAGE_BYTES_DEFAULT,
        bytes => bytes.unwrap_or(usize::MAX),
    };
    let rates = Rates::new(asked.messages_per_second, asked.kibibytes_per_second);
    Ok(Some(Permission { names: Arc::new(names), message_bytes_max, rates }))
}

pub(super) async fn add(
    state: Arc<State>,
    mut request: v1::AddPeerRequest,
) -> Result<v1::AddPeerResponse, Status> {
    validate::id("peer_id", &request.peer_id)?;
    let protection = protection(&mut request)?;
    let fixed = match request.remote_address.as_str() {
        "" => None,
        address => Some(state.path_to(validate::address(address)?)?),
    };
    let remote = match (fixed, &mut request.remote_ice) {
        (None, ice) => Some(validate::credentials(ice.take())?),
        (Some(_), None) => None,
        (Some(_), Some(_)) => {
            return Err(Status::invalid_argument(
                "remote_ice, remote_address: name one of the two",
            ));
        }
    };
    let channels = channels(&request, &protection)?;
    state.refuse_while_draining()?;
    let scope = state.scope(&request.scope_id)?;
    let mut contents = lock(&scope).await?;
    if contents.peers.contains_key(&request.peer_id) {
        return Err(taken("peer", &request.peer_id));
    }
    let id = PeerId(state.registry.number());
    let plain = matches!(protection, Protection::Plain);
    // All that goes out under a session key goes through one context, or nonces would repeat: its peers stay together.
    let away = match protection {
        Protection::SessionKey(_) => None,
        Protection::Dtls(..) | Protection::Plain => {
            spread::place(&state, &scope, &mut contents).await
        }
    };
    let worker = away.unwrap_or(scope.worker());
    let local = random::credentials(worker).map_err(of_random)?;
    // Known everywhere before the worker says a word about it.
    let keys = match protection {
        Protection::Dtls(role, fingerprint) => {
            let added = state.handshakes.add(worker, id, role, fingerprint, channels);
            added.map_err(of_half_open)?;
            None
        }
        Protection::SessionKey(key) => Some(Command::ShareKey { peer: id, key }),
        Protection::Plain => Some(Command::SetPlain { peer: id }),
    };
    if fixed.is_some_and(|path| !state.registry.claim(path)) {
        return Err(taken("peer at remote_address", &request.remote_address));
    }
    state.registry.note_peer(id, &scope, away);
    let (added, local) = match (fixed, remote) {
        (Some(path), _) => (Command::AddFixedPeer { scope: scope.id, peer: id, path }, None),
        (None, remote) => {
            let remote =
                remote.unwrap_or(IceCredentials { ufrag: String::new(), pwd: String::new() });
            let command =
                Command::AddPeer { scope: scope.id, peer: id, local: local.clone(), remote };
            (command, Some(told(local)))
        }
    };
    if let Err(error) = carry_out(&state, worker, id, added, keys, fixed).await {
        state.handshakes.remove(id);
        state.registry.forget_peer(id);
        fixed.into_iter().for_each(|path| state.registry.release_path(path));
        return Err(of_mailbox(error));
    }
    let note = Note::default();
    let peer = Peer { id, connected: false, path: None, fixed, away, plain, note };
    contents.peers.insert(request.peer_id, peer);
    Ok(v1::AddPeerResponse {
        local_ice: local,
        candidates: state.identity.candidates.clone(),
        fingerprint_sha256: state.identity.fingerprint.clone(),
    })
}

/// Adds a peer, gives it its keys if it has them already, and tells all workers of its path if that is told: all or
/// nothing.
async fn carry_out(
    state: &State,
    number: usize,
    id: PeerId,
    added: Command,
    keys: Option<Command>,
    fixed: Option<Path>,
) -> Result<(), MailboxError> {
    let Some(worker) = state.workers.get(number) else {
        return Err(MailboxError::Stalled(number));
    };
    worker.command(added).await?;
    let rest = async {
        if let Some(keys) = keys {
            worker.command(keys).await?;
        }
        match fixed {
            Some(path) => state.steer(path, number).await,
            None => Ok(()),
        }
    };
    let result = rest.await;
    if result.is_err() {
        // A worker that is busy with other things does it later.
        let _ = worker.command(Command::RemovePeer { peer: id }).await;
        fixed.into_iter().for_each(|path| state.try_steer(path, None));
    }
    result
}

/// Another session key for a scope. Its peers with one live on its own worker.
pub(super) async fn change_key(
    state: Arc<State>,
    request: v1::ChangeSessionKeyRequest,
) -> Result<v1::ChangeSessionKeyResponse, Status> {
    let key = request.session_key.ok_or_else(|| {
        Status::invalid_argument("session_key: is missing: make a new one of the same profile")
    })?;
    let key = validate::session_key(key)?;
    let scope = state.scope(&request.scope_id)?;
    let _contents = lock(&scope).await?;
    let command = Command::ChangeKey { scope: scope.id, key };
    state.worker(&scope)?.command(command).await.map_err(of_mailbox)?;
    Ok(v1::ChangeSessionKeyResponse {})
}

pub(super) async fn restart_ice(
    state: Arc<State>,
    request: v1::RestartIceRequest,
) -> Result<v1::RestartIceResponse, Status> {
    let remote = validate::credentials(request.remote_ice)?;
    let scope = state.scope(&request.scope_id)?;
    let contents = lock(&scope).await?;
    let id = peer(&contents, &request.peer_id)?.id;
    let worker = contents.worker_of(&request.peer_id, scope.worker());
    let local = random::credentials(worker).map_err(of_random)?;
    let command = Command::RestartIce { peer: id, local: local.clone(), remote };
    state.numbered(worker)?.command(command).await.map_err(of_mailbox)?;
    Ok(v1::RestartIceResponse {
        local_ice: Some(told(local)),
        candidates: state.identity.candidates.clone(),
    })
}

pub(super) async fn limit_uplink(
    state: Arc<State>,
    request: v1::LimitUplinkRequest,
) -> Result<v1::LimitUplinkResponse, Status> {
    let scope = state.scope(&request.scope_id)?;
    let contents = lock(&scope).await?;
    let id = peer(&contents, &request.peer_id)?.id;
    let worker = state.worker_of(&scope, &contents, &request.peer_id)?;
    let bps_max = Some(request.bps_max).filter(|bps| *bps > 0);
    worker.command(Command::LimitUplink { peer: id, bps_max }).await.map_err(of_mailbox)?;
    Ok(v1::LimitUplinkResponse {})
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
        let worker = state.worker_of(&scope, &contents, &request.peer_id)?;
        match worker.command(Command::RemovePeer { peer: *id }).await {
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
    spread::end_mirrors(state, contents);
    if let Some(path) = peer.fixed {
        state.try_steer(path, None);
        state.registry.release_path(path);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Request;
    use crate::rpc::{scopes, testing};

    /// The other workers read what a peer without ICE sends, and no check ever tells them whose it is.
    #[tokio::test]
    async fn every_worker_learns_of_a_told_path_also_one_whose_mailbox_is_full() {
        let (first, obedient, _bound) = testing::worker();
        let (second, busy, _bound) = testing::worker();
        let state = testing::state(vec![first, second.clone()]);
        let scope = v1::CreateScopeRequest { scope_id: "room".into(), ..Default::default() };
        testing::obeyed(&obedient, scopes::create(state.clone(), scope)).await.unwrap();

        while second.send(Request::Stop).is_ok() {}
        let request = v1::AddPeerRequest {
            scope_id: "room".into(),
            peer_id: "ann".into(),
            remote_address: "127.0.0.1:9".into(),
            plain: true,
            ..v1::AddPeerRequest::default()
        };
        let adding = testing::obeyed(&obedient, add(state.clone(), request));
        let emptying = async {
            // It found no room before.
            tokio::time::sleep(crate::limits::MAILBOX_FULL_RETRY / 2).await;
            let mut requests = std::iter::from_fn(|| busy.take());
            assert!(requests.all(|request| matches!(request, Request::Stop)));
        };
        let (added, ()) = tokio::join!(adding, emptying);
        added.unwrap();
        assert!(matches!(busy.take(), Some(Request::Steer(_, Some(0)))));

        // Another peer at that address would take its media, whichever worker it lived on.
        let request = |peer: &str| v1::AddPeerRequest {
            scope_id: "room".into(),
            peer_id: peer.into(),
            remote_address: "127.0.0.1:9".into(),
            plain: true,
            ..v1::AddPeerRequest::default()
        };
        let refused = testing::obeyed(&obedient, add(state.clone(), request("bob"))).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused}");
        let ann = v1::RemovePeerRequest { scope_id: "room".into(), peer_id: "ann".into() };
        testing::obeyed(&obedient, remove(state.clone(), ann)).await.unwrap();
        let added = testing::obeyed(&obedient, add(state.clone(), request("bob"))).await;
        added.unwrap();
        state.handshakes.stop();
    }
}
