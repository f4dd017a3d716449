//! TLS that the kernel does on a connection, with keys that it is given (Linux, Documentation/networking/tls.rst). What is
//! written and read is then plain, and what is no data comes and goes with a control message that says its type.

use crate::cmsg::{self, HEADER, LEVEL, TYPE, align};
use crate::sockopt::set_bytes;
use std::io;
use std::os::fd::AsRawFd;

/// linux/tls.h: the control message with a record's type, as it is sent and as it comes.
const TLS_SET_RECORD_TYPE: libc::c_int = 1;
const TLS_GET_RECORD_TYPE: libc::c_int = 2;
/// The type of records with data (RFC 8446 section 5.1).
const APPLICATION_DATA: u8 = 23;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What is written.
    Transmit,
    /// What is read.
    Receive,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes of data.
    Data(usize),
    /// So many bytes of a record of another type.
    Control(u8, usize),
    /// The peer closed the connection.
    End,
}

/// Puts the kernel's TLS over a connection. Until keys are given all goes through as it is.
///
/// # Errors
/// `ENOENT`: the kernel has no TLS, or did not load it (which only CAP_NET_ADMIN has it do).
pub fn attach(socket: &impl AsRawFd) -> io::Result<()> {
    set_bytes(socket, libc::SOL_TCP, libc::TCP_ULP, b"tls")
}

/// Gives the keys of a direction, as one of the `tls12_crypto_info_…` of linux/tls.h.
///
/// # Errors
/// The kernel does not know the version or the cipher, or has no module for it.
pub fn give_keys(socket: &impl AsRawFd, direction: Direction, info: &[u8]) -> io::Result<()> {
    let which = match direction {
        Direction::Transmit => libc::TLS_TX,
        Direction::Receive => libc::TLS_RX,
    };
    set_bytes(socket, libc::SOL_TLS, which, info)
}

/// Reads without waiting: data, however many records of it there are, or one record of another type.
///
/// # Errors
/// `WouldBlock`: there is none. `EBADMSG`, `EMSGSIZE` and `EINVAL`: what came is no record that the keys are for.
pub fn receive(socket: &impl AsRawFd, bytes: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = message(&mut part, &mut control);
    // SAFETY: `message` points to one buffer for data and one for control messages, each with its length, which outlive
    // the call. Worth it: std reads no control messages.
    let read = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    let written = control.0.get(..message.msg_controllen).unwrap_or_default();
    Ok(match (record_type(written), read) {
        (None, 0) => Received::End,
        (None | Some(APPLICATION_DATA), read) => Received::Data(read),
        (Some(kind), read) => Received::Control(kind, read),
    })
}

/// Writes one record of a type that is not data, without waiting.
///
/// # Errors
/// `WouldBlock`: there is no room for it.
pub fn send_control(socket: &impl AsRawFd, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut control = Control([0; CONTROL_BYTES]);
    let out = &mut control.0;
    out[..size_of::<usize>()].copy_from_slice(&(HEADER + 1).to_ne_bytes());
    out[LEVEL..LEVEL + 4].copy_from_slice(&libc::SOL_TLS.to_ne_bytes());
    out[TYPE..TYPE + 4].copy_from_slice(&TLS_SET_RECORD_TYPE.to_ne_bytes());
    out[HEADER] = kind;
    let base = bytes.as_ptr().cast_mut().cast();
    let mut part = libc::iovec { iov_base: base, iov_len: bytes.len() };
    let message = message(&mut part, &mut control);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: as for `receive`; the kernel writes to neither. Worth it: std sends no control messages.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Room for one message with a byte.
const CONTROL_BYTES: usize = align(HEADER + 1);

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: a msghdr of zeros is one without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES;
    message
}

/// The type in the control messages of a record.
fn record_type(mut control: &[u8]) -> Option<u8> {
    while let Some((level, kind, data, next)) = cmsg::split(control) {
        if (level, kind) == (libc::SOL_TLS, TLS_GET_RECORD_TYPE) {
            return data.first().copied();
        }
        control = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_without_it_reads_as_data() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let mut bytes = [0; 8];
        assert_eq!(receive(&far, &mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        near.write_all(b"plain").unwrap();
        assert_eq!(receive(&far, &mut bytes).unwrap(), Received::Data(5));
        drop(near);
        assert_eq!(receive(&far, &mut bytes).unwrap(), Received::End);
    }

    #[test]
    fn keys_without_it_are_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        give_keys(&near, Direction::Transmit, &[0; 40]).unwrap_err();
    }

    #[test]
    fn the_type_is_found_among_others() {
        let mut control = [0_u8; 2 * CONTROL_BYTES];
        assert_eq!(record_type(&control), None);
        for (at, kind) in [(0, TLS_SET_RECORD_TYPE), (CONTROL_BYTES, TLS_GET_RECORD_TYPE)] {
            let out = &mut control[at..];
            out[..8].copy_from_slice(&(HEADER + 1).to_ne_bytes());
            out[LEVEL..LEVEL + 4].copy_from_slice(&libc::SOL_TLS.to_ne_bytes());
            out[TYPE..TYPE + 4].copy_from_slice(&kind.to_ne_bytes());
            out[HEADER] = at as u8 + 1;
        }
        assert_eq!(record_type(&control), Some(CONTROL_BYTES as u8 + 1));
        assert_eq!(record_type(&control[..CONTROL_BYTES]), None);
    }
}
