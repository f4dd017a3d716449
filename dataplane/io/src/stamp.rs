//! When the kernel hands a datagram to the network card: asked for one run of a send (SO_TIMESTAMPING as a control message,
//! SOF_TIMESTAMPING_TX_SOFTWARE), told by the socket's error queue. A kernel or a driver that does not say it says nothing.

use crate::cmsg::{self, Control};
use std::mem::size_of;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Bytes of the control message that asks for it.
pub(crate) const ASK_BYTES: usize = cmsg::align(cmsg::HEADER + size_of::<u32>());
/// Stamps read at a time: one is asked for at a time, and those of runs that were given up may come late.
const READS: usize = 4;

/// The control message that asks for it.
pub(crate) fn ask() -> [u8; ASK_BYTES] {
    let mut out = [0; ASK_BYTES];
    let length = cmsg::HEADER + size_of::<u32>();
    out[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
    out[cmsg::LEVEL..cmsg::LEVEL + 4].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    out[cmsg::TYPE..cmsg::TYPE + 4].copy_from_slice(&libc::SO_TIMESTAMPING.to_ne_bytes());
    out[cmsg::HEADER..length].copy_from_slice(&libc::SOF_TIMESTAMPING_TX_SOFTWARE.to_ne_bytes());
    out
}

/// The newest stamp in the socket's error queue, in wall-clock nanoseconds since 1970; the queue is empty afterwards.
pub(crate) fn read(socket: &UdpSocket) -> Option<u64> {
    let mut newest = None;
    for _ in 0..READS {
        let mut control = Control([0; cmsg::BYTES]);
        // SAFETY: a msghdr is integers and pointers, for which zeroes are "none".
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_control = (&raw mut control.0).cast();
        header.msg_controllen = cmsg::BYTES as _;
        // SAFETY: the header points at a control buffer of the length that it says, which outlives the call, and at
        // nothing else. Worth it: std reads no error queues.
        let got = unsafe {
            libc::recvmsg(
                socket.as_raw_fd(),
                &raw mut header,
                libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
            )
        };
        if got < 0 {
            break;
        }
        let said = control.0.get(..header.msg_controllen).unwrap_or_default();
        newest = cmsg::read(said).realtime_ns.or(newest);
    }
    newest
}

#[cfg(test)]
mod tests {
    use crate::{Backend, Clock, Options, bind};
    use std::net::{IpAddr, UdpSocket};
    use strait_core::egress::Egress;
    use strait_core::port::{Path, Port, Protocol};
    use strait_core::time::Duration;

    #[test]
    fn one_run_of_a_send_is_stamped_on_both_ways() {
        for (backend, ip) in [
            (Backend::Mmsg, "127.0.0.1"),
            (Backend::Mmsg, "::1"),
            (Backend::Uring, "127.0.0.1"),
            (Backend::Uring, "::1"),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            let options = Options { udp: vec![ip], backend, ..Options::default() };
            let mut port = bind(&options).unwrap().ports.remove(0);
            let client = UdpSocket::bind((ip, 0)).unwrap();
            let remote = client.local_addr().unwrap();
            let path = Path::udp(ip, remote);
            let mut egress = Egress::default();
            port.send(&mut egress);
            assert_eq!((port.is_stamping(), port.stamp()), (false, None), "nothing was asked");
            for place in 0..70 {
                // More runs than one batch, of lengths that make each a run of its own, and runs of several.
                for n in 0..66_usize {
                    assert!(egress.push(path, &vec![7; 100 + n]));
                    assert!(n % 2 == 0 || egress.push(path, &vec![7; 100 + n]));
                }
                let before = Clock.instant();
                port.stamp_next(place);
                port.send(&mut egress);
                assert!(port.is_stamping());
                let stamp = port.stamp().expect("loopback stamps within the call");
                assert!(before <= stamp && stamp <= Clock.instant(), "run {place}");
                assert_eq!((port.is_stamping(), port.stamp()), (false, None), "told once");
            }
            // What is in the error queue neither ends waits early nor reads as a datagram.
            let now = Clock.instant();
            let until = now + Duration::from_millis(5);
            port.wait(now, Some(until));
            assert_eq!(port.receive(Clock.instant(), |_, _| {}), 0);
        }
    }

    #[test]
    fn a_stamp_that_nobody_fetched_disturbs_nothing() {
        for backend in [Backend::Mmsg, Backend::Uring] {
            let ip: IpAddr = [127, 0, 0, 1].into();
            let options = Options { udp: vec![ip], backend, ..Options::default() };
            let mut bound = bind(&options).unwrap();
            let port = &mut bound.ports[0];
            let client = UdpSocket::bind((ip, 0)).unwrap();
            let path = Path::udp(ip, client.local_addr().unwrap());
            let mut egress = Egress::default();
            for _ in 0..3 {
                assert!(egress.push(path, b"stamped"));
                port.stamp_next(0);
                port.send(&mut egress);
                client.send_to(b"media", bound.udp[0]).unwrap();
                let mut seen = 0;
                let began = Clock.instant();
                while seen == 0 && Clock.instant().since(began) < Duration::from_secs(5) {
                    let now = Clock.instant();
                    port.wait(now, Some(now + Duration::from_millis(500)));
                    seen += port.receive(Clock.instant(), |_, bytes| assert_eq!(bytes, b"media"));
                }
                assert_eq!(seen, 1, "{backend:?}");
            }
            // Once the queue was found and emptied, the wait lasts.
            let began = Clock.instant();
            let mut turns = 0;
            while Clock.instant().since(began) < Duration::from_millis(30) {
                let now = Clock.instant();
                port.wait(now, Some(now + Duration::from_millis(10)));
                port.receive(Clock.instant(), |_, _| {});
                turns += 1;
            }
            assert!(turns < 20, "{turns} turns in 30 ms: the wait does not sleep");
            // A frame of a connection is not stamped, and nothing is waited for.
            assert!(egress.push(Path { protocol: Protocol::Tcp, ..path }, b"frame"));
            port.stamp_next(0);
            port.send(&mut egress);
            assert!(!port.is_stamping());
        }
    }
}
