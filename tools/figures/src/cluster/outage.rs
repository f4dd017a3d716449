//! What native clients notice when Redis, SQL and then all of control are away for minutes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use strait_client::v1::{Kind, Publish, auth::Credential, user_event};
use strait_client::{Client, Cluster, Config, Descriptor, Event, Frame, Handle, Resolver, Trust};

use super::bed::{Asker, Bed};
use crate::figure::{
    CLUSTER_OUTAGE_BACK, CLUSTER_OUTAGE_GAP, CLUSTER_OUTAGE_JOINS, CLUSTER_OUTAGE_LOST,
    CLUSTER_OUTAGE_MOVED, Figure,
};
use crate::setup::TOKEN;

/// Scopes, each with one who speaks and some who listen.
const SCOPES: usize = 12;
const LISTENERS: usize = 2;
/// Nodes of the bed.
const NODES: u8 = 3;
const FRAME: Duration = Duration::from_millis(20);
/// How long all may take to hear at first.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long it is looked at that all is well, before and after.
const WELL: Duration = Duration::from_secs(5);
/// A client comes to a scope that there is as often as this while Redis and SQL are away.
const JOIN_EACH: Duration = Duration::from_secs(5);
/// One that does not hear the others by then failed.
const JOIN_WITHIN: Duration = Duration::from_secs(5);
/// How long all may take to come back.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// Events of a client that wait.
const EVENTS: usize = 1024;

/// What a listener heard: each word is numbered.
#[derive(Default)]
struct Heard {
    words: Mutex<Words>,
    /// Words that came.
    count: AtomicU64,
}

#[derive(Default)]
struct Words {
    /// The first and the last, and when that came.
    span: Option<(u32, u32, Instant)>,
    count: u32,
    longest: Duration,
}

struct Member {
    client: Client,
    events: Receiver<Event>,
    heard: Arc<Heard>,
    is_subscribed: bool,
    is_back: bool,
}

/// Measures all five.
pub fn measure(bed: &Bed, minutes: f64) -> io::Result<[Figure; 5]> {
    let mut speakers = Vec::new();
    for scope in 0..SCOPES {
        let speaker = Member::join(found(bed, scope, format!("speaker-{scope}"))?)?.client;
        let publish =
            Publish { kind: Kind::Audio.into(), codec: "opus".into(), ..Publish::default() };
        let voice = speaker.publish(publish).map_err(io::Error::other)?;
        speakers.push((speaker, voice));
    }
    let mut members = Vec::new();
    for number in 0..SCOPES * LISTENERS {
        members.push(Member::join(found(bed, number % SCOPES, format!("listener-{number}"))?)?);
    }
    let ends = &AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(move || speak(&speakers, ends));
        let outcome = go_through(bed, minutes, &mut members);
        ends.store(true, Ordering::Relaxed);
        outcome
    })
}

fn go_through(bed: &Bed, minutes: f64, members: &mut [Member]) -> io::Result<[Figure; 5]> {
    let away = Duration::from_secs_f64(minutes.max(0.0) * 60.0 / 2.0);
    until(START_WITHIN, "all hear", || {
        members.iter_mut().try_for_each(Member::follow)?;
        Ok(members.iter().all(|one| one.heard.count.load(Ordering::Relaxed) > 0))
    })?;
    for one in members.iter() {
        // What is missing of the time in which streams began is not asked for.
        *one.heard.words() = Words::default();
    }
    thread::sleep(WELL);
    let before = places(bed)?;

    eprintln!("    Redis and MariaDB are killed");
    bed.strait(&["kill", "redis"])?;
    bed.strait(&["kill", "mariadb"])?;
    let (mut joins, mut failed) = (0_u32, 0_u32);
    let since = Instant::now();
    while since.elapsed() < away {
        let scope = usize::try_from(joins).unwrap_or_default() % SCOPES;
        let at = before.get(&scope).cloned().unwrap_or_default();
        joins += 1;
        if let Err(error) = comes_to(bed, scope, &at) {
            eprintln!("    a join failed: {error}");
            failed += 1;
        }
        thread::sleep(JOIN_EACH.min(away.saturating_sub(since.elapsed())));
    }
    eprintln!("    and strait-control on all nodes; {joins} joined meanwhile");
    for node in 1..=NODES {
        bed.strait(&["kill", &format!("control-{node}")])?;
    }
    thread::sleep(away);
    members.iter_mut().for_each(|one| one.is_back = false);
    members.iter_mut().try_for_each(Member::follow)?;

    eprintln!("    all are started again");
    bed.strait(&["start", "redis"])?;
    bed.strait(&["start", "mariadb"])?;
    for node in 1..=NODES {
        bed.strait(&["start", &format!("control-{node}")])?;
    }
    let started = Instant::now();
    until(BACK_WITHIN, "all are back in their sessions", || {
        members.iter_mut().try_for_each(Member::follow)?;
        Ok(members.iter().all(|one| one.is_back))
    })?;
    until(BACK_WITHIN, "a new scope is placed", || {
        let answer = Asker::connect(bed.http(1)).and_then(|mut asker| asker.resolve("after"));
        Ok(matches!(answer, Ok((200, _))))
    })?;
    let back = started.elapsed();
    thread::sleep(WELL);

    let (mut lost, mut count, mut longest) = (0, 0, Duration::ZERO);
    for one in members.iter() {
        let words = one.heard.words();
        let Some((first, last, at)) = words.span else { continue };
        lost += (last - first + 1).saturating_sub(words.count);
        count += words.count;
        longest = longest.max(words.longest).max(at.elapsed());
    }
    let after = places(bed)?;
    let moved = before.iter().filter(|(scope, at)| after.get(scope) != Some(at)).count();
    let how = format!(
        "{} native clients in {SCOPES} scopes on {NODES} nodes; Redis and MariaDB killed for \
         {:.1} min, all strait-control too for {:.1} min of it; {count} packets heard",
        SCOPES * (LISTENERS + 1),
        2.0 * away.as_secs_f64() / 60.0,
        away.as_secs_f64() / 60.0,
    );
    Ok([
        CLUSTER_OUTAGE_LOST.measured(f64::from(lost), &how),
        CLUSTER_OUTAGE_GAP.measured(longest.as_secs_f64(), &how),
        CLUSTER_OUTAGE_JOINS
            .measured(f64::from(failed), format!("{joins} joins to scopes that were there")),
        CLUSTER_OUTAGE_MOVED.measured(moved as f64, &how),
        CLUSTER_OUTAGE_BACK.measured(back.as_secs_f64(), how),
    ])
}

/// Waits until it is so.
fn until(
    within: Duration,
    what: &str,
    mut is_so: impl FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    let since = Instant::now();
    while !is_so()? {
        if since.elapsed() > within {
            return Err(io::Error::other(format!("not within {} s: {what}", within.as_secs())));
        }
        thread::sleep(FRAME);
    }
    Ok(())
}

/// The node of each scope, as all CnCs say.
fn places(bed: &Bed) -> io::Result<HashMap<usize, String>> {
    let mut places = HashMap::new();
    for node in 1..=NODES {
        let mut asker = Asker::connect(bed.http(node))?;
        for scope in 0..SCOPES {
            let (status, at) = asker.resolve(&name(scope))?;
            if status != 200 {
                return Err(io::Error::other(format!("/resolve: {status}: {at}")));
            }
            if places.entry(scope).or_insert_with(|| at.clone()) != &at {
                places.insert(scope, format!("two nodes, {at} among them"));
            }
        }
    }
    Ok(places)
}

/// A client without a CnC comes to a scope that there is, hears somebody, and leaves.
fn comes_to(bed: &Bed, scope: usize, at: &str) -> io::Result<()> {
    let at: SocketAddr = at.parse().map_err(io::Error::other)?;
    let mut descriptor = descriptor(bed, scope, "guest".into(), None);
    (descriptor.config.host, descriptor.config.port) = (at.ip().to_string(), at.port());
    let mut guest = Member::join(descriptor)?;
    until(JOIN_WITHIN, "a guest hears the others", || {
        guest.follow()?;
        Ok(guest.heard.count.load(Ordering::Relaxed) > 0)
    })
}

fn name(scope: usize) -> String {
    format!("outage-{scope}")
}

fn found(bed: &Bed, scope: usize, peer: String) -> io::Result<Descriptor> {
    let resolver = |node| {
        let url = format!("http://{}", bed.http(node));
        Resolver::parse(&url).ok_or_else(|| io::Error::other(format!("{url} is no CnC")))
    };
    let resolvers = (1..=NODES).map(resolver).collect::<io::Result<_>>()?;
    let (application_id, region) = ("dev".into(), String::new());
    let cluster = Cluster { resolvers, application_id, region };
    Ok(descriptor(bed, scope, peer, Some(cluster)))
}

fn descriptor(bed: &Bed, scope: usize, peer: String, cluster: Option<Cluster>) -> Descriptor {
    Descriptor {
        config: Config {
            host: String::new(),
            port: 0,
            credential: Credential::Token(TOKEN.into()),
            scope_id: name(scope),
            name: peer,
            client: "figures".into(),
            profiles: Vec::new(),
            relay_only: true,
            cluster,
        },
        trust: Trust::CaFile(bed.certificates()),
        proxy: None,
        udp: true,
        quic: None,
    }
}

impl Member {
    fn join(descriptor: Descriptor) -> io::Result<Self> {
        let heard = Arc::<Heard>::default();
        let (to_us, events) = sync_channel(EVENTS);
        let at = Arc::clone(&heard);
        let on_event = move |event: Event| match event {
            Event::Payload(payload) => at.hear(&payload.payload),
            // What finds no room is told again when the client is back.
            event => drop(to_us.try_send(event)),
        };
        let client = Client::connect(descriptor, on_event).map_err(io::Error::other)?;
        Ok(Self { client, events, heard, is_subscribed: false, is_back: false })
    }

    /// Subscribes to the first stream that it is told of, and notes whether it is back.
    fn follow(&mut self) -> io::Result<()> {
        while let Ok(event) = self.events.try_recv() {
            let id = match &event {
                Event::Joined { peers, resumed, .. } => {
                    self.is_back |= *resumed;
                    let mut all = peers.iter().flat_map(|peer| &peer.publications);
                    all.next().map(|publication| publication.publication_id.clone())
                }
                Event::Scope(user_event::Body::Started(started)) => {
                    started.publication.as_ref().map(|it| it.publication_id.clone())
                }
                Event::Ended(error) => return Err(io::Error::other(error.to_string())),
                _ => None,
            };
            if let Some(id) = id.filter(|_| !self.is_subscribed) {
                self.client.subscribe(&id, true).map_err(io::Error::other)?;
                self.is_subscribed = true;
            }
        }
        Ok(())
    }
}

impl Heard {
    fn words(&self) -> std::sync::MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, payload: &[u8]) {
        let Ok(number) = payload.try_into().map(u32::from_be_bytes) else { return };
        self.count.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut words = self.words();
        words.count += 1;
        if let Some((first, last, at)) = words.span {
            words.longest = words.longest.max(now - at);
            words.span = Some((first.min(number), last.max(number), now));
        } else {
            words.span = Some((number, number, now));
        }
    }
}

/// All speak, a numbered word each 20 ms, until they are to end.
fn speak(speakers: &[(Client, Handle)], ends: &AtomicBool) {
    let began = Instant::now();
    for number in 0_u32.. {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let (payload, timestamp) = (number.to_be_bytes(), number.wrapping_mul(960));
        let frame = Frame { payload: &payload, timestamp, marker: number == 0, level: None };
        for (client, voice) in speakers {
            // Not let in yet: what is said then nobody hears.
            let _away = client.send(*voice, 0, &frame);
        }
        let next = began + FRAME * (number + 1);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}
