//! WHIP and WHEP sessions: what lives behind a `Location`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::admission::Permit;
use crate::auth::Identity;
use crate::fault::Fault;
use crate::scope::{Notice, Participant, PeerView, SubscribeSpec};
use crate::{id, limits};

/// Where the notices of a session come from.
pub type Notices = mpsc::Receiver<(u64, Arc<Notice>)>;
/// Where they are put in.
pub type NoticeSender = mpsc::Sender<(u64, Arc<Notice>)>;

/// What a new session is called.
pub struct Ids {
    /// The last part of its address.
    pub session: String,
    etag: String,
}

impl Ids {
    /// New names.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn new() -> Result<Self, Fault> {
        Ok(Self { session: id::random("h")?, etag: new_etag()? })
    }
}

/// All WHIP and WHEP sessions.
#[derive(Default)]
pub struct Sessions {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

/// One of them.
pub struct Session {
    /// Who made it.
    pub identity: Identity,
    /// Scope name, as in its address.
    pub scope: String,
    /// None once it has ended. Locked while a request changes it.
    pub participant: tokio::sync::Mutex<Option<Participant>>,
    etag: Mutex<String>,
    end: watch::Sender<bool>,
    _permit: Permit,
}

/// What a player wants to see.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Whether it plays at all: publishers do not.
    pub plays: bool,
    /// The peer, by identifier or name; none for everyone.
    pub peer: Option<String>,
}

impl Sessions {
    /// Sessions there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Takes a session in and follows what happens to it.
    pub fn add(
        self: &Arc<Self>,
        ids: Ids,
        participant: Participant,
        identity: Identity,
        wish: Wish,
        notices: Notices,
        permit: Permit,
    ) -> Arc<Session> {
        let Ids { session: session_id, etag } = ids;
        let session = Arc::new(Session {
            identity,
            scope: participant.scope().key.scope.clone(),
            participant: tokio::sync::Mutex::new(Some(participant)),
            etag: Mutex::new(etag),
            end: watch::Sender::new(false),
            _permit: permit,
        });
        self.lock().insert(session_id.clone(), Arc::clone(&session));
        let follower = Arc::clone(&session);
        let (sessions, id) = (Arc::clone(self), session_id.clone());
        tokio::spawn(async move {
            let reason = follower.follow(wish, notices).await;
            sessions.lock().remove(&id);
            // A request that holds the participant ends first.
            if let Some(participant) = follower.participant.lock().await.take() {
                participant.leave(&reason).await;
            }
            info!(session = id::short(&id), reason, "WHIP or WHEP session ended");
        });
        session
    }

    /// A session by identifier.
    pub fn get(&self, session_id: &str) -> Option<Arc<Session>> {
        self.lock().get(session_id).cloned()
    }

    /// Ends a session; whoever asks for it afterwards finds nothing.
    pub fn end(&self, session_id: &str) {
        if let Some(session) = self.lock().remove(session_id) {
            session.end.send_replace(true);
        }
    }

    /// What ends a session later.
    pub fn end_of(self: &Arc<Self>, session_id: &str) -> impl FnOnce() + Send + 'static {
        let (sessions, session_id) = (Arc::downgrade(self), session_id.to_owned());
        move || sessions.upgrade().into_iter().for_each(|sessions| sessions.end(&session_id))
    }

    /// Ends all sessions.
    pub fn end_all(&self) {
        for (_, session) in self.lock().drain() {
            session.end.send_replace(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Entity tag of the current ICE session (RFC 9725 section 4.3.1).
    pub fn etag(&self) -> String {
        self.etag.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes on as a credential of the same subject says that came later.
    ///
    /// # Errors
    /// It does not allow what goes on.
    pub async fn go_on_as(&self, identity: Identity) -> Result<(), Fault> {
        identity.check_scope(&self.scope)?;
        if let Some(participant) = self.participant.lock().await.as_mut() {
            participant.check_as(&identity)?;
            participant.go_on_as(identity);
        }
        Ok(())
    }

    /// A new entity tag, after an ICE restart.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn renew_etag(&self) -> Result<String, Fault> {
        let etag = new_etag()?;
        *self.etag.lock().unwrap_or_else(PoisonError::into_inner) = etag.clone();
        Ok(etag)
    }

    /// Follows the scope until the session ends, and says why it did.
    async fn follow(&self, wish: Wish, mut notices: mpsc::Receiver<(u64, Arc<Notice>)>) -> String {
        let mut end = self.end.subscribe();
        loop {
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                // It may have been asked to end before this ran.
                _ = end.wait_for(|ends| *ends) => return "left".into(),
            };
            let Some((_, notice)) = notice else { return "scope ended".into() };
            let mut participant = self.participant.lock().await;
            let Some(participant) = participant.as_mut() else { return "left".into() };
            if matches!(*notice, Notice::Message(_)) {
                // By its data channel, or not at all.
                participant.say(&notice);
                continue;
            }
            if matches!(*notice, Notice::Moved) {
                return "moved".into();
            }
            if participant.on_notice(&notice) {
                return match &*notice {
                    Notice::MediaLost { reason, .. } => reason.clone(),
                    _ => "media lost".into(),
                };
            }
            let is_change =
                matches!(*notice, Notice::Published { .. } | Notice::Unpublished { .. });
            if wish.plays && is_change {
                fill_slots(participant, &wish).await;
            }
        }
    }
}

/// Binds the free slots of a player to publications that it does not show yet.
pub async fn fill_slots(participant: &mut Participant, wish: &Wish) {
    let others = participant.scope().roster().others(participant.peer());
    let is_wanted = |peer: &&PeerView| {
        wish.peer.as_ref().is_none_or(|wanted| peer.peer == *wanted || peer.name == *wanted)
    };
    let available: Vec<_> =
        others.iter().filter(is_wanted).flat_map(|peer| &peer.publications).collect();
    for (mid, kind) in participant.free_slots() {
        let shown = participant.subscriptions();
        let is_new = |publication: &str| {
            !shown.iter().any(|(_, shown)| shown.as_deref() == Some(publication))
        };
        let fitting = available.iter().filter(|p| p.kind == kind && is_new(&p.publication));
        // One that the player cannot decode is passed over for the next.
        for publication in fitting {
            let publication = Some(publication.publication.clone());
            let spec = SubscribeSpec { mid: mid.clone(), publication };
            if participant.bind(&[spec]).await.is_empty() {
                break;
            }
        }
    }
}

fn new_etag() -> Result<String, Fault> {
    Ok(format!("\"{}\"", id::random("ice")?))
}

/// A channel for the notices of one session.
pub fn notices() -> (NoticeSender, Notices) {
    mpsc::channel(limits::NOTICES)
}
