//! Media of a session: keys, streams in both directions, RTCP.

use super::downlink::Downlink;
use super::path::Random;
use super::receiving::{Received, Receiving};
use super::recent::{Before, Recent};
use super::sending::{Extensions, Frame, Sending, Sent, Stream};
use super::uplink::{Target, Uplink};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;
use strait_crypt::srtp::{Error, Inbound, Outbound, PreparedKey, Profile};
use strait_crypt::srtp::{RTCP_OVERHEAD_MAX, SharedKey};
use strait_link::{KEY_OVERLAP, v1};
use strait_wire::demux::{Kind, classify};
use strait_wire::ext::AbsSendTime;
use strait_wire::rtcp::{self, Arrival, Packet as Rtcp, ReportBlock, Writer};
use strait_wire::{ext, rtp};

/// Between two reports.
const REPORTS: Duration = Duration::from_secs(1);
/// After media came back to the node the reports of this time count what went past it as lost: it sends those of sound
/// every two seconds, and half as late again.
const NODE_REPORTS: Duration = Duration::from_secs(3);
/// Between two pieces of transport-wide feedback.
const FEEDBACK: Duration = Duration::from_millis(50);
/// Arrivals that wait for feedback.
const ARRIVALS: usize = 512;
/// Packets that are sent again for one of RTCP, which could ask for thousands: as many as are asked for at a time here.
const AGAIN: usize = 128;
/// Streams of each direction, retransmissions apart.
const STREAMS: usize = 256;
/// What a packet has on its way beside its payload: RTP with extensions, the tag of GCM, UDP and IPv4.
const HEADERS: u64 = 24 + 16 + 28;
/// An RTCP compound.
const RTCP_BYTES: usize = 1200;
/// A round trip until one was measured.
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// Whom a packet comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The node.
    Node,
    /// The other of two, directly.
    Other,
}
/// SSRCs that are remembered after their subscription: with those in use they leave half of the room to others.
const PAST_SSRCS: usize = 64;
/// A sender that was not heard for so long may have wrapped its numbers meanwhile: 2^15 packets take longer.
const UNHEARD: Duration = Duration::from_secs(2);
/// Rollover counters that are tried then on a packet, which takes microseconds.
const ROLLOVERS: u32 = 16;
/// At most: two weeks of sound, some hours of much video.
const ROLLOVERS_MAX: u32 = 1 << 10;
/// Packets that open with no key and are kept: they may be under one that the node is about to tell, over a line that is
/// slower than that of media. A quarter of a second of video at 8 Mbit/s.
const EARLY: usize = 256;
/// How long.
const EARLY_FOR: Duration = Duration::from_secs(2);

/// A packet of a subscription, as the application gets it: once, as far as it can be known that two are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Which subscription.
    pub subscription_id: String,
    /// The sender's SSRC. Another one than before: the numbers begin anew (media comes directly, or no longer).
    pub ssrc: u32,
    /// Sequence number.
    pub seq: u16,
    /// In units of the codec's clock rate.
    pub timestamp: u32,
    /// Marker.
    pub marker: bool,
    /// Payload type, as in `Authenticated.codecs`.
    pub payload_type: u8,
    /// RTP payload.
    pub payload: Vec<u8>,
}

/// What came of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// Media of a subscription.
    Payload(Payload),
    /// A key frame is wanted of the encoding with this SSRC.
    KeyFrameWanted(u32),
}

struct Incoming {
    subscription_id: String,
    ssrc: u32,
    /// 0 where it is no retransmission of another.
    rtx_of: u32,
    /// By which else the same comes: from the node, and directly from the publisher.
    others: Vec<u32>,
    recent: Recent,
    receiving: Receiving,
    /// When a packet opened last, and by how much its rollover counter is tried to be higher next.
    opened: Option<Duration>,
    rollovers: u32,
    /// What still comes is not given to the application.
    is_paused: bool,
}

/// How what is sent to one side fares.
#[derive(Default)]
struct Towards {
    uplink: Uplink,
    /// What it asked for at most.
    remb_bps: Option<u64>,
    /// Transport-wide numbers that went there and were not told about yet, as a set. None before the first.
    numbers: Option<Box<[u64; NUMBERS]>>,
}

/// Words of a set of all 16-bit numbers.
const NUMBERS: usize = 1 << 10;

/// See above.
#[derive(Default)]
pub struct Media {
    key: Option<PreparedKey>,
    /// How long the one before is taken.
    before_until: Option<Duration>,
    outbound: Option<Outbound>,
    /// SSRCs of subscriptions that ended, the oldest first.
    past: VecDeque<u32>,
    inbound: Option<Inbound>,
    early: VecDeque<(Duration, Side, Vec<u8>)>,
    ids: Extensions,
    rtcp_ssrc: u32,
    transport_seq: u16,
    sending: Vec<(String, Sending)>,
    incoming: HashMap<u32, Incoming>,
    /// From the node, and directly.
    arrivals: (Vec<Arrival>, Vec<Arrival>),
    feedback_count: u8,
    feedback_due: Option<Duration>,
    reports_due: Option<Duration>,
    to_node: Towards,
    to_other: Towards,
    /// The publications that the other of two takes; none where the node does not say.
    wanted: Option<HashSet<String>>,
    /// Media goes directly alone, as far as targets know.
    is_direct: bool,
    /// From when the node's reports are about what went by it alone.
    node_knows_from: Duration,
    downlink: Downlink,
    /// When it was looked at what sound takes, how many bytes that was by then, and how much a second.
    sound: (Duration, u64, u64),
    /// Packets that were not taken: not of this key, doubles, of no subscription.
    pub dropped: u64,
    /// RTP packets that came directly.
    pub direct_packets: u64,
}

impl Media {
    /// A session begins, or goes on.
    ///
    /// # Errors
    /// The key is none; the sentence says why.
    pub fn start(&mut self, now: Duration, session: &v1::Authenticated) -> Result<(), String> {
        let id = |uri: &str| {
            let found = session.extensions.iter().find(|extension| extension.uri == uri);
            found.and_then(|extension| u8::try_from(extension.id).ok()).unwrap_or(0)
        };
        self.ids = Extensions {
            transport_cc: id(ext::TRANSPORT_CC),
            audio_level: id(ext::AUDIO_LEVEL),
            abs_send_time: id(ext::ABS_SEND_TIME),
        };
        self.rtcp_ssrc = session.rtcp_ssrc;
        self.reports_due.get_or_insert(now + REPORTS);
        if !session.resumed {
            self.forget_streams();
        }
        let key = session.key.as_ref().ok_or("the node sent no session key")?;
        if !session.resumed && self.key.as_ref().is_some_and(|held| !is_same(held, key)) {
            // Another life of the scope: nothing of before is under its key.
            (self.key, self.inbound, self.outbound) = (None, None, None);
        }
        self.change_key(now, key)
    }

    /// Nothing is sent or received any more.
    pub fn forget_streams(&mut self) {
        self.end_sending(|_| true);
        self.end_receiving(|_| true);
    }

    /// Publications end. The node gives out no SSRC twice, so nothing of theirs is remembered.
    fn end_sending(&mut self, ends: impl Fn(&str) -> bool) {
        let gone = self.sending.extract_if(.., |(id, _)| ends(id));
        for ssrc in gone.flat_map(|(_, sending)| sending.ssrcs()) {
            self.outbound.iter_mut().for_each(|outbound| outbound.forget(ssrc));
        }
    }

    /// Subscriptions end. Their SSRCs may come again, of a publisher whose numbers go on: the last ones are remembered.
    fn end_receiving(&mut self, ends: impl Fn(&str) -> bool) {
        let gone = self.incoming.extract_if(|_, incoming| ends(&incoming.subscription_id));
        self.past.extend(gone.map(|(ssrc, _)| ssrc));
        let many = self.past.len().saturating_sub(PAST_SSRCS);
        for ssrc in self.past.drain(..many) {
            if let (false, Some(inbound)) = (self.incoming.contains_key(&ssrc), &mut self.inbound) {
                inbound.forget(ssrc);
            }
        }
    }

    /// Another session key: what is sent is under it at once, what comes may be under the one before for [`KEY_OVERLAP`].
    /// Numbers go on. The same key is left as it is: beginning it anew would repeat nonces.
    ///
    /// # Errors
    /// The key is none; the sentence says why.
    pub fn change_key(&mut self, now: Duration, key: &v1::SessionKey) -> Result<(), String> {
        if self.key.as_ref().is_some_and(|held| is_same(held, key)) {
            return Ok(());
        }
        let profile = match key.profile() {
            v1::SrtpProfile::AeadAes128Gcm => Profile::AeadAes128Gcm,
            v1::SrtpProfile::AeadAes256Gcm => Profile::AeadAes256Gcm,
            v1::SrtpProfile::Aes128CmSha180 => Profile::AesCm128HmacSha1_80,
            v1::SrtpProfile::Aes128CmSha132 => Profile::AesCm128HmacSha1_32,
            v1::SrtpProfile::Unspecified => return Err("the session key names no profile".into()),
        };
        let shared = SharedKey { profile, key: key.key.clone(), salt: key.salt.clone() };
        let key = shared.prepare().map_err(|error| format!("the session key: {error}"))?;
        match (&mut self.inbound, &mut self.outbound) {
            (Some(inbound), Some(outbound)) => {
                inbound.change_key(&key);
                outbound.change_key(&key);
                self.before_until = Some(now + KEY_OVERLAP);
            }
            _ => (self.inbound, self.outbound) = (Some(key.inbound()), Some(key.outbound())),
        }
        self.key = Some(key);
        Ok(())
    }

    /// What came before the key that it is under.
    pub fn take_early(&mut self, now: Duration) -> impl Iterator<Item = (Side, Vec<u8>)> + use<> {
        let early = std::mem::take(&mut self.early).into_iter();
        let fresh = early.filter(move |(at, ..)| now < *at + EARLY_FOR);
        fresh.map(|(_, from, bytes)| (from, bytes))
    }

    /// A publication is sent with these encodings. Fewer, where there are too many.
    pub fn publish(
        &mut self,
        publication_id: &str,
        streams: impl IntoIterator<Item = Stream>,
        random: &mut dyn Random,
    ) {
        for stream in streams {
            let mut seed = [0; 4];
            random.fill(&mut seed);
            if self.sending.len() < STREAMS {
                let sending = Sending::new(stream, u32::from_be_bytes(seed));
                self.sending.push((publication_id.to_owned(), sending));
            }
        }
    }

    /// It is sent no more.
    pub fn unpublish(&mut self, publication_id: &str) {
        self.end_sending(|id| id == publication_id);
    }

    /// A subscription comes with this SSRC, and that of its retransmissions (0 for none).
    pub fn subscribe(&mut self, subscription_id: &str, ssrc: u32, rtx_ssrc: u32, clock: u32) {
        for (of, rtx_of) in [(ssrc, 0), (rtx_ssrc, ssrc)] {
            if of != 0 && self.incoming.len() < 2 * STREAMS {
                let mut others = Vec::new();
                for (other, incoming) in &mut self.incoming {
                    let is_same = incoming.subscription_id == subscription_id;
                    if is_same && rtx_of == 0 && incoming.rtx_of == 0 && *other != of {
                        incoming.others.push(of);
                        others.push(*other);
                    }
                }
                let incoming = Incoming {
                    subscription_id: subscription_id.to_owned(),
                    ssrc,
                    rtx_of,
                    others,
                    recent: Recent::default(),
                    receiving: Receiving::new(clock),
                    opened: None,
                    rollovers: 1,
                    is_paused: false,
                };
                self.incoming.insert(of, incoming);
            }
        }
    }

    /// It is over.
    pub fn unsubscribe(&mut self, subscription_id: &str) {
        self.end_receiving(|id| id == subscription_id);
    }

    /// It is paused, or goes on.
    pub fn pause(&mut self, subscription_id: &str, is_paused: bool) {
        let all = self.incoming.values_mut();
        all.filter(|one| one.subscription_id == subscription_id)
            .for_each(|one| one.is_paused = is_paused);
    }

    /// The other of two takes these publications. None: the node does not say.
    pub fn set_wanted(&mut self, wanted: Option<v1::DirectWanted>) {
        self.wanted = wanted.map(|wanted| wanted.publication_ids.into_iter().collect());
    }

    /// Whether the other of two takes the publication that a packet is of.
    #[must_use]
    pub fn is_wanted(&self, packet: &[u8]) -> bool {
        let Some(wanted) = &self.wanted else { return true };
        let Ok(header) = rtp::Header::parse(packet) else { return false };
        let mut all = self.sending.iter();
        let of = all.find(|(_, sending)| sending.ssrcs().contains(&header.ssrc()));
        of.is_some_and(|(id, _)| wanted.contains(id))
    }

    /// The packet for a frame of a publication's encoding, protected, and its transport-wide number. None where there is no
    /// such, or it does not fit.
    pub fn send(
        &mut self,
        now: Duration,
        publication_id: &str,
        encoding: usize,
        frame: &Frame<'_>,
    ) -> Option<(u16, Vec<u8>)> {
        let mut of_it = self.sending.iter_mut().filter(|(id, _)| id == publication_id);
        let (_, sending) = of_it.nth(encoding)?;
        let key = self.outbound.as_mut()?;
        let number = self.transport_seq;
        let packet = sending.protect(now, frame, self.ids, number, key)?;
        self.transport_seq = number.wrapping_add(1);
        Some((number, packet))
    }

    /// The packet with this number went to the node, to the other of two, or to both: each tells about its own.
    pub fn went(&mut self, number: u16, to_node: bool, to_other: bool) {
        for (went, sent) in [(to_node, &mut self.to_node), (to_other, &mut self.to_other)] {
            if went || sent.numbers.is_some() {
                sent.note(number, went);
            }
        }
    }

    /// Takes RTP or RTCP, protected; what is to be sent again goes to `again`.
    pub fn on_packet(
        &mut self,
        now: Duration,
        from: Side,
        mut bytes: Vec<u8>,
        again: &mut Vec<(u16, Vec<u8>)>,
    ) -> Vec<Came> {
        let Some(inbound) = &mut self.inbound else { return Vec::new() };
        if self.before_until.take_if(|until| *until <= now).is_some() {
            inbound.forget_key();
        }
        let sealed = bytes.clone();
        let kind = classify(&bytes);
        let opened = match kind {
            Kind::Rtp => open(now, inbound, &mut self.incoming, &mut bytes, &sealed),
            Kind::Rtcp => inbound.unprotect_rtcp(&mut bytes),
            _ => Err(Error::Malformed),
        };
        let came = match opened {
            Ok(len) => {
                bytes.truncate(len);
                match kind {
                    Kind::Rtp => {
                        self.on_rtp(now, from, &bytes).map(|payload| vec![Came::Payload(payload)])
                    }
                    _ => Some(self.on_rtcp(now, from, &bytes, again)),
                }
            }
            Err(Error::Unauthentic) => {
                self.early.push_back((now, from, sealed));
                if self.early.len() > EARLY {
                    self.early.pop_front();
                }
                None
            }
            Err(_) => None,
        };
        self.dropped += u64::from(came.is_none());
        came.unwrap_or_default()
    }

    fn on_rtp(&mut self, now: Duration, from: Side, bytes: &[u8]) -> Option<Payload> {
        let packet = rtp::Packet::parse(bytes).ok()?;
        self.direct_packets += u64::from(from == Side::Other);
        if from == Side::Other
            && let Some(sent) =
                packet.extension(self.ids.abs_send_time).and_then(AbsSendTime::parse)
        {
            self.downlink.on_packet(now, sent, bytes.len() + 16 + 28);
        }
        let arrivals = match from {
            Side::Node => &mut self.arrivals.0,
            Side::Other => &mut self.arrivals.1,
        };
        if let Some(seq) = packet.extension(self.ids.transport_cc).and_then(ext::parse_transport_cc)
            && arrivals.len() < ARRIVALS
        {
            arrivals.push(Arrival { seq, at_us: now.as_micros() as u64 });
            self.feedback_due.get_or_insert(now + FEEDBACK);
        }
        let incoming = self.incoming.get(&packet.ssrc())?;
        let (mut header, mut payload) = (packet.header(), packet.payload());
        let rewritten;
        if incoming.rtx_of != 0 {
            // RFC 4588 section 4: the original number stands before the original payload.
            let (original, rest) = payload.split_first_chunk::<2>()?;
            let head = rtp::HeaderBuilder {
                marker: header.marker(),
                pt: header.pt(),
                seq: u16::from_be_bytes(*original),
                timestamp: header.timestamp(),
                ssrc: incoming.rtx_of,
                padding: false,
            };
            rewritten = head.fixed(false);
            header = rtp::Header::parse(&rewritten).ok()?;
            payload = rest;
        }
        let incoming = self.incoming.get_mut(&header.ssrc())?;
        let others = std::mem::take(&mut incoming.others);
        let mut recent = std::mem::take(&mut incoming.recent);
        let known = others.iter().filter_map(|other| self.incoming.get(other));
        let before = recent.take(now, &header, payload, known.map(|other| &other.recent));
        let incoming = self.incoming.get_mut(&header.ssrc())?;
        incoming.recent = recent;
        if before != Before::Here {
            let advance = incoming.receiving.on_packet(now, &header, payload.len());
            for other in &others {
                if let Some(other) = self.incoming.get_mut(other) {
                    other.receiving.on_elsewhere(advance);
                }
            }
        }
        let incoming = self.incoming.get_mut(&header.ssrc())?;
        incoming.others = others;
        // What only probes holds nothing.
        let is_news = before == Before::Not && !payload.is_empty();
        (is_news && !incoming.is_paused).then(|| Payload {
            subscription_id: incoming.subscription_id.clone(),
            ssrc: incoming.ssrc,
            seq: header.seq(),
            timestamp: header.timestamp(),
            marker: header.marker(),
            payload_type: header.pt(),
            payload: payload.to_vec(),
        })
    }

    fn on_rtcp(
        &mut self,
        now: Duration,
        from: Side,
        bytes: &[u8],
        again: &mut Vec<(u16, Vec<u8>)>,
    ) -> Vec<Came> {
        let mut came = Vec::new();
        for packet in rtcp::packets(bytes).flatten() {
            match packet {
                // Of what goes past it the node knows nothing.
                Rtcp::Nack(_) if self.is_direct && from == Side::Node => {}
                Rtcp::ReceiverReport(_)
                    if from == Side::Node && (self.is_direct || now < self.node_knows_from) => {}
                Rtcp::SenderReport(report) => {
                    if let Some(incoming) = self.incoming.get_mut(&report.ssrc) {
                        incoming.receiving.on_sender_report(now, report.ntp_middle());
                    }
                    report.reports().for_each(|block| self.on_block(now, &block));
                }
                Rtcp::ReceiverReport(report) => {
                    report.reports().for_each(|block| self.on_block(now, &block));
                }
                Rtcp::Nack(nack) => {
                    for seq in nack.seqs().take(AGAIN.saturating_sub(again.len())) {
                        again.extend(self.again(now, nack.media_ssrc, seq));
                    }
                }
                Rtcp::Pli(pli) => came.push(Came::KeyFrameWanted(pli.media_ssrc)),
                Rtcp::Fir(fir) => {
                    came.extend(fir.entries().map(|entry| Came::KeyFrameWanted(entry.ssrc)));
                }
                Rtcp::Remb(remb) => self.sent_to(from).remb_bps = Some(remb.bitrate),
                Rtcp::TransportCc(feedback) => {
                    let (mut told, mut lost) = (0, 0);
                    let sent = self.sent_to(from);
                    for (seq, arrived) in feedback.statuses().take(4096) {
                        // What lies between went another way, or was told about before.
                        let own = u64::from(sent.note(seq, false));
                        told += own;
                        lost += own * u64::from(arrived.is_none());
                    }
                    sent.uplink.told(told, lost);
                }
                _ => {}
            }
        }
        came.retain(|came| match came {
            Came::KeyFrameWanted(ssrc) => self.publication_of(*ssrc).is_some(),
            Came::Payload(_) => true,
        });
        came
    }

    fn sent_to(&mut self, side: Side) -> &mut Towards {
        match side {
            Side::Node => &mut self.to_node,
            Side::Other => &mut self.to_other,
        }
    }

    fn again(&mut self, now: Duration, ssrc: u32, seq: u16) -> Option<(u16, Vec<u8>)> {
        let mut all = self.sending.iter_mut().map(|(_, sending)| sending);
        let sending = all.find(|sending| sending.stream.ssrc == ssrc)?;
        let key = self.outbound.as_mut()?;
        let number = self.transport_seq;
        let packet = sending.again(now, seq, self.ids, number, key)?;
        self.transport_seq = number.wrapping_add(1);
        Some((number, packet))
    }

    fn on_block(&mut self, now: Duration, block: &ReportBlock) {
        let mut all = self.sending.iter_mut().map(|(_, sending)| sending);
        if let Some(sending) = all.find(|sending| sending.stream.ssrc == block.ssrc) {
            sending.on_report(now, block);
        }
    }

    /// A key frame of a subscription is wanted: the packet that asks for it.
    pub fn ask_key_frame(&mut self, subscription_id: &str) -> Option<Vec<u8>> {
        let own = |one: &&Incoming| one.subscription_id == subscription_id && one.rtx_of == 0;
        // Of the node, and of the publisher where media may come directly: each knows its own.
        let ssrcs: Vec<_> = self.incoming.values().filter(own).map(|one| one.ssrc).collect();
        let sender = self.rtcp_ssrc;
        self.compound(|writer| {
            for ssrc in ssrcs {
                let _full = writer.pli(sender, ssrc);
            }
        })
    }

    /// RTCP that is due now, protected; to one side where that alone can make something of it.
    pub fn on_time(&mut self, now: Duration) -> Vec<(Option<Side>, Vec<u8>)> {
        let mut out = Vec::new();
        let sender = self.rtcp_ssrc;
        let trip = self.sending.iter().find_map(|(_, sending)| sending.sent().round_trip);
        let missing: Vec<_> = self
            .incoming
            .iter_mut()
            .filter(|(_, incoming)| incoming.rtx_of == 0)
            .map(|(ssrc, one)| (*ssrc, one.receiving.missing(now, trip.unwrap_or(ROUND_TRIP))))
            .filter(|(_, missing)| !missing.is_empty())
            .collect();
        for (ssrc, seqs) in missing {
            let nack = self.compound(|writer| {
                let _full = writer.nack(sender, ssrc, seqs);
            });
            out.extend(nack.map(|nack| (None, nack)));
        }
        if let Some(bps) = self.downlink.poll(now) {
            let remb = self.compound(|writer| {
                let _full = writer.remb(sender, bps, &[]);
            });
            out.extend(remb.map(|remb| (Some(Side::Other), remb)));
        }
        if self.feedback_due.is_some_and(|due| due <= now) {
            self.feedback_due = None;
            let (node, other) = std::mem::take(&mut self.arrivals);
            out.extend(self.feedback(node).into_iter().map(|packet| (Some(Side::Node), packet)));
            out.extend(self.feedback(other).into_iter().map(|packet| (Some(Side::Other), packet)));
        }
        if self.reports_due.is_some_and(|due| due <= now) {
            self.reports_due = Some(now + REPORTS);
            out.extend(self.reports(now).into_iter().map(|packet| (None, packet)));
        }
        out
    }

    fn feedback(&mut self, mut arrivals: Vec<Arrival>) -> Vec<Vec<u8>> {
        let (sender, mut out) = (self.rtcp_ssrc, Vec::new());
        // Feedback is in ascending order; numbers wrap, and those of one turn lie close together.
        let origin = arrivals.first().map_or(0, |first| first.seq.wrapping_sub(1 << 15));
        arrivals.sort_by_key(|arrival| arrival.seq.wrapping_sub(origin));
        arrivals.dedup_by_key(|arrival| arrival.seq);
        let mut rest = arrivals.as_slice();
        while !rest.is_empty() {
            let (count, mut told) = (self.feedback_count, 0);
            self.feedback_count = count.wrapping_add(1);
            out.extend(self.compound(|writer| {
                told = writer.transport_cc(sender, 0, count, rest).unwrap_or(0);
            }));
            rest = rest.get(told.max(1)..).unwrap_or_default();
        }
        out
    }

    /// Sender and receiver reports, each compound with its canonical name (RFC 3550 section 6.1).
    fn reports(&mut self, now: Duration) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let cname = format!("{:08x}", self.rtcp_ssrc);
        let sent = self.sending.iter().map(|(_, sending)| {
            let mut bytes = vec![0; RTCP_BYTES];
            let mut writer = Writer::new(&mut bytes);
            sending.report(now, &mut writer);
            if !writer.is_empty() {
                let _full = writer.cname(sending.stream.ssrc, cname.as_bytes());
            }
            let len = writer.len();
            (bytes, len)
        });
        let sent: Vec<_> = sent.collect();
        out.extend(sent.into_iter().filter_map(|(bytes, len)| self.protect(bytes, len)));
        let came = self.incoming.iter_mut().filter(|(_, incoming)| incoming.rtx_of == 0);
        let blocks = came.filter_map(|(ssrc, incoming)| incoming.receiving.block(now, *ssrc));
        let blocks: Vec<_> = blocks.collect();
        let sender = self.rtcp_ssrc;
        for blocks in blocks.chunks(31) {
            out.extend(self.compound(|writer| {
                let _full = writer.receiver_report(sender, blocks);
                let _full = writer.cname(sender, cname.as_bytes());
            }));
        }
        out
    }

    /// When something is due.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let missing = self.incoming.values().filter_map(|incoming| incoming.receiving.due());
        missing.chain(self.feedback_due).chain(self.reports_due).chain(self.downlink.due()).min()
    }

    /// What the encoder of pictures is to keep to from now on, where that changes. `is_direct`: media goes directly alone.
    pub fn target(&mut self, now: Duration, is_direct: bool) -> Option<Target> {
        let bytes = self.sending.iter().map(|(_, sending)| sending.sent().bytes).sum::<u64>();
        if bytes == 0 {
            return None;
        }
        if std::mem::replace(&mut self.is_direct, is_direct) != is_direct {
            if is_direct {
                self.to_other.uplink = Uplink::after(&self.to_node.uplink);
                self.to_other.remb_bps = None;
                self.downlink = Downlink::default();
            } else {
                self.to_node.uplink.resume(&self.to_other.uplink);
                self.node_knows_from = now + NODE_REPORTS;
            }
        }
        let (at, before, sound_bps) = self.sound;
        let passed = now.saturating_sub(at);
        if passed >= REPORTS {
            let sent = self.sending.iter().filter(|(_, one)| one.stream.clock_rate_hz != 90_000);
            let sent = sent.map(|(_, one)| one.sent());
            let sent = sent.map(|sent| sent.bytes + sent.packets * HEADERS).sum::<u64>();
            let bps = sent.saturating_sub(before) * 8_000
                / u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            self.sound = (now, sent, bps);
        }
        let side = if is_direct { Side::Other } else { Side::Node };
        let sent = self.sent_to(side);
        // The other one says what its line carries. Sound goes first, and headers take their part.
        let cap = sent.remb_bps.map(|bps| match side {
            Side::Node => bps,
            Side::Other => bps.saturating_sub(sound_bps) / 16 * 15,
        });
        cap.into_iter().for_each(|bps| sent.uplink.cap(bps));
        sent.uplink.decide(now, bytes)
    }

    /// Publication and number of the encoding with this SSRC.
    #[must_use]
    pub fn publication_of(&self, ssrc: u32) -> Option<(String, usize)> {
        let at = self.sending.iter().position(|(_, sending)| sending.stream.ssrc == ssrc)?;
        let (id, _) = self.sending.get(at)?;
        let before = self.sending.iter().take(at).filter(|(other, _)| other == id).count();
        Some((id.clone(), before))
    }

    /// How all that is sent fares: publication, SSRC.
    pub fn sent(&self) -> impl Iterator<Item = (&str, u32, Sent)> {
        self.sending.iter().map(|(id, one)| (id.as_str(), one.stream.ssrc, one.sent()))
    }

    /// How all that is received fares: subscription, SSRC.
    pub fn received(&self) -> impl Iterator<Item = (&str, u32, Received)> {
        let streams = self.incoming.values().filter(|incoming| incoming.rtx_of == 0);
        streams.map(|one| (one.subscription_id.as_str(), one.ssrc, one.receiving.received()))
    }

    fn compound(&mut self, write: impl FnOnce(&mut Writer<'_>)) -> Option<Vec<u8>> {
        let mut bytes = vec![0; RTCP_BYTES];
        let mut writer = Writer::new(&mut bytes);
        write(&mut writer);
        let len = writer.len();
        self.protect(bytes, len)
    }

    fn protect(&mut self, mut bytes: Vec<u8>, len: usize) -> Option<Vec<u8>> {
        if len == 0 {
            return None;
        }
        bytes.resize(len + RTCP_OVERHEAD_MAX, 0);
        let len = self.outbound.as_mut()?.protect_rtcp(&mut bytes, len).ok()?;
        bytes.truncate(len);
        Some(bytes)
    }
}

impl Towards {
    /// Notes whether a number is to be told about. Returns whether it was.
    fn note(&mut self, number: u16, is_open: bool) -> bool {
        let numbers = self.numbers.get_or_insert_with(|| Box::new([0; NUMBERS]));
        let Some(word) = numbers.get_mut(usize::from(number >> 6)) else { return false };
        let bit = 1 << (number & 63);
        let was_open = *word & bit != 0;
        *word = if is_open { *word | bit } else { *word & !bit };
        was_open
    }
}

/// Opens a packet of RTP. How often the numbers of a sender wrapped that was not heard, nobody says: it is tried.
fn open(
    now: Duration,
    inbound: &mut Inbound,
    incoming: &mut HashMap<u32, Incoming>,
    bytes: &mut [u8],
    sealed: &[u8],
) -> Result<usize, Error> {
    let opened = inbound.unprotect_rtp(bytes);
    let ssrc = rtp::Header::parse(sealed).map_err(|_| Error::Malformed)?.ssrc();
    let Some(incoming) = incoming.get_mut(&ssrc) else { return opened };
    if opened.is_ok() {
        (incoming.opened, incoming.rollovers) = (Some(now), 1);
    } else if incoming.opened.is_none_or(|at| at + UNHEARD <= now) {
        for _ in 0..ROLLOVERS {
            let rollovers = incoming.rollovers;
            incoming.rollovers = rollovers % ROLLOVERS_MAX + 1;
            bytes.copy_from_slice(sealed);
            if let Ok(len) = inbound.unprotect_rtp_later(bytes, rollovers) {
                (incoming.opened, incoming.rollovers) = (Some(now), 1);
                return Ok(len);
            }
        }
    }
    opened
}

/// Whether the node told the key that is in use.
fn is_same(held: &PreparedKey, told: &v1::SessionKey) -> bool {
    let held = held.material();
    held.key == told.key && held.salt == told.salt
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zero;
    impl Random for Zero {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    #[test]
    fn what_ended_leaves_room_for_what_comes() {
        let mut media = Media::default();
        let profile = v1::SrtpProfile::AeadAes128Gcm.into();
        let key = v1::SessionKey { profile, key: vec![1; 16], salt: vec![2; 12] };
        media.change_key(Duration::ZERO, &key).unwrap();
        let frame = Frame { payload: &[1, 2, 3], timestamp: 0, marker: false, level: None };
        for number in 1..3000 {
            let stream = Stream { ssrc: number, clock_rate_hz: 48_000, ..Stream::default() };
            media.publish("voice", [stream], &mut Zero);
            let sent = media.send(Duration::ZERO, "voice", 0, &frame);
            assert!(sent.is_some(), "publication {number}");
            media.unpublish("voice");
            media.subscribe("ear", 100_000 + number, 0, 48_000);
            media.unsubscribe("ear");
            assert!(media.past.len() <= PAST_SSRCS);
        }
    }
}
