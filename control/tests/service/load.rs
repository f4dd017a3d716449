//! Links by the hundred against the program itself, in a process of its own: what one costs.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use strait_link::v1::{
    ClientMessage, MessageSeen, SendMessage, client_message::Body as Request, server_message::Body,
};
use strait_link::{ALPN, encode};
use tempfile::TempDir;

use crate::fake_relay::{self, FakeRelay};
use crate::native::{Native, auth, trusting};
use crate::socket;

/// Links that share a scope: each that comes is told to the others.
const PER_SCOPE: usize = 10;
/// What an idle link may cost.
const BYTES_PER_LINK: u64 = 32 << 10;

/// The program with one thread that works, and a relay that keeps the books.
struct Process {
    child: Child,
    https: SocketAddr,
    tls: Arc<ClientConfig>,
    _relay: (FakeRelay, fake_relay::Running),
    _folder: TempDir,
}

impl Process {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let relay = FakeRelay::start(&socket(&folder));
        // What one client may send is not what is measured.
        let config = folder.path().join("control.toml");
        let link = "[link]\nmessages_per_second = 0\nkibibytes_per_second = 0\n";
        std::fs::write(&config, link).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_strait-control"))
            .arg("--config")
            .arg(config)
            .args(["--https-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
            .args(["--dev-token", "dev", "--state-dir"])
            .arg(folder.path())
            .arg("--rpc-socket")
            .arg(socket(&folder))
            .env("TOKIO_WORKER_THREADS", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let https = lines.find_map(|line| line.split_once("https://")?.1.trim().parse().ok());
        std::thread::spawn(move || lines.for_each(drop));
        let tls = trusting(&folder.path().join("certificate.pem"), Some(ALPN));
        let https = https.expect("an address");
        Self { child, https, tls, _relay: relay, _folder: folder }
    }

    fn join(&self, scope: &str) -> Native {
        let start = Instant::now();
        loop {
            let mut link = Native::open(self.https, Arc::clone(&self.tls));
            match link.authenticate(auth(scope, "load")) {
                Ok(_) => return link,
                // The relay is not found yet.
                Err(error) if start.elapsed() < Duration::from_secs(10) => {
                    assert!(error.retry_ms > 0, "{error:?}");
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn join_many(&self, count: usize) -> Vec<Native> {
        (0..count).map(|number| self.join(&format!("s{}", number / PER_SCOPE))).collect()
    }

    /// Bytes of memory that it has.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1024 * line.trim_end_matches("kB").trim().parse::<u64>().unwrap()
    }

    /// Processor time that it has used; the kernel counts in hundredths of a second.
    fn processor(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
        Duration::from_millis(10 * fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_link_costs_little_memory() {
    // As many as show what each costs, beside the few megabytes that the store takes once.
    const LINKS: usize = 800;
    let process = Process::start();
    // What the first ones cost is not theirs alone.
    let _first = process.join_many(50);
    let before = process.memory();
    let _links = process.join_many(LINKS);
    std::thread::sleep(Duration::from_millis(100));
    let each = process.memory().saturating_sub(before) / LINKS as u64;
    println!("{each} bytes for each link");
    assert!(each <= BYTES_PER_LINK, "{each} bytes for each link");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: wants a release build and a quiet machine"]
async fn figures_of_joins() {
    const LINKS: usize = 1000;
    let process = Process::start();
    let _first = process.join_many(20);
    let (start, used) = (Instant::now(), process.processor());
    let _links = process.join_many(LINKS);
    let (took, used) = (start.elapsed().as_secs_f64(), process.processor() - used);
    let per_core = LINKS as f64 / used.as_secs_f64();
    println!("{:.0} joins/s one after the other, {per_core:.0}/s of a core", LINKS as f64 / took);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: wants a release build and a quiet machine"]
async fn figures_of_messages() {
    const MESSAGES: u64 = 200_000;
    const BATCH: u64 = 128;
    /// Messages under way.
    const WINDOW: u64 = 2048;
    let process = Process::start();
    let (mut sender, mut receiver) = (process.join("lobby"), process.join("lobby"));
    let seen = Arc::new(AtomicU64::new(0));
    let (start, used) = (Instant::now(), process.processor());
    let at_receiver = Arc::clone(&seen);
    let received = std::thread::spawn(move || {
        let mut last = 0;
        while last < MESSAGES {
            let next = receiver.next().expect("the link holds");
            let Body::Message(message) = next else { continue };
            assert_eq!(message.number, last + 1, "in order, none lost");
            assert_eq!(message.payload[..8], message.number.to_be_bytes());
            last = message.number;
            if last.is_multiple_of(BATCH) {
                receiver.tell(Request::MessageSeen(MessageSeen { number: last }));
                at_receiver.store(last, Ordering::Relaxed);
            }
        }
    });
    let mut taken = 0;
    for first in (1..=MESSAGES).step_by(BATCH as usize) {
        let mut bytes = Vec::new();
        let end = (first + BATCH).min(MESSAGES + 1);
        for number in first..end {
            let mut payload = vec![7; 100];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            let message = SendMessage { number, payload, ..SendMessage::default() };
            let body = Some(Request::SendMessage(message));
            encode(&ClientMessage { request: 0, body }, &mut bytes);
        }
        sender.tls.write_all(&bytes).unwrap();
        while taken + WINDOW < end {
            if let Some(Body::MessagesTaken(told)) = sender.next() {
                taken = told.number;
            }
        }
        while seen.load(Ordering::Relaxed) + WINDOW < end && !received.is_finished() {
            std::thread::yield_now();
        }
    }
    received.join().unwrap();
    let (took, used) = (start.elapsed().as_secs_f64(), process.processor() - used);
    let per_core = MESSAGES as f64 / used.as_secs_f64();
    println!("{:.0} messages/s, {per_core:.0}/s of a core", MESSAGES as f64 / took);
}
