//! A bare loop that relays: one `recvfrom` and one `sendto` for each packet, nothing looked at, nothing checked. What no
//! server that receives packets one by one can be below.

use crate::bed::{Bed, CLIENT, SERVER, Side};
use crate::pairs::{Pairs, Relayed};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use strait_io::batch::Socket;
use strait_load::signalling::{Joined, PublisherJoin, SubscriberJoin};
use strait_load::{Signalling, SignallingError};

/// The port of the loop.
const PORT: u16 = 20_999;

/// Relays from each sender to its receiver, until the process ends.
///
/// # Errors
/// The port is taken.
pub fn relay(pairs: u16) -> io::Result<()> {
    // With the large buffers that servers have, too.
    let mut socket = Socket::bind((SERVER, PORT).into())?;
    socket.receive_runs(false)?;
    let socket = socket.try_clone()?;
    socket.set_nonblocking(false)?;
    let mut packet = [0; 2048];
    loop {
        // An error is that of an earlier send: nobody received there yet.
        let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
        let to = SocketAddr::new(CLIENT, from.port().wrapping_add(pairs));
        let _ = socket.send_to(packet.get(..length).unwrap_or_default(), to);
    }
}

/// The loop as a process in the bed.
#[derive(Debug)]
pub struct Bare {
    child: Child,
}

impl Bare {
    /// Starts it.
    ///
    /// # Errors
    /// The program is not there.
    pub fn start(bed: &Bed, programs: &Path, pairs: u32) -> io::Result<Self> {
        let mut command = bed.command(Side::Server, &programs.join("strait-compare"));
        command.args(["bare", "--pairs", &pairs.to_string()]).stdout(Stdio::null());
        Ok(Self { child: command.spawn()? })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It need not be told of anything.
#[derive(Debug)]
pub struct BareApi(Pairs);

impl BareApi {
    /// For so many pairs.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(pairs: u16) -> Result<Self, SignallingError> {
        Pairs::new(pairs).map(Self)
    }
}

impl Signalling for BareApi {
    fn join_publisher(&mut self, join: &PublisherJoin) -> Result<Joined, SignallingError> {
        let here = SocketAddr::new(SERVER, PORT);
        let relayed = Relayed { to_sender: here, channel: None, to_receiver: here };
        Ok(self.0.publisher(join, relayed))
    }

    fn join_subscriber(&mut self, join: &SubscriberJoin) -> Result<Joined, SignallingError> {
        self.0.subscriber(join)
    }

    fn end(&mut self) {}
}
