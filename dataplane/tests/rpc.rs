//! The RPC's promises: who may call, what each error is, what is remembered.

use crate::common::peer::Peer;
use crate::common::{add_peer, config, connect, publish, scope, start, subscribe};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use strait_proto::v1;
use strait_proto::v1::candidate::Protocol;
use strait_proto::v1::event::Event;
use strait_proto::v1::relay_client::RelayClient;
use strait_relay::{Relay, RelayError, SocketError};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// The code and the message, of which a part is expected.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, part: &str) {
    let status = result.expect_err("refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(part), "{status}");
}

#[tokio::test]
async fn info_names_reachable_candidates_and_degradations() {
    let mut setup = start(2).await;
    let info = setup.client.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert_eq!((info.workers, info.draining, info.instance_id.len()), (2, false, 32));
    assert_eq!(info.fingerprint_sha256.len(), 95);
    assert_eq!(info.candidates.len(), 4, "{:?}", info.candidates);
    assert!(info.candidates.iter().all(|c| c.port > 0 && c.address != "0.0.0.0"));
    assert_eq!(info.limits.unwrap().peers_per_scope, 500);
    let mut other = start(1).await;
    let other = other.client.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    assert_ne!(other.instance_id, info.instance_id);
}

#[tokio::test]
async fn identifiers_are_checked() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    for (name, part) in
        [("", "is missing"), (&"x".repeat(129), "at most 128"), ("a\nb", "control character")]
    {
        refused(client.create_scope(scope(name)).await, Code::InvalidArgument, part);
        refused(client.add_peer(add_peer("room", name)).await, Code::InvalidArgument, part);
    }
    client.create_scope(scope("Räume & more")).await.unwrap();
}

#[tokio::test]
async fn scopes_are_idempotent_and_spread() {
    let mut setup = start(2).await;
    let client = &mut setup.client;
    let first = client.create_scope(scope("a")).await.unwrap().into_inner().worker;
    assert_eq!(client.create_scope(scope("a")).await.unwrap().into_inner().worker, first);
    assert_ne!(client.create_scope(scope("b")).await.unwrap().into_inner().worker, first);
    for _ in 0..2 {
        let request = v1::DisposeScopeRequest { scope_id: "a".into() };
        client.dispose_scope(request).await.unwrap();
    }
    refused(client.add_peer(add_peer("a", "ann")).await, Code::NotFound, "no scope \"a\"");
}

#[tokio::test]
async fn notes_are_kept_as_long_as_what_they_are_of() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    let keep = |scope: &str, peer: &str, content: &[u8]| {
        let (scope_id, peer_id, content) = (scope.into(), peer.into(), content.to_vec());
        v1::KeepNoteRequest { note: Some(v1::Note { scope_id, peer_id, content }) }
    };
    async fn notes(client: &mut RelayClient<Channel>) -> Vec<(String, String, String)> {
        let mut told = client.list_notes(v1::ListNotesRequest {}).await.unwrap().into_inner();
        let mut notes = Vec::new();
        while let Some(v1::Note { scope_id, peer_id, content }) = told.message().await.unwrap() {
            notes.push((scope_id, peer_id, String::from_utf8(content).unwrap()));
        }
        notes
    }
    let note = |scope: &str, peer: &str, content: &str| {
        (scope.to_owned(), peer.to_owned(), content.to_owned())
    };
    assert_eq!(notes(client).await, []);
    for (scope, peer, part) in [("room", "", "no scope"), ("", "ann", "without scope_id")] {
        let refusal = client.keep_note(keep(scope, peer, b"x")).await.unwrap_err();
        assert!(refusal.message().contains(part), "{refusal}");
    }
    client.create_scope(scope("room")).await.unwrap();
    refused(client.keep_note(keep("room", "ann", b"x")).await, Code::NotFound, "no peer");
    client.add_peer(add_peer("room", "ann")).await.unwrap();
    for (scope, peer, content) in
        [("", "", "process"), ("room", "", "scope"), ("room", "ann", "0"), ("room", "ann", "peer")]
    {
        client.keep_note(keep(scope, peer, content.as_bytes())).await.unwrap();
    }
    let long = client.keep_note(keep("room", "ann", &vec![0; 70_000])).await;
    refused(long, Code::InvalidArgument, "70000 bytes");
    let process = note("", "", "process");
    let of_scope = note("room", "", "scope");
    let expected = [process.clone(), of_scope.clone(), note("room", "ann", "peer")];
    assert_eq!(notes(client).await, expected);
    // Another control plane finds them.
    let mut other = setup.client.clone();
    assert_eq!(notes(&mut other).await, expected);
    let ann = v1::RemovePeerRequest { scope_id: "room".into(), peer_id: "ann".into() };
    other.remove_peer(ann).await.unwrap();
    assert_eq!(notes(&mut other).await, [process, of_scope]);
    other.keep_note(keep("", "", b"")).await.unwrap();
    other.dispose_scope(v1::DisposeScopeRequest { scope_id: "room".into() }).await.unwrap();
    assert_eq!(notes(&mut other).await, []);
}

#[tokio::test]
async fn peers_are_checked() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let good = add_peer("room", "ann");
    let answer = client.add_peer(good.clone()).await.unwrap().into_inner();
    let local = answer.local_ice.unwrap();
    assert!(local.ufrag.len() >= 4 && local.pwd.len() >= 22);
    assert!(!answer.candidates.is_empty() && !answer.fingerprint_sha256.is_empty());
    refused(client.add_peer(good.clone()).await, Code::AlreadyExists, "choose another");

    let other = v1::AddPeerRequest { peer_id: "bob".into(), ..good };
    let ice = |ufrag: &str, pwd: &str| {
        let ice = v1::IceCredentials { ufrag: ufrag.into(), pwd: pwd.into() };
        v1::AddPeerRequest { remote_ice: Some(ice), ..other.clone() }
    };
    let print = |algorithm: &str, value: &[u8]| v1::AddPeerRequest {
        remote_fingerprint: Some(v1::Fingerprint {
            algorithm: algorithm.into(),
            value: value.into(),
        }),
        ..other.clone()
    };
    let pwd = "x".repeat(22);
    for (request, part) in [
        (v1::AddPeerRequest { remote_ice: None, ..other.clone() }, "a=ice-ufrag"),
        (ice("abc", &pwd), "remote_ice.ufrag has 3"),
        (ice("abcd", "short"), "remote_ice.pwd has 5"),
        (ice("ab d", &pwd), "A-Z a-z 0-9 + /"),
        (v1::AddPeerRequest { remote_fingerprint: None, ..other.clone() }, "a=fingerprint"),
        (print("sha-1", &[1; 20]), "remote_fingerprint"),
        (print("sha-256", &[1; 31]), "remote_fingerprint"),
        (v1::AddPeerRequest { dtls_role: 9, ..other.clone() }, "dtls_role is 9"),
    ] {
        refused(client.add_peer(request).await, Code::InvalidArgument, part);
    }
    // What was refused left nothing behind.
    client.add_peer(other).await.unwrap();

    let restart = |peer: &str| v1::RestartIceRequest {
        scope_id: "room".into(),
        peer_id: peer.into(),
        remote_ice: Some(crate::common::ice(5)),
    };
    let again = client.restart_ice(restart("ann")).await.unwrap().into_inner();
    assert_ne!(again.local_ice.unwrap().ufrag, local.ufrag);
    refused(client.restart_ice(restart("carl")).await, Code::NotFound, "no peer \"carl\"");
    for _ in 0..2 {
        let removal = v1::RemovePeerRequest { scope_id: "room".into(), peer_id: "ann".into() };
        client.remove_peer(removal).await.unwrap();
    }
    client.add_peer(add_peer("room", "ann")).await.unwrap();
}

#[tokio::test]
async fn publications_are_checked() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    client.add_peer(add_peer("room", "ann")).await.unwrap();
    let good = publish("room", "ann", "voice");
    let codec = |change: fn(&mut v1::Codec)| {
        let mut request = good.clone();
        change(&mut request.codecs[0]);
        request
    };
    let extension = |ids: &[u32]| v1::PublishRequest {
        extensions: ids.iter().map(|&id| crate::common::mid_extension(id)).collect(),
        ..good.clone()
    };
    let layers = |encodings: &[(&str, u32)]| v1::PublishRequest {
        encodings: encodings
            .iter()
            .map(|&(rid, ssrc)| v1::Encoding { rid: rid.into(), ssrc, rtx_ssrc: 0 })
            .collect(),
        ..good.clone()
    };
    for (request, part) in [
        (v1::PublishRequest { kind: 0, ..good.clone() }, "kind is 0"),
        (v1::PublishRequest { mid: "m".repeat(17), ..good.clone() }, "mid has 17"),
        (v1::PublishRequest { codecs: vec![], ..good.clone() }, "codecs is empty"),
        (codec(|c| c.payload_type = 128), "codecs[0].payload_type is 128"),
        (codec(|c| c.payload_type = 72), "collide with RTCP"),
        (codec(|c| c.rtx_payload_type = Some(111)), "another codec"),
        (codec(|c| c.name.clear()), "codecs[0].name"),
        (codec(|c| c.clock_rate_hz = 0), "codecs[0].clock_rate_hz"),
        (codec(|c| c.feedback = vec!["x".into(); 33]), "codecs[0].feedback has 33"),
        (codec(|c| c.name = "x".repeat(600)), "more than 512"),
        (extension(&[15]), "extensions[0].id is 15"),
        (extension(&[4, 4]), "another extension"),
        (layers(&[]), "encodings is empty"),
        (layers(&[("a", 0), ("b", 0), ("c", 0), ("d", 0)]), "encodings has 4"),
        (layers(&[("a", 0), ("", 0)]), "neither rid nor ssrc"),
        (layers(&[("a", 0), ("a", 0)]), "rid is that of another"),
        (layers(&[("a", 5), ("b", 5)]), "SSRC 5"),
    ] {
        refused(client.publish(request).await, Code::InvalidArgument, part);
    }
    refused(client.publish(publish("room", "zoe", "v")).await, Code::NotFound, "no peer \"zoe\"");
    refused(client.publish(publish("hall", "ann", "v")).await, Code::NotFound, "no scope \"hall\"");
    client.publish(good.clone()).await.unwrap();
    refused(client.publish(good).await, Code::AlreadyExists, "publication \"voice\"");
    let mute = |publication: &str| v1::SetMutedRequest {
        scope_id: "room".into(),
        publication_id: publication.into(),
        muted: true,
    };
    client.set_muted(mute("voice")).await.unwrap();
    refused(client.set_muted(mute("song")).await, Code::NotFound, "no publication \"song\"");
    for _ in 0..2 {
        let end = v1::UnpublishRequest { scope_id: "room".into(), publication_id: "voice".into() };
        client.unpublish(end).await.unwrap();
    }
    client.publish(publish("room", "ann", "voice")).await.unwrap();
}

#[tokio::test]
async fn the_limit_of_publications_is_named() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    client.add_peer(add_peer("room", "ann")).await.unwrap();
    for n in 0..16 {
        let request = v1::PublishRequest {
            mid: n.to_string(),
            ..publish("room", "ann", &format!("voice{n}"))
        };
        client.publish(request).await.unwrap();
    }
    let one_more = v1::PublishRequest { mid: "x".into(), ..publish("room", "ann", "more") };
    refused(client.publish(one_more).await, Code::ResourceExhausted, "limit of 16");
}

#[tokio::test]
async fn subscriptions_are_checked() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    client.add_peer(add_peer("room", "ann")).await.unwrap();
    client.add_peer(add_peer("room", "bob")).await.unwrap();
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    let good = subscribe("room", "bob", "s", "");
    let bound = client.subscribe(good.clone()).await.unwrap().into_inner();
    assert!(bound.ssrc != 0 && bound.rtx_ssrc != 0 && bound.ssrc != bound.rtx_ssrc);
    refused(client.subscribe(good).await, Code::AlreadyExists, "subscription \"s\"");
    let missing = subscribe("room", "bob", "t", "song");
    refused(client.subscribe(missing).await, Code::NotFound, "no publication \"song\"");
    let mut foreign = subscribe("room", "bob", "u", "voice");
    foreign.codecs[0].name = "PCMU".into();
    refused(client.subscribe(foreign).await, Code::FailedPrecondition, "opus/48000/2");
    let bind = |publication: &str, subscription: &str| v1::BindRequest {
        scope_id: "room".into(),
        subscription_id: subscription.into(),
        publication_id: publication.into(),
    };
    client.bind(bind("voice", "s")).await.unwrap();
    client.bind(bind("", "s")).await.unwrap();
    refused(client.bind(bind("song", "s")).await, Code::NotFound, "no publication");
    refused(client.bind(bind("voice", "x")).await, Code::NotFound, "no subscription \"x\"");
    let wish = v1::SetPreferencesRequest {
        scope_id: "room".into(),
        subscription_id: "s".into(),
        preferences: Some(v1::Preferences {
            paused: true,
            layer_max: Some(0),
            ..v1::Preferences::default()
        }),
    };
    client.set_preferences(wish).await.unwrap();
    for _ in 0..2 {
        let end = v1::UnsubscribeRequest { scope_id: "room".into(), subscription_id: "s".into() };
        client.unsubscribe(end).await.unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_tells_all_and_events_follow() {
    let setup = start(2).await;
    let (mut client, mut reader) = (setup.client.clone(), connect(&setup.socket).await);
    client.create_scope(scope("room")).await.unwrap();
    client.add_peer(add_peer("room", "ann")).await.unwrap();
    client.publish(publish("room", "ann", "voice")).await.unwrap();
    client.subscribe(subscribe("room", "ann", "s", "voice")).await.unwrap();
    let mut events = reader.watch_events(v1::WatchEventsRequest {}).await.unwrap().into_inner();
    let peer = v1::PeerState {
        peer_id: "ann".into(),
        connected: false,
        publication_ids: vec!["voice".into()],
        subscription_ids: vec!["s".into()],
        ..v1::PeerState::default()
    };
    let scopes =
        vec![v1::ScopeState { scope_id: "room".into(), peers: vec![peer], ..Default::default() }];
    let first = events.message().await.unwrap().unwrap();
    assert_eq!(first.event, Some(Event::Snapshot(v1::Snapshot { scopes })));

    let dispose = v1::DisposeScopeRequest { scope_id: "room".into() };
    client.dispose_scope(dispose).await.unwrap();
    let told = events.message().await.unwrap().unwrap().event;
    let Some(Event::PeerLeft(left)) = told else { panic!("{told:?}") };
    assert_eq!(left.reason(), v1::peer_left::Reason::ScopeDisposed);
    let told = events.message().await.unwrap().unwrap().event;
    let disposed = v1::ScopeDisposed { scope_id: "room".into() };
    assert_eq!(told, Some(Event::ScopeDisposed(disposed)));
}

#[tokio::test]
async fn readers_of_events_are_limited() {
    let setup = start(1).await;
    let mut client = setup.client.clone();
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(client.watch_events(v1::WatchEventsRequest {}).await.unwrap().into_inner());
    }
    let more = client.watch_events(v1::WatchEventsRequest {}).await;
    refused(more, Code::ResourceExhausted, "limit of 16 readers");
}

#[tokio::test]
async fn a_draining_relay_takes_nothing_new_and_ends() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    client.add_peer(add_peer("room", "ann")).await.unwrap();
    let mut events = client.watch_events(v1::WatchEventsRequest {}).await.unwrap().into_inner();
    events.message().await.unwrap();
    let too_long = v1::DrainRequest { deadline_seconds: 90_000 };
    refused(client.drain(too_long).await, Code::InvalidArgument, "a day");
    let drain = v1::DrainRequest { deadline_seconds: 600 };
    assert_eq!(client.drain(drain).await.unwrap().into_inner().peers, 1);
    let told = events.message().await.unwrap().unwrap().event;
    assert_eq!(told, Some(Event::Draining(v1::Draining { deadline_seconds: 600 })));
    refused(client.create_scope(scope("hall")).await, Code::Unavailable, "another relay");
    refused(client.add_peer(add_peer("room", "bob")).await, Code::Unavailable, "another relay");
    assert!(client.get_info(v1::GetInfoRequest {}).await.unwrap().into_inner().draining);
    let soon = Duration::from_millis(100);
    assert!(tokio::time::timeout(soon, setup.relay.ended()).await.is_err(), "ann is there");
    let removal = v1::RemovePeerRequest { scope_id: "room".into(), peer_id: "ann".into() };
    client.remove_peer(removal).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), setup.relay.ended()).await.unwrap().unwrap();
    setup.relay.stop();
}

#[tokio::test]
async fn a_deadline_ends_a_drain() {
    let mut setup = start(1).await;
    setup.client.create_scope(scope("room")).await.unwrap();
    setup.client.add_peer(add_peer("room", "ann")).await.unwrap();
    setup.client.drain(v1::DrainRequest { deadline_seconds: 0 }).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), setup.relay.ended()).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_socket_is_private_and_one_relays_only() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let relay = Relay::start(&config).await.unwrap();
    let mode = std::fs::metadata(&config.rpc_socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let second = Relay::start(&config).await.unwrap_err();
    assert!(matches!(second, RelayError::Socket(SocketError::Taken(_))), "{second}");
    connect(&config.rpc_socket).await.get_info(v1::GetInfoRequest {}).await.unwrap();
    relay.stop();
}

#[tokio::test]
async fn a_dead_relays_socket_is_replaced_and_other_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    // A socket that nobody listens on any more, as a killed process leaves it.
    drop(std::os::unix::net::UnixListener::bind(&config.rpc_socket).unwrap());
    assert!(config.rpc_socket.exists());
    let relay = Relay::start(&config).await.unwrap();
    connect(&config.rpc_socket).await.get_info(v1::GetInfoRequest {}).await.unwrap();
    relay.stop();

    let file = folder.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    let config = strait_relay::Config { rpc_socket: file.clone(), ..config };
    let error = Relay::start(&config).await.unwrap_err();
    assert!(matches!(error, RelayError::Socket(SocketError::NotASocket(_))), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let mut setup = start(2).await;
    setup.client.create_scope(scope("room")).await.unwrap();
    setup.client.add_peer(add_peer("room", "ann")).await.unwrap();
    let address = setup.relay.metrics_address().unwrap();
    let get = async |path: &str| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(get("/livez").await.starts_with("HTTP/1.1 200"));
    let ready = get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let metrics = get("/metrics").await;
    assert!(metrics.contains("relay_peers{worker=\"0\"} 1\n"), "{metrics}");
    assert!(metrics.contains("relay_packets_dropped_total{reason=\"stun_malformed\"} 0\n"));
    // Every one that the reference names is there.
    let page = include_str!("../../docs/reference/metrics.md");
    let documented = page.lines().filter(|line| line.starts_with("| `relay_")).count();
    assert_eq!(metrics.matches("# TYPE ").count(), documented);
    setup.client.drain(v1::DrainRequest { deadline_seconds: 60 }).await.unwrap();
    let ready = get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("draining"), "{ready}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_of_the_uplink_reaches_the_publisher_and_the_statistics() {
    let mut setup = start(1).await;
    let client = &mut setup.client;
    client.create_scope(scope("room")).await.unwrap();
    let limit = |peer: &str, bps_max| v1::LimitUplinkRequest {
        scope_id: "room".into(),
        peer_id: peer.into(),
        bps_max,
    };
    refused(client.limit_uplink(limit("ann", 1)).await, Code::NotFound, "no peer \"ann\"");
    let mut ann = Peer::join(client, "room", "ann", Protocol::Udp, false).await;
    let vp8 = v1::Codec {
        payload_type: 100,
        name: "VP8".into(),
        clock_rate_hz: 90_000,
        feedback: vec!["goog-remb".into(), "transport-cc".into()],
        ..v1::Codec::default()
    };
    let camera = v1::PublishRequest {
        kind: v1::Kind::Video.into(),
        codecs: vec![vp8],
        ..publish("room", "ann", "camera")
    };
    client.publish(camera).await.unwrap();
    client.limit_uplink(limit("ann", 640_000)).await.unwrap();
    let told = tokio::task::spawn_blocking(move || {
        (1..200).find_map(|seq| {
            ann.say_as(100, 5, seq, &[0x10, 0, 1, 2, 3]);
            ann.told_bps(Duration::from_millis(50))
        })
    });
    assert_eq!(told.await.unwrap(), Some(640_000));
    for (bps_max, told) in [(640_000, Some(640_000)), (0, None), (1, Some(48_000))] {
        client.limit_uplink(limit("ann", bps_max)).await.unwrap();
        let request = v1::GetStatisticsRequest { scope_ids: vec!["room".into()] };
        let statistics = client.get_statistics(request).await.unwrap().into_inner();
        assert_eq!(statistics.scopes[0].peers[0].uplink_max_bps, told);
    }
}
