//! Every maximum of the sockets, with its reason.

use std::time::Duration;
use strait_core::limits::DATAGRAM_BYTES;

/// Datagrams read or sent by one system call. More than 64 hot buffers fall out of the cache (docs: 3 to 15 % slower).
pub const BATCH: usize = 64;
/// Bytes of the largest message: what UDP can carry, as one datagram or as several that came together (UDP_GRO).
pub const MESSAGE_BYTES: usize = 64 << 10;
/// Receive and send buffer wanted for each UDP socket: 30 ms of 1 Gbit/s, which a worker that is busy for a moment needs.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// ICE-TCP connections of one worker. Each costs about 5 KiB.
pub const TCP_CONNECTIONS: usize = 4096;
/// ICE-TCP connections of one worker from one IPv4 address or IPv6 /64: an office behind one address.
/// Loopback is exempt: there a front door accepts for us, and bounds its own clients.
pub const TCP_CONNECTIONS_PER_ADDRESS: u32 = 64;
/// Connections accepted in one turn, so that a flood of them does not delay media.
pub const TCP_ACCEPTS_PER_TURN: usize = 16;
/// Bytes read from one connection before the others have their turn: two whole frames.
pub const TCP_READ_BYTES: usize = 2 * (2 + DATAGRAM_BYTES);
/// Bytes that wait for a slow reader: half a second of 1 Mbit/s. Beyond, whole frames are dropped.
pub const TCP_WRITE_BYTES: usize = 64 << 10;
const _: () = assert!(TCP_WRITE_BYTES >= 2 * (2 + DATAGRAM_BYTES));
/// Bytes of frames for one connection that leave by one call: what TLS makes one record of.
pub const TCP_TURN_BYTES: usize = 16 << 10;
/// How long a new connection may take for its first frame.
pub const TCP_FIRST_FRAME: Duration = Duration::from_secs(10);
/// How long a connection may be silent. ICE checks come every few seconds (RFC 7675), consent ends after 30 s.
pub const TCP_IDLE: Duration = Duration::from_secs(60);
/// How often silent connections are looked for.
pub const TCP_SWEEP: Duration = Duration::from_secs(1);

/// Addresses to listen on: loopback and two more of each family, and some to spare.
pub const ADDRESSES: usize = 8;
/// UDP ports on each of them: that for everything, those for sound and for pictures, and some that firewalls let through
/// anyway. With the addresses they bound a worker's sockets and the memory for steering.
pub const UDP_PORTS: usize = 8;

/// Flows that the kernel steers for one address and port; about 100 bytes of kernel memory each.
pub const KERNEL_FLOWS: u32 = 65_536;
