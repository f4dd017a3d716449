//! rtpengine as a peer, in user space: an offer and an answer for each pair over its ng protocol, RTP to RTP, so that it
//! passes the bytes on without a cipher of its own.
//!
//! Configured for throughput on one core: one worker thread, and nothing logged or recorded.

use crate::bed::{Bed, CLIENT, SERVER, Side};
use crate::bencode::{Value, text};
use crate::pairs::{Pairs, Relayed, refused};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use strait_load::signalling::{Joined, PublisherJoin, SubscriberJoin};
use strait_load::{Signalling, SignallingError};

const PROGRAM: &str = "/usr/bin/rtpengine";
/// The port for its ng protocol.
const PORT: u16 = 2223;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A command is repeated after this while it is not answered: with the same cookie it is the same command.
const AGAIN: Duration = Duration::from_millis(300);
/// The longest answer.
const MESSAGE_BYTES: usize = 16 << 10;

/// An rtpengine that runs in the bed.
#[derive(Debug)]
pub struct Rtpengine {
    child: Child,
}

impl Rtpengine {
    /// Whether it is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Starts it.
    ///
    /// # Errors
    /// It is not there.
    pub fn start(bed: &Bed) -> io::Result<Self> {
        let child = bed
            .command(Side::Server, Path::new(PROGRAM))
            // No kernel module, no file of the host's own service.
            .args(["--table=-1", "--config-file=none", "--foreground", "--log-stderr"])
            .args(["--log-level=2", "--num-threads=1", "--endpoint-learning=off"])
            .args([format!("--interface={SERVER}"), format!("--listen-ng={SERVER}:{PORT}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Rtpengine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its ng protocol, as the load calls it.
#[derive(Debug)]
pub struct RtpengineApi {
    pairs: Pairs,
    socket: UdpSocket,
    cookies: u64,
}

impl RtpengineApi {
    /// For so many pairs.
    ///
    /// # Errors
    /// The system has no socket, or no randomness.
    pub fn new(pairs: u16) -> Result<Self, SignallingError> {
        let socket = UdpSocket::bind((CLIENT, 0)).and_then(|socket| {
            socket.connect((SERVER, PORT))?;
            socket.set_read_timeout(Some(AGAIN))?;
            Ok(socket)
        });
        let socket = socket.map_err(unreachable)?;
        Ok(Self { pairs: Pairs::new(pairs)?, socket, cookies: 0 })
    }

    /// Tells it of one side, and returns where the other side finds it.
    fn describe(
        &mut self,
        command: &str,
        call: &str,
        tags: &[(&'static str, &str)],
        (side, payload_type): (SocketAddr, u8),
    ) -> Result<SocketAddr, SignallingError> {
        let mut entries = vec![
            ("command", text(command)),
            ("call-id", text(call)),
            ("ICE", text("remove")),
            ("transport-protocol", text("RTP/AVP")),
            ("flags", Value::List(vec![text("trust-address")])),
            ("rtcp-mux", Value::List(vec![text("offer"), text("accept")])),
            ("sdp", text(&sdp(side, payload_type))),
        ];
        entries.extend(tags.iter().map(|(name, tag)| (*name, text(tag))));
        let answer = self.call(&Value::dictionary(entries))?;
        let sdp = answer.get("sdp").and_then(Value::as_text);
        let address = sdp.and_then(media_address);
        address.ok_or_else(|| {
            let why = answer.get("error-reason").and_then(Value::as_text).unwrap_or("no address");
            refused(format!("rtpengine: {command}: {why}"))
        })
    }

    /// One command and its answer.
    fn call(&mut self, command: &Value) -> Result<Value, SignallingError> {
        self.cookies += 1;
        let cookie = format!("{:x}-{} ", std::process::id(), self.cookies);
        let mut request = cookie.clone().into_bytes();
        command.write(&mut request);
        let start = Instant::now();
        let mut answer = vec![0; MESSAGE_BYTES];
        while start.elapsed() < ANSWER_WITHIN {
            // Nobody listens at first, which the next call on the socket says.
            let told = self.socket.send(&request).and_then(|_| self.socket.recv(&mut answer));
            match told {
                Ok(length) => {
                    let answer = answer.get(..length).unwrap_or_default();
                    if let Some(body) = answer.strip_prefix(cookie.as_bytes()) {
                        return Value::read(body)
                            .ok_or_else(|| refused("rtpengine answers in no bencode"));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        Err(unreachable(io::ErrorKind::TimedOut.into()))
    }
}

impl Signalling for RtpengineApi {
    fn join_publisher(&mut self, join: &PublisherJoin) -> Result<Joined, SignallingError> {
        let ends = self.pairs.ends(join)?;
        let (call, pt) = (join.scope.as_str(), join.stream.codec.payload_type);
        let to_receiver =
            self.describe("offer", call, &[("from-tag", "sender")], (ends.sender, pt))?;
        let tags = [("from-tag", "sender"), ("to-tag", "receiver")];
        let to_sender = self.describe("answer", call, &tags, (ends.receiver, pt))?;
        Ok(self.pairs.publisher(join, Relayed { to_sender, channel: None, to_receiver }))
    }

    fn join_subscriber(&mut self, join: &SubscriberJoin) -> Result<Joined, SignallingError> {
        self.pairs.subscriber(join)
    }

    /// Calls go with the server.
    fn end(&mut self) {}
}

fn unreachable(error: io::Error) -> SignallingError {
    SignallingError::Unreachable(format!("rtpengine at {SERVER}:{PORT}: {error}"))
}

/// The shortest description of one video stream in both directions.
fn sdp(address: SocketAddr, payload_type: u8) -> String {
    let (ip, port) = (address.ip(), address.port());
    [
        "v=0",
        &format!("o=- 1 1 IN IP4 {ip}"),
        "s=-",
        &format!("c=IN IP4 {ip}"),
        "t=0 0",
        &format!("m=video {port} RTP/AVP {payload_type}"),
        &format!("a=rtpmap:{payload_type} VP8/90000"),
        "a=rtcp-mux",
        "",
    ]
    .join("\r\n")
}

/// Where media is received by who wrote this.
fn media_address(sdp: &str) -> Option<SocketAddr> {
    let line = |prefix| sdp.lines().find_map(|line: &str| line.trim().strip_prefix(prefix));
    let ip = line("c=IN IP4 ")?.parse().ok()?;
    let port = line("m=video ")?.split(' ').next()?.parse().ok()?;
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_says_where() {
        let address: SocketAddr = "192.0.2.7:21000".parse().unwrap();
        let sdp = sdp(address, 96);
        assert!(sdp.ends_with("a=rtcp-mux\r\n"), "{sdp}");
        assert_eq!(media_address(&sdp), Some(address));
        assert_eq!(media_address("v=0\r\n"), None);
    }
}
