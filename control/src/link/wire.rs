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

use super::ahead::Ahead;
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

    /// The client did not read the last messages in time.
    fn give_up(&mut self) {}

    /// Keeps below no more than so many bytes of what is written, beside those on their way: what is
    /// said later waits behind them. None: as many as there is room for.
    fn limit_unsent(&mut self, _: Option<usize>) {}
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
    /// Bytes of packets that were begun, for which messages that can wait may have their turn.
    media_begun: usize,
    is_flushed: bool,
    /// Since when nothing of what waits could be written.
    blocked: Option<Instant>,
    /// The stream took nothing at all of it.
    is_full: bool,
    alive: Instant,
    /// Until when nothing but confirmations and media is taken: its client spoke too fast.
    held: Option<Instant>,
    /// What came meanwhile and has to wait.
    ahead: Ahead,
    /// How it ended behind that.
    end: Option<End>,
    /// Something was put off until there is room.
    is_awaited: bool,
}

impl Wire {
    /// Takes messages as large as a stranger's.
    pub fn new(mut stream: Box<dyn Stream>) -> Self {
        stream.limit_unsent(Some(limits::LINK_UNSENT_BYTES));
        Self {
            stream,
            frames: Frames::new(),
            most: STRANGER_BYTES,
            out: Vec::new(),
            written: 0,
            backlog: 0,
            media: VecDeque::new(),
            media_bytes: 0,
            media_begun: 0,
            is_flushed: true,
            blocked: None,
            is_full: false,
            alive: Instant::now(),
            held: None,
            ahead: Ahead::default(),
            end: None,
            is_awaited: false,
        }
    }

    /// Takes messages up to this size from now on.
    pub fn set_most(&mut self, bytes: usize) {
        self.most = bytes;
    }

    /// The next message, or none when there is room where somebody waits for that; meanwhile writes
    /// what waits. Nothing is lost when it is dropped.
    ///
    /// # Errors
    /// [`End`].
    pub async fn next(&mut self) -> Result<Option<ClientMessage>, End> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next message.
    ///
    /// # Errors
    /// [`End`].
    pub async fn message(&mut self) -> Result<ClientMessage, End> {
        loop {
            if let Some(message) = self.next().await? {
                return Ok(message);
            }
        }
    }

    /// Takes nothing but confirmations and media until then. The rest is read ahead, so that they are
    /// found behind it; beyond a bound it fills the client's own buffers.
    pub fn hold(&mut self, until: Instant) {
        self.held = Some(until);
    }

    /// Until when nothing but confirmations and media is taken.
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
        let is_held = self.is_held();
        if !is_held && !self.ahead.is_empty() {
            return self.ahead.next(self.most).map_err(End::Unreadable);
        }
        while !is_held || self.ahead.has_room() {
            match self.frames.peek::<ClientMessage>(self.most) {
                Ok(Some((message, bytes))) if is_held && !is_free(&message) => {
                    self.ahead.put(&mut self.frames, bytes);
                }
                Ok(Some((message, bytes))) => {
                    self.frames.skip(bytes);
                    return Ok(Some(message));
                }
                Ok(None) => break,
                Err(error) => {
                    self.ended(End::Unreadable(error))?;
                    break;
                }
            }
        }
        match self.end.take_if(|_| !is_held) {
            Some(end) => Err(end),
            None => Ok(None),
        }
    }

    /// Whether what comes is read.
    fn reads_on(&mut self) -> bool {
        self.end.is_none() && (!self.is_held() || self.ahead.has_room())
    }

    /// Whether nothing more comes, and nobody may be there to hear anything.
    pub fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    /// What it means that nothing more comes: the end of all may be in the middle of a message.
    fn cut(&self, error: io::Error) -> End {
        match self.frames.waiting() {
            bytes if bytes > 0 && error.kind() == io::ErrorKind::UnexpectedEof => {
                End::Unreadable(FrameError::Cut { bytes })
            }
            _ => End::Closed(error),
        }
    }

    /// Nothing more comes; what was read ahead has its turn before that is told.
    fn ended(&mut self, end: End) -> Result<(), End> {
        if self.ahead.is_empty() {
            return Err(end);
        }
        self.end.get_or_insert(end);
        Ok(())
    }

    /// Whether a message that can wait should be written now. Where not, [`Self::next`] says when.
    pub fn has_room(&mut self) -> bool {
        // Media goes first, but not for ever.
        let is_its_turn = self.media.is_empty() || self.media_begun >= limits::LINK_MEDIA_BYTES;
        self.is_awaited = !is_its_turn || self.waiting() >= limits::LINK_FEED_BYTES;
        !self.is_awaited
    }

    /// Sends one that can wait. What it takes of a line that media fills is a fifth.
    pub fn feed(&mut self, message: &ServerMessage) {
        let before = self.out.len();
        encode(message, &mut self.out);
        self.media_begun = self.media_begun.saturating_sub(4 * (self.out.len() - before));
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

    /// When somebody was there for certain: something came, or what the line had no room for went
    /// out, as others before it arrived.
    pub fn alive(&self) -> Instant {
        self.alive
    }

    /// Since when nothing of what waits could be written.
    pub fn blocked(&self) -> Option<Instant> {
        self.blocked
    }

    /// Writes what waits, for a short while, and ends the stream.
    pub async fn close(mut self) {
        // Nothing is said behind it: the system may send it when nobody waits for that any more.
        self.stream.limit_unsent(None);
        let rest = async {
            poll_fn(|cx| self.poll_out(cx)).await?;
            self.stream.shutdown().await
        };
        if timeout(limits::LINK_CLOSE_TIME, rest).await.is_err() {
            // Who does not read has had its time.
            self.stream.give_up();
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ClientMessage>, End>> {
        // What came before is heard also where nothing can be said any more.
        let broken = match self.poll_out(cx) {
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        loop {
            match self.try_next() {
                Ok(Some(message)) => return Poll::Ready(Ok(Some(message))),
                Ok(None) => {}
                Err(end) => return Poll::Ready(Err(end)),
            }
            // Media beside the stream is not what is held up.
            if !self.reads_on() {
                break;
            }
            let mut bytes = [0; limits::LINK_READ_BYTES];
            let mut bytes = ReadBuf::new(&mut bytes);
            let end = match Pin::new(&mut self.stream).poll_read(cx, &mut bytes) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => self.cut(error),
                Poll::Ready(Ok(())) if bytes.filled().is_empty() => {
                    self.cut(io::ErrorKind::UnexpectedEof.into())
                }
                Poll::Ready(Ok(())) => {
                    self.alive = Instant::now();
                    self.frames.push(bytes.filled());
                    continue;
                }
            };
            if let Err(end) = self.ended(end) {
                return Poll::Ready(Err(end));
            }
        }
        if let Some(error) = broken
            && let Err(end) = self.ended(End::Closed(error))
        {
            return Poll::Ready(Err(end));
        }
        if self.is_ended() {
            // What was read ahead waits for its turn alone.
            return Poll::Pending;
        }
        if self.is_awaited && self.has_room() {
            return Poll::Ready(Ok(None));
        }
        let packet = ready!(self.stream.poll_packet(cx)).map_err(End::Closed);
        Poll::Ready(packet.map(|packet| {
            self.alive = Instant::now();
            let body = Some(client_message::Body::Media(Media { packet }));
            Some(ClientMessage { request: 0, body })
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
                    let begun = self.media_begun + packet.len();
                    self.media_begun = begun.min(limits::LINK_MEDIA_BYTES);
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
                    // Otherwise it may only have found room beside what TLS still keeps.
                    if std::mem::take(&mut self.is_full) {
                        self.moved();
                    }
                    // Half of it at the least, or moving the rest would cost more than writing it.
                    if self.written > limits::LINK_MEDIA_BYTES.max(self.out.len() / 2) {
                        self.out.drain(..self.written);
                        self.written = 0;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.is_full = true;
                    self.blocked.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        if !self.is_flushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.is_flushed = true;
                    self.moved();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The stream goes on taking what is written.
    fn moved(&mut self) {
        if self.blocked.take().is_some() {
            self.alive = Instant::now();
        }
    }
}

/// Whether it is taken also from a client that spoke too fast: it does not count, and a confirmation
/// that waited behind messages would make its client a slow reader.
pub fn is_free(message: &ClientMessage) -> bool {
    use client_message::Body::{Media, MessageSeen, Pong};
    matches!(message.body, Some(Media(_) | MessageSeen(_) | Pong(_)))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use strait_link::v1::{MessageSeen, Ping};
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
            came = wire.next() => assert!(matches!(came, Ok(None)), "{came:?}"),
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

    /// What a client sends: pings with their tokens, confirmations with their numbers.
    fn said(pings: std::ops::RangeInclusive<u64>, seen: Option<u64>) -> Vec<u8> {
        let pings = pings.map(|token| client_message::Body::Ping(Ping { token }));
        let seen = seen.map(|number| client_message::Body::MessageSeen(MessageSeen { number }));
        let mut bytes = Vec::new();
        for body in pings.chain(seen) {
            encode(&ClientMessage { request: 0, body: Some(body) }, &mut bytes);
        }
        bytes
    }

    async fn token(wire: &mut Wire) -> u64 {
        match wire.message().await.unwrap().body {
            Some(client_message::Body::Ping(ping)) => ping.token,
            other => panic!("{other:?}"),
        }
    }

    async fn seen(wire: &mut Wire) -> u64 {
        match wire.message().await.unwrap().body {
            Some(client_message::Body::MessageSeen(seen)) => seen.number,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn who_is_held_is_read_for_its_confirmations_and_the_rest_keeps_its_order() {
        let (mut client, node) = tokio::io::duplex(4096);
        let mut wire = Wire::new(Box::new(node));
        client.write_all(&said(1..=3, Some(70))).await.unwrap();
        assert_eq!(token(&mut wire).await, 1);
        let until = Instant::now() + std::time::Duration::from_secs(3600);
        wire.hold(until);
        assert!(wire.send(&ping(7)));
        assert_eq!(seen(&mut wire).await, 70);
        assert!(matches!(wire.try_next(), Ok(None)));
        let mut got = Frames::new();
        pass(&mut wire, &mut client, &mut got).await;
        assert!(matches!(message(&mut got), Some(Body::Ping(ping)) if ping.token == 7));
        // It says more and ends its half: all of that has its turn before the end.
        client.write_all(&said(4..=5, Some(71))).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(seen(&mut wire).await, 71);
        let soon = std::time::Duration::from_millis(1);
        assert!(timeout(soon, wire.next()).await.is_err(), "it is held");
        // Whoever waits for it has to know when it goes on: nothing that comes wakes it.
        assert_eq!(wire.held(), Some(until));
        wire.hold(Instant::now());
        for expected in 2..=5 {
            assert_eq!(token(&mut wire).await, expected);
        }
        assert_eq!(wire.held(), None);
        assert!(matches!(wire.next().await, Err(End::Closed(_))));
    }

    #[tokio::test]
    async fn what_is_read_ahead_has_a_bound() {
        let (mut client, node) = tokio::io::duplex(64 << 10);
        let mut wire = Wire::new(Box::new(node));
        wire.hold(Instant::now() + std::time::Duration::from_secs(3600));
        let (bytes, room) = (said(1..=1000, None), 64 << 10);
        let written = Cell::new(0);
        let writer = async {
            loop {
                let rest = &bytes[written.get() % bytes.len()..];
                written.set(written.get() + client.write(rest).await.unwrap());
            }
        };
        let soon = std::time::Duration::from_secs(1);
        tokio::select! {
            end = wire.next() => panic!("{end:?}"),
            () = writer => {}
            () = tokio::time::sleep(soon) => {}
        }
        // A thousand are 9 bytes each, or a little less; beside them what is on its way.
        let most = limits::LINK_AHEAD_MESSAGES * bytes.len().div_ceil(1000);
        let most = most + room + limits::LINK_READ_BYTES;
        assert!((room..most).contains(&written.get()), "{}", written.get());
        drop(client);
        wire.hold(Instant::now());
        let mut count = 0;
        while let Ok(message) = wire.message().await {
            assert!(matches!(message.body, Some(client_message::Body::Ping(_))));
            count += 1;
        }
        assert!(count >= limits::LINK_AHEAD_MESSAGES, "{count}");
    }

    #[tokio::test]
    async fn large_messages_are_read_ahead_by_their_bytes() {
        let (mut client, node) = tokio::io::duplex(64 << 10);
        let mut wire = Wire::new(Box::new(node));
        wire.set_most(strait_link::MESSAGE_BYTES);
        wire.hold(Instant::now() + std::time::Duration::from_secs(3600));
        let large = strait_link::v1::SendMessage { payload: vec![7; 60_000], ..Default::default() };
        let large =
            ClientMessage { request: 0, body: Some(client_message::Body::SendMessage(large)) };
        let mut bytes = Vec::new();
        encode(&large, &mut bytes);
        let written = Cell::new(0);
        let writer = async {
            loop {
                client.write_all(&bytes).await.unwrap();
                written.set(written.get() + bytes.len());
            }
        };
        let soon = std::time::Duration::from_secs(1);
        tokio::select! {
            end = wire.next() => panic!("{end:?}"),
            () = writer => {}
            () = tokio::time::sleep(soon) => {}
        }
        let most = limits::LINK_AHEAD_BYTES + (64 << 10) + 2 * bytes.len();
        assert!((limits::LINK_AHEAD_BYTES..most).contains(&written.get()), "{}", written.get());
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told_when_there_is_some() {
        let (mut client, node) = tokio::io::duplex(4096);
        let mut wire = Wire::new(Box::new(node));
        let large =
            strait_link::v1::Statistics { json: "x".repeat(limits::LINK_FEED_BYTES + 4096) };
        let large = ServerMessage { request: 1, body: Some(Body::Statistics(large)) };
        assert!(wire.has_room() && wire.send(&large) && !wire.has_room());
        let mut bytes = [0; 4096];
        tokio::select! {
            biased;
            came = wire.next() => panic!("{came:?}"),
            () = std::future::ready(()) => {}
        }
        client.read_exact(&mut bytes).await.unwrap();
        assert!(matches!(wire.next().await, Ok(None)));
        assert!(wire.has_room());
        // Media goes first, and leaves messages a share.
        let (mut got, mut media) = (Frames::new(), 0);
        for _ in 0..2 * limits::LINK_MEDIA_BYTES / 500 {
            wire.send_media(vec![1; 500]);
            wire.send_media(vec![2; 500]);
            if wire.has_room() {
                break;
            }
            media += 1;
            pass(&mut wire, &mut client, &mut got).await;
        }
        assert!((50..150).contains(&media), "{media}");
        wire.feed(&ping(7));
        assert!(!wire.has_room());
    }

    impl Stream for tokio::io::BufStream<tokio::io::DuplexStream> {}

    #[tokio::test]
    async fn who_takes_what_waits_lives_and_room_in_a_buffer_says_nothing() {
        let (mut client, node) = tokio::io::duplex(64);
        // As TLS does, it takes what the line has no room for.
        let mut wire = Wire::new(Box::new(tokio::io::BufStream::with_capacity(64, 100, node)));
        (0..10).for_each(|n| assert!(wire.send(&ping(n))));
        let poll = async |wire: &mut Wire| {
            tokio::select! {
                biased;
                came = wire.next() => panic!("{came:?}"),
                () = std::future::ready(()) => {}
            }
            (wire.blocked(), wire.alive())
        };
        let (blocked, alive) = poll(&mut wire).await;
        assert!(blocked.is_some());
        for n in 0..20 {
            assert!(wire.send(&ping(n)));
            assert_eq!(poll(&mut wire).await, (blocked, alive), "the line took nothing");
        }
        assert!(wire.waiting() > 0, "that was more than the buffer takes");
        let mut bytes = [0; 64];
        let mut last = alive;
        while wire.blocked().is_some() {
            client.read_exact(&mut bytes).await.unwrap();
            let (_, alive) = poll(&mut wire).await;
            assert!(alive >= last);
            last = alive;
        }
        assert!(last > alive);
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
