//! Why a request is refused: a class that maps to JsonRTC and HTTP codes, and a sentence.

use std::fmt;

use crate::auth::Reason;
use crate::cluster::node::endpoint;

/// Class of a refusal. The number is the JsonRTC `error_code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The scope is another node's: the client goes there.
    Elsewhere = 307,
    /// The message itself is malformed.
    Malformed = 400,
    /// The token is missing or wrong.
    Unauthorized = 401,
    /// The token does not allow this.
    Forbidden = 403,
    /// There is no such thing.
    NotFound = 404,
    /// Wrong sequence or wrong state for this.
    Conflict = 409,
    /// The message is too large.
    TooLarge = 413,
    /// No codec in common.
    UnsupportedCodec = 415,
    /// A limit is reached.
    TooMany = 429,
    /// The SDP is well-formed, but its content cannot be accepted.
    NotAcceptable = 488,
    /// Our fault.
    Internal = 500,
    /// The relay is away, or this process drains.
    Unavailable = 503,
}

/// A refusal: what, likely cause, remedy, in one text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of refusal it is.
    pub class: Class,
    /// What happened, the likely cause and the remedy.
    pub reason: String,
    /// What is wrong with the credential, for programs, where that is the cause.
    pub credential: Option<Reason>,
    /// Where the client is to go, where that is the answer.
    pub elsewhere: Option<Box<Elsewhere>>,
    /// Whether it is over by itself: who asks for the same again in a moment may have it.
    pub passes: bool,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Name or address.
    pub host: String,
    /// Port of HTTPS, WebSocket and links.
    pub port: u16,
    /// Whether that port speaks TLS.
    pub secure: bool,
}

impl Elsewhere {
    /// `https://HOST:PORT`.
    pub fn origin(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", endpoint(&self.host, self.port))
    }
}

impl Fault {
    /// A refusal of `class` with its sentence.
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        let passes = class == Class::Unavailable;
        Self { class, reason: reason.into(), credential: None, elsewhere: None, passes }
    }

    /// The same, of a limit that whoever asks need do nothing about: waiting helps.
    #[must_use]
    pub fn passing(self) -> Self {
        Self { passes: true, ..self }
    }

    /// The scope is on another node.
    pub fn elsewhere(elsewhere: Elsewhere) -> Self {
        let reason = format!("the scope is at {}: go there", elsewhere.origin());
        Self { elsewhere: Some(Box::new(elsewhere)), ..Self::new(Class::Elsewhere, reason) }
    }

    /// The JsonRTC `error_code`.
    pub fn code(&self) -> u16 {
        self.class as u16
    }

    /// The HTTP status: HTTP has no 488, and 415 would mean the body's type there.
    pub fn http_status(&self) -> u16 {
        match self.class {
            Class::NotAcceptable => 422,
            Class::UnsupportedCodec => 406,
            class => class as u16,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)
    }
}

impl std::error::Error for Fault {}

macro_rules! shorthand {
    ($($name:ident $class:ident),* $(,)?) => { impl Fault { $(
        #[doc = concat!("A refusal of class [`Class::", stringify!($class), "`].")]
        pub fn $name(reason: impl Into<String>) -> Self { Self::new(Class::$class, reason) }
    )* } };
}
shorthand!(
    malformed Malformed, unauthorized Unauthorized, forbidden Forbidden, not_found NotFound,
    conflict Conflict, too_large TooLarge, unsupported_codec UnsupportedCodec, too_many TooMany,
    not_acceptable NotAcceptable, internal Internal, unavailable Unavailable,
);
