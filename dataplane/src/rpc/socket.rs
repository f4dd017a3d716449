//! The Unix sockets of the control plane: who may connect, and how many.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

/// Mode of the socket: its user and its group may connect.
const MODE: u32 = 0o660;

/// Why the socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A relay answers there.
    #[error("{0}: another relay serves this socket: stop it, or name another in `rpc_socket`")]
    Taken(PathBuf),
    /// Something that is no socket.
    #[error("{0}: exists and is no socket: remove it, or name another path in `rpc_socket`")]
    NotASocket(PathBuf),
    /// The folder.
    #[error(
        "{path}: {error}: the folder must exist and be writable for this user (RuntimeDirectory= in systemd)"
    )]
    Folder {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The listening socket. Its file goes when it does.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: another relay's file of that name is not ours to remove.
    identity: (u64, u64),
}

impl Socket {
    /// Listens; removes the file that a killed relay left behind.
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let folder = |error| SocketError::Folder { path: path.to_owned(), error };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => return Err(SocketError::Taken(path.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(folder)?;
                }
                // Its listener's queue is full, or it is not ours to connect to: somebody lives there.
                Err(_) => return Err(SocketError::Taken(path.to_owned())),
            },
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(folder)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(MODE)).map_err(folder)?;
        let metadata = std::fs::symlink_metadata(path).map_err(folder)?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { listener, path: path.to_owned(), identity })
    }

    /// Accepts those whose user is among `uids`, so many at a time, for as long as the stream is read.
    pub(crate) fn incoming(
        self,
        uids: Vec<u32>,
        connections: usize,
    ) -> ReceiverStream<io::Result<Connection>> {
        let (accepted, incoming) = mpsc::channel(1);
        let places = Arc::new(Semaphore::new(connections));
        let name = self.path.display().to_string();
        tokio::spawn(async move {
            loop {
                let connection = tokio::select! {
                    connection = self.listener.accept() => connection,
                    () = accepted.closed() => return,
                };
                let stream = match connection {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of file descriptors, most likely: accepting again at once would spin.
                        tracing::warn!("{name}: {error}: raise the limit of open files");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                };
                match stream.peer_cred() {
                    Ok(peer) if uids.contains(&peer.uid()) => {}
                    Ok(peer) => {
                        tracing::warn!(
                            "{name}: refused user {}: not this relay's own, root, or one of `rpc_allowed_uids`",
                            peer.uid()
                        );
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!("{name}: refused a peer without credentials: {error}");
                        continue;
                    }
                }
                let Ok(place) = places.clone().try_acquire_owned() else {
                    tracing::warn!("{name}: {connections} connections are open: one more refused");
                    continue;
                };
                if accepted.send(Ok(Connection { stream, _place: place })).await.is_err() {
                    return;
                }
            }
        });
        ReceiverStream::new(incoming)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let found = std::fs::symlink_metadata(&self.path).map(|m| (m.dev(), m.ino()));
        if found.is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// An accepted connection, counted for as long as it is open.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

#[cfg(test)]
impl Connection {
    /// One that nobody counts.
    pub(crate) fn of_tests(stream: UnixStream) -> Self {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned();
        Self { stream, _place: place.expect("it is free") }
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;
    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
