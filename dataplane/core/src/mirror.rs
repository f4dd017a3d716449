//! A scope whose peers live on several workers: a publication goes from the worker of its publisher, which decrypts it
//! once, to *mirrors* of it on the workers of its subscribers. Key frames and packets that subscribers of a mirror miss
//! are asked for by the opposite way.

use crate::cache::Kept;
use crate::command::{self, Command, CommandError, PeerId, PublicationId, ScopeId, WorkerId};
use crate::demand::Demand;
use crate::drop::DropReason;
use crate::egress::Egress;
use crate::execute::limit;
use crate::keys::Keys;
use crate::limits::{EGRESS_FLUSH_BYTES, EGRESS_FLUSH_DATAGRAMS, MIRRORS, MIRRORS_PER_PUBLICATION};
use crate::measure::ClockOffset;
use crate::parcel::{Item, Known, Name, Parcel};
use crate::publication::{Carries, Encoding, Publication, Stream};
use crate::request::RETRY;
use crate::route::Leg;
use crate::speaker::Sound;
use crate::time::{Instant, Now};
use crate::worker::Worker;
use std::ops::Range;
use strait_wire::{rtcp, rtp};

/// No slot of a peer: whose publication a mirror is lives on another worker.
pub(crate) const NOBODY: u32 = u32::MAX;

/// What a mirror knows of its origin.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) worker: WorkerId,
    pub(crate) scope: ScopeId,
    pub(crate) publisher: PeerId,
    /// The publisher is plain: its packets can go out as they came.
    pub(crate) as_sent: bool,
    /// How far the publisher's clock is from ours, as its own worker measured it: all workers have one clock.
    pub(crate) clock: ClockOffset,
}

/// Where a publication has mirrors.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    workers: Vec<WorkerId>,
    /// What they want of its encodings, as sets; those that did not say so yet want all.
    wanted: Vec<u8>,
    /// They get the packets as they came, too.
    as_sent: bool,
}

impl Mirrors {
    pub(crate) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    pub(crate) fn as_sent(&self) -> bool {
        self.as_sent
    }

    pub(crate) fn workers(&self) -> &[WorkerId] {
        &self.workers
    }

    pub(crate) fn has(&self, worker: WorkerId) -> bool {
        self.workers.contains(&worker)
    }

    /// `false`: there are as many as there may be.
    pub(crate) fn insert(&mut self, worker: WorkerId, as_sent: bool) -> bool {
        self.as_sent |= as_sent;
        if !self.has(worker) {
            if self.workers.len() >= MIRRORS_PER_PUBLICATION {
                return false;
            }
            self.workers.push(worker);
            self.wanted.push(u8::MAX);
        }
        true
    }

    pub(crate) fn remove(&mut self, worker: WorkerId) {
        if let Some(at) = self.workers.iter().position(|held| *held == worker) {
            self.workers.remove(at);
            self.wanted.remove(at);
        }
    }

    /// Takes note of what one wants. Whether that is new.
    pub(crate) fn want(&mut self, worker: WorkerId, encodings: u8) -> bool {
        let mut all = self.workers.iter().zip(&mut self.wanted);
        let wanted = all.find(|(held, _)| **held == worker).map(|(_, wanted)| wanted);
        wanted.is_some_and(|wanted| std::mem::replace(wanted, encodings) != encodings)
    }

    /// What all of them want.
    pub(crate) fn wanted(&self) -> u8 {
        self.wanted.iter().fold(0, |all, wanted| all | wanted)
    }
}

impl Worker {
    /// Takes up another worker's publication.
    pub(crate) fn mirror(&mut self, now: Now, command: Command) -> Result<(), CommandError> {
        let Command::Mirror {
            scope,
            publication: id,
            origin: worker,
            publisher,
            kind,
            codecs,
            extensions,
            encodings,
            muted,
            as_sent,
        } = command
        else {
            return Ok(());
        };
        if !self.scopes.contains_key(&scope) {
            return Err(CommandError::NotFound("scope"));
        }
        if self.publication_ids.contains_key(&id) {
            return Err(CommandError::Exists("publication"));
        }
        limit("publications of other workers on this worker", self.mirrors.len(), MIRRORS)?;
        // Their SSRCs are the origin's to tell, with what else it knows: until then there is nothing to ask for.
        let unknown = |e| command::Encoding { ssrc: 0, rtx_ssrc: 0, ..e };
        let encodings = encodings.into_iter().map(unknown);
        let encodings = encodings.map(|e| Encoding::new(&e, kind, self.next_source())).collect();
        let clock = ClockOffset::default();
        let slot = self.publications.insert(Publication {
            id,
            peer: NOBODY,
            origin: Some(Origin { worker, scope, publisher, as_sent, clock }),
            mirrors: Mirrors::default(),
            demand: Demand::default(),
            kind,
            leg: Leg::new("", codecs, extensions),
            encodings,
            muted,
            report_ssrc: 0,
            subscriptions: Vec::new(),
            repairs: false,
            hands_on: false,
            // Its origin announces it.
            started: true,
            sound: Sound::default(),
        });
        self.publication_ids.insert(id, slot);
        self.mirrors.push(slot);
        self.expect_sound(slot);
        self.demand_changed(now);
        Ok(())
    }

    /// Begins to pass a publication on.
    pub(crate) fn start_mirroring(
        &mut self,
        id: PublicationId,
        to: WorkerId,
    ) -> Result<(), CommandError> {
        let slot = self.publication_slot(id)?;
        let publication =
            self.publications.get_mut(slot).ok_or(CommandError::NotFound("publication"))?;
        if publication.origin.is_some() {
            return Err(CommandError::Invalid("a mirror has no mirrors: name its origin"));
        }
        let peer_slot = publication.peer;
        let keys = self.peers.get(peer_slot).and_then(|peer| peer.keys.as_ref());
        let plain = matches!(keys, Some(Keys::Plain));
        if !publication.mirrors.insert(to, plain) {
            return Err(CommandError::Limit {
                what: "workers that a publication is passed on to",
                limit: MIRRORS_PER_PUBLICATION,
            });
        }
        // What the other worker lost on the way, and what its subscribers ask for again, is looked for here.
        publication.repairs |= publication.nack();
        publication.hands_on |= plain;
        self.tell_mirrors(peer_slot, Some(to));
        Ok(())
    }

    /// Ends passing a publication on.
    pub(crate) fn stop_mirroring(
        &mut self,
        id: PublicationId,
        to: WorkerId,
    ) -> Result<(), CommandError> {
        let slot = self.publication_slot(id)?;
        let publication =
            self.publications.get_mut(slot).ok_or(CommandError::NotFound("publication"))?;
        publication.mirrors.remove(to);
        publication.rest();
        Ok(())
    }

    /// Ends what was taken up in a scope.
    pub(crate) fn end_mirrors(&mut self, scope: ScopeId) {
        for slot in self.mirrors.clone() {
            let origin = self.publications.get(slot).and_then(|mirror| mirror.origin.as_ref());
            if origin.is_some_and(|origin| origin.scope == scope) {
                self.unpublish(slot);
            }
        }
    }

    /// The oldest parcel that was not fetched, and for whom it is. To be fetched in every turn.
    pub fn poll_mirrored(&mut self) -> Option<(WorkerId, Parcel)> {
        self.outbox.take()
    }

    /// Takes in what worker `from` put together, in order, and calls `send`, which is to empty the egress, whenever that
    /// has filled up. What is not used counts under its [`DropReason`].
    pub fn on_mirrored(
        &mut self,
        now: Now,
        from: WorkerId,
        parcel: &mut Parcel,
        egress: &mut Egress,
        mut send: impl FnMut(&mut Egress),
    ) {
        let Parcel { items, arena } = parcel;
        for item in items.iter() {
            if self.is_full() {
                self.forward(now, egress, &mut send);
            }
            if egress.bytes() > EGRESS_FLUSH_BYTES || egress.len() > EGRESS_FLUSH_DATAGRAMS {
                send(egress);
            }
            let before = (egress.len(), egress.bytes());
            let result = match item {
                Item::Packet { name, bytes, sealed } => {
                    self.on_mirrored_packet(now, *name, arena, (bytes, sealed), egress)
                }
                Item::State { name, known } => {
                    self.on_mirrored_state(now, *name, *known, egress);
                    Ok(())
                }
                Item::Reports { publisher, bytes } => {
                    let reports = arena.get(bytes.clone()).unwrap_or_default();
                    self.on_mirrored_reports(*publisher, reports, egress);
                    Ok(())
                }
                Item::KeyFrame { name } => {
                    self.on_key_frame_wish(now, *name, egress);
                    Ok(())
                }
                Item::Demand { publication, encodings } => {
                    if let Some(slot) = self.publication_ids.get(publication) {
                        self.on_mirrored_demand(now, from, *slot, *encodings);
                    }
                    Ok(())
                }
                Item::Missing { name, seq } => {
                    self.on_missing(now, from, *name, *seq, egress);
                    Ok(())
                }
            };
            result.unwrap_or_else(|reason| self.drops.count(reason));
            self.count_sent(before, egress);
            if !self.gathers {
                self.forward(now, egress, &mut send);
            }
        }
    }

    /// Gives the memory of a parcel of this worker's back, once it was worked on.
    pub fn reuse(&mut self, parcel: Parcel) {
        self.outbox.reuse(parcel);
    }

    /// A parcel did not reach its worker: what it held is lost.
    pub fn lost(&mut self, parcel: Parcel) {
        self.drops.add(DropReason::MirrorFull, parcel.items.len() as u64);
        self.outbox.reuse(parcel);
    }

    fn on_mirrored_packet(
        &mut self,
        now: Now,
        name: Name,
        arena: &mut [u8],
        (bytes, sealed): (&Range<usize>, &Range<usize>),
        egress: &mut Egress,
    ) -> Result<(), DropReason> {
        let sealed = self.gather.keep_sealed(arena.get(sealed.clone()).unwrap_or_default());
        let bytes = arena.get_mut(bytes.clone()).ok_or(DropReason::RtpMalformed)?;
        let ssrc = rtp::Header::parse(bytes).map_err(|_| DropReason::RtpMalformed)?.ssrc();
        let publication = self.mirror_slot(name.publication).ok_or(DropReason::StreamUnknown)?;
        self.follow(publication, name, ssrc);
        let stream = Stream { publication, encoding: name.encoding, carries: Carries::Media };
        self.admit(now, now.at, stream, bytes, sealed, egress)
    }

    /// Starts an encoding over when it has another source at the origin; whether it did.
    fn follow(&mut self, slot: u32, name: Name, ssrc: u32) -> bool {
        let source = self.next_source();
        let publication = self.publications.get_mut(slot);
        let encoding = publication.and_then(|p| p.encodings.get_mut(name.encoding as usize));
        let Some(encoding) = encoding.filter(|encoding| encoding.origin != name.source) else {
            return false;
        };
        encoding.restart(ssrc, source);
        encoding.origin = name.source;
        true
    }

    fn on_mirrored_state(&mut self, now: Now, name: Name, known: Known, egress: &mut Egress) {
        let Some(slot) = self.mirror_slot(name.publication) else { return };
        let follows = self.follow(slot, name, known.ssrc);
        let Some(publication) = self.publications.get_mut(slot) else { return };
        if let Some(origin) = &mut publication.origin {
            origin.clock = known.clock;
        }
        if let Some(encoding) = publication.encodings.get_mut(name.encoding as usize) {
            encoding.rtx_ssrc = known.rtx_ssrc;
            encoding.active_at =
                known.active_at.map(|at| encoding.active_at.map_or(at, |a| a.max(at)));
            known.sender.into_iter().for_each(|sender| encoding.reception.on_sender_report(sender));
        }
        if follows {
            for subscription in publication.subscriptions.clone() {
                self.want_key_frame(now, subscription, egress);
            }
        }
    }

    fn on_mirrored_reports(&mut self, publisher: PeerId, reports: &[u8], egress: &mut Egress) {
        let reported: Vec<u32> = rtcp::packets(reports)
            .filter_map(|packet| match packet {
                Ok(rtcp::Packet::SenderReport(report)) => Some(report.ssrc),
                _ => None,
            })
            .collect();
        let is_reported = |slot: &u32| {
            self.publications.get(*slot).is_some_and(|publication| {
                publication.origin.as_ref().is_some_and(|origin| origin.publisher == publisher)
                    && publication.encodings.iter().any(|e| reported.contains(&e.ssrc))
            })
        };
        let publications: Vec<u32> = self.mirrors.iter().copied().filter(is_reported).collect();
        self.hand_reports_to(&publications, reports, egress);
    }

    /// A subscriber of a mirror waits for a key frame.
    fn on_key_frame_wish(&mut self, now: Now, name: Name, egress: &mut Egress) {
        let Some(slot) = self.mirrored_slot(name) else { return };
        let publication = self.publications.get_mut(slot);
        let encoding = publication.and_then(|p| p.encodings.get_mut(name.encoding as usize));
        encoding.into_iter().for_each(|encoding| encoding.requests.want_elsewhere());
        self.ask(now, slot, egress);
    }

    /// A subscriber of the mirror on worker `from` misses a packet: it goes there again, or is asked for.
    fn on_missing(&mut self, now: Now, from: WorkerId, name: Name, seq: u16, egress: &mut Egress) {
        let Some(slot) = self.mirrored_slot(name) else { return };
        let Some(publication) = self.publications.get_mut(slot) else { return };
        let nack = publication.nack();
        let as_sent = publication.mirrors.as_sent();
        let Some(encoding) = publication.encodings.get_mut(name.encoding as usize) else { return };
        let extended = encoding.window.extend(seq);
        match encoding.cache.get(extended) {
            Some(Kept { bytes, .. }) => {
                let sealed = encoding.sealed.get(extended).filter(|_| as_sent);
                let sealed = sealed.map_or(&[][..], |sealed| sealed.bytes);
                let whole = rtp::Packet::parse(bytes).map(|packet| packet.payload_range().end);
                let bytes = bytes.get(..whole.unwrap_or_default()).unwrap_or_default();
                if !self.outbox.packet(from, name, bytes, sealed) {
                    self.drops.count(DropReason::MirrorFull);
                }
            }
            None if nack && !encoding.window.has(extended) => {
                encoding.missing.want(extended, now.at);
                self.ask(now, slot, egress);
            }
            None => {}
        }
    }

    /// Tells the mirrors of a peer's publications what is known of their encodings: `to` one worker alone, if that is
    /// given, or to all.
    pub(crate) fn tell_mirrors(&mut self, peer: u32, to: Option<WorkerId>) {
        let Some(peer) = self.peers.get(peer) else { return };
        for publication in peer.publications.iter().filter_map(|p| self.publications.get(*p)) {
            for (number, encoding) in (0..).zip(&publication.encodings).filter(|(_, e)| e.ssrc != 0)
            {
                let name =
                    Name { publication: publication.id, encoding: number, source: encoding.source };
                let known = Known {
                    ssrc: encoding.ssrc,
                    rtx_ssrc: encoding.rtx_ssrc,
                    active_at: encoding.active_at,
                    sender: encoding.reception.sender(),
                    clock: peer.clock,
                };
                let workers = publication.mirrors.workers().iter();
                for worker in workers.filter(|worker| to.is_none_or(|to| to == **worker)) {
                    if !self.outbox.put(*worker, Item::State { name, known }) {
                        self.drops.count(DropReason::MirrorFull);
                    }
                }
            }
        }
    }

    /// Hands a plain publisher's reports on to the workers that hand on its packets as they came.
    pub(crate) fn mirror_reports(&mut self, publisher: PeerId, publications: &[u32], bytes: &[u8]) {
        let mirrored = publications.iter().filter_map(|slot| self.publications.get(*slot));
        let mirrored = mirrored.filter(|p| p.mirrors.as_sent() && !p.muted);
        let mut workers: Vec<WorkerId> =
            mirrored.flat_map(|p| p.mirrors.workers().iter().copied()).collect();
        workers.sort_unstable();
        workers.dedup();
        for worker in workers {
            let Some(parcel) = self.outbox.parcel(worker, bytes.len()) else {
                self.drops.count(DropReason::MirrorFull);
                continue;
            };
            let bytes = parcel.put(bytes);
            parcel.items.push(Item::Reports { publisher, bytes });
        }
    }

    /// Asks the origin of a mirror for what its subscribers wait for and miss, and says when to ask again.
    pub(crate) fn wish(&mut self, now: Now, slot: u32) -> Option<Instant> {
        let publication = self.publications.get_mut(slot)?;
        let to = publication.origin.as_ref()?.worker;
        let id = publication.id;
        let active = publication.active(now.at);
        let mut next: Option<Instant> = None;
        for number in 0..publication.encodings.len() {
            let is_due = |e: &Encoding| e.requests.due(now.at) == Some(now.at);
            let vain = publication.encodings.get(number).is_some_and(is_due)
                && !publication.is_awaited(number as u8, active, &self.subscriptions);
            let encoding = publication.encodings.get_mut(number).filter(|e| e.ssrc != 0);
            let Some(encoding) = encoding else { continue };
            let name = Name { publication: id, encoding: number as u8, source: encoding.origin };
            if vain {
                encoding.requests.satisfy();
            }
            if encoding.requests.take(now.at) {
                encoding.key_frame_requests += 1;
                if !self.outbox.put(to, Item::KeyFrame { name }) {
                    self.drops.count(DropReason::MirrorFull);
                }
            }
            if encoding.missing.is_due(now.at) {
                for seq in encoding.missing.ask(now.at, None) {
                    if !self.outbox.put(to, Item::Missing { name, seq }) {
                        self.drops.count(DropReason::MirrorFull);
                    }
                }
            }
            let due = [encoding.requests.due(now.at), encoding.missing.due()];
            next = due.into_iter().chain([next]).flatten().min();
        }
        let next = next.map(|at| at.max(now.at + RETRY));
        self.mirrors_due = [self.mirrors_due, next].into_iter().flatten().min();
        next
    }

    /// Repeats the wishes that are due.
    pub(crate) fn wish_again(&mut self, now: Now) {
        if self.mirrors_due.is_some_and(|due| due <= now.at) {
            self.mirrors_due = None;
            for slot in self.mirrors.clone() {
                self.wish(now, slot);
            }
        }
    }

    /// The slot of a mirror.
    fn mirror_slot(&self, publication: PublicationId) -> Option<u32> {
        let slot = *self.publication_ids.get(&publication)?;
        self.publications.get(slot)?.origin.as_ref().map(|_| slot)
    }

    /// The slot of a publication with mirrors, if its encoding still has the source that is meant.
    fn mirrored_slot(&self, name: Name) -> Option<u32> {
        let slot = *self.publication_ids.get(&name.publication)?;
        let publication = self.publications.get(slot)?;
        let encoding = publication.encodings.get(name.encoding as usize)?;
        (encoding.source == name.source && !publication.mirrors.is_empty()).then_some(slot)
    }
}
