//! `strait dev` and its state folder, with programs that only live.

use std::fs::{self, Permissions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Programs that do nothing until they are told to end.
fn idle_programs(folder: &Path) {
    for name in ["strait-relay", "strait-control"] {
        let program = folder.join(name);
        fs::write(&program, "#!/bin/sh\nexec tail -f /dev/null\n").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    }
}

/// With ports of its own.
fn dev(folder: &Path) -> Command {
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (https, http, udp) = (tcp(), tcp(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = |address: std::net::SocketAddr| address.port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
    command
        .args(["dev", "--address", "127.0.0.1", "--metrics-port", "0"])
        .args(["--https-port", &port(https.local_addr().unwrap())])
        .args(["--http-port", &port(http.local_addr().unwrap())])
        .args(["--media-port", &port(udp.local_addr().unwrap())])
        .env("STRAIT_BIN_DIR", folder)
        .env("STRAIT_STATE_DIR", folder.join("state"))
        .stdin(Stdio::null());
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Its children end with it.
        let _gone = (self.0.kill(), self.0.wait());
    }
}

#[test]
fn a_second_one_in_the_same_folder_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    idle_programs(folder.path());
    let files = ["relay.toml", "control.toml"].map(|name| folder.path().join("state").join(name));
    let read = || files.each_ref().map(|file| fs::read_to_string(file).unwrap_or_default());
    let first = dev(folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let first = Running(first);
    let since = Instant::now();
    let is_whole = |text: &String| text.contains("log") && text.ends_with('\n');
    while !read().iter().all(is_whole) {
        assert!(since.elapsed() < Duration::from_secs(60), "nothing was written");
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = read();
    let Output { status, stderr, .. } = dev(folder.path()).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    let number = format!("(process {})", first.0.id());
    assert!(said.contains(&number) && said.contains("--state-dir"), "{said}");
    assert_eq!(read(), before, "the first one's configurations");
}
