//! A node for a test: strait-relay and strait-control in this process, on ports of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strait_control::server::Server;
use strait_relay::Relay;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// How long control may take to find its relay.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node. It ends when it is dropped.
pub struct Node {
    /// strait-control, which serves HTTPS, and links over QUIC.
    pub server: Server,
    /// The relay's RPC socket.
    pub rpc_socket: PathBuf,
    /// What runs both.
    pub runtime: Runtime,
    relay: Option<Relay>,
    folder: PathBuf,
    _own_folder: Option<TempDir>,
}

/// Where a node is.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Addresses that it listens on; none for 127.0.0.1.
    pub addresses: Vec<IpAddr>,
    /// Addresses that its clients are told instead.
    pub announced: Vec<IpAddr>,
    /// Port of HTTPS and media, 0 for free ones.
    pub port: u16,
}

impl Node {
    /// On 127.0.0.1, in a folder that goes with it.
    ///
    /// # Panics
    /// It does not start.
    pub fn start() -> Self {
        Self::at(&Place::default())
    }

    /// At a place, in a folder that goes with it.
    ///
    /// # Panics
    /// It does not start.
    pub fn at(place: &Place) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut node = Self::start_in(folder.path(), place);
        node._own_folder = Some(folder);
        node
    }

    /// At a place, in a folder that stays.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_in(folder: &Path, place: &Place) -> Self {
        let here = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let addresses = if place.addresses.is_empty() { here } else { place.addresses.clone() };
        let first = addresses[0];
        let rpc_socket = folder.join("relay.sock");
        // The relay and the control plane are both told where framed media is taken.
        let framed = TcpListener::bind((first, 0)).and_then(|listener| listener.local_addr());
        let framed = framed.expect("a free port");
        let relay = strait_relay::Config {
            rpc_socket: rpc_socket.clone(),
            listen: addresses.clone(),
            port: place.port,
            workers: 1,
            metrics_listen: None,
            ice_tcp_listen: Some(framed),
            announced: place.announced.clone(),
            ..strait_relay::Config::default()
        };
        let mut control = strait_control::Config::default();
        let listen = addresses.iter().map(|address| SocketAddr::new(*address, place.port));
        control.http.https_listen = listen.collect();
        control.http.certificate_names = addresses.iter().map(IpAddr::to_string).collect();
        control.http.http_listen.clear();
        control.link.quic_listen = vec![SocketAddr::new(first, 0)];
        control.http.state_dir = folder.into();
        control.relay.rpc_socket.clone_from(&rpc_socket);
        control.relay.ice_tcp = Some(framed);
        control.store.url = format!("sqlite:{}", folder.join("control.db").display()).into();
        control.auth.dev_tokens = vec!["dev".into()];
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (relay, server) = runtime.block_on(async {
            let relay = Relay::start(&relay).await.expect("the relay starts");
            let server = Server::start(control).await.expect("control starts");
            let end = Instant::now() + PATIENCE;
            while server.app.scopes.relay().info().is_none() {
                assert!(Instant::now() < end, "the relay is found");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (relay, server)
        });
        let (relay, folder) = (Some(relay), folder.to_path_buf());
        Self { server, rpc_socket, runtime, relay, folder, _own_folder: None }
    }

    /// Where HTTPS and links over TLS are.
    pub fn https(&self) -> SocketAddr {
        self.server.https[0]
    }

    /// Where links over QUIC are.
    pub fn quic(&self) -> SocketAddr {
        self.server.quic[0]
    }

    /// The certificate that it made for itself.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    /// Ends the relay, and lets control go on.
    pub fn end_relay(&mut self) {
        let _inside = self.runtime.enter();
        drop(self.relay.take());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end_relay();
    }
}
