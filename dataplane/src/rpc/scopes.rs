//! Scopes: made, removed, and cleared away when everybody left them.

use super::{State, of_mailbox, validate};
use crate::limits::{ABANDONED, ABANDONED_SWEEP};
use crate::mailbox::MailboxError;
use crate::registry::{Contents, Scope};
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
    let answer = |scope: &Scope| v1::CreateScopeResponse {
        worker: u32::try_from(scope.worker).unwrap_or(u32::MAX),
    };
    if let Some(scope) = state.registry.scope(&request.scope_id) {
        return Ok(answer(&scope));
    }
    state.refuse_while_draining()?;
    loop {
        let Some(scope) = state.registry.place(&request.scope_id) else {
            return Err(Status::resource_exhausted(format!(
                "the limit of {SCOPES} scopes per worker is reached on all workers: dispose of some, or add relays"
            )));
        };
        let contents = scope.state.lock().await;
        if contents.disposed {
            // Somebody removed it in this moment, and its name is free again.
            continue;
        }
        // Two callers may have placed the same new scope: the worker says which of them was second.
        let command = Command::CreateScope { scope: scope.id };
        return match state.worker(&scope)?.command(command).await {
            Ok(()) | Err(MailboxError::Refused(CommandError::Exists(_))) => Ok(answer(&scope)),
            Err(error) => {
                forget(&state, &scope, contents);
                Err(of_mailbox(error))
            }
        };
    }
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

/// Clears away scopes that nobody is in and nobody watches over, for as long as the process lives.
pub(crate) async fn sweep(state: Arc<State>) {
    let mut unwatched_since = Instant::now();
    loop {
        tokio::time::sleep(ABANDONED_SWEEP).await;
        if state.watchers.load(Ordering::Relaxed) > 0 {
            unwatched_since = Instant::now();
        } else if unwatched_since.elapsed() >= ABANDONED {
            for scope in state.registry.scopes() {
                let contents = scope.state.lock().await;
                let abandoned =
                    contents.peers.is_empty() && contents.empty_since.elapsed() >= ABANDONED;
                if abandoned && !contents.disposed {
                    tracing::info!(
                        scope = scope.name,
                        "disposed of: empty, and no control plane is there"
                    );
                    let _ = remove(&state, &scope, contents).await;
                }
            }
        }
    }
}

async fn remove(
    state: &State,
    scope: &Arc<Scope>,
    contents: tokio::sync::MutexGuard<'_, Contents>,
) -> Result<(), Status> {
    match state.worker(scope)?.command(Command::DisposeScope { scope: scope.id }).await {
        Ok(()) | Err(MailboxError::Refused(CommandError::NotFound(_))) => {}
        Err(error) => return Err(of_mailbox(error)),
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
        state.tell(v1::event::Event::PeerLeft(v1::PeerLeft {
            scope_id: scope.name.clone(),
            peer_id: name,
            reason: v1::peer_left::Reason::ScopeDisposed.into(),
            detail: "the scope was disposed of".to_owned(),
        }));
    }
    contents.publications.clear();
    contents.subscriptions.clear();
    state.registry.remove(scope);
    let disposed = v1::ScopeDisposed { scope_id: scope.name.clone() };
    state.tell(v1::event::Event::ScopeDisposed(disposed));
}
