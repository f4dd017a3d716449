//! Sessions that outlive their process: what the relay keeps of them, and how one that is started again
//! goes on with them.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, info, warn};

use super::counters::{Unrecalled, count};
use super::session::{Memo, Session};
use super::{Handle, Links, Registration};
use crate::cluster::claims::Claim;
use crate::relay::Notes;
use crate::scope::memo::{self, OfScope};
use crate::scope::{Native, Scope, ScopeKey, Sink};
use crate::{id, limits};

/// A scope of before, the relay's name for it, and who was in it.
type Found = (OfScope, String, Vec<Memo>);

impl Links {
    /// Goes on with the sessions that are in these notes. Each waits for its client as one that lost
    /// its link a moment ago; media flows all the time. One that cannot go on is counted and told of,
    /// and the others go on.
    pub fn recall(self: &Arc<Self>, notes: Notes) {
        let before = self.counters.all_unrecalled();
        if !notes.is_whole {
            let read = notes.told.len();
            warn!(read, "the relay did not tell all it keeps: what it left out begins anew");
            self.counters.lost(Unrecalled::Untold);
        }
        let in_order = memo::Process::find(&notes).is_some_and(|process| process.has_ended());
        let (mut scopes, mut sessions) = (0, 0);
        let turns = Arc::new(Semaphore::new(limits::RECALLS_AT_ONCE));
        for (scope, relay_id, memos) in self.latest(notes) {
            self.hold(&scope);
            if memos.is_empty() {
                continue;
            }
            let (name, fence) = (scope.name(), scope.fence.unwrap_or_default());
            let Some(scope) = self.scopes.recall(&relay_id, scope) else {
                memos.iter().for_each(|memo| self.lost(&memo.session, Unrecalled::Misfit));
                continue;
            };
            let again = memos.into_iter().filter_map(|memo| {
                let (session, claim) =
                    (memo.session.clone(), self.scopes.claim_again(&name, fence));
                let again = self.recall_session(&scope, memo, in_order, claim);
                again.inspect_err(|why| self.lost(&session, *why)).ok()
            });
            let again: Vec<_> = again.collect();
            if again.is_empty() {
                continue;
            }
            self.scopes.insert(&scope);
            again.iter().for_each(|_| count(&self.counters.recalled));
            (scopes, sessions) = (scopes + 1, sessions + again.len());
            for session in again {
                tokio::spawn(session.run_again(Arc::clone(&turns)));
            }
        }
        if sessions > 0 {
            info!(sessions, scopes, "going on with what a process of before had");
        }
        let lost = self.counters.all_unrecalled() - before;
        if lost > 0 {
            warn!(lost, "sessions of before begin anew; control_links_unrecalled_total says why");
        }
    }

    /// Of scopes of one name the one that began last. The others ended, and their end did not reach the
    /// relay: what they have is given back.
    fn latest(self: &Arc<Self>, notes: Notes) -> impl Iterator<Item = Found> + use<> {
        let mut found = self.found(notes);
        found.sort_by(|(one, id, _), (other, other_id, _)| {
            one.age(other).then_with(|| id.cmp(other_id))
        });
        let mut latest = HashMap::<ScopeKey, Found>::new();
        for scope in found {
            let Some((older, relay_id, memos)) = latest.insert(scope.0.name(), scope) else {
                continue;
            };
            warn!(scope = older.name().scope, relay_id, "it ended, and another began: given back");
            memos.iter().for_each(|memo| self.lost(&memo.session, Unrecalled::Older));
            let links = Arc::clone(self);
            tokio::spawn(async move { links.scopes.give_back(&relay_id).await });
        }
        latest.into_values()
    }

    /// What can be read.
    fn found(&self, notes: Notes) -> Vec<Found> {
        let mut scopes: HashMap<String, (Option<OfScope>, Vec<Memo>)> = HashMap::new();
        for note in notes.told.into_iter().filter(|note| !note.scope_id.is_empty()) {
            let (scope, memos) = scopes.entry(note.scope_id).or_default();
            if note.peer_id.is_empty() {
                *scope = memo::read(&note.content);
                continue;
            }
            match memo::read(&note.content) {
                Some(memo) => memos.push(memo),
                None => self.lost(&note.peer_id, Unrecalled::Unreadable),
            }
        }
        let readable = scopes.into_iter().filter_map(|(relay_id, (scope, memos))| match scope {
            Some(scope) => Some((scope, relay_id, memos)),
            None => {
                memos.iter().for_each(|memo| self.lost(&memo.session, Unrecalled::Unreadable));
                None
            }
        });
        readable.collect()
    }

    /// A session begins anew.
    fn lost(&self, session: &str, why: Unrecalled) {
        debug!(session = id::short(session), ?why, "not gone on with");
        self.counters.lost(why);
    }

    /// Who was in a scope may come back to it, also who is not noted: it stays this node's meanwhile.
    fn hold(&self, scope: &OfScope) {
        let Some(fence) = scope.fence else { return };
        let claim = self.scopes.claim_again(&scope.name(), fence);
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
        in_order: bool,
        claim: Claim,
    ) -> Result<Box<Session>, Unrecalled> {
        let Memo { session, address, native, left } = memo;
        let left = in_order.then_some(left);
        let place = self.admission.enter(address).map_err(|_| Unrecalled::NoPlace)?;
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
        let (notices_in, notices) = mpsc::channel(limits::LINK_NOTICES);
        let sink = Sink::new(notices_in, 0).with_messages_counted();
        let native = Native::recall(&self.scopes, scope, identity, native, sink.clone(), claim)
            .ok_or(Unrecalled::Misfit)?;
        self.lock().insert(session, handle);
        Ok(Box::new(Session::recalled(registration, native, (sink, notices), attached, left)))
    }
}
