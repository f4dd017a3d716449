//! One connection at a time, with a worker's sockets and without the worker.

use super::*;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use strait_core::port::{Meta, Port};
use strait_io::{Bound, Clock, Options, bind};

const STUN: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const PATIENCE: Duration = Duration::from_secs(20);

/// Carries one connection on a thread of its own, which says how it ended.
fn carried(
    patience: Duration,
    letterbox: &Letterbox,
) -> (TcpStream, Arc<Shared>, Vec<u8>, JoinHandle<io::Result<()>>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = made.cert.pem() + &made.signing_key.serialize_pem();
    let served = Certificates::default().config(pem.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    let (shared, letterbox) = (Arc::<Shared>::default(), letterbox.clone());
    let counted = Arc::clone(&shared);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let scratch = tls::scratch();
        let common = Common { shared: counted, back: Arc::new(Semaphore::new(1)) };
        runtime.block_on(async {
            let met = meet(ours, served, &common, (&letterbox, &scratch), patience).await?;
            let Met::Framed(known) = met else { panic!("not framed media") };
            Carrier::carry(*known, &scratch).await
        })
    });
    (peer, shared, pem.into_bytes(), thread)
}

fn client(peer: TcpStream, pem: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), peer)
}

fn sockets() -> (Bound, Letterbox) {
    let options = Options { udp: vec![[127, 0, 0, 1].into()], workers: 1, ..Options::default() };
    let bound = bind(&options).unwrap();
    let letterbox = Letterbox::new(bound.ports[0].waker());
    (bound, letterbox)
}

#[test]
fn half_open_tls_ends_by_time() {
    let (_bound, letterbox) = sockets();
    let (mut peer, _, _, thread) = carried(Duration::from_millis(50), &letterbox);
    // The beginning of a ClientHello.
    peer.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    let ended = thread.join().unwrap();
    assert!(is_failure(&ended), "{ended:?}");
    assert!(letterbox.connection().is_none(), "no worker heard of it");
}

#[test]
fn who_says_nothing_that_a_worker_knows_ends_by_time() {
    let (mut bound, letterbox) = sockets();
    let (peer, _, pem, thread) = carried(Duration::from_secs(1), &letterbox);
    let mut tls = client(peer, &pem);
    // A check of somebody whom no worker knows is not answered.
    tls.write_all(&[&[0, 20][..], &STUN].concat()).unwrap();
    let came = come(&mut bound, &letterbox, 1);
    assert_eq!(came[0].1, STUN);
    assert_eq!(came[0].0.path.remote, tls.sock.local_addr().unwrap(), "its true address");
    let ended = thread.join().unwrap();
    assert!(is_failure(&ended), "{ended:?}");
    assert_eq!(tls.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn a_slow_reader_loses_the_oldest_frames_and_delays_nobody() {
    const FRAME: usize = 1000;
    const COUNT: u32 = 20_000;
    let (mut bound, letterbox) = sockets();
    let (peer, shared, pem, thread) = carried(PATIENCE, &letterbox);
    let mut tls = client(peer, &pem);
    tls.write_all(&[&[0, 20][..], &STUN].concat()).unwrap();
    let path = come(&mut bound, &letterbox, 1)[0].0.path;
    let port = &mut bound.ports[0];
    // 20 MB to somebody who reads nothing: more than the kernel keeps.
    let mut egress = strait_core::egress::Egress::default();
    for n in 0..COUNT {
        let mut frame = [7; FRAME];
        frame[..4].copy_from_slice(&n.to_be_bytes());
        assert!(egress.push(path, &frame));
        if n % 8 == 7 {
            port.send(&mut egress);
            // The carrier is another thread, and takes what the worker sends however little the peer reads.
            let now = Clock.instant();
            port.wait(now, Some(now + Duration::from_micros(200)));
        }
    }
    port.send(&mut egress);
    let queued = port.counters().packets_sent;
    assert!(shared.dropped.load(Ordering::Relaxed) > u64::from(COUNT) / 4);
    // Now it reads: whole frames, in order, those of the end among them.
    let (mut last, mut heard) = (0, 0);
    let mut frame = [0; 2 + FRAME];
    tls.sock.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    loop {
        let now = Clock.instant();
        port.wait(now, Some(now));
        if tls.read_exact(&mut frame).is_err() {
            break;
        }
        let number = u32::from_be_bytes(frame[2..6].try_into().unwrap());
        assert_eq!(frame[..2], (FRAME as u16).to_be_bytes());
        assert!(number > last || heard == 0, "{number} after {last}");
        (last, heard) = (number, heard + 1);
    }
    let dropped = shared.dropped.load(Ordering::Relaxed);
    assert_eq!(heard + dropped, queued, "each is sent or counted");
    assert!(last > COUNT - 2 * (crate::limits::FRAMED_QUEUE_BYTES / FRAME) as u32, "{last}");
    drop(tls);
    assert!(!is_failure(&thread.join().unwrap()), "an end like any other");
}

/// What the port gets, at least so many frames of the connection that waits for it.
fn come(bound: &mut Bound, letterbox: &Letterbox, count: usize) -> Vec<(Meta, Vec<u8>)> {
    let port = &mut bound.ports[0];
    let start = Clock.instant();
    let mut came = Vec::new();
    while came.len() < count {
        let now = Clock.instant();
        assert!(now.since(start) < PATIENCE, "it comes");
        while let Some(connection) = letterbox.connection() {
            port.adopt(connection);
        }
        port.wait(now, Some(now + Duration::from_millis(10)));
        port.receive(now, |meta, bytes| came.push((meta, bytes.to_vec())));
    }
    came
}
