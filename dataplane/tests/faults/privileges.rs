//! Strangers at the RPC's socket, and a host that grants little: another user, no capabilities, few files.

use super::program::{Program, executable};
use super::{page, skip};
use crate::common::peer::Peer;
use crate::common::{connect, publish, scope, subscribe, try_connect};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use strait_proto::v1;
use strait_proto::v1::candidate::Protocol;

/// `nobody`, on most systems; nothing here belongs to it.
const STRANGER: u32 = 65534;

/// Why no program can be started as another user here, if so.
fn obstacle() -> Option<&'static str> {
    let setpriv = Command::new("setpriv").arg("--version").output();
    if !setpriv.is_ok_and(|output| output.status.success()) {
        return Some("there is no setpriv");
    }
    let user = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
    (user.ok() != Some(0)).then_some("only root starts programs as another user")
}

/// Where another user can start it: the folder that it was built in need not be open to all.
fn copy(executable: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join("program");
    std::fs::copy(executable, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

/// What starts a program as that user and group with no capabilities; with so many open files at most, if given, and then
/// without memory to lock either.
fn as_stranger(program: &Path, group: u32, files: Option<u32>) -> Command {
    let mut command = Command::new("/bin/sh");
    let limit =
        files.map_or_else(String::new, |files| format!("ulimit -l 0 && ulimit -n {files} && "));
    let path = std::env::var("PATH").unwrap_or_default();
    command.arg("-c").arg(format!(
        "PATH='{path}'; {limit}exec setpriv --reuid {STRANGER} --regid {group} --clear-groups --bounding-set=-all \
         --inh-caps=-all --ambient-caps=-all --no-new-privs \"$0\" \"$@\""
    ));
    command.arg(program);
    command
}

/// Holds the socket to call, where this program is a stranger.
const PART: &str = "STRAIT_TEST_SOCKET";

/// What a stranger says of its call.
async fn call(socket: &Path) -> &'static str {
    match UnixStream::connect(socket).map(drop) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return "no door",
        result => result.unwrap(),
    }
    let Ok(mut client) = try_connect(socket).await else { return "turned away" };
    let answer = client.get_info(v1::GetInfoRequest {}).await;
    if answer.is_ok() { "an answer" } else { "turned away" }
}

#[tokio::test]
async fn a_stranger_is_turned_away_from_the_rpc() {
    let name = "faults::privileges::a_stranger_is_turned_away_from_the_rpc";
    if let Some(socket) = std::env::var_os(PART) {
        println!("got {}", call(Path::new(&socket)).await);
        return;
    }
    if let Some(reason) = obstacle() {
        return skip(name, reason);
    }
    let folder = tempfile::tempdir().unwrap();
    let test = copy(&std::env::current_exe().unwrap(), folder.path());
    let stranger = |socket: &Path, group: u32| {
        let mut command = as_stranger(&test, group, None);
        let output = command.args([name, "--exact", "--nocapture"]).env(PART, socket).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let mut relay = Program::serve(&["--workers", "1"]);
    assert!(stranger(&relay.socket, STRANGER).contains("got no door"), "mode 0660");
    // Of the relay's group, the file lets it in, and its user does not.
    let own = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&relay.socket).unwrap());
    assert!(stranger(&relay.socket, own).contains("got turned away"));
    relay.await_line("refused user 65534");
    let mut client = connect(&relay.socket).await;
    client.get_info(v1::GetInfoRequest {}).await.unwrap();

    let file = folder.path().join("relay.toml");
    std::fs::write(&file, format!("rpc_allowed_uids = [{STRANGER}]\n")).unwrap();
    let relay = Program::serve(&["--workers", "1", "--config", file.to_str().unwrap()]);
    assert!(stranger(&relay.socket, own).contains("got an answer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_rights_and_few_files_media_flows_and_what_is_less_is_told() {
    with_no_rights_and_few_files("mmsg").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_rights_and_few_files_so_it_is_by_io_uring() {
    with_no_rights_and_few_files("uring").await;
}

async fn with_no_rights_and_few_files(io: &str) {
    if let Some(reason) = obstacle() {
        return skip("a relay without rights", reason);
    }
    let folder = tempfile::tempdir().unwrap();
    let program = copy(executable(), folder.path());
    let config = folder.path().join("relay.toml");
    std::fs::write(&config, format!("io = \"{io}\"\nworkers = 2\n")).unwrap();
    let stranger = as_stranger(&program, STRANGER, Some(64));
    let mut relay = Program::start(stranger, &["--config", config.to_str().unwrap()]);
    relay.await_line("serving");
    let mut client = connect(&relay.socket).await;
    let info = client.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    for part in ["64 files may be open: each worker takes ", "the kernel does not steer"] {
        assert!(info.degradations.iter().any(|why| why.contains(part)), "{:?}", info.degradations);
    }
    let fallback = info.degradations.iter().find(|why| why.contains("io_uring"));
    // Some kernels want memory locked for a ring, and say so; others do not.
    assert!(fallback.is_none_or(|why| io == "uring" && why.contains("`ulimit -l`")));
    for why in &info.degradations {
        assert!(relay.said(why) && relay.readiness().contains(why), "{why}");
    }

    client.create_scope(scope("room")).await.unwrap();
    let mut ann = Peer::join(&mut client, "room", "ann", Protocol::Udp, false).await;
    let mut bob = Peer::join(&mut client, "room", "bob", Protocol::Udp, false).await;
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    client.subscribe(subscribe("room", "bob", "s", "voice")).await.unwrap();
    let to = info.candidates.iter().find(|c| c.protocol() == Protocol::TcpPassive).unwrap();
    let to = format!("{}:{}", to.address, to.port);
    let talk = tokio::task::spawn_blocking(move || {
        let mut seq = 0;
        let mut talk = |packets: u16| {
            for _ in 0..packets {
                loop {
                    ann.say(1, seq, b"hello");
                    seq += 1;
                    // The first may overtake the speaker's keys.
                    if bob.hear(Duration::from_millis(200)).is_some() {
                        break;
                    }
                    assert!(seq < 50, "nothing is heard");
                }
            }
        };
        talk(50);
        // Somebody takes all files that are left, and more.
        let greedy: Vec<_> = (0..100).map(|_| TcpStream::connect(&to)).collect();
        talk(50);
        greedy
    });
    let greedy = talk.await.unwrap();
    // They leave some: whoever may call the relay is served.
    let mut other = connect(&relay.socket).await;
    other.get_info(v1::GetInfoRequest {}).await.unwrap();
    // It accepts, and refuses, some at a time.
    let start = Instant::now();
    loop {
        let metrics = page(relay.health(), "/metrics");
        let count = |name: &str| -> u64 {
            let lines =
                metrics.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
            lines.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
        };
        assert!((1..=20).contains(&count("relay_tcp_connections{")), "{metrics}");
        if count("relay_tcp_refused_total{") > 50 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{metrics}");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop((client, greedy));
}

#[test]
fn with_too_few_files_it_serves_or_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let program = copy(executable(), folder.path());
    let mut served = 0;
    for files in (4..60).step_by(3) {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\"")).arg(&program);
        let mut relay = Program::start(command, &["--workers", "2"]);
        if relay.serves() {
            served += 1;
            continue;
        }
        assert_eq!(served, 0, "fewer files sufficed: {:#?}", relay.log);
        let code = relay.ended().code();
        assert_eq!(code, Some(1), "{files} files: {:#?}", relay.log);
        assert!(relay.said("ulimit -n"), "{files} files: {:#?}", relay.log);
    }
    assert!(served > 0);
}
