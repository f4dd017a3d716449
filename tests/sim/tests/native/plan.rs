//! What happens in a run, made of its seed.

use std::time::Duration;
use strait_lab::link::Conditions;
use strait_lab::rng::Rng;

/// Members of a run, at most.
pub const MEMBERS: usize = 3;
/// Things happen up to here.
const STORY: Duration = Duration::from_secs(45);
/// And then nothing: each is as it should be again, which takes UDP ten seconds.
pub const REST: Duration = Duration::from_secs(20);

/// Something that happens to a member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Doing {
    Join,
    Leave,
    /// Nothing goes by UDP, or all does again.
    BlockUdp(bool),
    /// The same, between it and the others.
    BlockDirect(bool),
    /// Its NAT forgets what it gave, and gives another port.
    Rebind,
    /// Its link breaks.
    BreakLink,
    /// What it has beside it breaks.
    BreakMedia,
    /// Its line.
    Line(Conditions),
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// The node has no TLS for media beside the link.
    pub link_alone: bool,
    /// The scope goes from worker to worker so often.
    pub moves: Option<Duration>,
    /// Everybody gets what is sent as it is sent; otherwise under numbers of the relay's, and directly under the sender's.
    pub as_sent: bool,
    pub doings: Vec<(Duration, usize, Doing)>,
    pub end: Duration,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork(1);
        let mut doings = Vec::new();
        let mut present = [true, true, false];
        for member in 0..2 {
            doings.push((rng.millis(0..=2000), member, Doing::Join));
        }
        for member in 0..MEMBERS {
            doings.push((Duration::ZERO, member, Doing::Line(line(&mut rng))));
        }
        let mut blocked = [[false; 2]; MEMBERS];
        let mut at = rng.millis(2500..=6000);
        while at < STORY {
            let member = rng.index(MEMBERS);
            let doing = match rng.index(10) {
                0..=2 => {
                    blocked[member][0] = !blocked[member][0];
                    Doing::BlockUdp(blocked[member][0])
                }
                3 => {
                    blocked[member][1] = !blocked[member][1];
                    Doing::BlockDirect(blocked[member][1])
                }
                4 | 5 => Doing::Rebind,
                6 => Doing::BreakLink,
                7 => Doing::BreakMedia,
                8 => Doing::Line(line(&mut rng)),
                _ if member < 2 => Doing::Rebind,
                _ => {
                    present[member] = !present[member];
                    if present[member] { Doing::Join } else { Doing::Leave }
                }
            };
            doings.push((at, member, doing));
            at += rng.millis(500..=7000);
        }
        for member in 0..MEMBERS {
            doings.extend(
                [Doing::BlockUdp(false), Doing::BlockDirect(false), Doing::Line(Conditions::GOOD)]
                    .map(|doing| (STORY, member, doing)),
            );
        }
        doings.sort_by_key(|(at, ..)| *at);
        Self {
            seed,
            link_alone: rng.chance(0.3),
            moves: rng.chance(0.3).then(|| rng.millis(500..=5000)),
            as_sent: rng.chance(0.6),
            doings,
            end: STORY + REST,
        }
    }
}

fn line(rng: &mut Rng) -> Conditions {
    Conditions {
        delay: rng.millis(1..=80),
        jitter: rng.millis(0..=20),
        jitter_reorders: rng.chance(0.3),
        loss: rng.pick(&[0.0, 0.0, 0.01, 0.05]),
        reorder: rng.pick(&[0.0, 0.02]),
        detour: rng.millis(5..=60),
        duplicate: rng.pick(&[0.0, 0.02]),
        ..Conditions::CLEAR
    }
}
