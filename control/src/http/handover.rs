//! Connections that the relay carries by itself, TLS included: their file descriptors go to it with
//! the certificate, and the secret of TURN's credentials.

use std::io;
use std::path::PathBuf;

use strait_proto::handover::{self, PEM_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::limits;
use crate::relay::Relay;

// Both sides of the relay's socket mean the same thing.
const _: () = assert!(matches!(handover::ALPN, strait_link::MEDIA_ALPN));

/// What became of a connection that named no protocol.
pub enum Found {
    /// The relay serves it: it says so, and closes this when it is over.
    Relays(UnixStream),
    /// It is ours: this carries what is said within TLS.
    Ours(UnixStream),
    /// The relay has no room, and took nothing of it.
    Refused,
}

/// The way to the relay.
pub struct Handover {
    socket: PathBuf,
    /// Certificate chain and key, with their length.
    message: Zeroizing<Vec<u8>>,
    /// It gets a secret of TURN.
    has_secret: bool,
    /// The relay, which says whether it serves TURN.
    relay: Relay,
}

impl Handover {
    /// To this relay. `pem`: certificate chain and key, and a secret where TURN is wanted.
    ///
    /// # Errors
    /// They are too long.
    pub fn new(relay: Relay, pem: &[u8]) -> io::Result<Self> {
        let length = u32::try_from(pem.len()).ok().filter(|_| pem.len() <= PEM_BYTES);
        let length = length.ok_or_else(|| {
            io::Error::other(format!("certificate and key have more than {PEM_BYTES} bytes"))
        })?;
        let message = Zeroizing::new([&length.to_be_bytes(), pem].concat());
        let has_secret = handover::turn_secret(pem).is_some();
        Ok(Self { socket: handover::socket_of(relay.socket()), message, has_secret, relay })
    }

    /// Whether the relay serves TURN, and gives back what is none of its.
    pub fn serves_turn(&self) -> bool {
        self.has_secret && self.relay.serves_turn()
    }

    /// Hands a connection over, and waits until it has ended. `known`: when the relay knows whose it
    /// is.
    ///
    /// # Errors
    /// The relay is away, or takes none.
    pub async fn carry(&self, stream: TcpStream, known: impl FnOnce()) -> io::Result<()> {
        let mut relay = self.pass(&stream).await?;
        drop(stream);
        // It says that, and that it is over, be it by its own end.
        let mut said = [0];
        if let (Ok(1), [handover::KNOWN]) = (relay.read(&mut said).await, said) {
            known();
            ended(relay).await;
        }
        Ok(())
    }

    /// Waits until the relay knows what a connection is that named no protocol and was passed to it.
    ///
    /// # Errors
    /// The relay ended it, or says nothing.
    pub async fn find_out(mut relay: UnixStream) -> io::Result<Found> {
        let mut said = [0];
        let saying = timeout(limits::FRONT_DOOR_TIME, relay.read(&mut said));
        match (saying.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??, said) {
            (1, [handover::KNOWN]) => Ok(Found::Relays(relay)),
            (1, [handover::BACK]) => Ok(Found::Ours(relay)),
            (1, [handover::REFUSED]) => Ok(Found::Refused),
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Gives the relay a connection.
    ///
    /// # Errors
    /// It is away: nothing was taken of the connection.
    pub async fn pass(&self, stream: &TcpStream) -> io::Result<UnixStream> {
        let passing = timeout(limits::RELAY_CALL, self.send(stream));
        passing.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn send(&self, stream: &TcpStream) -> io::Result<UnixStream> {
        let mut relay = UnixStream::connect(&self.socket).await?;
        let send = || handover::send(&relay, &self.message, stream);
        let sent = relay.async_io(Interest::WRITABLE, send).await?;
        relay.write_all(self.message.get(sent..).unwrap_or_default()).await?;
        Ok(relay)
    }
}

/// Waits until the relay has ended a connection, be it by its own end.
pub async fn ended(mut relay: UnixStream) {
    let _ended = relay.read(&mut [0]).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, UnixListener};

    use super::*;

    #[tokio::test]
    async fn a_connection_goes_to_the_relay_with_the_certificate_and_is_over_when_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let rpc = folder.path().join("relay.sock");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let handover = Handover::new(Relay::new(&rpc), b"certificate and key").unwrap();
        let nobody = handover.pass(&server).await.unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::NotFound);

        let relay = UnixListener::bind(handover::socket_of(&rpc)).unwrap();
        let (known, knows) = tokio::sync::oneshot::channel();
        let carried = tokio::spawn(async move {
            let known = move || known.send(()).unwrap();
            handover.carry(server, known).await
        });
        let (mut relay, _) = relay.accept().await.unwrap();
        let mut bytes = [0; 4];
        let first = relay.async_io(Interest::READABLE, || handover::receive(&relay, &mut bytes));
        let (4, Some(taken)) = first.await.unwrap() else { panic!("no descriptor") };
        let mut pem = vec![0; u32::from_be_bytes(bytes) as usize];
        relay.read_exact(&mut pem).await.unwrap();
        assert_eq!(pem, b"certificate and key");
        let taken = std::net::TcpStream::from(taken);
        client.write_all(b"x").await.unwrap();
        let mut taken = TcpStream::from_std(taken).unwrap();
        assert_eq!(taken.read_u8().await.unwrap(), b'x');
        handover::tell_known(&relay).unwrap();
        knows.await.unwrap();
        assert!(!carried.is_finished());
        drop((taken, relay));
        carried.await.unwrap().unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "nobody else holds it");

        assert!(Handover::new(Relay::new(&rpc), &[0; PEM_BYTES + 1]).is_err());
    }
}
