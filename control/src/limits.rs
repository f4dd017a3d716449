//! Every maximum of the control plane, with its reason.

use std::time::Duration;

/// Largest SDP accepted. A Chromium offer with 50 video slots is about 150 KiB.
pub const SDP_BYTES: usize = 256 << 10;
/// Largest WebSocket text message (docs/reference/jsonrtc.md).
pub const FRAME_BYTES: usize = 256 << 10;
/// Largest trickle fragment: a few hundred candidates.
pub const FRAGMENT_BYTES: usize = 32 << 10;
/// Largest body of any other request.
pub const BODY_BYTES: usize = 64 << 10;
/// Largest bearer token: far above any JWT of ours, far below a header block.
pub const TOKEN_BYTES: usize = 8 << 10;
/// Longest name of a user, as the application names them.
pub const USER_BYTES: usize = 128;
/// Longest salt of a signed credential: as many digits as SHA-256 has.
pub const SALT_BYTES: usize = 64;
/// Longest name of an API key.
pub const KEY_ID_BYTES: usize = 48;
/// API keys of one application: each that is enabled may be tried for a credential.
pub const KEYS_PER_APPLICATION: usize = 8;
/// Salts of signed credentials remembered until these expire, about 400 bytes each: 500 joins a
/// second for almost nine minutes, or three a second all day.
pub const SALTS: usize = 1 << 18;
/// Those of one application: none shuts out the others.
pub const SALTS_PER_APPLICATION: usize = SALTS / 4;
/// m-lines of one offer: 200 slots and 16 publications, the relay's own limits per peer.
pub const MEDIA_LINES: usize = 216;
/// Payload types of one m-line: all that RTP can use beside RTCP, and what the relay takes.
pub const CODECS_PER_MEDIA: usize = 96;
/// Header extensions of one m-line: thrice what browsers offer.
pub const EXTENSIONS_PER_MEDIA: usize = 64;
/// Simulcast layers taken from an offer: those that the relay carries.
pub const ENCODINGS_PER_MEDIA: usize = 3;
/// Loudest audio streams of a scope, where not all are forwarded: the relay's own limit.
pub const AUDIO_STREAMS_MAX: u32 = 64;
/// The least that a client's uplink can be held to, in bits per second: the relay's own limit.
pub const UPLINK_BPS_MIN: u64 = 48_000;
/// Peers in one rule of allowed senders: twice those of a large scope, so that who left may stay.
pub const ALLOWED_SENDERS: usize = 1000;
/// Longest scope name. With an application's it makes the relay's identifier of at most 128.
pub const SCOPE_NAME_BYTES: usize = 64;
/// Longest application identifier.
pub const APPLICATION_BYTES: usize = 48;
// Separators and eight digits that tell the lives of a scope apart.
const _: () = assert!(SCOPE_NAME_BYTES + APPLICATION_BYTES + 10 <= 128);
/// Longest display name of a peer, of a publication.
pub const NAME_BYTES: usize = 128;
/// Frames kept until the other side acknowledges them.
pub const RETAINED_FRAMES: usize = 512;
/// Bytes of them: a hundred answers with 50 slots each would be 15 MiB for one session.
pub const RETAINED_BYTES: usize = 4 << 20;
/// Frames received after which an acknowledgement is sent if nothing else carried one.
pub const UNACKNOWLEDGED_FRAMES: u32 = 16;
/// Frames that wait for a slow WebSocket; when it is full the socket is closed, the session kept.
pub const OUTBOUND_FRAMES: usize = 512;
/// Frames read from a WebSocket that wait for its session.
pub const INBOUND_FRAMES: usize = 32;
/// Scope events that wait for one peer. A scope of 500 that starts at once sends some 1500.
pub const NOTICES: usize = 2048;
/// Publications of a scope whose viewers are counted.
pub const PUBLICATIONS_VIEWED: usize = 4096;
/// Scopes that one WebSocket session can be in at a time.
pub const SUBSESSIONS: usize = 8;
/// Frames that an unauthenticated WebSocket may send before it is closed.
pub const FRAMES_BEFORE_CONNECT: usize = 8;
/// How long a new WebSocket may take to send CONNECT.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Interval of WebSocket pings.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);
/// A WebSocket that is silent for this long is closed.
pub const SILENCE: Duration = Duration::from_secs(45);
/// How long one write to a WebSocket may take before its reader counts as gone.
pub const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long one call of the relay may take: it answers within a turn of its workers.
pub const RELAY_CALL: Duration = Duration::from_secs(5);
/// How long a connection may take to say what it is (TLS or framed STUN).
pub const FRONT_DOOR_TIME: Duration = Duration::from_secs(10);
/// STUN servers that a browser is told of: the port for everything in each family, and two more. From five on Firefox complains.
pub const STUN_SERVERS: usize = 4;
/// How long credentials of TURN open something: a day's call, and what is allocated by then goes on.
pub const TURN_CREDENTIALS: Duration = Duration::from_secs(12 * 3600);
/// Connections of framed media whose peers the relay does not know yet: it takes 5 s for that at most,
/// and half a millisecond of work each.
pub const MEDIA_STRANGERS: usize = 512;
/// Those from one address, which may be that of a whole office whose UDP is blocked.
pub const MEDIA_STRANGERS_PER_ADDRESS: usize = 128;
/// Connections of HTTPS and links whose TLS the relay speaks, as their clients named no protocol: what
/// it takes itself. Beyond, TLS is spoken here, and who comes for TURN without naming it finds none.
pub const BACK_CONNECTIONS: usize = 4096;
/// Those from one address, with those of which it is not known yet: as many as of these.
pub const BACK_PER_ADDRESS: usize = MEDIA_STRANGERS_PER_ADDRESS;
/// Most of a ClientHello that is looked at for framed media: one with post-quantum keys is 1.7 KiB.
/// A longer one is none of a client of ours.
pub const HELLO_BYTES: usize = 4 << 10;
/// How long a client may take for the headers of a request, and idle between two of them.
pub const HEADER_TIME: Duration = Duration::from_secs(30);
/// How long a connection of HTTP/2 may be without a request: longer than a page is silent between two
/// of its own, and twice as long where one was at the beginning.
pub const HTTP2_IDLE: Duration = Duration::from_secs(90);
/// Writes of no more bytes are frames that belong to no request: a ping has 17, of settings 9.
pub const HTTP2_CONTROL_BYTES: usize = 64;
/// How long a client of HTTP may take nothing of what waits for it, by a line that stood still.
pub const HTTP_STALL: Duration = Duration::from_secs(60);
/// How long a client may take for the body of a request.
pub const BODY_TIME: Duration = Duration::from_secs(15);
/// A spliced ICE-TCP connection without a byte either way is closed after this time. ICE consent
/// (RFC 7675) makes live ones talk every few seconds.
pub const SPLICE_IDLE: Duration = Duration::from_secs(60);
/// Bytes in flight per direction of a spliced connection.
pub const SPLICE_BYTES: usize = 16 << 10;
/// How long one who opens the store waits for others who do: they bring its tables up to date, which
/// is done in milliseconds.
pub const STORE_OPEN_TIME: Duration = Duration::from_secs(10);
/// How long a process that starts waits for the store's server to take a connection: clients give a
/// node up that is away for two seconds.
pub const STORE_FIRST_LOOK: Duration = Duration::from_millis(500);
/// Pause before it looks again.
pub const STORE_OPEN_PAUSE: Duration = Duration::from_millis(5);
/// Connections to a database on a server: one writes, the others answer questions.
pub const STORE_CONNECTIONS: u32 = 8;
/// How long the store may take to give a connection.
pub const STORE_CONNECT: Duration = Duration::from_secs(5);
/// The store counts as full for so long after it had no room for something, and as refusing the account
/// after it did: events try again every two seconds.
pub const STORE_FULL_TIME: Duration = Duration::from_secs(15);
/// What goes on to fail for the same reason is in the log as often as this: no sooner does anybody do
/// something about it.
pub const SAID_AGAIN: Duration = Duration::from_secs(60);
/// How long a call of the API may take: more than a question does, and less than clients wait for.
pub const API_TIME: Duration = Duration::from_secs(10);
const _: () = assert!(API_TIME.as_millis() > READ_TIME.as_millis() + READ_GRACE.as_millis());
/// Pause between two looks for a store whose server did not answer at the start: soon enough for who
/// waits for it, and nothing for a server that is just starting.
pub const STORE_LOOK: Duration = Duration::from_secs(1);
/// Connections for questions from outside. They are few so that these do not take the engine's whole
/// time either, and not among [`STORE_CONNECTIONS`], so that logins never wait for them.
pub const READ_CONNECTIONS: u32 = 3;
/// How long such a question may wait for one of them.
pub const READ_WAIT: Duration = Duration::from_secs(2);
/// How long it may take: hundred times what pages of the dashboard do.
pub const READ_TIME: Duration = Duration::from_secs(5);
/// How long a server that was told so may take to end it.
pub const READ_GRACE: Duration = Duration::from_secs(3);
const _: () = assert!(READ_GRACE.as_millis() > READ_WAIT.as_millis());
/// Steps of SQLite's machine after which it looks at the time: a tenth of a millisecond.
pub const READ_STEPS: i32 = 10_000;
/// Questions from outside that are under way, with those that wait: 2 MiB each at the very most.
pub const READS_AT_ONCE: usize = 32;
/// How long the store's server may take to say what time it is, for who asks for metrics.
pub const CLOCK_CALL: Duration = Duration::from_millis(500);
/// Rows of one statement: 17 columns of them are far below the 32,766 arguments that SQLite takes.
pub const ROWS_AT_ONCE: usize = 100;
/// Sessions that are forgotten in one transaction.
pub const SESSIONS_FORGOTTEN_AT_ONCE: usize = 500;
/// How long one call of Cassandra may take.
pub const CQL_CALL: Duration = Duration::from_secs(5);
/// How long it may take to connect to Cassandra, and to make its tables.
pub const CQL_READY: Duration = Duration::from_secs(20);
const _: () = assert!(CQL_READY.as_millis() < RECORDS_CALL.as_millis());
/// Calls of Cassandra under way for one batch of events, or one question: two for each of its cores.
pub const CQL_CALLS_AT_ONCE: usize = 32;
/// Rows of one page of an answer: 300 KiB.
pub const CQL_PAGE: i32 = 2_000;
/// Statements of one batch: 15 KiB; Cassandra refuses those of 50.
pub const CQL_ROWS_AT_ONCE: usize = 64;
/// Longest that Cassandra keeps something that it is to forget: twenty years.
pub const CQL_KEEP_SECONDS: i64 = 630_720_000;
/// Largest version of a row. It is written as microseconds since 1970, and ScyllaDB refuses those that
/// are more than three days ahead. It is the sum of a session's bytes, hour by hour: a petabyte and more.
pub const CQL_VERSION_MAX: i64 = 1_750_000_000_000_000;
/// A stay that nobody told of for longer is not counted minute by minute all the way.
pub const CQL_GAP_MS: i64 = 7 * 86_400_000;
/// Sessions with problems are looked for that began so long before the span that is asked for.
pub const CQL_SESSION_MS: i64 = 86_400_000;
/// An hour is added up so long after it is over: agents have written what there is to it by then.
pub const CQL_HOUR_OPEN_MS: i64 = 2 * 3_600_000;
/// How often old records are looked for.
pub const FORGET_PERIOD: Duration = Duration::from_secs(3_600);
/// Events that wait for the store or for Redis: all sessions of a node come or go at once.
pub const EVENTS_WAITING: usize = 64 << 10;
/// Events that are written in one transaction.
pub const EVENTS_AT_ONCE: usize = 1024;
/// Bytes of events that wait on disk: a thousand streams for half a day.
pub const SPOOL_BYTES: i64 = 256 << 20;
/// Damaged spools that are kept for whoever wants to look: the newest, as each may be as large.
pub const SPOOLS_BROKEN: usize = 3;
/// Events that wait in Redis; nodes keep what comes beyond: 100 MB, as most are below a kilobyte.
pub const EVENTS_STREAM: u64 = 100_000;
/// Events that are added to the stream in one go.
pub const EVENTS_ADDED_AT_ONCE: usize = 256;
/// Events that an agent takes from it at once: 10 MB at the very most.
pub const EVENTS_READ_AT_ONCE: usize = 256;
/// Events that no agent understood, kept for a newer one.
pub const EVENTS_ASIDE: usize = 10_000;
/// How long one call of the Redis of the events may take.
pub const EVENTS_CALL: Duration = Duration::from_secs(3);
/// How long an end in order waits, when all else is done or has had its time, until what happened is
/// told: for a Redis that does not answer, and then for the disk.
pub const EVENTS_END: Duration = Duration::from_secs(5);
const _: () = assert!(EVENTS_CALL.as_millis() + 1_000 < EVENTS_END.as_millis());
/// How long an agent waits for events in one call.
pub const EVENTS_BLOCK: Duration = Duration::from_secs(1);
const _: () = assert!(EVENTS_BLOCK.as_millis() + 1_000 < EVENTS_CALL.as_millis());
/// What an agent was given and did not write for so long, another takes over: twice is as well as
/// once.
pub const EVENTS_ABANDONED: Duration = Duration::from_secs(10);
/// How often an agent looks for that.
pub const EVENTS_CLAIM_PERIOD: Duration = Duration::from_secs(5);
/// An agent that was not heard of for so long is forgotten.
pub const EVENTS_AGENT_GONE: Duration = Duration::from_secs(600);
/// Scopes that ended, which agents look at once more: those that a node's peers can be in.
pub const RELEASES_WAITING: usize = 10_000;
/// Stays of this node that are not over, or whose end nobody took: ten times its peers.
pub const STAYS_NOTED: usize = 200_000;
/// Stays in one event: 40 KiB of JSON.
pub const STAYS_PER_EVENT: usize = 100;
/// How often all stays are told of.
pub const PRESENCE_PERIOD: Duration = Duration::from_secs(10);
/// A session that was not told of for so long, in milliseconds, does not last: three tellings.
pub const LIVE_MS: i64 = 30_000;
/// Streams of one peer whose minutes are added up: its publications in three layers, and what it gets.
pub const STREAMS_METERED: usize = 64;
/// Sessions with problems that are looked at for examples.
pub const SESSIONS_LOOKED_AT: usize = 1_000;
/// Incidents that are told, the newest.
pub const INCIDENTS_TOLD: usize = 50;
/// Entries of diagnostics of one application; the oldest go first. 640 MiB at the very most.
pub const DIAGNOSTICS_PER_APPLICATION: usize = 10_000;
/// How often a node looks at its host. What it finds is 150 bytes of its lease.
pub const HOST_INTERVAL: Duration = Duration::from_secs(3);
/// Prices of minutes: one of its own for each application that a cluster has, changed every year.
pub const PRICES: usize = 10_000;
/// What 1,000 minutes cost at most, in millionths: a million in any currency.
pub const PRICE_MICROS: i64 = 1_000_000_000_000;
/// Decimals of a currency: one of ISO 4217 has four, the others fewer.
pub const MONEY_DECIMALS: usize = 4;
/// Who issues invoices: a name, an address and a number for taxes.
pub const ISSUER_BYTES: usize = 400;
/// Months before that of an invoice whose late minutes are on it: events wait for days, not for a year.
pub const MONTHS_CORRECTED: i64 = 12;
/// Minutes of a month that are given back unasked though they are more than half of it. Stays turn out
/// shorter by seconds; where most of a large month is gone, the sums are those of another store.
pub const MINUTES_GIVEN_BACK: i64 = 1_000;
/// How often an invoice is begun anew as another one of the same application was issued meanwhile:
/// one for each month that has to do with it.
pub const ISSUE_TRIES: usize = 12;
/// Months of applications told of that have no invoice: 100 KiB.
pub const DUE_TOLD: usize = 1_000;
/// Items of one page of a list.
pub const PAGE_ITEMS: usize = 200;
/// Sessions that last, in one answer: 400 KiB.
pub const SCOPES_TOLD: usize = 1_000;
/// Stays of a session in one answer: 400 KiB.
pub const STAYS_TOLD: usize = 1_000;
/// Minutes of streams in one answer: 20 peers with three streams for two hours and three quarters, 2 MiB.
pub const POINTS_TOLD: usize = 10_000;
/// Points of one stream that can be asked for: more than a screen has columns.
pub const POINTS_PER_STREAM: i64 = 1_440;
/// The latest time that is asked for: the year 2255, so that sums of times never overflow.
pub const TIME_MS_MAX: i64 = 9_000_000_000_000;
/// Diagnostics that one address posts at once.
pub const POSTS_PER_ADDRESS: f64 = 20.0;
/// And each second for long.
pub const POSTS_PER_ADDRESS_SECOND: f64 = 1.0 / 3.0;
/// Diagnostics that the clients of an application post at once.
pub const POSTS_PER_APPLICATION: f64 = 600.0;
/// And each second for long.
pub const POSTS_PER_APPLICATION_SECOND: f64 = 10.0;
/// Addresses, applications and tokens that are remembered as calling: 1 MB.
pub const CALLERS: usize = 10_000;
/// How often those that need not be remembered any more are looked for where all places are taken.
pub const RATES_SWEPT: Duration = Duration::from_secs(1);
/// Largest message from peer to peer: a WebSocket frame holds it also in base 64.
pub const MESSAGE_BYTES: usize = 64 << 10;
const _: () = assert!(MESSAGE_BYTES * 4 / 3 + 1024 < FRAME_BYTES);
/// What one of two browsers signals to the other at once: 16 m-lines as browsers write them.
pub const SIGNAL_BYTES: usize = 64 << 10;
const _: () = assert!(SIGNAL_BYTES * 3 < FRAME_BYTES);
/// And how often at once: an attempt is an offer, an answer and some thirty candidates, eighty on a
/// machine with many addresses; six attempts fit into the first minute, and then they get rare.
pub const SIGNALS: u32 = 500;
/// And then one every so often: more than an attempt a minute.
pub const SIGNAL_EACH: Duration = Duration::from_millis(500);
/// How often two may begin to go directly at once, as when a third one comes and goes: each time both
/// open connections.
pub const DIRECT_BEGINNINGS: u32 = 6;
/// And then once every so often.
pub const DIRECT_BEGINNING_EACH: Duration = Duration::from_secs(5);
/// How long a client is told to wait before it asks again for what passes by itself: the time in which a
/// node that died is found.
pub const RETRY_MS: u32 = 2_000;
/// How long a new link may take to send `Auth`.
pub const AUTH_TIME: Duration = Duration::from_secs(5);
/// Bytes that wait for a slow link; when it is full the link is closed, the session kept. A scope
/// of 500 that starts at once is told in 100 KiB.
pub const LINK_OUT_BYTES: usize = 1 << 20;
/// Peers in the answer to `Auth`, far below the largest message; the rest join right after it. A
/// peer with 16 publications of long names is 4 KiB.
pub const PEERS_BYTES: usize = 128 << 10;
const _: () = assert!(PEERS_BYTES <= strait_link::MESSAGE_BYTES / 2);
/// Media that waits for a slow link: a third of a second of 1.5 Mbit/s. The oldest goes first.
pub const LINK_MEDIA_BYTES: usize = 64 << 10;
/// Bytes read from a link at a time.
pub const LINK_READ_BYTES: usize = 4 << 10;
/// Requests and messages of a link that are carried out before anything else has its turn.
pub const LINK_BATCH: usize = 64;
/// Messages to a native client that were sent and that it did not confirm; the next ones wait.
pub const UNCONFIRMED_MESSAGES: usize = 4096;
/// Bytes of them.
pub const UNCONFIRMED_BYTES: usize = 4 << 20;
/// What is read ahead of a client that spoke too fast, so that its confirmations are found: as much as
/// a client is asked to leave unconfirmed, each message with 64 bytes of its own.
pub const LINK_AHEAD_BYTES: usize = UNCONFIRMED_BYTES + 64 * UNCONFIRMED_MESSAGES;
/// Messages of that, requests and pings among them: twice as many as a client is asked for. They take
/// their turns also when it has closed its link.
pub const LINK_AHEAD_MESSAGES: usize = 2 * UNCONFIRMED_MESSAGES;
/// Memory for what is read ahead of all clients: beyond, little is of each.
pub const LINKS_AHEAD_BYTES: usize = 512 << 20;
/// That little.
pub const LINK_AHEAD_LEAST: usize = 64 << 10;
/// How long messages may wait for a client that reads and confirms none.
pub const CONFIRM_TIME: Duration = Duration::from_secs(30);
/// Messages to a native client that it did not confirm, sent or not; beyond, its session ends. At the
/// default rates eight may speak to it in a burst at once, who confirms nothing meanwhile.
pub const WAITING_MESSAGES: usize = 4 * UNCONFIRMED_MESSAGES;
/// Bytes of them: shared with the others that the same message waits for.
pub const WAITING_BYTES: usize = 4 * UNCONFIRMED_BYTES;
/// What waits for a native client's session to look at it: a scope's events, and messages as far as they
/// may wait behind.
pub const LINK_NOTICES: usize = NOTICES + WAITING_MESSAGES;
/// Receivers who were cut off while a client had no link, of whom it is told when it is back: as many as a
/// large scope loses at once.
pub const LOST_NOTICES: usize = 512;
/// Bytes of messages to a client that are on their way to its socket: the next ones wait where they are
/// kept anyhow, and what is no message goes before them. A record of TLS.
pub const LINK_FEED_BYTES: usize = 16 << 10;
/// Bytes that TLS and the system keep each for a link beyond what is on its way: what is said later waits
/// behind them, half a second at 1 Mbit/s in all. With less, long messages cost a seventh more.
pub const LINK_UNSENT_BYTES: usize = 32 << 10;
// Who comes back by another link can be told so on the one before, though it was fed.
const _: () = assert!(LINK_FEED_BYTES + MESSAGE_BYTES + 1024 <= LINK_OUT_BYTES / 4);
/// Messages for data channels that wait for the relay: 16 MiB at most. Beyond, they go by WebSocket.
pub const CHANNEL_MESSAGES: usize = 256;
/// Channels to be closed that wait for the relay: each of its associations' for messages.
pub const CHANNEL_ENDS: usize = 1024;
/// Largest frame on a data channel: what the relay takes, and a message with its envelope.
pub const CHANNEL_FRAME_BYTES: usize = 65 << 10;
/// SRTP profiles that a native client lists: more than there are.
pub const PROFILES: usize = 16;
/// How long the rest of what was said to a link that ends may take.
pub const LINK_CLOSE_TIME: Duration = Duration::from_secs(2);
/// Resets of QUIC connections of a process of before are as far apart: 10,000 clients learn within a
/// second that it is gone. Each is shorter than what it answers.
pub const QUIC_RESET_INTERVAL: Duration = Duration::from_micros(100);
/// How long messages that were taken are handed over before the process ends, to clients that read: with
/// the rest of the end it is half of what a service manager waits. 16 MiB at 27 Mbit/s.
pub const LINK_HANDOVER_TIME: Duration = Duration::from_secs(5);
/// And where the next process is what clients wait for.
pub const LINK_PARTING_TIME: Duration = Duration::from_millis(300);
/// Media over a link ends after so long without any from the client: it has another way by then.
pub const LINK_MEDIA_IDLE: Duration = Duration::from_secs(30);
/// Pause before media over a link is begun again that the relay ended.
pub const LINK_MEDIA_PAUSE: Duration = Duration::from_secs(1);
/// QUIC connections that are half open before whoever comes must show that its address is its own:
/// those of a second at the rate that a core can let in, and room to spare.
pub const QUIC_HALF_OPEN: usize = 1024;
/// Bytes of a connection that wait until it is decided about: two datagrams.
pub const QUIC_EARLY_BYTES: u64 = 4 << 10;
/// Buffers of the QUIC socket, which all links share; the system may give less.
pub const QUIC_SOCKET_BYTES: usize = 2 << 20;
/// Channels that one message is sent to: the relay's own limit. To more it is sent several times.
pub const CHANNEL_RECEIVERS: usize = 1024;
/// Largest packet over a link: that of a UDP datagram on an Ethernet, and room to spare.
pub const MEDIA_PACKET_BYTES: usize = 2048;
/// Publications of a native client, and streams that it gets: the relay's own limits per peer.
pub const PUBLICATIONS_PER_PEER: usize = 16;
/// Streams that a native client gets.
pub const SUBSCRIPTIONS_PER_PEER: usize = 200;
/// SSRCs from here on are the relay's own under a session key; those below are given out to native
/// clients, none twice, or nonces would come again. Of 2^30 at least, a client that publishes as
/// fast as it may uses up a few thousand a second.
pub const SSRCS_END: u32 = 1 << 31;
/// SSRCs that a scope gives out before it is noted again how far it is.
pub const SSRC_STRIDE: u32 = 1 << 16;
/// SSRCs that are passed over by a process that was started again: all that were given out since that
/// was noted, also where the relay did not answer for minutes.
pub const SSRC_LEAP: u32 = 1 << 20;
const _: () = assert!(SSRC_LEAP > 8 * SSRC_STRIDE && SSRC_LEAP < SSRCS_END / 16);
/// Bytes of what is noted of a client: one with all its streams, long names and [`MEMO_SENDERS_BYTES`].
/// The relay keeps 64 KiB of one, and such ones of 6,000 clients.
pub const MEMO_BYTES: usize = 40 << 10;
/// Bytes of allowed senders that are noted of a client: 500 peers. Of longer lists those who are in the
/// scope come first.
pub const MEMO_SENDERS_BYTES: usize = 16 << 10;
/// How long the start waits for what the relay noted: 10,000 clients at 4 KiB each are 40 MiB. At
/// [`MEMO_BYTES`] each they were 390 MiB, of which the relay keeps 256 MiB. Clients come back for longer
/// than that. What came until then counts.
pub const RECALL_TIME: Duration = Duration::from_secs(10);
/// How long it waits for the next note. A relay that is not there refuses at once.
pub const RECALL_SILENCE: Duration = Duration::from_secs(3);
const _: () = assert!(RECALL_SILENCE.as_millis() < RECALL_TIME.as_millis());
/// Attempts to tell the relay what a recalled scope is, and the pause between them: a relay that is well
/// answers the first one.
pub const RECALL_SAID: usize = 3;
/// See [`RECALL_SAID`].
pub const RECALL_PAUSE: Duration = Duration::from_millis(500);
/// Recalled sessions that are told to the relay at once: it answers some thousand calls a second, each
/// within [`RELAY_CALL`]. Whose client is back has its turn at once.
pub const RECALLS_AT_ONCE: usize = 64;
/// Between two changes of a scope's session key: those who leave together cost one. As long as all
/// take what comes under the key before, so that a line that stood still for as long loses nothing.
pub const KEY_CHANGE_PAUSE: Duration = strait_link::KEY_OVERLAP;
/// How long the store may take to write what a batch of events says, or to forget a piece of what is
/// old: far more than any does that lives.
pub const RECORDS_CALL: Duration = Duration::from_secs(30);
/// The store is asked for so long about one application, or all of them, before what is known counts.
pub const STORE_CALL: Duration = Duration::from_secs(2);
/// Applications that are remembered, for while the store does not answer, where there is no Redis.
pub const APPLICATIONS_REMEMBERED: usize = 10_000;
/// Names of applications that there are not, remembered so that whoever makes them up does not ask
/// SQL each time.
pub const UNKNOWN_APPLICATIONS: usize = 10_000;
/// For so long: one that is added is there two seconds later at the latest.
pub const UNKNOWN_TIME: Duration = Duration::from_secs(2);
/// So often each second the store is asked for them before that, in all: nothing to a store.
pub const UNKNOWN_ASKED: u32 = 20;
/// Applications that a node knows from the Redis beside it: 100 MB with one key each.
pub const APPLICATIONS_COPIED: usize = 100_000;
/// Applications that are pushed to Redis in one transaction, which holds it up for a millisecond.
pub const KEYS_CHANGED_AT_ONCE: usize = 1_000;
/// How often keys are pushed, and looked for: what is revoked ends within two of it.
pub const KEYS_PERIOD: Duration = Duration::from_secs(1);
/// How long one call of the Redis of the keys may take.
pub const KEYS_CALL: Duration = Duration::from_secs(1);
/// Statistics of a scope are asked of the relay as often as this at most, whoever wants to know.
pub const STATISTICS_AGE: Duration = Duration::from_millis(500);
/// A node says that it lives as often as this.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(500);
/// And counts as living for so long after: three announcements may be lost.
pub const LEASE: Duration = Duration::from_secs(2);
/// A process that began so short a time ago gives up no node whose lease is over: the others may be
/// starting as well, and their media lives.
pub const FIRST_GRACE: Duration = Duration::from_secs(5);
/// A node says what it holds as often as this, though nothing was lost that it knows of.
pub const ASSERT_INTERVAL: Duration = LEASE;
/// Scopes that it says so of in one call: 20 KiB.
pub const ASSERTED_AT_ONCE: usize = 200;
/// What nobody holds is looked for as often as this.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// A scope is kept for so long where clients were sent, for them to come.
pub const PROMISE: Duration = Duration::from_secs(60);
/// A node whose lease is over for so long, and that does not answer, is gone for good.
pub const BURIAL: Duration = Duration::from_secs(60);
/// Mappings of one partition: 200 MB of Redis. Beyond, new scopes are refused.
pub const MAPPINGS: usize = 1_000_000;
/// How long after it was given up a claim may still be carried out, by a Redis that stood still: what
/// it left is looked for then.
pub const LATEST_CLAIM: Duration = LEASE;
const _: () = assert!(LATEST_CLAIM.as_millis() >= 2 * DIRECTORY_CALL.as_millis());
/// Claims of which it is not known what became of them: beyond, while all of Redis is away, what a
/// late one leaves ends with the process alone. 2 MB.
pub const CLAIMS_DOUBTED: usize = 10_000;
/// Partitions of the mappings.
pub const PARTITIONS: usize = 64;
/// Nodes of a cluster. Each is told to each twice a second.
pub const NODES: usize = 1000;
/// Longest name of a node, of a region.
pub const NODE_NAME_BYTES: usize = 64;
/// Scopes whose node is remembered: 20 MB.
pub const PLACES: usize = 100_000;
/// How often a scope's node is looked for before that is given up: a node that dies in between costs
/// one, a young partition as many as its youth has pauses.
pub const LOCATE_ROUNDS: usize = 16;
/// Pause before a partition is asked again that is too young to know.
pub const YOUNG_PAUSE: Duration = Duration::from_millis(200);
const _: () = assert!(LOCATE_ROUNDS as u128 * YOUNG_PAUSE.as_millis() > LEASE.as_millis());
/// How long one call of registry or mappings may take.
pub const DIRECTORY_CALL: Duration = Duration::from_secs(1);
/// Attempts to have an answer of a node before it counts as dead.
pub const HEALTH_ATTEMPTS: u32 = 3;
/// Between their beginnings.
pub const HEALTH_PAUSE: Duration = Duration::from_millis(250);
/// How long each may take: all of them are over within a second.
pub const HEALTH_CALL: Duration = Duration::from_millis(500);
/// How long what they led to is believed: all peers of a node that died ask at once.
pub const HEALTH_AGE: Duration = Duration::from_millis(500);
/// Largest file of countries: ten times those that there are; it is kept in memory.
pub const MAXMIND_BYTES: u64 = 128 << 20;
/// Addresses whose requests are counted: 8 MB.
pub const RATED_ADDRESSES: usize = 100_000;
/// How long a connection to Redis, or a Sentinel's answer, may take.
pub const REDIS_CONNECT: Duration = Duration::from_millis(300);
/// Pause before a server that is away is tried again.
pub const REDIS_PAUSE: Duration = Duration::from_millis(50);
/// How long the replica may take to confirm.
pub const REDIS_WAIT: Duration = Duration::from_millis(400);
/// How long it is believed that a server has its replicas, and is the master.
pub const REDIS_CONFIRM_AGE: Duration = Duration::from_millis(500);
const _: () =
    assert!(REDIS_CONNECT.as_millis() + REDIS_WAIT.as_millis() < DIRECTORY_CALL.as_millis());
/// Sentinels of a partition.
pub const SENTINELS: usize = 16;
/// Mappings that are looked at in one call for those that nobody holds: a millisecond of Redis.
pub const SWEPT_AT_ONCE: usize = 500;
/// Such calls in a turn: 2,000 mappings a second, four times what one address may ask for.
pub const SWEPT_PAGES: usize = 40;
