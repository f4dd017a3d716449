//! The figures of the link: joins, memory, messages, by clients that speak it over TLS.

mod fallback;
mod gate;
mod ways;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use strait_link::v1::{
    Auth, ClientMessage, MessageSeen, SendMessage, ServerMessage, auth::Credential,
    client_message::Body as Request, server_message::Body,
};
use strait_link::{ALPN, Frames, MESSAGE_BYTES, VERSION, encode};
use tokio::task::spawn_blocking;

use crate::figure::{
    Figure, LINK, LINK_BLOCKED_BACK, LINK_BLOCKED_FIRST, LINK_BLOCKED_LOST, LINK_CLIENT_MEMORY,
    LINK_DIRECT_FIRST, LINK_DIRECT_LOST, LINK_FALLBACK_COST, LINK_JOINS, LINK_MESSAGES,
    LINK_QUIC_COST, Promise,
};
use crate::setup::{Setup, TOKEN};

/// Clients that join and stay.
const CLIENTS: usize = 500;
/// Clients of one scope.
const CLIENTS_PER_SCOPE: usize = 10;
/// Clients that join before the count begins: pools, threads and code pages are there by then.
const WARM_CLIENTS: usize = 50;
/// Messages that one client sends another.
const MESSAGES: u64 = 200_000;
/// Bytes of each.
const MESSAGE_LEN: usize = 100;
/// Messages on their way at most: fewer than a node keeps for a client that confirms none.
const ON_THE_WAY: u64 = 2048;
/// A message is confirmed with so many before it.
const CONFIRMED_AT_ONCE: u64 = 128;
/// How long things settle before memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures those whose names contain `only`. Says on stderr what it does.
pub async fn measure(only: &str) -> Vec<Figure> {
    let wanted = |promises: &[Promise]| promises.iter().any(|promise| promise.name.contains(only));
    let mut figures = Vec::new();
    if wanted(&[LINK_JOINS, LINK_CLIENT_MEMORY]) {
        eprintln!("==> {CLIENTS} native clients join");
        figures.extend(match joins().await {
            Ok(figures) => figures,
            Err(error) => [LINK_JOINS.missed(&error), LINK_CLIENT_MEMORY.missed(&error)],
        });
    }
    if wanted(&[LINK_MESSAGES]) {
        eprintln!("==> {MESSAGES} messages");
        figures.push(messages().await.unwrap_or_else(|error| LINK_MESSAGES.missed(error)));
    }
    const DIRECT: [Promise; 2] = [LINK_DIRECT_FIRST, LINK_DIRECT_LOST];
    if wanted(&DIRECT) {
        eprintln!("==> two clients go directly, and come back");
        let missed = |error: io::Error| DIRECT.map(|promise| promise.missed(&error));
        figures.extend(ways::direct().await.unwrap_or_else(missed));
    }
    const BLOCKED: [Promise; 3] = [LINK_BLOCKED_FIRST, LINK_BLOCKED_BACK, LINK_BLOCKED_LOST];
    if wanted(&BLOCKED) {
        eprintln!("==> UDP is blocked, and is not any more");
        let missed = |error: io::Error| BLOCKED.map(|promise| promise.missed(&error));
        figures.extend(ways::blocked().await.unwrap_or_else(missed));
    }
    if wanted(&[LINK_FALLBACK_COST]) {
        eprintln!("==> one to {} over UDP, and over TLS", fallback::LISTENERS);
        let missed = |error: io::Error| LINK_FALLBACK_COST.missed(&error);
        figures.push(fallback::over_tls().await.unwrap_or_else(missed));
    }
    if wanted(&[LINK_QUIC_COST]) {
        eprintln!("==> one to {} over UDP, and over QUIC", fallback::LISTENERS);
        let missed = |error: io::Error| LINK_QUIC_COST.missed(&error);
        figures.push(fallback::over_quic().await.unwrap_or_else(missed));
    }
    figures.retain(|figure| figure.name.contains(only));
    debug_assert!(figures.len() <= LINK.len());
    figures
}

async fn joins() -> io::Result<[Figure; 2]> {
    let setup = Setup::start().await?;
    let door = Door::of(&setup)?;
    let many = |name: &'static str, count: usize, door: Door| {
        spawn_blocking(move || {
            let scope = |n: usize| format!("{name}-{}", n / CLIENTS_PER_SCOPE);
            (0..count).map(|n| Client::join(&door, &scope(n))).collect::<io::Result<Vec<_>>>()
        })
    };
    let _warm = many("warm", WARM_CLIENTS, door.clone()).await??;
    tokio::time::sleep(SETTLE).await;
    let memory = |setup: &Setup| {
        io::Result::Ok((setup.control.resident_bytes()?, setup.relay.resident_bytes()?))
    };
    let cpu = |setup: &Setup| io::Result::Ok((setup.control.cpu()?, setup.relay.cpu()?));
    let (memory_before, cpu_before) = (memory(&setup)?, cpu(&setup)?);
    let started = Instant::now();
    let clients = many("idle", CLIENTS, door).await??;
    let took = started.elapsed();
    let cpu_after = cpu(&setup)?;
    tokio::time::sleep(SETTLE).await;
    let memory_after = memory(&setup)?;
    drop(clients);
    setup.end().await;

    let count = CLIENTS as f64;
    let (control, relay) = (cpu_after.0 - cpu_before.0, cpu_after.1 - cpu_before.1);
    let joins = LINK_JOINS.measured(
        count / (control + relay).as_secs_f64(),
        format!(
            "{CLIENTS} joins (TCP, TLS 1.3, development token, session key, transport at the relay), one after the other in \
             {:.2} s, divided by the CPU seconds of strait-control ({:.2} ms each) and strait-relay ({:.2} ms each)",
            took.as_secs_f64(),
            control.as_secs_f64() * 1e3 / count,
            relay.as_secs_f64() * 1e3 / count,
        ),
    );
    let kib = |after: u64, before: u64| after.saturating_sub(before) as f64 / 1024.0 / count;
    let control = kib(memory_after.0, memory_before.0);
    let relay = kib(memory_after.1, memory_before.1);
    let memory = LINK_CLIENT_MEMORY.measured(
        control + relay,
        format!(
            "growth of resident memory over {CLIENTS} clients in scopes of {CLIENTS_PER_SCOPE}, without media, divided by \
             {CLIENTS}: strait-control {control:.1} KiB, strait-relay {relay:.1} KiB"
        ),
    );
    Ok([joins, memory])
}

async fn messages() -> io::Result<Figure> {
    let setup = Setup::start().await?;
    let door = Door::of(&setup)?;
    let pair = spawn_blocking(move || {
        io::Result::Ok((Client::join(&door, "messages")?, Client::join(&door, "messages")?))
    });
    let (mut sender, mut receiver) = pair.await??;
    let before = setup.control.cpu()?;
    let started = Instant::now();
    let seen = Arc::new(AtomicU64::new(0));
    let confirmed = Arc::clone(&seen);
    let sent = spawn_blocking(move || {
        for number in 1..=MESSAGES {
            while number > confirmed.load(Ordering::Relaxed) + ON_THE_WAY {
                if started.elapsed() > 2 * PATIENCE {
                    return Err(io::Error::other("the receiver does not get on"));
                }
                sender.flush()?;
                std::thread::sleep(Duration::from_micros(200));
            }
            let mut payload = number.to_be_bytes().to_vec();
            payload.resize(MESSAGE_LEN, 7);
            let message = SendMessage { number, payload, ..SendMessage::default() };
            sender.say(0, Request::SendMessage(message))?;
        }
        sender.flush()?;
        Ok(sender)
    });
    let received = spawn_blocking(move || {
        let mut expected = 1;
        while expected <= MESSAGES {
            let Some(Body::Message(message)) = receiver.next()?.body else { continue };
            if message.payload.first_chunk() != Some(&u64::to_be_bytes(expected)) {
                return Err(io::Error::other(format!("message {expected} is lost, or late")));
            }
            if expected % CONFIRMED_AT_ONCE == 0 || expected == MESSAGES {
                let number = message.number;
                receiver.say(0, Request::MessageSeen(MessageSeen { number }))?;
                receiver.flush()?;
                seen.store(expected, Ordering::Relaxed);
            }
            expected += 1;
        }
        Ok(())
    });
    received.await??;
    let took = started.elapsed();
    let cpu = setup.control.cpu()? - before;
    drop(sent.await??);
    setup.end().await;
    Ok(LINK_MESSAGES.measured(
        MESSAGES as f64 / cpu.as_secs_f64(),
        format!(
            "{MESSAGES} messages of {MESSAGE_LEN} bytes from one client, without the limit on what one may send, to another, all \
             there and in order, divided by the CPU seconds of strait-control; {:.0} a second by the clock, on a machine that both clients share",
            MESSAGES as f64 / took.as_secs_f64()
        ),
    ))
}

/// Where clients come in.
#[derive(Clone)]
struct Door {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Door {
    fn of(setup: &Setup) -> io::Result<Self> {
        Ok(Self { address: setup.https, tls: trusting(&setup.certificate())? })
    }
}

/// TLS of a client that trusts the node's own certificate.
fn trusting(certificate: &Path) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(certificate).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// A native client that does as little as one can.
struct Client {
    tls: StreamOwned<ClientConnection, TcpStream>,
    frames: Frames,
    out: Vec<u8>,
}

impl Client {
    fn join(door: &Door, scope: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(door.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(door.address.ip());
        let tls = ClientConnection::new(Arc::clone(&door.tls), name).map_err(io::Error::other)?;
        let tls = StreamOwned::new(tls, stream);
        let mut client = Self { tls, frames: Frames::new(), out: Vec::new() };
        let auth = Auth {
            version: VERSION,
            credential: Some(Credential::Token(TOKEN.into())),
            scope_id: scope.into(),
            client: "figures".into(),
            ..Auth::default()
        };
        client.say(1, Request::Auth(auth))?;
        client.flush()?;
        loop {
            match client.next()?.body {
                Some(Body::Authenticated(_)) => return Ok(client),
                Some(Body::Error(error)) => return Err(io::Error::other(error.reason)),
                _ => {}
            }
        }
    }

    /// Says something with the next flush, or when much waits for it.
    fn say(&mut self, request: u32, body: Request) -> io::Result<()> {
        encode(&ClientMessage { request, body: Some(body) }, &mut self.out);
        if self.out.len() < 16 << 10 { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tls.write_all(&self.out)?;
        self.out.clear();
        self.tls.flush()
    }

    fn next(&mut self) -> io::Result<ServerMessage> {
        loop {
            let next = self.frames.next(MESSAGE_BYTES).map_err(io::Error::other)?;
            if let Some(message) = next {
                return Ok(message);
            }
            let mut bytes = [0; 16 << 10];
            let length = self.tls.read(&mut bytes)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.frames.push(bytes.get(..length).unwrap_or_default());
        }
    }
}
