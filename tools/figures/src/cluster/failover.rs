//! What native clients and browsers hear when their node is killed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use strait_client::v1::{Kind, Publish, auth::Credential, user_event};
use strait_client::{Client, Cluster, Config, Descriptor, Event, Frame, Handle, Resolver, Trust};

use super::bed::{Asker, Bed};
use super::browsers::Browsers;
use crate::figure::{CLUSTER_FAILOVER, CLUSTER_FAILOVER_BROWSERS, CLUSTER_SPLIT, Figure};
use crate::setup::TOKEN;

/// Scopes, each with one who speaks and some who listen.
const SCOPES: usize = 40;
/// Who listens in each: 200 clients with those who speak.
const LISTENERS: usize = 4;
/// The scope of the browsers, behind those.
const OF_BROWSERS: usize = SCOPES;
/// Kills, by turns of the node that the browsers are on and of the one with most scopes.
const KILLS: usize = 20;
/// Nodes of the bed.
const NODES: u8 = 3;
/// A frame of silence in Opus, and how long it is.
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];
const FRAME: Duration = Duration::from_millis(20);
/// How long all may take to hear at first.
const START_WITHIN: Duration = Duration::from_secs(90);
/// How long it is looked at what a kill led to.
const LOOKED_AT: Duration = Duration::from_secs(8);
/// How long a node that was started again may take until it is given scopes.
const SETTLE: Duration = Duration::from_secs(3);
/// Events of a client that wait.
const EVENTS: usize = 256;

/// What a client heard, in microseconds since the beginning.
#[derive(Default)]
struct Heard {
    last: AtomicU64,
    longest: AtomicU64,
}

struct Listener {
    scope: usize,
    client: Client,
    events: Receiver<Event>,
    heard: Arc<Heard>,
    is_subscribed: bool,
}

/// Measures all three.
pub fn measure(bed: &Bed) -> io::Result<[Figure; 3]> {
    bed.allow_pages(NODES)?;
    // Before all others: browsers take the machine for themselves while they start.
    let mut browsers = Browsers::start(bed, &name(OF_BROWSERS), NODES)?;
    let began = Instant::now();
    let speakers: Vec<_> =
        (0..SCOPES).map(|scope| speaker(bed, scope)).collect::<io::Result<_>>()?;
    let mut listeners = Vec::new();
    for number in 0..SCOPES * LISTENERS {
        listeners.push(listener(bed, number, began)?);
    }
    let ends = Arc::new(AtomicBool::new(false));
    let speaking = speak(speakers, Arc::clone(&ends));
    let outcome = kills(bed, &mut listeners, &mut browsers, began);
    ends.store(true, Ordering::Relaxed);
    // It panics as little as it returns anything.
    let _ended = speaking.join();
    outcome
}

fn kills(
    bed: &Bed,
    listeners: &mut [Listener],
    browsers: &mut Browsers,
    began: Instant,
) -> io::Result<[Figure; 3]> {
    let since = Instant::now();
    while listeners.iter().any(|one| one.heard.last.load(Ordering::Relaxed) == 0) {
        if since.elapsed() > START_WITHIN {
            return Err(io::Error::other("not all hear within 90 s of the start"));
        }
        listeners.iter_mut().try_for_each(Listener::subscribe)?;
        thread::sleep(FRAME);
    }
    let (mut silences, mut of_browsers, mut split) = (Vec::new(), Vec::new(), 0_u32);
    for kill in 0..KILLS {
        let before = places(bed, 1)?;
        let place_of = |node: u8| format!("127.0.1.{node}:");
        let scopes =
            |node: u8| before.values().filter(|at| at.starts_with(&place_of(node))).count();
        let has_browsers =
            |node: &u8| before.get(&OF_BROWSERS).is_some_and(|at| at.starts_with(&place_of(*node)));
        let node = match kill % 2 {
            0 => (1..=NODES).find(has_browsers),
            // Or those who left the browsers' node would never be moved again.
            _ => (1..=NODES).max_by_key(|node| scopes(*node)),
        };
        let node = node.ok_or_else(|| io::Error::other("the browsers are on no node of ours"))?;
        let other = 1 + node % NODES;
        let name = format!("node-{node}");
        let its_place = place_of(node);
        let is_its = |scope: usize| before.get(&scope).is_some_and(|at| at.starts_with(&its_place));
        listeners.iter().for_each(|one| one.heard.longest.store(0, Ordering::Relaxed));
        browsers.begin()?;
        bed.strait(&["kill", &name])?;
        thread::sleep(LOOKED_AT);
        let longest = browsers.look()?;
        eprintln!("    kill {} of {KILLS}: browsers {longest:.2?} s", kill + 1);
        if is_its(OF_BROWSERS) {
            of_browsers.extend(longest);
        }
        let now = micros(began);
        for one in listeners.iter_mut().filter(|one| is_its(one.scope)) {
            let open = now.saturating_sub(one.heard.last.load(Ordering::Relaxed));
            let longest = one.heard.longest.load(Ordering::Relaxed).max(open);
            silences.push(longest as f64 / 1e6);
            one.drain();
        }
        // What each of the two that live says must be the same, and not the dead one.
        let third = 1 + other % NODES;
        let (one, two) = (places(bed, other)?, places(bed, third)?);
        let is_split = |(scope, at): (&usize, &String)| {
            two.get(scope) != Some(at) || at.starts_with(&its_place)
        };
        split += u32::try_from(one.iter().filter(|place| is_split(*place)).count()).unwrap_or(0);
        bed.strait(&["start", &name])?;
        thread::sleep(SETTLE);
        eprintln!("    kill {} of {KILLS}: {} native listeners moved", kill + 1, silences.len());
    }
    let native = silences.len();
    silences.extend(&of_browsers);
    let (all_p99, all) = shares(&mut silences);
    let (browsers_p99, alone) = shares(&mut of_browsers);
    let how = format!(
        "{KILLS} kills of nodes with {} native clients in {SCOPES} scopes on {NODES}, and 5 browsers \
         in one more: silence of {native} native listeners and {} \
         browsers, {all}",
        SCOPES * (LISTENERS + 1),
        of_browsers.len()
    );
    let browsers = format!("3 tabs of Chromium and 2 of Firefox, looked at every 0.1 s: {alone}");
    Ok([
        CLUSTER_FAILOVER.measured(all_p99, &how),
        CLUSTER_FAILOVER_BROWSERS.measured(browsers_p99, browsers),
        CLUSTER_SPLIT.measured(f64::from(split), how),
    ])
}

/// The silence of 99 of 100 in seconds, and in words its median and the longest.
fn shares(silences: &mut [f64]) -> (f64, String) {
    silences.sort_by(f64::total_cmp);
    let at = |share: usize| {
        let index = (silences.len() * share / 100).min(silences.len().saturating_sub(1));
        silences.get(index).copied().unwrap_or(f64::INFINITY)
    };
    (at(99), format!("median {:.2} s, longest {:.2} s", at(50), at(100)))
}

/// The node of each scope, as one CnC says.
fn places(bed: &Bed, cnc: u8) -> io::Result<HashMap<usize, String>> {
    let mut asker = Asker::connect(bed.http(cnc))?;
    (0..=OF_BROWSERS)
        .map(|scope| match asker.resolve(&name(scope))? {
            (200, at) => Ok((scope, at)),
            (status, why) => Err(io::Error::other(format!("/resolve: {status}: {why}"))),
        })
        .collect()
}

fn name(scope: usize) -> String {
    format!("failover-{scope}")
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A client that finds its node by any CnC.
pub fn descriptor(bed: &Bed, scope_id: String, peer: String) -> io::Result<Descriptor> {
    let resolver = |node| {
        let url = format!("http://{}", bed.http(node));
        Resolver::parse(&url).ok_or_else(|| io::Error::other(format!("{url} is no CnC")))
    };
    let resolvers = (1..=NODES).map(resolver).collect::<io::Result<_>>()?;
    let (application_id, region) = ("dev".into(), String::new());
    Ok(Descriptor {
        config: Config {
            host: String::new(),
            port: 0,
            credential: Credential::Token(TOKEN.into()),
            scope_id,
            name: peer,
            client: "figures".into(),
            profiles: Vec::new(),
            relay_only: true,
            cluster: Some(Cluster { resolvers, application_id, region }),
        },
        trust: Trust::CaFile(bed.certificates()),
        proxy: None,
        udp: true,
        quic: None,
    })
}

fn speaker(bed: &Bed, scope: usize) -> io::Result<(Client, Handle)> {
    let descriptor = descriptor(bed, name(scope), format!("speaker-{scope}"))?;
    let client = Client::connect(descriptor, drop).map_err(io::Error::other)?;
    let publish = Publish { kind: Kind::Audio.into(), codec: "opus".into(), ..Publish::default() };
    let handle = client.publish(publish).map_err(io::Error::other)?;
    Ok((client, handle))
}

fn listener(bed: &Bed, number: usize, began: Instant) -> io::Result<Listener> {
    let scope = number % SCOPES;
    let heard = Arc::<Heard>::default();
    let (to_us, events) = sync_channel(EVENTS);
    let at = Arc::clone(&heard);
    let on_event = move |event: Event| {
        if !matches!(event, Event::Payload(_)) {
            // What finds no room is no beginning of a stream, which comes first of all.
            return drop(to_us.try_send(event));
        }
        let now = micros(began);
        let last = at.last.swap(now, Ordering::Relaxed);
        if last > 0 {
            at.longest.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        }
    };
    let descriptor = descriptor(bed, name(scope), format!("listener-{number}"))?;
    let client = Client::connect(descriptor, on_event).map_err(io::Error::other)?;
    Ok(Listener { scope, client, events, heard, is_subscribed: false })
}

impl Listener {
    /// Subscribes to the first stream that it is told of. On other nodes its client does so itself.
    fn subscribe(&mut self) -> io::Result<()> {
        while let Ok(event) = self.events.try_recv() {
            let id = match &event {
                Event::Joined { peers, .. } => {
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
                self.client.subscribe(&id, false).map_err(io::Error::other)?;
                self.is_subscribed = true;
            }
        }
        Ok(())
    }

    fn drain(&self) {
        while self.events.try_recv().is_ok() {}
    }
}

/// All speak, a frame each 20 ms, until they are to end.
fn speak(speakers: Vec<(Client, Handle)>, ends: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let began = Instant::now();
        for number in 0_u32.. {
            if ends.load(Ordering::Relaxed) {
                return;
            }
            let timestamp = number.wrapping_mul(960);
            let frame = Frame { payload: &SILENCE, timestamp, marker: number == 0, level: None };
            for (client, voice) in &speakers {
                // Away for the moment: what is said then nobody hears.
                let _away = client.send(*voice, 0, &frame);
            }
            let next = began + FRAME * (number + 1);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    })
}
