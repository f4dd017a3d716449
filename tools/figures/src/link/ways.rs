//! The figures of how media goes: directly between two, and by TCP where UDP is blocked. Clients are those of strait-client.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use strait_client::proxy::{Kind, Proxy};
use strait_client::v1::{self, auth::Credential, transport_report::State, user_event};
use strait_client::{Client, Config, Descriptor, Event, Frame, Trust};

use super::gate::Gate;
use crate::figure::{
    Figure, LINK_BLOCKED_BACK, LINK_BLOCKED_FIRST, LINK_BLOCKED_LOST, LINK_DIRECT_FIRST,
    LINK_DIRECT_LOST,
};
use crate::setup::{Setup, TOKEN};

/// Times that a third one comes and goes.
const THIRDS: u64 = 5;
/// Between two frames of sound.
const FRAME: Duration = Duration::from_millis(20);
/// How long anything may take that has no bound.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for what is under way to arrive.
const SETTLE: Duration = Duration::from_millis(700);

/// Two talk directly, a third one comes and goes.
pub async fn direct() -> io::Result<[Figure; 2]> {
    let setup = Setup::start().await?;
    let node = descriptor(&setup);
    let measured = tokio::task::spawn_blocking(move || {
        let ann = Member::join(node.clone(), 1)?;
        ann.wait_for(State::UdpRelay)?;
        let bob = Member::join(node.clone(), 2)?;
        let joined = bob.wait("the second join", |seen| seen.joined)?;
        let mut first = Duration::ZERO;
        for member in [&ann, &bob] {
            let direct = member.wait("a direct packet", |seen| seen.direct)?;
            first = first.max(direct.saturating_duration_since(joined));
            member.wait_for(State::P2p)?;
        }
        for third in 0..THIRDS {
            let cat = Member::join(node.clone(), 3)?;
            for member in [&ann, &bob] {
                member.wait_for(State::UdpRelay)?;
            }
            std::thread::sleep(SETTLE + third as u32 * FRAME / 3);
            drop(cat);
            for member in [&ann, &bob] {
                member.wait_for(State::P2p)?;
            }
            std::thread::sleep(SETTLE);
        }
        let (at_ann, at_bob) = (ann.lost(2, None), bob.lost(1, None));
        io::Result::Ok((first, at_ann.0 + at_bob.0, at_ann.1 + at_bob.1))
    });
    let (first, lost, of) = measured.await??;
    setup.end().await;
    Ok([
        LINK_DIRECT_FIRST.measured(
            first.as_secs_f64(),
            "from the second client's answer to `Auth` to the first packet from the other one that came directly, the later of the two",
        ),
        LINK_DIRECT_LOST.measured(
            lost as f64,
            format!(
                "of {of} frames of sound that two sent one another while a third one came and went {THIRDS} times: {} moves to \
                 the direct way, {THIRDS} back to the node",
                THIRDS + 1
            ),
        ),
    ])
}

/// One of two has no UDP, until it has.
pub async fn blocked() -> io::Result<[Figure; 3]> {
    let setup = Setup::start().await?;
    let node = descriptor(&setup);
    let measured = tokio::task::spawn_blocking(move || {
        let gate = Gate::open()?;
        let bob = Member::join(node.clone(), 2)?;
        bob.wait_for(State::UdpRelay)?;
        gate.pass(false);
        let (host, port) = (gate.address().ip().to_string(), gate.address().port());
        let proxy = Proxy { kind: Kind::Socks5, host, port, credentials: None };
        let began = Instant::now();
        let ann = Member::join(Descriptor { proxy: Some(proxy), ..node }, 1)?;
        let at_ann = ann.wait("sound", |seen| seen.heard.get(&2)?.values().min().copied())?;
        let at_bob = bob.wait("sound", |seen| seen.heard.get(&1)?.values().min().copied())?;
        let first = at_ann.max(at_bob).saturating_duration_since(began);
        // Over the link until the connection for framed media is open.
        ann.wait("TCP", |seen| matches!(seen.state, State::Link | State::TcpRelay).then_some(()))?;
        std::thread::sleep(SETTLE);
        gate.pass(true);
        let released = Instant::now();
        ann.wait_for(State::UdpRelay)?;
        let back = released.elapsed();
        std::thread::sleep(SETTLE);
        let lost = ann.lost(2, Some(released)).0.max(bob.lost(1, Some(released)).0);
        io::Result::Ok((first, back, lost))
    });
    let (first, back, lost) = measured.await??;
    setup.end().await;
    let how =
        "a SOCKS5 proxy between one client and the node passes TCP, and UDP when it is told to";
    Ok([
        LINK_BLOCKED_FIRST.measured(
            first.as_secs_f64(),
            format!(
                "{how}: from the start of the client to the first frame of sound in both directions"
            ),
        ),
        LINK_BLOCKED_BACK.measured(
            back.as_secs_f64(),
            format!("{how}: from then to the client's media on UDP alone"),
        ),
        LINK_BLOCKED_LOST.measured(
            lost as f64 * FRAME.as_secs_f64() * 1e3,
            "frames of sound that did not come from then on, in the worse direction",
        ),
    ])
}

pub(super) fn descriptor(setup: &Setup) -> Descriptor {
    Descriptor {
        config: Config {
            host: setup.https.ip().to_string(),
            port: setup.https.port(),
            credential: Credential::Token(TOKEN.into()),
            scope_id: "ways".into(),
            name: "figures".into(),
            client: "figures".into(),
            profiles: Vec::new(),
            relay_only: false,
            cluster: None,
        },
        trust: Trust::CaFile(setup.certificate()),
        proxy: None,
        udp: true,
        quic: None,
    }
}

/// What a client saw.
#[derive(Default)]
struct Seen {
    joined: Option<Instant>,
    direct: Option<Instant>,
    state: State,
    /// Frames of others, by who sent them and which they are.
    heard: BTreeMap<u8, BTreeMap<u32, Instant>>,
    published: bool,
    wanted: Vec<String>,
    ended: Option<String>,
}

/// A client that talks and listens.
struct Member {
    seen: Arc<Mutex<Seen>>,
    talks: Option<std::thread::JoinHandle<()>>,
    left: Arc<std::sync::atomic::AtomicBool>,
}

impl Member {
    fn join(descriptor: Descriptor, who: u8) -> io::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let told = Arc::clone(&seen);
        let on_event = move |event| lock(&told).on_event(event);
        let client = Client::connect(descriptor, on_event).map_err(io::Error::other)?;
        let (kind, codec) = (v1::Kind::Audio.into(), "opus".into());
        let voice = v1::Publish { kind, codec, ..v1::Publish::default() };
        let voice = client.publish(voice).map_err(io::Error::other)?;
        let left = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (ours, ends) = (Arc::clone(&seen), Arc::clone(&left));
        let talks = std::thread::spawn(move || {
            let (mut next, mut number) = (Instant::now(), 0_u32);
            while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                let (wanted, published) = {
                    let mut seen = lock(&ours);
                    if seen.direct.is_none() && client.statistics().direct_packets > 0 {
                        seen.direct = Some(Instant::now());
                    }
                    (std::mem::take(&mut seen.wanted), seen.published)
                };
                for publication in wanted {
                    let _gone = client.subscribe(&publication, true);
                }
                if published && Instant::now() >= next {
                    next += FRAME;
                    let mut payload = vec![who];
                    payload.extend(number.to_be_bytes());
                    let timestamp = number.wrapping_mul(960);
                    let marker = number == 0;
                    let frame = Frame { payload: &payload, timestamp, marker, level: None };
                    let _away = client.send(voice, 0, &frame);
                    number += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Ok(Self { seen, talks: Some(talks), left })
    }

    fn wait<T>(&self, what: &str, found: impl Fn(&Seen) -> Option<T>) -> io::Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = lock(&self.seen);
            if let Some(found) = found(&seen) {
                return Ok(found);
            }
            if let Some(reason) = &seen.ended {
                return Err(io::Error::other(reason.clone()));
            }
            drop(seen);
            if Instant::now() > end {
                return Err(io::Error::other(format!("no {what} within {} s", PATIENCE.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn wait_for(&self, state: State) -> io::Result<()> {
        self.wait(&format!("{state:?}"), |seen| (seen.state == state).then_some(()))
    }

    /// Frames of another that did not come between the first and the last that did since then, and how many there were.
    fn lost(&self, from: u8, since: Option<Instant>) -> (u64, u64) {
        let seen = lock(&self.seen);
        let heard = seen.heard.get(&from).into_iter().flatten();
        let heard = heard.filter(|(_, at)| since.is_none_or(|since| **at >= since));
        let numbers: Vec<u32> = heard.map(|(number, _)| *number).collect();
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return (0, 0) };
        let of = u64::from(last - first) + 1;
        (of - numbers.len() as u64, of)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.left.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(talks) = self.talks.take() {
            let _ended = talks.join();
        }
    }
}

impl Seen {
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Joined { peers, .. } => {
                self.joined = Some(Instant::now());
                let publications = peers.into_iter().flat_map(|peer| peer.publications);
                self.wanted.extend(publications.map(|one| one.publication_id));
            }
            Event::Scope(user_event::Body::Started(started)) => {
                self.wanted.extend(started.publication.map(|one| one.publication_id));
            }
            Event::Published { .. } => self.published = true,
            Event::Transport(state) => self.state = state,
            Event::Payload(payload) => {
                if let Some((who, number)) = payload.payload.split_first()
                    && let Ok(number) = number.try_into().map(u32::from_be_bytes)
                {
                    let heard = self.heard.entry(*who).or_default();
                    heard.entry(number).or_insert_with(Instant::now);
                }
            }
            Event::Ended(error) => self.ended = Some(error.to_string()),
            _ => {}
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
