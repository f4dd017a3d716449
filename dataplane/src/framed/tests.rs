//! One connection at a time, with a worker's sockets and without the worker.

mod by_kernel;

use super::*;
use crate::config::KernelTls;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use strait_core::port::{Meta, Port};
use strait_io::{Bound, Clock, Options, bind};
use tokio::net::UnixStream;

pub(super) const STUN: [u8; 20] =
    [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const PATIENCE: Duration = Duration::from_secs(20);

/// Carries one connection on a thread of its own, which says how it ended.
fn carried(
    patience: Duration,
    letterbox: &Letterbox,
) -> (TcpStream, Arc<Shared>, Vec<u8>, JoinHandle<io::Result<()>>) {
    carried_from(patience, letterbox, |at, _| {
        let peer = TcpStream::connect(at).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer
    })
}

/// The same of whoever comes to an address, with a certificate for them. The kernel does TLS where it can.
fn carried_from<T>(
    patience: Duration,
    letterbox: &Letterbox,
    come: impl FnOnce(SocketAddr, &str) -> T,
) -> (T, Arc<Shared>, Vec<u8>, JoinHandle<io::Result<()>>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = made.cert.pem() + &made.signing_key.serialize_pem();
    let served = Certificates::default().config(pem.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = come(listener.local_addr().unwrap(), &pem);
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    let shared = Shared { kernel: Kernel::new(KernelTls::Auto), ..Shared::default() };
    let (shared, letterbox) = (Arc::new(shared), letterbox.clone());
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
    StreamOwned::new(connection(rustls::crypto::aws_lc_rs::default_provider(), pem), peer)
}

fn connection(provider: rustls::crypto::CryptoProvider, pem: &[u8]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

pub(super) fn sockets() -> (Bound, Letterbox) {
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

/// The kernel, where it gets the keys next, has nothing of what rustls did not say yet.
#[test]
fn new_keys_of_a_peer_are_answered_without_waiting_for_data() {
    let (_bound, letterbox) = sockets();
    let (peer, _, pem, thread) = carried(PATIENCE, &letterbox);
    let mut tls = client(peer, &pem);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).unwrap();
    }
    tls.conn.refresh_traffic_keys().unwrap();
    while tls.conn.wants_write() {
        tls.conn.write_tls(&mut tls.sock).unwrap();
    }
    // A record with nothing but a KeyUpdate, the type of what is in it, and a tag (RFC 8446 sections 4.6.3 and 5.2).
    const ANSWER: u16 = 5 + 1 + 16;
    let mut header = [0; 5];
    loop {
        tls.sock.read_exact(&mut header).expect("an answer comes");
        let length = u16::from_be_bytes([header[3], header[4]]);
        let mut record = vec![0; length.into()];
        tls.sock.read_exact(&mut record).unwrap();
        if length == ANSWER {
            break;
        }
    }
    drop(tls);
    assert!(!is_failure(&thread.join().unwrap()), "an end like any other");
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
    // The last frame that the port did not drop itself, because the carrier had no turn.
    let mut newest = 0;
    for n in 0..COUNT {
        let mut frame = [7; FRAME];
        frame[..4].copy_from_slice(&n.to_be_bytes());
        assert!(egress.push(path, &frame));
        if n % 8 == 7 {
            let before = port.counters().packets_sent;
            port.send(&mut egress);
            let taken = port.counters().packets_sent - before;
            newest = if taken > 0 { n + taken as u32 - 8 } else { newest };
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
    let waiting = (crate::limits::FRAMED_QUEUE_BYTES / FRAME) as u32;
    assert!(last + 2 * waiting > newest, "{last}, of {newest}");
    drop(tls);
    assert!(!is_failure(&thread.join().unwrap()), "an end like any other");
}

/// A client that named no protocol and speaks HTTP, on a thread of the test's: what it says with `end`, and its connection
/// as [`give_back`] gets it.
async fn who_goes_back<T: Send + 'static>(
    common: &Common,
    scratch: &Scratch,
    end: impl FnOnce(StreamOwned<ClientConnection, TcpStream>) -> T + Send + 'static,
) -> (Tls, Vec<u8>, JoinHandle<T>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = made.cert.pem() + &made.signing_key.serialize_pem();
    let pem = pem + &handover::turn_pem(&[7; handover::TURN_SECRET_BYTES]);
    let served = Certificates::default().config(pem.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    let client = std::thread::spawn(move || {
        let mut tls = client(peer, pem.as_bytes());
        tls.write_all(b"GET").unwrap();
        end(tls)
    });
    let (_bound, letterbox) = sockets();
    let met = meet(ours, served, common, (&letterbox, scratch), PATIENCE).await.unwrap();
    let Met::Back(peer, inward) = met else { panic!("not the control plane's") };
    (*peer, inward, client)
}

pub(super) fn with_runtime<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(what)
}

#[test]
fn whoever_finds_no_room_is_told_so() {
    with_runtime(async {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"a message").await.unwrap();
        let (to_meet, _handed) = mpsc::channel(1);
        let incoming = tokio_stream::iter([Ok(Connection::of_tests(far))]);
        let shared = Arc::<Shared>::default();
        take_over(incoming, 0, to_meet, Arc::clone(&shared)).await;
        assert_eq!(near.read_u8().await.unwrap(), handover::REFUSED);
        assert_eq!(shared.refused.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn who_goes_back_takes_no_place_of_media() {
    with_runtime(async {
        let common = Common { shared: Arc::default(), back: Arc::new(Semaphore::new(1)) };
        let scratch = tls::scratch();
        let places = Arc::new(Semaphore::new(1));
        let stay = || {
            let (near, far) = UnixStream::pair().unwrap();
            let place = Arc::clone(&places).try_acquire_owned().unwrap();
            let counted = Counted::new(&common.shared, |shared| &shared.open);
            (near, Stay { control: Connection::of_tests(far), place, counted })
        };
        let leaves = |mut tls: StreamOwned<_, _>| drop(tls.read(&mut [0]));
        let (peer, inward, client) = who_goes_back(&common, &scratch, leaves).await;
        let (mut control, one) = stay();
        let given = give_back(peer, inward, one, &common, &scratch);
        let goes_on = async {
            let mut came = [0; 4];
            control.read_exact(&mut came).await.unwrap();
            assert_eq!(&came, &[BACK, b'G', b'E', b'T']);
            assert_eq!(places.available_permits(), 1, "it is there for others");
            assert_eq!(common.shared.open.load(Ordering::Relaxed), 0);
            // One more finds no place to go back to, and gives that of media back as well.
            let (peer, inward, other) = who_goes_back(&common, &scratch, |tls| tls).await;
            let (_control, two) = stay();
            assert!(give_back(peer, inward, two, &common, &scratch).await.is_err());
            assert_eq!(places.available_permits(), 1);
            drop((other.join().unwrap(), control));
        };
        let (outcome, ()) = tokio::join!(given, goes_on);
        outcome.unwrap();
        assert_eq!(common.back.available_permits(), 1);
        client.join().unwrap();
    });
}

#[test]
fn the_last_words_arrive_though_nobody_reads_what_the_client_still_says() {
    with_runtime(async {
        let common = Common { shared: Arc::default(), back: Arc::new(Semaphore::new(1)) };
        let scratch = tls::scratch();
        // Far more than is read, and all of it written before the client looks for an answer.
        let says = |mut tls: StreamOwned<ClientConnection, TcpStream>| {
            tls.write_all(&[0x5a; 200 << 10]).unwrap();
            let mut words = String::new();
            tls.read_to_string(&mut words).map(|_| words)
        };
        let (peer, inward, client) = who_goes_back(&common, &scratch, says).await;
        let (mut control, mut far) = UnixStream::pair().unwrap();
        let patience = back::Patience { stall: PATIENCE, end: PATIENCE };
        let given = back::give(peer, inward, &mut far, &scratch, patience);
        let refuses = async {
            control.read_exact(&mut [0; 1000]).await.unwrap();
            control.write_all(b"too much").await.unwrap();
            drop(control);
        };
        let (outcome, ()) = tokio::join!(given, refuses);
        outcome.unwrap();
        assert_eq!(client.join().unwrap().unwrap(), "too much");
    });
}

#[test]
fn who_says_that_nothing_more_follows_gets_its_answer() {
    with_runtime(async {
        let common = Common { shared: Arc::default(), back: Arc::new(Semaphore::new(1)) };
        let scratch = tls::scratch();
        let asks = |mut tls: StreamOwned<ClientConnection, TcpStream>| {
            tls.conn.send_close_notify();
            tls.flush().unwrap();
            tls.sock.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            tls.read_to_string(&mut answer).map(|_| answer)
        };
        let (peer, inward, client) = who_goes_back(&common, &scratch, asks).await;
        let (mut control, mut far) = UnixStream::pair().unwrap();
        let patience = back::Patience { stall: PATIENCE, end: PATIENCE };
        let given = back::give(peer, inward, &mut far, &scratch, patience);
        let answers = async {
            let mut asked = String::new();
            control.read_to_string(&mut asked).await.unwrap();
            assert_eq!(asked, "GET");
            control.write_all(b"an answer").await.unwrap();
            drop(control);
        };
        let (outcome, ()) = tokio::join!(given, answers);
        outcome.unwrap();
        assert_eq!(client.join().unwrap().unwrap(), "an answer");
    });
}

#[test]
fn a_client_that_goes_back_and_does_not_read_is_cut() {
    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(100);
    with_runtime(async {
        let common = Common { shared: Arc::default(), back: Arc::new(Semaphore::new(1)) };
        let scratch = tls::scratch();
        for (control_ends, stall, end) in [(false, SHORT, LONG), (true, LONG, SHORT)] {
            let (ended, ends) = std::sync::mpsc::sync_channel(1);
            let client = who_goes_back(&common, &scratch, move |mut tls| {
                // Nothing is read, or little once the control plane has ended.
                if ends.recv() == Ok(()) {
                    while tls.sock.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
            let (peer, inward, client) = client.await;
            let (mut control, far) = UnixStream::pair().unwrap();
            let patience = back::Patience { stall, end };
            let given = async {
                let mut far = far;
                back::give(peer, inward, &mut far, &scratch, patience).await
            };
            let says = async {
                control.read_exact(&mut [0; 3]).await.unwrap();
                // Nothing waits for it: it may be silent for as long as it likes.
                tokio::time::sleep(3 * SHORT).await;
                // As much as all on the way take, and more: until the connection is cut.
                let large = vec![0x5a; 64 << 20];
                if control_ends {
                    let most = timeout(Duration::from_secs(1), control.write_all(&large));
                    assert!(most.await.is_err(), "it is not read, and has time");
                    drop(control);
                    ended.send(()).unwrap();
                } else {
                    control.write_all(&large).await.unwrap_err();
                    drop(ended);
                }
            };
            let both = async { tokio::join!(given, says) };
            let (outcome, ()) = timeout(PATIENCE, both).await.expect("it ends");
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::TimedOut);
            client.join().unwrap();
        }
    });
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
