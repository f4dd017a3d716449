//! A relay in this process, a client of its RPC, and peers made of the project's own parts.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod peer;

use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use strait_proto::v1;
use strait_proto::v1::relay_client::RelayClient;
use strait_relay::config::Steering;
use strait_relay::{Config, Relay};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

pub const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub const OPUS: u32 = 111;

pub type Client = RelayClient<Channel>;

/// A relay on loopback with ports of the system's choice.
pub struct Setup {
    pub relay: Relay,
    pub client: Client,
    pub socket: PathBuf,
    _folder: tempfile::TempDir,
}

pub fn config(folder: &Path) -> Config {
    Config {
        rpc_socket: folder.join("relay.sock"),
        port: 0,
        metrics_listen: Some("127.0.0.1:0".parse().unwrap()),
        ..Config::default()
    }
}

pub async fn start(workers: usize) -> Setup {
    start_with(workers, Steering::Auto).await
}

pub async fn start_with(workers: usize, steering: Steering) -> Setup {
    start_config(|config| Config { workers, steering, ..config }).await
}

pub async fn start_config(change: impl FnOnce(Config) -> Config) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let config = change(config(folder.path()));
    let relay = Relay::start(&config).await.unwrap();
    let client = connect(&config.rpc_socket).await;
    Setup { relay, client, socket: config.rpc_socket, _folder: folder }
}

pub async fn connect(socket: &Path) -> Client {
    try_connect(socket).await.unwrap()
}

pub async fn try_connect(socket: &Path) -> Result<Client, tonic::transport::Error> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://relay");
    endpoint.connect_with_connector(connector).await.map(RelayClient::new)
}

pub fn ice(n: usize) -> v1::IceCredentials {
    v1::IceCredentials { ufrag: format!("peer{n}"), pwd: format!("{n:022}") }
}

pub fn fingerprint(value: &[u8]) -> v1::Fingerprint {
    v1::Fingerprint { algorithm: "sha-256".into(), value: value.into() }
}

pub fn add_peer(scope: &str, peer: &str) -> v1::AddPeerRequest {
    v1::AddPeerRequest {
        scope_id: scope.into(),
        peer_id: peer.into(),
        remote_ice: Some(ice(0)),
        remote_fingerprint: Some(fingerprint(&[7; 32])),
        ..v1::AddPeerRequest::default()
    }
}

pub fn opus() -> v1::Codec {
    v1::Codec {
        payload_type: OPUS,
        name: "opus".into(),
        clock_rate_hz: 48_000,
        channels: 2,
        ..v1::Codec::default()
    }
}

pub fn mid_extension(id: u32) -> v1::HeaderExtension {
    v1::HeaderExtension { id, uri: MID.into() }
}

pub fn publish(scope: &str, peer: &str, publication: &str) -> v1::PublishRequest {
    v1::PublishRequest {
        scope_id: scope.into(),
        peer_id: peer.into(),
        publication_id: publication.into(),
        kind: v1::Kind::Audio.into(),
        mid: "0".into(),
        codecs: vec![opus()],
        extensions: vec![mid_extension(1)],
        encodings: vec![v1::Encoding::default()],
        muted: false,
    }
}

pub fn subscribe(scope: &str, peer: &str, subscription: &str, to: &str) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        scope_id: scope.into(),
        peer_id: peer.into(),
        subscription_id: subscription.into(),
        kind: v1::Kind::Audio.into(),
        mid: "7".into(),
        codecs: vec![v1::Codec { payload_type: 96, ..opus() }],
        extensions: vec![mid_extension(3)],
        publication_id: to.into(),
        ..v1::SubscribeRequest::default()
    }
}

pub fn scope(name: &str) -> v1::CreateScopeRequest {
    v1::CreateScopeRequest { scope_id: name.into(), ..v1::CreateScopeRequest::default() }
}
