//! Connections that the relay carries by itself, TLS included: their file descriptors go to it with
//! the certificate.

use std::io;
use std::path::{Path, PathBuf};

use strait_proto::handover::{self, PEM_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::limits;

// Both sides of the relay's socket mean the same thing.
const _: () = assert!(matches!(handover::ALPN, strait_link::MEDIA_ALPN));

/// The way to the relay.
pub struct Handover {
    socket: PathBuf,
    /// Certificate chain and key, with their length.
    message: Zeroizing<Vec<u8>>,
}

impl Handover {
    /// To the relay with this socket for its RPC. `pem`: certificate chain and key.
    ///
    /// # Errors
    /// They are too long.
    pub fn new(rpc_socket: &Path, pem: &[u8]) -> io::Result<Self> {
        let length = u32::try_from(pem.len()).ok().filter(|_| pem.len() <= PEM_BYTES);
        let length = length.ok_or_else(|| {
            io::Error::other(format!("certificate and key have more than {PEM_BYTES} bytes"))
        })?;
        let message = Zeroizing::new([&length.to_be_bytes(), pem].concat());
        Ok(Self { socket: handover::socket_of(rpc_socket), message })
    }

    /// Hands a connection over, and waits until it has ended. `known`: when the relay knows whose it
    /// is.
    ///
    /// # Errors
    /// The relay is away, or takes none.
    pub async fn carry(&self, stream: TcpStream, known: impl FnOnce()) -> io::Result<()> {
        let passing = timeout(limits::RELAY_CALL, self.pass(&stream));
        let mut relay = passing.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        drop(stream);
        // It says that, and that it is over, be it by its own end.
        if let Ok(1) = relay.read(&mut [0]).await {
            known();
            let _ended = relay.read(&mut [0]).await;
        }
        Ok(())
    }

    async fn pass(&self, stream: &TcpStream) -> io::Result<UnixStream> {
        let mut relay = UnixStream::connect(&self.socket).await?;
        let send = || handover::send(&relay, &self.message, stream);
        let sent = relay.async_io(Interest::WRITABLE, send).await?;
        relay.write_all(self.message.get(sent..).unwrap_or_default()).await?;
        Ok(relay)
    }
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
        let handover = Handover::new(&rpc, b"certificate and key").unwrap();
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

        assert!(Handover::new(&rpc, &[0; PEM_BYTES + 1]).is_err());
    }
}
