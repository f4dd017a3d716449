//! A plan out of a seed.

use crate::network::{Bottleneck, Burst, Conditions, Queue};
use crate::plan::{Check, Media, PeerSpec, Plan, Step, VideoSpec, Weather, millis, secs};
use crate::rng::Rng;
use strait_core::command::Kind;
use strait_core::port::Protocol;
use strait_core::time::Duration;
use strait_crypt::srtp::Profile;

/// One in so many seeds has real DTLS handshakes.
const DTLS_SHARE: f64 = 0.15;
/// The lines are good again for so long before the end.
const CALM: Duration = Duration::from_millis(4500);

/// The plan of a seed: people, weather and doings, all by chance.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut rng = Rng::new(seed).fork(0);
    let dtls = rng.chance(DTLS_SHARE);
    let count = rng.pick(&[2, 2, 2, 3, 3, 4]);
    let mut peers: Vec<PeerSpec> = (0..count).map(|_| peer(&mut rng, dtls)).collect();
    // With nobody to be seen there would be nothing to check.
    if peers.iter().all(|peer| peer.video.is_none()) {
        peers[0].video = Some(VideoSpec::default());
    }
    // Long stretches of fair weather show whether media flows in spite of it; short stretches of
    // anything show whether it comes back.
    let long = rng.chance(0.15);
    let trouble = if long { millis(8000) } else { rng.millis(500..=2500) };
    let begins = rng.millis(0..=1200);
    let heals = begins + trouble;
    let mut plan = Plan::new(seed).media(Media { peers });
    plan.conditions = weather(&mut rng, count, begins, heals, long);
    steps(&mut rng, &mut plan, heals);
    let patience = if dtls { secs(6) } else { Duration::ZERO };
    plan.check = Check { end: heals + CALM + patience, ..Check::default() };
    plan
}

fn peer(rng: &mut Rng, dtls: bool) -> PeerSpec {
    let video = VideoSpec {
        layers: rng.pick(&[1, 1, 1, 1, 2, 3]),
        fps: rng.pick(&[5, 10, 15]),
        packets_max: rng.pick(&[1, 2, 4]),
        padding: rng.chance(0.2),
    };
    PeerSpec {
        // The library agrees on a profile itself.
        profile: if dtls { Profile::AeadAes128Gcm } else { rng.pick(&Profile::ALL) },
        dtls,
        protocol: if rng.chance(0.15) { Protocol::Tcp } else { Protocol::Udp },
        ipv6: rng.chance(0.2),
        video: rng.chance(0.7).then_some(video),
        audio: rng.chance(0.4),
        rtx: rng.chance(0.7),
        transport_cc: rng.chance(0.4),
        remb: rng.chance(0.2),
        fir: rng.chance(0.1),
        two_byte: rng.chance(0.15),
        ssrcs_signalled: rng.chance(0.6),
        consent: rng.millis(1000..=3000),
    }
}

fn weather(
    rng: &mut Rng,
    count: usize,
    begins: Duration,
    heals: Duration,
    fair: bool,
) -> Vec<Weather> {
    let mut all = Vec::new();
    let shared = conditions(rng, fair);
    for peer in 0..count {
        // Everyone has the same trouble, or each has his own.
        let (up, down) = match rng.range(0..=3) {
            0 => (shared, shared),
            1 => (conditions(rng, fair), conditions(rng, fair)),
            2 => (Conditions::GOOD, conditions(rng, fair)),
            _ => (conditions(rng, fair), Conditions::GOOD),
        };
        let during = begins..heals;
        all.push(Weather { during, peer: Some(peer), up: Some(up), down: Some(down) });
        if !fair && rng.chance(0.2) {
            // A line that is cut for a moment.
            let from = begins + rng.up_to(heals - begins);
            let during = from..(from + rng.millis(50..=800)).min(heals);
            let cut = Conditions::CUT;
            all.push(Weather { during, peer: Some(peer), up: Some(cut), down: Some(cut) });
        }
    }
    all
}

fn conditions(rng: &mut Rng, fair: bool) -> Conditions {
    let loss = if fair { 0.1 } else { 0.5 };
    let burst = Burst {
        enter: 0.01 + rng.unit() * 0.02,
        leave: 0.1 + rng.unit() * 0.4,
        loss: if fair { 0.5 } else { 0.9 },
    };
    let mut conditions = Conditions {
        delay: rng.millis(1..=if fair { 60 } else { 150 }),
        jitter: rng.millis(0..=if fair { 20 } else { 60 }),
        ..Conditions::GOOD
    };
    if rng.chance(0.7) {
        conditions.loss = rng.unit() * loss;
    }
    if rng.chance(0.3) {
        conditions.burst = Some(burst);
    }
    if rng.chance(0.4) {
        conditions.reorder = rng.unit() * 0.3;
        conditions.detour = rng.millis(1..=80);
    }
    if rng.chance(0.3) {
        conditions.duplicate = rng.unit() * 0.3;
    }
    if !fair && rng.chance(0.2) {
        let rate_bps = rng.range(100_000..=1_000_000);
        let queue = Queue::Time(rng.millis(20..=500));
        conditions.bottleneck = Some(Bottleneck { rate_bps, queue });
    }
    conditions
}

fn steps(rng: &mut Rng, plan: &mut Plan, heals: Duration) {
    let count = plan.media.peers.len();
    if count > 2 && rng.chance(0.4) {
        plan.run.push((rng.up_to(heals), Step::Join { peer: count - 1 }));
    }
    for _ in 0..rng.range(0..=5) {
        let at = millis(300) + rng.up_to(heals);
        let again = at + rng.millis(50..=1500);
        let (peer, of, to) = (rng.index(count), rng.index(count), rng.index(count));
        let kind = if rng.chance(0.75) { Kind::Video } else { Kind::Audio };
        let mut pair = |one: Step, two: Option<Step>| {
            plan.run.push((at, one));
            plan.run.extend(two.map(|two| (again, two)));
        };
        match rng.range(0..=11) {
            0 => pair(Step::Mute { peer, kind }, Some(Step::Unmute { peer, kind })),
            1 => pair(Step::Pause { peer, of, kind }, Some(Step::Resume { peer, of, kind })),
            2 => pair(
                Step::Rebind { peer, of, to, kind },
                Some(Step::Rebind { peer, of, to: of, kind }),
            ),
            3 => pair(Step::Rebind { peer, of, to, kind }, None),
            4 => pair(Step::RestartIce { peer }, None),
            5 => pair(Step::Move { peer, knows: rng.chance(0.5) }, None),
            6 => pair(Step::Silence { peer, kind }, Some(Step::Speak { peer, kind })),
            7 => {
                let layer = rng.range(0..=2) as u8;
                let back = rng.chance(0.7).then_some(Step::StartLayer { peer, layer });
                pair(Step::StopLayer { peer, layer }, back);
            }
            8 => {
                let layer = rng.chance(0.8).then(|| rng.range(0..=2) as u8);
                pair(Step::LayerMax { peer, of, layer }, None);
            }
            9 => pair(Step::Republish { peer, kind }, None),
            10 => pair(Step::Attack { datagrams: 40 }, Some(Step::Attack { datagrams: 40 })),
            _ => {
                let goes = match rng.range(0..=4) {
                    0 => Step::Vanish { peer },
                    _ => Step::Leave { peer },
                };
                pair(goes, rng.chance(0.5).then_some(Step::Join { peer }));
            }
        }
    }
    plan.run.sort_by_key(|(at, _)| *at);
}
