//! `strait cluster`: real nodes, Redis, Sentinel and MariaDB, parts of which are killed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The cluster of a test. It ends with it.
struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
}

impl Cluster {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
        command
            .arg("cluster")
            .args(words)
            .env("STRAIT_CLUSTER_DIR", &self.folder)
            .env("STRAIT_BIN_DIR", &self.programs);
        command
    }

    fn strait(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn good(&self, words: &[&str]) -> String {
        let output = self.strait(words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn part(&self, name: &str) -> serde_json::Value {
        let output = self.strait(&["status", "--json"]);
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let parts = told["parts"].as_array().unwrap();
        parts.iter().find(|part| part["part"] == name).unwrap().clone()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.folder.exists() {
            self.strait(&["down"]);
        }
    }
}

/// The answer of a node to GET: status and body.
fn get(node: u8, port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((std::net::Ipv4Addr::new(127, 0, 1, node), port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok((status, body.to_owned()))
}

/// Where the programs are; none where one is lacking.
fn programs(test: &str) -> Option<PathBuf> {
    for server in ["redis-server", "mariadbd"] {
        if Command::new(server).arg("--version").output().is_err() {
            strait_tests::skip(test, &format!("there is no {server}"));
            return None;
        }
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_strait")).parent().unwrap().to_path_buf();
    if !["strait-relay", "strait-control"].iter().all(|name| programs.join(name).is_file()) {
        strait_tests::skip(test, "strait-relay and strait-control are not built beside the tests");
        return None;
    }
    Some(programs)
}

/// Of HTTPS and of HTTP. No two ports are the same, and the second node has the next of the first.
fn free_ports() -> [u16; 2] {
    let free =
        |address: &str| TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
    ["127.0.1.1", "127.0.1.2"].map(free)
}

#[test]
fn a_start_that_is_stopped_leaves_nothing() {
    let Some(programs) = programs("a start of a cluster that is stopped") else { return };
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster { folder: folder.path().join("c"), programs };
    let [https, http] = free_ports();
    let ports = ["--https-port", &https.to_string(), "--http-port", &http.to_string()];
    let mut up = cluster.command(&[&["up", "--sql", "sqlite"], ports.as_slice()].concat());
    let mut up = up.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(up.stderr.take().unwrap()).lines().map(Result::unwrap);
    let first = said.find(|line| line.contains("ready after"));
    assert!(first.is_some(), "nothing was started");
    let interrupt = Command::new("kill").args(["-INT", &up.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let rest: Vec<_> = said.collect();
    assert!(!up.wait().unwrap().success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("stopped before all of it ran")), "{rest:?}");
    assert!(!cluster.folder.exists());
}

#[test]
fn a_start_that_is_stopped_while_tables_are_made_says_that_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(programs) = programs("a start of a cluster that is stopped as tables are made") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster { folder: folder.path().join("c"), programs };
    // As Ctrl-C does it: both are told, and this one complains once the other has heard it, which
    // ends the thread that waits for it.
    let install = folder.path().join("mariadb-install-db");
    let text = "#!/bin/sh\nkill -INT $PPID\nfor _ in $(seq 400); do\n\
                [ $(ls /proc/$PPID/task | wc -l) = 1 ] && break\nsleep 0.05\ndone\n\
                echo Installation of system tables failed >&2\nexit 1\n";
    std::fs::write(&install, text).unwrap();
    std::fs::set_permissions(&install, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let [https, http] = free_ports();
    let ports = ["--https-port", &https.to_string(), "--http-port", &http.to_string()];
    let mut up = cluster.command(&[&["up"], ports.as_slice()].concat());
    let up = up.env("PATH", format!("{}:{path}", folder.path().display())).output().unwrap();
    let said = String::from_utf8(up.stderr).unwrap();
    assert!(!up.status.success() && said.contains("stopped before all of it ran"), "{said}");
    assert!(!said.contains("system tables"), "{said}");
    assert!(!cluster.folder.exists());
}

#[test]
fn a_start_that_is_stopped_as_it_ends_leaves_nothing() {
    let Some(programs) = programs("a start of a cluster that is stopped as it ends") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster { folder: folder.path().join("c"), programs };
    let [https, http] = free_ports();
    let ports = ["--https-port", &https.to_string(), "--http-port", &http.to_string()];
    let few = ["up", "--sql", "sqlite", "--nodes", "1", "--partitions", "1"];
    let mut command = cluster.command(&[&few, ports.as_slice()].concat());
    // What it says in the end finds no room before somebody reads.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    command.stdout(writer.try_clone().unwrap()).stderr(Stdio::piped());
    let mut up = command.spawn().unwrap();
    drop(command);
    let full = std::thread::spawn(move || writer.write_all(&[b' '; 1 << 16]).unwrap());
    let mut said = BufReader::new(up.stderr.take().unwrap()).lines().map(Result::unwrap);
    let is_last = |line: &String| {
        let place = line.strip_prefix('[').and_then(|line| line.split(']').next());
        let place = place.and_then(|place| place.trim().split_once('/'));
        place.is_some_and(|(number, count)| number == count) && line.contains("ready after")
    };
    assert!(said.by_ref().any(|line| is_last(&line)), "not all of it was started");
    let threads = || std::fs::read_dir(format!("/proc/{}/task", up.id())).unwrap().count();
    let before = threads();
    let interrupt = Command::new("kill").args(["-INT", &up.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let since = Instant::now();
    // The one that waits for signals ends with the first.
    while threads() == before {
        assert!(since.elapsed() < Duration::from_secs(20), "the signal is not heard");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut welcome = String::new();
    reader.read_to_string(&mut welcome).unwrap();
    full.join().unwrap();
    assert!(!up.wait().unwrap().success(), "{welcome}");
    assert!(said.any(|line| line.contains("stopped when all of it ran")), "{welcome}");
    assert!(!cluster.folder.exists());
}

#[test]
fn parts_die_and_scopes_are_found() {
    let Some(programs) = programs("a cluster of real processes") else { return };
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster { folder: folder.path().join("c"), programs };
    let [https, http] = free_ports();
    let ports = ["--https-port", &https.to_string(), "--http-port", &http.to_string()];
    let up = [&["up", "--nodes", "2", "--partitions", "1"], ports.as_slice()].concat();
    // What is somebody's is not touched, whatever goes wrong.
    std::fs::create_dir(&cluster.folder).unwrap();
    let diary = cluster.folder.join("diary");
    std::fs::write(&diary, "dear").unwrap();
    assert!(!cluster.strait(&up).status.success());
    assert_eq!(std::fs::read_to_string(&diary).unwrap(), "dear");
    std::fs::remove_file(&diary).unwrap();
    let said = cluster.good(&up);
    assert!(said.contains("The cluster runs") && said.contains("/dashboard/"), "{said}");
    assert!(said.contains(&format!("http://127.0.1.1:{http}/?token=dev ")), "{said}");
    assert!(!cluster.strait(&up).status.success(), "there is one already");

    let resolve = |node: u8, scope: &str, further: &str| {
        let path = format!("/resolve?applicationId=dev&scopeId={scope}{further}");
        let since = Instant::now();
        loop {
            match get(node, http, &path) {
                Ok((200, endpoint)) => return endpoint,
                other if since.elapsed() > Duration::from_secs(20) => panic!("{scope}: {other:?}"),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    };
    let first = resolve(1, "lobby", "");
    assert_eq!(resolve(2, "lobby", ""), first, "one scope, one node");

    // The master of the mappings dies: they are all there still, and new ones come.
    cluster.good(&["kill", "redis-1a"]);
    assert_eq!(resolve(1, "lobby", ""), first);
    resolve(2, "another", "");
    assert!(cluster.part("redis-1a")["pid"].is_null());
    cluster.good(&["start", "redis-1a"]);
    assert!(cluster.part("redis-1a")["pid"].is_u64());

    // The node of the scope dies: who reports it is sent to the other one.
    let dead: u8 = first.trim_start_matches("127.0.1.").split(':').next().unwrap().parse().unwrap();
    let alive = 3 - dead;
    cluster.good(&["kill", &format!("node-{dead}")]);
    let report = format!("&reconnect=true&streamerEndpoint={first}");
    let second = resolve(alive, "lobby", &report);
    assert!(second.starts_with(&format!("127.0.1.{alive}:")), "{second} after {first}");
    cluster.good(&["start", &format!("node-{dead}")]);
    assert_eq!(resolve(dead, "lobby", ""), second, "who comes back knows where it went");

    // Who drains takes nothing new.
    cluster.good(&["drain", &format!("node-{alive}")]);
    let new = (0..8).map(|number| resolve(dead, &format!("new-{number}"), ""));
    assert!(new.into_iter().all(|endpoint| endpoint.starts_with(&format!("127.0.1.{dead}:"))));

    let wrong = cluster.strait(&["kill", "node-9"]);
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && told.contains("node-2"), "{told}");
    cluster.good(&["down"]);
    assert!(!cluster.folder.exists());
    assert!(get(1, http, "/livez").is_err() && get(2, http, "/livez").is_err());
}
