//! Two people who cannot reach each other talk through the relay: each of the three on a host of
//! its own. This test's program runs again on the hosts of the two.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strait_tests::hosts::{Ends, Host, Hosts};

use crate::jsonrtc::Link;
use crate::peer::Traits;
use crate::person::Person;
use crate::secure;
use crate::system::{START, System};

/// Holds a client's part, where this program is one.
const PART: &str = "STRAIT_TEST_PART";
/// Port of HTTPS on the relay's host, which nobody else is on.
const HTTPS: u16 = 8443;
/// Frames of each kind that must arrive: three seconds.
const FRAMES: usize = 150;
/// What a client says when it has them.
const ENOUGH: &str = "enough";

#[test]
fn two_who_cannot_reach_each_other_talk_through_the_relay() {
    let ends = |subnet: u8| (IpAddr::from([10, 77, subnet, 1]), IpAddr::from([10, 77, subnet, 2]));
    let name = "namespaces::two_who_cannot_reach_each_other_talk_through_the_relay";
    call(name, "v4", [ends(1), ends(2)], |_| {});
}

#[test]
fn a_call_over_ipv6_alone() {
    let ends = |subnet: u16| {
        let end = |host| IpAddr::from([0xfd77, 0, 0, subnet, 0, 0, 0, host]);
        (end(1), end(2))
    };
    call("namespaces::a_call_over_ipv6_alone", "v6", [ends(1), ends(2)], |hosts| {
        for host in hosts.all() {
            assert_eq!(host.ipv4(), "", "no host has an IPv4 address");
        }
    });
}

/// The whole of a test; in a client, its part.
fn call(name: &str, short: &str, [left, right]: [Ends; 2], check: impl Fn(&Hosts)) {
    if let Ok(part) = std::env::var(PART) {
        return client(&serde_json::from_str(&part).expect("a part"));
    }
    let hosts = match Hosts::new(short, left, right) {
        Ok(hosts) => hosts,
        Err(reason) => return strait_tests::skip(name, &reason),
    };
    check(&hosts);
    let listen = if left.0.is_ipv6() { "::" } else { "0.0.0.0" };
    let system = System::start_on(&hosts.relay, listen, HTTPS);
    let begin = |host: &Host, ends: Ends, other: Ends, marks: [u8; 2]| {
        let part = json!({
            "mark": marks[0], "other": marks[1], "address": ends.1, "unreachable": other.1,
            "server": SocketAddr::new(ends.0, HTTPS), "certificate": system.certificate(),
        });
        Client::start(host, name, &part)
    };
    let mut clients =
        [begin(&hosts.left, left, right, [1, 2]), begin(&hosts.right, right, left, [2, 1])];
    // Neither leaves before both have enough.
    clients.iter_mut().for_each(Client::await_enough);
    clients.into_iter().for_each(Client::end);
    check(&hosts);
}

/// A client's process; it ends when its standard input does.
struct Client(Child);

impl Client {
    fn start(host: &Host, name: &str, part: &Value) -> Self {
        let child = host
            .command(std::env::current_exe().expect("this test"))
            .args([name, "--exact", "--nocapture"])
            .env(PART, part.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client");
        Self(child)
    }

    fn await_enough(&mut self) {
        let output = self.0.stdout.as_mut().expect("its output");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with(ENOUGH)), "a client failed: see above");
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        let mut rest = String::new();
        let _ = self.0.stdout.take().map(|mut output| output.read_to_string(&mut rest));
        assert!(self.0.wait().expect("its end").success(), "{rest}");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// On a client's host.
fn client(part: &Value) {
    let mark = |name: &str| part[name].as_u64().and_then(|mark| mark.try_into().ok());
    let (mark, other) = (mark("mark").expect("a mark"), mark("other").expect("a mark"));
    let address = |name: &str| part[name].as_str().expect("an address").to_owned();
    let local: IpAddr = address("address").parse().expect("an address");
    let unreachable: IpAddr = address("unreachable").parse().expect("an address");
    let socket = UdpSocket::bind((local, 0)).expect("a socket");
    assert!(socket.send_to(b"?", (unreachable, 9)).is_err(), "there is a way past the relay");

    let server = address("server").parse().expect("an address");
    let link = link(server, Path::new(&address("certificate")));
    let traits = Traits { address: local, ..Traits::new(mark) };
    let mut person = Person::join(link, "lobby", traits, 1);
    let publications = person.other();
    let slots = person.slots();
    person.show(&publications, &slots);
    person.peer.wait_for(1, FRAMES).assert_from([other]);
    println!("\n{ENOUGH}");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A session over HTTPS, once the server is ready.
fn link(server: SocketAddr, certificate: &Path) -> Link {
    let deadline = Instant::now() + START;
    let is_ready = || -> std::io::Result<bool> {
        let mut stream = secure::connect(server, certificate)?;
        let request =
            format!("GET /readyz HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    };
    loop {
        match is_ready() {
            Ok(true) => break,
            not_yet => assert!(Instant::now() < deadline, "not ready: {not_yet:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let stream = secure::connect(server, certificate).expect("it was there just now");
    Link::over(Box::new(stream), &format!("wss://{server}"), "somebody")
}
