//! Allowed senders: from whom a peer takes what.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Kind, PublicationView, Source};
use crate::fault::Fault;
use crate::limits;

/// What rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// Sound, but for that of a screen.
    Audio,
    /// Pictures, but for those of a screen.
    Video,
    /// A screen with its sound.
    Screen,
}

impl MediaType {
    /// What a publication is.
    pub fn of(publication: &PublicationView) -> Self {
        match (publication.source, publication.kind) {
            (Source::Screen | Source::ScreenAudio, _) => Self::Screen,
            (_, Kind::Audio) => Self::Audio,
            (_, Kind::Video) => Self::Video,
        }
    }
}

/// Who may send one media type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "SendersSpec")]
pub enum Senders {
    /// Everybody, also who comes later.
    #[default]
    All,
    /// These peers alone.
    Peers(BTreeSet<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "\"all\", or a list of peers")]
enum SendersSpec {
    Word(Word),
    Peers(BTreeSet<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    All,
}

impl From<SendersSpec> for Senders {
    fn from(spec: SendersSpec) -> Self {
        match spec {
            SendersSpec::Word(Word::All) => Self::All,
            SendersSpec::Peers(peers) => Self::Peers(peers),
        }
    }
}

/// A change of the rules; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AllowSpec {
    /// Who may send sound.
    pub audio: Option<Senders>,
    /// Who may send pictures.
    pub video: Option<Senders>,
    /// Who may send a screen and its sound.
    pub screen: Option<Senders>,
}

/// A peer's rules. At first everybody is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    audio: Senders,
    video: Senders,
    screen: Senders,
}

impl Allowed {
    /// Changes the rules.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooLarge`] for more peers than [`limits::ALLOWED_SENDERS`]; then nothing changed.
    pub fn change(&mut self, spec: AllowSpec) -> Result<(), Fault> {
        for senders in [&spec.audio, &spec.video, &spec.screen].into_iter().flatten() {
            if let Senders::Peers(peers) = senders
                && (peers.len() > limits::ALLOWED_SENDERS
                    || peers.iter().any(|peer| peer.len() > limits::NAME_BYTES))
            {
                return Err(Fault::too_large(format!(
                    "allow: at most {} peers of {} bytes each for a media type; \"all\" is \
                     everybody",
                    limits::ALLOWED_SENDERS,
                    limits::NAME_BYTES,
                )));
            }
        }
        let AllowSpec { audio, video, screen } = spec;
        for (rule, senders) in
            [(&mut self.audio, audio), (&mut self.video, video), (&mut self.screen, screen)]
        {
            if let Some(senders) = senders {
                *rule = senders;
            }
        }
        Ok(())
    }

    /// The rules for sound, pictures and screens, for a memo: `None` is everybody. Also whether somebody
    /// is missing, because all together would have more than so many bytes. Who `is_there` comes first;
    /// who is missing is not allowed, rather than everybody.
    pub fn to_lists(
        &self,
        is_there: impl Fn(&str) -> bool,
        bytes_max: usize,
    ) -> ([Option<BTreeSet<String>>; 3], bool) {
        let rules = [&self.audio, &self.video, &self.screen];
        let mut lists = rules.map(|rule| match rule {
            Senders::All => None,
            Senders::Peers(_) => Some(BTreeSet::new()),
        });
        let (mut bytes, mut is_cut) = (0, false);
        for wanted in [true, false] {
            for (rule, list) in rules.iter().zip(&mut lists) {
                let (Senders::Peers(peers), Some(list)) = (rule, list) else { continue };
                for peer in peers.iter().filter(|peer| is_there(peer) == wanted) {
                    // Quotes and a comma; what is escaped takes six at most.
                    let plain = peer.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b));
                    bytes += 3 + peer.len() * if plain { 1 } else { 6 };
                    match bytes <= bytes_max {
                        true => drop(list.insert(peer.clone())),
                        false => is_cut = true,
                    }
                }
            }
        }
        (lists, is_cut)
    }

    /// The other way round.
    pub fn of_lists(lists: [Option<BTreeSet<String>>; 3]) -> Self {
        let senders = |list: Option<_>| list.map_or(Senders::All, Senders::Peers);
        let [audio, video, screen] = lists.map(senders);
        Self { audio, video, screen }
    }

    /// Whether there is something that this peer may not send, whatever it publishes.
    pub fn excludes(&self, sender: &str) -> bool {
        [&self.audio, &self.video, &self.screen].into_iter().any(|senders| match senders {
            Senders::All => false,
            Senders::Peers(peers) => !peers.contains(sender),
        })
    }

    /// Whether a peer may send this publication.
    pub fn allows(&self, sender: &str, publication: &PublicationView) -> bool {
        let senders = match MediaType::of(publication) {
            MediaType::Audio => &self.audio,
            MediaType::Video => &self.video,
            MediaType::Screen => &self.screen,
        };
        match senders {
            Senders::All => true,
            Senders::Peers(peers) => peers.contains(sender),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(kind: Kind, source: Source) -> PublicationView {
        PublicationView {
            publication: "pub-1".into(),
            kind,
            source,
            name: None,
            muted: false,
            codec: String::new(),
        }
    }

    fn spec(text: &str) -> Result<AllowSpec, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn each_media_type_has_its_own_senders() {
        let mut allowed = Allowed::default();
        let camera = publication(Kind::Video, Source::Camera);
        let microphone = publication(Kind::Audio, Source::Microphone);
        let (screen, sound) = (
            publication(Kind::Video, Source::Screen),
            publication(Kind::Audio, Source::ScreenAudio),
        );
        let file = publication(Kind::Video, Source::Other);
        for each in [&camera, &microphone, &screen, &sound, &file] {
            assert!(allowed.allows("p-1", each));
        }
        allowed.change(spec(r#"{"video": ["p-2"], "screen": []}"#).unwrap()).unwrap();
        assert!(allowed.allows("p-2", &camera) && allowed.allows("p-2", &file));
        assert!(!allowed.allows("p-1", &camera) && !allowed.allows("p-1", &file));
        assert!(allowed.allows("p-1", &microphone));
        assert!(!allowed.allows("p-2", &screen) && !allowed.allows("p-2", &sound));
        allowed.change(spec(r#"{"screen": "all"}"#).unwrap()).unwrap();
        assert!(allowed.allows("p-1", &screen) && !allowed.allows("p-1", &camera));
        assert!(allowed.excludes("p-1") && !allowed.excludes("p-2"));
    }

    #[test]
    fn what_is_no_rule_is_refused_and_changes_nothing() {
        for text in [r#"{"vide": "all"}"#, r#"{"video": "none"}"#, r#"{"video": [1]}"#] {
            assert!(spec(text).is_err(), "{text}");
        }
        let mut allowed = Allowed::default();
        let many: BTreeSet<String> = (0..=limits::ALLOWED_SENDERS).map(|n| n.to_string()).collect();
        let screen = Some(Senders::Peers(BTreeSet::new()));
        let spec = AllowSpec { audio: Some(Senders::Peers(many)), screen, ..AllowSpec::default() };
        assert_eq!(allowed.change(spec).unwrap_err().code(), 413);
        assert_eq!(allowed, Allowed::default());
    }
}
