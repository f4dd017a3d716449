//! One WebSocket session and its subsessions of the package `scope`.

mod resume;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use strait_proto::pace::Pace;
use strait_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info};

use super::direct;
use super::hub::{Attach, Hub, Registration, Wire};
use super::jsonrtc::{Action, Frame, FrameType, Outgoing, Received, Series};
use super::message;
use crate::auth::{Identity, Pass};
use crate::fault::Fault;
use crate::scope::allowed::AllowSpec;
use crate::scope::quality::Wish;
use crate::scope::{
    self, Failed, Notice, Participant, PublishSpec, Role, Sink, Speakers, SubscribeSpec,
};
use crate::{id, limits};

type Tagged = (u64, Arc<Notice>);

/// One session: lives as long as its WebSocket, and some time without one.
pub struct Session {
    registration: Registration,
    identity: Identity,
    peer: String,
    name: String,
    series: Series,
    wire: Option<Wire>,
    pace: Pace,
    /// Until when nothing is read: the client spoke too fast.
    held: Option<Instant>,
    attached: mpsc::Receiver<Attach>,
    notices: mpsc::Receiver<Tagged>,
    notices_in: mpsc::Sender<Tagged>,
    subsessions: Vec<Subsession>,
    tags: u64,
    /// Who speaks changed while there was no WebSocket.
    missed_speech: bool,
    /// How the answer to CONNECT refers to it; none when it stood outside the series.
    connect: Option<String>,
}

/// One stay in one scope.
struct Subsession {
    id: String,
    tag: u64,
    sink: Sink,
    participant: Participant,
    /// It wants to know how its streams fare.
    wish: Option<Wish>,
}

/// Payload of START and UPDATE.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Change {
    sdp: Option<String>,
    publish: Vec<PublishSpec>,
    subscribe: Vec<SubscribeSpec>,
    preferences: Vec<PreferenceSpec>,
    allow: Option<AllowSpec>,
    uplink_max_bps: Option<u64>,
    /// Media may go directly to the other of two. START without it means that it may not.
    direct: Option<bool>,
    /// Of START: in a scope that nobody else can enter, to try the line. It is known by no other
    /// name than the peer's own.
    alone: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreferenceSpec {
    mid: String,
    #[serde(default)]
    paused: bool,
    layer_max: Option<u32>,
    spatial_max: Option<u32>,
    temporal_max: Option<u32>,
    height: Option<u32>,
    #[serde(default)]
    priority: u8,
    #[serde(default)]
    pinned: bool,
}

/// Payload of NOTIFY.
#[derive(Deserialize)]
struct Notify {
    event: String,
    publication: Option<String>,
    on: Option<bool>,
    to: Option<String>,
    text: Option<String>,
    data: Option<String>,
    /// Of a message that a data channel did not bring: its number there. Of a signal: the pair's.
    number: Option<u32>,
}

impl Session {
    pub(super) fn new(
        registration: Registration,
        connect: &Frame,
        identity: Identity,
        name: String,
        attached: mpsc::Receiver<Attach>,
    ) -> Result<Self, Fault> {
        let (notices_in, notices) = mpsc::channel(limits::NOTICES);
        // The CONNECT of a fresh session begins its series, also where one before it was refused;
        // that of a reconnect stands outside.
        let first = connect.control.sequence.filter(|sequence| *sequence > 0);
        let series = first.map(Series::begun_at).unwrap_or_default();
        Ok(Self {
            pace: Pace::new(registration.hub.rates, Instant::now().into_std()),
            held: None,
            registration,
            identity,
            peer: id::random("p")?,
            name,
            series,
            wire: None,
            attached,
            notices,
            notices_in,
            subsessions: Vec::new(),
            tags: 0,
            missed_speech: false,
            connect: first.and_then(|_| connect.correlation()),
        })
    }

    /// The session's identifier.
    pub fn id(&self) -> &str {
        &self.registration.session_id
    }

    /// Answers CONNECT, then serves the client until it is gone for good.
    pub async fn run(mut self, wire: Wire, pass: Pass) {
        info!(session = id::short(self.id()), name = self.name, "session opened");
        pass.opened(self.id(), self.registration.end());
        self.wire = Some(wire);
        self.greet();
        let mut shutdown = self.hub().shutdown.clone();
        let mut expiry: Option<Instant> = None;
        // The client is back, and begins anew.
        let mut anew = None;
        let reason = loop {
            if self.wire.is_none() && expiry.is_none() {
                expiry = Some(Instant::now() + self.hub().reconnect_time);
            }
            tokio::select! {
                text = receive(&mut self.wire, self.held) => match text {
                    Some(text) => {
                        self.keep_pace(text.len());
                        self.on_text(&text).await;
                    }
                    None => self.wire = None,
                },
                Some((tag, notice)) = self.notices.recv() => self.on_notice(tag, &notice).await,
                attach = self.attached.recv() => {
                    let Some(attach) = attach else { break "replaced by another session" };
                    if let Err(fault) = self.check_as(&attach.identity) {
                        info!(session = id::short(self.id()), "session not resumed: {fault}");
                        anew = Some(attach);
                        break "its credential changed";
                    }
                    if self.resume(attach) {
                        expiry = None;
                    }
                }
                () = until(expiry) => break "connection lost",
                () = is_true(&mut shutdown) => break "server is ending",
            }
        };
        if reason != "connection lost" {
            for index in 0..self.subsessions.len() {
                self.shut_down(index, reason);
            }
        }
        info!(session = id::short(self.id()), reason, "session closed");
        // A reconnect that came a moment too late begins afresh.
        self.attached.close();
        while let Ok(attach) = self.attached.try_recv() {
            attach.give_back();
        }
        for subsession in std::mem::take(&mut self.subsessions) {
            subsession.participant.leave(reason).await;
        }
        if let Some(attach) = anew {
            attach.give_back();
        }
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.registration.hub
    }

    fn greeting(&self) -> Value {
        let turn = self.wire.as_ref().and_then(|wire| wire.turn.as_ref());
        self.hub().greeting(&self.peer, &self.identity, turn)
    }

    /// Answers CONNECT. Without a number when CONNECT had none: both stand outside the series.
    fn greet(&mut self) {
        let payload = self.greeting();
        let frame = Outgoing::message(Action::Connect, payload)
            .control("type", "response")
            .control("message_state", "final");
        match self.connect.take() {
            Some(correlation) => self.send(frame.control("correlation_id", correlation)),
            None => self.write(frame),
        }
    }

    /// Says who speaks in each scope, after changes that were not told.
    fn tell_speakers(&mut self) {
        let told = self.subsessions.iter().map(|subsession| {
            let speakers = subsession.participant.scope().roster().speakers().clone();
            let Speakers { speaking, dominant } = speakers;
            let payload = json!({"event": "speakers", "speaking": speaking, "dominant": dominant});
            Outgoing::message(Action::Notify, payload).in_subsession(&subsession.id)
        });
        for frame in told.collect::<Vec<_>>() {
            self.send(frame);
        }
    }

    /// A client that speaks too fast is read later.
    fn keep_pace(&mut self, bytes: usize) {
        self.held = self.pace.take(Instant::now().into_std(), bytes).map(Into::into);
        if self.held.is_some() {
            self.hub().count_held();
        }
    }

    async fn on_text(&mut self, text: &str) {
        let frame = match Frame::parse(text) {
            Ok(frame) => frame,
            Err(error) => {
                // The frame counts, or everything behind it would be a gap.
                if let Some(sequence) = error.sequence {
                    self.series.receive(sequence);
                }
                let correlation = error.sequence.map(|sequence| format!("c{sequence}"));
                let action = error.action.as_deref().unwrap_or_default();
                return self.write(Outgoing::error(action, correlation, &error.fault));
            }
        };
        if let Some(ack) = frame.control.ack_sequence {
            self.series.acknowledged(ack);
        }
        let refusal = match frame.control.frame_type {
            FrameType::Acknowledgement | FrameType::Error => return,
            _ if frame.action == Action::Ping => {
                // It should carry no number. One that does must not leave a gap.
                if let Some(sequence) = frame.control.sequence {
                    self.series.receive(sequence);
                }
                return self.write(Outgoing::pong());
            }
            _ => self.check(&frame),
        };
        match refusal {
            Ok(true) => {}
            Ok(false) => return,
            Err(fault) => return self.refuse(&frame, &fault),
        }
        match frame.control.frame_type {
            FrameType::Request => match self.on_request(&frame).await {
                Ok(response) => self.send(response),
                Err(fault) => self.refuse(&frame, &fault),
            },
            FrameType::Message => {
                if let Err(fault) = self.on_message(&frame).await {
                    self.refuse(&frame, &fault);
                }
            }
            _ => {} // responses to our requests need nothing
        }
        if self.series.is_acknowledgement_due() {
            self.write(Outgoing::acknowledgement());
        }
    }

    /// Session and number. False for a frame that was seen before.
    fn check(&mut self, frame: &Frame) -> Result<bool, Fault> {
        if frame.control.session_id.as_ref().is_some_and(|id| id != self.id()) {
            return Err(Fault::not_found(
                "control.session_id names another session; leave it out, or reconnect with it",
            ));
        }
        let sequence = frame.control.sequence.ok_or_else(|| {
            Fault::malformed(
                "control.sequence is missing; requests, responses and messages \
                              carry one",
            )
        })?;
        match self.series.receive(sequence) {
            Received::Next => Ok(true),
            Received::Duplicate => Ok(false),
            Received::Gap { expected } => Err(Fault::conflict(format!(
                "frame {sequence} came where {expected} was expected: frames were lost; \
                 reconnect, and resend from {expected}"
            ))),
        }
    }

    async fn on_request(&mut self, frame: &Frame) -> Result<Outgoing, Fault> {
        match frame.action {
            Action::Connect => Err(Fault::conflict("this WebSocket has a session already")),
            Action::Start => self.start(frame).await,
            Action::Update => {
                let index = self.subsession(frame)?;
                let change = change(frame)?;
                let payload = self.change(index, change).await?;
                Ok(self.respond(frame, index, payload))
            }
            Action::Notify => {
                let index = self.subsession(frame)?;
                let payload = self.on_notify(index, frame).await?;
                Ok(self.respond(frame, index, payload))
            }
            Action::Complete => {
                let index = self.subsession(frame)?;
                Ok(self.respond(frame, index, json!({})))
            }
            Action::Shutdown => {
                let index = self.subsession(frame)?;
                let subsession = self.subsessions.remove(index);
                subsession.participant.leave("left").await;
                Ok(Outgoing::response(frame, json!({})).in_subsession(&subsession.id))
            }
            Action::Ping | Action::None => {
                Err(Fault::malformed("header.action does not belong to a request"))
            }
        }
    }

    async fn on_message(&mut self, frame: &Frame) -> Result<(), Fault> {
        match frame.action {
            Action::Complete => self.subsession(frame).map(|_| ()),
            Action::Notify => {
                let index = self.subsession(frame)?;
                self.on_notify(index, frame).await.map(|_| ())
            }
            Action::Shutdown => {
                let index = self.subsession(frame)?;
                self.subsessions.remove(index).participant.leave("left").await;
                Ok(())
            }
            action => Err(Fault::malformed(format!("{} must be a request", action.name()))),
        }
    }

    async fn start(&mut self, frame: &Frame) -> Result<Outgoing, Fault> {
        check_package(frame)?;
        let sequence = frame.control.sequence.unwrap_or_default();
        let mut change = change(frame)?;
        change.direct.get_or_insert(false);
        let mut identity = self.identity.clone();
        let mut scope = frame.text("target").unwrap_or_default().to_owned();
        if change.alone {
            identity.check_scope(&scope)?;
            scope = self.alone();
            identity.scope.clone_from(&scope);
        }
        let sink = Sink::new(self.notices_in.clone(), self.tags).with_messages();
        let tag = self.tags;
        self.tags += 1;
        let id = format!("c{sequence}");
        // A START of a scope that this session is in replaces the old stay: media begins anew,
        // and the others see no leaving.
        let old = self.subsessions.iter().position(|s| s.participant.scope().key.scope == scope);
        let (index, others) = match old.and_then(|i| Some((i, self.subsessions.get_mut(i)?))) {
            Some((index, old)) => {
                let others = old.participant.restart(sink.clone()).await;
                (old.id, old.tag, old.sink, old.wish) = (id, tag, sink, None);
                (index, others)
            }
            None => {
                if self.subsessions.len() >= limits::SUBSESSIONS {
                    return Err(Fault::too_many(format!(
                        "this session is in {} scopes, all it may; leave one first",
                        limits::SUBSESSIONS
                    )));
                }
                let (participant, others) = Participant::enter(
                    &self.hub().scopes,
                    identity,
                    Role::Conference,
                    &scope,
                    &self.peer,
                    &self.name,
                    sink.clone(),
                )
                .await?;
                self.subsessions.push(Subsession { id, tag, sink, participant, wish: None });
                (self.subsessions.len() - 1, others)
            }
        };
        let mut payload = match self.change(index, change).await {
            Ok(payload) => payload,
            Err(fault) => {
                self.subsessions.remove(index).participant.leave("its offer was refused").await;
                return Err(fault);
            }
        };
        let scope = self.subsessions.get(index).map(|s| s.participant.scope());
        let speakers = json!(scope.map(|scope| scope.roster().speakers().clone()));
        let (sent, taken) =
            scope.map(|scope| scope.channels().counts(&self.peer)).unwrap_or_default();
        if let Some(payload) = payload.as_object_mut() {
            payload.insert("peer".into(), self.peer.clone().into());
            payload.insert("peers".into(), json!(others));
            payload.insert("speakers".into(), speakers);
            payload.insert("messages".into(), json!({"sent": sent, "taken": taken}));
        }
        Ok(self.respond(frame, index, payload))
    }

    /// What START and UPDATE have in common.
    async fn change(&mut self, index: usize, change: Change) -> Result<Value, Fault> {
        let participant = match self.subsessions.get_mut(index) {
            Some(subsession) => &mut subsession.participant,
            None => return Err(no_subsession()),
        };
        if let Some(direct) = change.direct {
            participant.go_directly(direct);
        }
        // Before the streams that they are about.
        if let Some(allow) = change.allow {
            participant.allow(allow).await?;
        }
        if let Some(bps_max) = change.uplink_max_bps {
            participant.limit_uplink(bps_max).await?;
        }
        let mut failed = Vec::new();
        let mut answer = None;
        if let Some(sdp) = &change.sdp {
            let outcome = participant.negotiate(sdp, &change.publish, &change.subscribe).await?;
            answer = Some(outcome.answer);
            failed = outcome.failed;
        } else {
            failed.extend(participant.bind(&change.subscribe).await);
        }
        for spec in change.preferences {
            let preferences = v1::Preferences {
                paused: spec.paused,
                layer_max: spec.layer_max,
                spatial_max: spec.spatial_max,
                temporal_max: spec.temporal_max,
                height: spec.height,
                priority: spec.priority.into(),
                pinned: spec.pinned,
            };
            if let Err(fault) = participant.prefer(&spec.mid, preferences).await {
                failed.push(Failed { mid: spec.mid, fault });
            }
        }
        let pairs = |pairs: Vec<(String, Option<String>)>| -> Value {
            let object = |(mid, publication)| json!({"mid": mid, "publication": publication});
            pairs.into_iter().map(object).collect()
        };
        let publications = participant.publications().into_iter().map(|(mid, id)| (mid, Some(id)));
        let failed = failed.iter().map(|failed| {
            json!({
                "mid": failed.mid,
                "error_code": failed.fault.code(),
                "reason": failed.fault.reason,
            })
        });
        let mut payload = json!({
            "publications": pairs(publications.collect()),
            "subscriptions": pairs(participant.subscriptions()),
            "failed": failed.collect::<Value>(),
            "uplinkMaxBps": participant.uplink_bps_max(),
        });
        if let (Some(answer), Some(payload)) = (answer, payload.as_object_mut()) {
            payload.insert("sdp".into(), answer.into());
        }
        Ok(payload)
    }

    async fn on_notify(&mut self, index: usize, frame: &Frame) -> Result<Value, Fault> {
        let notify: Notify = serde_json::from_value(frame.payload.clone())
            .map_err(|error| Fault::malformed(format!("payload: {error}")))?;
        let scopes = Arc::clone(&self.hub().scopes);
        let subsession = self.subsessions.get_mut(index).ok_or_else(no_subsession)?;
        match notify.event.as_str() {
            event @ ("mute" | "unmute") => {
                let publication = notify.publication.ok_or_else(|| {
                    Fault::malformed("payload.publication is missing: which one to mute?")
                })?;
                subsession.participant.set_muted(&publication, event == "mute").await?;
                Ok(json!({}))
            }
            "statistics" => {
                let statistics = subsession.participant.statistics().await?;
                Ok(json!({"statistics": scope::statistics::peer(&statistics)}))
            }
            "quality" => {
                let on = notify.on.unwrap_or(true);
                subsession.sink.want_quality(on);
                subsession.wish = on.then(|| scopes.quality_wishes().wish());
                Ok(json!({}))
            }
            "message" => {
                let (payload, is_text) = message::said(notify.text, notify.data)?;
                self.identity.check_message()?;
                let _floor = scopes.may_speak()?;
                let scope = subsession.participant.scope();
                // Held until it is handed on: it may come by the channel as well.
                let mut channels = scope.channels();
                if notify.number.is_none_or(|number| channels.take(&self.peer, number)) {
                    scope.send_message(&self.peer, notify.to.as_deref(), payload, is_text, 0)?;
                }
                Ok(json!({}))
            }
            "signal" => {
                let signal = direct::signal(notify.number, notify.text)?;
                subsession.participant.scope().signal(&self.peer, signal)?;
                Ok(json!({}))
            }
            "channel" => {
                let scope = subsession.participant.scope();
                if !scope.channels().turn_on(&self.peer) {
                    return Err(Fault::conflict(
                        "there is no data channel with the protocol strait-messages/1: open one, or \
                         it was closed meanwhile",
                    ));
                }
                Ok(json!({}))
            }
            _ => Err(Fault::malformed(
                "payload.event is unknown; mute, unmute, message, channel, signal, statistics and \
                 quality are known",
            )),
        }
    }

    async fn on_notice(&mut self, tag: u64, notice: &Arc<Notice>) {
        let Some(index) = self.subsessions.iter().position(|s| s.tag == tag) else { return };
        let Some(subsession) = self.subsessions.get_mut(index) else { return };
        if subsession.sink.is_lagging() {
            let reason = "events were lost, this client was too slow; start anew";
            self.shut_down(index, reason);
            self.subsessions.remove(index).participant.leave("too slow").await;
            return;
        }
        if matches!(**notice, Notice::Moved) {
            self.shut_down(index, "the scope was given to another node; start anew");
            self.subsessions.remove(index).participant.leave("moved").await;
            return;
        }
        if self.wire.is_none()
            && matches!(**notice, Notice::Speech { .. } | Notice::Dominant { .. })
        {
            // What is said in many words would push out what must not be lost.
            self.missed_speech = true;
            return;
        }
        let is_lost = subsession.participant.on_notice(notice);
        let payload = match &**notice {
            Notice::Joined(peer) => json!({"event": "joined", "peer": peer}),
            Notice::Left { peer, reason } => {
                json!({"event": "left", "peer": peer, "reason": reason})
            }
            Notice::Published { peer, publication } => {
                json!({"event": "published", "peer": peer, "publication": publication})
            }
            Notice::Unpublished { peer, publication } => {
                json!({"event": "unpublished", "peer": peer, "publication": publication})
            }
            Notice::Muted { peer, publication, muted } => {
                let event = if *muted { "muted" } else { "unmuted" };
                json!({"event": event, "peer": peer, "publication": publication})
            }
            Notice::Speech { peer, publication, speaking } => {
                let event = if *speaking { "speaking" } else { "silent" };
                json!({"event": event, "peer": peer, "publication": publication})
            }
            Notice::Dominant { peer, publication } => {
                json!({"event": "dominant", "peer": peer, "publication": publication})
            }
            Notice::Layers { publication, encodings } => {
                let Some(active) = subsession.participant.rids(publication, encodings) else {
                    return;
                };
                json!({"event": "layers", "publication": publication, "active": active})
            }
            // Who comes back learns newer figures soon, and is signalled to anew.
            Notice::Quality(_) | Notice::Signal(_) if self.wire.is_none() => return,
            Notice::Quality(payload) => payload.clone(),
            Notice::Message(_) if subsession.participant.say(notice) => return,
            Notice::Message(message) => {
                let payload = message::told(message, None);
                self.tell_unanswered(index);
                payload
            }
            Notice::Lost(lost) => {
                json!({"event": "messages-lost", "peer": lost.peer, "count": lost.count})
            }
            Notice::ChannelEnded => return self.tell_unanswered(index),
            Notice::Connected { .. } => json!({"event": "connected"}),
            Notice::Direct(offer) => {
                let scopes = &self.registration.hub.scopes;
                scopes.count_direct_offer();
                direct::offered(offer, &scopes.stun_servers())
            }
            Notice::DirectEnded(reason) => direct::ended(reason),
            Notice::Signal(signal) => return self.pass_on(index, direct::told(signal)),
            Notice::MediaLost { reason, .. } if is_lost => {
                json!({"event": "media-lost", "reason": reason})
            }
            Notice::MediaLost { .. } => return, // of a transport that was replaced
            // A browser has keys of its own, and says to the other one what it does not want.
            Notice::KeyChanged | Notice::DirectWanted(_) => return,
            Notice::Moved => return,
        };
        let Some(subsession) = self.subsessions.get(index) else { return };
        let frame = Outgoing::message(Action::Notify, payload).in_subsession(&subsession.id);
        self.send(frame);
    }

    /// Sends what is worth nothing later: without a number it is not kept, and where much waits
    /// already it is left out.
    fn pass_on(&mut self, index: usize, payload: Value) {
        let Some(subsession) = self.subsessions.get(index) else { return };
        if self.wire.as_ref().is_some_and(Wire::has_room) {
            self.write(Outgoing::message(Action::Notify, payload).in_subsession(&subsession.id));
        }
    }

    /// Sends what went by a data channel that ended, and may not have arrived.
    fn tell_unanswered(&mut self, index: usize) {
        let Some(subsession) = self.subsessions.get(index) else { return };
        let unanswered = subsession.participant.scope().channels().take_unanswered(&self.peer);
        let id = subsession.id.clone();
        for (number, notice) in unanswered {
            if let Notice::Message(message) = &*notice {
                let payload = message::told(message, Some(number));
                self.send(Outgoing::message(Action::Notify, payload).in_subsession(&id));
            }
        }
    }

    /// Ends a stay that the client should begin again: only clients end one for good.
    fn shut_down(&mut self, index: usize, reason: &str) {
        let Some(subsession) = self.subsessions.get(index) else { return };
        let frame = Outgoing::request(Action::Shutdown, json!({"reason": reason, "again": true}))
            .in_subsession(&subsession.id);
        self.send(frame);
    }

    fn subsession(&self, frame: &Frame) -> Result<usize, Fault> {
        check_package(frame)?;
        let id = frame.control.subsession_id.as_deref();
        let id = id.ok_or_else(|| Fault::malformed("control.subsession_id is missing"))?;
        let index = self.subsessions.iter().position(|subsession| subsession.id == id);
        index.ok_or_else(no_subsession)
    }

    fn respond(&self, frame: &Frame, index: usize, payload: Value) -> Outgoing {
        let id = self.subsessions.get(index).map(|s| s.id.clone()).unwrap_or_default();
        Outgoing::response(frame, payload).in_subsession(&id)
    }

    fn refuse(&mut self, frame: &Frame, fault: &Fault) {
        debug!(session = id::short(self.id()), action = frame.action.name(), "refused: {fault}");
        let mut error = Outgoing::error(frame.action.name(), frame.correlation(), fault);
        if let Some(id) = &frame.control.subsession_id {
            error = error.control("subsession_id", id.as_str());
        }
        self.write(error);
    }

    /// Sends a frame of the series: numbered, and kept until it is acknowledged.
    fn send(&mut self, frame: Outgoing) {
        debug_assert!(frame.is_numbered());
        let frame = frame.control("sequence", self.series.next_sent());
        let text = self.seal(frame);
        self.series.retain(text.clone());
        self.put(text);
    }

    /// Sends a frame outside the series.
    fn write(&mut self, frame: Outgoing) {
        let text = self.seal(frame);
        self.put(text);
    }

    fn seal(&mut self, frame: Outgoing) -> String {
        let mut frame = frame.control("version", "1.0").control("session_id", self.id());
        if let Some(ack) = self.series.acknowledge() {
            frame = frame.control("ack_sequence", ack);
        }
        frame.write()
    }

    /// Hands a text to the WebSocket. A reader that is too slow loses the WebSocket; the session
    /// stays, and what it missed is retained.
    fn put(&mut self, text: String) {
        if let Some(wire) = &self.wire
            && wire.outbound.try_send(text).is_err()
        {
            info!(session = id::short(self.id()), "the WebSocket is too slow or gone; closing it");
            self.wire = None;
        }
    }
}

async fn receive(wire: &mut Option<Wire>, held: Option<Instant>) -> Option<String> {
    match wire {
        Some(wire) => {
            if let Some(until) = held {
                tokio::time::sleep_until(until).await;
            }
            wire.inbound.recv().await
        }
        None => std::future::pending().await,
    }
}

async fn until(expiry: Option<Instant>) {
    match expiry {
        Some(expiry) => tokio::time::sleep_until(expiry).await,
        None => std::future::pending().await,
    }
}

async fn is_true(flag: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same: the process ends. The guard must not live on.
    let _ = flag.wait_for(|is_true| *is_true).await;
}

fn check_package(frame: &Frame) -> Result<(), Fault> {
    match frame.control.package_type.as_deref() {
        Some("scope") => Ok(()),
        // Without one the package is `call`, unless the subsession says it.
        None if frame.control.subsession_id.is_some() => Ok(()),
        other => Err(Fault::not_found(format!(
            "the package {:?} is not served here; set control.package_type to \"scope\"",
            other.unwrap_or("call")
        ))),
    }
}

fn change(frame: &Frame) -> Result<Change, Fault> {
    if frame.payload.is_null() {
        return Ok(Change::default());
    }
    let change: Change = serde_json::from_value(frame.payload.clone())
        .map_err(|error| Fault::malformed(format!("payload: {error}")))?;
    // Each entry can cost a call of the relay.
    let longest = change.publish.len().max(change.subscribe.len()).max(change.preferences.len());
    if longest > limits::MEDIA_LINES {
        return Err(Fault::too_large(format!(
            "publish, subscribe or preferences has {longest} entries; {} m-lines is the most there \
             are",
            limits::MEDIA_LINES
        )));
    }
    Ok(change)
}

fn no_subsession() -> Fault {
    Fault::not_found("there is no such subsession: it ended, or START was never answered")
}
