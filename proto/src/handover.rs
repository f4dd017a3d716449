//! Handing a TCP connection over to the relay, which then speaks TLS on it itself: the one thing that no call can carry is
//! a file descriptor.
//!
//! Beside the socket of the RPC the relay has another one ([`socket_of`]), for the same users. Each connection to it brings
//! one message: four bytes of length, most significant first, then the certificate chain and its key (PEM); with the first
//! of these bytes comes the descriptor. The relay says one byte when TLS is up and a worker knows the peer ([`KNOWN`]), and
//! closes it when what was handed over has ended.
//!
//! With a secret among the PEM ([`turn_pem`]) the relay serves TURN as well, and clients that name no protocol may be
//! handed over: what they are shows behind TLS. One that is none of the relay's comes back: it says [`BACK`], and from then
//! on carries what the client says in TLS, and what is said to it.
//!
//! Where it has no room it says [`REFUSED`] before it has looked at the connection, which is then the control plane's as it
//! was.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What TLS names framed media (RFC 7301).
pub const ALPN: &[u8] = b"strait-media/1";
/// What TLS names TURN (RFC 7443).
pub const TURN_ALPN: &[u8] = b"stun.turn";
/// What the relay says of a peer that is no stranger any more.
pub const KNOWN: u8 = 1;
/// What it says of a client that is the control plane's.
pub const BACK: u8 = 2;
/// What it says when it took nothing of a connection, for want of room.
pub const REFUSED: u8 = 3;
/// Bytes of the secret of TURN.
pub const TURN_SECRET_BYTES: usize = 32;
const TURN_BEGIN: &str = "-----BEGIN STRAIT TURN SECRET-----\n";
const TURN_END: &str = "-----END STRAIT TURN SECRET-----\n";
/// Bytes of a message's length.
pub const LENGTH_BYTES: usize = 4;
/// Most of certificate chain and key: some twenty certificates.
pub const PEM_BYTES: usize = 64 << 10;

/// Where connections are handed over, of a relay with this socket for its RPC.
#[must_use]
pub fn socket_of(rpc_socket: &Path) -> PathBuf {
    let mut name = rpc_socket.as_os_str().to_owned();
    name.push(".tcp");
    name.into()
}

/// Sends the first of `bytes`, and `connection` with them. Does not wait. Returns how many bytes went.
///
/// # Errors
/// What the system says.
pub fn send(socket: impl AsFd, bytes: &[u8], connection: impl AsFd) -> io::Result<usize> {
    let connections = [connection.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&connections)) {
        return Err(io::Error::other("a descriptor finds no room"));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// What stands beside certificate and key where TURN is served. Who reads PEM passes over what it does not know.
#[must_use]
pub fn turn_pem(secret: &[u8; TURN_SECRET_BYTES]) -> String {
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{TURN_BEGIN}{digits}\n{TURN_END}")
}

/// The secret of TURN in what was handed over.
#[must_use]
pub fn turn_secret(pem: &[u8]) -> Option<[u8; TURN_SECRET_BYTES]> {
    let (_, rest) = std::str::from_utf8(pem).ok()?.split_once(TURN_BEGIN)?;
    let (digits, _) = rest.split_once('\n')?;
    let mut secret = [0; TURN_SECRET_BYTES];
    for (index, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    (digits.len() == 2 * TURN_SECRET_BYTES).then_some(secret)
}

/// Says that the peer is no stranger any more. Does not wait: it is the only byte there ever is.
///
/// # Errors
/// What the system says: who handed the connection over is gone.
pub fn tell_known(socket: impl AsFd) -> io::Result<()> {
    tell(socket, KNOWN)
}

/// Says that nothing was taken of the connection. Does not wait either.
///
/// # Errors
/// As of [`tell_known`].
pub fn tell_refused(socket: impl AsFd) -> io::Result<()> {
    tell(socket, REFUSED)
}

fn tell(socket: impl AsFd, what: u8) -> io::Result<()> {
    rustix::net::send(socket, &[what], SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Reads what is there, without waiting: how many bytes (none: the other side closed), and the descriptor that came with
/// them. Of several the first; the others are closed.
///
/// # Errors
/// What the system says.
pub fn receive(socket: impl AsFd, into: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, flags)?;
    let mut connections = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut connections) => connections.next(),
        _ => None,
    });
    Ok((received.bytes, connections.next()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_connection_goes_with_the_first_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        assert_eq!(send(&here, b"words", &server).unwrap(), 5);
        drop(server);
        let mut bytes = [0; 3];
        let (length, connection) = receive(&there, &mut bytes).unwrap();
        assert_eq!((length, &bytes), (3, b"wor"));
        let mut taken = TcpStream::from(connection.unwrap());
        taken.write_all(b"hello").unwrap();
        let mut hello = [0; 5];
        client.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        let (length, connection) = receive(&there, &mut bytes).unwrap();
        assert_eq!((length, connection.is_none()), (2, true));
        assert_eq!(receive(&there, &mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(here);
        assert_eq!(receive(&there, &mut bytes).unwrap().0, 0);
    }

    #[test]
    fn the_secret_of_turn_is_found_among_pem() {
        let secret: [u8; TURN_SECRET_BYTES] = std::array::from_fn(|n| n as u8 * 7);
        let text = format!("-----BEGIN X-----\nAAAA\n-----END X-----\n{}", turn_pem(&secret));
        assert_eq!(turn_secret(text.as_bytes()), Some(secret));
        assert_eq!(turn_secret(b"-----BEGIN X-----\nAAAA\n-----END X-----\n"), None);
        let cut = text.replace("\n-----END STRAIT", "00\n-----END STRAIT");
        assert_eq!(turn_secret(cut.as_bytes()), None, "of another length");
    }

    #[test]
    fn it_has_a_place_beside_the_rpc() {
        assert_eq!(socket_of(Path::new("/run/a/b.sock")), Path::new("/run/a/b.sock.tcp"));
    }
}
