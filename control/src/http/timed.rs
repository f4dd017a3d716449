//! Connections of HTTP that nobody holds without need, with TLS or without.
//!
//! The server waits without a timer until it is clear which version of HTTP a client speaks, for a client of HTTP/2 that
//! asks for nothing but answers pings, and for one that does not read.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use crate::limits;

/// What HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Connections that were ended, by why.
#[derive(Default)]
pub struct Ended {
    silent: AtomicU64,
    idle: AtomicU64,
    stalled: AtomicU64,
}

/// How long a client may take.
#[derive(Clone, Copy)]
pub struct Patience {
    /// By when it has to be clear which version of HTTP it speaks.
    pub version: Instant,
    /// Without a request by HTTP/2.
    pub idle: Duration,
    /// For something of what waits for it.
    pub stall: Duration,
}

/// A connection.
pub struct Timed<S> {
    stream: S,
    version: Version,
    /// Of the version, of HTTP/2 later.
    alarm: Pin<Box<Sleep>>,
    /// While something waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Patience,
    /// Shared with each request that is worked on. Whether one was answered since the alarm was set.
    requests: Arc<AtomicBool>,
    ended: Arc<Ended>,
}

enum Version {
    /// So many bytes were those of HTTP/2.
    Unclear(usize),
    One,
    Two,
}

/// What answers the requests of one connection.
#[derive(Clone)]
pub struct Answering<S> {
    service: S,
    requests: Weak<AtomicBool>,
}

/// The door of HTTP without TLS.
#[derive(Clone)]
pub struct PlainDoor(pub Arc<Ended>);

impl Ended {
    /// Why, and how many.
    pub fn all(&self) -> [(&'static str, u64); 3] {
        let Self { silent, idle, stalled } = self;
        [("silent", silent), ("idle", idle), ("stalled", stalled)]
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }
}

impl Patience {
    /// As [`limits`] have it.
    pub fn until(version: Instant) -> Self {
        Self { version, idle: limits::HTTP2_IDLE, stall: limits::HTTP_STALL }
    }
}

impl<S> Timed<S> {
    /// A connection, and the service with which it is answered.
    pub fn new<T>(
        stream: S,
        service: T,
        patience: Patience,
        ended: &Arc<Ended>,
    ) -> (Self, Answering<T>) {
        let requests = Arc::new(AtomicBool::new(false));
        let answering = Answering { service, requests: Arc::downgrade(&requests) };
        let timed = Self {
            stream,
            version: Version::Unclear(0),
            alarm: Box::pin(sleep_until(patience.version)),
            stalled: None,
            patience,
            requests,
            ended: Arc::clone(ended),
        };
        (timed, answering)
    }

    /// What to do about a client that says nothing.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let counter = match self.version {
                Version::Unclear(_) => &self.ended.silent,
                // The server has a timer for that.
                Version::One => return Poll::Pending,
                Version::Two => {
                    let was_asked = self.requests.swap(false, Ordering::Relaxed);
                    if was_asked || Arc::strong_count(&self.requests) > 1 {
                        self.alarm.as_mut().reset(Instant::now() + self.patience.idle);
                        continue;
                    }
                    &self.ended.idle
                }
            };
            return Poll::Ready(late(counter));
        }
        Poll::Pending
    }

    /// Learns the version of what was read.
    fn look(&mut self, read: &[u8]) {
        let Version::Unclear(seen) = &mut self.version else { return };
        let rest = PREFACE.get(*seen..).unwrap_or_default();
        *seen += read.len();
        if read.starts_with(rest) {
            self.version = Version::Two;
            self.alarm.as_mut().reset(Instant::now() + self.patience.idle);
        } else if !rest.starts_with(read) {
            self.version = Version::One;
        }
    }

    /// Ends a connection whose client takes nothing for too long.
    fn patiently<T>(
        &mut self,
        cx: &mut Context<'_>,
        said: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if said.is_ready() {
            self.stalled = None;
            return said;
        }
        let until = Instant::now() + self.patience.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(until)));
        stalled.as_mut().poll(cx).map(|()| Err(late(&self.ended.stalled)))
    }
}

fn late(counter: &AtomicU64) -> io::Error {
    counter.fetch_add(1, Ordering::Relaxed);
    io::ErrorKind::TimedOut.into()
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = into.filled().len();
        if Pin::new(&mut this.stream).poll_read(cx, into)?.is_pending() {
            return this.poll_alarm(cx).map(Err);
        }
        this.look(into.filled().get(start..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Timed<S> {
    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        said: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        // Of an answer that was given before.
        if matches!(said, Poll::Ready(Ok(length)) if length > limits::HTTP2_CONTROL_BYTES) {
            self.requests.store(true, Ordering::Relaxed);
        }
        self.patiently(cx, said)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let said = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.wrote(cx, said)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let said = Pin::new(&mut this.stream).poll_write_vectored(cx, bytes);
        this.wrote(cx, said)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let said = Pin::new(&mut this.stream).poll_flush(cx);
        this.patiently(cx, said)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let said = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.patiently(cx, said)
    }
}

impl<R, S: Service<R, Future: Send + 'static>> Service<R> for Answering<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let requests = self.requests.upgrade();
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await;
            // The alarm may ring before it is written.
            if let Some(requests) = requests {
                requests.store(true, Ordering::Relaxed);
            }
            answer
        })
    }
}

impl<S> Accept<TcpStream, S> for PlainDoor {
    type Stream = Timed<TcpStream>;
    type Service = Answering<S>;
    type Future = Ready<io::Result<(Timed<TcpStream>, Answering<S>)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        // Browsers connect before they have something to ask.
        let patience = Patience::until(Instant::now() + limits::HEADER_TIME);
        ready(Ok(Timed::new(stream, service, patience, &self.0)))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
    use hyper_util::server::conn::auto::Builder;
    use hyper_util::service::TowerToHyperService;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{sleep, timeout};

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(3600);
    /// Far more than anything here takes.
    const MOST: Duration = Duration::from_secs(20);

    fn patience(version: Duration, idle: Duration, stall: Duration) -> Patience {
        Patience { version: Instant::now() + version, idle, stall }
    }

    fn timed(patience: Patience) -> (DuplexStream, Timed<DuplexStream>, Arc<Ended>) {
        let (client, server) = duplex(64);
        let ended = Arc::default();
        let (timed, _) = Timed::new(server, (), patience, &ended);
        (client, timed, ended)
    }

    fn count(ended: &Ended, reason: &str) -> u64 {
        ended.all().into_iter().find(|(one, _)| *one == reason).unwrap().1
    }

    #[tokio::test]
    async fn who_does_not_say_which_version_it_speaks_is_sent_away() {
        for said in [&b""[..], b"P", &PREFACE[..PREFACE.len() - 1]] {
            let (mut client, mut server, ended) = timed(patience(SHORT, LONG, LONG));
            client.write_all(said).await.unwrap();
            let mut came = vec![0; said.len()];
            server.read_exact(&mut came).await.unwrap();
            assert_eq!(came, said, "whatever was said is read");
            let late = timeout(MOST, server.read_u8()).await.unwrap();
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(count(&ended, "silent"), 1);
        }
    }

    #[tokio::test]
    async fn who_said_so_has_time() {
        for said in [PREFACE, b"POST /", &[PREFACE, b"more"].concat()] {
            let (mut client, mut server, ended) = timed(patience(Duration::ZERO, LONG, LONG));
            client.write_all(said).await.unwrap();
            let mut came = vec![0; said.len()];
            // In pieces of whatever size.
            let (one, rest) = came.split_at_mut(2);
            server.read_exact(one).await.unwrap();
            server.read_exact(rest).await.unwrap();
            assert!(timeout(SHORT, server.read_u8()).await.is_err(), "nothing ends it here");
            assert!(ended.all().iter().all(|(_, count)| *count == 0));
        }
    }

    #[tokio::test]
    async fn who_does_not_read_is_sent_away_and_who_reads_slowly_is_not() {
        let (mut client, mut server, ended) = timed(patience(LONG, LONG, 20 * SHORT));
        let writing = tokio::spawn(async move {
            let outcome = server.write_all(&[7; 1600]).await;
            outcome.and(server.write_all(&[7; 65]).await)
        });
        // For longer than its patience something goes all the time.
        for _ in 0..25 {
            sleep(SHORT).await;
            client.read_exact(&mut [0; 64]).await.unwrap();
        }
        assert_eq!(count(&ended, "stalled"), 0);
        let outcome = timeout(MOST, writing).await.unwrap().unwrap();
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(count(&ended, "stalled"), 1);
    }

    /// A frame of HTTP/2 (RFC 9113 section 4.1).
    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        [&head, payload].concat()
    }

    /// Answers pings until the server ends it, or says an answer. How many there were.
    async fn answer_pings(client: &mut DuplexStream) -> (usize, bool) {
        let mut pings = 0;
        let mut head = [0; 9];
        while client.read_exact(&mut head).await.is_ok() {
            let [high, middle, low, kind, flags, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            client.read_exact(&mut payload).await.unwrap();
            match (kind, flags) {
                (1, _) => return (pings, true),
                (6, 0) => {
                    pings += 1;
                    let _ended = client.write_all(&frame(6, 1, 0, &payload)).await;
                }
                _ => {}
            }
        }
        (pings, false)
    }

    #[tokio::test]
    async fn http2_without_requests_ends_though_it_answers_pings() {
        const IDLE: Duration = Duration::from_secs(2);
        let slow = get(async || sleep(4 * IDLE).await);
        let router = Router::new().route("/", slow);
        let (mut client, server) = duplex(4096);
        let ended = Arc::default();
        let patience = patience(LONG, IDLE, LONG);
        let (server, service) = Timed::new(server, router, patience, &ended);
        let serving = tokio::spawn(async move {
            let mut builder = Builder::new(TokioExecutor::new());
            let mut http2 = builder.http2();
            http2.timer(TokioTimer::new()).keep_alive_interval(IDLE / 6);
            let service = TowerToHyperService::new(service);
            let served = builder.serve_connection_with_upgrades(TokioIo::new(server), service);
            served.await.is_err()
        });
        // GET / by indices of the static table (RFC 7541 appendix A).
        let asks = frame(1, 5, 1, &[0x82, 0x86, 0x84]);
        let hello = [PREFACE, &frame(4, 0, 0, &[]), &frame(4, 1, 0, &[]), &asks].concat();
        client.write_all(&hello).await.unwrap();
        let start = Instant::now();
        let answered = timeout(MOST, answer_pings(&mut client)).await.unwrap();
        assert!(answered.1, "a request that takes long is none of the idle");
        assert!(start.elapsed() >= 4 * IDLE && count(&ended, "idle") == 0);
        let (pings, is_answer) = timeout(MOST, answer_pings(&mut client)).await.unwrap();
        assert!(!is_answer && pings > 0, "{pings}");
        assert!(timeout(MOST, serving).await.unwrap().unwrap());
        assert_eq!(count(&ended, "idle"), 1);
    }
}
