//! The client by requests and events that are text: for programs in other languages.
//!
//! A request is a JSON object with a `method`; it is answered at once, and later by events, which are JSON as well. Media
//! does not go through JSON. The reference is docs/reference/invoke.md, whose tables are made by [`reference`].

pub mod code;
pub mod event;
pub mod record;
pub mod request;

use crate::base64;
use crate::core::client::{Config, Event, Handle};
use crate::core::media::Payload;
use crate::core::resolver::{Cluster, RESOLVERS, Resolver};
use crate::core::sending::Frame;
use crate::error::Error;
use crate::proxy;
use crate::service::{Client, Descriptor};
use crate::tls::Trust;
use code::{Code, Failure};
use record::Record;
use request::{
    AllowSenders, AskKeyFrame, Connect, GetStatistics, Leave, Publish, SendMessage, SetMuted,
    SetPreferences, Statistics, Subscribe, Unpublish, Unsubscribe,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use strait_link::v1::{self, auth::Credential, client_message::Body, signed_credential::Scheme};

/// The longest request: a message of 64 KiB, each byte of which JSON may write as six.
pub const REQUEST_BYTES: usize = 512 << 10;

/// What a client tells.
pub enum Told<'a> {
    /// An event, as JSON.
    Event(String),
    /// A packet of a subscription.
    Media(&'a Payload),
}

type Listener = Box<dyn FnMut(Told<'_>) + Send>;

/// A client that is driven by text.
pub struct Invoke {
    /// None before `connect`, and once it was closed.
    client: RwLock<Option<Client>>,
    closed: Arc<AtomicBool>,
    /// `ended` was told.
    ended: Arc<AtomicBool>,
    listener: Arc<Mutex<Listener>>,
}

impl Invoke {
    /// One that has not connected. `listener` is called on the client's own thread; it may call [`Invoke::invoke`].
    #[must_use]
    pub fn new(listener: impl FnMut(Told<'_>) + Send + 'static) -> Self {
        Self {
            client: RwLock::new(None),
            closed: Arc::default(),
            ended: Arc::default(),
            listener: Arc::new(Mutex::new(Box::new(listener))),
        }
    }

    /// Carries out a request: its code, and the answer as JSON.
    pub fn invoke(&self, request: &str) -> (Code, String) {
        match self.dispatch(request) {
            Ok(answer) => (Code::Ok, answer.to_string()),
            Err(failure) => (failure.number, refusal(&failure)),
        }
    }

    /// See [`Client::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send(
        &self,
        publication: Handle,
        encoding: usize,
        frame: &Frame<'_>,
    ) -> Result<(), Failure> {
        self.client(|client| client.send(publication, encoding, frame))
    }

    /// Leaves. No event begins after this was called, and none is under way when it returns, unless it is called by the
    /// listener.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let client = self.client.write().unwrap_or_else(PoisonError::into_inner).take();
        // Waits for the client's thread, which may be waiting for the lock: not held any more.
        drop(client);
    }

    fn dispatch(&self, request: &str) -> Result<Value, Failure> {
        if request.len() > REQUEST_BYTES {
            let bytes = request.len();
            return Err(Error::TooLarge { what: "a request", bytes, most: REQUEST_BYTES }.into());
        }
        let mut fields: Map<String, Value> =
            serde_json::from_str(request).map_err(|error| malformed("the request", &error))?;
        let Some(Value::String(method)) = fields.remove("method") else {
            return Err(malformed("the request", &"it names no method"));
        };
        match method.as_str() {
            Connect::NAME => self.connect(read(&method, fields)?),
            Publish::NAME => {
                let request = published(read(&method, fields)?);
                self.handle(|client| client.publish(request))
            }
            Unpublish::NAME => {
                let Unpublish { handle } = read(&method, fields)?;
                self.nothing(|client| client.unpublish(handle))
            }
            SetMuted::NAME => {
                let SetMuted { publication_id, muted } = read(&method, fields)?;
                self.ask(Body::SetMuted(v1::SetMuted { publication_id, muted }))
            }
            Subscribe::NAME => {
                let Subscribe { publication_id, as_sent } = read(&method, fields)?;
                let as_sent = as_sent.unwrap_or(false);
                self.handle(|client| client.subscribe(&publication_id, as_sent))
            }
            Unsubscribe::NAME => {
                let Unsubscribe { subscription_id } = read(&method, fields)?;
                self.ask(Body::Unsubscribe(v1::Unsubscribe { subscription_id }))
            }
            SetPreferences::NAME => {
                self.ask(Body::SetPreferences(preferred(read(&method, fields)?)))
            }
            AllowSenders::NAME => {
                let AllowSenders { kind, everybody, peer_ids } = read(&method, fields)?;
                self.ask(Body::AllowSenders(v1::AllowSenders {
                    kind: kind.0.into(),
                    everybody: everybody.unwrap_or(false),
                    peer_ids: peer_ids.unwrap_or_default(),
                }))
            }
            SendMessage::NAME => self.send_message(read(&method, fields)?),
            GetStatistics::NAME => {
                let GetStatistics {} = read(&method, fields)?;
                self.ask(Body::GetStatistics(v1::GetStatistics {}))
            }
            Statistics::NAME => {
                let Statistics {} = read(&method, fields)?;
                let all = self.client(|client| Ok(client.statistics()))?;
                Ok(json!({ "statistics": event::OwnStatistics::from(all) }))
            }
            AskKeyFrame::NAME => {
                let AskKeyFrame { subscription_id } = read(&method, fields)?;
                self.nothing(|client| client.ask_key_frame(&subscription_id))
            }
            Leave::NAME => {
                let Leave {} = read(&method, fields)?;
                self.nothing(|client| {
                    client.leave();
                    Ok(())
                })
            }
            _ => {
                let why = format!("there is no method {method}: see docs/reference/invoke.md");
                Err(Failure::new(Code::UnknownMethod, why))
            }
        }
    }

    fn connect(&self, request: Connect) -> Result<Value, Failure> {
        let descriptor = descriptor(request)?;
        let mut client = self.client.write().unwrap_or_else(PoisonError::into_inner);
        if client.is_some() {
            let why = "this client has connected before: make another one";
            return Err(Failure::new(Code::AlreadyConnected, why));
        }
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Ended.into());
        }
        let (closed, ended) = (Arc::clone(&self.closed), Arc::clone(&self.ended));
        let listener = Arc::clone(&self.listener);
        let tell = move |event| {
            ended.fetch_or(matches!(event, Event::Ended(_)), Ordering::SeqCst);
            // Asked for each: the listener may close the client, and its thread has more to tell.
            if closed.load(Ordering::SeqCst) {
                return;
            }
            let mut listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Event::Payload(payload) => listener(Told::Media(&payload)),
                event => {
                    if let Some(text) = event::to_json(event) {
                        listener(Told::Event(text));
                    }
                }
            }
        };
        *client = Some(Client::connect(descriptor, tell)?);
        Ok(json!({}))
    }

    fn send_message(&self, request: SendMessage) -> Result<Value, Failure> {
        let (payload, text) = match (request.text, request.data) {
            (Some(text), None) => (text.into_bytes(), true),
            (None, Some(data)) => {
                let bytes = base64::decode(&data);
                (bytes.ok_or_else(|| malformed("data", &"this is no base 64"))?, false)
            }
            _ => return Err(malformed(SendMessage::NAME, &"give one of text and data")),
        };
        let to = request.to.unwrap_or_default();
        let number = self.client(|client| client.send_message(&to, payload, text))?;
        Ok(json!({ "number": number }))
    }

    fn ask(&self, body: Body) -> Result<Value, Failure> {
        self.handle(|client| client.request(body))
    }

    fn handle(
        &self,
        call: impl FnOnce(&Client) -> Result<Handle, Error>,
    ) -> Result<Value, Failure> {
        Ok(json!({ "handle": self.client(call)? }))
    }

    fn nothing(&self, call: impl FnOnce(&Client) -> Result<(), Error>) -> Result<Value, Failure> {
        self.client(call)?;
        Ok(json!({}))
    }

    fn client<T>(&self, call: impl FnOnce(&Client) -> Result<T, Error>) -> Result<T, Failure> {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
        if self.ended.load(Ordering::SeqCst) || self.closed.load(Ordering::SeqCst) {
            return Err(Error::Ended.into());
        }
        Ok(call(client.as_ref().ok_or(Error::NotJoined)?)?)
    }
}

impl Drop for Invoke {
    fn drop(&mut self) {
        self.close();
    }
}

/// The answer to what was not done.
#[must_use]
pub fn refusal(failure: &Failure) -> String {
    json!({ "error": { "code": failure.code, "reason": failure.reason } }).to_string()
}

fn read<T: DeserializeOwned>(method: &str, fields: Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| malformed(method, &error))
}

fn malformed(what: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::Malformed, format!("{what}: {why}"))
}

fn descriptor(request: Connect) -> Result<Descriptor, Failure> {
    let wrong = |why: &str| malformed(Connect::NAME, &why);
    let credential = match (request.token, request.signed) {
        (Some(token), None) => Credential::Token(token),
        (None, Some(signed)) => Credential::Signed(v1::SignedCredential {
            application_id: signed.application_id,
            user_id: signed.user_id,
            salt: signed.salt,
            expires: signed.expires,
            signature: signed.signature.into_bytes(),
            scheme: match signed.concatenated {
                Some(true) => Scheme::Sha256Concatenated.into(),
                _ => Scheme::HmacSha256.into(),
            },
            key_id: signed.key_id.unwrap_or_default(),
        }),
        _ => return Err(wrong("give one of token and signed")),
    };
    let trust = match (request.ca_file, request.fingerprint) {
        (None, None) => Trust::System,
        (Some(file), None) => Trust::CaFile(file.into()),
        (None, Some(text)) => Trust::fingerprint(&text)
            .ok_or_else(|| wrong("a fingerprint is 64 hexadecimal digits"))?,
        _ => return Err(wrong("give one of ca_file and fingerprint")),
    };
    let proxy = request.proxy.map(|proxy| {
        let kind = match proxy.kind.as_str() {
            "socks5" => proxy::Kind::Socks5,
            "http" => proxy::Kind::Http,
            _ => return Err(wrong("a proxy is socks5 or http")),
        };
        let credentials = match (proxy.user, proxy.password) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user, password)),
            _ => return Err(wrong("a proxy takes user and password together")),
        };
        Ok(proxy::Proxy { kind, host: proxy.host, port: proxy.port, credentials })
    });
    let profiles = request.profiles.unwrap_or_default();
    let resolvers = request.resolvers.unwrap_or_default();
    let (host, port) = match (request.host, request.port) {
        (Some(host), Some(port)) => (host, port),
        (None, None) if !resolvers.is_empty() => (String::new(), 0),
        _ => return Err(wrong("give host and port together, or resolvers")),
    };
    if resolvers.len() > RESOLVERS {
        return Err(wrong("there are at most 16 resolvers"));
    }
    let is_plain_taken = request.insecure_resolvers.unwrap_or(false);
    let resolvers = resolvers.iter().map(|url| {
        let why = || {
            let more = "or http:// on a loopback or private host (insecure_resolvers: on any)";
            wrong(&format!("{url}: a resolver is https://HOST[:PORT], {more}"))
        };
        let read = if is_plain_taken { Resolver::parse_insecure } else { Resolver::parse };
        read(url).ok_or_else(why)
    });
    let resolvers = resolvers.collect::<Result<Vec<_>, _>>()?;
    let cluster = (!resolvers.is_empty()).then(|| Cluster {
        resolvers,
        application_id: request.application_id.unwrap_or_default(),
        region: request.region.unwrap_or_default(),
    });
    Ok(Descriptor {
        config: Config {
            host,
            port,
            credential,
            scope_id: request.scope_id,
            name: request.name.unwrap_or_default(),
            client: request.client.unwrap_or_default(),
            profiles: profiles.into_iter().map(|profile| profile.0).collect(),
            relay_only: request.relay_only.unwrap_or(false),
            cluster,
        },
        trust,
        proxy: proxy.transpose()?,
        udp: request.udp.unwrap_or(true),
        quic: request.quic,
    })
}

fn published(request: Publish) -> v1::Publish {
    v1::Publish {
        kind: request.kind.0.into(),
        source: request.source.map_or(0, |source| source.0.into()),
        name: request.name.unwrap_or_default(),
        codec: request.codec,
        encodings: request.encodings.unwrap_or(0),
        muted: request.muted.unwrap_or(false),
    }
}

fn preferred(request: SetPreferences) -> v1::SetPreferences {
    let preferences = v1::Preferences {
        paused: request.paused.unwrap_or(false),
        layer_max: request.layer_max,
        height: request.height,
        priority: request.priority.unwrap_or(0),
        pinned: request.pinned.unwrap_or(false),
    };
    v1::SetPreferences { subscription_id: request.subscription_id, preferences: Some(preferences) }
}

/// The tables of docs/reference/invoke.md.
#[must_use]
pub fn reference() -> String {
    macro_rules! sections {
        ($($record:ty),+ $(,)?) => { [$(<$record as Record>::section()),+].join("\n") };
    }
    let methods = sections![
        Connect,
        Publish,
        Unpublish,
        SetMuted,
        Subscribe,
        Unsubscribe,
        SetPreferences,
        AllowSenders,
        SendMessage,
        GetStatistics,
        Statistics,
        AskKeyFrame,
        Leave,
    ];
    let events = sections![
        event::Joined,
        event::LinkLost,
        event::Moved,
        event::Ended,
        event::Published,
        event::Subscribed,
        event::Done,
        event::Refused,
        event::NodeStatistics,
        event::Message,
        event::Undelivered,
        event::MessagesLost,
        event::Unconfirmed,
        event::MessagesMissed,
        event::KeyFrameWanted,
        event::Target,
        event::Transport,
        event::PeerJoined,
        event::PeerLeft,
        event::StreamStarted,
        event::StreamEnded,
        event::StreamMuted,
        event::Speech,
        event::Dominant,
        event::LayersWanted,
        event::MediaLost,
        event::Connected,
    ];
    let objects = sections![
        request::Signed,
        request::Proxy,
        event::Peer,
        event::Publication,
        event::OwnStatistics,
        event::SentStream,
        event::ReceivedStream,
    ];
    let codes = Code::ALL.iter().map(|(code, says)| {
        format!("| {} | `{}` | {} |\n", *code as i32, code.name(), record::joined(says))
    });
    format!(
        "## Methods\n{methods}\n## Events\n{events}\n## Objects\n{objects}\n\
         ## Codes\n| number | name | meaning |\n|---|---|---|\n{}",
        codes.collect::<String>()
    )
}

#[cfg(test)]
mod tests;
