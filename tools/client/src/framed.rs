//! The connection for framed media beside the link: RFC 4571 over TLS.

use crate::error::Error;
use crate::tls::Tls;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use strait_link::MEDIA_ALPN;
use strait_wire::framing;
use tokio::time::timeout;

/// How long it may take to open. Meanwhile media goes over the link.
const OPEN: Duration = Duration::from_secs(15);
/// Media is left out where more waits to be sent.
const LATE: usize = 64 << 10;

type Opening = Pin<Box<dyn Future<Output = Result<Box<Tls>, Error>> + Send>>;

/// See above.
#[derive(Default)]
pub enum Framed {
    /// There is none.
    #[default]
    None,
    /// It is being opened.
    Opening(Opening),
    /// It is open.
    Open(Open),
}

/// What is open.
pub struct Open {
    tls: Box<Tls>,
    /// What came, up to a whole frame.
    came: Vec<u8>,
    /// Frames that go together.
    out: Vec<u8>,
}

/// What happened.
pub enum Happened {
    /// It is open.
    Opened,
    /// Packets came.
    Packets(Vec<Vec<u8>>),
    /// It broke, or cannot be had.
    Lost,
}

impl Framed {
    /// Begins, with a connection over which TLS is up.
    pub fn open(
        connecting: impl Future<Output = Result<Box<Tls>, Error>> + Send + 'static,
    ) -> Self {
        Self::Opening(Box::pin(async move {
            let late = |_| Error::Connect { what: "framed media".into(), why: "too slow".into() };
            let tls = timeout(OPEN, connecting).await.map_err(late)??;
            match tls.alpn() {
                Some(MEDIA_ALPN) => Ok(tls),
                _ => Err(Error::Protocol("the node takes no framed media".into())),
            }
        }))
    }

    /// What happens next. Cancelled without loss.
    pub async fn turn(&mut self) -> Happened {
        match self {
            Self::None => std::future::pending().await,
            Self::Opening(opening) => match opening.await {
                Ok(tls) => {
                    *self = Self::Open(Open { tls, came: Vec::new(), out: Vec::new() });
                    Happened::Opened
                }
                Err(_) => self.lost(),
            },
            Self::Open(open) => match open.tls.turn().await {
                Ok(bytes) => Happened::Packets(open.packets(&bytes)),
                Err(_) => self.lost(),
            },
        }
    }

    /// Sends a packet with the next [`Framed::flush`], unless much waits already.
    pub fn send(&mut self, packet: &[u8]) {
        if let (Self::Open(open), Some(prefix)) = (self, framing::prefix(packet.len()))
            && open.tls.waiting() + open.out.len() < LATE
        {
            open.out.extend_from_slice(&prefix);
            open.out.extend_from_slice(packet);
        }
    }

    /// Sends what [`Framed::send`] kept. False: the connection broke.
    pub fn flush(&mut self) -> bool {
        let Self::Open(open) = self else { return true };
        if open.out.is_empty() {
            return true;
        }
        let sent = open.tls.send(&open.out).is_ok();
        open.out.clear();
        if !sent {
            *self = Self::None;
        }
        sent
    }

    fn lost(&mut self) -> Happened {
        *self = Self::None;
        Happened::Lost
    }
}

impl Open {
    fn packets(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.came.extend_from_slice(bytes);
        let (mut packets, mut rest) = (Vec::new(), self.came.as_slice());
        while let Some((frame, after)) = framing::split(rest) {
            packets.push(framing::packet(frame).to_vec());
            rest = after;
        }
        let gone = self.came.len() - rest.len();
        self.came.drain(..gone);
        packets
    }
}
