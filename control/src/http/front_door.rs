//! One TCP port for HTTPS and for media over ICE-TCP.
//!
//! What a connection is shows in its first bytes: a TLS record (0x16 0x03), or a STUN message in
//! RFC 4571 framing (two bytes of length, 0x00 0x01, and the magic cookie at offset 6). The latter
//! is spliced to the relay, which then sees a loopback address: ICE takes a path as it sees it.
//! TLS whose ClientHello names framed media or TURN is handed over to the relay, which speaks it
//! itself. So is TLS that names no protocol where TURN is served, as browsers name none for it: what
//! is none of the relay's comes back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::server::Acceptor;
use strait_proto::handover::TURN_ALPN;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::handover::{self, Found, Handover};
use crate::admission::{Admission, Permit};
use crate::limits;

/// How long the rest of a request is waited for that gets no more than a hint.
const DRAIN_TIME: Duration = Duration::from_millis(500);
/// Pauses between looks at a beginning that is not clear yet, the first one and the longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Sorts connections before TLS sees them.
#[derive(Clone)]
pub struct FrontDoor {
    relay: Option<SocketAddr>,
    handover: Option<Arc<Handover>>,
    places: Arc<Admission>,
    /// Places for those of framed media whose peers the relay does not know yet.
    strangers: Arc<Admission>,
    /// Places for those whose TLS the relay speaks for us.
    back: Arc<Admission>,
}

/// What a connection turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// More bytes are needed.
    Unclear,
    /// TLS.
    Tls,
    /// TLS for framed media or TURN.
    Media,
    /// TLS that names no protocol, and may be for TURN.
    Unnamed,
    /// A framed STUN request.
    Stun,
    /// HTTP without TLS, by mistake.
    PlainHttp,
    /// Anything else.
    Stranger,
}

/// Whom the door lets in.
pub enum Admitted {
    /// Who begins with TLS.
    Tls(TcpStream),
    /// Who named no protocol, and with whom the relay speaks TLS. It has the place for as long.
    Back(UnixStream, Permit),
}

impl FrontDoor {
    /// Passes ICE-TCP on to `relay`, as many connections as have `places`: the relay, which sees
    /// one address, cannot tell whose they are. Without a relay, TLS only.
    pub fn new(relay: Option<SocketAddr>, places: Arc<Admission>) -> Self {
        let strangers =
            Admission::new(limits::MEDIA_STRANGERS, limits::MEDIA_STRANGERS_PER_ADDRESS);
        let back = Admission::new(limits::BACK_CONNECTIONS, limits::BACK_PER_ADDRESS);
        Self { relay, handover: None, places, strangers, back }
    }

    /// Hands framed media over TLS to the relay as well, among the same places as soon as the relay
    /// knows whose it is.
    #[must_use]
    pub fn with_handover(self, handover: Handover) -> Self {
        Self { handover: Some(Arc::new(handover)), ..self }
    }

    /// Hands a connection of a client at `address` over to the relay. The error says that it was
    /// done, or why not.
    fn hand_over(&self, handover: &Arc<Handover>, stream: TcpStream, address: IpAddr) -> io::Error {
        let Ok(stranger) = self.strangers.enter(address) else {
            return refused("too many connections of framed media that nobody knows yet");
        };
        if !self.places.has_room(address) {
            return refused("too many connections of framed media");
        }
        let (handover, places) = (Arc::clone(handover), Arc::clone(&self.places));
        tokio::spawn(async move {
            let mut place = None;
            let known = || {
                // Where all places were taken meanwhile there are a few more than that.
                place = places.enter(address).ok();
                drop(stranger);
            };
            if let Err(error) = handover.carry(stream, known).await {
                // Clients send media over their links instead.
                debug!("the relay did not take a connection over: {error}");
            }
            drop(place);
        });
        refused("handed over to the relay")
    }

    /// Lets the relay find out what a connection is that named no protocol. Where it cannot, it is one of ours.
    async fn find_out(
        &self,
        handover: &Handover,
        stream: TcpStream,
        address: IpAddr,
    ) -> io::Result<Admitted> {
        let (Ok(stranger), Ok(back)) = (self.strangers.enter(address), self.back.enter(address))
        else {
            return Ok(Admitted::Tls(stream));
        };
        if !self.places.has_room(address) {
            return Ok(Admitted::Tls(stream));
        }
        let relay = match handover.pass(&stream).await {
            Ok(relay) => relay,
            Err(error) => {
                debug!("a connection without a protocol is served here: {error}");
                return Ok(Admitted::Tls(stream));
            }
        };
        // Ours is kept until it is clear that the relay has it.
        let found = Handover::find_out(relay).await?;
        drop(stranger);
        match found {
            Found::Ours(relay) => Ok(Admitted::Back(relay, back)),
            Found::Refused => Ok(Admitted::Tls(stream)),
            Found::Relays(relay) => {
                // Where all places were taken meanwhile there are a few more than that.
                let place = self.places.enter(address).ok();
                tokio::spawn(async move {
                    handover::ended(relay).await;
                    drop(place);
                });
                Err(refused("TURN, which the relay serves"))
            }
        }
    }

    /// Passes framed media of a client at `address` on to the relay. The error says that it was
    /// done, or why not.
    fn pass_on(&self, stream: TcpStream, address: IpAddr) -> io::Error {
        let Some(relay) = self.relay else { return refused("ICE-TCP is not served here") };
        let Ok(place) = self.places.enter(address) else {
            return refused("too many ICE-TCP connections");
        };
        tokio::spawn(async move {
            let outcome = splice(stream, relay).await;
            debug!("spliced connection ended: {outcome:?}");
            drop(place);
        });
        refused("passed on to the relay")
    }

    /// Looks at what came without taking it.
    async fn peek(&self, stream: &TcpStream) -> io::Result<Opening> {
        let mut bytes = [0; limits::HELLO_BYTES];
        let (mut pause, longest) = LOOKS;
        loop {
            let length = stream.peek(&mut bytes).await?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let seen = bytes.get(..length).unwrap_or_default();
            let opening = match (judge(seen), &self.handover) {
                (Opening::Tls, Some(handover)) => match names(seen, handover.serves_turn()) {
                    Some(opening) => opening,
                    None if length < bytes.len() => Opening::Unclear,
                    None => Opening::Tls,
                },
                (opening, _) => opening,
            };
            match opening {
                // The socket stays readable, so there is nothing to wait for but time. Thousands that never
                // go on cost little so.
                Opening::Unclear => {
                    sleep(pause).await;
                    pause = longest.min(pause * 2);
                }
                opening => return Ok(opening),
            }
        }
    }

    /// Lets a connection in, or sees to it that somebody else takes it, which the error says.
    ///
    /// # Errors
    /// It is not for this process.
    pub async fn admit(self, stream: TcpStream) -> io::Result<Admitted> {
        stream.set_nodelay(true)?;
        let opening = timeout(limits::FRONT_DOOR_TIME, self.peek(&stream)).await;
        match opening.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            Opening::Tls => Ok(Admitted::Tls(stream)),
            Opening::Unnamed => match &self.handover {
                Some(handover) => {
                    let address = stream.peer_addr()?.ip().to_canonical();
                    self.find_out(handover, stream, address).await
                }
                None => Ok(Admitted::Tls(stream)),
            },
            Opening::Media => {
                let address = stream.peer_addr()?.ip().to_canonical();
                Err(match &self.handover {
                    Some(handover) => self.hand_over(handover, stream, address),
                    None => refused("framed media is not served here"),
                })
            }
            Opening::Stun => {
                let address = stream.peer_addr()?.ip().to_canonical();
                Err(self.pass_on(stream, address))
            }
            Opening::PlainHttp => {
                let mut stream = stream;
                let text = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
                            Connection: close\r\n\r\nThis port speaks HTTPS: use https://\n";
                timeout(limits::WRITE_TIME, stream.write_all(text.as_bytes())).await??;
                stream.shutdown().await?;
                // Closing with the request unread would reset the connection, and the answer with
                // it.
                let mut request = [0; 4096];
                let end = Instant::now() + limits::FRONT_DOOR_TIME;
                while Instant::now() < end
                    && timeout(DRAIN_TIME, stream.read(&mut request)).await?? > 0
                {}
                Err(refused("plain HTTP on the HTTPS port"))
            }
            Opening::Unclear | Opening::Stranger => Err(refused("neither TLS nor framed STUN")),
        }
    }
}

/// Says what the first bytes of a connection are.
pub fn judge(bytes: &[u8]) -> Opening {
    match bytes {
        [] => Opening::Unclear,
        [0x16, 0x03, ..] => Opening::Tls,
        [0x16] => Opening::Unclear,
        // The length of a STUN request fits into 11 bits, its type is 0x0001.
        [0..=7, rest @ ..] => match rest {
            [_, 0x00, 0x01, _, _, 0x21, 0x12, 0xa4, 0x42, ..] => Opening::Stun,
            rest if rest.len() < 9 => Opening::Unclear,
            _ => Opening::Stranger,
        },
        [b'A'..=b'Z', ..] => Opening::PlainHttp,
        _ => Opening::Stranger,
    }
}

/// What a ClientHello names; none when it is not complete.
fn names(mut hello: &[u8], turn: bool) -> Option<Opening> {
    let mut acceptor = Acceptor::default();
    while !hello.is_empty() {
        if acceptor.read_tls(&mut hello).is_err() {
            return Some(Opening::Tls);
        }
    }
    // What is no ClientHello is told so by TLS itself.
    let Ok(accepted) = acceptor.accept() else { return Some(Opening::Tls) };
    let accepted = accepted?;
    let hello = accepted.client_hello();
    let Some(mut names) = hello.alpn() else {
        return Some(if turn { Opening::Unnamed } else { Opening::Tls });
    };
    let is_ours = |name| name == strait_link::MEDIA_ALPN || (turn && name == TURN_ALPN);
    Some(if names.any(is_ours) { Opening::Media } else { Opening::Tls })
}

/// Carries bytes both ways until either side ends or both are silent. What is read is written
/// before more is read: a slow side slows the other.
async fn splice(client: TcpStream, relay: SocketAddr) -> io::Result<()> {
    let relay = timeout(limits::RELAY_CALL, TcpStream::connect(relay)).await??;
    relay.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (relay_read, relay_write) = relay.into_split();
    let activity = Activity { start: Instant::now(), last_ms: AtomicU64::new(0) };
    tokio::select! {
        outcome = copy(client_read, relay_write, &activity) => outcome,
        outcome = copy(relay_read, client_write, &activity) => outcome,
        () = activity.silence() => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; limits::SPLICE_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        activity.note();
        to.write_all(buffer.get(..length).unwrap_or_default()).await?;
    }
}

/// When bytes last passed.
struct Activity {
    start: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    fn note(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    async fn silence(&self) {
        loop {
            let last = self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let deadline = last + limits::SPLICE_IDLE;
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

/// A connection that goes no further here.
pub(crate) fn refused(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, reason)
}

#[cfg(test)]
mod tests {
    use strait_proto::handover;
    use tokio::net::TcpListener;

    use super::*;
    use crate::relay::Relay;

    const STUN: [u8; 22] =
        [0, 20, 0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    #[test]
    fn first_bytes_are_judged() {
        assert_eq!(judge(&STUN), Opening::Stun);
        for length in 0..10 {
            assert_eq!(judge(&STUN[..length]), Opening::Unclear, "{length}");
        }
        assert_eq!(judge(&[0x16, 3, 1, 2, 0]), Opening::Tls);
        assert_eq!(judge(b"GET / HTTP/1.1"), Opening::PlainHttp);
        assert_eq!(judge(&[0; 16]), Opening::Stranger);
        assert_eq!(judge(&[0xff; 16]), Opening::Stranger);
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    #[tokio::test]
    async fn framed_stun_reaches_the_relay_and_answers_come_back() {
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = FrontDoor::new(Some(relay.local_addr().unwrap()), Admission::new(9, 1));
        let (mut client, server) = pair().await;
        let admitted = tokio::spawn(door.clone().admit(server));
        // In two pieces: the door waits for what it needs.
        client.write_all(&STUN[..5]).await.unwrap();
        client.flush().await.unwrap();
        client.write_all(&STUN[5..]).await.unwrap();
        let (mut at_relay, _) = relay.accept().await.unwrap();
        assert!(admitted.await.unwrap().is_err(), "TLS must not see it");
        let mut bytes = [0; 22];
        at_relay.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, STUN);
        at_relay.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        // The only place of the address is taken.
        let (mut second, server) = pair().await;
        second.write_all(&STUN).await.unwrap();
        let error = door.clone().admit(server).await.err().unwrap();
        assert!(error.to_string().contains("too many"), "{error}");
        // Ending one side ends the other, and gives the place back.
        drop(client);
        assert_eq!(at_relay.read(&mut [0; 8]).await.unwrap(), 0);
        let (mut third, server) = pair().await;
        third.write_all(&STUN).await.unwrap();
        let mut error = door.clone().admit(server).await.err().unwrap().to_string();
        for _ in 0..100 {
            if error.contains("passed on") {
                break;
            }
            tokio::task::yield_now().await;
            let (mut again, server) = pair().await;
            again.write_all(&STUN).await.unwrap();
            error = door.clone().admit(server).await.err().unwrap().to_string();
        }
        assert!(error.contains("passed on"), "{error}");
    }

    #[tokio::test]
    async fn who_is_not_known_yet_takes_none_of_the_places() {
        let folder = tempfile::tempdir().unwrap();
        let rpc = folder.path().join("relay.sock");
        let relay = tokio::net::UnixListener::bind(handover::socket_of(&rpc)).unwrap();
        let places = Admission::new(9, 9);
        let handover = Arc::new(Handover::new(Relay::new(&rpc), b"pem").unwrap());
        let door = FrontDoor::new(None, Arc::clone(&places));
        let (mut clients, mut at_relay) = (Vec::new(), Vec::new());
        for _ in 0..limits::MEDIA_STRANGERS_PER_ADDRESS {
            let (client, server) = pair().await;
            let said = door.hand_over(&handover, server, [192, 0, 2, 1].into()).to_string();
            assert!(said.contains("handed over"), "{said}");
            at_relay.push(relay.accept().await.unwrap().0);
            clients.push(client);
        }
        let (_client, server) = pair().await;
        let said = door.hand_over(&handover, server, [192, 0, 2, 1].into()).to_string();
        assert!(said.contains("nobody knows yet"), "{said}");
        assert_eq!(places.count(), 0);
        // Another address has its own; and one that the relay knows is no stranger any more.
        let (_other, server) = pair().await;
        let said = door.hand_over(&handover, server, [192, 0, 2, 2].into()).to_string();
        assert!(said.contains("handed over"), "{said}");
        let before = door.strangers.count();
        handover::tell_known(&at_relay[0]).unwrap();
        while places.count() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(door.strangers.count(), before - 1);
        // Its end gives its place back, and that of a stranger.
        drop(at_relay);
        while places.count() > 0 || door.strangers.count() > 1 {
            tokio::task::yield_now().await;
        }
    }

    /// A relay's side of a connection that was passed to it, whose message was read.
    async fn passed(relay: &tokio::net::UnixListener) -> UnixStream {
        let (mut at_relay, _) = relay.accept().await.unwrap();
        at_relay.read_exact(&mut [0; 4 + 3]).await.unwrap();
        at_relay
    }

    #[tokio::test]
    async fn who_comes_back_holds_a_place_and_who_finds_none_is_served_here() {
        let folder = tempfile::tempdir().unwrap();
        let rpc = folder.path().join("relay.sock");
        let relay = tokio::net::UnixListener::bind(handover::socket_of(&rpc)).unwrap();
        let handover = Handover::new(Relay::new(&rpc), b"pem").unwrap();
        let mut door = FrontDoor::new(None, Admission::new(9, 9));
        door.back = Admission::new(9, 1);
        let address = [192, 0, 2, 1].into();

        let (_client, server) = pair().await;
        let says_back = async {
            let mut at_relay = passed(&relay).await;
            at_relay.write_all(&[handover::BACK]).await.unwrap();
            at_relay
        };
        let (found, at_relay) = tokio::join!(door.find_out(&handover, server, address), says_back);
        let held @ Admitted::Back(..) = found.unwrap() else { panic!("not back") };
        assert_eq!((door.back.count(), door.strangers.count()), (1, 0));
        let (_other, server) = pair().await;
        let found = door.find_out(&handover, server, address).await.unwrap();
        assert!(matches!(found, Admitted::Tls(_)), "no place: the relay is not asked");
        drop((held, at_relay));
        assert_eq!(door.back.count(), 0);

        // A relay that has no room itself took nothing of it.
        let (mut client, server) = pair().await;
        client.write_all(&[0x16]).await.unwrap();
        let refuses = async {
            let (at_relay, _) = relay.accept().await.unwrap();
            handover::tell_refused(&at_relay).unwrap();
        };
        let (found, ()) = tokio::join!(door.find_out(&handover, server, address), refuses);
        let Admitted::Tls(mut server) = found.unwrap() else { panic!("not served here") };
        assert_eq!(server.read_u8().await.unwrap(), 0x16);
        // One that ends without a word may have read of it.
        let (mut client, server) = pair().await;
        let ends = async { drop(passed(&relay).await) };
        let (found, ()) = tokio::join!(door.find_out(&handover, server, address), ends);
        assert!(found.is_err());
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "nobody has it");
        assert_eq!((door.back.count(), door.strangers.count()), (0, 0));
        // No more of framed media is known of one that was refused.
        let (_client, server) = pair().await;
        let (carried, at_relay) =
            tokio::join!(handover.carry(server, || panic!("it is not known")), async {
                handover::tell_refused(passed(&relay).await)
            });
        carried.unwrap();
        at_relay.unwrap();
    }

    #[tokio::test]
    async fn tls_passes_and_others_do_not() {
        let door = FrontDoor::new(None, Admission::new(1, 1));
        let (mut client, server) = pair().await;
        client.write_all(&[0x16, 3, 1]).await.unwrap();
        assert!(door.clone().admit(server).await.is_ok());
        let (mut client, server) = pair().await;
        client.write_all(&STUN).await.unwrap();
        let said = door.clone().admit(server).await.err().unwrap().to_string();
        assert!(said.contains("not served"));
        let (mut client, server) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(door.admit(server).await.is_err());
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("https://"), "{text}");
    }
}
