//! The load against a relay that sees bytes alone: both ends known at once, a key that the relay has not, channel data.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strait_load::signalling::{
    AgreedStream, Joined, PublisherJoin, RemoteTransport, Security, SubscriberJoin,
};
use strait_load::{Plan, Profile, Signalling, SignallingError};

const CHANNEL: u16 = 0x4abc;
const HELLO: &[u8] = b"hello";

/// Unwraps what comes on a channel and passes it on to the port after the sender's.
struct Blind {
    socket: Arc<UdpSocket>,
    stop: Arc<AtomicBool>,
}

impl Blind {
    fn start() -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (reader, until) = (Arc::clone(&socket), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while !until.load(Ordering::Relaxed) {
                let Ok((length, from)) = reader.recv_from(&mut packet) else { continue };
                let Some((header, data)) = packet[..length].split_first_chunk::<4>() else {
                    continue;
                };
                if packet[..length] == *HELLO {
                    reader.send_to(HELLO, from).unwrap();
                } else if header[..2] == CHANNEL.to_be_bytes()
                    && usize::from(u16::from_be_bytes([header[2], header[3]])) == data.len()
                {
                    let to = SocketAddr::new(from.ip(), from.port() + 1);
                    let _ = reader.send_to(data, to);
                }
            }
        });
        Self { socket, stop }
    }

    fn transport(&self, channel: Option<u16>) -> RemoteTransport {
        let profile = Profile::AeadAes128Gcm;
        let (key, salt) = (vec![7; profile.key_len()], vec![9; profile.salt_len()]);
        let security = Security::SessionKey { ice: None, profile, key, salt };
        RemoteTransport { address: self.socket.local_addr().unwrap(), channel, security }
    }
}

impl Signalling for Blind {
    fn join_publisher(&mut self, join: &PublisherJoin) -> Result<Joined, SignallingError> {
        // The socket is ours until we answer.
        let (socket, mut answer) = (&join.transport.socket, [0; 16]);
        socket.send_to(HELLO, self.socket.local_addr().unwrap()).unwrap();
        let heard = loop {
            match socket.recv(&mut answer) {
                Ok(length) => break &answer[..length],
                Err(_) => std::thread::yield_now(),
            }
        };
        assert_eq!(heard, HELLO);
        let stream = &join.stream;
        let agreed = AgreedStream::as_wanted(&stream.mid, &stream.codec, &stream.extensions);
        Ok(Joined { transport: self.transport(Some(CHANNEL)), streams: vec![agreed] })
    }

    fn join_subscriber(&mut self, join: &SubscriberJoin) -> Result<Joined, SignallingError> {
        let [wanted] = join.streams.as_slice() else { unreachable!() };
        let agreed = AgreedStream::as_wanted(&wanted.mid, &wanted.codec, &wanted.extensions);
        Ok(Joined { transport: self.transport(None), streams: vec![agreed] })
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn channel_data_reaches_the_next_port_under_a_key_that_the_relay_has_not() {
    let plan = Plan {
        subscribers: 1,
        local_addresses: vec!["127.0.0.1".parse().unwrap()],
        // Below those that the system gives away; another process of this test has others.
        first_port: Some(22_000 + (std::process::id() % 4000) as u16 * 2),
        warmup: Duration::from_millis(300),
        duration: Duration::from_secs(1),
        ..Plan::default()
    };
    let report = strait_load::run(&plan, Box::new(Blind::start())).unwrap();
    assert!(report.is_good(), "{:#?}", report.failures);
    assert_eq!(report.packets_received, report.packets_expected);
    assert!(report.packets_received > 200, "{}", report.packets_received);
    assert_eq!(report.srtp_profile, "AeadAes128Gcm");
}
