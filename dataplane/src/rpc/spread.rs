//! A scope that is too large for one worker: its further peers live on others, which get mirrors of what they subscribe to.

use super::{State, missing, of_mailbox};
use crate::limits::{MIRROR_IDLE, SPREAD_WEIGHTS};
use crate::mailbox::{MailboxError, Request};
use crate::registry::{Contents, Scope};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use strait_core::command::{Command, CommandError, Kind, WorkerId};
use strait_core::limits::MIRRORS_PER_PUBLICATION;
use tonic::Status;

/// Where the next peer of a scope is to live; `None` for the scope's own worker.
///
/// A worker that does not take the scope in is no reason to refuse the peer, as long as its own does.
pub(super) async fn place(state: &State, scope: &Scope, contents: &mut Contents) -> Option<usize> {
    let worker =
        choose(state, scope.worker(), contents).filter(|worker| *worker != scope.worker())?;
    if contents.spread.contains(&worker) {
        return Some(worker);
    }
    let command = Command::CreateScope { scope: scope.id };
    match state.workers.get(worker)?.command(command).await {
        Ok(()) | Err(MailboxError::Refused(CommandError::Exists(_))) => {
            contents.spread.insert(worker);
            state.registry.note_spread(worker, true);
            let streams_max = contents.audio_streams_max;
            if streams_max > 0 {
                let command = Command::LimitAudio { scope: scope.id, streams_max };
                if let Err(error) = state.workers.get(worker)?.command(command).await {
                    tracing::warn!(scope = scope.name, worker, "its audio is not limited: {error}");
                }
            }
            tracing::info!(scope = scope.name, worker, "spread: it is large for its worker");
            Some(worker)
        }
        Err(error) => {
            tracing::warn!(scope = scope.name, worker, "not spread: {error}");
            None
        }
    }
}

/// The scope's own worker while that has room; then one that has some and knows the scope already, since each further one
/// is one more copy of every packet; then the one with the fewest peers; then the one that carries the least of the scope.
/// A worker that does not answer is none of them.
fn choose(state: &State, home: usize, contents: &Contents) -> Option<usize> {
    let workers = state.workers.len();
    if workers < 2 {
        return None;
    }
    let (_, full) = SPREAD_WEIGHTS;
    let limit = state.subscriptions_per_worker.saturating_mul(full);
    let carried = carried(contents, home);
    let carries = |worker: usize| carried.get(&worker).copied().unwrap_or(0);
    if carries(home) < limit {
        return Some(home);
    }
    let loads = state.registry.loads();
    let spread = &contents.spread;
    let stalled: BTreeSet<usize> = state.health.stalled().collect();
    let can_grow = spread.len() < MIRRORS_PER_PUBLICATION;
    let may = |worker: &usize| {
        let known = *worker == home || spread.contains(worker);
        (known || can_grow) && !stalled.contains(worker)
    };
    let peers = |worker: usize| loads.get(worker).map_or(usize::MAX, |load| load.peers);
    (0..workers)
        .filter(|worker| may(worker) && carries(*worker) < limit)
        .min_by_key(|worker| (!spread.contains(worker), peers(*worker)))
        .or_else(|| (0..workers).filter(may).min_by_key(|worker| carries(*worker)))
}

/// How much of a scope each worker carries, in [`SPREAD_WEIGHTS`]. A peer without subscriptions counts as if it had one:
/// it is likely to subscribe in a moment.
fn carried(contents: &Contents, home: usize) -> BTreeMap<usize, u32> {
    let (sound, picture) = SPREAD_WEIGHTS;
    let mut of_peers: BTreeMap<&str, u32> =
        contents.peers.keys().map(|name| (name.as_str(), 0)).collect();
    for subscription in contents.subscriptions.values().filter(|s| s.publication.is_some()) {
        if let Some(weight) = of_peers.get_mut(subscription.peer.as_str()) {
            *weight = weight.saturating_add(match subscription.kind {
                Kind::Audio => sound,
                Kind::Video => picture,
            });
        }
    }
    let mut carried = BTreeMap::new();
    for (name, weight) in of_peers {
        let on_worker: &mut u32 = carried.entry(contents.worker_of(name, home)).or_default();
        *on_worker = on_worker.saturating_add(weight.max(picture));
    }
    carried
}

/// Makes sure that peers on `worker` can subscribe to a publication.
pub(super) async fn mirror(
    state: &State,
    scope: &Scope,
    contents: &mut Contents,
    publication: Option<&str>,
    worker: usize,
) -> Result<(), Status> {
    let Some(name) = publication else { return Ok(()) };
    let entry = contents.publications.get(name).ok_or_else(|| missing("publication", name))?;
    let publisher = contents.peers.get(&entry.peer);
    let publisher = publisher.ok_or_else(|| missing("publication", name))?;
    let origin = publisher.away.unwrap_or(scope.worker());
    if origin == worker {
        return Ok(());
    }
    if !entry.mirrors.contains_key(&worker) {
        let id = entry.id;
        let described = entry.description.clone();
        let command = Command::Mirror {
            scope: scope.id,
            publication: id,
            origin: number(origin),
            publisher: publisher.id,
            kind: described.kind,
            codecs: described.codecs,
            extensions: described.extensions,
            encodings: described.encodings,
            muted: entry.muted,
            as_sent: publisher.plain,
        };
        let there = state.numbered(worker)?;
        match there.command(command).await {
            Ok(()) => {}
            // Left over from a call that failed half-way, perhaps in another state.
            Err(MailboxError::Refused(CommandError::Exists(_))) => {
                let command = Command::SetMuted { publication: id, muted: entry.muted };
                there.command(command).await.map_err(of_mailbox)?;
            }
            Err(error) => return Err(of_mailbox(error)),
        }
        let command = Command::StartMirroring { publication: id, to: number(worker) };
        if let Err(error) = state.numbered(origin)?.command(command).await {
            contents.ended.push((id, worker));
            end_mirrors(state, contents);
            return Err(of_mailbox(error));
        }
    }
    if let Some(entry) = contents.publications.get_mut(name) {
        // It is not to end any more, if that was still to be told.
        contents.ended.retain(|ended| *ended != (entry.id, worker));
        entry.mirrors.insert(worker, None);
    }
    Ok(())
}

/// Ends the mirrors of publications that ended. Who has no room to be told is told at the next sweep.
pub(super) fn end_mirrors(state: &State, contents: &mut Contents) {
    contents.ended.retain(|(publication, worker)| {
        let Some(mailbox) = state.workers.get(*worker) else { return false };
        let command = Command::Unpublish { publication: *publication };
        mailbox.send(Request::Command(Box::new(command), None)).is_err()
    });
}

/// Ends what scopes that were spread do not need any more.
pub(super) async fn sweep(state: &State, now: Instant) {
    for scope in state.registry.scopes() {
        let mut contents = scope.state.lock().await;
        let is_spread = !contents.spread.is_empty() || !contents.ended.is_empty();
        if is_spread && !contents.disposed {
            end_mirrors(state, &mut contents);
            end_idle(state, &scope, &mut contents, now).await;
            leave(state, &scope, &mut contents).await;
        }
    }
}

/// Ends mirrors that had no subscribers for [`MIRROR_IDLE`].
async fn end_idle(state: &State, scope: &Arc<Scope>, contents: &mut Contents, now: Instant) {
    let used: BTreeSet<(&str, usize)> = contents
        .subscriptions
        .values()
        .filter_map(|entry| {
            let worker = contents.worker_of(&entry.peer, scope.worker());
            Some((entry.publication.as_deref()?, worker))
        })
        .collect();
    let unused = contents.publications.iter().flat_map(|(name, entry)| {
        let workers = entry.mirrors.keys().filter(|worker| !used.contains(&(name, **worker)));
        workers.map(|worker| (name.clone(), *worker))
    });
    let unused: BTreeSet<(String, usize)> = unused.collect();
    let mut idle = Vec::new();
    for (name, entry) in &mut contents.publications {
        for (worker, since) in &mut entry.mirrors {
            let is_used = !unused.contains(&(name.clone(), *worker));
            *since = if is_used { None } else { since.or(Some(now)) };
            if since.is_some_and(|since| now.saturating_duration_since(since) >= MIRROR_IDLE) {
                idle.push((name.clone(), *worker));
            }
        }
    }
    for (name, worker) in idle {
        if !stop(state, scope, contents, &name, worker).await {
            break;
        }
    }
}

/// Forgets the scope on workers where nobody of it lives any more.
async fn leave(state: &State, scope: &Arc<Scope>, contents: &mut Contents) {
    let lived_on: BTreeSet<usize> = contents.peers.values().filter_map(|peer| peer.away).collect();
    let left: Vec<usize> = contents.spread.difference(&lived_on).copied().collect();
    'workers: for worker in left {
        let mirrored = contents.publications.iter();
        let mirrored = mirrored.filter(|(_, entry)| entry.mirrors.contains_key(&worker));
        for name in mirrored.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            // What its worker still feeds must stay in the books: the next one to subscribe needs it.
            if !stop(state, scope, contents, &name, worker).await {
                continue 'workers;
            }
        }
        let Some(mailbox) = state.workers.get(worker) else { continue };
        match mailbox.command(Command::DisposeScope { scope: scope.id }).await {
            Ok(()) | Err(MailboxError::Refused(CommandError::NotFound(_))) => {
                contents.spread.remove(&worker);
                state.registry.note_spread(worker, false);
            }
            // Again at the next sweep.
            Err(error) => tracing::debug!(scope = scope.name, worker, "still spread: {error}"),
        }
    }
}

/// Ends one mirror; whether that is done. Who cannot be told now is told at the next sweep.
async fn stop(
    state: &State,
    scope: &Arc<Scope>,
    contents: &mut Contents,
    publication: &str,
    worker: usize,
) -> bool {
    let Some(entry) = contents.publications.get(publication) else { return true };
    let (id, origin) = (entry.id, contents.worker_of(&entry.peer, scope.worker()));
    let command = Command::StopMirroring { publication: id, to: number(worker) };
    // A worker that hangs would have the scope, and with it the events of all, wait for it.
    if state.health.stalled().any(|stalled| stalled == origin) {
        return false;
    }
    let Some(mailbox) = state.workers.get(origin) else { return true };
    match mailbox.command(command).await {
        Ok(()) | Err(MailboxError::Refused(CommandError::NotFound(_))) => {}
        Err(_) => return false,
    }
    if let Some(entry) = contents.publications.get_mut(publication) {
        entry.mirrors.remove(&worker);
    }
    contents.ended.push((id, worker));
    end_mirrors(state, contents);
    true
}

fn number(worker: usize) -> WorkerId {
    WorkerId(u16::try_from(worker).unwrap_or(u16::MAX))
}

const _: () = assert!(crate::limits::WORKERS <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Inbox;
    use crate::registry::testing::{peer, publication};
    use crate::registry::{Peer, Subscription};
    use crate::rpc::testing;
    use std::time::Duration;
    use strait_core::command::SubscriptionId;

    fn subscription(peer: &str, publication: &str, kind: Kind) -> Subscription {
        let publication = Some(publication.to_owned());
        Subscription { id: SubscriptionId(1), peer: peer.into(), publication, kind }
    }

    fn away(id: u32, worker: usize) -> Peer {
        Peer { away: Some(worker), ..peer(id) }
    }

    /// What the workers are told while `work` goes on; they do it all.
    async fn told(inboxes: &[Inbox], work: impl Future<Output = ()>) -> Vec<(usize, Command)> {
        let mut told = Vec::new();
        let mut obey = || {
            for (worker, inbox) in inboxes.iter().enumerate() {
                while let Some(request) = inbox.take() {
                    let Request::Command(command, reply) = request else { continue };
                    told.push((worker, *command));
                    let _ = reply.map(|reply| reply.send(Ok(())));
                }
            }
        };
        let obeying = async {
            loop {
                obey();
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = work => {}, () = obeying => {} }
        obey();
        told
    }

    #[tokio::test]
    async fn further_peers_live_elsewhere_once_the_home_carries_enough() {
        let (mailboxes, inboxes, _bound) = testing::workers(3);
        let state = testing::state_with(mailboxes, 2);
        let scope = state.registry.place("room").unwrap();
        let home = scope.worker();
        let mut contents = scope.state.lock().await;
        assert_eq!(choose(&state, home, &contents), Some(home), "empty");
        contents.peers.insert("ann".into(), peer(1));
        // Eleven sounds and more weigh less than two pictures.
        for n in 0..6 {
            contents.subscriptions.insert(n.to_string(), subscription("ann", "x", Kind::Audio));
        }
        assert_eq!(choose(&state, home, &contents), Some(home));
        for n in 6..12 {
            contents.subscriptions.insert(n.to_string(), subscription("ann", "x", Kind::Audio));
        }
        let other = choose(&state, home, &contents).unwrap();
        assert_ne!(other, home);
        // The one with fewer peers of whatever scope.
        state.registry.note_peer(strait_core::command::PeerId(99), &scope, Some(other));
        let third = choose(&state, home, &contents).unwrap();
        assert!(![home, other].contains(&third));
        // A peer that does not subscribe yet counts: it is about to.
        for (id, worker) in [(2, other), (3, third), (4, other), (5, third)] {
            contents.peers.insert(id.to_string(), away(id, worker));
        }
        contents.peers.insert("6".to_owned(), away(6, other));
        // All are full: the one that carries the least.
        contents.subscriptions.insert("more".into(), subscription("ann", "x", Kind::Audio));
        assert_eq!(choose(&state, home, &contents), Some(third));

        let placed = std::cell::Cell::new(None);
        let commands = told(&inboxes, async {
            placed.set(place(&state, &scope, &mut contents).await);
            place(&state, &scope, &mut contents).await;
        });
        let commands = commands.await;
        assert_eq!(placed.get(), Some(third));
        assert!(
            matches!(&commands[..], [(worker, Command::CreateScope { scope: id })]
                if *worker == third && *id == scope.id),
            "once: {commands:?}"
        );
        state.handshakes.stop();
    }

    #[tokio::test]
    async fn further_peers_share_as_few_workers_as_carry_them_and_none_that_hangs() {
        let (mailboxes, inboxes, _bound) = testing::workers(4);
        let state = testing::state_with(mailboxes, 3);
        let scope = state.registry.place("room").unwrap();
        let home = scope.worker();
        let hung = (home + 1) % 4;
        state.health.stall(hung);
        let mut contents = scope.state.lock().await;
        let mut lives_on = BTreeMap::<usize, usize>::new();
        for id in 1..=9 {
            let away = std::cell::Cell::new(None);
            told(&inboxes, async { away.set(place(&state, &scope, &mut contents).await) }).await;
            let worker = away.get().unwrap_or(home);
            *lives_on.entry(worker).or_default() += 1;
            let number = strait_core::command::PeerId(id);
            state.registry.note_peer(number, &scope, away.get());
            contents.peers.insert(id.to_string(), Peer { away: away.get(), ..peer(id) });
            let others = lives_on.keys().filter(|worker| **worker != home).count();
            assert_eq!(others, [0, 1, 2][(id as usize - 1) / 3], "three each: {lives_on:?}");
        }
        assert!(!lives_on.contains_key(&hung), "{lives_on:?}");
        state.handshakes.stop();
    }

    #[tokio::test]
    async fn a_mirror_whose_origin_hangs_stays_in_the_books_with_its_worker() {
        let (mailboxes, inboxes, _bound) = testing::workers(2);
        let state = testing::state_with(mailboxes, 2);
        let scope = state.registry.place("room").unwrap();
        let (home, other) = (scope.worker(), 1 - scope.worker());
        {
            let mut contents = scope.state.lock().await;
            contents.peers.insert("ann".into(), peer(1));
            let mut mirrored = publication(7, "ann");
            mirrored.mirrors.insert(other, None);
            contents.publications.insert("voice".into(), mirrored);
            contents.spread.insert(other);
        }
        state.health.stall(home);
        let commands = told(&inboxes, sweep(&state, Instant::now())).await;
        assert!(commands.is_empty(), "{commands:?}");
        let contents = scope.state.lock().await;
        assert!(contents.spread.contains(&other));
        assert!(contents.publications["voice"].mirrors.contains_key(&other));
        drop(contents);
        state.handshakes.stop();
    }

    #[tokio::test]
    async fn one_worker_has_nowhere_to_spread_to() {
        let (mailboxes, _inboxes, _bound) = testing::workers(1);
        let state = testing::state_with(mailboxes, 1);
        let scope = state.registry.place("room").unwrap();
        let mut contents = scope.state.lock().await;
        for id in 0..9 {
            contents.peers.insert(id.to_string(), peer(id));
        }
        assert_eq!(place(&state, &scope, &mut contents).await, None);
        state.handshakes.stop();
    }

    #[tokio::test]
    async fn mirrors_are_made_once_and_end_with_their_use() {
        let (mailboxes, inboxes, _bound) = testing::workers(2);
        let state = testing::state_with(mailboxes, 2);
        let scope = state.registry.place("room").unwrap();
        let (home, other) = (scope.worker(), 1 - scope.worker());
        {
            let mut contents = scope.state.lock().await;
            contents.peers.insert("ann".into(), peer(1));
            contents.peers.insert("bob".into(), away(2, other));
            contents.publications.insert("voice".into(), publication(7, "ann"));
            contents.spread.insert(other);
            let commands = told(&inboxes, async {
                for worker in [home, other, other] {
                    let contents = &mut contents;
                    mirror(&state, &scope, contents, Some("voice"), worker).await.unwrap();
                    mirror(&state, &scope, contents, None, worker).await.unwrap();
                }
            });
            let commands = commands.await;
            let [(at, Command::Mirror { .. }), (from, Command::StartMirroring { to, .. })] =
                &commands[..]
            else {
                panic!("{commands:?}");
            };
            assert_eq!((*at, *from, usize::from(to.0)), (other, home, other));
            contents.subscriptions.insert("s".into(), subscription("bob", "voice", Kind::Audio));
        }
        let start = Instant::now();
        let swept = |after: Duration| told(&inboxes, sweep(&state, start + after));
        assert!(swept(MIRROR_IDLE * 2).await.is_empty(), "in use");
        scope.state.lock().await.subscriptions.clear();
        assert!(swept(MIRROR_IDLE * 2).await.is_empty(), "just now");
        let commands = swept(MIRROR_IDLE * 3).await;
        let [(from, Command::StopMirroring { .. }), (at, Command::Unpublish { .. })] =
            &commands[..]
        else {
            panic!("{commands:?}");
        };
        assert_eq!((*from, *at), (home, other));
        // And the worker forgets the scope with its last peer.
        scope.state.lock().await.remove_peer("bob");
        let commands = swept(MIRROR_IDLE * 3).await;
        assert!(
            matches!(&commands[..], [(at, Command::DisposeScope { .. })] if *at == other),
            "{commands:?}"
        );
        assert!(scope.state.lock().await.spread.is_empty());
        assert!(swept(MIRROR_IDLE * 4).await.is_empty());
        state.handshakes.stop();
    }

    #[tokio::test]
    async fn a_worker_that_could_not_be_told_of_an_end_is_told_later() {
        let (mailboxes, inboxes, _bound) = testing::workers(2);
        let state = testing::state_with(mailboxes, 2);
        let scope = state.registry.place("room").unwrap();
        let other = 1 - scope.worker();
        let mut contents = scope.state.lock().await;
        contents.peers.insert("ann".into(), peer(1));
        let mut mirrored = publication(7, "ann");
        mirrored.mirrors.insert(other, None);
        contents.publications.insert("voice".into(), mirrored);
        while state.workers[other].send(Request::Stop).is_ok() {}
        contents.remove_peer("ann");
        end_mirrors(&state, &mut contents);
        assert_eq!(contents.ended.len(), 1, "no room");
        drop(contents);
        let commands = told(&inboxes, async { while inboxes[other].take().is_some() {} }).await;
        assert!(commands.is_empty());
        let commands = told(&inboxes, sweep(&state, Instant::now())).await;
        assert!(
            matches!(&commands[..], [(at, Command::Unpublish { .. })] if *at == other),
            "{commands:?}"
        );
        assert!(scope.state.lock().await.ended.is_empty());
        state.handshakes.stop();
    }
}
