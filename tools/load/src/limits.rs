//! Every maximum of the load, with its reason.

use std::time::Duration;

/// Peers of one process: each has a socket, and the usual limit of open files is higher than this by half.
pub const PEERS: usize = 10_000;
/// Streams that one subscriber receives: as many as a relay gives to one peer.
pub const STREAMS_PER_SUBSCRIBER: usize = strait_core::limits::SUBSCRIPTIONS_PER_PEER;
/// The longest run, and the longest warm-up.
pub const DURATION: Duration = Duration::from_secs(3600);
/// The shortest window: a scheduler's tick must not show.
pub const WINDOW_MIN: Duration = Duration::from_millis(100);
/// Windows of one run: an hour of two-second ones.
pub const WINDOWS: usize = 1800;
/// Peers that join at a time: what a machine can answer well within the patience of a handshake.
pub const JOINS_AT_A_TIME: usize = 32;
/// How long one peer may take for ICE and DTLS.
pub const JOIN_PATIENCE: Duration = Duration::from_secs(30);
/// Packets per second of one publisher of constant rate.
pub const PACKETS_PER_SECOND: u32 = 1_000_000;
/// Packets of one burst.
pub const BURST: u32 = 64;
/// Largest RTP payload: with header, extension and tag it fits an Ethernet MTU.
pub const PAYLOAD_MAX: usize = 1380;
/// Smallest RTP payload: what identifies a packet fits, behind the descriptor and the header of a VP8 key frame.
pub const PAYLOAD_MIN: usize = 64;
/// Largest payload of a video packet, as libwebrtc makes them.
pub const VIDEO_PAYLOAD: usize = 1150;
/// Packets that may be missing within what a receiver remembers of a stream.
pub const REMEMBERED: usize = 1024;
/// Clients of one shaper: each has a socket and a line, whose truth takes 160 KB.
pub const SHAPER_CLIENTS: usize = 1024;
/// A client that sent and got nothing for so long makes room for another one.
pub const SHAPER_IDLE: Duration = Duration::from_secs(30);
/// Changes and questions that wait for a shaper, which looks every few milliseconds.
pub const SHAPER_ORDERS: usize = 64;
/// Native peers of one process: each has a thread and some open files.
pub const NATIVE_PEERS: usize = 500;
/// Messages that one native peer sends in a second: more than a node takes from one.
pub const MESSAGES_PER_SECOND: f64 = 10_000.0;
