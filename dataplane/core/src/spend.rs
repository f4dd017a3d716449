//! The budget of a subscriber, from its feedback to what each of its subscriptions may send.

use crate::allocate::{Claim, Patience, Rank, Share};
use crate::budget::Reports;
use crate::command::Kind;
use crate::egress::Egress;
use crate::ladder::{Ladder, Rung};
use crate::layer::Target;
use crate::limits::{
    ALLOCATION_INTERVAL, AUDIO_RESERVE_BPS, ENCODINGS_PER_PUBLICATION, GUESSED_BPS, OVERSPENT,
    RAISE_SPARE,
};
use crate::pacer::Pacer;
use crate::publication::Publication;
use crate::select::{FEW_PICTURES, Limit};
use crate::size::enough;
use crate::statistics::HeldBack;
use crate::subscription::Subscription;
use crate::time::{Instant, Now};
use crate::worker::Worker;
use strait_wire::rtcp;

/// The height at which a picture is taken to be shown whose subscriber does not say.
const HEIGHT_ASSUMED: u16 = 360;
/// Sources of one REMB that are looked up: it needs one that is ours.
const REMB_SSRCS: usize = 32;

/// What a peer's budget is spent on.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    pub(crate) reports: Reports,
    patience: Patience,
    /// When it is looked at next.
    pub(crate) due: Option<Instant>,
    /// Bits per second that its subscriptions take.
    spent_bps: u64,
    /// Bits per second that a budget must have for all that is wanted.
    pub(crate) wanted_bps: u64,
    /// Something is held back.
    limits: bool,
}

/// What a subscription has of its peer's budget.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allotment {
    pub(crate) share: Share,
    /// The best that the subscriber wants, and the publisher sends or can send.
    pub(crate) wanted: Option<Rung>,
    /// What it gets in a moment, if nothing comes in between.
    pub(crate) soon: Option<Rung>,
}

impl Spending {
    /// Bits per second that its subscriptions take.
    pub(crate) fn spent_bps(&self) -> u64 {
        self.spent_bps
    }
}

impl Allotment {
    /// What the budget takes away.
    pub(crate) fn held_back(&self) -> HeldBack {
        match self.share {
            Share::Open => HeldBack::Nothing,
            Share::Nothing => HeldBack::Paused,
            Share::Upto(rung) if Some(rung) < self.wanted => HeldBack::Lowered,
            Share::Upto(_) => HeldBack::Nothing,
        }
    }
}

impl Worker {
    /// A subscriber says how much it can receive.
    pub(crate) fn on_remb(
        &mut self,
        now: Now,
        slot: u32,
        remb: &rtcp::Remb<'_>,
        egress: &mut Egress,
    ) {
        // What it says of others' streams is not for us.
        let mut ssrcs = remb.ssrcs().take(REMB_SSRCS).peekable();
        let none = ssrcs.peek().is_none();
        if !none && !ssrcs.any(|ssrc| self.subscription_of(slot, ssrc).is_some()) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.spending.reports.on_remb(remb.bitrate);
        }
        self.weigh_reports(now, slot, egress);
    }

    /// Where there is no transport-wide feedback, the budget follows from what else the subscriber reports.
    pub(crate) fn weigh_reports(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        if peer.bandwidth.is_some() {
            return;
        }
        let before = peer.budget_bps;
        peer.budget_bps = peer.spending.reports.weigh(now.at, peer.sent.bytes);
        if peer.budget_bps != before {
            self.on_budget(now, slot, egress);
        }
    }

    /// A peer's budget changed. Less than is spent is acted upon at once, more when it is looked at next.
    pub(crate) fn on_budget(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        // What a receiver says by itself (REMB, loss) follows what it gets: held to that, it would say less and less.
        let estimated = peer.bandwidth.as_ref().is_some_and(|bandwidth| bandwidth.is_proven());
        if peer.pacer.is_none() && peer.limit_bps().is_some() && estimated {
            peer.pacer = Some(Box::new(Pacer::new(now.at, peer.sent.bytes)));
        }
        let spending = &peer.spending;
        let at_once = match peer.limit_bps() {
            Some(budget) => budget < spending.spent_bps || spending.due.is_none(),
            None => spending.limits,
        };
        if at_once {
            self.spend(now, slot, egress);
        }
    }

    /// Spends anew if it is time to, or the budget does not cover what is spent any more.
    pub(crate) fn spend_when_due(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        self.on_budget(now, slot, egress);
        let Some(peer) = self.peers.get(slot) else { return };
        let due = match peer.spending.due {
            Some(due) => due <= now.at,
            None => peer.limit_bps().is_some(),
        };
        if due {
            self.spend(now, slot, egress);
        }
    }

    /// A subscription is new, or wants something else than before: it need not wait for what the budget covers.
    pub(crate) fn spend_anew(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        subscription.allotment.share = Share::Open;
        let peer = subscription.peer;
        self.spend(now, peer, egress);
        self.demand_changed(now);
    }

    /// What a subscription took of its peer's budget is free: what matters most now need not wait for the next look.
    pub(crate) fn spend_soon(&mut self, slot: u32) {
        let peer = self.peers.get_mut(slot).filter(|peer| peer.spending.due.is_some());
        let Some(peer) = peer else { return };
        // With the next timers, whatever else ends until then.
        peer.spending.due = Some(Instant::default());
        self.arm(slot, Instant::default());
    }

    /// Spends the budget of a peer on its subscriptions.
    fn spend(&mut self, now: Now, slot: u32, egress: &mut Egress) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let (budget, mut patience) = (peer.limit_bps(), peer.spending.patience);
        let scope = peer.scope;
        let subscriptions = std::mem::take(&mut peer.subscriptions);
        let mut allocator = std::mem::take(&mut self.allocator);
        allocator.claims.clear();
        // What goes whatever the budget: sound, and what cannot be changed on its way.
        let (mut fixed, mut sounds, mut sized) = (0_u64, false, false);
        let speaker = self.dominant_publisher(scope);
        for &at in &subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(at) else { continue };
            let source = subscription.publication.and_then(|at| self.publications.get_mut(at));
            let Some(publication) = source.filter(|publication| !publication.muted) else {
                continue;
            };
            publication.sample(now.at);
            let preferences = subscription.selector.preferences();
            if subscription.kind == Kind::Audio || subscription.as_sent {
                sounds |= subscription.kind == Kind::Audio;
                if !preferences.paused {
                    fixed = fixed.saturating_add(publication.carries(now.at));
                }
                continue;
            }
            sized |= preferences.height.is_some();
            let publisher = match &publication.origin {
                Some(origin) => Some(origin.publisher),
                None => self.peers.get(publication.peer).map(|peer| peer.id),
            };
            let speaks = speaker.is_some() && publisher == speaker;
            let claim = claim(now.at, at, subscription, publication, speaks);
            subscription.allotment.wanted = claim.map(|claim| claim.wanted);
            match claim.filter(|_| !preferences.paused) {
                Some(claim) => allocator.claims.push(claim),
                None => subscription.allotment = Allotment::default(),
            }
        }
        if let Some(budget) = budget {
            let reserve = if sounds { AUDIO_RESERVE_BPS } else { 0 };
            let left = budget.saturating_sub(fixed).saturating_sub(reserve);
            allocator.share_out(now.at, left, &mut patience);
        }
        let spent = fixed.saturating_add(allocator.spent());
        let wanted: u64 = allocator.claims.iter().map(|claim| claim.rate(Some(claim.wanted))).sum();
        let wanted = fixed.saturating_add(AUDIO_RESERVE_BPS).saturating_add(wanted);
        let mut claims = std::mem::take(&mut allocator.claims);
        self.allocator = allocator;
        let mut limits = false;
        for claim in &claims {
            let limit = self.limit_of(now.at, claim, budget, spent);
            limits |= budget.is_some();
            let Some(subscription) = self.subscriptions.get_mut(claim.subscription) else {
                continue;
            };
            let share = if budget.is_some() { claim.share } else { Share::Open };
            let soon = claim.soon.filter(|_| budget.is_some());
            if (subscription.allotment.share, subscription.allotment.soon) != (share, soon) {
                (subscription.allotment.share, subscription.allotment.soon) = (share, soon);
                self.demand_changed(now);
            }
            let Some(subscription) = self.subscriptions.get_mut(claim.subscription) else {
                continue;
            };
            if subscription.selector.limit() == limit {
                continue;
            }
            let went_out = subscription.selector.current().is_some();
            subscription.selector.permit(limit);
            subscription.aim();
            if limit.paused {
                subscription.display.interrupt();
            }
            let goes_out = subscription.selector.current().is_some();
            if !goes_out {
                subscription.rewriter.close();
            }
            if limit.paused || (went_out && !goes_out) {
                self.forget_waiting(claim.subscription);
            }
            // What was given up is asked for when its turn comes.
            let pacer = self.peers.get(slot).and_then(|peer| peer.pacer.as_ref());
            if !pacer.is_some_and(|pacer| pacer.skips(claim.subscription)) {
                self.want_key_frame(now, claim.subscription, egress);
            }
        }
        claims.clear();
        self.allocator.claims = claims;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.subscriptions = subscriptions;
        let due = (budget.is_some() || sized).then(|| now.at + ALLOCATION_INTERVAL);
        peer.spending.patience = patience;
        // With what must be to spare, and a little more.
        peer.spending.wanted_bps = wanted.saturating_mul(100 + RAISE_SPARE + 5) / 100;
        (peer.spending.due, peer.spending.spent_bps, peer.spending.limits) = (due, spent, limits);
        if let Some(at) = due {
            self.arm(slot, at);
        }
    }

    /// What a share means to the selection of packets.
    fn limit_of(&self, now: Instant, claim: &Claim, budget: Option<u64>, spent: u64) -> Limit {
        let rung = match (budget, claim.share) {
            (Some(_), Share::Upto(rung)) => rung,
            (Some(_), Share::Nothing) => return Limit { paused: true, ..Limit::default() },
            // By how large it is shown; without that there is nobody to look whether more comes.
            _ if claim.sized => {
                let Rung { encoding, target } = claim.wanted;
                return Limit { encoding, target, ..Limit::default() };
            }
            _ => return Limit::default(),
        };
        let subscription = self.subscriptions.get(claim.subscription);
        let source = subscription.and_then(|subscription| subscription.publication);
        let source = source.and_then(|source| self.publications.get(source));
        let active = source.map(|publication| publication.active(now)).unwrap_or_default();
        // What it would get instead while its own does not come; what it still gets besides.
        let Rung { encoding, target } = rung;
        let above =
            (encoding.saturating_add(1)..ENCODINGS_PER_PUBLICATION as u8).find(|n| active.has(*n));
        let current = subscription.and_then(|subscription| subscription.selector.current());
        let instead = current.filter(|current| *current > encoding).or(above);
        let encodings = source.map(|publication| publication.encodings.as_slice());
        let instead = encodings.unwrap_or_default().get(usize::from(instead.unwrap_or(u8::MAX)));
        let instead = instead.map_or(0, |encoding| {
            encoding.inner.bps(encoding.rate.bps().unwrap_or(0), FEW_PICTURES)
        });
        let with = spent.saturating_sub(claim.rate(Some(rung))).saturating_add(instead);
        let strict =
            with.saturating_mul(100) > budget.unwrap_or(u64::MAX).saturating_mul(OVERSPENT);
        Limit { paused: false, encoding, target, strict }
    }
}

/// What a subscription claims; `None` while its publication has nothing to claim.
fn claim(
    now: Instant,
    slot: u32,
    subscription: &Subscription,
    publication: &Publication,
    speaks: bool,
) -> Option<Claim> {
    let preferences = subscription.selector.preferences();
    let heights = publication.encodings.iter().map(|encoding| encoding.height);
    let enough = preferences.height.map_or(u8::MAX, |shown| enough(heights, shown));
    let top = ENCODINGS_PER_PUBLICATION as u8 - 1;
    let max = preferences.layer_max.unwrap_or(u8::MAX).min(enough).min(top);
    let share = subscription.allotment.share;
    let enough = publication.layers_enough(preferences.height);
    let most = subscription.selector.preferred_layers().within(enough);
    let ladder = publication.ladder(now, most, share.rung());
    // Rather one that is better than wanted than none.
    let wanted = ladder.best_of(max)?;
    let rank = Rank {
        pinned: preferences.pinned,
        priority: preferences.priority,
        speaks,
        height: preferences.height.unwrap_or(HEIGHT_ASSUMED),
    };
    let sized = preferences.height.is_some();
    Some(Claim { subscription: slot, rank, ladder, wanted, sized, share, soon: None })
}

impl Publication {
    /// Looks at how much its encodings carry.
    pub(crate) fn sample(&mut self, now: Instant) {
        for (number, encoding) in (0..).zip(&mut self.encodings) {
            if encoding.rate.sample(now, encoding.bytes, self.demand.is_stopped(number)) {
                encoding.inner.sample();
            }
        }
    }

    /// Bits per second of all encodings that carry packets.
    fn carries(&self, now: Instant) -> u64 {
        let active = self.encodings.iter().filter(|encoding| encoding.is_active(now));
        active.filter_map(|encoding| encoding.rate.bps()).sum()
    }

    /// Of a single stream with spatial layers those that are as large as it is shown, if that is known.
    fn layers_enough(&self, shown: Option<u16>) -> Target {
        let [only] = self.encodings.as_slice() else { return Target::BEST };
        let layers = only.layering.spatial_layers().zip(shown);
        let Some((layers, shown)) = layers else { return Target::BEST };
        let heights = (1..=layers).map(|layer| only.height.filter(|_| layer == layers));
        match enough(heights, shown) {
            spatial if spatial.saturating_add(1) < layers => Target::new(spatial, u8::MAX),
            _ => Target::BEST,
        }
    }

    /// Each encoding that is to be had, that carries packets, or would if it were asked for; and what of it, `most` at most.
    fn ladder(&self, now: Instant, most: Target, has: Option<Rung>) -> Ladder {
        let active = self.active(now);
        let begun = self.encodings.iter().any(|encoding| encoding.active_at.is_some());
        let several = self.encodings.len() > 1;
        let mut encodings = self.encodings.iter();
        let guesses = GUESSED_BPS.map(|guess| if several { guess } else { 0 });
        let mut number = 0_u8;
        let known = guesses.map(|guess| {
            let encoding = encodings.next()?;
            let known = active.has(number) || !begun || self.demand.may_come(number, now);
            number += 1;
            known.then(|| (encoding.rate.bps().unwrap_or(guess), &encoding.inner))
        });
        Ladder::new(known, most, has)
    }
}
