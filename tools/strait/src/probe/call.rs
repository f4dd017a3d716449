//! One call: two peers join, one sends sound, the other must hear it.

use std::fmt;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use strait_client::core::resolver::Place;
use strait_client::v1::{Kind, Publish, auth::Credential, user_event};
use strait_client::{Client, Config, Descriptor, Event, Frame, Trust};

/// A frame of Opus that is silence.
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];
/// Its time on the line.
const FRAME: Duration = Duration::from_millis(20);
/// Of 48 kHz.
const FRAME_UNITS: u32 = 960;
/// Frames that the call is listened to: two seconds.
const FRAMES: u32 = 100;
/// Those of them that may be missing.
const MISSING_MAX: u32 = 5;
/// How long a call may take until there is sound.
const SOUND_WITHIN: Duration = Duration::from_secs(10);
/// Events that wait for this thread; packets among them.
const EVENTS: usize = 1024;

/// Whom to call, and how.
pub struct Call {
    /// Name or address of the node.
    pub host: String,
    /// Port of its link.
    pub port: u16,
    /// Scope of the call.
    pub scope: String,
    /// What lets both in.
    pub token: String,
    /// Whom to trust.
    pub trust: Trust,
}

/// How a call went.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The one heard the other.
    Good {
        /// From the first step to both in the scope.
        joined: Duration,
        /// From there to sound.
        sound: Duration,
        /// Frames that did not come, of [`FRAMES`].
        missing: u32,
    },
    /// The node takes nobody more, and names another one: it is full, or drains.
    SentOn(String),
    /// It did not, and why.
    Failed(String),
}

impl Outcome {
    /// Whether it is as it should be; nothing where the node was not called in the end.
    pub fn verdict(&self) -> Option<bool> {
        match self {
            Self::Good { .. } => Some(true),
            Self::SentOn(_) => None,
            Self::Failed(_) => Some(false),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good { joined, sound, missing } => write!(
                f,
                "good: joined in {:.2} s, sound after {:.2} s, {missing} of {FRAMES} frames missing",
                joined.as_secs_f32(),
                sound.as_secs_f32()
            ),
            Self::SentOn(to) => write!(f, "not called: it sends its clients on to {to}"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
        }
    }
}

impl Call {
    /// Makes it.
    pub fn make(&self) -> Outcome {
        self.attempt().unwrap_or_else(Outcome::Failed)
    }

    fn attempt(&self) -> Result<Outcome, String> {
        let began = Instant::now();
        let here = Place { host: self.host.clone(), port: self.port };
        let mut speaker = self.join("probe-speaker")?;
        if let Some(there) = speaker.until_joined(began, &here)? {
            return Ok(Outcome::SentOn(there));
        }
        let mut listener = self.join("probe-listener")?;
        if let Some(there) = listener.until_joined(began, &here)? {
            return Ok(Outcome::SentOn(there));
        }
        let joined = began.elapsed();
        let publish =
            Publish { kind: Kind::Audio.into(), codec: "opus".into(), ..Publish::default() };
        let voice = speaker.client.publish(publish).map_err(|error| error.to_string())?;
        let (mut sent, mut heard, mut first) = (0_u32, 0_u32, None);
        let mut sound = Duration::ZERO;
        let since = Instant::now();
        // Sound counts from the first that was heard: what was sent before went to nobody.
        while first.is_none_or(|first| sent < first + FRAMES) {
            if first.is_none() && since.elapsed() > SOUND_WITHIN {
                let seconds = SOUND_WITHIN.as_secs();
                return Err(format!("both joined, and no sound came within {seconds} s"));
            }
            let frame = Frame {
                payload: &SILENCE,
                timestamp: sent.wrapping_mul(FRAME_UNITS),
                marker: sent == 0,
                level: None,
            };
            // Before the publication is there it cannot be sent.
            let _early = speaker.client.send(voice, 0, &frame);
            sent += 1;
            std::thread::sleep((since + FRAME * sent).saturating_duration_since(Instant::now()));
            speaker.drain()?;
            let came = listener.drain()?;
            if came > 0 && first.is_none() {
                first = Some(sent);
                sound = since.elapsed();
            }
            if first.is_some() {
                heard += came;
            }
        }
        // What is on its way still.
        std::thread::sleep(FRAME * 10);
        heard += listener.drain()?;
        let missing = FRAMES.saturating_sub(heard);
        speaker.client.leave();
        listener.client.leave();
        match missing <= MISSING_MAX {
            true => Ok(Outcome::Good { joined, sound, missing }),
            false => Err(format!("{missing} of {FRAMES} frames of sound did not come")),
        }
    }

    fn join(&self, name: &str) -> Result<Peer, String> {
        let descriptor = Descriptor {
            config: Config {
                host: self.host.clone(),
                port: self.port,
                credential: Credential::Token(self.token.clone()),
                scope_id: self.scope.clone(),
                name: name.into(),
                client: "strait-probe".into(),
                profiles: Vec::new(),
                // The call is for the node.
                relay_only: true,
                cluster: None,
            },
            trust: self.trust.clone(),
            proxy: None,
            udp: true,
            quic: None,
        };
        let (to_us, events) = mpsc::sync_channel(EVENTS);
        let client = Client::connect(descriptor, move |event| drop(to_us.try_send(event)));
        Ok(Peer { client: client.map_err(|error| error.to_string())?, events })
    }
}

struct Peer {
    client: Client,
    events: Receiver<Event>,
}

impl Peer {
    /// Where the node sends it instead, which nobody asked about.
    fn until_joined(&mut self, began: Instant, here: &Place) -> Result<Option<String>, String> {
        let mut last = None;
        loop {
            let left = SOUND_WITHIN.saturating_sub(began.elapsed());
            let Ok(event) = self.events.recv_timeout(left) else {
                let seconds = SOUND_WITHIN.as_secs();
                let why = last.map(|error| format!(": {error}")).unwrap_or_default();
                return Err(format!("not joined within {seconds} s{why}"));
            };
            let there = self.client.node();
            if there != *here {
                return Ok(Some(there.to_string()));
            }
            match event {
                Event::Joined { peers, .. } => {
                    for publication in peers.iter().flat_map(|peer| &peer.publications) {
                        self.subscribe(&publication.publication_id)?;
                    }
                    return Ok(None);
                }
                Event::LinkLost { error, .. } => last = Some(error),
                Event::Ended(error) => return Err(error.to_string()),
                _ => {}
            }
        }
    }

    /// Takes what happened meanwhile: how many packets came.
    fn drain(&mut self) -> Result<u32, String> {
        let mut packets = 0;
        let events: Vec<_> = self.events.try_iter().collect();
        for event in events {
            match event {
                Event::Payload(_) => packets += 1,
                Event::Scope(user_event::Body::Started(started)) => {
                    if let Some(publication) = &started.publication {
                        self.subscribe(&publication.publication_id)?;
                    }
                }
                Event::Refused { error, .. } | Event::Ended(error) => {
                    return Err(error.to_string());
                }
                _ => {}
            }
        }
        Ok(packets)
    }

    fn subscribe(&self, publication: &str) -> Result<(), String> {
        let subscribed = self.client.subscribe(publication, false);
        subscribed.map(drop).map_err(|error| error.to_string())
    }
}
