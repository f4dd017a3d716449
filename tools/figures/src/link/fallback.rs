//! What media costs that cannot go over UDP, beside UDP: one native client to many, in turns.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use strait_client::v1::{self, transport_report::State, user_event};
use strait_client::{Client, Descriptor, Event, Frame, Handle};

use super::ways::descriptor;
use crate::figure::{Figure, LINK_FALLBACK_COST, LINK_QUIC_COST, Promise};
use crate::process::Process;
use crate::setup::Setup;

/// Clients that listen to one.
pub const LISTENERS: u64 = 50;
/// Packets that it sends a second, and bytes of each: a megabit.
const RATE: u32 = 120;
const BYTES: usize = 1000;
/// Turns of both ways.
const PAIRS: usize = 7;
/// How long each lasts.
const WINDOW: Duration = Duration::from_secs(2);
/// Long enough for what is under way to arrive.
const SETTLE: Duration = Duration::from_millis(300);
/// How long anything may take that has no bound.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of the packets, those that have to arrive for a turn to count.
const ARRIVED: f64 = 0.98;

/// Microseconds of CPU for a packet: over UDP, and right after that over what stands in for it.
type Turn = (f64, f64);

/// Measures the ratio over TLS, which the relay's own threads carry.
pub async fn over_tls() -> io::Result<Figure> {
    let setup = Setup::start().await?;
    let (node, relay) = (descriptor(&setup), setup.relay.clone());
    let measured = tokio::task::spawn_blocking(move || {
        let udp = Room::open(&node, "udp", State::UdpRelay)?;
        let tls = Room::open(&node, "tls", State::TcpRelay)?;
        turns(|| Ok((udp.turn(&[&relay])?, tls.turn(&[&relay])?)))
    });
    let turns = measured.await??;
    setup.end().await;
    Ok(figure(LINK_FALLBACK_COST, turns, "strait-relay", "TLS"))
}

/// Measures the ratio over QUIC, which strait-control carries to the relay.
pub async fn over_quic() -> io::Result<Figure> {
    let (plain, setup) = (Setup::start().await?, Setup::start_with_quic_alone().await?);
    let (node, relay) = (descriptor(&plain), plain.relay.clone());
    let quic_node = Descriptor { quic: setup.quic, ..descriptor(&setup) };
    let (quic_relay, quic_control) = (setup.relay.clone(), setup.control.clone());
    let measured = tokio::task::spawn_blocking(move || {
        let udp = Room::open(&node, "udp", State::UdpRelay)?;
        let quic = Room::open(&quic_node, "quic", State::Link)?;
        turns(|| Ok((udp.turn(&[&relay])?, quic.turn(&[&quic_relay, &quic_control])?)))
    });
    let turns = measured.await??;
    plain.end().await;
    setup.end().await;
    Ok(figure(LINK_QUIC_COST, turns, "strait-relay and, over QUIC, strait-control", "QUIC"))
}

fn turns(mut turn: impl FnMut() -> io::Result<Turn>) -> io::Result<Vec<Turn>> {
    (0..PAIRS).map(|_| turn()).collect()
}

fn figure(promise: Promise, turns: Vec<Turn>, programs: &str, way: &str) -> Figure {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let ratios: Vec<f64> = turns.iter().map(|(udp, other)| other / udp).collect();
    let (least, most) = ratios
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), ratio| (least.min(*ratio), most.max(*ratio)));
    promise.measured(
        median(ratios),
        format!(
            "one client sends {RATE} packets of {BYTES} bytes a second to {LISTENERS}; CPU of all threads of {programs} for \
             each packet that arrived: {:.1} us over UDP, {:.1} us over {way} (medians of {PAIRS} turns); median of the ratio of \
             turns that follow each other, {least:.2} to {most:.2}",
            median(turns.iter().map(|(udp, _)| *udp).collect()),
            median(turns.iter().map(|(_, other)| *other).collect()),
        ),
    )
}

/// One who talks, by UDP where it gets through, and those who listen.
struct Room {
    talker: Listener,
    voice: Handle,
    listeners: Vec<Listener>,
}

impl Room {
    fn open(node: &Descriptor, scope: &str, way: State) -> io::Result<Self> {
        let mut node = node.clone();
        node.config.scope_id = scope.into();
        let talker = Listener::join(node.clone())?;
        let (kind, codec) = (v1::Kind::Audio.into(), "opus".into());
        let voice = v1::Publish { kind, codec, ..v1::Publish::default() };
        let voice = talker.client.publish(voice).map_err(io::Error::other)?;
        let node = Descriptor { udp: way != State::TcpRelay, ..node };
        let listeners = (0..LISTENERS).map(|_| Listener::join(node.clone()));
        let room = Self { talker, voice, listeners: listeners.collect::<io::Result<_>>()? };
        let end = Instant::now() + PATIENCE;
        // Each hears something, by the way that is to be measured.
        let mut number = 0;
        while !room.listeners.iter().all(|one| one.is_on(way) && one.heard() > 0) {
            for one in &room.listeners {
                one.subscribe();
            }
            number += 1;
            room.send(number);
            if Instant::now() > end {
                let on = room.listeners.iter().filter(|one| one.is_on(way)).count();
                let heard = room.listeners.iter().filter(|one| one.heard() > 0).count();
                let text = format!("of {LISTENERS} listeners {on} are on {way:?}, {heard} hear");
                return Err(io::Error::other(text));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(SETTLE);
        Ok(room)
    }

    /// Microseconds of CPU of these programs for each packet that arrived.
    fn turn(&self, programs: &[&Process]) -> io::Result<f64> {
        let heard = || self.listeners.iter().map(Listener::heard).sum::<u64>();
        let cpu = || programs.iter().map(|program| program.cpu()).sum::<io::Result<Duration>>();
        let (heard_before, cpu_before) = (heard(), cpu()?);
        let packets = RATE * WINDOW.as_secs() as u32;
        let begun = Instant::now();
        for number in 0..packets {
            let due = begun + WINDOW / packets * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.send(number);
        }
        std::thread::sleep(SETTLE);
        let (arrived, cpu) = (heard() - heard_before, cpu()? - cpu_before);
        let sent = u64::from(packets) * LISTENERS;
        if (arrived as f64) < sent as f64 * ARRIVED {
            return Err(io::Error::other(format!("{arrived} of {sent} packets arrived")));
        }
        Ok(cpu.as_secs_f64() * 1e6 / arrived as f64)
    }

    fn send(&self, number: u32) {
        let payload = [7; BYTES];
        let timestamp = number.wrapping_mul(400);
        let frame = Frame { payload: &payload, timestamp, marker: false, level: None };
        let _away = self.talker.client.send(self.voice, 0, &frame);
    }
}

/// A client and what it saw.
struct Listener {
    client: Client,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    heard: AtomicU64,
    state: Mutex<State>,
    wanted: Mutex<Vec<String>>,
}

impl Listener {
    fn join(node: Descriptor) -> io::Result<Self> {
        let seen = Arc::new(Seen::default());
        let told = Arc::clone(&seen);
        let on_event = move |event| told.on_event(event);
        let client = Client::connect(node, on_event).map_err(io::Error::other)?;
        Ok(Self { client, seen })
    }

    fn heard(&self) -> u64 {
        self.seen.heard.load(Ordering::Relaxed)
    }

    fn is_on(&self, way: State) -> bool {
        *lock(&self.seen.state) == way
    }

    fn subscribe(&self) {
        let wanted = std::mem::take(&mut *lock(&self.seen.wanted));
        for publication in wanted {
            let _gone = self.client.subscribe(&publication, true);
        }
    }
}

impl Seen {
    fn on_event(&self, event: Event) {
        let publications = match event {
            Event::Payload(_) => {
                self.heard.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Event::Transport(state) => {
                *lock(&self.state) = state;
                return;
            }
            Event::Joined { peers, .. } => {
                peers.into_iter().flat_map(|peer| peer.publications).collect()
            }
            Event::Scope(user_event::Body::Started(started)) => {
                started.publication.into_iter().collect::<Vec<_>>()
            }
            _ => return,
        };
        lock(&self.wanted).extend(publications.into_iter().map(|one| one.publication_id));
    }
}

fn lock<T>(seen: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
