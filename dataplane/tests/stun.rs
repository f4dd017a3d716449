//! Strangers that ask by STUN where they are seen.

use crate::common::{Setup, start_config};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use strait_proto::v1;
use strait_relay::Config;
use strait_wire::stun::{Builder, Message};

/// That ask: more than one worker gets all of them by chance.
const SOCKETS: usize = 24;
/// How long an answer may take before it is asked again.
const PATIENCE: Duration = Duration::from_millis(200);

/// How many of so many sockets were told their address at each UDP candidate of the relay, asking so often.
fn told(info: &v1::GetInfoResponse, sockets: usize, tries: usize) -> Vec<usize> {
    let udp = info.candidates.iter().filter(|c| c.protocol() == v1::candidate::Protocol::Udp);
    udp.map(|candidate| {
        let relay = SocketAddr::new(candidate.address.parse().unwrap(), candidate.port as u16);
        (0..sockets).filter(|_| is_told(relay, tries)).count()
    })
    .collect()
}

fn is_told(relay: SocketAddr, tries: usize) -> bool {
    let socket = UdpSocket::bind((relay.ip(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut room = [0; 100];
    (0..tries).any(|_| {
        let length = Builder::binding_request(&mut room, [7; 12]).finish().unwrap();
        socket.send_to(&room[..length], relay).unwrap();
        let Ok((length, from)) = socket.recv_from(&mut room) else { return false };
        assert_eq!(from, relay);
        let answer = Message::parse(&room[..length]).unwrap();
        assert_eq!(answer.xor_mapped_address(), Some(socket.local_addr().unwrap()));
        true
    })
}

async fn asked(stun: bool, sockets: usize, tries: usize) -> (bool, Vec<usize>, Setup) {
    let change = |config| Config { workers: 2, stun, ..config };
    let mut setup = start_config(change).await;
    let info = setup.client.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    let says = info.stun;
    let told = tokio::task::spawn_blocking(move || told(&info, sockets, tries)).await.unwrap();
    (says, told, setup)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_where_it_is_seen_is_told_by_whichever_worker_reads_it() {
    let (says, told, setup) = asked(true, SOCKETS, 25).await;
    assert!(says);
    assert_eq!(told, [SOCKETS; 2], "of each family");
    let metrics = setup.relay.metrics_address().unwrap();
    let text = tokio::task::spawn_blocking(move || page(metrics)).await.unwrap();
    let answered = |worker: usize| {
        let name = format!("relay_stun_answered_total{{worker=\"{worker}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|count| count.parse::<usize>().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    assert!(answered(0) + answered(1) >= 2 * SOCKETS);
    setup.relay.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_where_that_is_switched_off() {
    let (says, told, setup) = asked(false, 2, 2).await;
    assert!(!says, "the control plane tells nobody to ask");
    assert_eq!(told, [0; 2]);
    setup.relay.stop();
}

fn page(address: SocketAddr) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
