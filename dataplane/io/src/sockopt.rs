//! Sockets with the options that the relay wants.

use crate::limits::SOCKET_BUFFER_BYTES;
use crate::sockaddr::Name;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Connections that wait to be accepted.
const BACKLOG: libc::c_int = 256;

/// Who can send to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Whoever has a way to its address.
    Everyone,
    /// Programs of this host, whichever of its addresses they send to.
    ThisHost,
}

/// What kind of socket is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// For datagrams.
    Udp,
    /// For connections.
    Tcp,
}

/// A non-blocking UDP socket that shares its address with the other workers', with all that a datagram's
/// [`crate::cmsg::Ancillary`] needs.
pub(crate) fn udp(address: SocketAddr, reach: Reach) -> io::Result<UdpSocket> {
    let socket = socket(address, libc::SOCK_DGRAM)?;
    restrict(&socket, reach)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    // A stamp of what was sent comes without its bytes. Before Linux 3.17 it brings them along.
    let _ = set(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_TIMESTAMPING,
        libc::SOF_TIMESTAMPING_OPT_TSONLY.cast_signed(),
    );
    // Datagrams that came together are taken as one. A kernel before 5.0 hands each over by itself.
    let _ = set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    // PROBE sets "don't fragment" and believes no ICMP: a stranger's forged "too big" must not silence a peer.
    if address.is_ipv4() {
        set(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        set(&socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
    } else {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
    }
    bind(&socket, address)?;
    Ok(socket.into())
}

/// Sets what routers see of all that the socket sends: the six bits of DSCP (RFC 2474), then the two of ECN (RFC 3168).
///
/// # Errors
/// The socket has no address, or the system does not allow it.
pub fn set_traffic_class(socket: &UdpSocket, class: u8) -> io::Result<()> {
    match socket.local_addr()?.is_ipv4() {
        true => set(socket, libc::IPPROTO_IP, libc::IP_TOS, class.into()),
        false => set(socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class.into()),
    }
}

/// Has a connection take no more than so many bytes beyond those that are on their way: what waits, waits where it can
/// still be dropped.
///
/// # Errors
/// What the system says.
pub fn limit_unsent(socket: &TcpStream, bytes: u32) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes)
}

/// A non-blocking TCP listener that shares its address with the other workers'.
pub(crate) fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, libc::SOCK_STREAM)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    bind(&socket, address)?;
    listen(&socket)?;
    Ok(socket.into())
}

/// Whether nobody else has the address: with SO_REUSEPORT a second relay of the same user would silently take half of
/// the packets.
pub(crate) fn probe(address: SocketAddr, wanted: Wanted) -> io::Result<SocketAddr> {
    match wanted {
        Wanted::Tcp => {
            let socket = socket(address, libc::SOCK_STREAM)?;
            set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
            bind(&socket, address)?;
            listen(&socket)?;
            TcpListener::from(socket).local_addr()
        }
        Wanted::Udp => {
            let socket = socket(address, libc::SOCK_DGRAM)?;
            bind(&socket, address)?;
            UdpSocket::from(socket).local_addr()
        }
    }
}

/// Enlarges a buffer (`SO_RCVBUF` or `SO_SNDBUF`) as far as allowed. Returns the bytes granted.
pub(crate) fn enlarge(socket: &impl AsRawFd, option: libc::c_int) -> io::Result<usize> {
    let forced =
        if option == libc::SO_RCVBUF { libc::SO_RCVBUFFORCE } else { libc::SO_SNDBUFFORCE };
    let wanted = SOCKET_BUFFER_BYTES as libc::c_int;
    if set(socket, libc::SOL_SOCKET, forced, wanted).is_err() {
        set(socket, libc::SOL_SOCKET, option, wanted)?;
    }
    // The kernel doubles the figure for its own bookkeeping, and says the doubled one.
    Ok(usize::try_from(get(socket, option)?).unwrap_or(0) / 2)
}

fn socket(address: SocketAddr, kind: libc::c_int) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers. Worth it: std binds at once, before options can be set.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is fresh and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if address.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    Ok(socket)
}

/// Lets in what the loopback device delivers and nothing else. SO_BINDTODEVICE would not do: for a socket's lookup, what
/// the host sends to an address of another device counts as coming from that device.
fn restrict(socket: &OwnedFd, reach: Reach) -> io::Result<()> {
    if reach == Reach::Everyone {
        return Ok(());
    }
    // SAFETY: the name ends in zero. No device is index 0, which no packet has.
    let loopback = unsafe { libc::if_nametoindex(c"lo".as_ptr()) };
    let op = |code: u32, jump_else: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_else,
        k,
    };
    let device = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned();
    let mut program = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, device),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, loopback),
        op(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` points to a program of that many instructions, which the kernel copies. Worth it: std attaches
    // no filters.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    })
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (name, length) = Name::new(address);
    // SAFETY: `name` is a sockaddr of the family and is valid for `length` bytes.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) })
}

fn listen(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })
}

pub(crate) fn set(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    set_bytes(socket, level, option, &value.to_ne_bytes())
}

/// As [`set`], of an option that takes something else than an int.
pub(crate) fn set_bytes(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    // SAFETY: `value` is valid for its length, and the kernel copies it. Worth it: std has few of these options.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    })
}

fn get(socket: &impl AsRawFd, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is valid to write `length` bytes to.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    Ok(value)
}

pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
