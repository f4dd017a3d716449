//! Which node it is: asked of the CnCs where there are such, watched for its death, and what is made anew on another one.

use super::{Asked, Client, Event, Handle, JOIN, Link, Output, RECONNECT, REDIRECTS, timed_out};
use crate::core::path::Random;
use crate::core::resolver::{ANSWER, Place};
use crate::error::Error;
use std::time::Duration;
use strait_link::Frames;
use strait_link::v1::{self, ErrorCode, client_message};

/// What a node that a CnC named has to let the client in within, the first time; twice as long each time after it, up to
/// [`JOIN`]. It may have died just now, and another one is to be there within 5 s.
const JOIN_FIRST: Duration = Duration::from_secs(3);
/// So many times at most the wait doubles where the client is not let in: eight times the 2 s that a node names, with what
/// chance adds, is within the 30 s for which it keeps a session.
const REFUSALS: u32 = 3;
/// A node whose checks and link were both silent for so long is asked over the link. Checks are half a second apart, and a
/// tenth of one where the last was not answered.
const DOUBT: Duration = Duration::from_millis(750);
/// It has so long to answer; then it is dead, 1.5 s after it was heard last.
const VERDICT: Duration = Duration::from_millis(750);
/// The same where media goes over TCP, on which what is lost holds up all for a while.
const VERDICT_TCP: Duration = Duration::from_millis(2250);

impl<R: Random> Client<R> {
    /// A CnC answered [`Output::Resolve`]: with the node, or why it does not.
    pub fn on_resolved(&mut self, now: Duration, answer: Result<Place, Error>) {
        if !matches!(self.link, Link::Resolving(_)) {
            return;
        }
        match answer {
            Ok(place) => {
                self.search.iter_mut().for_each(|search| search.answered());
                self.at = place;
                self.connect(now);
            }
            Err(error) => self.ask_next(now, error),
        }
    }

    /// Begins to look for the node.
    pub(super) fn seek(&mut self, now: Duration) {
        let Some(search) = &mut self.search else { return self.connect(now) };
        search.begin(&mut self.random);
        self.unanswered(now);
    }

    /// No CnC answered yet: the next one is asked.
    pub(super) fn unanswered(&mut self, now: Duration) {
        let why = "no CnC answers: are their addresses right?";
        self.ask_next(now, timed_out(why));
    }

    fn ask_next(&mut self, now: Duration, before: Error) {
        if let Some(question) = self.search.as_mut().and_then(|search| search.ask(&self.failed)) {
            self.link = Link::Resolving(now + ANSWER);
            self.out.push_back(Output::Resolve(question));
        } else if self.at.host.is_empty() {
            self.lost(now, before, (RECONNECT, 1));
        } else {
            // All CnCs are away. Where the node is well, nobody needs them.
            self.connect(now);
        }
    }

    pub(super) fn connect(&mut self, now: Duration) {
        let patience = match self.search {
            Some(_) => JOIN.min(JOIN_FIRST * 2u32.saturating_pow(self.failures)),
            None => JOIN,
        };
        self.link = Link::Joining(now + patience);
        let Place { host, port } = self.at.clone();
        self.out.push_back(Output::Connect { host, port });
    }

    /// Where there are other nodes, one that dies is to be found dead soon; and where the link is over UDP, that UDP does
    /// not get through any more: the next link is over TCP then.
    pub(super) fn watch(&mut self, now: Duration) {
        for handle in self.subscriptions.given_up(now) {
            self.event(Event::Refused { handle, error: Error::Unknown("publication") });
        }
        let Some((heard, verdict)) = self.silence() else {
            self.doubted = None;
            return;
        };
        match self.doubted {
            _ if now < heard + DOUBT => self.doubted = None,
            None => {
                self.doubted = Some(now);
                let ping = v1::Ping { token: now.as_millis() as u64 };
                self.tell(client_message::Body::Ping(ping));
            }
            Some(since) if since + verdict <= now => {
                let why = "the node answers neither over the link nor where media goes: it is dead, \
                           or this machine has no network, or UDP does not get through any more";
                self.lose(now, timed_out(why));
            }
            Some(_) => {}
        }
    }

    pub(super) fn watch_due(&self) -> Option<Duration> {
        let (heard, verdict) = self.silence()?;
        Some(self.doubted.map_or(heard + DOUBT, |since| since + verdict))
    }

    /// Since when the node is silent on all ways, and how long it may be once it was asked.
    fn silence(&self) -> Option<(Duration, Duration)> {
        let is_asked = self.search.is_some() || self.link_is_over_udp;
        if !is_asked || !matches!(self.link, Link::Joined) {
            return None;
        }
        let (since, is_tcp) = self.transport.silent_since()?;
        let is_slow = is_tcp && !self.link_is_over_udp;
        Some((since.max(self.heard), if is_slow { VERDICT_TCP } else { VERDICT }))
    }

    pub(super) fn redirected(&mut self, now: Duration, redirect: v1::Redirect) {
        let Some(port) = u16::try_from(redirect.port).ok().filter(|port| *port != 0) else {
            return self.lose(now, Error::Protocol("the node redirects to no port".into()));
        };
        let there = Place { host: redirect.host, port };
        self.sent_on.push(self.at.clone());
        if self.sent_on.len() > REDIRECTS || self.sent_on.contains(&there) {
            // All of them live, and one is about to know better.
            let reason = "nodes send this client on in a circle".into();
            self.out.push_back(Output::CloseLink);
            let error = Error::Refused { code: ErrorCode::TooMany, reason };
            return self.not_let_in(now, error, RECONNECT);
        }
        self.out.push_back(Output::CloseLink);
        let before = std::mem::replace(&mut self.at, there);
        self.home.get_or_insert(before);
        // Nothing more is read of this one.
        self.frames = Frames::new();
        self.lose_requests(now);
        self.connect(now);
    }

    /// The node does not go on with this link. `retry_ms`: when it may do so again; 0: not by waiting, or it cannot say.
    pub(super) fn refused(&mut self, now: Duration, error: Error, retry_ms: u32) {
        self.out.push_back(Output::CloseLink);
        // Of its limits the node alone knows which of them pass. Its faults and its silence may, whatever it says.
        let is_limit = matches!(error, Error::Refused { code: ErrorCode::TooMany, .. });
        // Who was in does not give up where others took its place: they leave.
        let is_new = self.session.is_none();
        match retry_ms {
            0 if is_limit && is_new => self.end(now, error),
            0 => self.not_let_in(now, error, RECONNECT),
            _ => self.not_let_in(now, error, Duration::from_millis(retry_ms.into())),
        }
    }

    /// Waits longer from one refusal to the next.
    fn not_let_in(&mut self, now: Duration, error: Error, wait: Duration) {
        // The last word of a link that was open says nothing about how the next one fares.
        let is_in = matches!(self.link, Link::Joined);
        let times = if is_in { 1 } else { 1 << self.refusals.min(REFUSALS) };
        self.refusals += u32::from(!is_in);
        self.lost(now, error, (wait, times));
    }

    /// Ends the link from here.
    pub(super) fn lose(&mut self, now: Duration, error: Error) {
        self.out.push_back(Output::CloseLink);
        self.lost(now, error, (RECONNECT, 1));
    }

    /// It is tried again after so long and up to [`RECONNECT`] more by chance, all of that so many times.
    pub(super) fn lost(&mut self, now: Duration, error: Error, (wait, times): (Duration, u32)) {
        if !error.may_pass() {
            return self.end(now, error);
        }
        let mut chance = [0; 2];
        self.random.fill(&mut chance);
        let more = RECONNECT.mul_f64(f64::from(u16::from_be_bytes(chance)) / 65_536.0);
        let retry_in = (wait + more) * times;
        if !matches!(self.link, Link::Resolving(_)) {
            // One that is full, or sends on, lives.
            let lives = matches!(error, Error::Refused { code: ErrorCode::TooMany, .. });
            self.failed = if lives { String::new() } else { self.at.to_string() };
            self.failures += 1;
        }
        let was_in = matches!(self.link, Link::Joined);
        self.link = Link::Waiting(now + retry_in);
        self.sent_on.clear();
        // Who was sent to a node that does not let it in, or no more, asks again where to go.
        if let Some(home) = self.home.take_if(|_| !was_in) {
            self.at = home;
        }
        self.transport.link_lost(now);
        self.lose_requests(now);
        self.event(Event::LinkLost { error, retry_in });
        self.flush();
    }

    /// No answer comes any more to what was asked.
    pub(super) fn lose_requests(&mut self, now: Duration) {
        for (_, asked) in self.asked.drain().collect::<Vec<_>>() {
            let (Asked::Other(handle) | Asked::Subscribe(handle, _)) = asked else { continue };
            // A subscription that is kept is asked for again by the client.
            if !self.subscriptions.unanswered(now, handle) {
                self.event(Event::Refused { handle, error: Error::LinkLost });
            }
        }
    }

    /// The handle of a subscription that is there, or is being made anew, and needs no other one beside it.
    pub(super) fn subscribed_already(&mut self, publication_id: &str) -> Option<Handle> {
        let (handle, id) = self.subscriptions.of(publication_id)?;
        if let Some(subscription_id) = id.map(str::to_owned) {
            self.event(Event::Subscribed { handle, subscription_id });
        }
        Some(handle)
    }

    pub(super) fn keep_subscription(&mut self, handle: Handle, request: &v1::Subscribe) {
        if self.search.is_some() {
            self.subscriptions.keep(handle, request);
        }
    }

    /// What a request changes of what is made anew on another node. Whether it is done with that: this node knows nothing
    /// of it yet.
    pub(super) fn remember(&mut self, body: &client_message::Body) -> bool {
        match body {
            client_message::Body::Unsubscribe(request) => {
                self.media.unsubscribe(&request.subscription_id);
                return self.subscriptions.unsubscribed(&request.subscription_id);
            }
            client_message::Body::SetPreferences(request) => {
                let is_paused = request.preferences.is_some_and(|wanted| wanted.paused);
                self.media.pause(&request.subscription_id, is_paused);
                self.subscriptions.prefer(&request.subscription_id, request.preferences);
            }
            client_message::Body::SetMuted(request) => {
                let is_it = |id: &String| *id == request.publication_id;
                let mut all = self.publications.iter_mut();
                if let Some(one) = all.find(|one| one.id.as_ref().is_some_and(is_it)) {
                    one.request.muted = request.muted;
                }
            }
            _ => {}
        }
        false
    }

    /// Subscribes to what is here again.
    pub(super) fn subscribe_found(&mut self) {
        if !matches!(self.link, Link::Joined) {
            return;
        }
        for (handle, request) in self.subscriptions.found() {
            let clock = self.clocks.get(&request.publication_id).copied().unwrap_or(90_000);
            let body = client_message::Body::Subscribe(request);
            self.ask(Asked::Subscribe(handle, clock), body);
        }
    }
}
