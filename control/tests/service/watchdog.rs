//! What a service manager hears of the real process: ready, alive, and silence when it stands still.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// As much as the manager allows between two signs of life.
const WATCHDOG: Duration = Duration::from_millis(400);

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Process {
    fn start(folder: &Path, manager: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strait-control"));
        command
            .env("NOTIFY_SOCKET", manager)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .args(["--http-listen", "127.0.0.1:0", "--config"])
            .arg(folder.join("control.toml"))
            .arg("--state-dir")
            .arg(folder)
            .arg("--rpc-socket")
            .arg(folder.join("relay.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        std::fs::write(folder.join("control.toml"), "[http]\nhttps_listen = []\n").unwrap();
        Self(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }
}

/// What is heard within a time, if anything is.
fn hear(manager: &UnixDatagram, within: Duration) -> Option<String> {
    manager.set_read_timeout(Some(within)).unwrap();
    let mut bytes = [0; 256];
    let length = manager.recv(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

fn hear_until(manager: &UnixDatagram, what: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while hear(manager, Duration::from_secs(30)).expect("silence") != what {
        assert!(Instant::now() < end, "{what} was never said");
    }
}

#[test]
fn a_process_that_stands_still_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let process = Process::start(folder.path(), path.to_str().unwrap());
    assert_eq!(hear(&manager, Duration::from_secs(60)).as_deref(), Some("READY=1"));
    for _ in 0..3 {
        hear_until(&manager, "WATCHDOG=1");
    }
    process.signal("-STOP");
    // What it said before it stood still.
    while hear(&manager, WATCHDOG * 3).is_some() {}
    assert_eq!(hear(&manager, WATCHDOG * 3), None);
    process.signal("-CONT");
    hear_until(&manager, "WATCHDOG=1");
    process.signal("-TERM");
    hear_until(&manager, "STOPPING=1");
}

#[test]
fn a_manager_with_an_abstract_socket_hears_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("strait-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    let _process = Process::start(folder.path(), &format!("@{name}"));
    assert_eq!(hear(&manager, Duration::from_secs(60)).as_deref(), Some("READY=1"));
    hear_until(&manager, "WATCHDOG=1");
}
