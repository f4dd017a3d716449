//! Connections whose TLS the kernel does. They need one that has it: `tests/ktls/run.sh` starts one in a virtual machine.

use super::*;
use std::process::{Child, Command, Stdio};
use std::task::Poll;

/// Frames of one test, each of another length.
const FRAMES: usize = 120;

/// What carries a peer, and a worker that says all that it hears.
struct Carried<T> {
    peer: T,
    shared: Arc<Shared>,
    pem: Vec<u8>,
    carrier: JoinHandle<io::Result<()>>,
    bound: Bound,
    letterbox: Letterbox,
}

fn carried_by_kernel<T>(come: impl FnOnce(SocketAddr, &str) -> T) -> Carried<T> {
    let (bound, letterbox) = sockets();
    let (peer, shared, pem, carrier) = carried_from(PATIENCE, &letterbox, come);
    assert!(shared.kernel.is_there(), "the kernel has no TLS");
    Carried { peer, shared, pem, carrier, bound, letterbox }
}

impl<T> Carried<T> {
    /// Has the worker answer until the peer's side is done. What that says, and how the carrier ended.
    fn answer<E: Send + 'static>(
        mut self,
        peer: impl FnOnce(T, Vec<u8>, Arc<Shared>) -> E + Send + 'static,
    ) -> (E, io::Result<()>)
    where
        T: Send + 'static,
    {
        let (shared, pem) = (Arc::clone(&self.shared), self.pem);
        let one = self.peer;
        let peer = std::thread::spawn(move || peer(one, pem, shared));
        let port = &mut self.bound.ports[0];
        let mut egress = strait_core::egress::Egress::default();
        while !peer.is_finished() {
            let now = Clock.instant();
            while let Some(connection) = self.letterbox.connection() {
                port.adopt(connection);
            }
            port.wait(now, Some(now + Duration::from_millis(1)));
            port.receive(now, |meta, bytes| assert!(egress.push(meta.path, bytes)));
            port.send(&mut egress);
        }
        let said = peer.join().unwrap();
        // The worker hangs up with its port.
        drop(self.bound);
        let ended = self.carrier.join().unwrap();
        assert_eq!(self.shared.kernel.open.load(Ordering::Relaxed), 0);
        (said, ended)
    }
}

fn connect(at: SocketAddr, _pem: &str) -> TcpStream {
    let peer = TcpStream::connect(at).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_nodelay(true).unwrap();
    peer
}

/// Frames of many lengths, with their lengths before them. The worker takes each for a check.
fn frame(number: usize) -> Vec<u8> {
    let length = STUN.len() + (number * 37) % 1180;
    let mut frame = [&(length as u16).to_be_bytes()[..], &STUN].concat();
    frame.resize(2 + length, number as u8);
    frame
}

/// Says frames and hears them again, a few on their way at any time.
fn talk(peer: &mut (impl Read + Write), frames: std::ops::Range<usize>) {
    for number in frames.step_by(4) {
        let four: Vec<_> = (number..number + 4).map(frame).collect();
        peer.write_all(&four.concat()).unwrap();
        peer.flush().unwrap();
        for one in four {
            let mut heard = vec![0; one.len()];
            peer.read_exact(&mut heard).unwrap();
            assert!(heard == one, "frames of {number} and after");
        }
    }
}

/// The kernel goes on as soon as a worker said something.
fn wait_for_kernel(shared: &Shared) {
    let start = std::time::Instant::now();
    while shared.kernel.open.load(Ordering::Relaxed) == 0 {
        assert!(start.elapsed() < PATIENCE, "the kernel does TLS");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A client that talked, whose TLS the kernel does at the other side.
fn known(peer: TcpStream, pem: &[u8], shared: &Shared) -> StreamOwned<ClientConnection, TcpStream> {
    let mut tls = client(peer, pem);
    talk(&mut tls, 0..4);
    wait_for_kernel(shared);
    tls
}

#[test]
#[ignore = "needs a kernel with TLS: tests/ktls/run.sh starts one"]
fn frames_go_both_ways_in_each_suite() {
    use rustls::crypto::aws_lc_rs::{cipher_suite as suites, default_provider};
    for suite in [
        suites::TLS13_AES_128_GCM_SHA256,
        suites::TLS13_AES_256_GCM_SHA384,
        suites::TLS13_CHACHA20_POLY1305_SHA256,
    ] {
        let (_, ended) = carried_by_kernel(connect).answer(move |peer, pem, shared| {
            let mut provider = default_provider();
            provider.cipher_suites = vec![suite];
            let mut tls = StreamOwned::new(connection(provider, &pem), peer);
            talk(&mut tls, 0..FRAMES);
            wait_for_kernel(&shared);
            talk(&mut tls, FRAMES..2 * FRAMES);
        });
        assert!(!is_failure(&ended), "{suite:?}: {ended:?}");
    }
}

/// Writes a few bytes at a time, each a segment.
struct Cut(TcpStream, usize);

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 += 1;
        let most = [1, 4, 5, 6, 300, 2, 1500][self.1 % 7];
        self.0.write(&bytes[..most.min(bytes.len())])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Cut {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

#[test]
#[ignore = "needs a kernel with TLS: tests/ktls/run.sh starts one"]
fn records_may_be_cut_anywhere() {
    for first in 0..7 {
        let (_, ended) = carried_by_kernel(connect).answer(move |peer, pem, shared| {
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let mut tls = StreamOwned::new(connection(provider, &pem), Cut(peer, first));
            talk(&mut tls, 0..FRAMES / 3);
            wait_for_kernel(&shared);
            talk(&mut tls, 0..FRAMES / 3);
        });
        assert!(!is_failure(&ended), "{ended:?}");
    }
}

#[test]
#[ignore = "needs a kernel with TLS: tests/ktls/run.sh starts one"]
fn nothing_is_lost_when_the_kernel_takes_over_in_the_middle() {
    // All is said without a pause: the kernel takes over somewhere in it.
    let (_, ended) = carried_by_kernel(connect).answer(|peer, pem, shared| {
        let mut tls = client(peer, &pem);
        for number in 0..40 {
            tls.write_all(&frame(number)).unwrap();
        }
        for number in 0..40 {
            let one = frame(number);
            let mut heard = vec![0; one.len()];
            tls.read_exact(&mut heard).unwrap();
            assert!(heard == one, "frame {number}");
        }
        wait_for_kernel(&shared);
    });
    assert!(!is_failure(&ended), "{ended:?}");
}

/// New keys of the peer's are the last that rustls reads: nobody has anything to say meanwhile.
#[test]
#[ignore = "needs a kernel with TLS: tests/ktls/run.sh starts one"]
fn keys_that_change_before_the_kernel_takes_over_are_no_end() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = made.cert.pem() + &made.signing_key.serialize_pem();
    let served = Certificates::default().config(pem.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = connect(listener.local_addr().unwrap(), &pem);
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    let client = std::thread::spawn(move || {
        let mut tls = client(peer, pem.as_bytes());
        tls.write_all(&frame(0)).unwrap();
        tls.conn.refresh_traffic_keys().unwrap();
        talk(&mut tls, 1..2);
    });
    let shared = Shared { kernel: Kernel::new(KernelTls::Auto), ..Shared::default() };
    let (shared, scratch) = (Arc::new(shared), tls::scratch());
    with_runtime(async {
        let mut peer = Tls::new(ours, served.tls, &shared).unwrap();
        let mut inward = Vec::new();
        poll_fn(|cx| peer.poll_greeting(cx, &scratch, &mut inward)).await.unwrap();
        let mut peer = Tls::arrive(peer.leave().unwrap()).unwrap();
        let both = [frame(0), frame(1), frame(2), frame(3), frame(4)].concat();
        while inward.len() < both.len() {
            poll_fn(|cx| peer.poll_read(cx, &scratch, &mut inward)).await.unwrap();
        }
        assert!(inward == both);
        let flush = async |peer: &mut Tls| {
            let flushed = poll_fn(|cx| match peer.flush(cx).unwrap() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            flushed.await;
        };
        flush(&mut peer).await;
        assert_eq!(shared.kernel.open.load(Ordering::Relaxed), 1, "the kernel has the keys");
        peer.write(&both[frame(0).len()..]).unwrap();
        flush(&mut peer).await;
        client.join().unwrap();
    });
}

#[test]
#[ignore = "needs a kernel with TLS: tests/ktls/run.sh starts one"]
fn ends_are_what_they_are_without_the_kernel() {
    // What was said before the end is taken, though both came together.
    let (_, ended) = carried_by_kernel(connect).answer(|peer, pem, shared| {
        let mut tls = known(peer, &pem, &shared);
        tls.conn.writer().write_all(&frame(9)).unwrap();
        tls.conn.send_close_notify();
        while tls.conn.wants_write() {
            tls.conn.write_tls(&mut tls.sock).unwrap();
        }
        while shared.kernel.open.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::UnexpectedEof);

    // New keys: the connection is over, as one says it in peace, and the client may come again.
    let (read, ended) = carried_by_kernel(connect).answer(|peer, pem, shared| {
        let mut tls = known(peer, &pem, &shared);
        tls.conn.refresh_traffic_keys().unwrap();
        tls.write_all(&frame(9)).unwrap();
        tls.read(&mut [0; 100])
    });
    assert_eq!(read.unwrap(), 0);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[test]
#[ignore = "needs a kernel with TLS: tests/ktls/run.sh starts one"]
fn records_that_are_none_end_the_connection_and_count_as_failed() {
    let long = [&[23, 3, 3, 0x50, 0][..], &[7; 0x5000]].concat();
    let forged = [&[23, 3, 3, 0, 32][..], &[7; 32]].concat();
    for record in [forged, long, b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let (_, ended) = carried_by_kernel(connect).answer(move |peer, pem, shared| {
            let mut tls = known(peer, &pem, &shared);
            // The other side may be gone before all is written.
            let _ = tls.sock.write_all(&record);
            assert!(tls.read(&mut [0; 100]).is_err(), "no peaceful end");
        });
        assert!(is_failure(&ended), "{ended:?}");
    }
    // An alert of the peer's counts as well.
    let (_, ended) = carried_by_kernel(connect).answer(|peer, pem, shared| {
        let mut tls = known(peer, &pem, &shared);
        // Its side breaks a record of ours: rustls says so by an alert.
        let nonsense = [&[23, 3, 3, 0, 17][..], &[7; 17]].concat();
        tls.conn.read_tls(&mut &nonsense[..]).unwrap();
        tls.conn.process_new_packets().unwrap_err();
        while tls.conn.wants_write() {
            tls.conn.write_tls(&mut tls.sock).unwrap();
        }
        while shared.kernel.open.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(is_failure(&ended), "{ended:?}");
}

/// OpenSSL's client, which says what it is told and tells what it hears.
struct OpenSsl(Child);

impl OpenSsl {
    fn connect(at: SocketAddr, suite: &str) -> Self {
        let client = Command::new("openssl")
            .args(["s_client", "-quiet", "-nocommands", "-tls1_3", "-alpn", "strait-media/1"])
            .args(["-ciphersuites", suite, "-connect", &at.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Self(client.expect("openssl"))
    }
}

impl Write for OpenSsl {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.stdin.as_mut().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.stdin.as_mut().unwrap().flush()
    }
}

impl Read for OpenSsl {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.stdout.as_mut().unwrap().read(bytes)
    }
}

#[test]
#[ignore = "needs a kernel with TLS: tests/ktls/run.sh starts one"]
fn openssl_talks_with_the_kernel() {
    let suites =
        ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
    for suite in suites {
        let come = |at, _: &str| OpenSsl::connect(at, suite);
        let (_, ended) = carried_by_kernel(come).answer(|mut client, _, shared| {
            talk(&mut client, 0..4);
            wait_for_kernel(&shared);
            talk(&mut client, 0..FRAMES);
            client.0.kill().unwrap();
            client.0.wait().unwrap();
        });
        assert!(!is_failure(&ended), "{suite}: {ended:?}");
    }
}
