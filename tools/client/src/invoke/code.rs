//! Why a call did not work, as numbers and names.

use crate::error::Error;
use strait_link::v1::ErrorCode;

macro_rules! codes {
    ($($(#[doc = $says:literal])+ $code:ident = $number:literal $name:literal,)+) => {
        /// What a call returns. Numbers and names are part of the interface: they stay as they are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(i32)]
        pub enum Code { $($(#[doc = $says])+ $code = $number,)+ }

        impl Code {
            /// All of them, with the words of the reference.
            pub const ALL: &'static [(Self, &'static [&'static str])] =
                &[$((Self::$code, &[$($says),+])),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)+ }
            }
        }
    };
}

codes! {
    /// It was done, or has begun.
    Ok = 0 "OK",
    /// There is no such client: it was destroyed, or never made.
    BadClient = 1 "BAD_CLIENT",
    /// A pointer is null, or a number outside of its range.
    BadArgument = 2 "BAD_ARGUMENT",
    /// The request is no UTF-8.
    BadUtf8 = 3 "BAD_UTF8",
    /// A request, message or payload is longer than is taken: cut it.
    TooLarge = 4 "TOO_LARGE",
    /// No JSON object, or a field that is missing, unknown or without sense.
    Malformed = 5 "MALFORMED",
    /// There is no such method in this version.
    UnknownMethod = 6 "UNKNOWN_METHOD",
    /// There is no link now, or the publication is not made yet: wait for the event.
    NotJoined = 7 "NOT_JOINED",
    /// The client has connected before: make another one.
    AlreadyConnected = 8 "ALREADY_CONNECTED",
    /// A limit of the client or the node; the reason names it.
    TooMany = 9 "TOO_MANY",
    /// No publication, subscription or encoding of this name is here.
    Unknown = 10 "UNKNOWN",
    /// The node refused; events say the node's own code instead.
    Refused = 11 "REFUSED",
    /// The link broke before the node answered: it may or may not have been done.
    LinkLost = 12 "LINK_LOST",
    /// What came is not of the link.
    Protocol = 13 "PROTOCOL",
    /// The node cannot be reached, or the system gives no thread or socket.
    Connect = 14 "CONNECT",
    /// The node's certificate is not trusted, or there is none to trust.
    Certificate = 15 "CERTIFICATE",
    /// The proxy refuses the credentials.
    ProxyCredentials = 16 "PROXY_CREDENTIALS",
    /// The proxy wants credentials of a kind that was not given, or that is not known here.
    ProxyNeedsCredentials = 17 "PROXY_NEEDS_CREDENTIALS",
    /// The proxy does not connect, or is not there.
    Proxy = 18 "PROXY",
    /// The client was ended.
    Ended = 19 "ENDED",
    /// A fault of this library.
    Internal = 20 "INTERNAL",
    /// There is no ticket of Kerberos for the proxy.
    ProxyTicket = 21 "PROXY_TICKET",
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// As a number.
    pub number: Code,
    /// Its name, or that of the node's own code.
    pub code: String,
    /// What, likely cause, remedy.
    pub reason: String,
}

impl Failure {
    /// Of the client itself.
    pub fn new(number: Code, reason: impl Into<String>) -> Self {
        Self { number, code: number.name().into(), reason: reason.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let number = match &error {
            Error::Refused { code, reason } => return refused(*code, reason),
            Error::LinkLost => Code::LinkLost,
            Error::NotJoined => Code::NotJoined,
            Error::TooMany(_) => Code::TooMany,
            Error::TooLarge { .. } => Code::TooLarge,
            Error::Malformed(_) => Code::Malformed,
            Error::Unknown(_) => Code::Unknown,
            Error::Protocol(_) => Code::Protocol,
            Error::Connect { .. } => Code::Connect,
            Error::Certificate(_) => Code::Certificate,
            Error::ProxyCredentials => Code::ProxyCredentials,
            Error::ProxyNeedsCredentials(_) => Code::ProxyNeedsCredentials,
            Error::ProxyTicket(_) => Code::ProxyTicket,
            Error::Proxy(_) => Code::Proxy,
            Error::Ended => Code::Ended,
        };
        Self::new(number, error.to_string())
    }
}

fn refused(code: ErrorCode, reason: &str) -> Failure {
    let name = code.as_str_name();
    let name = name.strip_prefix("ERROR_CODE_").unwrap_or(name);
    Failure { number: Code::Refused, code: name.into(), reason: reason.into() }
}
