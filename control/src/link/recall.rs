//! Sessions that outlive their process: what the relay keeps of them, and how one that is started again
//! goes on with them.

use std::collections::HashMap;
use std::sync::Arc;

use strait_proto::v1;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::counters::count;
use super::session::{Memo, Session};
use super::{Handle, Links, Registration};
use crate::cluster::claims::Claim;
use crate::limits;
use crate::scope::memo::{self, OfScope};
use crate::scope::{Native, Scope, ScopeKey, Sink};

impl Links {
    /// Goes on with the sessions that are in these notes. Each waits for its client as one that lost
    /// its link a moment ago; media flows all the time.
    pub fn recall(self: &Arc<Self>, notes: Vec<v1::Note>) {
        let mut memos: HashMap<String, (Option<OfScope>, Vec<Memo>)> = HashMap::new();
        let mut unread = 0;
        for note in notes.into_iter().filter(|note| !note.scope_id.is_empty()) {
            let (scope, sessions) = memos.entry(note.scope_id).or_default();
            if note.peer_id.is_empty() {
                *scope = memo::read(&note.content);
                unread += usize::from(scope.is_none());
            } else {
                match memo::read(&note.content) {
                    Some(memo) => sessions.push(memo),
                    None => unread += 1,
                }
            }
        }
        if unread > 0 {
            warn!(unread, "notes at the relay are of another version: these sessions begin anew");
        }
        let (mut sessions, mut scopes) = (0, 0);
        for (relay_id, (scope, memos)) in memos {
            let Some(scope) = scope else { continue };
            self.hold(&scope);
            if memos.is_empty() {
                continue;
            }
            let (key, fence) = (key(&scope), scope.fence);
            let scope = self.scopes.recall(&relay_id, scope);
            let of_scope = memos.into_iter().filter_map(|memo| {
                let claim = self.scopes.claim_again(&key, fence.unwrap_or_default());
                self.recall_session(&scope, memo, claim)
            });
            let of_scope: Vec<_> = of_scope.collect();
            sessions += of_scope.len();
            scopes += usize::from(!of_scope.is_empty());
            of_scope.iter().for_each(|_| count(&self.counters.recalled));
            let all = Arc::clone(&self.scopes);
            tokio::spawn(async move {
                all.note_again(&scope).await;
                for session in of_scope {
                    tokio::spawn(session.run_again());
                }
            });
        }
        if sessions > 0 {
            info!(sessions, scopes, "going on with what a process of before had");
        }
    }

    /// Who was in a scope may come back to it, also who is not noted: it stays this node's meanwhile.
    fn hold(&self, scope: &OfScope) {
        let Some(fence) = scope.fence else { return };
        let claim = self.scopes.claim_again(&key(scope), fence);
        let time = self.reconnect_time;
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            drop(claim);
        });
    }

    fn recall_session(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        memo: Memo,
        claim: Claim,
    ) -> Option<Box<Session>> {
        let Memo { session, address, native } = memo;
        let place = match self.admission.enter(address) {
            Ok(place) => place,
            Err(fault) => {
                warn!("a session of before has no place: {fault}");
                return None;
            }
        };
        let identity = self.auth.recalled(native.identity().clone());
        let (attach, attached) = mpsc::channel(1);
        let handle = Handle {
            attach,
            application: identity.application.clone(),
            subject: identity.subject.clone(),
            scope: scope.key.scope.clone(),
        };
        let registration =
            Registration { links: Arc::clone(self), session_id: session.clone(), place };
        let (notices_in, notices) = mpsc::channel(limits::NOTICES);
        let sink = Sink::new(notices_in, 0).with_messages();
        let native = Native::recall(&self.scopes, scope, identity, native, sink.clone(), claim)?;
        self.lock().insert(session, handle);
        Some(Box::new(Session::recalled(registration, native, (sink, notices), attached)))
    }
}

fn key(scope: &OfScope) -> ScopeKey {
    ScopeKey { application: scope.application.clone(), scope: scope.scope.clone() }
}
