//! A native client for tests: messages of the link over TLS. It blocks, so tests that use it run on
//! several threads.
#![allow(dead_code, reason = "another test program shares it and uses a part")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use strait_link::v1::{
    Auth, Authenticated, ClientMessage, Direct, Error, ErrorCode, ServerMessage, SessionKey,
    auth::Credential, client_message::Body as Request, server_message::Body,
    user_event::Body as Event,
};
use strait_link::{Frames, MESSAGE_BYTES, encode};

use crate::log::written;

/// What the clients of this process were told and nobody else may know.
pub fn secrets() -> Arc<Mutex<Vec<String>>> {
    static SECRETS: OnceLock<Arc<Mutex<Vec<String>>>> = OnceLock::new();
    Arc::clone(SECRETS.get_or_init(Arc::default))
}

fn keep_secret(body: &Body) {
    let mut secrets = Vec::new();
    let key = match body {
        Body::Authenticated(answer) => {
            secrets.push(answer.session_id.clone());
            let ice = answer.node_ice.iter().chain(&answer.client_ice);
            secrets.extend(ice.map(|ice| ice.pwd.clone()));
            answer.key.as_ref()
        }
        Body::KeyChanged(key) => Some(key),
        _ => None,
    };
    if let Some(key) = key {
        secrets.extend(written(&key.key).into_iter().chain(written(&key.salt)));
    }
    self::secrets().lock().unwrap().extend(secrets);
}

pub struct Native {
    pub tls: StreamOwned<ClientConnection, TcpStream>,
    frames: Frames,
    requests: u32,
    /// What came while something else was waited for.
    waiting: VecDeque<ServerMessage>,
}

/// A TLS client that trusts the node's own certificate.
pub fn trusting(certificate: &Path, alpn: Option<&[u8]>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    Arc::new(config)
}

impl Native {
    /// A link on which nothing was said.
    pub fn open(node: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self::over(TcpStream::connect(node).unwrap(), config)
    }

    /// The same over a connection that is there.
    pub fn over(stream: TcpStream, config: Arc<ClientConfig>) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        let node = stream.peer_addr().unwrap();
        let tls = ClientConnection::new(config, ServerName::from(node.ip())).unwrap();
        let tls = StreamOwned::new(tls, stream);
        Self { tls, frames: Frames::new(), requests: 0, waiting: VecDeque::new() }
    }

    /// Sends a message that wants no answer.
    pub fn tell(&mut self, body: Request) {
        self.send(0, body);
    }

    fn send(&mut self, request: u32, body: Request) {
        let mut bytes = Vec::new();
        encode(&ClientMessage { request, body: Some(body) }, &mut bytes);
        self.tls.write_all(&bytes).unwrap();
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, body: Request) -> Result<Body, Error> {
        self.request(body);
        self.answer()
    }

    /// Sends a request.
    pub fn request(&mut self, body: Request) {
        self.requests += 1;
        self.send(self.requests, body);
    }

    /// Waits for the answer to the last request.
    pub fn answer(&mut self) -> Result<Body, Error> {
        let mut passed = VecDeque::new();
        let answer = loop {
            let message = self.waiting.pop_front().or_else(|| self.read()).expect("an answer");
            if message.request == self.requests {
                break message.body.expect("a known answer");
            }
            passed.push_back(message);
        };
        passed.append(&mut self.waiting);
        self.waiting = passed;
        match answer {
            Body::Error(error) => Err(error),
            body => Ok(body),
        }
    }

    pub fn authenticate(&mut self, auth: Auth) -> Result<Authenticated, Error> {
        match self.ask(Request::Auth(auth))? {
            Body::Authenticated(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    /// The next message that nobody asked for; none when the node closed.
    pub fn next(&mut self) -> Option<Body> {
        let message = self.waiting.pop_front().or_else(|| self.read())?;
        assert_eq!(message.request, 0, "{message:?}");
        message.body
    }

    /// The next event.
    pub fn event(&mut self) -> Event {
        loop {
            match self.next().expect("an event") {
                Body::Event(event) => return event.body.expect("a known event"),
                Body::Ping(_) | Body::MessagesTaken(_) | Body::Media(_) | Body::KeyChanged(_) => {}
                Body::Direct(_) | Body::DirectEnded(_) | Body::DirectWanted(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// What is said next of the other of two: who and where, or that it is over; events are passed over.
    pub fn direct(&mut self) -> Result<Direct, String> {
        loop {
            match self.next().expect("a word on the other of two") {
                Body::Direct(direct) => return Ok(direct),
                Body::DirectEnded(ended) => return Err(ended.reason),
                Body::Ping(_) | Body::Event(_) | Body::KeyChanged(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// What the other of two takes from now on, which is said next.
    pub fn wanted(&mut self) -> Vec<String> {
        loop {
            match self.next().expect("what is wanted") {
                Body::DirectWanted(wanted) => return wanted.publication_ids,
                Body::Ping(_) | Body::Event(_) | Body::MessagesTaken(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next session key.
    pub fn key(&mut self) -> SessionKey {
        loop {
            match self.next().expect("a key") {
                Body::KeyChanged(key) => return key,
                Body::Event(_) | Body::Ping(_) | Body::MessagesTaken(_) | Body::Media(_) => {}
                Body::Direct(_) | Body::DirectEnded(_) | Body::DirectWanted(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The last words of the node: an error, and then nothing.
    pub fn last_words(&mut self) -> (ErrorCode, String) {
        let mut last = None;
        while let Some(message) = self.waiting.pop_front().or_else(|| self.read()) {
            last = message.body;
        }
        match last {
            Some(Body::Error(error)) => (error.code(), error.reason),
            other => panic!("{other:?}"),
        }
    }

    pub fn read(&mut self) -> Option<ServerMessage> {
        loop {
            if let Some(message) = self.frames.next::<ServerMessage>(MESSAGE_BYTES).unwrap() {
                message.body.iter().for_each(keep_secret);
                return Some(message);
            }
            let mut bytes = [0; 4096];
            match self.tls.read(&mut bytes) {
                Ok(0) => return None,
                Ok(length) => self.frames.push(&bytes[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("nothing came")
                }
                Err(_) => return None,
            }
        }
    }

    /// Whether nothing comes for a while.
    pub fn is_silent(&mut self, time: Duration) -> bool {
        let patience = self.tls.sock.read_timeout().unwrap();
        self.tls.sock.set_read_timeout(Some(time)).unwrap();
        let mut bytes = [0; 4096];
        let read = self.tls.read(&mut bytes);
        self.tls.sock.set_read_timeout(patience).unwrap();
        if let Ok(length) = read {
            self.frames.push(&bytes[..length]);
        }
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// What came already; the socket does not block.
    pub fn try_read(&mut self) -> Option<ServerMessage> {
        loop {
            if let Some(message) = self.frames.next(MESSAGE_BYTES).unwrap() {
                return Some(message);
            }
            let mut bytes = [0; 4096];
            match self.tls.read(&mut bytes) {
                Ok(0) => panic!("the node closed"),
                Ok(length) => self.frames.push(&bytes[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Cuts the connection, without a goodbye.
    pub fn cut(self) {
        self.tls.sock.shutdown(std::net::Shutdown::Both).unwrap();
    }
}

/// What joins a scope with the development token.
pub fn auth(scope: &str, name: &str) -> Auth {
    Auth {
        version: strait_link::VERSION,
        credential: Some(Credential::Token("dev".into())),
        scope_id: scope.into(),
        name: name.into(),
        client: "tests/1".into(),
        ..Auth::default()
    }
}
