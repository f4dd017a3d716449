//! Scopes: made, removed, and cleared away when everybody left them.

use super::{State, lock, of_mailbox, spread, validate};
use crate::limits::{ABANDONED, ABANDONED_SWEEP};
use crate::mailbox::{MailboxError, Request};
use crate::registry::{Contents, Scope};
use crate::steer::Whereabouts;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use strait_core::command::{Command, CommandError};
use strait_core::limits::SCOPES;
use strait_proto::v1;
use tonic::Status;

pub(super) async fn create(
    state: Arc<State>,
    request: v1::CreateScopeRequest,
) -> Result<v1::CreateScopeResponse, Status> {
    validate::id("scope_id", &request.scope_id)?;
    let streams_max = validate::audio_streams_max(request.audio_streams_max)?;
    let answer = |scope: &Scope| v1::CreateScopeResponse {
        worker: u32::try_from(scope.worker()).unwrap_or(u32::MAX),
    };
    if let Some(scope) = state.registry.scope(&request.scope_id) {
        let mut contents = scope.state.lock().await;
        if !contents.disposed {
            limit_audio(&state, &scope, &mut contents, streams_max).await?;
            return Ok(answer(&scope));
        }
    }
    state.refuse_while_draining()?;
    loop {
        let Some(scope) = state.registry.place(&request.scope_id) else {
            return Err(Status::resource_exhausted(format!(
                "the limit of {SCOPES} scopes per worker is reached on all workers: dispose of some, or add relays"
            )));
        };
        let mut contents = scope.state.lock().await;
        if contents.disposed {
            // Somebody removed it in this moment, and its name is free again.
            continue;
        }
        // Two callers may have placed the same new scope: the worker says which of them was second.
        let command = Command::CreateScope { scope: scope.id };
        return match state.worker(&scope)?.command(command).await {
            Ok(()) | Err(MailboxError::Refused(CommandError::Exists(_))) => {
                limit_audio(&state, &scope, &mut contents, streams_max).await?;
                Ok(answer(&scope))
            }
            Err(error) => {
                forget(&state, &scope, contents);
                Err(of_mailbox(error))
            }
        };
    }
}

/// Forwards so many audio streams of a scope alone, on all its workers.
async fn limit_audio(
    state: &State,
    scope: &Scope,
    contents: &mut Contents,
    streams_max: usize,
) -> Result<(), Status> {
    if contents.audio_streams_max == streams_max {
        return Ok(());
    }
    for worker in [scope.worker()].iter().chain(&contents.spread) {
        let command = Command::LimitAudio { scope: scope.id, streams_max };
        state.numbered(*worker)?.command(command).await.map_err(of_mailbox)?;
    }
    contents.audio_streams_max = streams_max;
    Ok(())
}

pub(super) async fn dispose(
    state: Arc<State>,
    request: v1::DisposeScopeRequest,
) -> Result<v1::DisposeScopeResponse, Status> {
    validate::id("scope_id", &request.scope_id)?;
    if let Some(scope) = state.registry.scope(&request.scope_id) {
        let contents = scope.state.lock().await;
        if !contents.disposed {
            remove(&state, &scope, contents).await?;
        }
    }
    Ok(v1::DisposeScopeResponse {})
}

/// Gives a scope to another worker, while its media flows. Its lock is held meanwhile: no command meets it half way.
pub(super) async fn relocate(
    state: Arc<State>,
    request: v1::MoveScopeRequest,
) -> Result<v1::MoveScopeResponse, Status> {
    let scope = state.scope(&request.scope_id)?;
    let contents = lock(&scope).await?;
    let (from, to) = (scope.worker(), request.worker as usize);
    if to >= state.workers.len() {
        return Err(Status::invalid_argument(format!(
            "worker is {to}: this relay has workers 0 to {}",
            state.workers.len().saturating_sub(1)
        )));
    }
    let answer = Ok(v1::MoveScopeResponse { from: u32::try_from(from).unwrap_or(u32::MAX) });
    if from == to {
        return answer;
    }
    if !contents.spread.is_empty() {
        return Err(Status::invalid_argument(format!(
            "the scope is spread over {} workers: it cannot be moved as one until its peers elsewhere left",
            1 + contents.spread.len()
        )));
    }
    let peers = contents.peers.len();
    if !state.registry.reserve(to, peers) {
        return Err(Status::resource_exhausted(format!(
            "worker {to} has not room for one more scope with {peers} peers: choose another (GetStatistics shows them)"
        )));
    }
    let whereabouts = match hand_over(&state, &scope, to).await {
        Ok(whereabouts) => whereabouts,
        Err(error) => {
            state.registry.release(to, peers);
            return Err(of_mailbox(error));
        }
    };
    state.registry.note_move(&scope, peers, to);
    for peer in contents.peers.values() {
        state.handshakes.moved(peer.id, to);
    }
    // Until they hear of it, they hand its datagrams to the worker that had it, which passes them on.
    let whereabouts = Arc::new(whereabouts);
    for (_, mailbox) in state.workers.iter().enumerate().filter(|(worker, _)| *worker != to) {
        let _ = mailbox.send(Request::Redirect(whereabouts.clone(), to));
    }
    for path in contents.peers.values().filter_map(|peer| peer.fixed) {
        state.try_steer(path, Some(to));
    }
    tracing::info!(scope = scope.name, from, to, peers, "moved");
    answer
}

async fn hand_over(state: &State, scope: &Scope, to: usize) -> Result<Whereabouts, MailboxError> {
    // What all were told of its datagrams before is done by then: later, it would be wrong.
    for mailbox in &state.workers {
        mailbox.ping().await?;
    }
    let from = scope.worker();
    let mailbox = state.workers.get(from).ok_or(MailboxError::Stalled(from))?;
    mailbox.give_away(scope.id, to).await
}

/// Clears away scopes that nobody is in and nobody watches over, for as long as the process lives.
pub(crate) async fn sweep(state: Arc<State>) {
    let mut sweep = Sweep { unwatched_since: Instant::now() };
    loop {
        tokio::time::sleep(ABANDONED_SWEEP).await;
        sweep.look(&state, Instant::now()).await;
        spread::sweep(&state, Instant::now()).await;
    }
}

struct Sweep {
    unwatched_since: Instant,
}

impl Sweep {
    async fn look(&mut self, state: &State, now: Instant) {
        if state.watchers.load(Ordering::Relaxed) > 0 {
            self.unwatched_since = now;
        }
        if now.saturating_duration_since(self.unwatched_since) < ABANDONED {
            return;
        }
        for scope in state.registry.scopes() {
            let contents = scope.state.lock().await;
            let empty = now.saturating_duration_since(contents.empty_since);
            if !contents.disposed && contents.peers.is_empty() && empty >= ABANDONED {
                tracing::info!(
                    scope = scope.name,
                    "disposed of: empty, and no control plane is there"
                );
                let _ = remove(state, &scope, contents).await;
            }
        }
    }
}

async fn remove(
    state: &State,
    scope: &Arc<Scope>,
    mut contents: tokio::sync::MutexGuard<'_, Contents>,
) -> Result<(), Status> {
    // Its own worker comes last: as long as that has the scope, what is left of it works.
    let others: Vec<usize> = contents.spread.iter().copied().collect();
    for worker in others.into_iter().chain([scope.worker()]) {
        let command = Command::DisposeScope { scope: scope.id };
        match state.numbered(worker)?.command(command).await {
            Ok(()) | Err(MailboxError::Refused(CommandError::NotFound(_))) => {}
            Err(error) => return Err(of_mailbox(error)),
        }
        if contents.spread.remove(&worker) {
            state.registry.note_spread(worker, false);
        }
        for publication in contents.publications.values_mut() {
            publication.mirrors.remove(&worker);
        }
    }
    forget(state, scope, contents);
    Ok(())
}

fn forget(state: &State, scope: &Arc<Scope>, mut contents: tokio::sync::MutexGuard<'_, Contents>) {
    contents.disposed = true;
    for publication in contents.publications.values() {
        state.registry.forget_publication(publication.id);
    }
    for (name, peer) in std::mem::take(&mut contents.peers) {
        state.registry.forget_peer(peer.id);
        state.handshakes.remove(peer.id);
        if let Some(path) = peer.fixed {
            state.try_steer(path, None);
            state.registry.release_path(path);
        }
        state.tell(v1::event::Event::PeerLeft(v1::PeerLeft {
            scope_id: scope.name.clone(),
            peer_id: name,
            reason: v1::peer_left::Reason::ScopeDisposed.into(),
            detail: "the scope was disposed of".to_owned(),
        }));
    }
    for worker in std::mem::take(&mut contents.spread) {
        state.registry.note_spread(worker, false);
    }
    contents.publications.clear();
    contents.subscriptions.clear();
    state.registry.remove(scope);
    let disposed = v1::ScopeDisposed { scope_id: scope.name.clone() };
    state.tell(v1::event::Event::ScopeDisposed(disposed));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing;
    use std::time::Duration;

    async fn scopes(state: &Arc<State>, names: &[&str]) {
        for name in names {
            let request = v1::CreateScopeRequest {
                scope_id: (*name).to_owned(),
                ..v1::CreateScopeRequest::default()
            };
            create(state.clone(), request).await.unwrap();
        }
    }

    fn left(state: &State) -> Vec<String> {
        let mut names: Vec<_> =
            state.registry.scopes().iter().map(|scope| scope.name.clone()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn empty_scopes_that_nobody_watches_over_are_cleared_away() {
        let (mailbox, inbox, _bound) = testing::worker();
        let state = testing::state(vec![mailbox]);
        let start = Instant::now();
        let mut sweep = Sweep { unwatched_since: start };
        testing::obeyed(&inbox, scopes(&state, &["empty", "lived in"])).await;
        let lived_in = state.registry.scope("lived in").unwrap();
        let ann = crate::registry::testing::peer(1);
        lived_in.state.lock().await.peers.insert("ann".to_owned(), ann);
        // Created a moment after the start.
        let margin = Duration::from_secs(10);

        testing::obeyed(&inbox, sweep.look(&state, start + ABANDONED - margin)).await;
        assert_eq!(left(&state), ["empty", "lived in"], "too early");
        state.watchers.store(1, Ordering::Relaxed);
        testing::obeyed(&inbox, sweep.look(&state, start + 10 * ABANDONED)).await;
        assert_eq!(left(&state), ["empty", "lived in"], "somebody watches over them");
        state.watchers.store(0, Ordering::Relaxed);
        testing::obeyed(&inbox, sweep.look(&state, start + 11 * ABANDONED - margin)).await;
        assert_eq!(left(&state), ["empty", "lived in"], "a control plane that restarts has time");
        testing::obeyed(&inbox, sweep.look(&state, start + 11 * ABANDONED)).await;
        assert_eq!(left(&state), ["lived in"]);

        // When its last peer leaves, its time begins.
        lived_in.state.lock().await.remove_peer("ann");
        lived_in.state.lock().await.empty_since = start + 12 * ABANDONED;
        testing::obeyed(&inbox, sweep.look(&state, start + 13 * ABANDONED - margin)).await;
        assert_eq!(left(&state), ["lived in"]);
        testing::obeyed(&inbox, sweep.look(&state, start + 13 * ABANDONED)).await;
        assert_eq!(left(&state), [""; 0]);
        // And its name is free.
        testing::obeyed(&inbox, scopes(&state, &["lived in"])).await;
        state.handshakes.stop();
    }
}
