//! `./dev fuzz session`; the body is `Stage::play` of control/tests/service/sequence.rs, at a node with the relay of its
//! tests.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use strait_control::cluster::Cluster;
use strait_control::{Config, server::Server};
use tempfile::TempDir;
use tokio::runtime::Runtime;

#[path = "../../../control/tests/service/fake_relay.rs"]
#[allow(dead_code, reason = "the service's tests use the rest")]
mod fake_relay;
#[path = "../../../control/tests/service/sequence.rs"]
mod sequence;

use fake_relay::{FakeRelay, Running};

/// One for all runs: each leaves nothing behind.
struct Node {
    runtime: Runtime,
    server: Server,
    relay: FakeRelay,
    _running: Running,
    _folder: TempDir,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("relay.sock");
        let (relay, running) = FakeRelay::start(&socket);
        let mut config = Config::default();
        config.http.https_listen.clear();
        config.http.http_listen = vec!["127.0.0.1:0".parse().expect("an address")];
        config.http.state_dir = folder.path().into();
        config.relay.rpc_socket = socket;
        config.store.url = format!("sqlite:{}", folder.path().join("control.db").display()).into();
        config.auth.dev_tokens = vec!["dev".into()];
        config.link.messages_per_second = 0;
        config.link.kibibytes_per_second = 0;
        let cluster = Cluster::new(config.cluster.clone()).expect("a cluster of one");
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(async {
            let server = Server::start_in(cluster, config).await.expect("a node");
            server.app.scopes.relay().found().await;
            server
        });
        Self { runtime, server, relay, _running: running, _folder: folder }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static NODE: OnceLock<Node> = OnceLock::new();
    let node = NODE.get_or_init(Node::start);
    let app = &node.server.app;
    let stage = sequence::Stage { links: &app.links, scopes: &app.scopes, relay: &node.relay };
    node.runtime.block_on(stage.play("lobby", bytes));
});
