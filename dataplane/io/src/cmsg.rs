//! Control messages of a datagram: which local address, when, with which ECN bits. Read and written as bytes.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Room for all that we ask for: timestamp, packet information, traffic class, overflow count.
pub(crate) const BYTES: usize = 192;

pub(crate) const HEADER: usize = align(size_of::<libc::cmsghdr>());
pub(crate) const LEVEL: usize = offset_of!(libc::cmsghdr, cmsg_level);
pub(crate) const TYPE: usize = offset_of!(libc::cmsghdr, cmsg_type);

/// A control buffer.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Control(pub(crate) [u8; BYTES]);

/// Room for what is said of a datagram that is sent: the source, and the size of a run's datagrams.
pub(crate) const SEND_BYTES: usize =
    align(HEADER + size_of::<libc::in6_pktinfo>()) + align(HEADER + size_of::<u16>());

/// A control buffer for sending.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct SendControl(pub(crate) [u8; SEND_BYTES]);

/// What the kernel says of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ancillary {
    pub(crate) local: Option<IpAddr>,
    pub(crate) ecn: u8,
    /// Wall-clock nanoseconds since 1970.
    pub(crate) realtime_ns: Option<u64>,
    /// Datagrams that this socket lost since it was made.
    pub(crate) overflows: Option<u32>,
    /// Bytes of each datagram but the last, if several came as one message (udp(7), UDP_GRO).
    pub(crate) segment: Option<usize>,
}

/// Reads the control messages of a received datagram; unknown ones are passed over.
pub(crate) fn read(control: &[u8]) -> Ancillary {
    let mut found = Ancillary::default();
    let mut rest = control;
    while let Some((level, kind, data, next)) = split(rest) {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                let seconds = number::<8>(data, 0).map(u64::from_ne_bytes);
                let nanoseconds = number::<8>(data, 8).map(u64::from_ne_bytes);
                found.realtime_ns = seconds
                    .zip(nanoseconds)
                    .and_then(|(s, ns)| s.checked_mul(1_000_000_000)?.checked_add(ns));
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                found.overflows = number::<4>(data, 0).map(u32::from_ne_bytes);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                found.segment =
                    number::<4>(data, 0).and_then(|size| i32::from_ne_bytes(size).try_into().ok());
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let at = offset_of!(libc::in_pktinfo, ipi_addr);
                found.local = number::<4>(data, at).map(|ip| Ipv4Addr::from(ip).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                found.local = number::<16>(data, 0).map(|ip| Ipv6Addr::from(ip).into());
            }
            // The kernel sends one byte for IPv4 and an int for IPv6; the two low bits are in the first byte of a
            // little-endian int.
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                found.ecn = data.first().map_or(0, |tos| tos & 3);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                found.ecn =
                    number::<4>(data, 0).map_or(0, |class| (i32::from_ne_bytes(class) & 3) as u8);
            }
            _ => {}
        }
        rest = next;
    }
    found
}

/// Writes the message that makes a datagram leave from `local`. Returns its length.
/// `interface` is 0, or the scope of a link-local address.
pub(crate) fn write_source(control: &mut SendControl, local: IpAddr, interface: u32) -> usize {
    let mut data = [0_u8; size_of::<libc::in6_pktinfo>()];
    let (level, kind, length) = match local {
        IpAddr::V4(ip) => {
            let at = offset_of!(libc::in_pktinfo, ipi_spec_dst);
            data[at..at + 4].copy_from_slice(&ip.octets());
            (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of::<libc::in_pktinfo>())
        }
        IpAddr::V6(ip) => {
            data[..16].copy_from_slice(&ip.octets());
            data[16..20].copy_from_slice(&interface.to_ne_bytes());
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, size_of::<libc::in6_pktinfo>())
        }
    };
    let out = &mut control.0;
    out[..size_of::<usize>()].copy_from_slice(&(HEADER + length).to_ne_bytes());
    out[LEVEL..LEVEL + 4].copy_from_slice(&level.to_ne_bytes());
    out[TYPE..TYPE + 4].copy_from_slice(&kind.to_ne_bytes());
    out[HEADER..HEADER + length].copy_from_slice(&data[..length]);
    align(HEADER + length)
}

/// Writes, behind `at` bytes of messages, the one that cuts the bytes into datagrams of `size` (udp(7), UDP_SEGMENT).
/// Returns the length of all.
pub(crate) fn write_segment(control: &mut SendControl, at: usize, size: u16) -> usize {
    let length = size_of::<u16>();
    if let Some(out) = control.0.get_mut(at..at + align(HEADER + length)) {
        out.fill(0);
        out[..size_of::<usize>()].copy_from_slice(&(HEADER + length).to_ne_bytes());
        out[LEVEL..LEVEL + 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        out[TYPE..TYPE + 4].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        out[HEADER..HEADER + length].copy_from_slice(&size.to_ne_bytes());
    }
    at + align(HEADER + length)
}

/// Level, type, data of the first message, and the bytes after it.
pub(crate) fn split(control: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let length = usize::from_ne_bytes(number(control, 0)?);
    let level = i32::from_ne_bytes(number(control, LEVEL)?);
    let kind = i32::from_ne_bytes(number(control, TYPE)?);
    let data = control.get(HEADER..length)?;
    Some((level, kind, data, control.get(align(length)..).unwrap_or_default()))
}

fn number<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// `CMSG_ALIGN`.
pub(crate) const fn align(length: usize) -> usize {
    length.saturating_add(size_of::<usize>() - 1) & !(size_of::<usize>() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_c_librarys() {
        // SAFETY: pure arithmetic.
        let (space, length) = unsafe { (libc::CMSG_SPACE(12), libc::CMSG_LEN(12)) };
        assert_eq!(align(HEADER + 12), space as usize);
        assert_eq!(HEADER + 12, length as usize);
    }

    #[test]
    fn a_written_source_reads_as_written() {
        for text in ["2001:db8::9", "::1"] {
            let mut control = SendControl([0; SEND_BYTES]);
            let length = write_source(&mut control, text.parse().unwrap(), 3);
            assert_eq!(read(&control.0[..length]).local, text.parse().ok());
        }
    }

    #[test]
    fn broken_control_bytes_say_nothing() {
        for length in 0..64_usize {
            let mut bytes = [0xff_u8; 64];
            assert_eq!(read(&bytes[..length]), Ancillary::default());
            bytes[..8].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(read(&bytes), Ancillary::default());
        }
    }
}
