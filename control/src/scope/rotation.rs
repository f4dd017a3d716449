//! Another session key for a scope: when a native client left whose application asks for that, and
//! when the relay lost the scope.

use std::sync::Arc;

use strait_proto::v1;
use tracing::warn;

use super::key::SessionKey;
use super::memo::Seen;
use super::registry::{Scope, Scopes};
use super::{Notice, registry};
use crate::fault::{Class, Fault};
use crate::limits;
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

/// What the relay knows of a scope.
#[derive(Debug, Default)]
pub(super) struct AtRelay {
    /// Whether it was told of it, and must be told of its end: it may have forgotten it since,
    /// which shows when a peer is added.
    pub(super) is_created: bool,
    /// How often it had forgotten it.
    lost: u64,
    /// A process of before told it, and may have changed the key without a note of that.
    is_recalled: bool,
    /// What of it the relay keeps for a process that is started again.
    pub(super) noted: Option<Seen>,
}

impl AtRelay {
    /// It was told by a process of before.
    pub(super) fn created() -> Self {
        Self { is_created: true, is_recalled: true, ..Self::default() }
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
            self.create(scope, &mut at_relay).await?;
            at_relay.lost
        };
        match self.relay.add_peer(request.clone()).await {
            Err(fault) if fault.class == Class::NotFound => {
                let mut at_relay = scope.at_relay.lock().await;
                if at_relay.lost == lost {
                    self.create_again(scope, &mut at_relay).await?;
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
        self.create(scope, &mut at_relay).await?;
        request.session_key = scope.natives().key().map(SessionKey::for_relay);
        let added = match self.relay.add_peer(request.clone()).await {
            Err(fault) if fault.class == Class::NotFound => {
                self.create_again(scope, &mut at_relay).await?;
                request.session_key = scope.natives().key().map(SessionKey::for_relay);
                self.relay.add_peer(request).await
            }
            Err(fault) if fault.class == Class::Conflict && at_relay.is_recalled => {
                at_relay.is_recalled = false;
                let key = scope.natives().key().map(SessionKey::renewed).transpose()?;
                let Some(key) = key else { return Err(fault) };
                self.relay.change_session_key(&scope.relay_id, key.for_relay()).await?;
                request.session_key = Some(key.for_relay());
                scope.set_key(key);
                self.relay.add_peer(request).await
            }
            other => other,
        };
        self.note_scope(scope, &mut at_relay).await;
        added.map(|(transport, _)| transport)
    }

    async fn create(&self, scope: &Scope, at_relay: &mut AtRelay) -> Result<(), Fault> {
        if !at_relay.is_created {
            let audio_streams_max = self.limits().audio_streams_per_scope;
            self.relay.create_scope(&scope.relay_id, audio_streams_max).await?;
            (at_relay.is_created, at_relay.noted) = (true, None);
            self.note_scope(scope, at_relay).await;
        }
        Ok(())
    }

    /// The relay restarted, or disposed of the scope: what it sent under the session key is
    /// forgotten, and nonces would come again. So there is another key before it has the scope.
    async fn create_again(&self, scope: &Scope, at_relay: &mut AtRelay) -> Result<(), Fault> {
        let key = scope.natives().key().map(SessionKey::renewed).transpose()?;
        key.into_iter().for_each(|key| scope.set_key(key));
        at_relay.is_created = false;
        // Whoever else finds it gone must not change the key once more, also where this fails.
        at_relay.lost += 1;
        self.create(scope, at_relay).await
    }

    /// Changes the session key, at once or [`limits::KEY_CHANGE_PAUSE`] after the last change.
    pub(super) fn change_key_soon(self: &Arc<Self>, scope: &Arc<Scope>) {
        if !scope.natives().changes.ask() {
            return;
        }
        let (scopes, scope) = (Arc::clone(self), Arc::clone(scope));
        tokio::spawn(async move {
            loop {
                scopes.change_key(&scope).await;
                tokio::time::sleep(limits::KEY_CHANGE_PAUSE).await;
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
                match self.relay.change_session_key(&scope.relay_id, key.for_relay()).await {
                    Err(fault) if fault.class != Class::NotFound => {
                        warn!(scope = scope.key.scope, "the session key stays for now: {fault}");
                    }
                    // What the relay does not have gets the key with its first native client.
                    _ => {
                        scope.set_key(key);
                        return self.note_scope(scope, &mut at_relay).await;
                    }
                }
            }
            // The same key again: the relay may have it, and its answer was late.
            tokio::time::sleep(limits::KEY_CHANGE_PAUSE).await;
        }
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
