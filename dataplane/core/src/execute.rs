//! Carrying out what the control plane asks.

use crate::command::{Command, CommandError, Event, IceCredentials, LeaveReason};
use crate::command::{PeerId, PublicationId, ScopeId, SubscriptionId};
use crate::demand::Demand;
use crate::display::Display;
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::fec;
use crate::ice::Agent;
use crate::keys::{Keys, SessionKey, wrong_key};
use crate::layer::Layers;
use crate::limits::{
    ENCODINGS_PER_PUBLICATION, PEERS, PEERS_PER_SCOPE, PUBLICATIONS_PER_PEER, RELAY_SSRCS, SCOPES,
    SETUP, SUBSCRIPTIONS_PER_PEER, SUBSCRIPTIONS_PER_PUBLICATION,
};
use crate::mirror::Mirrors;
use crate::peer::Peer;
use crate::port::Path;
use crate::publication::{Carries, Encoding, Publication, Stream};
use crate::red::Red;
use crate::resend::Resent;
use crate::rewrite::Rewriter;
use crate::route::{Leg, Route, compile};
use crate::select::Selector;
use crate::speaker::Sound;
use crate::spend::Allotment;
use crate::statistics::Traffic;
use crate::subscription::{Reported, Subscription};
use crate::template::Template;
use crate::time::Now;
use crate::worker::Worker;
use strait_crypt::srtp::{self, RETIRED_SSRCS};

/// Why packets cannot go out as they came.
const AS_SENT: &str = "as_sent: both peers need the scope's session key, or be plain, and the same payload types and \
                       extension ids: subscribe without it";

impl Worker {
    /// Carries out a command, and queues what it makes the worker send.
    ///
    /// # Errors
    /// Why it was not carried out; then nothing changed.
    pub fn on_command(
        &mut self,
        now: Now,
        command: Command,
        egress: &mut Egress,
    ) -> Result<(), CommandError> {
        // What is held names slots that a command may give to others.
        self.forward(now, egress, |_| {});
        let before = (egress.len(), egress.bytes());
        let result = self.execute(now, command, egress);
        self.count_sent(before, egress);
        result
    }

    fn execute(
        &mut self,
        now: Now,
        command: Command,
        egress: &mut Egress,
    ) -> Result<(), CommandError> {
        match command {
            Command::CreateScope { scope } => self.create_scope(scope),
            Command::LimitAudio { scope, streams_max } => self.limit_audio(scope, streams_max),
            Command::DisposeScope { scope } => self.dispose_scope(scope),
            Command::AddPeer { scope, peer, local, remote: _ } => {
                self.add_peer(now, scope, peer, &local)
            }
            Command::AddFixedPeer { scope, peer, path } => {
                self.add_fixed_peer(now, scope, peer, path)
            }
            Command::RestartIce { peer, local, remote: _ } => self.restart_ice(peer, &local),
            Command::RemovePeer { peer } => {
                let slot = self.peer_slot(peer)?;
                self.leave(slot, LeaveReason::Removed, "removed by the control plane".into());
                Ok(())
            }
            Command::SendHandshake { peer, datagrams } => {
                self.send_handshake(peer, &datagrams, egress)
            }
            Command::Heard { peer, path } => {
                let slot = self.peer_slot(peer)?;
                let peer = self.peers.get_mut(slot).ok_or(CommandError::NotFound("peer"))?;
                if peer.ice.hear(now.at, path) {
                    self.arm(slot, now.at);
                }
                Ok(())
            }
            Command::SetKeys { peer, keys } => {
                let slot = self.peer_slot(peer)?;
                let keys = Keys::own(&keys).map_err(wrong_key)?;
                self.set_keys(now, slot, keys, egress)
            }
            Command::ShareKey { peer, key } => self.share_key(now, peer, &key, egress),
            Command::ChangeKey { scope, key } => self.change_key(now, scope, &key),
            Command::LimitUplink { peer, bps_max } => self.limit_uplink(now, peer, bps_max),
            Command::SetPlain { peer } => {
                let slot = self.peer_slot(peer)?;
                self.set_keys(now, slot, Keys::Plain, egress)
            }
            Command::CloseHandshake { peer, closed, detail } => {
                let slot = self.peer_slot(peer)?;
                let reason =
                    if closed { LeaveReason::Closed } else { LeaveReason::HandshakeFailed };
                self.leave(slot, reason, detail);
                Ok(())
            }
            Command::Publish { .. } => self.publish(now, command),
            Command::Mirror { .. } => self.mirror(now, command),
            Command::StartMirroring { publication, to } => self.start_mirroring(publication, to),
            Command::StopMirroring { publication, to } => self.stop_mirroring(publication, to),
            Command::Unpublish { publication } => {
                let slot = self.publication_slot(publication)?;
                self.unpublish(slot);
                Ok(())
            }
            Command::SetMuted { publication, muted } => {
                self.set_muted(now, publication, muted, egress)
            }
            Command::Subscribe { .. } => self.subscribe(now, command, egress),
            Command::Bind { subscription, publication } => {
                self.bind(now, subscription, publication, egress)
            }
            Command::SetPreferences { subscription, preferences } => {
                let slot = self.subscription_slot(subscription)?;
                if preferences.paused {
                    self.forget_waiting(slot);
                }
                if let Some(subscription) = self.subscriptions.get_mut(slot) {
                    subscription.selector.prefer(preferences);
                    subscription.aim();
                    if preferences.paused {
                        subscription.rewriter.close();
                        subscription.display.interrupt();
                    }
                }
                self.spend_anew(now, slot, egress);
                self.want_key_frame(now, slot, egress);
                Ok(())
            }
            Command::Unsubscribe { subscription } => {
                let slot = self.subscription_slot(subscription)?;
                self.say_bye(slot, egress);
                self.unsubscribe(slot);
                Ok(())
            }
        }
    }

    fn create_scope(&mut self, scope: ScopeId) -> Result<(), CommandError> {
        if self.scopes.contains_key(&scope) {
            return Err(CommandError::Exists("scope"));
        }
        limit("scopes on this worker", self.scopes.len(), SCOPES)?;
        self.scopes.insert(scope, Vec::new());
        Ok(())
    }

    fn dispose_scope(&mut self, scope: ScopeId) -> Result<(), CommandError> {
        let peers = self.scopes.get(&scope).ok_or(CommandError::NotFound("scope"))?.clone();
        for slot in peers {
            self.leave(slot, LeaveReason::ScopeDisposed, "its scope was disposed of".into());
        }
        self.end_mirrors(scope);
        self.scopes.remove(&scope);
        self.speakers.remove(&scope);
        self.session_keys.remove(&scope);
        Ok(())
    }

    fn add_peer(
        &mut self,
        now: Now,
        scope: ScopeId,
        id: PeerId,
        local: &IceCredentials,
    ) -> Result<(), CommandError> {
        if self.ufrags.contains_key(local.ufrag.as_bytes()) {
            return Err(CommandError::Exists("user fragment"));
        }
        let slot = self.insert_peer(now, scope, id, Agent::new(local))?;
        self.ufrags.insert(local.ufrag.as_bytes().into(), slot);
        Ok(())
    }

    fn add_fixed_peer(
        &mut self,
        now: Now,
        scope: ScopeId,
        id: PeerId,
        path: Path,
    ) -> Result<(), CommandError> {
        if self.flows.contains_key(&path) {
            return Err(CommandError::Exists("address of a peer"));
        }
        let slot = self.insert_peer(now, scope, id, Agent::fixed(now.at, path))?;
        self.flows.insert(path, slot);
        Ok(())
    }

    fn insert_peer(
        &mut self,
        now: Now,
        scope: ScopeId,
        id: PeerId,
        ice: Agent,
    ) -> Result<u32, CommandError> {
        let in_scope = self.scopes.get(&scope).ok_or(CommandError::NotFound("scope"))?.len();
        limit("peers in this scope", in_scope, PEERS_PER_SCOPE)?;
        limit("peers on this worker", self.peers.len(), PEERS)?;
        if self.peer_ids.contains_key(&id) {
            return Err(CommandError::Exists("peer"));
        }
        let slot = self.peers.insert(Peer::new(id, scope, ice, now.at));
        self.peer_ids.insert(id, slot);
        self.scopes.entry(scope).or_default().push(slot);
        self.arm(slot, now.at + SETUP);
        Ok(slot)
    }

    fn share_key(
        &mut self,
        now: Now,
        id: PeerId,
        key: &srtp::SharedKey,
        egress: &mut Egress,
    ) -> Result<(), CommandError> {
        let slot = self.peer_slot(id)?;
        let peer = self.peers.get(slot).ok_or(CommandError::NotFound("peer"))?;
        if !peer.subscriptions.is_empty() || !peer.publications.is_empty() {
            return Err(CommandError::Invalid(
                "a session key comes before publications and subscriptions",
            ));
        }
        let scope = peer.scope;
        let keys = match self.session_keys.get(&scope) {
            Some(held) if !held.is(now.at, key) => {
                return Err(CommandError::Exists("scope's session key, and it is another:"));
            }
            Some(held) => held.for_peer(now.at),
            None => {
                let held = SessionKey::new(key).map_err(wrong_key)?;
                let keys = held.for_peer(now.at);
                self.session_keys.insert(scope, held);
                keys
            }
        };
        self.set_keys(now, slot, keys, egress)
    }

    fn change_key(
        &mut self,
        now: Now,
        scope: ScopeId,
        key: &srtp::SharedKey,
    ) -> Result<(), CommandError> {
        let peers = self.scopes.get(&scope).ok_or(CommandError::NotFound("scope"))?;
        let held =
            self.session_keys.get_mut(&scope).ok_or(CommandError::NotFound("session key"))?;
        if held.change(now.at, key)? {
            for slot in peers {
                let keys = self.peers.get_mut(*slot).and_then(|peer| peer.keys.as_mut());
                keys.into_iter().for_each(|keys| keys.change(held));
            }
        }
        Ok(())
    }

    fn set_keys(
        &mut self,
        now: Now,
        slot: u32,
        keys: Keys,
        egress: &mut Egress,
    ) -> Result<(), CommandError> {
        let peer = self.peers.get_mut(slot).ok_or(CommandError::NotFound("peer"))?;
        // A second context of the same keys would repeat nonces.
        if peer.keys.is_some() {
            return Err(CommandError::Exists("set of keys"));
        }
        peer.keys = Some(keys);
        self.check_connected(now, slot, egress);
        Ok(())
    }

    fn restart_ice(&mut self, id: PeerId, local: &IceCredentials) -> Result<(), CommandError> {
        let slot = self.peer_slot(id)?;
        if self.ufrags.contains_key(local.ufrag.as_bytes()) {
            return Err(CommandError::Exists("user fragment"));
        }
        let peer = self.peers.get_mut(slot).ok_or(CommandError::NotFound("peer"))?;
        if peer.ice.is_fixed() {
            return Err(CommandError::Invalid("a peer at a fixed address has no ICE to restart"));
        }
        if let Some(gone) = peer.ice.restart(local) {
            self.ufrags.remove(gone.as_bytes());
        }
        self.ufrags.insert(local.ufrag.as_bytes().into(), slot);
        Ok(())
    }

    fn send_handshake(
        &mut self,
        id: PeerId,
        datagrams: &[Vec<u8>],
        egress: &mut Egress,
    ) -> Result<(), CommandError> {
        let slot = self.peer_slot(id)?;
        let peer = self.peers.get_mut(slot).ok_or(CommandError::NotFound("peer"))?;
        for datagram in datagrams {
            // DTLS retransmits: what finds no path or no room now is not kept.
            match peer.ice.path() {
                None => self.drops.count(DropReason::SubscriberNotReady),
                Some(path) if !egress.push(path, datagram) => {
                    self.drops.count(DropReason::EgressFull);
                }
                Some(_) => peer.sent.count(datagram.len()),
            }
        }
        Ok(())
    }

    fn publish(&mut self, now: Now, command: Command) -> Result<(), CommandError> {
        let Command::Publish {
            peer,
            publication: id,
            kind,
            mid,
            codecs,
            extensions,
            encodings,
            muted,
            report_ssrc,
        } = command
        else {
            return Ok(());
        };
        let peer_slot = self.peer_slot(peer)?;
        if self.publication_ids.contains_key(&id) {
            return Err(CommandError::Exists("publication"));
        }
        let leg = Leg::new(&mid, codecs, extensions);
        if encodings.is_empty() || leg.codecs.is_empty() {
            return Err(CommandError::Invalid("a publication needs an encoding and a codec"));
        }
        limit(
            "encodings of a publication",
            encodings.len().saturating_sub(1),
            ENCODINGS_PER_PUBLICATION,
        )?;
        let peer = self.peers.get(peer_slot).ok_or(CommandError::NotFound("peer"))?;
        limit("publications of this peer", peer.publications.len(), PUBLICATIONS_PER_PEER)?;
        let ssrcs = encodings.iter().flat_map(|encoding| [encoding.ssrc, encoding.rtx_ssrc]);
        let mut ssrcs: Vec<u32> = ssrcs.filter(|ssrc| *ssrc != 0).collect();
        let is_shared = matches!(peer.keys, Some(Keys::Shared { .. }));
        if is_shared && ssrcs.iter().any(|ssrc| *ssrc >= RELAY_SSRCS) {
            return Err(CommandError::Invalid(
                "under a session key peers send from SSRCs below 2^31: the others are the relay's",
            ));
        }
        if ssrcs.iter().any(|s| peer.streams.find(*s).is_some() || self.clashes(peer, *s)) {
            return Err(CommandError::Exists("SSRC"));
        }
        ssrcs.sort_unstable();
        if ssrcs.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(CommandError::Exists("SSRC"));
        }
        if is_shared {
            self.take_ssrcs(peer.scope, &[report_ssrc])?;
        }
        let mut states: Vec<Encoding> =
            encodings.iter().map(|e| Encoding::new(e, kind, self.next_source())).collect();
        if leg.fec.is_agreed() {
            states.iter_mut().for_each(|encoding| encoding.fec = Some(Box::default()));
        }
        let slot = self.publications.insert(Publication {
            id,
            peer: peer_slot,
            origin: None,
            mirrors: Mirrors::default(),
            demand: Demand::default(),
            kind,
            leg,
            encodings: states,
            muted,
            report_ssrc,
            subscriptions: Vec::new(),
            repairs: false,
            hands_on: false,
            started: false,
            sound: Sound::default(),
        });
        self.publication_ids.insert(id, slot);
        if let Some(peer) = self.peers.get_mut(peer_slot) {
            peer.publications.push(slot);
            ssrcs.iter().for_each(|ssrc| peer.ended.remove(*ssrc));
            for (number, encoding) in (0_u8..).zip(&encodings) {
                let carries = Carries::Media;
                let stream = Stream { publication: slot, encoding: number, carries };
                peer.streams.insert(encoding.ssrc, stream);
                peer.streams.insert(encoding.rtx_ssrc, Stream { carries: Carries::Rtx, ..stream });
            }
        }
        self.expect_sound(slot);
        self.start_reports(now, peer_slot);
        self.demand_changed(now);
        Ok(())
    }

    fn set_muted(
        &mut self,
        now: Now,
        id: PublicationId,
        muted: bool,
        egress: &mut Egress,
    ) -> Result<(), CommandError> {
        let slot = self.publication_slot(id)?;
        let publication =
            self.publications.get(slot).ok_or(CommandError::NotFound("publication"))?;
        // Nothing came to a mirror meanwhile, perhaps for more than half a cycle of the numbers.
        let anew = publication.origin.is_some() && publication.muted && !muted;
        for number in 0..publication.encodings.len() * usize::from(anew) {
            let source = self.next_source();
            let publication = self.publications.get_mut(slot);
            let encoding = publication.and_then(|p| p.encodings.get_mut(number));
            encoding.into_iter().for_each(|encoding| encoding.restart(encoding.ssrc, source));
        }
        let publication =
            self.publications.get_mut(slot).ok_or(CommandError::NotFound("publication"))?;
        publication.muted = muted;
        publication.encodings.iter_mut().for_each(|e| e.last_key_frame.forget());
        let subscriptions = publication.subscriptions.clone();
        for slot in subscriptions {
            if muted {
                self.forget_waiting(slot);
            }
            let Some(subscription) = self.subscriptions.get_mut(slot) else { continue };
            if muted {
                subscription.restart();
                subscription.display.interrupt();
            }
            let peer = subscription.peer;
            self.spend_soon(peer);
            self.want_key_frame(now, slot, egress);
        }
        if muted {
            self.hush(slot);
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        now: Now,
        command: Command,
        egress: &mut Egress,
    ) -> Result<(), CommandError> {
        let Command::Subscribe {
            peer,
            subscription: id,
            kind,
            mid,
            codecs,
            extensions,
            ssrc,
            rtx_ssrc,
            first_seq,
            as_sent,
            publication,
            preferences,
        } = command
        else {
            return Ok(());
        };
        let peer_slot = self.peer_slot(peer)?;
        if self.subscription_ids.contains_key(&id) {
            return Err(CommandError::Exists("subscription"));
        }
        if ssrc == 0 || ssrc == rtx_ssrc {
            return Err(CommandError::Invalid(
                "the SSRCs of a subscription must differ, and exist",
            ));
        }
        let peer = self.peers.get_mut(peer_slot).ok_or(CommandError::NotFound("peer"))?;
        limit("subscriptions of this peer", peer.subscriptions.len(), SUBSCRIPTIONS_PER_PEER)?;
        let mut others = peer.subscriptions.iter().filter_map(|slot| self.subscriptions.get(*slot));
        let taken = |other: &Subscription| {
            [other.ssrc, other.rtx_ssrc].iter().any(|o| *o != 0 && [ssrc, rtx_ssrc].contains(o))
        };
        if others.any(taken) {
            return Err(CommandError::Exists("SSRC"));
        }
        let subscriptions = peer.subscriptions.len();
        let (scope, keys) = (peer.scope, peer.keys.as_ref());
        if as_sent && !keys.is_some_and(Keys::is_common) {
            return Err(CommandError::Invalid(AS_SENT));
        }
        let is_shared = matches!(keys, Some(Keys::Shared { .. }));
        if let Some(keys) = keys {
            // Each subscription retires up to two when it ends. Reserved now, because what cannot be retired fills the
            // table, and then new streams would stay black without a word.
            if !keys.takes_streams(2 * subscriptions) {
                return Err(CommandError::KeysUsedUp { limit: RETIRED_SSRCS });
            }
            if keys.is_retired(ssrc) || keys.is_retired(rtx_ssrc) {
                return Err(CommandError::Exists("SSRC"));
            }
        }
        if [ssrc, rtx_ssrc].into_iter().any(|ssrc| self.is_sent_under_session_key(scope, ssrc)) {
            return Err(CommandError::Exists("SSRC"));
        }
        // Numbers without feedback would be of no use; what goes out as it came has the publisher's.
        let feedback = !as_sent && codecs.iter().any(|codec| codec.transport_cc);
        let mut extensions = extensions;
        if !feedback && !as_sent {
            extensions.transport_cc = 0;
        }
        let numbered = feedback && extensions.transport_cc != 0;
        let told_by_name = !as_sent && !numbered && codecs.iter().any(|codec| codec.ccfb);
        let mut subscription = Subscription {
            id,
            peer: peer_slot,
            kind,
            template: Template::new(&mid, &extensions),
            leg: Leg::new(&mid, codecs, extensions),
            ssrc,
            rtx_ssrc,
            as_sent,
            told_by_name,
            publication: None,
            routes: Vec::new(),
            selector: Selector::new(preferences),
            layers: Layers::default(),
            allotment: Allotment::default(),
            rewriter: Rewriter::new(first_seq),
            rtx_seq: first_seq,
            sent: Traffic::default(),
            octets: 0,
            resent: 0,
            resent_lately: Resent::default(),
            missed: 0,
            reported: Reported::default(),
            display: Display::new(now.at),
            told: Traffic::default(),
        };
        subscription.aim();
        let source =
            publication.map(|publication| self.publication_slot(publication)).transpose()?;
        if let Some(source) = source {
            subscription.routes = self.routes(source, &subscription)?;
        }
        if is_shared && !as_sent {
            self.take_ssrcs(scope, &[ssrc, rtx_ssrc])?;
        }
        let slot = self.subscriptions.insert(subscription);
        self.subscription_ids.insert(id, slot);
        if let Some(peer) = self.peers.get_mut(peer_slot) {
            peer.subscriptions.push(slot);
            if numbered || told_by_name {
                let bandwidth = peer.bandwidth.get_or_insert_default();
                if told_by_name {
                    bandwidth.name_packets();
                }
            }
        }
        self.attach(slot, source);
        self.spend_anew(now, slot, egress);
        self.want_key_frame(now, slot, egress);
        self.start_reports(now, peer_slot);
        Ok(())
    }

    fn bind(
        &mut self,
        now: Now,
        id: SubscriptionId,
        publication: Option<PublicationId>,
        egress: &mut Egress,
    ) -> Result<(), CommandError> {
        let slot = self.subscription_slot(id)?;
        let source =
            publication.map(|publication| self.publication_slot(publication)).transpose()?;
        let subscription =
            self.subscriptions.get(slot).ok_or(CommandError::NotFound("subscription"))?;
        if subscription.publication == source {
            return Ok(());
        }
        let routes = match source {
            Some(source) => self.routes(source, subscription)?,
            None => Vec::new(),
        };
        self.detach(slot);
        if let Some(subscription) = self.subscriptions.get_mut(slot) {
            subscription.routes = routes;
        }
        self.attach(slot, source);
        self.spend_anew(now, slot, egress);
        self.want_key_frame(now, slot, egress);
        Ok(())
    }

    /// The routes from a publication to a subscription, if it may have one more.
    fn routes(&self, source: u32, to: &Subscription) -> Result<Vec<Route>, CommandError> {
        let publication =
            self.publications.get(source).ok_or(CommandError::NotFound("publication"))?;
        limit(
            "subscriptions of this publication",
            publication.subscriptions.len(),
            SUBSCRIPTIONS_PER_PUBLICATION,
        )?;
        let mut routes = compile(&publication.leg, &to.leg)?;
        if to.as_sent {
            routes.extend(fec::route(&publication.leg, &to.leg));
            let keys = |slot| self.peers.get(slot).and_then(|peer| peer.keys.as_ref());
            let opens = match &publication.origin {
                Some(origin) => origin.as_sent && matches!(keys(to.peer), Some(Keys::Plain)),
                None => keys(publication.peer)
                    .zip(keys(to.peer))
                    .is_some_and(|(from, to)| from.opens_as_sent(to)),
            };
            let same = |route: &Route| route.from == route.to && route.red == Red::AsIs;
            let same = routes.iter().all(same);
            if !opens || !same || publication.leg.extensions != to.leg.extensions {
                return Err(CommandError::Invalid(AS_SENT));
            }
        }
        Ok(routes)
    }

    /// Whether an SSRC of this peer's would be used twice under the session key.
    pub(crate) fn clashes(&self, peer: &Peer, ssrc: u32) -> bool {
        matches!(peer.keys, Some(Keys::Shared { .. }))
            && (ssrc >= RELAY_SSRCS || self.is_sent_under_session_key(peer.scope, ssrc))
    }

    /// Takes SSRCs for what the relay itself sends to a peer with the session key.
    fn take_ssrcs(&mut self, scope: ScopeId, ssrcs: &[u32]) -> Result<(), CommandError> {
        let key = self.session_keys.get_mut(&scope).ok_or(CommandError::NotFound("session key"))?;
        key.take(ssrcs)
    }

    /// Whether a peer of the scope sends from this SSRC under the key that the relay sends under as well.
    pub(crate) fn is_sent_under_session_key(&self, scope: ScopeId, ssrc: u32) -> bool {
        if !self.session_keys.contains_key(&scope) {
            return false;
        }
        let peers = self.scopes.get(&scope).into_iter().flatten();
        let mut peers = peers.filter_map(|slot| self.peers.get(*slot));
        let sends = |peer: &Peer| peer.streams.find(ssrc).is_some();
        peers.any(|peer| matches!(peer.keys, Some(Keys::Shared { .. })) && sends(peer))
    }

    fn attach(&mut self, slot: u32, source: Option<u32>) {
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        subscription.publication = source;
        if let Some(publication) = source.and_then(|source| self.publications.get_mut(source)) {
            publication.subscriptions.push(slot);
            publication.hands_on |= subscription.as_sent;
            publication.repairs |= subscription.leg.codecs.iter().any(|codec| codec.nack)
                || subscription.adds_redundancy()
                // What is lost is had from what came.
                || publication.leg.fec.is_agreed();
        }
    }

    /// Takes a subscription off its publication; its outgoing stream stays as it is.
    fn detach(&mut self, slot: u32) {
        self.forget_waiting(slot);
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        subscription.restart();
        subscription.display.interrupt();
        subscription.routes.clear();
        let peer = subscription.peer;
        let Some(source) = subscription.publication.take() else { return };
        self.spend_soon(peer);
        let Some(publication) = self.publications.get_mut(source) else { return };
        publication.subscriptions.retain(|other| *other != slot);
        publication.rest();
    }

    fn unsubscribe(&mut self, slot: u32) {
        self.detach(slot);
        let Some(subscription) = self.subscriptions.remove(slot) else { return };
        self.subscription_ids.remove(&subscription.id);
        if let Some(peer) = self.peers.get_mut(subscription.peer) {
            peer.subscriptions.retain(|other| *other != slot);
            if let Some(keys) = &mut peer.keys {
                keys.retire([subscription.ssrc, subscription.rtx_ssrc]);
            }
        }
    }

    pub(crate) fn unpublish(&mut self, slot: u32) {
        let Some(publication) = self.publications.get(slot) else { return };
        for subscription in publication.subscriptions.clone() {
            self.detach(subscription);
        }
        self.forget_sound(slot);
        let Some(publication) = self.publications.remove(slot) else { return };
        self.publication_ids.remove(&publication.id);
        self.mirrors.retain(|mirror| *mirror != slot);
        if let Some(peer) = self.peers.get_mut(publication.peer) {
            peer.publications.retain(|other| *other != slot);
            let ssrcs = peer.streams.remove_publication(slot);
            peer.end(&ssrcs, &publication.leg.mid);
        }
    }

    /// Removes a peer with all that it has, and says so.
    pub(crate) fn leave(&mut self, slot: u32, reason: LeaveReason, detail: String) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let subscriptions = std::mem::take(&mut peer.subscriptions);
        let publications = std::mem::take(&mut peer.publications);
        subscriptions.into_iter().for_each(|subscription| self.unsubscribe(subscription));
        publications.into_iter().for_each(|publication| self.unpublish(publication));
        let Some(peer) = self.peers.remove(slot) else { return };
        for path in peer.ice.paths() {
            self.flows.remove(&path);
        }
        for ufrag in peer.ice.ufrags() {
            self.ufrags.remove(ufrag.as_bytes());
        }
        self.peer_ids.remove(&peer.id);
        if let Some(peers) = self.scopes.get_mut(&peer.scope) {
            peers.retain(|other| *other != slot);
        }
        self.emit(Event::PeerLeft { peer: peer.id, reason, detail });
    }

    pub(crate) fn peer_slot(&self, id: PeerId) -> Result<u32, CommandError> {
        self.peer_ids.get(&id).copied().ok_or(CommandError::NotFound("peer"))
    }

    pub(crate) fn publication_slot(&self, id: PublicationId) -> Result<u32, CommandError> {
        self.publication_ids.get(&id).copied().ok_or(CommandError::NotFound("publication"))
    }

    fn subscription_slot(&self, id: SubscriptionId) -> Result<u32, CommandError> {
        self.subscription_ids.get(&id).copied().ok_or(CommandError::NotFound("subscription"))
    }
}

pub(crate) fn limit(what: &'static str, count: usize, limit: usize) -> Result<(), CommandError> {
    if count >= limit { Err(CommandError::Limit { what, limit }) } else { Ok(()) }
}
