//! Why something did not work.

use strait_link::v1::{self, ErrorCode};

/// What, likely cause, remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node refused it.
    #[error("the node refuses it ({code:?}): {reason}")]
    Refused {
        /// Which of the protocol's errors.
        code: ErrorCode,
        /// The node's own words.
        reason: String,
    },
    /// The link broke before an answer came. It may or may not have been done.
    #[error("the link broke before the node answered: ask again once it is back")]
    LinkLost,
    /// There is no link yet, or none now.
    #[error("there is no link to the node now: connect first, then wait until the scope is joined")]
    NotJoined,
    /// A limit of the client or the node.
    #[error("too many {0} at a time: wait until some are done")]
    TooMany(&'static str),
    /// Longer than the node takes.
    #[error("{what} of {bytes} bytes, {most} are taken: cut it")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// As it is.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// Something that was given makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// No such publication, subscription or codec here.
    #[error("there is no {0} of this name here")]
    Unknown(&'static str),
    /// The node speaks something else.
    #[error("what came is not of the link: {0}; is this the port of a node, and of this version?")]
    Protocol(String),
    /// The node cannot be reached.
    #[error("{what}: {why}")]
    Connect {
        /// What was tried.
        what: String,
        /// What the system or TLS says.
        why: String,
    },
    /// The node's certificate is not trusted.
    #[error("the certificate of the node is not trusted ({0}): name its CA or its fingerprint")]
    Certificate(String),
    /// The proxy refuses the credentials.
    #[error("the proxy refuses the credentials: check user and password, or the ticket")]
    ProxyCredentials,
    /// The proxy wants credentials, of kinds that it names: none were given, or none of these kinds is known here.
    #[error("the proxy wants credentials ({0}), none that fit were given")]
    ProxyNeedsCredentials(String),
    /// The proxy wants a ticket of Kerberos.
    #[error(
        "there is no ticket for the proxy ({0}): get one (kinit), and name the proxy as its realm knows it"
    )]
    ProxyTicket(String),
    /// The proxy does not do it.
    #[error("the proxy does not connect: {0}")]
    Proxy(String),
    /// The client was ended.
    #[error("the client was ended")]
    Ended,
}

impl From<v1::Error> for Error {
    fn from(error: v1::Error) -> Self {
        Self::Refused { code: error.code(), reason: error.reason }
    }
}

impl Error {
    /// Whether to connect again may help; after [`ErrorCode::TooMany`] where the node says when, or the client was in before.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(
                code,
                ErrorCode::Unavailable
                    | ErrorCode::Internal
                    | ErrorCode::TimedOut
                    | ErrorCode::SlowReader
                    | ErrorCode::TooMany
            ),
            Self::LinkLost | Self::Connect { .. } | Self::Proxy(_) | Self::Protocol(_) => true,
            _ => false,
        }
    }
}
