//! What a process that is started again must know of scopes and native clients to go on where the one
//! before it was killed. The relay keeps it (`KeepNote`), beside the media that flows on meanwhile:
//! it is there as long as that, and nowhere on a disk.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use strait_proto::v1::candidate::Purpose;
use tracing::debug;
use zeroize::{Zeroize, Zeroizing};

use super::key::SessionKey;
use super::native::{Encoding, Natives};
use super::registry::{Scope, ScopeKey, Scopes};
use super::{PublicationView, Sink};
use crate::auth::Noted;
use crate::cluster::Owner;
use crate::events::{self, Moment};
use crate::limits::{MEMO_BYTES, SSRC_LEAP, SSRCS_END};
use crate::relay::{Notes, Transport};
use crate::sdp::IceCredentials;

/// Which memos these are: of another version none is read.
const VERSION: u32 = 1;

/// Of this process.
#[derive(Serialize, Deserialize)]
pub struct Process {
    node: String,
    incarnation: String,
    /// It ended in order, and noted of all sessions which messages were left.
    #[serde(default)]
    has_ended: bool,
}

/// Of a scope.
#[derive(Serialize, Deserialize)]
pub struct OfScope {
    /// Application.
    pub application: String,
    /// Scope name.
    pub scope: String,
    /// Under which the scope is this node's.
    pub fence: Option<u64>,
    session: String,
    created: i64,
    key: Option<Key>,
    ssrc: u32,
}

#[derive(Serialize, Deserialize)]
struct Key {
    profile: i32,
    secret: Vec<u8>,
}

impl Drop for Key {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Of a native client.
#[derive(Serialize, Deserialize)]
pub struct OfNative {
    pub(super) identity: Noted,
    pub(super) peer: String,
    pub(super) name: String,
    pub(super) stay: events::event::Stay,
    pub(super) rtcp_ssrc: u32,
    pub(super) relay_peer: String,
    pub(super) local: Ends,
    pub(super) remote_ice: (String, String),
    pub(super) publications: Vec<(PublicationView, Vec<(u32, u32)>)>,
    /// Subscription and publication.
    pub(super) subscriptions: Vec<(String, String)>,
    pub(super) allowed: [Option<BTreeSet<String>>; 3],
    pub(super) goes_directly: bool,
}

/// The relay's end of a transport.
#[derive(Serialize, Deserialize)]
pub(super) struct Ends {
    ice: (String, String),
    candidates: Vec<String>,
    udp: Vec<(i32, SocketAddr)>,
}

impl OfScope {
    /// Of a scope, its key being this one.
    pub(super) fn of(
        scope: &Scope,
        fence: Option<u64>,
        key: Option<(i32, Zeroizing<Vec<u8>>)>,
        ssrc: u32,
    ) -> Self {
        Self {
            application: scope.key.application.clone(),
            scope: scope.key.scope.clone(),
            fence,
            session: scope.life.session.clone(),
            created: scope.life.began.wall,
            key: key.map(|(profile, secret)| Key { profile, secret: secret.to_vec() }),
            ssrc,
        }
    }

    /// Its name.
    pub fn name(&self) -> ScopeKey {
        ScopeKey { application: self.application.clone(), scope: self.scope.clone() }
    }

    /// Which of two scopes of one name began later. Fences ascend, also over restarts and nodes; under
    /// one fence there can be one after the other, and then the clock tells.
    pub fn age(&self, other: &Self) -> Ordering {
        (self.fence, self.created).cmp(&(other.fence, other.created))
    }
}

impl OfNative {
    /// Who the client is.
    pub fn identity(&self) -> &Noted {
        &self.identity
    }

    /// The relay's name for its transport.
    pub fn relay_peer(&self) -> &str {
        &self.relay_peer
    }
}

impl Ends {
    pub(super) fn of(transport: &Transport) -> Self {
        let udp = transport.udp.iter().map(|(purpose, place)| (i32::from(*purpose), *place));
        Self {
            ice: told(&transport.ice),
            candidates: transport.candidates.clone(),
            udp: udp.collect(),
        }
    }

    pub(super) fn transport(&self) -> Option<Transport> {
        let udp = self.udp.iter().filter_map(|&(purpose, place)| {
            Purpose::try_from(purpose).ok().map(|purpose| (purpose, place))
        });
        let ice = IceCredentials::new(&self.ice.0, &self.ice.1)?;
        Some(Transport { ice, candidates: self.candidates.clone(), udp: udp.collect() })
    }
}

pub(super) fn told(ice: &IceCredentials) -> (String, String) {
    (ice.ufrag.clone(), ice.pwd.clone())
}

pub(super) fn pair(encoding: &Encoding) -> (u32, u32) {
    (encoding.ssrc, encoding.rtx_ssrc)
}

/// A memo as it is kept. What is too long is no memo: one of before would be worse.
pub fn write(memo: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_vec(&(VERSION, memo)).unwrap_or_default();
    if text.len() > MEMO_BYTES { Vec::new() } else { text }
}

/// The other way round. None for one of another version, or of another control plane.
pub fn read<T: DeserializeOwned>(content: &[u8]) -> Option<T> {
    let (version, memo) = serde_json::from_slice::<(u32, serde_json::Value)>(content).ok()?;
    (version == VERSION).then(|| serde_json::from_value(memo).ok()).flatten()
}

impl Process {
    /// The one whose notes these are.
    pub fn find(notes: &Notes) -> Option<Self> {
        let own = notes.told.iter().find(|note| note.scope_id.is_empty())?;
        read(&own.content)
    }

    /// Whether it ended in order.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Which start of which node it is.
    pub fn owner(self) -> Owner {
        Owner { node: self.node, incarnation: self.incarnation }
    }
}

impl Scopes {
    /// Has the relay keep which start of the node this is, and whether it ended in order.
    pub async fn note_process(&self, has_ended: bool) {
        let Owner { node, incarnation } = self.cluster().me().clone();
        let memo = Process { node, incarnation, has_ended };
        if let Err(fault) = self.relay.keep_note("", "", write(&memo)).await {
            debug!("not noted: {fault}");
        }
    }

    /// Has the relay forget which start of the node this was.
    pub async fn forget_process(&self) {
        if let Err(fault) = self.relay.keep_note("", "", Vec::new()).await {
            debug!("still noted: {fault}");
        }
    }

    /// A scope of before this process was started, with nobody in it yet, and not to be found before
    /// [`Scopes::insert`]. None when its key is none that is known here.
    pub(crate) fn recall(&self, relay_id: &str, mut memo: OfScope) -> Option<Arc<Scope>> {
        let names = (memo.application.as_str(), memo.scope.as_str());
        let life = self.notary().life_again(names, &memo.session, memo.created, Moment::now());
        let natives = match (memo.ssrc, memo.key.take()) {
            (0, _) | (_, None) => Natives::default(),
            (ssrc, Some(mut key)) => {
                let secret = Zeroizing::new(std::mem::take(&mut key.secret));
                let key = SessionKey::of_memo(key.profile, secret)?;
                // Those that were given out since the memo was written are not known: none may come again.
                Natives::recalled(key, ssrc.saturating_add(SSRC_LEAP).min(SSRCS_END - 1))
            }
        };
        Some(Arc::new(Scope::recalled(memo.name(), relay_id.to_owned(), life, natives)))
    }

    /// Ends a scope of before that another one of its name came after, with the transports that it has.
    pub(crate) async fn give_back(&self, relay_id: &str) {
        if let Err(fault) = self.relay.dispose_scope(relay_id).await {
            debug!(relay_id, "the relay keeps a scope that nobody is in: {fault}");
        }
    }

    /// Names of transports from here on are new.
    pub(super) fn skip_transport(&self, relay_peer: &str) {
        let number = relay_peer.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
        self.transports.fetch_max(number.unwrap_or_default(), atomic::Ordering::Relaxed);
    }
}

impl Scope {
    /// Puts a native client of before in its place, with what it publishes.
    pub(super) fn put_back(&self, memo: &OfNative, sink: Sink) -> bool {
        let mut roster = self.roster();
        // All of them had room.
        if roster.join(&memo.peer, &memo.name, sink, usize::MAX).is_err() {
            return false;
        }
        roster.set_relay_peer(&memo.peer, Some(memo.relay_peer.clone()));
        for (view, _) in &memo.publications {
            roster.publish(&memo.peer, view.clone());
        }
        for (subscription, publication) in &memo.subscriptions {
            roster.set_taken(&memo.peer, subscription, Some(publication));
        }
        drop(roster);
        let mut natives = self.natives();
        for (view, encodings) in &memo.publications {
            let encodings = encodings
                .iter()
                .map(|(ssrc, rtx_ssrc)| Encoding { ssrc: *ssrc, rtx_ssrc: *rtx_ssrc });
            natives.put_back(view.publication.clone(), encodings.collect());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memos_of_another_version_are_none() {
        let (node, incarnation) = ("eu-1".into(), "1f".into());
        let text = write(&Process { node, incarnation, has_ended: true });
        let memo = read::<Process>(&text).unwrap();
        assert!(memo.has_ended());
        let owner = memo.owner();
        assert_eq!((owner.node.as_str(), owner.incarnation.as_str()), ("eu-1", "1f"));
        // A later one of the same version may say more.
        let more = br#"[1,{"node":"eu-1","incarnation":"1f","mood":"good"}]"#;
        assert!(read::<Process>(more).is_some());
        for other in [
            &b"[2,{\"node\":\"eu-1\",\"incarnation\":\"1f\"}]"[..],
            b"[1,{\"node\":\"eu-1\"}]",
            b"another control plane's",
            b"",
        ] {
            assert!(read::<Process>(other).is_none());
        }
        assert!(write(&"x".repeat(MEMO_BYTES)).is_empty());
    }
}
