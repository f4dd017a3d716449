//! A session that outlives its process.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::{Session, Tagged};
use crate::link::mailbox::Inbox;
use crate::link::{Attach, Registration};
use crate::scope::memo::{self, OfNative};
use crate::scope::{Native, Sink};

/// What is noted of a session.
#[derive(Serialize, Deserialize)]
pub struct Memo {
    /// Identifier.
    pub session: String,
    /// Where it began from.
    pub address: IpAddr,
    /// Its client.
    pub native: OfNative,
}

impl Session {
    /// One of a process of before, whose client is about to come back.
    pub(in crate::link) fn recalled(
        registration: Registration,
        native: Native,
        notices: (Sink, mpsc::Receiver<Tagged>),
        attached: mpsc::Receiver<Box<Attach>>,
    ) -> Self {
        let mut session = Self::new(registration, native, notices, attached);
        session.links().waiting.fetch_add(1, Ordering::Relaxed);
        session.lost = Some(Instant::now());
        session.inbox = Inbox::recalled();
        (session.is_recalled, session.was_direct) = (true, true);
        session
    }

    /// Serves a recalled one.
    pub(in crate::link) async fn run_again(mut self: Box<Self>) {
        // Its stay is another one from here on: told of twice it would count twice.
        self.note().await;
        self.native.end_orphans().await;
        self.go_on().await;
    }

    /// Has the relay keep what this session is.
    pub(super) async fn note(&mut self) {
        let Some(native) = self.native.memo() else { return };
        let session = self.registration.session_id.clone();
        let address = self.registration.place.address();
        let relay_peer = native.relay_peer().to_owned();
        let memo = memo::write(&Memo { session, address, native });
        let scope = self.native.scope();
        let relay = self.links().scopes.relay();
        if let Err(fault) = relay.keep_note(&scope.relay_id, &relay_peer, memo).await {
            debug!(peer = self.native.peer(), "not noted: {fault}");
        }
    }
}
