//! The running service over HTTP and WebSocket, with a relay that only keeps the books.

mod api;
mod authentication;
mod cassandra;
mod channels;
mod cluster;
mod conference;
mod databases;
mod direct;
mod fake_relay;
mod full;
mod grants;
mod hostile;
mod http;
mod invoices;
mod keyring;
mod keys;
mod link;
mod load;
mod log;
mod messages;
mod native;
mod notes;
mod parting;
mod quic;
mod recall;
mod reconnect;
mod redis;
mod refused;
mod rules;
mod secrets;
mod sequence;
mod slow;
mod socket;
mod stores;
mod stream;
mod tls;
mod turn;
mod waiting;
mod watchdog;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use strait_control::auth::{Key, Material, Secret};
use strait_control::cluster::Cluster;
use strait_control::server::Server;
use strait_control::{Config, config};
use tempfile::TempDir;

use fake_relay::FakeRelay;

pub(crate) const PUBLISH: &str = include_str!("../offers/chromium-publish.sdp");
pub(crate) const PLAY: &str = include_str!("../offers/chromium-play.sdp");
pub(crate) const SIMULCAST: &str = include_str!("../offers/chromium-simulcast.sdp");
pub(crate) const CONFERENCE: &str = include_str!("../offers/firefox-conference.sdp");

/// A service with its relay, in a folder of its own, on ports of its own.
pub(crate) struct Service {
    pub(crate) server: Server,
    pub(crate) relay: FakeRelay,
    pub(crate) relay_process: fake_relay::Running,
    pub(crate) folder: TempDir,
    /// No session key, password or session identifier is in the log of any test.
    pub(crate) _watch: log::Watch,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(change, |config| Cluster::new(config.clone()).unwrap()).await
    }

    /// In a cluster that the test makes.
    pub(crate) async fn start_in(
        change: impl FnOnce(&mut Config),
        cluster: impl FnOnce(&config::cluster::Cluster) -> Arc<Cluster>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let _watch = log::Watch::new(native::secrets());
        let (relay, relay_process) = FakeRelay::start(&socket(&folder));
        let mut config = Config::default();
        config.http.https_listen.clear();
        config.http.http_listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.http.state_dir = folder.path().into();
        config.relay.rpc_socket = socket(&folder);
        config.store.url = format!("sqlite:{}", folder.path().join("control.db").display()).into();
        config.auth.dev_tokens = vec!["dev".into()];
        change(&mut config);
        let cluster = cluster(&config.cluster);
        let server = Server::start_in(cluster, config).await.unwrap();
        let service = Self { server, relay, relay_process, folder, _watch };
        eventually("the relay is found", || service.server.app.scopes.relay().info().is_some())
            .await;
        service
    }

    /// Adds an application; its key is called `first`.
    pub(crate) async fn add_application(&self, name: &str) -> Secret {
        let key = Secret::random().unwrap();
        let applications = self.server.app.store.applications();
        applications.add(name, 0).await.unwrap();
        let first = Key::new("first", Material::Secret(key.clone()), 0);
        applications.add_key(name, &first).await.unwrap();
        key
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.http[0]
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }
}

pub(crate) fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("relay.sock")
}

/// Waits until something is so. Fails after ten seconds, which nothing here takes.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}: not in ten seconds");
}
