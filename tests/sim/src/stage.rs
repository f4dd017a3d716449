//! What people do: each [`Step`] as commands to the relay and signalling to the clients.

use crate::control::{self, Life, Publication, SCOPE, Slot};
use crate::handshake::Handshake;
use crate::peer::Peer;
use crate::peer::ice::Agent;
use crate::peer::receiver::Receiver;
use crate::peer::source::{Source, first_sequence_number};
use crate::plan::Step;
use crate::protocol::Sort;
use crate::world::{Event, World, forged_check};
use std::sync::LazyLock;
use strait_core::command::{Command, Kind, PeerId, Preferences, PublicationId, SubscriptionId};
use strait_core::port::Protocol;
use strait_core::time::{Duration, Instant};
use strait_crypt::dtls;
use strait_crypt::srtp::SessionKeys;

/// Certificates of the relay and of all clients: making one takes longer than a handshake.
static CERTIFICATES: LazyLock<[Identity; 2]> = LazyLock::new(|| [Identity::new(), Identity::new()]);

/// Packets: 2 s of sound.
const SOUND_OF_AN_ABSENCE: u16 = 100;

struct Identity {
    certificate: dtls::Certificate,
    fingerprint: dtls::Fingerprint,
}

impl Identity {
    fn new() -> Self {
        let certificate = dtls::Certificate::generate().expect("the library makes certificates");
        let fingerprint = dtls::Fingerprint::new("sha-256", &certificate.fingerprint_sha256())
            .expect("it has 32 bytes");
        Self { certificate, fingerprint }
    }
}

impl World {
    /// Someone does something.
    pub(crate) fn step(&mut self, step: Step) {
        self.trace.event(self.now, &format!("{step:?}"));
        match step {
            Step::Join { peer } => self.join(peer),
            Step::Leave { peer } => self.leave(peer),
            Step::Vanish { peer } => self.vanish(peer),
            Step::Mute { peer, kind } => self.mute(peer, kind, true),
            Step::Unmute { peer, kind } => self.mute(peer, kind, false),
            Step::Silence { peer, kind } => self.silence(peer, kind, true),
            Step::Speak { peer, kind } => self.silence(peer, kind, false),
            Step::Pause { peer, of, kind } => {
                self.prefer(peer, of, kind, |preferences| preferences.paused = true);
            }
            Step::Resume { peer, of, kind } => {
                self.prefer(peer, of, kind, |preferences| preferences.paused = false);
            }
            Step::LayerMax { peer, of, layer } => {
                self.prefer(peer, of, Kind::Video, |preferences| preferences.layer_max = layer);
            }
            Step::Rebind { peer, of, to, kind } => self.rebind(peer, of, to, kind),
            Step::StopLayer { peer, layer } => self.layer(peer, layer, false),
            Step::StartLayer { peer, layer } => self.layer(peer, layer, true),
            Step::RestartIce { peer } => self.restart_ice(peer),
            Step::Move { peer, knows } => self.move_address(peer, knows),
            Step::Republish { peer, kind } => self.republish(peer, kind),
            Step::Attack { datagrams } => self.attack(datagrams),
        }
    }

    /// Signalling has reached a client: it begins.
    pub(crate) fn start(&mut self, member: usize, life: PeerId) {
        let (now, epoch) = (self.now, self.relay.epoch());
        let Some(peer) = self.peer(member, life) else { return };
        peer.agent.hurry(now);
        if peer.spec.dtls {
            let [relay, client] = &*CERTIFICATES;
            let (own, remote) = (client.certificate.clone(), relay.fingerprint.clone());
            peer.use_dtls(Handshake::new(own, remote, dtls::Role::Client, epoch));
        }
        self.settle(member);
    }

    /// A client has found its way to the relay: both get keys, unless DTLS sees to that.
    pub(crate) fn arrange_keys(&mut self, member: usize, life: PeerId) {
        let spec = &self.members[member].spec;
        if spec.dtls {
            return;
        }
        let profile = spec.profile;
        let mut secret = |len| self.rng.bytes(len);
        let (up, down) = (secret(profile.key_len()), secret(profile.key_len()));
        let (up_salt, down_salt) = (secret(profile.salt_len()), secret(profile.salt_len()));
        let relays = SessionKeys {
            profile,
            local_key: down.clone(),
            local_salt: down_salt.clone(),
            remote_key: up.clone(),
            remote_salt: up_salt.clone(),
        };
        let keys = SessionKeys {
            profile,
            local_key: up,
            local_salt: up_salt,
            remote_key: down,
            remote_salt: down_salt,
        };
        let command = Command::SetKeys { peer: life, keys: relays };
        self.plan_in(0, 30, Event::Ask(Box::new(command)));
        self.plan_in(0, 30, Event::PeerKeys { member, life, keys });
    }

    /// Someone is gone for the relay: nobody is shown it any more.
    pub(crate) fn forget(&mut self, member: usize, life: PeerId) {
        let now = self.now;
        for slot in &mut self.slots {
            slot.closed |= slot.viewer == member && slot.viewer_life == life;
            if slot.shows == Some(member) {
                (slot.shows, slot.source, slot.changed_at) = (None, None, now);
            }
        }
    }

    /// Everyone goes: one by one, or with the scope.
    pub(crate) fn everyone_leaves(&mut self) {
        if self.rng.chance(0.3) {
            self.members.iter_mut().filter_map(|m| m.life.as_mut()).for_each(|l| l.leaving = true);
            return self.ask(Command::DisposeScope { scope: SCOPE });
        }
        for member in 0..self.members.len() {
            self.leave(member);
        }
        let at = self.now + Duration::from_millis(300);
        if self.lives().all(|life| !life.vanished) {
            self.plan_at(at, Event::Ask(Box::new(Command::DisposeScope { scope: SCOPE })));
        }
    }

    fn join(&mut self, member: usize) {
        if self.members[member].life.as_ref().is_some_and(|life| !life.vanished) {
            return;
        }
        if let Some(before) = self.members[member].life.take() {
            // A page that is loaded again: the control plane doesn't know that the one before is gone.
            self.forget(member, before.id);
        }
        let spec = self.members[member].spec.clone();
        let id = PeerId(self.names.draw());
        let mut rng = self.rng.fork(u64::from(id.0));
        let local = control::relay_credentials(&mut self.names, &mut rng);
        let remote = control::client_credentials(&mut rng);
        let (theirs, ours) = (remote.clone(), local.clone());
        self.ask(Command::AddPeer { scope: SCOPE, peer: id, local, remote });
        let address = self.new_address(member, id);
        let agent = Agent::new(theirs, ours, spec.consent, rng.fork(1));
        let peer = Peer::new(member, spec.clone(), self.now, address, agent, rng.fork(2));
        if spec.dtls {
            let [relay, client] = &*CERTIFICATES;
            let (own, remote) = (relay.certificate.clone(), client.fingerprint.clone());
            let handshake = Handshake::new(own, remote, dtls::Role::Server, self.relay.epoch());
            self.relay.expect_handshake(id, handshake);
        }
        self.members[member].life = Some(Life {
            id,
            peer,
            joined_at: self.now,
            publications: Vec::new(),
            reported_connected: false,
            vanished: false,
            leaving: false,
            keys_arranged: false,
            disturbed_at: self.now,
        });
        // What others send, then what it sends itself.
        for other in (0..self.members.len()).filter(|other| *other != member) {
            let Some(life) = self.members[other].life.as_ref() else { continue };
            for publication in life.publications.clone() {
                self.open_slot(member, other, &publication);
            }
        }
        let kinds = [spec.video.map(|_| Kind::Video), spec.audio.then_some(Kind::Audio)];
        for kind in kinds.into_iter().flatten() {
            let publication = self.publish(member, kind);
            for viewer in (0..self.members.len()).filter(|viewer| *viewer != member) {
                self.open_slot(viewer, member, &publication);
            }
        }
        self.plan_in(20, 150, Event::Start { member, life: id });
    }

    fn publish(&mut self, member: usize, kind: Kind) -> Publication {
        let stream = self.names.draw();
        let id = PublicationId(self.names.draw());
        let report_ssrc = self.names.draw() | 0x4000_0000;
        let rng = self.rng.fork(u64::from(stream) << 8);
        let now = self.now;
        let spec = self.members[member].spec.clone();
        let publication = Publication { id, stream, kind, muted: false, started: false };
        if let Some(life) = self.members[member].life.as_mut() {
            let codec = life.peer.codec(kind);
            // The relay may take seconds to learn the keys from a handshake on a bad line: all before the wrap could be lost.
            let video = spec.video.filter(|_| kind == Kind::Video);
            let source = Source::new(stream, stream.to_string(), codec, video, !spec.dtls, rng);
            let ids = life.peer.extensions;
            let command =
                control::publish(life.id, id, &source, ids, spec.ssrcs_signalled, report_ssrc);
            life.peer.publish(now, source);
            life.publications.push(publication.clone());
            self.ask(command);
            self.settle(member);
        }
        publication
    }

    fn open_slot(&mut self, viewer: usize, of: usize, publication: &Publication) {
        let mut first_seq = first_sequence_number(true, &mut self.rng);
        // Who moves without knowing hears nothing until he asks for consent again, up to 3 s later, and
        // that must not be all that comes before the wrap.
        if publication.kind == Kind::Audio && first_seq > 0x7fff {
            first_seq -= SOUND_OF_AN_ABSENCE;
        }
        let (ssrc, rtx_ssrc) = (self.names.draw() | 0x2000_0000, self.names.draw() | 0x2000_0000);
        let Some(life) = self.members[viewer].life.as_mut().filter(|l| !l.vanished && !l.leaving)
        else {
            return;
        };
        let index = self.slots.len();
        let kind = publication.kind;
        let slot = Slot {
            id: SubscriptionId(index as u32),
            viewer,
            viewer_life: life.id,
            of,
            kind,
            shows: Some(of),
            source: Some(publication.id),
            preferences: Preferences::default(),
            changed_at: self.now,
            closed: false,
        };
        let (codec, ids) = (life.peer.codec(kind), life.peer.extensions);
        let receiver =
            Receiver::new(index, kind, format!("s{index}"), (ssrc, rtx_ssrc), codec, ids);
        let command = control::subscribe(&slot, &receiver, first_seq);
        life.peer.receivers.push(receiver);
        self.slots.push(slot);
        self.ask(command);
    }

    fn leave(&mut self, member: usize) {
        let Some(life) = self.members[member].life.as_mut().filter(|life| !life.vanished) else {
            return;
        };
        let id = life.id;
        life.leaving = true;
        life.peer.say_goodbye();
        self.settle(member);
        self.plan_in(0, 100, Event::Ask(Box::new(Command::RemovePeer { peer: id })));
    }

    fn vanish(&mut self, member: usize) {
        if let Some(life) = self.members[member].life.as_mut() {
            life.vanished = true;
            life.peer.vanish();
        }
    }

    fn mute(&mut self, member: usize, kind: Kind, muted: bool) {
        let Some(life) = self.members[member].life.as_mut() else { return };
        let Some(publication) = life.publications.iter_mut().find(|p| p.kind == kind) else {
            return;
        };
        publication.muted = muted;
        let id = publication.id;
        self.disturb(|slot| slot.source == Some(id));
        self.ask(Command::SetMuted { publication: id, muted });
    }

    fn silence(&mut self, member: usize, kind: Kind, silent: bool) {
        let Some(life) = self.members[member].life.as_mut() else { return };
        life.peer.sources.iter_mut().filter(|s| s.kind == kind).for_each(|s| s.silent = silent);
        self.disturb(|slot| slot.shows == Some(member) && slot.kind == kind);
    }

    fn layer(&mut self, member: usize, layer: u8, active: bool) {
        let Some(life) = self.members[member].life.as_mut() else { return };
        for source in life.peer.sources.iter_mut().filter(|source| source.kind == Kind::Video) {
            // Not the last one: a camera that sends nothing is another step.
            let others = source
                .layers
                .iter()
                .enumerate()
                .any(|(at, l)| at != usize::from(layer) && l.active);
            if let Some(layer) =
                source.layers.get_mut(usize::from(layer)).filter(|_| active || others)
            {
                layer.active = active;
            }
        }
        self.disturb(|slot| slot.shows == Some(member) && slot.kind == Kind::Video);
    }

    fn prefer(&mut self, viewer: usize, of: usize, kind: Kind, change: impl Fn(&mut Preferences)) {
        let now = self.now;
        let Some(slot) = self.slot(viewer, of, kind) else { return };
        change(&mut slot.preferences);
        slot.changed_at = now;
        let (subscription, preferences) = (slot.id, slot.preferences);
        self.ask(Command::SetPreferences { subscription, preferences });
    }

    fn rebind(&mut self, viewer: usize, of: usize, to: usize, kind: Kind) {
        let now = self.now;
        let target = self.members[to].life.as_ref().filter(|life| !life.leaving && !life.vanished);
        let publication = target.and_then(|life| life.publications.iter().find(|p| p.kind == kind));
        let publication = publication.map(|publication| publication.id);
        let Some(slot) = self.slot(viewer, of, kind) else { return };
        (slot.source, slot.shows, slot.changed_at) = (publication, publication.map(|_| to), now);
        let subscription = slot.id;
        self.ask(Command::Bind { subscription, publication });
    }

    fn restart_ice(&mut self, member: usize) {
        let mut rng = self.rng.fork(u64::from(self.names.draw()));
        let Some(life) = self.members[member].life.as_mut() else { return };
        let peer = life.id;
        let local = control::relay_credentials(&mut self.names, &mut rng);
        let remote = control::client_credentials(&mut rng);
        let event =
            Event::Restart { member, life: peer, local: remote.clone(), remote: local.clone() };
        self.ask(Command::RestartIce { peer, local, remote });
        self.plan_in(20, 400, event);
    }

    fn move_address(&mut self, member: usize, knows: bool) {
        let Some(life) = self.members[member].life.as_ref() else { return };
        let id = life.id;
        let address = self.new_address(member, id);
        let now = self.now;
        if let Some(life) = self.members[member].life.as_mut() {
            life.peer.address = address;
            // A connection that breaks is noticed by its owner.
            let notices = knows || life.peer.spec.protocol == Protocol::Tcp;
            if notices {
                life.peer.agent.hurry(now);
            }
            // Who doesn't know finds out at the next consent check and the ones that follow it.
            let finds_out =
                if notices { Duration::ZERO } else { life.peer.spec.consent.mul_f64(1.3) };
            life.disturbed_at = now + finds_out;
        }
        self.settle(member);
    }

    fn republish(&mut self, member: usize, kind: Kind) {
        let Some(life) = self.members[member].life.as_mut() else { return };
        let Some(at) = life.publications.iter().position(|p| p.kind == kind) else { return };
        let before = life.publications.remove(at);
        life.peer.unpublish(before.stream);
        self.ask(Command::Unpublish { publication: before.id });
        let publication = self.publish(member, kind);
        let now = self.now;
        let mut commands = Vec::new();
        for slot in
            self.slots.iter_mut().filter(|slot| !slot.closed && slot.source == Some(before.id))
        {
            (slot.source, slot.changed_at) = (Some(publication.id), now);
            let publication = Some(publication.id);
            commands.push(Command::Bind { subscription: slot.id, publication });
        }
        commands.into_iter().for_each(|command| self.ask(command));
    }

    fn attack(&mut self, datagrams: u32) {
        let mut rng = self.rng.fork(u64::from(self.names.draw()));
        let stranger = "203.0.113.66:6666".parse().expect("an address");
        let stranger = self.path(Protocol::Udp, stranger);
        let known: Vec<_> = self.overheard.iter().cloned().collect();
        for _ in 0..datagrams {
            let heard = rng.pick(&[0, 1, 2, 3]);
            let Some((path, bytes)) = known.get(rng.index(known.len())) else { continue };
            let stun = Sort::of(bytes) == Sort::Stun;
            let mut bytes = bytes.clone();
            match heard {
                // Anything at all, in the shape of something.
                0 => {
                    let len = rng.range(1..=200) as usize;
                    bytes = rng.bytes(len);
                    if let Some(first) = bytes.first_mut() {
                        *first = rng.pick(&[0, 1, 20, 22, 23, 64, 128, 144, 191, 255]);
                    }
                }
                // A check with a password of his own, for a name that exists or not.
                1 => {
                    let name =
                        self.lives().next().map(|life| life.peer.agent.username().to_owned());
                    let name = name.filter(|_| rng.chance(0.7)).unwrap_or("AAxxxx:yyyy".into());
                    bytes = forged_check(&name, &mut rng);
                }
                // Something overheard, damaged. Not DTLS: its bytes differ from run to run, and so would what comes of it.
                2 if Sort::of(&bytes) != Sort::Dtls => {
                    let at = rng.index(bytes.len());
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << rng.range(0..=7);
                    }
                    if rng.chance(0.2) {
                        bytes.truncate(at);
                    }
                }
                // Something overheard, once more; a check said again would be a check.
                _ if stun => continue,
                _ => {}
            }
            let path = if rng.chance(0.5) { stranger } else { *path };
            let after = rng.millis(0..=300);
            self.inject(after, path, bytes);
        }
    }

    fn slot(&mut self, viewer: usize, of: usize, kind: Kind) -> Option<&mut Slot> {
        let life = self.members.get(viewer)?.life.as_ref()?.id;
        self.slots.iter_mut().find(|slot| {
            !slot.closed && slot.viewer_life == life && slot.of == of && slot.kind == kind
        })
    }

    fn disturb(&mut self, which: impl Fn(&Slot) -> bool) {
        let now = self.now;
        self.slots.iter_mut().filter(|slot| which(slot)).for_each(|slot| slot.changed_at = now);
    }
}

/// Since when something has been as it is.
pub(crate) fn latest(times: impl IntoIterator<Item = Instant>) -> Instant {
    times.into_iter().max().unwrap_or_default()
}
