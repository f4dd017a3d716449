//! A session that outlives its process.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use strait_link::v1::{ErrorCode, ServerMessage, server_message::Body};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::debug;

use super::{Session, Tagged};
use crate::link::counters::count;
use crate::link::mailbox::Inbox;
use crate::link::{Attach, Registration, convert};
use crate::scope::memo::{self, OfNative};
use crate::scope::{Native, Notice, Sink};

/// What is noted of a session.
#[derive(Serialize, Deserialize)]
pub struct Memo {
    /// Identifier.
    pub session: String,
    /// Where it began from.
    pub address: IpAddr,
    /// Its client.
    pub native: OfNative,
    /// Where the process ended in order.
    #[serde(default)]
    pub left: Left,
}

/// What a process that ended in order left over of the messages of a session. Where it says nothing
/// nothing was left: the client knows.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// Number of the last message to the client, sent or not.
    sent: Option<u64>,
    /// Number of the last one that was taken of the client.
    taken: Option<u64>,
    /// A process before that one did not end in order, and the client was not told so.
    is_uncertain: bool,
}

impl Session {
    /// One of a process of before, whose client is about to come back.
    pub(in crate::link) fn recalled(
        registration: Registration,
        native: Native,
        notices: (Sink, mpsc::Receiver<Tagged>),
        attached: mpsc::Receiver<Box<Attach>>,
        left: Option<Left>,
    ) -> Self {
        let mut session = Self::new(registration, native, notices, attached);
        session.links().waiting.fetch_add(1, Ordering::Relaxed);
        session.lost = Some(Instant::now());
        session.is_uncertain = left.is_none_or(|left| left.is_uncertain);
        // After an end that was none in order it may say what was so at another time.
        let Left { sent, taken, .. } = left.unwrap_or_default();
        session.inbox = Inbox::recalled(taken);
        match sent {
            Some(sent) => session.outbox.begin_after(sent),
            None => session.is_recalled = true,
        }
        session.was_direct = true;
        session
    }

    /// Serves a recalled one, when its turn or its client comes.
    pub(in crate::link) async fn run_again(mut self: Box<Self>, turns: Arc<Semaphore>) {
        let (turn, attach) = tokio::select! {
            biased;
            attach = self.attached.recv() => (None, attach),
            turn = turns.acquire() => (Some(turn), None),
        };
        self.begin_again().await;
        drop(turn);
        let ending = match attach {
            Some(attach) => self.resume(attach).await,
            None => None,
        };
        match ending {
            Some(ending) => self.end(ending).await,
            None => self.go_on().await,
        }
    }

    /// Has the relay know what its scope and it are from here on.
    async fn begin_again(&mut self) {
        self.links().scopes.take_over(self.native.scope()).await;
        // Its stay is another one from here on: told of twice it would count twice.
        self.note().await;
        self.native.end_orphans().await;
    }

    /// Stays as it is until the process ends: the next one goes on with it, and its client comes back to
    /// that.
    pub(super) async fn wait_for_next_process(mut self: Box<Self>, text: &str) {
        if !self.note_what_is_left().await {
            self.links().is_unnoted.store(true, Ordering::Release);
        }
        self.busy = None;
        let links = Arc::clone(self.links());
        let wire = self.wire.take();
        // Who does not read holds up no more than its own last words.
        links.parting.fetch_add(usize::from(wire.is_some()), Ordering::Relaxed);
        links.left.fetch_add(1, Ordering::Release);
        if let Some(mut wire) = wire {
            let error = convert::error(ErrorCode::Unavailable, text);
            wire.send(&ServerMessage { request: 0, body: Some(Body::Error(error)) });
            wire.close().await;
            links.parting.fetch_sub(1, Ordering::Relaxed);
        }
        // Dropped, it would give its scope back.
        std::future::pending().await
    }

    /// Has the relay keep which messages are left over, where any are. False where it does not.
    async fn note_what_is_left(&mut self) -> bool {
        let mut sent = self.outbox.last();
        let mut has_all = self.outbox.is_empty();
        while let Ok((_, notice)) = self.notices.try_recv() {
            if let Notice::Message(_) = *notice {
                (sent, has_all) = (sent + 1, false);
            }
        }
        // Who has a link confirmed all, and was told what was taken.
        if has_all && !self.is_away() {
            self.note().await;
            return true;
        }
        let left = Left {
            sent: (!self.is_recalled).then_some(sent),
            taken: self.inbox.taken(),
            is_uncertain: self.is_uncertain,
        };
        self.note_with(left).await
    }

    /// Has the relay keep what this session is, where that changed.
    pub(super) async fn note(&mut self) {
        self.note_with(Left::default()).await;
    }

    /// False where the relay keeps another one.
    async fn note_with(&mut self, left: Left) -> bool {
        // Without a transport it has none, and is not gone on with.
        let Some((native, is_cut)) = self.native.memo() else { return true };
        let session = self.registration.session_id.clone();
        let address = self.registration.place.address();
        let relay_peer = native.relay_peer().to_owned();
        let memo = memo::write(&Memo { session, address, native, left });
        let links = Arc::clone(self.links());
        let noted = links.hasher.hash_one(&memo);
        if self.noted == Some(noted) {
            return true;
        }
        count(&links.counters.noted);
        if is_cut || memo.is_empty() {
            count(&links.counters.notes_cut);
            debug!(peer = self.native.peer(), bytes = memo.len(), "its note leaves something out");
        }
        let (scope, relay) = (self.native.scope(), links.scopes.relay());
        self.noted = match relay.keep_note(&scope.relay_id, &relay_peer, memo).await {
            Ok(()) => Some(noted),
            Err(fault) => {
                debug!(peer = self.native.peer(), "not noted: {fault}");
                None
            }
        };
        self.noted.is_some()
    }
}
