//! The figures of a call: memory, joins, the first picture.

use std::io;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::browser;
use crate::figure::{
    CALL, Figure, IDLE_PEER_MEMORY, JOIN_TO_FIRST_PICTURE, JOINS_PER_CORE_SECOND,
    VIDEO_SUBSCRIPTION_MEMORY,
};
use crate::peer::{Peer, Role, Server};
use crate::setup::Setup;

/// Peers whose memory is measured: enough that a page more or less does not matter.
const IDLE_PEERS: usize = 500;
/// Peers of one scope, as in a conference.
const PEERS_PER_SCOPE: usize = 10;
/// Peers that join before the count begins: pools, threads and code pages are there by then.
const WARM_PEERS: usize = 30;
/// Joins at a time.
const JOINS_AT_A_TIME: usize = 8;
/// Subscriptions whose memory is measured.
const SUBSCRIPTIONS: usize = 100;
/// Cameras whose publication and retransmission cache are stated, each in a scope of its own.
const CAMERAS: usize = 10;
/// How long things settle before memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// How long media flows before memory is read: every buffer has been used by then.
const FLOW: Duration = Duration::from_secs(6);
/// Frames that every subscriber must have got in that time, or nothing was measured.
const FRAMES_MIN: u64 = 30;

/// Measures all of them, one after the other, each on a fresh setup. Says on stderr what it does.
pub async fn measure() -> Vec<Figure> {
    let mut figures = Vec::new();
    eprintln!("==> {IDLE_PEERS} peers join");
    match idle_peers().await {
        Ok((memory, joins)) => figures.extend([memory, joins]),
        Err(error) => {
            figures.extend([IDLE_PEER_MEMORY.missed(&error), JOINS_PER_CORE_SECOND.missed(&error)])
        }
    }
    eprintln!("==> {SUBSCRIPTIONS} peers watch one camera");
    let watched = video_subscriptions().await;
    figures.push(watched.unwrap_or_else(|error| VIDEO_SUBSCRIPTION_MEMORY.missed(error)));
    eprintln!("==> Chromium joins");
    let picture = first_picture().await;
    figures.push(picture.unwrap_or_else(|error| JOIN_TO_FIRST_PICTURE.missed(error)));
    in_order(figures)
}

/// Every promise once, in the order of docs/specification.md: nothing is left out.
fn in_order(measured: Vec<Figure>) -> Vec<Figure> {
    let find = |name: &str| measured.iter().find(|figure| figure.name == name).cloned();
    CALL.iter()
        .map(|promise| find(promise.name).unwrap_or_else(|| promise.missed("nothing measures it")))
        .collect()
}

async fn idle_peers() -> io::Result<(Figure, Figure)> {
    let setup = Setup::start().await?;
    let _warm = join_many(setup.server, "warm", WARM_PEERS, Role::Silent).await?;
    sleep(SETTLE).await;
    let memory_before = Memory::of(&setup)?;
    let cpu = |setup: &Setup| io::Result::Ok((setup.relay.cpu()?, setup.control.cpu()?));
    let (relay_before, control_before) = cpu(&setup)?;
    let started = Instant::now();
    let peers = join_many(setup.server, "idle", IDLE_PEERS, Role::Silent).await?;
    let took = started.elapsed();
    let (relay_after, control_after) = cpu(&setup)?;
    sleep(SETTLE).await;
    let grown = Memory::of(&setup)?.since(memory_before);
    drop(peers);
    setup.end().await;

    let count = IDLE_PEERS as f64;
    let (relay, control) = (relay_after - relay_before, control_after - control_before);
    let memory = IDLE_PEER_MEMORY.measured(
        kib(grown.relay) / count,
        format!(
            "growth of strait-relay's resident memory over {IDLE_PEERS} connected peers in scopes \
             of {PEERS_PER_SCOPE}, each with one silent audio publication (WHIP), divided by \
             {IDLE_PEERS}; strait-control besides: {:.1} KiB a peer",
            kib(grown.control) / count
        ),
    );
    let joins = JOINS_PER_CORE_SECOND.measured(
        count / (relay + control).as_secs_f64(),
        format!(
            "{IDLE_PEERS} WHIP joins (token, offer, answer, ICE, DTLS, connected), \
             {JOINS_AT_A_TIME} at a time, per CPU second of strait-relay ({:.2} s) and \
             strait-control ({:.2} s); {:.1} s by the clock, clients on the same cores",
            relay.as_secs_f64(),
            control.as_secs_f64(),
            took.as_secs_f64()
        ),
    );
    Ok((memory, joins))
}

async fn video_subscriptions() -> io::Result<Figure> {
    let setup = Setup::start().await?;
    // Other scopes warm the relay up, so that what is read belongs to the peers that count.
    let _warm = join_many(setup.server, "warm", WARM_PEERS, Role::Silent).await?;
    let before_cameras = Memory::of(&setup)?;
    let mut watched = Vec::with_capacity(2 * CAMERAS);
    for n in 0..CAMERAS {
        let scope = format!("camera-{n}");
        watched.push(Peer::join(setup.server, &scope, Role::Camera).await?);
        watched.push(Peer::join(setup.server, &scope, Role::Watch).await?);
    }
    sleep(FLOW).await;
    let before = Memory::of(&setup)?;
    let cameras = before.since(before_cameras);
    let watchers = join_one_scope(setup.server, "camera-0", SUBSCRIPTIONS, Role::Watch).await?;
    sleep(FLOW).await;
    let grown = Memory::of(&setup)?.since(before);
    let fewest = watchers.iter().map(Peer::frames).min().unwrap_or(0);
    drop((watched, watchers));
    setup.end().await;
    if fewest < FRAMES_MIN {
        return Err(io::Error::other(format!(
            "a subscriber got only {fewest} frames in {FLOW:?}: nothing was measured"
        )));
    }
    let count = SUBSCRIPTIONS as f64;
    Ok(VIDEO_SUBSCRIPTION_MEMORY.measured(
        kib(grown.relay) / count,
        format!(
            "growth of strait-relay's resident memory over {SUBSCRIPTIONS} WHEP peers that each \
             watch one VP8 stream, divided by {SUBSCRIPTIONS} (each got at least {fewest} frames); \
             a publisher with its publication, its retransmission cache and one watcher besides: \
             {:.0} KiB (mean of {CAMERAS}); strait-control besides: {:.1} KiB a peer",
            kib(cameras.relay) / CAMERAS as f64,
            kib(grown.control) / count
        ),
    ))
}

async fn first_picture() -> io::Result<Figure> {
    let setup = Setup::start().await?;
    let measured = browser::join_to_first_picture(setup.server).await;
    setup.end().await;
    let mut times = measured?;
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    Ok(JOIN_TO_FIRST_PICTURE.measured(
        median,
        format!(
            "from pressing Join on the page (camera and microphone on) to the first decoded \
             picture of another's camera, Chromium on loopback; median of {} ({})",
            times.len(),
            times.iter().map(|time| format!("{time:.2}")).collect::<Vec<_>>().join(", ")
        ),
    ))
}

/// Peers in scopes of the usual size.
async fn join_many(server: Server, name: &str, count: usize, role: Role) -> io::Result<Vec<Peer>> {
    join(server, count, role, |n| format!("{name}-{}", n / PEERS_PER_SCOPE)).await
}

async fn join_one_scope(
    server: Server,
    name: &str,
    count: usize,
    role: Role,
) -> io::Result<Vec<Peer>> {
    join(server, count, role, |_| name.to_owned()).await
}

async fn join(
    server: Server,
    count: usize,
    role: Role,
    scope: impl Fn(usize) -> String,
) -> io::Result<Vec<Peer>> {
    let (mut peers, mut joining) = (Vec::with_capacity(count), JoinSet::new());
    for n in 0..count {
        while joining.len() >= JOINS_AT_A_TIME {
            peers.extend(joined(&mut joining).await?);
        }
        let scope = scope(n);
        joining.spawn(async move { Peer::join(server, &scope, role).await });
    }
    while !joining.is_empty() {
        peers.extend(joined(&mut joining).await?);
    }
    Ok(peers)
}

async fn joined(joining: &mut JoinSet<io::Result<Peer>>) -> io::Result<Option<Peer>> {
    match joining.join_next().await {
        Some(Ok(peer)) => peer.map(Some),
        Some(Err(error)) => Err(io::Error::other(error)),
        None => Ok(None),
    }
}

/// Resident memory of both processes, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    relay: u64,
    control: u64,
}

impl Memory {
    fn of(setup: &Setup) -> io::Result<Self> {
        let (relay, control) = (&setup.relay, &setup.control);
        Ok(Self { relay: relay.resident_bytes()?, control: control.resident_bytes()? })
    }

    fn since(self, before: Self) -> Self {
        Self {
            relay: self.relay.saturating_sub(before.relay),
            control: self.control.saturating_sub(before.control),
        }
    }
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_promise_is_left_out() {
        let figures = in_order(vec![JOINS_PER_CORE_SECOND.measured(200.0, "")]);
        let names: Vec<&str> = figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names, CALL.iter().map(|promise| promise.name).collect::<Vec<_>>());
        assert_eq!(figures.iter().filter(|figure| figure.ok).count(), 1);
    }
}
