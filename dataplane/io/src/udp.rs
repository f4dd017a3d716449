//! One UDP socket: what is known of it, and what a message that came by it says.

use crate::clock::Conversion;
use crate::cmsg;
use crate::counters::{Counters, Drop};
use crate::cutting::Cutting;
use crate::stamp;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use strait_core::egress::Egress;
use strait_core::limits::DATAGRAM_BYTES;
use strait_core::port::{LocalPort, Meta, Path, Protocol};

/// A socket of one worker.
#[derive(Debug)]
pub(crate) struct Udp {
    pub(crate) socket: UdpSocket,
    pub(crate) place: Place,
    /// For whoever is in no call yet: it is read, and never sent from.
    pub(crate) strangers: bool,
    pub(crate) cutting: Cutting,
    /// How many datagrams the kernel said that it lost.
    overflows: u32,
    /// A stamp was asked for, so that the error queue may hold one.
    pub(crate) stamps: bool,
    /// The newest stamp that was found when nobody waited for it.
    stamp: Option<u64>,
}

/// What a socket is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) port: LocalPort,
}

impl Place {
    /// Whether what goes this way is to be sent from here.
    pub(crate) fn sends(&self, path: &Path) -> bool {
        let same_family = self.address.is_ipv6() == path.local.is_ipv6();
        path.protocol == Protocol::Udp
            && self.port == path.port
            && (self.address == path.local || (self.address.is_unspecified() && same_family))
    }

    /// The place among the runs sent from here of the one that is to be stamped, if that is one of them.
    pub(crate) fn stamped(&self, egress: &Egress, stamped: Option<usize>) -> Option<usize> {
        let stamped = stamped?;
        egress.runs().nth(stamped).filter(|run| self.sends(&run.path))?;
        Some(egress.runs().take(stamped).filter(|run| self.sends(&run.path)).count())
    }
}

/// A message as the kernel gave it: one datagram, or several of one size that came together (UDP_GRO).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) from: Option<SocketAddr>,
    pub(crate) control: &'a [u8],
    /// Bytes of the datagrams.
    pub(crate) length: usize,
    pub(crate) truncated: bool,
}

/// A datagram, and where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) meta: Meta,
    /// Which buffer.
    pub(crate) buffer: u32,
    /// Where in it.
    pub(crate) bytes: Range<u32>,
}

impl Found {
    /// A datagram that fills a buffer from its beginning on.
    pub(crate) fn whole(meta: Meta, buffer: u32, length: usize) -> Self {
        Self { meta, buffer, bytes: 0..length as u32 }
    }
}

impl Udp {
    pub(crate) fn new(socket: UdpSocket, port: LocalPort, strangers: bool) -> io::Result<Self> {
        let place = Place { address: socket.local_addr()?.ip(), port };
        let cutting = Cutting::default();
        Ok(Self { socket, place, strangers, cutting, overflows: 0, stamps: false, stamp: None })
    }

    /// Takes the stamps out of the error queue: as long as one is in it, waits for the socket end at once.
    pub(crate) fn keep_stamp(&mut self) {
        if self.stamps {
            self.stamp = stamp::read(&self.socket).or(self.stamp);
        }
    }

    /// The newest stamp since the last call, in wall-clock nanoseconds.
    pub(crate) fn take_stamp(&mut self) -> Option<u64> {
        self.keep_stamp();
        self.stamp.take()
    }

    /// Adds the datagrams of a message that lies in `buffer` from `start` on.
    pub(crate) fn take(
        &mut self,
        message: Message<'_>,
        (buffer, start): (u32, usize),
        conversion: Conversion,
        counters: &mut Counters,
        found: &mut Vec<Found>,
    ) {
        let ancillary = cmsg::read(message.control);
        if let Some(overflows) = ancillary.overflows {
            let lost = overflows.wrapping_sub(self.overflows);
            counters.add_drops(Drop::ReceiveOverflow, u64::from(lost));
            self.overflows = overflows;
        }
        let size = ancillary.segment.filter(|size| *size > 0).unwrap_or(message.length);
        let datagrams = message.length.div_ceil(size.max(1)).max(1);
        counters.packets_received += datagrams as u64;
        counters.bytes_received += message.length as u64;
        if size > DATAGRAM_BYTES || message.truncated {
            counters.add_drops(Drop::ReceiveTooBig, datagrams as u64);
            return;
        }
        let Some((local, remote)) = ancillary.local.zip(message.from) else {
            counters.add_drops(Drop::ReceiveNoAddress, datagrams as u64);
            return;
        };
        let path = Path { port: self.place.port, ..Path::udp(local, remote) };
        let at = conversion.arrival(ancillary.realtime_ns);
        let meta = Meta { path, at, ecn: ancillary.ecn };
        for n in 0..datagrams {
            let (from, to) = (n * size, message.length.min((n + 1) * size));
            let bytes = (start + from) as u32..(start + to) as u32;
            found.push(Found { meta, buffer, bytes });
        }
    }
}
