//! Every maximum of the core, with its reason.

use crate::time::Duration;

/// Largest datagram read or written. An Ethernet MTU, with room for jumbo-framed RTCP.
pub const DATAGRAM_BYTES: usize = 2048;
/// Subscribers of one publication on one worker. What a core can send at a usual video rate.
pub const SUBSCRIPTIONS_PER_PUBLICATION: usize = 500;
/// Datagrams that a turn can hold: one packet fanned out to everyone, thrice over, and answers.
pub const EGRESS_DATAGRAMS: usize = 2048;
/// Bytes that a turn can hold: one packet fanned out to everyone, and answers.
pub const EGRESS_BYTES: usize = 2 << 20;
/// The worker flushes its egress when it holds this much, so that the send buffers stay in the cache.
pub const EGRESS_FLUSH_BYTES: usize = 128 << 10;
/// And when it holds so many: half of what there is room for, so that the reports of one peer more find theirs.
pub const EGRESS_FLUSH_DATAGRAMS: usize = EGRESS_DATAGRAMS / 2;
const _: () = assert!(EGRESS_FLUSH_BYTES + GATHERED_PACKETS * DATAGRAM_BYTES <= EGRESS_BYTES);

/// Datagrams of one run: what UDP_SEGMENT takes on every kernel that has it (UDP_MAX_SEGMENTS, 64 before Linux 6.9).
pub const RUN_DATAGRAMS: usize = 64;
/// Bytes of one run: the largest UDP payload is 65,507 over IPv4, a little less with IPv6.
pub const RUN_BYTES: usize = 65_000;

/// Packets that wait to be forwarded together: two large frames of video, and no more than a run holds.
pub const GATHERED_PACKETS: usize = RUN_DATAGRAMS;
/// Bytes of the packets that wait: all of them at a usual MTU, also where each is kept as it came besides.
pub const GATHERED_BYTES: usize = 192 << 10;
/// Bytes of RTP padding (RFC 3550 section 5.1) that a packet gets to be as long as its neighbours in a run. Encoders split
/// a frame into packets that differ by a byte or two; each run saved is worth some 2 µs, the bytes cost 1 % at most.
pub const PADDING_BYTES: usize = 12;
/// Payloads shorter than this are not padded: there the bytes would weigh.
pub const PADDED_BYTES_MIN: usize = 600;

/// Scopes of one worker.
pub const SCOPES: usize = 16_384;
/// Peers of one worker.
pub const PEERS: usize = 65_536;
/// Peers of one scope.
pub const PEERS_PER_SCOPE: usize = 500;
/// Publications of one peer: camera, microphone, screen with sound, and some to spare.
pub const PUBLICATIONS_PER_PEER: usize = 16;
/// Subscriptions of one peer. A page of 25 people with two streams each, four times over.
pub const SUBSCRIPTIONS_PER_PEER: usize = 200;
/// Encodings of one publication: the simulcast layers that browsers send.
pub const ENCODINGS_PER_PUBLICATION: usize = 3;
/// Audio streams of a scope, when it forwards the loudest alone: more than anybody can follow.
pub const AUDIO_STREAMS_MAX: usize = 64;
/// Speakers at a time among whom a scope looks for the dominant one.
pub const TALKERS: usize = 64;
/// Packets whose payloads are repeated with the next one, for a subscriber who prefers redundant audio: what a short burst
/// of loss takes, at thrice the bit rate.
pub const REDUNDANT_PACKETS: usize = 2;
/// Bytes of a packet and those payloads: it is to fit everywhere.
pub const REDUNDANT_BYTES: usize = 1000;
/// SSRCs of ended streams that are remembered per peer: two of each encoding of a few publications.
pub const ENDED_SSRCS: usize = 32;
/// Publications of other workers that a worker passes on: those of a hundred scopes larger than a core.
pub const MIRRORS: usize = 16_384;
/// Workers that a publication is passed on to: with [`SUBSCRIPTIONS_PER_PUBLICATION`] on each, tens of thousands listen.
pub const MIRRORS_PER_PUBLICATION: usize = 64;
/// Bytes that one parcel takes from worker to worker: what one turn reads, at a usual MTU.
pub const PARCEL_BYTES: usize = 96 << 10;
/// Packets, states and wishes of one parcel.
pub const PARCEL_ITEMS: usize = 256;
/// Parcels that wait to be fetched, of one turn; and empty ones that are kept, at most 6 MiB.
pub const PARCELS: usize = 64;
const _: () = assert!(PARCEL_BYTES >= 2 * DATAGRAM_BYTES);
/// Plain STUN requests of one address (of one /64) that a worker answers in a second: a browser asks a few times for each of its
/// connections, and many may be behind one NAT. Whoever is asked about by a forger gets 3 KiB a second at most.
pub const BINDINGS_PER_SECOND_OF_ADDRESS: u8 = 50;
/// And of all: 1 % of a core.
pub const BINDINGS_PER_SECOND: u32 = 5_000;
/// Places that addresses are counted in: so many that few share one among those that the limit above lets in.
pub const BINDING_ADDRESSES: usize = 4096;
/// Network paths that a peer can hold at a time: each is an address that passed an ICE check. Beyond, those go first by
/// which nothing else came.
pub const PATHS_PER_PEER: usize = 8;
/// Under a session key SSRCs from here on are the relay's own, those below its peers': so that neither sends from one that
/// the other ever used, which would repeat nonces.
pub const RELAY_SSRCS: u32 = 1 << 31;
/// How long packets under the session key before are taken after a new one: those on their way, and those of peers who did
/// not hear of it yet, also over a line that stood still for some seconds.
pub const KEY_OVERLAP: Duration = Duration::from_secs(5);
/// SSRCs of a peer whose SRTP state outlives their stream: with those in use, they leave half of the room to others.
pub const PAST_SSRCS: usize = 160;
/// Packets kept for retransmission per encoding of video: half a second at 10 Mbit/s.
pub const CACHE_PACKETS_VIDEO: usize = 512;
/// Packets kept for retransmission per encoding of audio: two seconds of 20 ms frames.
pub const CACHE_PACKETS_AUDIO: usize = 100;
/// Events that wait for the worker to pick them up; the oldest is dropped and counted.
pub const EVENTS: usize = 4096;
/// DTLS datagrams that wait for the handshake thread, over all peers of a worker.
pub const HANDSHAKE_DATAGRAMS: usize = 1024;

/// Segments that a subscription remembers: switches of source, and with layers left out the runs in between. Two seconds of
/// every other picture at 60 per second: the reach of a retransmission.
pub const SEGMENTS: usize = 64;
/// Spatial layers of a stream that are told apart; what is above counts as the highest.
pub const SPATIAL_LAYERS: usize = 4;
/// Temporal layers of a stream that are told apart; what is above counts as the highest.
pub const TEMPORAL_LAYERS: usize = 4;
/// Kinds of frames of a stream, by the layers that need them, whose shares of it are told apart: three spatial layers with
/// three temporal ones have nine.
pub const LAYER_SETS: usize = 16;
/// Steps at which a publication can be had: with each of its encodings, or one with as many layers, there are a few.
pub const LADDER_RUNGS: usize = 16;
/// Percent of its bit rate by which a step is less than the next: for less, no layer is left out.
pub const RUNGS_APART: u64 = 10;
/// A joiner is shown what the cache holds if the last key frame is not older: what followed it comes in one burst, and a
/// player that got more at once would lag behind.
pub const KEY_FRAME_AGE: Duration = Duration::from_secs(1);
/// Packets of such a burst at most.
pub const KEY_FRAME_PACKETS: u64 = 256;
/// Bytes of such a burst at most: a second at 2 Mbit/s.
pub const KEY_FRAME_BYTES: usize = 256 << 10;
/// And at most what may be sent to the joiner in so many milliseconds, where that is known.
pub const KEY_FRAME_SHARE_MS: u64 = 500;
const _: () = assert!(KEY_FRAME_PACKETS as usize <= CACHE_PACKETS_VIDEO);
/// First size of a retransmission cache.
pub const CACHE_BYTES_MIN: usize = 16 << 10;
/// Largest size of a retransmission cache: [`CACHE_PACKETS_VIDEO`] packets of usual size.
pub const CACHE_BYTES_MAX: usize = 640 << 10;
/// A cache grows rather than overwrite packets younger than this: what a subscriber asks for again comes within it.
pub const CACHE_AGE: Duration = Duration::from_secs(1);
/// Missing packets of one encoding that are asked for at a time; older ones are given up.
pub const MISSING_PACKETS: usize = 128;
/// A missing packet is asked for again after this, where the way to its publisher was not measured.
pub const MISSING_INTERVAL: Duration = Duration::from_millis(50);
/// Where it was, after a round trip and a quarter, within these.
pub const MISSING_INTERVAL_MIN: Duration = Duration::from_millis(20);
/// Later it comes too late for any picture.
pub const MISSING_INTERVAL_MAX: Duration = Duration::from_millis(500);
/// Missing packets of one encoding whose originals are still awaited after they were repaired, to learn how late they come:
/// about as many as come within [`REORDERING_MAX`].
pub const REPAIRED_PACKETS: usize = 64;
/// A packet that comes this late was reordered, not lost.
pub const REORDERING: Duration = Duration::from_millis(10);
/// Where packets come later than that, a gap is waited with as long as they took lately, but not longer: no receiver's buffer
/// would wait for the answer.
pub const REORDERING_MAX: Duration = Duration::from_millis(100);
/// So long is it remembered.
pub const REORDERING_LATELY: Duration = Duration::from_secs(2);
/// A missing packet is asked for at most so many times.
pub const MISSING_TRIES: u8 = 10;
/// Repair packets of one encoding that wait for all but one of the packets that they protect; of more, the newest. Those of
/// a picture of many packets over a bad line: 64 KiB at most, taken as they come.
pub const FEC_PACKETS: usize = 32;
/// Bytes of retransmission that a subscriber may save up, and starts with.
pub const RESEND_BYTES: u32 = 128 << 10;
/// One byte of retransmission is earned by this many bytes sent: half of the stream covers 30 % loss.
pub const RESEND_SHARE: u32 = 2;
/// Milliseconds of what a subscriber's line carries that may be saved up for retransmission: more fills a line that has
/// become narrow with what is not wanted any more.
pub const RESEND_TIME_MS: u64 = 500;
/// Packets of a subscription that are remembered to have been sent again lately: 3 KiB, once there is one.
pub const RESENT_PACKETS: usize = 128;
/// Arrivals that one transport-wide feedback reports on; at most this many packets arrive between two of them.
pub const FEEDBACK_ARRIVALS: usize = 512;
/// Transport-wide feedback, and that of RFC 8888, goes out this often where it is small against what it tells about.
pub const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
/// And at least this often, however little comes: browsers lower what they send when they hear nothing for half a second.
pub const FEEDBACK_INTERVAL_MAX: Duration = Duration::from_millis(250);
/// What goes to RTCP is one part in so many of what it is about (RFC 3550 section 6.2: 5 %).
pub const RTCP_SHARE: u32 = 20;
/// Bytes that a datagram of RTCP costs beside its packets: IP, UDP, SRTCP.
pub const RTCP_DATAGRAM_BYTES: u64 = 28 + 18;
/// Bytes of one packet of feedback by RFC 8888: it fits everywhere without fragmentation.
pub const FEEDBACK_BYTES: usize = 1100;
/// Streams of a publisher that such feedback keeps apart: all that it can publish, with retransmissions, and some that are
/// not known yet. When there are more it starts over.
pub const FEEDBACK_STREAMS: usize = 2 * PUBLICATIONS_PER_PEER * ENCODINGS_PER_PUBLICATION + 32;
/// Packets of a stream lost since the last feedback that the next one begins with; if there were more it begins behind them.
pub const FEEDBACK_LOST: i16 = 64;
/// Streams that are looked at of such feedback from a subscriber.
pub const FEEDBACK_REPORTS: usize = 64;
/// Packets before the first that nothing is known of, which feedback may still tell about: they were overtaken.
pub const FEEDBACK_LATE: u64 = 256;
/// Receivers of one peer whose reference times are kept until they are answered (RFC 3611 section 4.5); of more, the newest.
pub const REFERENCE_TIMES: usize = 8;
/// Packets whose sending is remembered per subscriber that sends transport-wide feedback: 32 KiB. A second of 40 Mbit/s.
pub const SENT_PACKETS: usize = 4096;
/// Packets that the transport-wide feedback of one datagram tells about: more cannot be new.
pub const FEEDBACK_STATUSES: usize = SENT_PACKETS;
/// What a subscriber's line is taken to carry before anything is known of it, in bits per second.
pub const BANDWIDTH_BPS_START: u64 = 1_000_000;
/// Whatever is measured, so much may be sent: sound, and with it the feedback that says when there is more room again.
pub const BANDWIDTH_BPS_MIN: u64 = 50_000;
/// And no more than this: what a subscriber says of its line is not believed beyond.
pub const BANDWIDTH_BPS_MAX: u64 = 60_000_000;
/// One part in so many of the estimate is kept free for RTCP and what is sent again.
pub const BANDWIDTH_RESERVE: u64 = 32;
/// Packets of one step of a probe at most: those of a millisecond of the largest probe.
pub const PROBE_PACKETS: usize = 16;
/// Bytes that one probe sends at most: 15 ms of 30 Mbit/s.
pub const PROBE_BYTES: usize = 64 << 10;
/// Packets that wait for the line of one peer: what a cache holds of one encoding, or they could not be looked up.
pub const PACER_PACKETS: usize = CACHE_PACKETS_VIDEO;
/// What is asked for again waits in front of them, so much at most.
pub const PACER_REPAIRS: usize = 128;
/// When what waits takes longer than this, the next picture of who sends most is given up, and with it what follows until a
/// key frame: a player that lags further behind is of no use in a conversation.
pub const PACER_WAIT: Duration = Duration::from_millis(500);
/// A picture that would take longer than this, with what waits before it of its stream, is given up: later it could not be
/// looked up.
pub const PACER_PICTURE: Duration = Duration::from_secs(1);
const _: () = assert!(PACER_PICTURE.as_millis() <= CACHE_AGE.as_millis());
/// A key frame may take so long: a shared screen whose key frames were all too long would never be seen. What it is of has made
/// the cache large enough to keep it for that time.
pub const PACER_KEY_FRAME: Duration = Duration::from_secs(2);
/// No picture begins to wait where fewer packets than this find room: its rest would not.
pub const PACER_ROOM: usize = PACER_PACKETS / 8;
/// What waits longer than this is given up for a key frame of its stream.
pub const PACER_STALE: Duration = Duration::from_millis(100);
/// Pictures leave at so many percent of what their peer may get: what is measured of a line is a little less than it carries.
pub const PACER_PERCENT: u64 = 110;
/// What was not used of the line may be made up for: about a frame, which leaves in one run.
pub const PACER_BURST: Duration = Duration::from_millis(40);
/// And what went at once, as sound does, is made up for to this extent.
pub const PACER_DEBT: Duration = Duration::from_millis(250);
/// What waits is looked at after this at the soonest; timers go in steps of 5 ms, so that it leaves in runs on a fast line.
pub const PACER_STEP: Duration = Duration::from_millis(1);
/// However much sound there is, a packet of pictures leaves so often: without any nothing would be told of the line.
pub const PACER_TRICKLE: Duration = Duration::from_millis(250);
/// Who was given up asks for a key frame after this; each time that it did not last doubles it.
pub const PACER_BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Up to this.
pub const PACER_BACKOFF_MAX: Duration = Duration::from_secs(8);
/// It lasted if it went on for so long.
pub const PACER_STEADY: Duration = Duration::from_secs(5);
/// What REMB, with each report, allows a publisher: generous, so that browsers ramp up to what their encoder wants.
pub const REMB_BPS: u64 = 20_000_000;
/// The least that a publisher can be held to: sound with its headers.
pub const UPLINK_BPS_MIN: u64 = 48_000;
/// What a subscriber may get is looked at this often, besides at every change.
pub const ALLOCATION_INTERVAL: Duration = Duration::from_millis(250);
/// How much an encoding carries is measured over this long: a key frame in it weighs little.
pub const RATE_WINDOW: Duration = Duration::from_secs(2);
/// How long what it carried for so long says more than the moment in which it begins anew: a minute of pauses.
pub const RATE_MEMORY: Duration = Duration::from_secs(60);
/// Percent that must be left of a budget for a better layer to be tried.
pub const RAISE_SPARE: u64 = 15;
/// And for how long they must have been left.
pub const RAISE_AFTER: Duration = Duration::from_secs(1);
/// After a drop the next attempt waits this long. Each that fails doubles it.
pub const RAISE_BACKOFF_MIN: Duration = Duration::from_secs(3);
/// Up to this.
pub const RAISE_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The least of a picture that has nothing is tried when a third of that has passed.
pub const RAISE_PAUSED: u32 = 3;
/// When what goes to a subscriber is this many percent of its budget, its pictures stop for the key frame of a lower layer
/// rather than go on until that comes.
pub const OVERSPENT: u64 = 150;
/// An encoding that nobody wants for this long is told to be unwanted: who looks away for a moment costs no key frame, and with
/// the next look its publisher knows within a second.
pub const LAYER_UNWANTED: Duration = Duration::from_millis(700);
/// Within this an encoding that is asked for comes, or is taken for one that its publisher cannot send.
pub const LAYER_STARTS: Duration = Duration::from_secs(3);
/// What is wanted of a publication is told with what else changes within this.
pub const DEMAND_DELAY: Duration = Duration::from_millis(20);
/// And told again this often, should it have been lost.
pub const DEMAND_REPEAT: Duration = Duration::from_secs(10);
/// What is kept free for somebody who begins to speak.
pub const AUDIO_RESERVE_BPS: u64 = 40_000;
/// What an encoding is taken for that was never seen, lowest first.
pub const GUESSED_BPS: [u64; ENCODINGS_PER_PUBLICATION] = [100_000, 400_000, 1_200_000];
/// The least that a subscriber's feedback can bring its budget to: sound.
pub const BUDGET_BPS_MIN: u64 = 30_000;
/// And the most: beyond, it is as good as none.
pub const BUDGET_BPS_MAX: u64 = 100_000_000;
/// Report intervals (RFC 3550 section 6.2, scaled for the bandwidths of video and audio).
pub const REPORT_INTERVAL_VIDEO: Duration = Duration::from_secs(1);
/// See [`REPORT_INTERVAL_VIDEO`].
pub const REPORT_INTERVAL_AUDIO: Duration = Duration::from_secs(2);
/// Where so much is reported that it would go beyond its share, the intervals grow up to this.
pub const REPORT_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// The least that a peer's session is taken to carry, of which the reports get their share: one picture of the least size.
pub const SESSION_BPS_MIN: u64 = 100_000;
/// An encoding without packets for this long is not active: its subscribers move to another layer.
pub const ENCODING_IDLE: Duration = Duration::from_millis(1500);
/// So long, while another of its publication goes on: what is sent of one camera comes at the same times.
pub const ENCODING_IDLE_BESIDE: Duration = Duration::from_millis(500);
/// Or, of a camera with few pictures, so many times as long as lately passed between two of them.
pub const ENCODING_IDLE_GAPS: u32 = 3;
/// Packets asked for by one NACK that are looked up: all that a cache can hold.
pub const NACKED_PACKETS: usize = CACHE_PACKETS_VIDEO;
/// A datagram of reports is closed once it holds this much: the next report fits without fragmentation.
pub const REPORTS_BYTES: usize = 1000;

/// How long a path lives without an ICE check (RFC 7675 section 5.1).
pub const CONSENT: Duration = Duration::from_secs(30);
/// So long after something authentic came from an IP address of a peer's, its media does not go to another one for a check
/// alone, which somebody may have sent again. Whoever listens reports every second or so, or feeds back more often; a peer
/// that moved and says nothing waits for it.
pub const HEARD: Duration = Duration::from_secs(5);
/// What comes is noted so often.
pub const HEARD_INTERVAL: Duration = Duration::from_millis(250);
const _: () = assert!(HEARD.as_millis() >= 4 * HEARD_INTERVAL.as_millis());
/// By a path that a peer is at, something comes within this, if anything still comes by the one before. Longer than a client
/// sends by both.
pub const UNHEARD: Duration = Duration::from_secs(1);
/// Where a peer is reached is told at most so often: who has its credentials may nominate a path with each check, and
/// whoever reads events must not drown in that.
pub const PATH_TOLD_INTERVAL: Duration = Duration::from_millis(500);
/// How long a peer may take for ICE and DTLS.
pub const SETUP: Duration = Duration::from_secs(30);
/// Key-frame requests towards one encoding are at least this far apart; the first goes out at once.
pub const KEY_FRAME_REQUEST_INTERVAL: Duration = Duration::from_millis(500);

/// Sequence numbers of one encoding that wait to be judged as arrived or lost: [`LOSS_SETTLE`] of 40 Mbit/s. What comes
/// faster is judged earlier.
pub const LOSS_PLACES: usize = 2048;
const _: () = assert!(LOSS_PLACES.is_multiple_of(64));
/// A packet is lost when its place stayed empty for so long: reordering settles within it, as a first retransmission does.
pub const LOSS_SETTLE: Duration = Duration::from_millis(500);
/// The same for peers far away, at most.
pub const LOSS_SETTLE_MAX: Duration = Duration::from_secs(2);
/// The queuing delay of an encoding is the time above the least of so many windows ...
pub const DELAY_WINDOWS: usize = 64;
/// ... of this length: a queue must be empty for a moment within 4 minutes to be seen whole.
pub const DELAY_WINDOW: Duration = Duration::from_secs(4);
/// How often each stream's quality is told.
pub const QUALITY_INTERVAL: Duration = Duration::from_secs(2);
/// Figures of quality that wait for the worker to pick them up; the oldest is dropped, as newer ones say more.
pub const QUALITY_EVENTS: usize = 2048;
