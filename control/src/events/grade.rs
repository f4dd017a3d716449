//! What a stream's minute is worth, and what was wrong with it.

use super::event::Stream;

/// Something that goes wrong with streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// As the API names it.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// All of them; each has the bit of its place in the store.
pub const PROBLEMS: [Problem; 7] = [
    Problem {
        name: "loss_in",
        meaning: "more than 2 % of a publisher's packets were lost and not repaired",
        remedy: "the publisher's uplink: another network, a lower bitrate, media.fec",
    },
    Problem {
        name: "loss_out",
        meaning: "more than 2 % of the packets to a peer were lost",
        remedy: "the viewer's downlink: another network; many at once: this host's own line",
    },
    Problem {
        name: "freezes",
        meaning: "pictures stood still for a second of a minute or more",
        remedy: "look for loss on either side first; then at the publisher's encoder",
    },
    Problem {
        name: "lowered",
        meaning: "a quarter of a peer's streams or more had a lower layer than it wanted",
        remedy: "its downlink carries no more: fewer or smaller pictures at a time",
    },
    Problem {
        name: "paused",
        meaning: "a quarter of a peer's streams or more got nothing for want of bandwidth",
        remedy: "publish with simulcast, so that there is something smaller; fewer pictures at a time",
    },
    Problem {
        name: "round_trip",
        meaning: "the round trip took more than 0.3 s",
        remedy: "a node nearer to the peer, or less that waits on its line",
    },
    Problem {
        name: "queue",
        meaning: "packets waited 0.1 s or more on the way from a publisher",
        remedy: "the publisher sends more than its uplink carries: a lower bitrate, limits.uplink_bps_per_peer",
    },
];

/// The bit of a problem, by its name.
pub fn bit(name: &str) -> Option<i64> {
    PROBLEMS.iter().position(|problem| problem.name == name).map(|place| 1 << place)
}

/// The names of what bits say.
pub fn names(bits: i64) -> Vec<&'static str> {
    let each = PROBLEMS.iter().enumerate();
    each.filter(|(place, _)| bits >> place & 1 == 1).map(|(_, problem)| problem.name).collect()
}

/// What was wrong, as bits.
pub fn problems(stream: &Stream) -> i64 {
    let is_in = !stream.stream.is_empty();
    let above = |value: Option<f64>, bound: f64| value.is_some_and(|value| value > bound);
    let is_lossy = above(stream.loss, 0.02);
    let wrong = [
        is_in && is_lossy,
        !is_in && is_lossy,
        stream.frozen >= 1.0,
        stream.lowered >= 0.25,
        stream.paused >= 0.25,
        above(stream.round_trip, 0.3),
        is_in && stream.queue_delay.is_some_and(|delay| delay >= 0.1),
    ];
    wrong.iter().enumerate().map(|(place, is_wrong)| i64::from(*is_wrong) << place).sum()
}

/// From 0, nothing usable, to 100. `docs/reference/api.md` says how.
pub fn score(stream: &Stream) -> f64 {
    let loss = (stream.loss.unwrap_or(0.0) * 1_000.0).clamp(0.0, 70.0);
    let frozen = if stream.seconds > 0.0 { stream.frozen / stream.seconds } else { 0.0 };
    let far = if stream.round_trip.is_some_and(|time| time > 0.3) { 20.0 } else { 0.0 };
    let lower = stream.lowered * 20.0 + stream.paused * 60.0;
    (100.0 - loss - frozen * 100.0 - lower - far).clamp(0.0, 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_graded() {
        let good = Stream { seconds: 60.0, loss: Some(0.0), ..Stream::default() };
        assert_eq!((score(&good), problems(&good)), (100.0, 0));
        let lossy = Stream { loss: Some(0.03), ..good.clone() };
        assert_eq!((score(&lossy), names(problems(&lossy))), (70.0, vec!["loss_out"]));
        let published = Stream { stream: "pub-1".into(), queue_delay: Some(0.2), ..lossy };
        assert_eq!(names(problems(&published)), ["loss_in", "queue"]);
        let stuck = Stream { frozen: 60.0, paused: 1.0, round_trip: Some(1.0), ..good };
        assert_eq!((score(&stuck), names(problems(&stuck)).len()), (0.0, 3));
        assert_eq!(bit("queue"), Some(64));
        assert_eq!(bit("nothing"), None);
    }
}
