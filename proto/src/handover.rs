//! Handing a TCP connection over to the relay, which then speaks TLS on it itself: the one thing that no call can carry is
//! a file descriptor.
//!
//! Beside the socket of the RPC the relay has another one ([`socket_of`]), for the same users. Each connection to it brings
//! one message: four bytes of length, most significant first, then the certificate chain and its key (PEM); with the first
//! of these bytes comes the descriptor. The relay says one byte when TLS is up and a worker knows the peer
//! ([`tell_known`]), and closes it when what was handed over has ended.

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

/// Says that the peer is no stranger any more. Does not wait: it is the only byte there ever is.
///
/// # Errors
/// What the system says: who handed the connection over is gone.
pub fn tell_known(socket: impl AsFd) -> io::Result<()> {
    rustix::net::send(socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
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
    fn it_has_a_place_beside_the_rpc() {
        assert_eq!(socket_of(Path::new("/run/a/b.sock")), Path::new("/run/a/b.sock.tcp"));
    }
}
