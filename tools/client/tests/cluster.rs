//! Clients in a cluster of two real nodes, each with processes of its own that are killed; with a stand-in for the CnC, and
//! with the nodes' own CnCs and mappings in Redis.

use crate::sockets::{Member, voice};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use strait_client::v1::auth::Credential;
use strait_client::{Cluster, Config, Descriptor, Event, Frame, Resolver, Trust};

/// Generous: the machine has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// From the death of a node until media of another flows, and three times as much where others use the machine.
const FAILOVER: Duration = Duration::from_secs(5);

/// What the tests' own build makes, if it did.
fn programs() -> Option<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.to_path_buf());
    let folder = std::env::var_os("STRAIT_BIN_DIR").map(PathBuf::from).or_else(beside)?;
    let all = ["strait", "strait-relay", "strait-control"];
    all.iter().all(|name| folder.join(name).is_file()).then_some(folder)
}

/// A port that is free for TCP and UDP now.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address.port();
        }
    }
}

/// `strait dev` with its relay and control.
struct Node {
    process: Child,
    folder: tempfile::TempDir,
    http: SocketAddr,
    port: u16,
}

impl Node {
    fn start(programs: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (http, port) = (free_port(), free_port());
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(programs.join("strait"))
            .args(["dev", "--address", "127.0.0.1", "--metrics-port", "0", "--token", "dev"])
            .args(["--http-port", &http.to_string(), "--https-port", &port.to_string()])
            .args(["--media-port", &port.to_string(), "--log", "info"])
            .arg("--bin-dir")
            .arg(programs)
            .arg("--state-dir")
            .arg(folder.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let node = Self { process, folder, http: SocketAddr::from(([127, 0, 0, 1], http)), port };
        let end = Instant::now() + PATIENCE;
        while !answers(node.http, "/readyz") {
            let log = std::fs::read_to_string(node.folder.path().join("log")).unwrap();
            assert!(Instant::now() < end, "it is ready: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        node
    }

    fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its control begins anew, in a cluster whose mappings are in this Redis.
    fn join_cluster(&self, name: &str, redis: u16) {
        let public = self.endpoint();
        let table = format!(
            "\n[cluster]\nname = \"{name}\"\npublic = \"{public}\"\n\
             mappings = [\"redis://127.0.0.1:{redis}\"]\n"
        );
        let path = self.folder.path().join("control.toml");
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        file.write_all(table.as_bytes()).unwrap();
        let before = self.children("strait-control");
        signal("KILL", &before);
        let end = Instant::now() + PATIENCE;
        while [&before, &Vec::new()].contains(&&self.children("strait-control"))
            || get(self.http, "/resolve?applicationId=dev&scopeId=first").is_none()
        {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(Instant::now() < end, "it is in the cluster: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it started whose name ends so.
    fn children(&self, name: &str) -> Vec<u32> {
        let own = self.process.id().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let read = |what: &str| std::fs::read_to_string(entry.path().join(what));
            let (Ok(stat), Ok(command)) = (read("stat"), read("cmdline")) else { continue };
            let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
            let program = command.split('\0').next().unwrap_or_default();
            if parent == Some(own.as_str()) && program.ends_with(name) {
                found.push(pid);
            }
        }
        found
    }

    /// Ends all of it at once: a host that loses its power.
    fn die(&mut self) {
        // Stopped first, or it starts again what ends.
        signal("STOP", &[self.process.id()]);
        signal("KILL", &self.children(""));
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.die();
        }
    }
}

fn signal(name: &str, pids: &[u32]) {
    for pid in pids {
        let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
        assert!(status.unwrap().success());
    }
}

fn answers(http: SocketAddr, path: &str) -> bool {
    get(http, path).is_some()
}

/// The body, where the status is 200.
fn get(http: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&http, Duration::from_millis(500)).ok()?;
    let _set = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// A Redis that keeps nothing; ends when it is dropped.
struct Redis(Child, u16);

impl Redis {
    fn start() -> Option<Self> {
        let port = free_port();
        Self::run(port).ok().map(|process| Self(process, port))
    }

    /// Kills it, and returns what starts another one in its place, which knows nothing.
    fn kill(mut self) -> impl FnOnce() -> Self {
        let port = self.1;
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        move || Self(Self::run(port).unwrap(), port)
    }

    fn run(port: u16) -> std::io::Result<Child> {
        Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Not a CnC: it names a node, and the next one when that is reported and does not answer three times within a second.
fn stand_in_cnc(nodes: Vec<(String, SocketAddr)>) -> (Resolver, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let heard = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut at = 0;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let (name, health) = &nodes[at];
            let is_reported = line.contains(&name.replace(':', "%3A"));
            heard.lock().unwrap().push(line);
            let is_well = || {
                (0..3).any(|_| {
                    answers(*health, "/livez") || {
                        std::thread::sleep(Duration::from_millis(300));
                        false
                    }
                })
            };
            if is_reported && !is_well() {
                at = (at + 1) % nodes.len();
            }
            let name = &nodes[at].0;
            let length = name.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (Resolver::parse(&url).unwrap(), asked)
}

/// Ann speaks every 20 ms, Bob listens: when each of her numbered words came to him.
struct Call {
    ann: Member,
    bob: Member,
    voice: u32,
    said: u32,
    heard: Vec<(Instant, u32)>,
    events: Vec<Event>,
}

impl Call {
    fn start(descriptor: &Descriptor) -> Self {
        let join = |name: &str| {
            let mut descriptor = descriptor.clone();
            descriptor.config.name = name.into();
            Member::connect(descriptor)
        };
        let (ann, bob) = (join("ann"), join("bob"));
        let voice = ann.client.publish(voice()).unwrap();
        let id = ann.wait("Published", |event| match event {
            Event::Published { publication_id, .. } => Some(publication_id.clone()),
            _ => None,
        });
        bob.wait("Joined", |event| matches!(event, Event::Joined { .. }).then_some(()));
        bob.client.subscribe(&id, true).unwrap();
        bob.wait("Subscribed", |event| matches!(event, Event::Subscribed { .. }).then_some(()));
        let (heard, events) = (Vec::new(), Vec::new());
        Self { ann, bob, voice, said: 0, heard, events }
    }

    fn speak(&mut self) {
        let payload = self.said.to_be_bytes();
        let timestamp = self.said.wrapping_mul(960);
        let frame = Frame { payload: &payload, timestamp, marker: false, level: None };
        self.said += 1;
        let _away = self.ann.client.send(self.voice, 0, &frame);
        std::thread::sleep(Duration::from_millis(20));
        let now = Instant::now();
        for came in self.bob.try_payloads() {
            self.heard.push((now, u32::from_be_bytes(came.payload.try_into().unwrap())));
        }
    }

    fn speak_for(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.speak();
        }
    }

    fn speak_until_heard(&mut self, since: Instant) {
        let end = Instant::now() + PATIENCE;
        while self.heard.last().is_none_or(|(at, _)| *at < since) {
            assert!(Instant::now() < end, "Ann is heard");
            self.speak();
        }
    }

    /// Both come back to the same node and the session of before, and nothing is missing.
    fn back_without_loss(&mut self, since: Instant, what: &str) {
        let end = Instant::now() + PATIENCE;
        let mut is_back = [false; 2];
        while is_back != [true; 2] {
            assert!(Instant::now() < end, "{what}: both are back: {is_back:?}");
            self.speak();
            for (is_back, member) in is_back.iter_mut().zip([&self.ann, &self.bob]) {
                for event in member.take_events() {
                    assert!(!matches!(event, Event::Moved { .. }), "{what}: {event:?}");
                    if let Event::Joined { resumed, .. } = event {
                        assert!(resumed, "{what}: in the session of before");
                        *is_back = true;
                    }
                }
            }
        }
        let back = since.elapsed();
        self.speak_for(Duration::from_secs(3));
        self.speak_until_heard(Instant::now());
        let (gap, missing) = self.gap(since);
        println!("{what}: back in {back:?}, {gap:?} of silence, {missing} words missing");
        assert_eq!(missing, 0, "{what}: media does not notice");
        assert!(gap < FAILOVER / 5, "{what}: {gap:?}");
    }

    /// The longest time in which nothing was heard since then, and how many words are missing.
    fn gap(&self, since: Instant) -> (Duration, usize) {
        let times: Vec<_> = self.heard.iter().filter(|(at, _)| *at >= since).collect();
        let gaps = times.windows(2).map(|pair| pair[1].0 - pair[0].0);
        let first = times[0].0 - since;
        let (from, to) = (times[0].1, times[times.len() - 1].1);
        let missing = (to + 1 - from) as usize - times.len().min((to + 1 - from) as usize);
        (gaps.chain([first]).max().unwrap(), missing)
    }

    fn moved(&mut self, of_bob: bool) -> Option<String> {
        let member = if of_bob { &self.bob } else { &self.ann };
        self.events = member.take_events();
        self.events.iter().find_map(|event| match event {
            Event::Moved { node } => Some(node.clone()),
            _ => None,
        })
    }
}

/// Whoever asks these for the node, and trusts all nodes.
fn descriptor(nodes: &[Node], resolvers: Vec<Resolver>) -> (Descriptor, tempfile::NamedTempFile) {
    let all = tempfile::NamedTempFile::new().unwrap();
    let certificates = nodes
        .iter()
        .map(|node| std::fs::read_to_string(node.folder.path().join("certificate.pem")).unwrap());
    std::fs::write(all.path(), certificates.collect::<String>()).unwrap();
    let (application_id, region) = ("dev".into(), String::new());
    let descriptor = Descriptor {
        config: Config {
            host: String::new(),
            port: 0,
            credential: Credential::Token("dev".into()),
            scope_id: "cluster".into(),
            name: String::new(),
            client: "test/1".into(),
            profiles: Vec::new(),
            relay_only: true,
            cluster: Some(Cluster { resolvers, application_id, region }),
        },
        trust: Trust::CaFile(all.path().into()),
        proxy: None,
        udp: true,
        quic: None,
    };
    (descriptor, all)
}

#[test]
fn with_cncs_of_their_own_and_redis_a_killed_node_is_left_for_another() {
    let test = "client: cluster of real nodes with Redis";
    let Some(programs) = programs() else {
        let why = "strait, strait-relay and strait-control are not built beside the tests";
        return strait_tests::skip(test, why);
    };
    let Some(redis) = Redis::start() else {
        return strait_tests::skip(test, "there is no redis-server");
    };
    let mut nodes = [Node::start(&programs), Node::start(&programs)];
    nodes[0].join_cluster("one", redis.1);
    nodes[1].join_cluster("two", redis.1);
    let resolver = |node: &Node| Resolver::parse(&format!("http://{}", node.http)).unwrap();
    let (descriptor, _certificates) = descriptor(&nodes, nodes.iter().map(resolver).collect());
    let mut call = Call::start(&descriptor);
    call.speak_until_heard(Instant::now());

    // Both CnCs know the node. It dies with its own.
    let resolve = |node: &Node| get(node.http, "/resolve?applicationId=dev&scopeId=cluster");
    let named = resolve(&nodes[0]).unwrap();
    assert_eq!(resolve(&nodes[1]).as_ref(), Some(&named));
    let at = nodes.iter().position(|node| node.endpoint() == named).unwrap();
    let killed = Instant::now();
    nodes[at].die();
    call.speak_until_heard(killed + Duration::from_millis(500));
    call.speak_for(Duration::from_secs(1));
    let (gap, _) = call.gap(killed);
    println!("node killed, mappings in Redis: {gap:?} of silence");
    assert!(gap < 3 * FAILOVER, "{gap:?}");
    let there = nodes[1 - at].endpoint();
    assert_eq!((call.moved(false), call.moved(true)), (Some(there.clone()), Some(there)));
}

#[test]
fn a_killed_node_is_left_for_another_and_a_control_that_comes_back_is_not() {
    let Some(programs) = programs() else {
        let why = "strait, strait-relay and strait-control are not built beside the tests";
        return strait_tests::skip("client: cluster of real nodes", why);
    };
    let mut nodes = [Node::start(&programs), Node::start(&programs)];
    let (cnc, asked) =
        stand_in_cnc(nodes.iter().map(|node| (node.endpoint(), node.http)).collect());
    // Nobody listens there: it is passed over.
    let nobody = Resolver::parse(&format!("http://127.0.0.1:{}", free_port())).unwrap();
    let (descriptor, _certificates) = descriptor(&nodes, vec![nobody, cnc]);
    let mut call = Call::start(&descriptor);
    call.speak_until_heard(Instant::now());

    // How they came is of no interest.
    drop([&call.ann, &call.bob].map(Member::take_events));
    // Control alone: `strait dev` starts it again, the relay goes on. As when it is updated, and as when
    // it breaks.
    for name in ["TERM", "KILL", "TERM"] {
        let ended = Instant::now();
        signal(name, &nodes[0].children("strait-control"));
        call.back_without_loss(ended, &format!("control gets SIG{name}"));
    }

    let killed = Instant::now();
    nodes[0].die();
    call.speak_until_heard(killed + Duration::from_millis(500));
    call.speak_for(Duration::from_secs(1));
    let (gap, missing) = call.gap(killed);
    println!("node killed: {gap:?} of silence, {missing} words missing");
    assert!(gap < 3 * FAILOVER, "{gap:?}");
    let there = nodes[1].endpoint();
    assert_eq!((call.moved(false), call.moved(true)), (Some(there.clone()), Some(there)));
    let failed = format!("&reconnect=true&streamerEndpoint={}", nodes[0].endpoint());
    assert!(asked.lock().unwrap().iter().any(|line| line.contains(&failed.replace(':', "%3A"))));
}

#[test]
fn media_flows_while_control_and_redis_are_away_and_all_is_as_before_when_they_are_back() {
    let test = "client: cluster without control and Redis";
    let Some(programs) = programs() else {
        let why = "strait, strait-relay and strait-control are not built beside the tests";
        return strait_tests::skip(test, why);
    };
    let Some(redis) = Redis::start() else {
        return strait_tests::skip(test, "there is no redis-server");
    };
    let nodes = [Node::start(&programs), Node::start(&programs)];
    nodes[0].join_cluster("one", redis.1);
    nodes[1].join_cluster("two", redis.1);
    let resolver = |node: &Node| Resolver::parse(&format!("http://{}", node.http)).unwrap();
    let (descriptor, _certificates) = descriptor(&nodes, nodes.iter().map(resolver).collect());
    let resolve = |node: &Node, scope: &str| {
        get(node.http, &format!("/resolve?applicationId=dev&scopeId={scope}"))
    };
    let mut call = Call::start(&descriptor);
    call.speak_until_heard(Instant::now());
    let began = Instant::now();
    let named = resolve(&nodes[0], "cluster").unwrap();
    // How they came is of no interest.
    drop([&call.ann, &call.bob].map(Member::take_events));

    // Redis alone: who is there stays, and others may come to them.
    let start_redis = redis.kill();
    call.speak_for(Duration::from_secs(3));
    let mut eve = descriptor.clone();
    eve.config.name = "eve".into();
    let eve = Member::connect(eve);
    let peers = eve.wait("Joined", |event| match event {
        Event::Joined { peers, .. } => Some(peers.len()),
        _ => None,
    });
    assert_eq!(peers, 2, "she meets those who are there");
    drop(eve);

    // And all of control, on both nodes.
    let away = Instant::now();
    for node in &nodes {
        // Stopped, it does not start again what ends.
        signal("STOP", &[node.process.id()]);
        signal("KILL", &node.children("strait-control"));
    }
    call.speak_for(Duration::from_secs(10));
    let (gap, _) = call.gap(away);
    assert!(gap < Duration::from_secs(1), "{gap:?}");

    // Redis is back without what it had, then control.
    let _redis = start_redis();
    for node in &nodes {
        signal("CONT", &[node.process.id()]);
    }
    let end = Instant::now() + PATIENCE;
    call.back_without_loss(began, "control and Redis away");
    for scope in ["cluster", "another"] {
        let mut places = [None, None];
        while places.contains(&None) {
            assert!(Instant::now() < end, "{scope} has a node: {places:?}");
            places = [0, 1].map(|at: usize| resolve(&nodes[at], scope));
        }
        assert_eq!(places[0], places[1], "{scope}");
        assert!(scope != "cluster" || places[0].as_ref() == Some(&named), "{places:?}");
    }
}
