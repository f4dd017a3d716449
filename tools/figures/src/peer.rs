//! Peers for measuring: str0m over a socket each, joined by WHIP or WHEP like any other client.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use str0m::change::SdpAnswer;
use str0m::format::Codec;
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use crate::http;
use crate::video::Camera;

/// How long a peer may take until it is connected.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// Largest datagram.
const DATAGRAM_BYTES: usize = 2048;

/// What a peer does in its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Publishes one audio stream, and is silent.
    Silent,
    /// Publishes one video stream.
    Camera,
    /// Watches one video stream.
    Watch,
}

/// Where peers join.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Plain HTTP of control.
    pub http: SocketAddr,
    /// The token of the development setup.
    pub token: &'static str,
}

/// A connected peer; it leaves the network, without a word, when it is dropped.
pub struct Peer {
    task: JoinHandle<()>,
    frames: Arc<AtomicU64>,
}

impl Peer {
    /// Joins a scope, and returns when ICE and DTLS are done.
    pub async fn join(server: Server, scope: &str, role: Role) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let local = socket.local_addr()?;
        let mut rtc = Rtc::builder()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .build(Instant::now());
        rtc.add_local_candidate(Candidate::host(local, "udp").map_err(io::Error::other)?);
        let (kind, direction, path) = match role {
            Role::Silent => (MediaKind::Audio, Direction::SendOnly, "whip"),
            Role::Camera => (MediaKind::Video, Direction::SendOnly, "whip"),
            Role::Watch => (MediaKind::Video, Direction::RecvOnly, "whep"),
        };
        let mut change = rtc.sdp_api();
        let mid = change.add_media(kind, direction, None, None, None);
        let (offer, pending) = change.apply().ok_or_else(|| io::Error::other("no offer"))?;
        let path = format!("/{path}/{scope}");
        let answer =
            http::post_sdp(server.http, &path, server.token, &offer.to_sdp_string()).await?;
        let answer = SdpAnswer::from_sdp_string(&answer).map_err(io::Error::other)?;
        rtc.sdp_api().accept_answer(pending, answer).map_err(io::Error::other)?;

        let frames = Arc::new(AtomicU64::new(0));
        let (connected, is_connected) = oneshot::channel();
        let session = Session {
            rtc,
            socket,
            local,
            connected: Some(connected),
            frames: Arc::clone(&frames),
            camera: (role == Role::Camera).then(|| (mid, Camera::new())),
        };
        let task = tokio::spawn(async move {
            if let Err(error) = session.run().await {
                eprintln!("a peer for measuring ended: {error}");
            }
        });
        let peer = Self { task, frames };
        match timeout(CONNECT_WITHIN, is_connected).await {
            Ok(Ok(())) => Ok(peer),
            Ok(Err(_)) => Err(io::Error::other("the peer ended before it was connected")),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("not connected within {CONNECT_WITHIN:?}"),
            )),
        }
    }

    /// Whole frames of media that arrived.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Session {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    connected: Option<oneshot::Sender<()>>,
    frames: Arc<AtomicU64>,
    camera: Option<(Mid, Camera)>,
}

impl Session {
    async fn run(mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        while self.rtc.is_alive() {
            let mut wake = self.drain().await?;
            if let Some((_, camera)) = self.camera.as_ref().filter(|_| self.connected.is_none()) {
                wake = wake.min(camera.next());
            }
            tokio::select! {
                read = self.socket.recv_from(&mut buffer) => {
                    // A refused port answers by an error here; the next check tells more.
                    let Ok((size, source)) = read else { continue };
                    let contents = buffer.get(..size).unwrap_or_default().try_into()?;
                    let destination = self.local;
                    let datagram = Receive { proto: Protocol::Udp, source, destination, contents };
                    self.rtc.handle_input(Input::Receive(Instant::now(), datagram))?;
                }
                () = sleep_until(wake.into()) => {
                    let now = Instant::now();
                    self.rtc.handle_input(Input::Timeout(now))?;
                    self.film(now)?;
                }
            }
        }
        Ok(())
    }

    /// Sends what is to be sent, and says when to come back.
    async fn drain(&mut self) -> Result<Instant, Box<dyn std::error::Error + Send + Sync>> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(until) => return Ok(until),
                Output::Transmit(datagram) => {
                    // What cannot be sent is lost, as on any network.
                    let _ = self.socket.send_to(&datagram.contents, datagram.destination).await;
                }
                Output::Event(Event::Connected) => {
                    if let Some(connected) = self.connected.take() {
                        // Nobody waits any more: the measurement gave up.
                        let _ = connected.send(());
                    }
                }
                Output::Event(Event::MediaData(_)) => {
                    self.frames.fetch_add(1, Ordering::Relaxed);
                }
                Output::Event(Event::KeyframeRequest(_)) => {
                    if let Some((_, camera)) = &mut self.camera {
                        camera.request_key_frame();
                    }
                }
                Output::Event(_) => {}
            }
        }
    }

    /// Writes the frame that is due, if this peer has a camera.
    fn film(&mut self, now: Instant) -> Result<(), str0m::RtcError> {
        let Some((mid, camera)) = self.camera.as_mut().filter(|_| self.connected.is_none()) else {
            return Ok(());
        };
        let Some(frame) = camera.film(now) else { return Ok(()) };
        let Some(writer) = self.rtc.writer(*mid) else { return Ok(()) };
        let Some(pt) =
            writer.payload_params().find(|p| p.spec().codec == Codec::Vp8).map(|p| p.pt())
        else {
            return Ok(());
        };
        let time = MediaTime::new(frame.rtp_time, Frequency::NINETY_KHZ);
        writer.write(pt, now, time, frame.bytes)
    }
}
