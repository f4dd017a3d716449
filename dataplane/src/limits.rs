//! Every maximum of the process around the core, with its reason. Those of the packet's path are in
//! `strait_core::limits`, those of the sockets in `strait_io::limits`.

use std::time::Duration;
use strait_core::limits::DATAGRAM_BYTES;

/// Workers: what two base-32 characters of a user fragment can name.
pub const WORKERS: usize = 1024;
/// UDP ports beside those for everything, for sound and for pictures: what `strait_io` has room for.
pub const FURTHER_PORTS: usize = strait_io::limits::UDP_PORTS - 3;
/// Longest that a frame may be held back for the sake of runs: beyond, people begin to pay for it.
pub const GATHER_US_MAX: u32 = 5000;
/// Longest that a worker may look for work before it sleeps: beyond, "always" was meant, which a second is in practice.
pub const BUSY_POLL_US_MAX: u32 = 1_000_000;
/// Commands that wait for one worker. At 1 µs each, a full queue is done in a millisecond; the caller is told when full.
pub const MAILBOX: usize = 1024;
/// Commands that a worker takes up in one turn, so that a join storm does not delay media.
pub const COMMANDS_PER_TURN: usize = 64;
/// How long a caller waits for a worker: far longer than a turn, so that only a stalled worker is given up.
pub const REPLY: Duration = Duration::from_secs(5);
/// Datagrams that other workers read and that wait for the one whose peer they are from: two megabytes per worker.
pub const HANDED_OVER: usize = 1024;
/// Parcels of other workers' packets that wait for a worker: each of them fills one or more every turn, of a few packets
/// mostly and 96 KiB at most. As many as come while the worker sends a key frame to hundreds (some 20 ms).
pub const PARCELS_WAITING: usize = 512;
/// What a sound weighs beside a picture where subscriptions are counted: 50 packets a second beside 300.
pub const SPREAD_WEIGHTS: (u32, u32) = (1, 6);
/// Most subscriptions of a scope on one worker: as many as the core lets one publication have there.
pub const SPREAD_MAX: u32 = strait_core::limits::SUBSCRIPTIONS_PER_PUBLICATION as u32;
/// How long a publication is passed on to a worker where nobody subscribes to it any more.
pub const MIRROR_IDLE: Duration = Duration::from_secs(10);
/// ICE-TCP connections on their way from the worker that accepted them to the one whose peer they are.
pub const HANDED_CONNECTIONS: usize = 256;
/// How often a datagram is handed on: to the worker that its tag names, from there to where its scope moved, and once more
/// while two moves follow each other. Beyond, two workers disagree, and must not play ping-pong.
pub const HOPS: u8 = 3;
/// Scopes, and commands for their peers, that are on their way from one worker to another. Calls that move scopes wait for
/// each other per scope only.
pub const MOVING: usize = 256;
/// User fragments of other workers' peers that moved: those that checks name stay, the others are forgotten.
pub const REDIRECTS: usize = 65_536;
/// How long a worker passes on what the DTLS thread has for peers that moved away: far longer than that takes to hear of it.
pub const MOVED: Duration = Duration::from_secs(10);
/// Flows that other workers confirmed and that the reader has not looked at: checks repeat every few seconds.
pub const CONFIRMATIONS: usize = 1024;
/// Flows of other workers' peers that a worker remembers.
pub const FLOWS: usize = 65_536;

/// Flows of peers without ICE: as many as a worker has peers.
pub const FIXED_FLOWS: usize = strait_core::limits::PEERS;

/// Peers whose DTLS handshake is not finished: 10 s of the joins that one core can do. A flood ends here.
pub const HALF_OPEN: usize = 4096;
/// DTLS datagrams that wait for the handshake thread; the peer retransmits what is lost.
pub const HANDSHAKE_INPUTS: usize = 2048;
/// New and removed peers that the handshake thread does not know yet.
pub const HANDSHAKE_ORDERS: usize = 4096;

/// Connections of framed media over TLS: as many as the control plane passes on. Four files and some 30 KiB each.
pub const FRAMED_CONNECTIONS: usize = 4096;
/// Those whose peer no worker knows yet, of whichever control plane: it lets in as many.
pub const FRAMED_STRANGERS: usize = 512;
/// How often the thread that carries them shows that it turns.
pub const FRAMED_BEAT: Duration = Duration::from_millis(250);
const _: () = assert!(
    FRAMED_STRANGERS < FRAMED_CONNECTIONS && FRAMED_BEAT.as_millis() * 4 <= STALLED.as_millis()
);
/// Files of each: to the peer, and to the control plane.
pub const FRAMED_FILES: usize = 2;
/// And of each way to a worker: both its ends. Framed media has one, TURN as many as it has peers of one family.
pub const FRAMED_WAY_FILES: usize = 2;
/// How long a control plane may take for the message that hands a connection over. It writes it at once.
pub const FRAMED_HANDOVER: Duration = Duration::from_secs(2);
/// How long a peer may take for TLS and a check that passes: as long as a link for `Auth`.
pub const FRAMED_UNKNOWN: Duration = Duration::from_secs(5);
/// Bytes that wait for a slow reader: a third of a second of 1.5 Mbit/s. The oldest frames go first.
pub const FRAMED_QUEUE_BYTES: usize = 64 << 10;
/// Bytes of frames in one TLS record: the most that one holds (RFC 8446 section 5.1).
pub const FRAMED_RECORD_BYTES: usize = 16 << 10;
/// Bytes that the kernel takes beyond what is on its way: one record; what waits more can still be dropped.
pub const FRAMED_UNSENT_BYTES: u32 = 16 << 10;
/// Bytes of one read: one record.
pub const FRAMED_READ_BYTES: usize = 16 << 10;
/// How long the kernel is given no keys after it could not take those of a connection, as one without memory cannot: each
/// attempt may cost a connection, whose client comes again.
pub const KERNEL_TLS_PAUSE: Duration = Duration::from_secs(10);
/// Reads from one connection, of each of its sides, before the others have their turn.
pub const FRAMED_READS_PER_TURN: usize = 4;
const _: () = assert!(FRAMED_QUEUE_BYTES >= 2 * FRAMED_RECORD_BYTES);
/// Connections of TLS that turned out to be neither framed media nor TURN, and that the control plane has back: those of
/// clients that name no protocol, which no browser's page and no client of ours is. As many as may carry media.
pub const FRAMED_BACK: usize = 4096;
/// How long the client of such a connection may take nothing of what waits for it: as long as a control plane gives those
/// whose TLS it speaks. Nobody else would end it.
pub const FRAMED_BACK_STALL: Duration = Duration::from_secs(10);
/// How long it may take for what is left when the control plane has ended: 48 KiB at most, by the slowest of lines.
pub const FRAMED_BACK_END: Duration = Duration::from_secs(10);
/// Bytes of such a connection that wait for either side; nothing more is read meanwhile.
pub const FRAMED_BACK_BYTES: usize = 32 << 10;
/// Allocations of TURN under one user name: that of one session, whose browser makes one for each of its networks (Firefox
/// two), and others before the old ones are gone.
pub const TURN_PER_USER: usize = 16;
/// Peers of an allocation: addresses of this host's media.
pub const TURN_PEERS: usize = strait_io::limits::ADDRESSES;
/// Longest message of TURN: a Send indication of the longest datagram, with some attributes.
pub const TURN_MESSAGE_BYTES: usize = DATAGRAM_BYTES + 256;
/// Longest answer: an error with what was not understood, integrity and fingerprint.
pub const TURN_ANSWER_BYTES: usize = 512;
/// Bytes of answers that wait for a slow reader; no more is read from it meanwhile.
pub const TURN_ANSWERS_BYTES: usize = 16 << 10;
/// Requests without the right credentials before a connection ends, Binding requests before an allocation among them: a
/// browser needs one for each nonce.
pub const TURN_STRANGE_REQUESTS: u32 = 16;
/// How long an allocation lasts without a refresh, and at most with one (RFC 8656 section 3.2; the maximum of section 7.2).
pub const TURN_LIFETIME: (Duration, Duration) =
    (Duration::from_secs(600), Duration::from_secs(3600));
/// How long a permission lasts (RFC 8656 section 9).
pub const TURN_PERMISSION: Duration = Duration::from_secs(300);
/// How long a channel is bound (RFC 8656 section 12).
pub const TURN_CHANNEL: Duration = Duration::from_secs(600);
/// How long a nonce is taken (RFC 8656 section 5 recommends an hour).
pub const TURN_NONCE: Duration = Duration::from_secs(3600);
/// How long an allocation may carry nothing, refreshed or not: a browser that goes another way keeps it for as long as its
/// page is open. Twice the longest pause between the checks of a pair in reserve.
pub const TURN_IDLE: Duration = Duration::from_secs(120);
/// Between two ways to a worker that one allocation opens to the same address: whoever has workers close them makes
/// them open no more than that. A browser repeats its checks for longer.
pub const TURN_REOPEN: Duration = Duration::from_secs(1);
/// How often an allocation is looked at for what is over.
pub const TURN_SWEEP: Duration = Duration::from_secs(5);
const _: () =
    assert!(TURN_MESSAGE_BYTES <= FRAMED_READ_BYTES && TURN_ANSWERS_BYTES <= FRAMED_RECORD_BYTES);
/// Data channels of a peer: one for messages, and some for what an application has besides.
pub const CHANNELS: usize = 16;
/// SCTP streams that are agreed on: what browsers ask for; a browser uses every second number.
pub const CHANNEL_STREAMS: u16 = 1024;
/// Largest message on a data channel: 64 KiB, and what a control plane writes in front of them.
pub const CHANNEL_MESSAGE_BYTES: usize = 65 << 10;
/// Largest message to a peer whose SDP does not say (RFC 8841 section 6.1).
pub const CHANNEL_MESSAGE_BYTES_DEFAULT: usize = 64 << 10;
/// What an association holds of messages that are not whole or that nobody took: three of the largest.
pub const CHANNEL_RECEIVE_BYTES: u32 = 256 << 10;
const _: () = assert!(CHANNEL_RECEIVE_BYTES as usize > 3 * CHANNEL_MESSAGE_BYTES);
/// What waits for a peer on all its channels, messages with their weight: seconds of a line that carries a call. Beyond, they
/// are closed.
pub const CHANNEL_BUFFERED_BYTES: usize = 1 << 20;
/// What a message that waits weighs besides its bytes: the library keeps 200 bytes for each, and goes through them.
pub const CHANNEL_MESSAGE_WEIGHT: usize = 256;
/// A message of no more bytes from a peer that was sent some is taken for an answer to one of them, which its pace does not
/// count: who listens to many says as much as they do.
pub const CHANNEL_ANSWER_BYTES: usize = 16;
/// Messages to a peer that it may answer so: what can wait for it.
pub const CHANNEL_UNANSWERED: usize = CHANNEL_BUFFERED_BYTES / CHANNEL_MESSAGE_WEIGHT;
/// Work that a peer's SCTP packets may make a second, in chunks that find nothing waiting: a microsecond or two each, so
/// less than a hundredth of the thread; twice as much in a burst. 2 MB/s in full packets, each of which is one more.
pub const CHANNEL_WORK: u32 = 4000;
/// Chunks of a peer that wait to be read or for others before them: three times what its window takes in full packets.
/// Beyond, what brings more is dropped, twice as many for what the others wait for.
pub const CHANNEL_CHUNKS_WAITING: usize = 768;
/// Largest SCTP packet: with DTLS around it as large as the largest datagram of a handshake.
pub const CHANNEL_PACKET_BYTES: u32 = 1100;
/// Peers with an SCTP association: 64 MiB of tables, and 1.3 GiB if every one of them sends and reads as slowly as it may.
pub const ASSOCIATIONS: usize = 1024;
/// Events and messages of channels that wait for their reader: 16 MiB at most. Beyond, they wait in the associations.
pub const CHANNEL_EVENTS: usize = 256;
/// Messages to channels that wait for the DTLS thread: 16 MiB at most. Beyond, their sender waits.
pub const CHANNEL_ORDERS: usize = 256;
/// Channels that one message is sent to.
pub const CHANNEL_RECEIVERS: usize = 1024;
/// Datagrams with data that a worker gets at a time, so that no turn of its loop is longer for them.
pub const CHANNEL_DATAGRAMS: usize = 32;

/// Events that wait for the slowest reader of `WatchEvents`; beyond, it loses the oldest and is told how many.
pub const EVENTS: usize = 4096;
/// Readers of `WatchEvents`: a control plane, its successor, and some people looking on.
pub const WATCHERS: usize = 16;
/// Figures of quality that wait for the slowest reader of `WatchQuality`; beyond, it misses the oldest.
pub const QUALITY: usize = 4096;
/// Subscriptions of a scope up to which it is told how its subscribers fare: each costs a look for its name.
pub const SUBSCRIPTIONS_TOLD: usize = 16_384;
/// Figures of quality of the workers that wait for their names; beyond, they wait in the worker, which bounds them.
pub const WORKER_QUALITY: usize = 1024;
/// Events of the workers that wait to be given to the readers.
pub const WORKER_EVENTS: usize = 4096;

/// Open files without which not even the runtime starts: standard streams, its epoll, its signals, one worker's sockets.
pub const FILES_MIN: u64 = 20;
/// Connections to the RPC socket.
pub const RPC_CONNECTIONS: usize = 64;
/// Calls in work at a time on one RPC connection.
pub const RPC_CALLS: usize = 256;
/// Longest request. A publication with every codec a browser has is 4 KiB.
pub const RPC_REQUEST_BYTES: usize = 256 << 10;
/// Bytes of a note: a peer of a control plane with all its streams is 4 KiB, with the longest lists of senders some 50.
pub const NOTE_BYTES: usize = 64 << 10;
const _: () = assert!(NOTE_BYTES < RPC_REQUEST_BYTES);
/// Bytes of all notes: some thousand for each peer that a relay of 16 workers can have, and a bound on its memory.
pub const NOTES_BYTES: usize = 256 << 20;
/// Characters of an identifier.
pub const IDENTIFIER: usize = 128;
/// Codecs of one leg; RTP has 128 payload types, of which 32 collide with RTCP (RFC 5761).
pub const CODECS: usize = 96;
/// Header extensions of one leg.
pub const EXTENSIONS: usize = 64;
/// Format parameters and feedback lines of one codec.
pub const CODEC_LINES: usize = 32;
/// Characters of a format parameter, a codec name, an extension's URI.
pub const CODEC_CHARACTERS: usize = 512;

/// A scope without peers is disposed of after this time when no control plane is there to do it.
pub const ABANDONED: Duration = Duration::from_secs(60);
/// How often that is looked for.
pub const ABANDONED_SWEEP: Duration = Duration::from_secs(5);
/// A worker that does not answer for this long is stalled: `/readyz` and the log say so.
pub const STALLED: Duration = Duration::from_secs(2);
/// How often the workers are asked.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
const _: () =
    assert!(STALLED.as_millis() + HEARTBEAT.as_millis() <= 3000, "promised: noticed within 3 s");
/// A worker whose mailbox is full is asked again after this time: many turns.
pub const MAILBOX_FULL_RETRY: Duration = Duration::from_millis(20);
/// How long the end waits for the threads: many turns. One that hangs is left to the end of the process.
pub const STOP: Duration = Duration::from_secs(1);
/// Drain without a deadline of its own.
pub const DRAIN: Duration = Duration::from_secs(60);
/// Longest drain: a day.
pub const DRAIN_MAX: Duration = Duration::from_secs(86_400);
