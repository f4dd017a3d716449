//! Why a relay does not start, or ends.

use crate::limits::FILES_MIN;
use crate::random::NoRandomness;
use crate::rpc::SocketError;
use std::io;
use std::net::SocketAddr;
use strait_crypt::dtls::CertificateError;
use strait_io::BindError;

/// Why a relay did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The sockets for media.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The socket of the RPC.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The listener of metrics and health.
    #[error("metrics_listen {address}: {error}: choose another port, or \"\" for none")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// No certificate can be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// Neither timers nor signals.
    #[error("the runtime cannot start: {0}")]
    Runtime(io::Error),
    /// Fewer files than anything needs.
    #[error(
        "{0} files may be open, and the least is {FILES_MIN}: raise the limit (LimitNOFILE= in systemd, `ulimit -n`)"
    )]
    FewFiles(u64),
    /// More files than may be open: sockets, mostly.
    #[error(
        "{step}: {error}: raise the limit (LimitNOFILE= in systemd, `ulimit -n`), or name fewer workers and addresses"
    )]
    OpenFiles {
        /// For what there was none left.
        step: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// No threads.
    #[error("no thread can be started: {0}: raise the limit of processes (TasksMax= in systemd)")]
    Thread(io::Error),
    /// A thread or a task ended that was not told to.
    #[error(
        "{0} ended unexpectedly: the lines above say why; the process ends, its supervisor restarts it, its peers reconnect"
    )]
    Died(&'static str),
    /// The RPC ended.
    #[error("the RPC server ended: {0}")]
    Rpc(String),
}

impl RelayError {
    /// Names the limit of open files where that is the cause: it can hit any step, whose own remedy would mislead.
    #[must_use]
    pub fn with_cause(self) -> Self {
        let is_files =
            |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        let (step, error) = match self {
            Self::Bind(BindError::System { error, .. } | BindError::Epoll(error))
                if is_files(&error) =>
            {
                ("the sockets for media", error)
            }
            Self::Socket(SocketError::Folder { error, .. }) if is_files(&error) => {
                ("the RPC socket", error)
            }
            Self::Metrics { error, .. } if is_files(&error) => ("metrics_listen", error),
            Self::Runtime(error) if is_files(&error) => ("the runtime", error),
            other => return other,
        };
        Self::OpenFiles { step, error }
    }
}
