//! One link's stream: messages come out of it, messages and media go into it. Without tasks and
//! channels of its own, so that an idle link costs little.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use strait_link::v1::{ClientMessage, Media, ServerMessage, client_message, server_message::Body};
use strait_link::{FrameError, Frames, STRANGER_BYTES, encode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use crate::limits;

/// What a link runs over: TLS over TCP, or a stream of QUIC, where media has a way beside it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The next packet of media that came beside the stream.
    fn poll_packet(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        Poll::Pending
    }

    /// Sends a packet of media beside the stream.
    ///
    /// # Errors
    /// The packet, where that cannot be.
    fn send_packet(&mut self, packet: Vec<u8>) -> Result<(), Vec<u8>> {
        Err(packet)
    }
}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {}

/// Why a link ended.
#[derive(Debug)]
pub enum End {
    /// The client closed it, or the line broke.
    Closed(io::Error),
    /// What came cannot be told apart any more.
    Unreadable(FrameError),
}

/// A stream with messages on it.
pub struct Wire {
    stream: Box<dyn Stream>,
    frames: Frames,
    /// The largest message that is taken now.
    most: usize,
    out: Vec<u8>,
    written: usize,
    /// Bytes of what stood before the link began: they say nothing of how fast its client reads.
    backlog: usize,
    /// Packets for the client, not begun yet: messages go before them.
    media: VecDeque<Vec<u8>>,
    media_bytes: usize,
    is_flushed: bool,
    /// Since when nothing of what waits could be written.
    blocked: Option<Instant>,
    heard: Instant,
    /// Until when nothing is read: its client spoke too fast.
    held: Option<Instant>,
}

impl Wire {
    /// Takes messages as large as a stranger's.
    pub fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            frames: Frames::new(),
            most: STRANGER_BYTES,
            out: Vec::new(),
            written: 0,
            backlog: 0,
            media: VecDeque::new(),
            media_bytes: 0,
            is_flushed: true,
            blocked: None,
            heard: Instant::now(),
            held: None,
        }
    }

    /// Takes messages up to this size from now on.
    pub fn set_most(&mut self, bytes: usize) {
        self.most = bytes;
    }

    /// The next message; meanwhile writes what waits. Nothing is lost when it is dropped.
    ///
    /// # Errors
    /// [`End`].
    pub async fn next(&mut self) -> Result<ClientMessage, End> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Reads nothing until then: what the client says meanwhile fills its own buffers.
    pub fn hold(&mut self, until: Instant) {
        self.held = Some(until);
    }

    /// Until when nothing is read.
    pub fn held(&self) -> Option<Instant> {
        self.held
    }

    fn is_held(&mut self) -> bool {
        self.held.take_if(|until| *until <= Instant::now());
        self.held.is_some()
    }

    /// A message that came already.
    ///
    /// # Errors
    /// [`End::Unreadable`].
    pub fn try_next(&mut self) -> Result<Option<ClientMessage>, End> {
        if self.is_held() {
            return Ok(None);
        }
        self.frames.next(self.most).map_err(End::Unreadable)
    }

    /// Sends a message. False when too much waits: the client reads too slowly.
    pub fn send(&mut self, message: &ServerMessage) -> bool {
        encode(message, &mut self.out);
        self.waiting() <= limits::LINK_OUT_BYTES + self.backlog
    }

    /// Sends what stood before the link began. Its size is bounded where it was kept.
    pub fn send_backlog(&mut self, message: &ServerMessage) {
        let before = self.out.len();
        encode(message, &mut self.out);
        self.backlog += self.out.len() - before;
    }

    /// Bytes of messages that were not written yet.
    pub fn waiting(&self) -> usize {
        self.out.len() - self.written
    }

    /// Sends a packet beside the messages, or when none waits. Returns how many were dropped for it.
    pub fn send_media(&mut self, packet: Vec<u8>) -> u64 {
        let Err(packet) = self.stream.send_packet(packet) else { return 0 };
        self.media_bytes += packet.len();
        self.media.push_back(packet);
        let mut dropped = 0;
        // The oldest is worth least.
        while self.media_bytes > limits::LINK_MEDIA_BYTES {
            let Some(oldest) = self.media.pop_front() else { break };
            self.media_bytes -= oldest.len();
            dropped += 1;
        }
        dropped
    }

    /// When something came last.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// Since when nothing of what waits could be written.
    pub fn blocked(&self) -> Option<Instant> {
        self.blocked
    }

    /// Writes what waits, for a short while, and ends the stream.
    pub async fn close(mut self) {
        let rest = async {
            poll_fn(|cx| self.poll_out(cx)).await?;
            self.stream.shutdown().await
        };
        // Who does not read has had its time.
        let _ = timeout(limits::LINK_CLOSE_TIME, rest).await;
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<ClientMessage, End>> {
        if let Poll::Ready(Err(error)) = self.poll_out(cx) {
            return Poll::Ready(Err(End::Closed(error)));
        }
        // Media beside the stream is not what is held up.
        while !self.is_held() {
            match self.try_next() {
                Ok(Some(message)) => return Poll::Ready(Ok(message)),
                Ok(None) => {}
                Err(end) => return Poll::Ready(Err(end)),
            }
            let mut bytes = [0; limits::LINK_READ_BYTES];
            let mut bytes = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut bytes) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(End::Closed(error))),
                Poll::Ready(Ok(())) if bytes.filled().is_empty() => {
                    return Poll::Ready(Err(End::Closed(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(())) => {
                    self.heard = Instant::now();
                    self.frames.push(bytes.filled());
                }
            }
        }
        let packet = ready!(self.stream.poll_packet(cx)).map_err(End::Closed);
        Poll::Ready(packet.map(|packet| {
            self.heard = Instant::now();
            let body = Some(client_message::Body::Media(Media { packet }));
            ClientMessage { request: 0, body }
        }))
    }

    /// Writes all that waits, media last.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let rest = self.out.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.out.clear();
                (self.written, self.backlog) = (0, 0);
                if let Some(packet) = self.media.pop_front() {
                    self.media_bytes -= packet.len();
                    let body = Some(Body::Media(Media { packet }));
                    encode(&ServerMessage { request: 0, body }, &mut self.out);
                    continue;
                }
                // What was said in a burst must not keep its room.
                self.out.shrink_to(limits::LINK_READ_BYTES);
                break;
            }
            self.is_flushed = false;
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.written += written;
                    self.blocked = None;
                    // Half of it at the least, or moving the rest would cost more than writing it.
                    if self.written > limits::LINK_MEDIA_BYTES.max(self.out.len() / 2) {
                        self.out.drain(..self.written);
                        self.written = 0;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        if !self.is_flushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_flushed = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        self.blocked = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use strait_link::v1::Ping;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn ping(token: u64) -> ServerMessage {
        ServerMessage { request: 0, body: Some(Body::Ping(Ping { token })) }
    }

    fn message(bytes: &mut Frames) -> Option<Body> {
        bytes.next::<ServerMessage>(1 << 20).unwrap().and_then(|message| message.body)
    }

    /// Writes what can be written now, and reads it at the other end.
    async fn pass(wire: &mut Wire, client: &mut tokio::io::DuplexStream, into: &mut Frames) {
        tokio::select! {
            biased;
            end = wire.next() => panic!("{end:?}"),
            () = std::future::ready(()) => {}
        }
        let mut bytes = [0; 4096];
        let length = client.read(&mut bytes).await.unwrap();
        into.push(&bytes[..length]);
    }

    #[tokio::test]
    async fn messages_go_before_media_that_waits_and_after_none_that_began() {
        let (mut client, node) = tokio::io::duplex(64);
        let mut wire = Wire::new(Box::new(node));
        // The first packet is on its way when the message comes; the second waits.
        wire.send_media(vec![1; 500]);
        wire.send_media(vec![2; 500]);
        let mut got = Frames::new();
        pass(&mut wire, &mut client, &mut got).await;
        assert!(wire.send(&ping(7)));
        let mut order = Vec::new();
        while order.len() < 3 {
            pass(&mut wire, &mut client, &mut got).await;
            while let Some(body) = message(&mut got) {
                order.push(match body {
                    Body::Media(media) => u64::from(media.packet[0]),
                    Body::Ping(ping) => ping.token,
                    other => panic!("{other:?}"),
                });
            }
        }
        assert_eq!(order, [1, 7, 2]);
        assert_eq!(wire.blocked(), None);
    }

    #[tokio::test]
    async fn nothing_is_read_while_it_is_held_and_what_waits_is_written() {
        let (mut client, node) = tokio::io::duplex(4096);
        let mut wire = Wire::new(Box::new(node));
        let mut said = Vec::new();
        for token in [1, 2] {
            let body = Some(strait_link::v1::client_message::Body::Ping(Ping { token }));
            encode(&ClientMessage { request: 0, body }, &mut said);
        }
        client.write_all(&said).await.unwrap();
        wire.next().await.unwrap();
        let until = Instant::now() + std::time::Duration::from_secs(3600);
        wire.hold(until);
        assert!(wire.send(&ping(7)));
        assert!(matches!(wire.try_next(), Ok(None)));
        let mut got = Frames::new();
        pass(&mut wire, &mut client, &mut got).await;
        assert!(matches!(message(&mut got), Some(Body::Ping(ping)) if ping.token == 7));
        // Whoever waits for it has to know when it goes on: nothing that comes wakes it.
        assert_eq!(wire.held(), Some(until));
        wire.hold(Instant::now());
        wire.next().await.unwrap();
        assert_eq!(wire.held(), None);
    }

    #[tokio::test]
    async fn a_slow_reader_is_noticed_and_its_oldest_media_dropped() {
        let (client, node) = tokio::io::duplex(64);
        let mut wire = Wire::new(Box::new(node));
        let packets = limits::LINK_MEDIA_BYTES / 1000;
        let dropped: u64 = (0..2 * packets).map(|_| wire.send_media(vec![0; 1000])).sum();
        assert_eq!(dropped, packets as u64);
        assert_eq!(wire.blocked(), None);
        tokio::select! {
            biased;
            end = wire.next() => panic!("{end:?}"),
            () = std::future::ready(()) => {}
        }
        assert!(wire.blocked().is_some());
        let large = strait_link::v1::Statistics { json: "x".repeat(100_000) };
        let large = ServerMessage { request: 1, body: Some(Body::Statistics(large)) };
        let room = (0..20).take_while(|_| wire.send(&large)).count();
        assert_eq!(room, limits::LINK_OUT_BYTES / 100_000);
        drop(client);
        assert!(matches!(wire.next().await, Err(End::Closed(_))));
    }
}
