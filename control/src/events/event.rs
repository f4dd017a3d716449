//! What is told of scopes: each event says enough by itself that no other one has to be there.

use serde::{Deserialize, Serialize};

/// Something that happened, or is so. Times are milliseconds since 1970, by the clock of the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Unique: the node's incarnation, a dot, a number that grows.
    pub id: String,
    /// When.
    pub at: i64,
    /// The node.
    pub node: String,
    /// Application. Empty, as the next three, for what concerns the node itself.
    pub application: String,
    /// Scope name.
    pub scope: String,
    /// One life of the scope.
    pub session: String,
    /// When that began.
    pub created: i64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum What {
    /// The first peer comes.
    SessionCreated,
    /// A peer came.
    Joined {
        /// Its stay.
        stay: Stay,
    },
    /// These are still there: told every now and then, of all stays.
    Present {
        /// Their stays so far.
        stays: Vec<Stay>,
    },
    /// A peer left.
    Left {
        /// Its whole stay.
        stay: Stay,
    },
    /// The last peer left.
    SessionDisposed {
        /// How the node held the scope, where there are others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<Hold>,
    },
    /// How streams fared within a minute.
    Quality {
        /// Its beginning.
        minute: i64,
        /// Stream by stream.
        streams: Vec<Stream>,
    },
    /// Whether the node was well in a minute.
    Checked {
        /// Its beginning.
        minute: i64,
        /// It was.
        is_well: bool,
        /// What was wrong.
        reason: String,
    },
}

/// A node's hold on a scope: who knows it can give the scope back for a node that is dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Which start of the node.
    pub incarnation: String,
    /// Under which fence.
    pub fence: u64,
}

/// One peer's stay in a scope so far: later tellings replace earlier ones, in whatever order they
/// arrive, as `until` and the bytes only grow, and the one that it is over is the last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stay {
    /// Unique.
    pub stay: String,
    /// Peer identifier.
    pub peer: String,
    /// Display name.
    pub name: String,
    /// Who, as the application names them.
    pub user: String,
    /// How it is connected.
    pub client: String,
    /// When it came.
    pub joined: i64,
    /// The last time that it was there.
    pub until: i64,
    /// Why it left; none while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// Media from it.
    pub bytes_in: u64,
    /// Media to it.
    pub bytes_out: u64,
}

impl Stay {
    /// What of it is so from its beginning to its end.
    pub fn as_begun(&self) -> Self {
        Self { until: self.joined, left: None, bytes_in: 0, bytes_out: 0, ..self.clone() }
    }

    /// Takes over what another telling of the same stay knows better. Until when it was, the one that
    /// it is over knows best.
    pub fn merge(&mut self, other: &Self) {
        self.until = match (&self.left, &other.left) {
            (Some(_), None) => self.until,
            (None, Some(_)) => other.until,
            _ => self.until.max(other.until),
        };
        self.bytes_in = self.bytes_in.max(other.bytes_in);
        self.bytes_out = self.bytes_out.max(other.bytes_out);
        if self.left.is_none() {
            self.left.clone_from(&other.left);
        }
    }
}

/// How one stream of a peer fared within a minute: a publication, or all that the peer gets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    /// Whose.
    pub stay: String,
    /// The publication; empty for all that the peer gets.
    pub stream: String,
    /// How much of the minute was measured.
    pub seconds: f64,
    /// RTP packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Share of packets lost, after repair.
    pub loss: Option<f64>,
    /// Round trip, in seconds.
    pub round_trip: Option<f64>,
    /// Interarrival jitter, in seconds.
    pub jitter: Option<f64>,
    /// How long 95 % of the packets waited on their way at most, in seconds.
    pub queue_delay: Option<f64>,
    /// For how long pictures stood still, in seconds, per stream.
    pub frozen: f64,
    /// Share of streams with a lower layer than wanted.
    pub lowered: f64,
    /// Share of streams that got nothing.
    pub paused: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_are_written() {
        let stay =
            Stay { stay: "n.1".into(), until: 7, left: Some("left".into()), ..Stay::default() };
        let streams = vec![Stream { stay: "n.1".into(), loss: Some(0.5), ..Stream::default() }];
        for what in [
            What::SessionCreated,
            What::SessionDisposed { hold: None },
            What::SessionDisposed { hold: Some(Hold { incarnation: "i".into(), fence: 7 }) },
            What::Present { stays: vec![stay.clone()] },
            What::Left { stay },
            What::Quality { minute: 60_000, streams },
            What::Checked { minute: 0, is_well: true, reason: String::new() },
        ] {
            let event = Event {
                id: "n.2".into(),
                at: 9,
                node: "here".into(),
                application: "acme".into(),
                scope: "lobby".into(),
                session: "scope-1".into(),
                created: 5,
                what,
            };
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
        }
    }

    #[test]
    fn tellings_merge_in_any_order() {
        let early = Stay { until: 5, bytes_in: 1, ..Stay::default() };
        let late = Stay { until: 9, bytes_in: 3, left: Some("left".into()), ..Stay::default() };
        let (mut one, mut other) = (early.clone(), late.clone());
        one.merge(&late);
        other.merge(&early);
        assert_eq!(one, other);
        assert_eq!(one, late);
    }

    #[test]
    fn who_left_is_there_no_longer_whatever_is_told_later() {
        let left = Stay { until: 5, bytes_in: 1, left: Some("left".into()), ..Stay::default() };
        let there = Stay { until: 9, bytes_in: 3, ..Stay::default() };
        let (mut one, mut other) = (left.clone(), there.clone());
        one.merge(&there);
        other.merge(&left);
        assert_eq!(one, other);
        assert_eq!(one, Stay { bytes_in: 3, ..left });
    }
}
