//! Somebody in a conference: a JsonRTC session and a WebRTC peer, who sends sound and picture.

use serde_json::{Value, json};

use crate::frames::Kind;
use crate::jsonrtc::Link;
use crate::peer::{Peer, Running, Traits};

const BOTH: [Kind; 2] = [Kind::Audio, Kind::Video];

pub struct Person {
    pub link: Link,
    pub peer: Running,
    subsession: String,
    /// The others who were there when this one came.
    pub others: Vec<Value>,
    /// Offers made since the START.
    pub offers: usize,
}

impl Person {
    /// Joins, with `free` slots of each kind that show nobody yet.
    pub fn join(mut link: Link, scope: &str, traits: Traits, free: usize) -> Self {
        let mut peer = Peer::new(traits);
        BOTH.into_iter().for_each(|kind| peer.send(kind));
        (0..free).flat_map(|_| BOTH).for_each(|kind| peer.receive(kind));
        let (offer, _) = peer.offer();
        let (subsession, started) = link.start(scope, json!({"sdp": offer}));
        assert!(started["failed"].as_array().is_none_or(Vec::is_empty), "{started}");
        assert_eq!(started["publications"].as_array().map(Vec::len), Some(2));
        peer.answer(started["sdp"].as_str().expect("an answer"));
        let others = started["peers"].as_array().cloned().unwrap_or_default();
        Self { link, peer: peer.run(), subsession, others, offers: 0 }
    }

    /// The publications of the next to come.
    pub fn newcomer(&mut self) -> Vec<Value> {
        self.link.event("joined");
        BOTH.map(|_| self.link.event("published")["publication"].clone()).to_vec()
    }

    /// The publications of the one other, whoever of the two came first.
    pub fn other(&mut self) -> Vec<Value> {
        let Some(other) = self.others.first() else { return self.newcomer() };
        // It may be about to publish, just as we are.
        let mut all = other["publications"].as_array().cloned().unwrap_or_default();
        while all.len() < BOTH.len() {
            all.push(self.link.event("published")["publication"].clone());
        }
        all
    }

    /// Shows the publications in slots that are there already, given by kind: no offer.
    pub fn show(&mut self, publications: &[Value], slots: &[(Kind, String)]) {
        let bind = |(kind, mid): &(Kind, String)| {
            let mut all = publications.iter().filter(|p| is_of(p, *kind));
            let publication = all.next().expect("one of each kind")["publication"].clone();
            json!({"mid": mid, "publication": publication})
        };
        let subscribe: Vec<Value> = slots.iter().map(bind).collect();
        let updated = self.link.update(&self.subsession, json!({"subscribe": subscribe}));
        assert_eq!(updated["failed"], json!([]));
        assert!(updated.get("sdp").is_none(), "binding a slot needs no offer");
    }

    /// Shows the publications in slots of their own: one offer for all of them.
    pub fn add(&mut self, publications: &[Value]) {
        let kinds: Vec<Kind> = publications
            .iter()
            .map(|p| if is_of(p, Kind::Audio) { Kind::Audio } else { Kind::Video })
            .collect();
        let (offer, mids) = self.peer.with(move |peer| {
            kinds.into_iter().for_each(|kind| peer.receive(kind));
            peer.offer()
        });
        self.offers += 1;
        let bind =
            |(mid, p): (&String, &Value)| json!({"mid": mid, "publication": p["publication"]});
        let subscribe: Vec<Value> = mids.iter().zip(publications).map(bind).collect();
        let payload = json!({"sdp": offer, "subscribe": subscribe});
        let updated = self.link.update(&self.subsession, payload);
        assert!(updated["failed"].as_array().is_none_or(Vec::is_empty), "{updated}");
        let answer = updated["sdp"].as_str().expect("an answer").to_owned();
        self.peer.with(move |peer| peer.answer(&answer));
    }

    /// The m-lines to receive on.
    pub fn slots(&self) -> Vec<(Kind, String)> {
        self.peer.with(|peer| peer.slots())
    }
}

fn is_of(publication: &Value, kind: Kind) -> bool {
    publication["kind"] == if kind == Kind::Audio { "audio" } else { "video" }
}
