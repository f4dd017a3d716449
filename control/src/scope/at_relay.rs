//! What the relay has of a scope, and who decides that: the scope itself, the session key of its native
//! clients, and what it keeps for a process that is started again.
//!
//! A key goes one way: noted, then given to the relay, then told to clients. So whenever this process
//! is killed, the next one knows the key that the relay has or should have, and says it once more.

use std::sync::Arc;

use strait_proto::v1;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::key::SessionKey;
use super::memo::{self, OfScope};
use super::registry::{Scope, Scopes};
use super::{Notice, registry};
use crate::fault::{Class, Fault};
use crate::limits::{KEY_CHANGE_PAUSE, RECALL_PAUSE, RECALL_SAID, SSRC_STRIDE};
use crate::relay::Transport;

/// Whether the session key is being changed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyChanges {
    /// Nobody left since the last change.
    #[default]
    Idle,
    /// It is being changed, or was a moment ago.
    Running,
    /// And somebody left since.
    Again,
}

impl KeyChanges {
    /// Somebody left. True when nobody is about to change the key yet.
    fn ask(&mut self) -> bool {
        let begins = *self == Self::Idle;
        *self = if begins { Self::Running } else { Self::Again };
        begins
    }

    /// A change is done, and its pause is over. True when another is wanted.
    fn go_on(&mut self) -> bool {
        let again = *self == Self::Again;
        *self = if again { Self::Running } else { Self::Idle };
        again
    }
}

/// What the relay has of a scope. Held while that changes.
#[derive(Debug, Default)]
pub(super) struct AtRelay {
    has: Has,
    /// How often it had forgotten it.
    lost: u64,
    /// What it keeps of it for a process that is started again.
    noted: Option<Seen>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Has {
    /// Nothing.
    #[default]
    Nothing,
    /// What a process of before gave it; whether that had told it the key that was noted last, nobody
    /// knows.
    Recalled,
    /// The scope, with its key once there is a native client. It may have forgotten it since, which
    /// shows when a peer is added.
    All,
}

/// What of a scope was noted last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    key: u64,
    ssrc: u32,
    fence: Option<u64>,
}

impl AtRelay {
    /// What a process of before gave it.
    pub(super) fn recalled() -> Self {
        Self { has: Has::Recalled, ..Self::default() }
    }

    /// The scope ended. True when the relay must be told so.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.has) != Has::Nothing
    }
}

impl Scopes {
    /// Adds a transport at the relay, which is told of the scope before. Also returns the SHA-256
    /// fingerprint of the relay's certificate.
    ///
    /// # Errors
    /// The relay's refusal.
    pub(super) async fn add_peer(
        &self,
        scope: &Scope,
        request: v1::AddPeerRequest,
    ) -> Result<(Transport, String), Fault> {
        let lost = {
            let mut at_relay = scope.at_relay.lock().await;
            self.bring(scope, &mut at_relay).await?;
            at_relay.lost
        };
        match self.relay.add_peer(request.clone()).await {
            Err(fault) if fault.class == Class::NotFound => {
                let mut at_relay = scope.at_relay.lock().await;
                if at_relay.lost == lost {
                    self.bring_again(scope, &mut at_relay).await?;
                }
                drop(at_relay);
                self.relay.add_peer(request).await
            }
            other => other,
        }
    }

    /// The same for a native client, which has the scope's session key. One after the other, so that
    /// none comes with a key of before to a relay that forgot what it sent under it.
    ///
    /// # Errors
    /// The relay's refusal.
    pub(super) async fn add_native(
        &self,
        scope: &Scope,
        mut request: v1::AddPeerRequest,
    ) -> Result<Transport, Fault> {
        let mut at_relay = scope.at_relay.lock().await;
        self.bring(scope, &mut at_relay).await?;
        request.session_key = scope.natives().key().map(SessionKey::for_relay);
        let added = match self.relay.add_peer(request.clone()).await {
            Err(fault) if fault.class == Class::NotFound => {
                self.bring_again(scope, &mut at_relay).await?;
                request.session_key = scope.natives().key().map(SessionKey::for_relay);
                self.relay.add_peer(request).await
            }
            other => other,
        };
        added.map(|(transport, _)| transport)
    }

    /// Has the relay have what a process of before gave it, and keep how far this one is, before
    /// anything of the scope is given out again: were this process killed too, the next one would give
    /// out the same SSRCs under the same key.
    pub(crate) async fn take_over(&self, scope: &Scope) {
        for _ in 0..RECALL_SAID {
            match self.note_scope(scope).await {
                Ok(()) => return,
                Err(fault) => debug!(scope = scope.key.scope, "not taken over yet: {fault}"),
            }
            sleep(RECALL_PAUSE).await;
        }
        // Whoever publishes or comes tries again, or is refused.
    }

    /// Has the relay keep what a scope is, where that changed.
    ///
    /// # Errors
    /// The relay's refusal.
    pub(super) async fn note_scope(&self, scope: &Scope) -> Result<(), Fault> {
        self.bring(scope, &mut *scope.at_relay.lock().await).await
    }

    /// Makes sure that the relay has the scope and its key, and keeps a note of both.
    async fn bring(&self, scope: &Scope, at_relay: &mut AtRelay) -> Result<(), Fault> {
        if at_relay.has == Has::Nothing {
            let audio_streams_max = self.limits().audio_streams_per_scope;
            self.relay.create_scope(&scope.relay_id, audio_streams_max).await?;
            (at_relay.has, at_relay.noted) = (Has::All, None);
        }
        self.note(scope, at_relay, None).await?;
        if at_relay.has == Has::Recalled {
            self.say_key_again(scope, at_relay).await?;
            at_relay.has = Has::All;
        }
        Ok(())
    }

    /// The process before noted a key and may have been killed before the relay had it. Or, where a note
    /// was lost, the relay has a later one: then it gets one that nobody had yet.
    async fn say_key_again(&self, scope: &Scope, at_relay: &mut AtRelay) -> Result<(), Fault> {
        let noted = scope.natives().key().map(SessionKey::for_relay);
        let Some(noted) = noted else { return Ok(()) };
        match self.relay.change_session_key(&scope.relay_id, noted).await {
            // It has none yet: the first native client brings it.
            Err(fault) if fault.class == Class::NotFound => Ok(()),
            Err(fault) if fault.class == Class::NotAcceptable => {
                warn!(
                    scope = scope.key.scope,
                    "the relay has another session key: making a new one"
                );
                let key = scope.natives().key().map(SessionKey::renewed).transpose()?;
                let Some(key) = key else { return Ok(()) };
                self.give_key(scope, at_relay, &key).await?;
                scope.set_key(key);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// The relay restarted, or disposed of the scope: what it sent under the session key is
    /// forgotten, and nonces would come again. So there is another key before it has the scope.
    async fn bring_again(&self, scope: &Scope, at_relay: &mut AtRelay) -> Result<(), Fault> {
        let key = scope.natives().key().map(SessionKey::renewed).transpose()?;
        key.into_iter().for_each(|key| scope.set_key(key));
        at_relay.has = Has::Nothing;
        // Whoever else finds it gone must not change the key once more, also where this fails.
        at_relay.lost += 1;
        self.bring(scope, at_relay).await
    }

    /// Changes the session key, at once or [`KEY_CHANGE_PAUSE`] after the last change.
    pub(super) fn change_key_soon(self: &Arc<Self>, scope: &Arc<Scope>) {
        if !scope.natives().changes.ask() {
            return;
        }
        let (scopes, scope) = (Arc::clone(self), Arc::clone(scope));
        tokio::spawn(async move {
            loop {
                scopes.change_key(&scope).await;
                sleep(KEY_CHANGE_PAUSE).await;
                if !scope.natives().changes.go_on() {
                    return;
                }
            }
        });
    }

    /// Makes another session key: the relay first, so that it opens what clients send under it.
    async fn change_key(&self, scope: &Scope) {
        let renewed = scope.natives().key().map(SessionKey::renewed);
        let key = match renewed {
            Some(Ok(key)) => key,
            Some(Err(fault)) => return warn!("the session key stays: {fault}"),
            None => return, // the scope ended
        };
        let lost = scope.at_relay.lock().await.lost;
        loop {
            {
                let mut at_relay = scope.at_relay.lock().await;
                if scope.natives().key().is_none() || at_relay.lost != lost {
                    return; // there is none to change any more, or another already
                }
                match self.give_key(scope, &mut at_relay, &key).await {
                    Ok(()) => return scope.set_key(key),
                    Err(fault) => {
                        warn!(scope = scope.key.scope, "the session key stays for now: {fault}");
                    }
                }
            }
            // The same key again: the relay may have it, and its answer was late.
            sleep(KEY_CHANGE_PAUSE).await;
        }
    }

    /// Notes another key, and gives it to the relay. Clients are to be told next.
    async fn give_key(
        &self,
        scope: &Scope,
        at_relay: &mut AtRelay,
        key: &SessionKey,
    ) -> Result<(), Fault> {
        self.note(scope, at_relay, Some(key)).await?;
        match self.relay.change_session_key(&scope.relay_id, key.for_relay()).await {
            // What it does not have gets the key with its first native client.
            Err(fault) if fault.class == Class::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Has the relay keep what a scope is, where that changed; `next` is the key that comes now.
    async fn note(
        &self,
        scope: &Scope,
        at_relay: &mut AtRelay,
        next: Option<&SessionKey>,
    ) -> Result<(), Fault> {
        // Not to be had while somebody asks for it: then it is as it was.
        let fence = self.cluster().fence_of(&scope.key);
        let fence = fence.or(at_relay.noted.and_then(|noted| noted.fence));
        let (seen, key) = {
            let natives = scope.natives();
            let key = natives.keys() + u64::from(next.is_some());
            let seen = Seen { key, ssrc: natives.last_ssrc(), fence };
            (seen, next.or(natives.key()).map(SessionKey::for_memo))
        };
        let is_known = at_relay.noted.is_some_and(|noted| {
            let stride = seen.ssrc.saturating_sub(noted.ssrc);
            noted.key == seen.key && noted.fence == seen.fence && stride < SSRC_STRIDE
        });
        if is_known {
            return Ok(());
        }
        let memo = memo::write(&OfScope::of(scope, fence, key, seen.ssrc));
        at_relay.noted = match self.relay.keep_note(&scope.relay_id, "", memo).await {
            Ok(()) => Some(seen),
            // It has no room, or no such scope, and keeps none of before: nobody goes on with this one.
            Err(fault) if matches!(fault.class, Class::TooMany | Class::NotFound) => {
                debug!(scope = scope.key.scope, "not noted: {fault}");
                None
            }
            // It may have the one of before, by which a key that comes now would be forgotten.
            Err(fault) => return Err(fault),
        };
        Ok(())
    }
}

impl Scope {
    /// Goes on with another session key, and tells the native clients.
    fn set_key(&self, key: SessionKey) {
        if self.natives().set_key(key) {
            registry::tell_all(&self.roster(), Notice::KeyChanged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_while_the_key_changes_makes_one_more_change() {
        let mut changes = KeyChanges::default();
        assert!(changes.ask());
        assert!(!changes.ask() && !changes.ask());
        assert!(changes.go_on(), "for both of them");
        assert!(!changes.go_on());
        assert_eq!(changes, KeyChanges::Idle);
        assert!(changes.ask(), "and anew");
    }
}
