//! Steers each datagram to the socket of the worker that owns its peer: a program for the sockets of one address
//! (SO_REUSEPORT). It only saves a hand-over: user space looks again, and is right where the kernel was not.
//!
//! A STUN binding request goes by the worker's tag at the start of our user fragment, a QUIC packet by the start of our
//! connection id, everything else by its flow, which user space put into [`FLOWS`] once an ICE check of it was authentic.
//! A packet changes nothing here: whoever forges one steers that one alone.
//!
//! Each worker has two sockets: one for the flows that are known, one for strangers. A flood of strangers fills the
//! receive buffer of theirs, and those who are in a call lose nothing.
#![no_std]
#![no_main]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{bpf_hdr_start_off::BPF_HDR_START_NET, sk_action::SK_PASS};
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative};
use aya_ebpf::macros::{map, sk_reuseport};
use aya_ebpf::maps::{Array, LruHashMap, PerCpuArray, ReusePortSockArray};
use aya_ebpf::programs::SkReuseportContext;

/// A flow: both addresses (IPv4 as ::ffff:0:0/96), and the peer's port; the local port is the group's.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Flow {
    remote: [u8; 16],
    local: [u8; 16],
    port: [u8; 2],
    zero: [u8; 2],
}

/// Two sockets for each worker, that for known flows first. The loader sets the size.
#[map]
static SOCKETS: ReusePortSockArray = ReusePortSockArray::with_max_entries(2048, 0);
/// How many workers there are.
#[map]
static WORKERS: Array<u32> = Array::with_max_entries(1, 0);
/// The worker of each known flow; the one used longest ago makes room.
#[map]
static FLOWS: LruHashMap<Flow, u32> = LruHashMap::with_max_entries(131_072, 0);
/// How datagrams were steered, in the order of [`Way`].
#[map]
static WAYS: PerCpuArray<u64> = PerCpuArray::with_max_entries(5, 0);

/// What told the worker.
#[derive(Clone, Copy)]
enum Way {
    UserFragment = 0,
    Flow = 1,
    ConnectionId = 2,
    /// Nothing: the kernel's hash of the addresses chooses the worker.
    Hash = 3,
    /// Its worker has no socket here: the hash chooses.
    NoSocket = 4,
}

/// Bytes of the UDP header, with which the data begins.
const UDP: u32 = 8;
/// Bytes of the STUN header (RFC 8489 section 5).
const STUN: u32 = 20;
const BINDING_REQUEST: [u8; 2] = [0, 1];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 6;
/// Attributes looked at: USERNAME comes first, or after a few small ones.
const ATTRIBUTES: usize = 8;
/// No worker.
const NOBODY: u32 = u32::MAX;
const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;

/// Chooses the socket.
#[sk_reuseport]
pub fn steer(ctx: SkReuseportContext) -> u32 {
    let (way, socket) = choose(&ctx);
    match SOCKETS.select_reuseport(&ctx, socket) {
        Ok(()) => count(way),
        Err(_) => count(Way::NoSocket),
    }
    SK_PASS
}

#[inline(always)]
fn choose(ctx: &SkReuseportContext) -> (Way, u32) {
    // Always a number, never an Option whose other half is undefined: the compiler looks at it early, and the verifier
    // refuses that.
    let known = flow(ctx).unwrap_or(NOBODY);
    let (way, named) = named(ctx).unwrap_or((Way::Hash, NOBODY));
    // The consent checks of a peer in a call name the worker of their flow.
    if named != NOBODY && named != known {
        return (way, 2 * named + 1);
    }
    if known != NOBODY {
        return (Way::Flow, 2 * known);
    }
    let workers = WORKERS.get(0).copied().unwrap_or(1).max(1);
    (Way::Hash, 2 * (ctx.hash() % workers) + 1)
}

/// The worker that the datagram itself names.
#[inline(always)]
fn named(ctx: &SkReuseportContext) -> Option<(Way, u32)> {
    let [first] = load::<1>(ctx, UDP)?;
    // RFC 9443 section 2: the first byte tells the protocols apart. TURN channels (64 to 79) do not occur here.
    match first {
        0..=3 => user_fragment(ctx).map(|worker| (Way::UserFragment, worker)),
        64..=127 => connection_id(ctx, UDP + 1).map(|worker| (Way::ConnectionId, worker)),
        192..=255 => connection_id(ctx, UDP + 6).map(|worker| (Way::ConnectionId, worker)),
        _ => None,
    }
}

/// The worker whose tag begins the user fragment of a STUN binding request.
#[inline(always)]
fn user_fragment(ctx: &SkReuseportContext) -> Option<u32> {
    let header = load::<8>(ctx, UDP)?;
    if header[0..2] != BINDING_REQUEST || header[4..8] != MAGIC_COOKIE {
        return None;
    }
    let mut at = UDP + STUN;
    for _ in 0..ATTRIBUTES {
        let [t0, t1, l0, l1] = load::<4>(ctx, at)?;
        if u16::from_be_bytes([t0, t1]) == USERNAME {
            let [high, low] = load::<2>(ctx, at + 4)?;
            return Some(digit(high)? << 5 | digit(low)?);
        }
        let length = u32::from(u16::from_be_bytes([l0, l1]));
        at += 4 + ((length + 3) & !3);
    }
    None
}

/// The value of a character of lower-case base 32 (RFC 4648).
#[inline(always)]
fn digit(character: u8) -> Option<u32> {
    match character {
        b'a'..=b'z' => Some(u32::from(character - b'a')),
        b'2'..=b'7' => Some(u32::from(character - b'2') + 26),
        _ => None,
    }
}

/// The worker whose number begins the connection ids that we hand out (RFC 9000 section 5.1): two bytes, big-endian,
/// with the top bit set. A client's first packets carry an id of its own choice, and nobody's number but by chance.
#[inline(always)]
fn connection_id(ctx: &SkReuseportContext, at: u32) -> Option<u32> {
    let [high, low] = load::<2>(ctx, at)?;
    let worker = u32::from(u16::from_be_bytes([high & 0x7f, low]));
    if high & 0x80 != 0 && worker < 1024 { Some(worker) } else { None }
}

/// The worker of the flow, if user space named one.
#[inline(always)]
fn flow(ctx: &SkReuseportContext) -> Option<u32> {
    let mut flow = Flow { remote: [0; 16], local: [0; 16], port: load::<2>(ctx, 0)?, zero: [0; 2] };
    // The field is in network byte order.
    match u32::from(u16::from_be(ctx.eth_protocol() as u16)) {
        ETHERTYPE_IPV4 => {
            let addresses = load_ip::<8>(ctx, 12)?;
            (flow.remote[10], flow.remote[11]) = (0xff, 0xff);
            (flow.local[10], flow.local[11]) = (0xff, 0xff);
            flow.remote[12..16].copy_from_slice(&addresses[0..4]);
            flow.local[12..16].copy_from_slice(&addresses[4..8]);
        }
        ETHERTYPE_IPV6 => {
            flow.remote = load_ip::<16>(ctx, 8)?;
            flow.local = load_ip::<16>(ctx, 24)?;
        }
        _ => return None,
    }
    // SAFETY: the value is copied out at once; an entry that is replaced meanwhile is as good as before.
    unsafe { FLOWS.get(&flow) }.copied()
}

/// Bytes from the UDP header on; `None` when there are fewer.
#[inline(always)]
fn load<const N: usize>(ctx: &SkReuseportContext, at: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: `bytes` has room for N, and the context is the program's own.
    let failed =
        unsafe { bpf_skb_load_bytes(ctx.as_ptr(), at, bytes.as_mut_ptr().cast(), N as u32) };
    if failed == 0 { Some(bytes) } else { None }
}

/// Bytes from the IP header on.
#[inline(always)]
fn load_ip<const N: usize>(ctx: &SkReuseportContext, at: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: as above.
    let failed = unsafe {
        let room = bytes.as_mut_ptr().cast();
        bpf_skb_load_bytes_relative(ctx.as_ptr(), at, room, N as u32, BPF_HDR_START_NET)
    };
    if failed == 0 { Some(bytes) } else { None }
}

#[inline(always)]
fn count(way: Way) {
    if let Some(counter) = WAYS.get_ptr_mut(way as u32) {
        // SAFETY: the pointer is into this core's own copy, and the program is not interrupted by itself.
        unsafe { *counter += 1 };
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
