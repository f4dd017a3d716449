//! The SCTP association of a peer and the channels in it.

use super::Event;
use super::budget::Budget;
use crate::limits::{
    CHANNEL_ANSWER_BYTES, CHANNEL_BUFFERED_BYTES, CHANNEL_MESSAGE_BYTES, CHANNEL_MESSAGE_WEIGHT,
    CHANNEL_PACKET_BYTES, CHANNEL_RECEIVE_BYTES, CHANNEL_STREAMS, CHANNEL_UNANSWERED, CHANNELS,
};
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Payload,
    PayloadProtocolIdentifier as Ppi, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::time::Instant;
use strait_proto::pace::{Pace, Rates};
use strait_wire::dcep::{self, Reliability};

/// Where everything comes from and goes to: DTLS has the real addresses.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
/// SCTP's own headers in front of what one packet carries (RFC 9260 sections 3 and 3.3.1).
const SCTP_HEADERS: u32 = 12 + 16;

/// What the library puts into a packet beyond the size that it was told: it counts a byte of DATA as 17, which take 20, and
/// the last chunk without its header.
const UNCOUNTED: u32 = CHANNEL_PACKET_BYTES * 3 / 20 + 16;

static ENDPOINT: LazyLock<Arc<EndpointConfig>> = LazyLock::new(|| {
    let mut config = EndpointConfig::new();
    config.max_payload_size(CHANNEL_PACKET_BYTES - UNCOUNTED - SCTP_HEADERS);
    Arc::new(config)
});
static TRANSPORT: LazyLock<Arc<TransportConfig>> = LazyLock::new(|| {
    // Whether the peer is there is for ICE to say.
    let config = TransportConfig::default()
        .with_max_init_retransmits(None)
        .with_max_data_retransmits(None)
        .with_max_num_inbound_streams(CHANNEL_STREAMS)
        .with_max_num_outbound_streams(CHANNEL_STREAMS)
        .with_max_receive_buffer_size(CHANNEL_RECEIVE_BYTES)
        .with_max_send_message_size(CHANNEL_MESSAGE_BYTES as u32)
        .with_max_receive_message_size(CHANNEL_MESSAGE_BYTES as u32);
    Arc::new(config)
});
static SERVER: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
    let mut config = ServerConfig::new();
    config.transport = TRANSPORT.clone();
    Arc::new(config)
});

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such channel (any more).
    NoChannel,
    /// It is larger than the peer takes: the channel is closed.
    TooLarge,
    /// Too much waits for the peer already: its channels are closed.
    TooSlow,
}

/// The channels of one peer, which opens them; all of them end with it. After each call that takes `now`, poll
/// everything.
pub struct Channels {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    streams: BTreeMap<u16, State>,
    events: VecDeque<Event>,
    transmits: VecDeque<Vec<u8>>,
    message_bytes_max: usize,
    pace: Pace,
    /// Until when nothing is read: the peer spoke too fast.
    held: Option<Instant>,
    /// Messages to the peer that it may answer.
    unanswered: usize,
    budget: Budget,
    /// Packets that were not looked at, because the budget was used up or they break rules.
    refused: u64,
    /// Bytes of each message that the peer did not acknowledge, and of all.
    sent: VecDeque<usize>,
    sent_bytes: usize,
    /// It was too slow: nothing more is opened.
    is_cut_off: bool,
    /// Where to go on reading, so that a busy channel does not hold up the others.
    next: u16,
    now: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Unopened,
    Open { label: String, protocol: String },
}

impl Channels {
    /// None yet. A peer gets no message larger than `message_bytes_max`, and is heard at these rates.
    #[must_use]
    pub fn new(message_bytes_max: usize, rates: Rates, now: Instant) -> Self {
        Self {
            endpoint: Endpoint::new(ENDPOINT.clone(), Some(SERVER.clone())),
            association: None,
            streams: BTreeMap::new(),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            message_bytes_max: message_bytes_max.min(CHANNEL_MESSAGE_BYTES),
            pace: Pace::new(rates, now),
            held: None,
            unanswered: 0,
            budget: Budget::new(now),
            refused: 0,
            sent: VecDeque::new(),
            sent_bytes: 0,
            is_cut_off: false,
            next: 0,
            now,
        }
    }

    /// Begins the association instead of waiting for the peer.
    pub fn connect(&mut self) {
        let mut config = ClientConfig::new();
        config.transport = TRANSPORT.clone();
        self.guarded(|channels| {
            channels.association = channels.endpoint.connect(config, NOWHERE).ok();
            channels.endpoint.reject_new_associations();
        });
    }

    /// Takes a packet of the peer's.
    pub fn handle(&mut self, now: Instant, packet: Vec<u8>) {
        self.now = now;
        if !self.budget.admits(now, &packet, self.sent.len()) {
            self.refused += 1;
            return;
        }
        self.guarded(|channels| {
            let taken = channels.endpoint.handle(now, NOWHERE, None, None, packet.into());
            match (taken, &mut channels.association) {
                (Some((_, DatagramEvent::AssociationEvent(event))), Some((_, association))) => {
                    association.handle_event(event);
                }
                (Some((handle, DatagramEvent::NewAssociation(association))), place @ None) => {
                    *place = Some((handle, association));
                    // One for each transport: others would be remembered for nothing.
                    channels.endpoint.reject_new_associations();
                }
                _ => {}
            }
        });
        if !self.sent.is_empty() {
            self.waiting();
        }
        self.look();
    }

    /// Whether the peer used up its budget: what comes from it need not be looked at.
    #[must_use]
    pub fn is_over_budget(&self, now: Instant) -> bool {
        self.budget.is_used_up(now)
    }

    /// Packets refused since the last call.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.guarded(|channels| {
            if let Some((_, association)) = &mut channels.association {
                association.handle_timeout(now);
            }
        });
        self.look();
    }

    /// When to call [`Channels::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let (_, association) = self.association.as_ref()?;
        association.poll_timeout().into_iter().chain(self.held).min()
    }

    /// Says something to the peer.
    ///
    /// # Errors
    /// It is not said, and why.
    pub fn send(&mut self, channel: u16, is_text: bool, payload: &[u8]) -> Result<(), Refusal> {
        if !matches!(self.streams.get(&channel), Some(State::Open { .. })) {
            return Err(Refusal::NoChannel);
        }
        if payload.len() > self.message_bytes_max {
            self.close(channel, "a message for it is larger than the peer takes");
            return Err(Refusal::TooLarge);
        }
        if self.waiting() + payload.len() + CHANNEL_MESSAGE_WEIGHT > CHANNEL_BUFFERED_BYTES {
            self.is_cut_off = true;
            let open: Vec<u16> = self.streams.keys().copied().collect();
            for channel in open {
                self.close(channel, "too much waits for the peer");
            }
            return Err(Refusal::TooSlow);
        }
        // A message without bytes has one that does not count (RFC 8831 section 6.6).
        let (ppi, payload) = match (is_text, payload.is_empty()) {
            (true, false) => (Ppi::String, payload),
            (false, false) => (Ppi::Binary, payload),
            (true, true) => (Ppi::StringEmpty, &[0][..]),
            (false, true) => (Ppi::BinaryEmpty, &[0][..]),
        };
        let written = self.guarded(|channels| {
            let (_, association) = channels.association.as_mut()?;
            association.stream(channel).ok()?.write_with_ppi(payload, ppi).ok()
        });
        if written.flatten().is_none() {
            return Err(Refusal::NoChannel);
        }
        self.sent.push_back(payload.len());
        self.sent_bytes += payload.len();
        self.unanswered = (self.unanswered + 1).min(CHANNEL_UNANSWERED);
        Ok(())
    }

    /// Closes a channel.
    pub fn close(&mut self, channel: u16, why: &str) {
        let Some(state) = self.streams.remove(&channel) else { return };
        if matches!(state, State::Open { .. }) {
            self.events.push_back(Event::Closed { channel, detail: why.to_owned() });
        }
        self.reset(channel);
    }

    /// Tells again of all that are open.
    pub fn tell(&mut self) {
        self.events.retain(|event| !matches!(event, Event::Opened { .. }));
        for (&channel, state) in &self.streams {
            if let State::Open { label, protocol } = state {
                let (label, protocol) = (label.clone(), protocol.clone());
                self.events.push_back(Event::Opened { channel, label, protocol });
            }
        }
    }

    /// What happened next. As long as nobody asks, the peer is told to wait.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            self.held.take_if(|until| *until <= self.now);
            if self.held.is_some() {
                return None;
            }
            let (after, before) =
                (self.streams.range(self.next..), self.streams.range(..self.next));
            let channels: Vec<u16> = after.chain(before).map(|(channel, _)| *channel).collect();
            let message = channels.into_iter().find_map(|channel| {
                let message = self.guarded(|channels| channels.read(channel)).flatten()?;
                self.next = channel.wrapping_add(1);
                Some((channel, message))
            });
            let (channel, (ppi, payload)) = message?;
            match self.unanswered.checked_sub(1) {
                Some(left) if payload.len() <= CHANNEL_ANSWER_BYTES => self.unanswered = left,
                _ => self.held = self.pace.take(self.now, payload.len()),
            }
            if let Some(event) = self.on_message(channel, ppi, payload) {
                return Some(event);
            }
            self.look();
        }
    }

    /// The next packet for the peer.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if self.transmits.is_empty() {
            self.gather();
        }
        self.transmits.pop_front()
    }

    fn gather(&mut self) {
        self.guarded(|channels| {
            let Self { endpoint, association, transmits, budget, now, .. } = channels;
            let answer = endpoint.poll_transmit();
            let own = || association.as_mut().and_then(|(_, each)| each.poll_transmit(*now));
            let payload = answer.or_else(own).map(|transmit| transmit.payload);
            if let Some(Payload::RawEncode(packets)) = payload {
                packets.iter().for_each(|packet| budget.told(packet));
                transmits.extend(packets.iter().map(|packet| packet.to_vec()));
            }
        });
    }

    /// What waits for the peer, also on channels that are being closed: bytes, and the weight of each message.
    fn waiting(&mut self) -> usize {
        let buffered = self.buffered();
        while let Some(first) = self.sent.front()
            && self.sent_bytes - first >= buffered
        {
            self.sent_bytes -= first;
            self.sent.pop_front();
        }
        buffered + CHANNEL_MESSAGE_WEIGHT * self.sent.len()
    }

    fn buffered(&mut self) -> usize {
        let sum = self.guarded(|channels| {
            let (_, association) = channels.association.as_mut()?;
            let streams = association.stream_ids();
            let buffered = |id| association.stream(id).ok()?.buffered_amount().ok();
            Some(streams.into_iter().filter_map(buffered).sum::<usize>())
        });
        sum.flatten().unwrap_or_default()
    }

    fn read(&mut self, channel: u16) -> Option<(Ppi, Vec<u8>)> {
        let (_, association) = self.association.as_mut()?;
        let chunks = association.stream(channel).ok()?.read_sctp().ok()??;
        let mut payload = vec![0; chunks.len()];
        let len = chunks.read(&mut payload).ok()?;
        payload.truncate(len);
        self.budget.read(chunks.chunks.len());
        Some((chunks.ppi, payload))
    }

    fn on_message(&mut self, channel: u16, ppi: Ppi, payload: Vec<u8>) -> Option<Event> {
        let is_open = matches!(self.streams.get(&channel), Some(State::Open { .. }));
        let said = |is_text, payload| Some(Event::Message { channel, is_text, payload });
        match ppi {
            Ppi::Dcep if is_open => None,
            Ppi::Dcep => self.open(channel, &payload),
            Ppi::String | Ppi::StringEmpty | Ppi::Binary | Ppi::BinaryEmpty if !is_open => {
                self.close(channel, "");
                None
            }
            Ppi::String if std::str::from_utf8(&payload).is_err() => {
                self.close(channel, "the peer sent text that is no UTF-8");
                None
            }
            Ppi::String => said(true, payload),
            Ppi::Binary => said(false, payload),
            Ppi::StringEmpty => said(true, Vec::new()),
            Ppi::BinaryEmpty => said(false, Vec::new()),
            _ => None,
        }
    }

    /// Answers a DATA_CHANNEL_OPEN.
    fn open(&mut self, channel: u16, message: &[u8]) -> Option<Event> {
        let open = match dcep::Message::parse(message) {
            Ok(dcep::Message::Open(open)) if !self.is_cut_off => open,
            _ => {
                self.close(channel, "");
                return None;
            }
        };
        let (kind, bound) = match open.reliability {
            Reliability::Full => (ReliabilityType::Reliable, 0),
            Reliability::Retransmissions(bound) => (ReliabilityType::Rexmit, bound),
            Reliability::Lifetime(bound) => (ReliabilityType::Timed, bound),
        };
        let mut ack = [0];
        let _ = dcep::Message::Ack.write(&mut ack);
        let opened = self.guarded(|channels| {
            let (_, association) = channels.association.as_mut()?;
            let mut stream = association.stream(channel).ok()?;
            stream.set_reliability_params(!open.is_ordered, kind, bound).ok()?;
            stream.write_with_ppi(&ack, Ppi::Dcep).ok()
        });
        if opened.flatten().is_none() {
            self.close(channel, "");
            return None;
        }
        let (label, protocol) = (open.label.to_owned(), open.protocol.to_owned());
        let state = State::Open { label: label.clone(), protocol: protocol.clone() };
        self.streams.insert(channel, state);
        Some(Event::Opened { channel, label, protocol })
    }

    /// Takes what the association tells.
    fn look(&mut self) {
        let lost = self.guarded(|channels| {
            let Some((handle, association)) = &mut channels.association else { return false };
            while let Some(event) = association.poll_endpoint_event() {
                if let Some(event) = channels.endpoint.handle_event(*handle, event) {
                    association.handle_event(event);
                }
            }
            let mut is_lost = false;
            let (mut refused, mut ended) = (Vec::new(), Vec::new());
            while let Some(event) = association.poll() {
                match event {
                    sctp_proto::Event::AssociationLost { .. }
                    | sctp_proto::Event::HandshakeFailed { .. } => is_lost = true,
                    sctp_proto::Event::Stream(StreamEvent::Readable { id }) => {
                        let is_new = !channels.streams.contains_key(&id)
                            && association.stream(id).is_ok_and(|stream| stream.is_readable());
                        if is_new && channels.streams.len() < CHANNELS {
                            channels.streams.insert(id, State::Unopened);
                        } else if is_new {
                            refused.push(id);
                        }
                    }
                    sctp_proto::Event::Stream(
                        StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. },
                    ) => ended.push(id),
                    _ => {}
                }
            }
            refused.into_iter().for_each(|id| channels.reset(id));
            for id in ended {
                channels.end(id, "the peer closed it");
            }
            is_lost
        });
        if lost == Some(true) {
            // Its last words, if it has any.
            self.gather();
            self.lose("the association ended");
        }
    }

    fn end(&mut self, channel: u16, why: &str) {
        if let Some(State::Open { .. }) = self.streams.remove(&channel) {
            self.events.push_back(Event::Closed { channel, detail: why.to_owned() });
        }
    }

    /// The association is gone; the peer may begin another.
    fn lose(&mut self, why: &str) {
        self.association = None;
        self.endpoint = Endpoint::new(ENDPOINT.clone(), Some(SERVER.clone()));
        self.budget.forget();
        self.sent.clear();
        self.sent_bytes = 0;
        let channels: Vec<u16> = self.streams.keys().copied().collect();
        channels.into_iter().for_each(|channel| self.end(channel, why));
    }

    /// Has both sides forget a stream (RFC 6525).
    fn reset(&mut self, stream: u16) {
        self.guarded(|channels| {
            let (_, association) = channels.association.as_mut()?;
            association.stream(stream).ok()?.close().ok()
        });
    }

    /// A panic of the library ends this association and nothing else.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(done) => Some(done),
            Err(_) => {
                self.is_cut_off = true;
                self.lose("the SCTP library panicked; please report it");
                None
            }
        }
    }
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").field("streams", &self.streams).finish_non_exhaustive()
    }
}
