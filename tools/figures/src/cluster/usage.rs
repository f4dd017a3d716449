//! Whether what is recorded is what clients used, while agents and the Redis of the events die.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use strait_client::{Client, Descriptor, Event};

use super::bed::Bed;
use super::failover;
use crate::figure::{CLUSTER_USAGE, Figure};

/// Clients that come and go at the same time.
const CLIENTS: u64 = 24;
/// For how long.
const LASTS: Duration = Duration::from_secs(180);
/// Scopes at a time, and for how long each is joined.
const SCOPES: u64 = 4;
const SCOPE_LASTS: Duration = Duration::from_secs(15);
/// The longest stay, and the longest pause before the next.
const STAY_MS: u64 = 20_000;
const PAUSE_MS: u64 = 2_000;
/// What dies.
const VICTIMS: [&str; 3] = ["agent-1", "agent-2", "redis-events"];
/// How long a client may take to be let in, and to be gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the last events may take to the store: an agent that died is noticed after ten seconds.
const SETTLES: Duration = Duration::from_secs(90);
/// And how long nothing may change after that: what comes twice counts once.
const STAYS_SO: Duration = Duration::from_secs(20);

/// Seconds of all clients in each scope.
type Usage = BTreeMap<String, f64>;

/// Measures it.
pub fn measure(bed: &Bed) -> io::Result<[Figure; 1]> {
    let ends = Arc::<AtomicBool>::default();
    let began = Instant::now();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let at = failover::descriptor(bed, String::new(), format!("guest-{number}"))?;
        let ends = Arc::clone(&ends);
        clients.push(thread::spawn(move || come_and_go(&at, number, began, &ends)));
    }
    let kills = kill(bed, began);
    ends.store(true, Ordering::Relaxed);
    let (mut counted, mut stays) = (Usage::new(), 0);
    for client in clients {
        let ended = client.join().map_err(|_| io::Error::other("a client panicked"))?;
        for (scope, seconds) in ended? {
            *counted.entry(scope).or_default() += seconds;
            stays += 1;
        }
    }
    let kills = kills?;
    let since = Instant::now();
    while off(&counted, &told(bed, &counted)?) > 1.0 && since.elapsed() < SETTLES {
        thread::sleep(Duration::from_secs(2));
    }
    let settled = since.elapsed().as_secs_f64();
    thread::sleep(STAYS_SO);
    let told = told(bed, &counted)?;
    let sum = |usage: &Usage| usage.values().sum::<f64>();
    let how = format!(
        "{stays} stays of native clients in {} sessions, {kills} kills of agents and the Redis of \
         the events in {} s: counted {:.1} s, recorded {:.1} s, {settled:.0} s after the last left",
        counted.len(),
        LASTS.as_secs(),
        sum(&counted),
        sum(&told)
    );
    Ok([CLUSTER_USAGE.measured(off(&counted, &told), how)])
}

/// The largest difference of a session, in seconds.
fn off(counted: &Usage, told: &Usage) -> f64 {
    let each = counted
        .iter()
        .map(|(scope, seconds)| (seconds - told.get(scope).copied().unwrap_or_default()).abs());
    each.fold(0.0, f64::max)
}

/// What the API says of these scopes.
fn told(bed: &Bed, scopes: &Usage) -> io::Result<Usage> {
    let token = bed.operator_token()?;
    let seconds = |scope: &String| {
        let path = format!("/api/v1/sessions?application=dev&scope={scope}");
        let answer = bed.get(&path, &token)?;
        let items = answer.get("items").and_then(serde_json::Value::as_array);
        let seconds = items.into_iter().flatten().filter_map(|s| s["participantSeconds"].as_f64());
        Ok((scope.clone(), seconds.sum()))
    };
    scopes.keys().map(seconds).collect()
}

/// Kills and starts again until the time is over. Returns how often.
fn kill(bed: &Bed, began: Instant) -> io::Result<u32> {
    let mut random = Random(7);
    let mut kills = 0;
    while began.elapsed() < LASTS {
        let victim = VICTIMS[random.below(VICTIMS.len() as u64) as usize];
        bed.strait(&["kill", victim])?;
        kills += 1;
        thread::sleep(Duration::from_millis(random.below(3_000)));
        bed.strait(&["start", victim])?;
        thread::sleep(Duration::from_millis(1_000 + random.below(4_000)));
    }
    Ok(kills)
}

/// One client after the other, until they are to end. Scope and seconds of each stay, from hearing
/// that it is in to saying that it leaves.
fn come_and_go(
    at: &Descriptor,
    number: u64,
    began: Instant,
    ends: &AtomicBool,
) -> io::Result<Vec<(String, f64)>> {
    let mut random = Random(number + 1);
    let mut stays = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let slot = began.elapsed().as_secs() / SCOPE_LASTS.as_secs();
        let mut at = at.clone();
        at.config.scope_id = format!("usage-{slot}-{}", random.below(SCOPES));
        let scope = at.config.scope_id.clone();
        let (to_us, events) = sync_channel(64);
        let on_event = move |event: Event| match event {
            Event::Joined { .. } | Event::Ended(_) => drop(to_us.try_send((event, Instant::now()))),
            _ => {}
        };
        let client = Client::connect(at, on_event).map_err(io::Error::other)?;
        let there = joined(&events)?;
        thread::sleep(Duration::from_millis(200 + random.below(STAY_MS)));
        let left = Instant::now();
        drop(client);
        stays.push((scope, (left - there).as_secs_f64()));
        // Whoever came back in between was away for a while.
        if events.try_iter().any(|(event, _)| matches!(event, Event::Joined { .. })) {
            return Err(io::Error::other("a client lost its link: the machine is too busy"));
        }
        thread::sleep(Duration::from_millis(random.below(PAUSE_MS)));
    }
    Ok(stays)
}

fn joined(events: &Receiver<(Event, Instant)>) -> io::Result<Instant> {
    match events.recv_timeout(PATIENCE) {
        Ok((Event::Joined { .. }, at)) => Ok(at),
        other => Err(io::Error::other(format!("a client was not let in: {other:?}"))),
    }
}

/// Numbers that look random: the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % end.max(1)
    }
}
