//! How a session goes on with another WebSocket, under the credential that was shown there.

use tracing::info;

use super::{Session, Subsession};
use crate::auth::Identity;
use crate::fault::Fault;
use crate::id;
use crate::signal::hub::Attach;
use crate::signal::jsonrtc::{Action, Outgoing};

impl Session {
    /// Whether a credential that came later allows what goes on in all scopes.
    pub(super) fn check_as(&self, identity: &Identity) -> Result<(), Fault> {
        for Subsession { participant, .. } in &self.subsessions {
            // One of its own is open to nobody else whatever it is called.
            let scope = &participant.scope().key.scope;
            if *scope != self.alone() {
                identity.check_scope(scope)?;
            }
            participant.check_as(identity)?;
        }
        Ok(())
    }

    /// The name of a scope that nobody else can enter.
    pub(super) fn alone(&self) -> String {
        format!("alone {}", self.peer)
    }

    /// Goes on with another WebSocket, or gives it back.
    pub(super) fn resume(&mut self, attach: Attach) -> bool {
        let Some(resumed) = self.series.resume(attach.reconnect) else {
            attach.give_back();
            return false;
        };
        info!(session = id::short(self.id()), resent = resumed.resend.len(), "session resumed");
        for subsession in &mut self.subsessions {
            subsession.participant.go_on_as(attach.identity.clone());
        }
        attach.pass.opened(self.id(), self.registration.end());
        self.identity = attach.identity;
        // Replacing the old wire closes the old WebSocket, if it was still there.
        self.wire = Some(attach.wire);
        let payload = self.greeting();
        let answer = Outgoing::message(Action::Connect, payload)
            .control("type", "response")
            .control("message_state", "final")
            .header("sslr", resumed.received);
        self.write(answer);
        for text in resumed.resend {
            self.put(text);
        }
        if std::mem::take(&mut self.missed_speech) {
            self.tell_speakers();
        }
        true
    }
}
