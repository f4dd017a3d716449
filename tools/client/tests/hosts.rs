//! Real clients and a real node, each on a host of its own: going directly and back, and UDP that is blocked. This test's
//! program runs again on each host.

use crate::real::{Node, Ports};
use crate::sockets::voice;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use strait_client::v1::{self, auth::Credential, transport_report::State, user_event};
use strait_client::{Client, Config, Descriptor, Event, Frame, Trust};
use strait_tests::hosts::{Host, Hosts, Nat};

/// Holds the part of a host, where this program is one.
const PART: &str = "STRAIT_TEST_PART";
const PORT: u16 = 8443;
/// Of a node that has them.
const AUDIO: u16 = 5000;
const VIDEO: u16 = 5002;
const FURTHER: u16 = 3478;
const QUIC: u16 = 8444;
/// How long anything may take that has no bound of its own.
const PATIENCE: Duration = Duration::from_secs(30);
const FRAME: Duration = Duration::from_millis(20);
const OPUS: u8 = 111;
/// How a VP8 payload begins whose picture is one (RFC 7741 section 4.2, RFC 6386 section 9.1).
const KEY_FRAME: [u8; 2] = [0x10, 0];
/// What may wait to be looked at: minutes of it.
const LINES: usize = 65_536;

/// Bounds of docs/specification.md; other things run on machines that test.
fn bound(ms: u64) -> u64 {
    if std::env::var_os("STRAIT_STRICT").is_some() { ms } else { 3 * ms }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// The ends of the lines between the node's host and the others, of a test's own network.
fn ends(net: u8) -> [(IpAddr, IpAddr); 2] {
    [1, 2].map(|line| {
        let end = |host| IpAddr::from([10, net, line, host]);
        (end(1), end(2))
    })
}

/// What a client says, with the time in milliseconds.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Joined,
    State(State),
    /// The first packet that came directly since none did for a second.
    Direct,
    /// A frame of another: who, and which.
    Heard(u8, u32),
    /// A picture of another, likewise.
    Seen(u8, u32),
    /// Its sound and its pictures go to these UDP ports of the node from now on.
    Ports(u16, u16),
}

/// A client's process, or the node's.
struct Part {
    child: Child,
    lines: Receiver<(u64, Said)>,
    said: Vec<(u64, Said)>,
}

impl Part {
    fn start(host: &Host, test: &str, part: &str) -> Self {
        let mut child = host
            .command(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(PART, part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let (to, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut words = line.strip_prefix("@ ").into_iter().flat_map(str::split_whitespace);
                let Some(at) = words.next().and_then(|at| at.parse().ok()) else { continue };
                let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
                let said = match number() {
                    Some(0) => Said::Joined,
                    Some(1) => Said::State(State::try_from(number().unwrap() as i32).unwrap()),
                    Some(2) => Said::Direct,
                    Some(3) => Said::Heard(number().unwrap() as u8, number().unwrap()),
                    Some(4) => Said::Seen(number().unwrap() as u8, number().unwrap()),
                    Some(5) => Said::Ports(number().unwrap() as u16, number().unwrap() as u16),
                    other => panic!("{other:?}"),
                };
                let _ended = to.send((at, said));
            }
        });
        Self { child, lines, said: Vec::new() }
    }

    /// When it says so, not before `since`.
    fn wait(&mut self, since: u64, wanted: impl Fn(&Said) -> bool) -> u64 {
        let end = Instant::now() + PATIENCE;
        loop {
            self.said.extend(self.lines.try_iter());
            let found = self.said.iter().find(|(at, said)| *at >= since && wanted(said));
            if let Some((at, _)) = found {
                return *at;
            }
            assert!(Instant::now() < end, "not said, but {:?}", self.states());
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: see above");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// When its sound and pictures go to these ports.
    fn wait_for_ports(&mut self, since: u64, audio: u16, video: u16) -> u64 {
        self.wait(since, |said| *said == Said::Ports(audio, video))
    }

    /// When sound and a picture of another came, later than `since`.
    fn wait_for_both(&mut self, since: u64, from: u8) {
        self.wait(since, |said| matches!(said, Said::Heard(who, _) if *who == from));
        self.wait(since, |said| matches!(said, Said::Seen(who, _) if *who == from));
    }

    fn wait_for(&mut self, since: u64, state: State) -> u64 {
        self.wait(since, |said| *said == Said::State(state))
    }

    fn states(&self) -> Vec<&(u64, Said)> {
        self.said
            .iter()
            .filter(|(_, said)| !matches!(said, Said::Heard(..) | Said::Seen(..)))
            .collect()
    }

    /// Which frames of another came, and when each first did.
    fn heard(&mut self, from: u8) -> BTreeMap<u32, u64> {
        self.said.extend(self.lines.try_iter());
        let mut heard = BTreeMap::new();
        for (at, said) in &self.said {
            if let Said::Heard(who, frame) = said
                && *who == from
            {
                heard.entry(*frame).or_insert(*at);
            }
        }
        heard
    }

    /// Frames of another that did not come, between the first and the last that did within these times.
    fn lost(&mut self, from: u8, since: u64, until: u64) -> usize {
        let mut heard = self.heard(from);
        heard.retain(|_, at| (since..until).contains(at));
        let (first, last) = (heard.first_key_value().unwrap(), heard.last_key_value().unwrap());
        (last.0 - first.0) as usize + 1 - heard.len()
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success(), "it failed: see above");
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Plays a part, where this program is one. `part`: "node FOLDER LEFT RIGHT", with "ports" behind it for all there are, or "client WHO HOST FOLDER HOW": "direct", "relayed", or that with "quic".
fn play(part: &str) {
    let words: Vec<&str> = part.split_whitespace().collect();
    match words.as_slice() {
        ["node", folder, left, right, rest @ ..] => {
            let addresses = [left, right].map(|address| address.parse().unwrap());
            let ports = match rest {
                ["ports"] => {
                    let further = vec![FURTHER];
                    Ports { any: PORT, audio: AUDIO, video: VIDEO, further, ..Ports::default() }
                }
                _ => Ports { any: PORT, quic: QUIC, ..Ports::default() },
            };
            let _node = Node::start_on(Path::new(folder), &addresses, Vec::new(), &ports);
            println!("\n@ {} 0", now_ms());
            let _end = std::io::stdin().read_to_end(&mut Vec::new());
        }
        ["client", who, host, folder, relayed] => {
            client(who.parse().unwrap(), host, Path::new(folder), relayed);
        }
        other => panic!("{other:?}"),
    }
}

/// Talks and listens until its standard input ends.
fn client(who: u8, host: &str, folder: &Path, how: &str) {
    let descriptor = Descriptor {
        config: Config {
            host: host.into(),
            port: PORT,
            credential: Credential::Token("dev".into()),
            scope_id: "room".into(),
            name: who.to_string(),
            client: "test/1".into(),
            profiles: Vec::new(),
            relay_only: how != "direct",
            cluster: None,
        },
        trust: Trust::CaFile(folder.join("certificate.pem")),
        proxy: None,
        udp: true,
        quic: (how == "quic").then_some(QUIC),
    };
    println!();
    let (to, events) = sync_channel(LINES);
    let client = Client::connect(descriptor, move |event| drop(to.try_send(event))).unwrap();
    let voice = client.publish(voice()).unwrap();
    let pictures =
        v1::Publish { kind: v1::Kind::Video.into(), codec: "VP8".into(), ..v1::Publish::default() };
    let camera = client.publish(pictures).unwrap();
    let (ended, end) = sync_channel::<()>(1);
    std::thread::spawn(move || {
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    let (mut next, mut frame, mut is_published) = (Instant::now(), 0u32, false);
    let mut direct = (0, Instant::now() - PATIENCE);
    let mut ports = None;
    while end.try_recv() != Err(TryRecvError::Disconnected) {
        let left = next.saturating_duration_since(Instant::now());
        if let Ok(event) = events.recv_timeout(left) {
            let publications = match event {
                Event::Joined { peers, .. } => {
                    println!("@ {} 0", now_ms());
                    peers.into_iter().flat_map(|peer| peer.publications).collect()
                }
                Event::Scope(user_event::Body::Started(started)) => {
                    started.publication.into_iter().collect()
                }
                Event::Transport(state) => {
                    println!("@ {} 1 {}", now_ms(), i32::from(state));
                    Vec::new()
                }
                Event::Published { handle, .. } => {
                    is_published |= handle == voice;
                    Vec::new()
                }
                Event::Payload(payload) => {
                    let (what, head) = match payload.payload_type {
                        OPUS => (3, 0),
                        _ => (4, KEY_FRAME.len()),
                    };
                    let (from, number) = payload.payload[head..].split_first().unwrap();
                    let number = u32::from_be_bytes(number.try_into().unwrap());
                    println!("@ {} {what} {from} {number}", now_ms());
                    Vec::new()
                }
                _ => Vec::new(),
            };
            for publication in publications {
                client.subscribe(&publication.publication_id, true).unwrap();
            }
        }
        let statistics = client.statistics();
        if statistics.udp != ports
            && let Some(udp) = statistics.udp
        {
            println!("@ {} 5 {} {}", now_ms(), udp.audio.port(), udp.video.port());
        }
        ports = statistics.udp;
        let came = statistics.direct_packets;
        if came > direct.0 {
            if direct.1.elapsed() > Duration::from_secs(1) {
                println!("@ {} 2", now_ms());
            }
            direct = (came, Instant::now());
        }
        if Instant::now() >= next {
            next += FRAME;
            if is_published {
                let mut payload = vec![who];
                payload.extend(frame.to_be_bytes());
                let timestamp = frame * 960;
                let frame_of_voice =
                    Frame { payload: &payload, timestamp, marker: frame == 0, level: None };
                let _away = client.send(voice, 0, &frame_of_voice);
                let payload = [&KEY_FRAME[..], &payload].concat();
                let timestamp = frame * 1800;
                let picture = Frame { payload: &payload, timestamp, marker: true, level: None };
                let _away = client.send(camera, 0, &picture);
                frame += 1;
            }
        }
    }
}

/// The hosts of a test, with a node on the one in the middle.
struct Net {
    hosts: Hosts,
    ends: [(IpAddr, IpAddr); 2],
    folder: tempfile::TempDir,
    name: &'static str,
    _node: Part,
}

impl Net {
    /// None where this machine gives no hosts.
    fn start(name: &'static str, net: u8) -> Option<Self> {
        Self::start_with(name, net, "")
    }

    /// The node is told this as well.
    fn start_with(name: &'static str, net: u8, more: &str) -> Option<Self> {
        let ends = ends(net);
        let made = Hosts::new(&format!("d{net}"), ends[0], ends[1]);
        let hosts = match made.and_then(|hosts| hosts.connect_sides(ends).map(|()| hosts)) {
            Ok(hosts) => hosts,
            Err(reason) => {
                strait_tests::skip(name, &reason);
                return None;
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let (folder_path, [left, right]) = (folder.path().display(), ends);
        let part = format!("node {folder_path} {} {} {more}", left.0, right.0);
        let mut node = Part::start(&hosts.relay, name, &part);
        node.wait(0, |said| *said == Said::Joined);
        Some(Self { hosts, ends, folder, name, _node: node })
    }

    /// A client on the left (0) or right (1) host.
    fn client(&self, side: usize, who: u8, relayed: &str) -> Part {
        self.client_on([&self.hosts.left, &self.hosts.right][side], side, who, relayed)
    }

    /// A client on another one that reaches the node by that side.
    fn client_on(&self, host: &Host, side: usize, who: u8, relayed: &str) -> Part {
        let folder = self.folder.path().display();
        let part = format!("client {who} {} {folder} {relayed}", self.ends[side].0);
        Part::start(host, self.name, &part)
    }
}

fn settle() {
    // Long enough for what is under way to arrive, and for some frames to be judged by.
    std::thread::sleep(Duration::from_secs(1));
}

#[test]
fn two_on_hosts_of_their_own_go_directly_and_come_back() {
    if let Ok(part) = std::env::var(PART) {
        return play(&part);
    }
    let name = "hosts::two_on_hosts_of_their_own_go_directly_and_come_back";
    let Some(net) = Net::start(name, 91) else { return };
    let mut ann = net.client(0, 1, "direct");
    ann.wait_for(0, State::UdpRelay);
    let mut bob = net.client(1, 2, "direct");
    let joined = bob.wait(0, |said| *said == Said::Joined);
    for member in [&mut ann, &mut bob] {
        let direct = member.wait(0, |said| *said == Said::Direct) - joined;
        assert!(direct <= bound(1000), "the first direct packet after {direct} ms");
        member.wait_for(joined, State::P2p);
    }
    settle();

    let before = now_ms();
    let mut cat = net.client(0, 3, "direct");
    let third = cat.wait(0, |said| *said == Said::Joined);
    ann.wait_for(before, State::UdpRelay);
    bob.wait_for(before, State::UdpRelay);
    settle();
    let now = now_ms();
    assert_eq!((ann.lost(2, 0, now), bob.lost(1, 0, now)), (0, 0), "frames at both moves");
    let first_of_ann = *cat.heard(1).first_key_value().expect("the third hears her").1;
    let after = first_of_ann.saturating_sub(third);
    assert!(after <= bound(1000), "the third one hears her after {after} ms");
    let alone = now_ms();
    cat.end();
    ann.wait_for(alone, State::P2p);
    bob.wait_for(alone, State::P2p);
    settle();
    net.hosts.disconnect_sides().unwrap();
    let cut = now_ms();
    ann.wait_for(cut, State::UdpRelay);
    bob.wait_for(cut, State::UdpRelay);
    settle();
    for (member, other) in [(&mut ann, 2), (&mut bob, 1)] {
        // Media goes both ways again before that is reported.
        let back = member.heard(other).values().filter(|at| **at > cut + 100).min().copied();
        let after = back.expect("sound comes back") - cut;
        assert!(after <= bound(2000), "{after} ms without sound");
    }
    net.hosts.connect_sides(net.ends).unwrap();
    let again = now_ms();
    ann.wait_for(again, State::P2p);
    ann.end();
    bob.end();
}

/// Two clients, each behind a router of this kind. None where this machine gives no such hosts.
fn behind_routers(name: &'static str, net: u8, nat: Nat) -> Option<(Net, [Host; 2], [Part; 2])> {
    let net_of = net;
    let net = Net::start(name, net)?;
    let home = |side: usize| {
        let end = |host| IpAddr::from([10, net_of, 11 + side as u8, host]);
        net.hosts.behind(side, (end(1), end(2)), nat)
    };
    let homes = match home(0).and_then(|one| Ok([one, home(1)?])) {
        Ok(homes) => homes,
        Err(reason) => {
            strait_tests::skip(name, &reason);
            return None;
        }
    };
    let mut ann = net.client_on(&homes[0], 0, 1, "direct");
    ann.wait_for(0, State::UdpRelay);
    let bob = net.client_on(&homes[1], 1, 2, "direct");
    Some((net, homes, [ann, bob]))
}

#[test]
fn two_behind_routers_that_keep_ports_go_directly() {
    if let Ok(part) = std::env::var(PART) {
        return play(&part);
    }
    let name = "hosts::two_behind_routers_that_keep_ports_go_directly";
    let Some((net, _homes, [mut ann, mut bob])) = behind_routers(name, 94, Nat::Cone) else {
        return;
    };
    let joined = bob.wait(0, |said| *said == Said::Joined);
    for member in [&mut ann, &mut bob] {
        member.wait(joined, |said| *said == Said::Direct);
        member.wait_for(joined, State::P2p);
    }
    settle();
    let now = now_ms();
    ann.wait_for_both(now, 2);
    bob.wait_for_both(now, 1);
    assert_eq!((ann.lost(2, 0, now), bob.lost(1, 0, now)), (0, 0), "frames at the move");
    // It was no other way: without one between the routers there is the relay's.
    net.hosts.disconnect_sides().unwrap();
    let cut = now_ms();
    ann.wait_for(cut, State::UdpRelay);
    bob.wait_for(cut, State::UdpRelay);
    settle();
    let now = now_ms();
    ann.wait_for_both(now, 2);
    bob.wait_for_both(now, 1);
    ann.end();
    bob.end();
}

#[test]
fn two_behind_routers_that_change_ports_talk_through_the_relay() {
    if let Ok(part) = std::env::var(PART) {
        return play(&part);
    }
    let name = "hosts::two_behind_routers_that_change_ports_talk_through_the_relay";
    let Some((_net, _homes, [mut ann, mut bob])) = behind_routers(name, 95, Nat::Symmetric) else {
        return;
    };
    bob.wait_for(0, State::UdpRelay);
    // They are told of each other, and ask: five times as long as two need who can.
    std::thread::sleep(Duration::from_secs(5));
    let now = now_ms();
    ann.wait_for_both(now, 2);
    bob.wait_for_both(now, 1);
    for (member, other) in [(&mut ann, 2), (&mut bob, 1)] {
        let is_direct = |said: &Said| matches!(said, Said::Direct | Said::State(State::P2p));
        let states = member.states();
        assert!(!states.iter().any(|(_, said)| is_direct(said)), "{states:?}");
        assert_eq!(member.lost(other, 0, now), 0);
    }
    ann.end();
    bob.end();
}

#[test]
fn where_udp_is_blocked_media_goes_by_tcp_and_comes_back() {
    if let Ok(part) = std::env::var(PART) {
        return play(&part);
    }
    let name = "hosts::where_udp_is_blocked_media_goes_by_tcp_and_comes_back";
    let Some(net) = Net::start(name, 92) else { return };
    let mut bob = net.client(1, 2, "relayed");
    bob.wait_for(0, State::UdpRelay);
    net.hosts.block_udp_of_left(true).unwrap();
    let began = now_ms();
    let mut ann = net.client(0, 1, "relayed");
    for (member, other) in [(&mut ann, 2), (&mut bob, 1)] {
        let first = member.wait(0, |said| matches!(said, Said::Heard(who, _) if *who == other));
        assert!(first - began <= bound(3000), "the first sound after {} ms", first - began);
    }
    // Over the link until the connection for framed media is open, which may be at once.
    ann.wait(0, |said| matches!(said, Said::State(State::Link | State::TcpRelay)));
    settle();
    net.hosts.block_udp_of_left(false).unwrap();
    let released = now_ms();
    let back = ann.wait_for(released, State::UdpRelay) - released;
    assert!(back <= bound(10_000), "back on UDP after {back} ms");
    settle();
    let now = now_ms();
    let (at_ann, at_bob) = (ann.lost(2, released, now), bob.lost(1, released, now));
    assert!(at_ann.max(at_bob) <= 5, "100 ms of sound: {at_ann} and {at_bob} frames lost");
    ann.end();
    bob.end();
}

#[test]
fn where_udp_ends_a_link_over_quic_does_not_hold_up_media() {
    if let Ok(part) = std::env::var(PART) {
        return play(&part);
    }
    let name = "hosts::where_udp_ends_a_link_over_quic_does_not_hold_up_media";
    let Some(net) = Net::start(name, 97) else { return };
    let mut ann = net.client(0, 1, "quic");
    let mut bob = net.client(1, 2, "relayed");
    ann.wait_for(0, State::UdpRelay);
    bob.wait_for(0, State::UdpRelay);
    ann.wait_for_both(0, 2);
    bob.wait_for_both(0, 1);
    settle();
    net.hosts.block_udp_of_left(true).unwrap();
    let cut = now_ms();
    ann.wait(cut, |said| matches!(said, Said::State(State::Link | State::TcpRelay)));
    for (member, other) in [(&mut ann, 2), (&mut bob, 1)] {
        let is_sound = |said: &Said| matches!(said, Said::Heard(who, _) if *who == other);
        // What was under way came within the first second.
        let first = member.wait(cut + 1000, is_sound) - cut;
        assert!(first <= bound(5000), "sound of {other} again after {first} ms");
    }
    net.hosts.block_udp_of_left(false).unwrap();
    let released = now_ms();
    let back = ann.wait_for(released, State::UdpRelay) - released;
    assert!(back <= bound(10_000), "back on UDP after {back} ms");
    ann.end();
    bob.end();
}

#[test]
fn ports_are_tried_from_the_best_on_and_taken_again() {
    if let Ok(part) = std::env::var(PART) {
        return play(&part);
    }
    let name = "hosts::ports_are_tried_from_the_best_on_and_taken_again";
    let Some(net) = Net::start_with(name, 93, "ports") else { return };
    let mut ann = net.client(0, 1, "relayed");
    let mut bob = net.client(1, 2, "relayed");
    ann.wait_for_ports(0, AUDIO, VIDEO);
    bob.wait_for_ports(0, AUDIO, VIDEO);
    ann.wait_for_both(0, 2);
    bob.wait_for_both(0, 1);
    settle();
    // Also where one of the pair alone is blocked.
    for (blocked, next) in [(VIDEO, PORT), (PORT, FURTHER)] {
        net.hosts.block_udp_port_of_left(blocked, true).unwrap();
        let cut = now_ms();
        let moved = ann.wait_for_ports(cut, next, next);
        assert!(moved - cut <= bound(2000), "from {blocked} to {next} after {} ms", moved - cut);
        ann.wait_for_both(moved, 2);
        bob.wait_for_both(moved, 1);
    }
    net.hosts.block_udp_port_of_left(AUDIO, true).unwrap();
    net.hosts.block_udp_port_of_left(FURTHER, true).unwrap();
    let cut = now_ms();
    let moved = ann.wait(cut, |said| matches!(said, Said::State(State::Link | State::TcpRelay)));
    ann.wait_for_both(moved, 2);
    bob.wait_for_both(moved, 1);
    settle();
    // And back: to the one that is there first, and then up, without a gap.
    net.hosts.block_udp_port_of_left(FURTHER, false).unwrap();
    let released = now_ms();
    ann.wait_for_ports(released, FURTHER, FURTHER);
    for port in [PORT, AUDIO, VIDEO] {
        net.hosts.block_udp_port_of_left(port, false).unwrap();
    }
    let all = now_ms();
    let back = ann.wait_for_ports(all, AUDIO, VIDEO) - all;
    assert!(back <= bound(10_000), "back on the best after {back} ms");
    settle();
    let now = now_ms();
    let (at_ann, at_bob) = (ann.lost(2, released, now), bob.lost(1, released, now));
    assert!(at_ann.max(at_bob) <= 5, "100 ms of sound: {at_ann} and {at_bob} frames lost");
    let before = bob.states().iter().filter(|(_, said)| matches!(said, Said::Ports(..))).count();
    assert_eq!(before, 1, "nothing changed for the other one");
    ann.wait_for_both(now, 2);
    bob.wait_for_both(now, 1);
    ann.end();
    bob.end();
}
