//! A node: strait-relay and strait-control in this process.

use std::time::{Duration, Instant};
use strait_relay::Relay;

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Node {
    runtime: tokio::runtime::Runtime,
    relay: Option<Relay>,
    server: strait_control::server::Server,
    folder: tempfile::TempDir,
}

impl Node {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rpc_socket = folder.path().join("relay.sock");
        let relay = strait_relay::Config {
            rpc_socket: rpc_socket.clone(),
            listen: vec!["127.0.0.1".parse().unwrap()],
            port: 0,
            workers: 1,
            metrics_listen: None,
            ..strait_relay::Config::default()
        };
        let mut control = strait_control::Config::default();
        control.http.https_listen = vec!["127.0.0.1:0".parse().unwrap()];
        control.http.http_listen.clear();
        control.http.state_dir = folder.path().into();
        control.relay.rpc_socket = rpc_socket;
        control.store.url = format!("sqlite:{}", folder.path().join("control.db").display());
        control.auth.dev_tokens = vec!["dev".into()];
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let (relay, server) = runtime.block_on(async {
            let relay = Relay::start(&relay).await.unwrap();
            let server = strait_control::server::Server::start(control).await.unwrap();
            let end = Instant::now() + PATIENCE;
            while server.app.scopes.relay().info().is_none() {
                assert!(Instant::now() < end, "the relay is found");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (relay, server)
        });
        Self { runtime, relay: Some(relay), server, folder }
    }

    /// HOST PORT CERTIFICATE TOKEN SCOPE.
    pub fn arguments(&self, scope: &str) -> Vec<String> {
        let certificate = self.folder.path().join("certificate.pem");
        let port = self.server.https[0].port().to_string();
        let certificate = certificate.display().to_string();
        vec!["127.0.0.1".into(), port, certificate, "dev".into(), scope.into()]
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        drop(self.relay.take());
    }
}
