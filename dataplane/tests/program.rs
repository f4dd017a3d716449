//! The program from outside: flags, exit codes, signals.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strait-relay"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = program().args(arguments).output().unwrap();
    let text = [stdout, stderr].concat();
    (status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Starts it and waits until it serves.
fn serve(socket: &Path) -> Child {
    let mut child = program()
        .args(["--port", "0", "--workers", "1", "--metrics-listen", "", "--rpc-socket"])
        .arg(socket)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("serving")), "ended without serving");
    // Who writes to a closed pipe gets an error: somebody reads on.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn terminate(child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
}

#[test]
fn the_default_configuration_is_printed_and_passes_its_own_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    let (code, text) = run(&["--print-default-config"]);
    assert_eq!(code, 0);
    std::fs::write(&file, text).unwrap();
    assert_eq!(run(&["--config", file.to_str().unwrap(), "--check"]).0, 0);
}

#[test]
fn mistakes_have_their_exit_codes_and_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    std::fs::write(&file, "lisen = []\n").unwrap();
    let (code, text) = run(&["--config", file.to_str().unwrap()]);
    assert_eq!(code, 78, "{text}");
    assert!(text.contains("relay.toml") && text.contains("did you mean `listen`?"), "{text}");
    let (code, text) = run(&["--config", "/no/such/file"]);
    assert!(code == 78 && text.contains("/no/such/file"), "{text}");
    let (code, text) = run(&["--metrics-listen", "9464"]);
    assert!(code == 78 && text.contains("metrics_listen"), "{text}");
    assert_eq!(run(&["--no-such-flag"]).0, 2);
    let (code, text) =
        run(&["--port", "0", "--metrics-listen", "", "--rpc-socket", "/no/folder/s"]);
    assert!(code == 1 && text.contains("/no/folder/s"), "{text}");
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, text) = run(&["--listen", "127.0.0.1", "--port", &port, "--metrics-listen", ""]);
    assert_eq!(code, 1);
    assert!(text.contains(&format!("127.0.0.1:{port} is taken")), "{text}");
}

#[test]
fn sigterm_without_peers_ends_with_0_and_takes_the_socket_along() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relay.sock");
    let mut child = serve(&socket);
    assert!(socket.exists());
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_relay_that_stands_still_says_nothing() {
    const WATCHDOG: Duration = Duration::from_millis(400);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut child = program()
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
        .args(["--port", "0", "--workers", "1", "--metrics-listen", "", "--rpc-socket"])
        .arg(folder.path().join("relay.sock"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let hear = |within| {
        manager.set_read_timeout(Some(within)).unwrap();
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    };
    let signal = |name: &str| {
        let id = child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    };
    let patience = Duration::from_secs(60);
    assert_eq!(hear(patience).as_deref(), Some("READY=1"));
    assert_eq!(hear(patience).as_deref(), Some("WATCHDOG=1"));
    signal("-STOP");
    // What it said before it stood still.
    while hear(WATCHDOG * 3).is_some() {}
    assert_eq!(hear(WATCHDOG * 3), None);
    signal("-CONT");
    assert_eq!(hear(patience).as_deref(), Some("WATCHDOG=1"));
    signal("-KILL");
    child.wait().unwrap();
}
