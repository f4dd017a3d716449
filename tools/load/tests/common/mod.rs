//! A relay in this process.
#![allow(dead_code, reason = "each test file uses a part")]

use std::time::Duration;

use strait_load::{Plan, Report, StraitRpc};
use strait_relay::{Config, Relay};

/// A relay on loopback with ports of the system's choice.
pub struct Setup {
    runtime: tokio::runtime::Runtime,
    relay: Option<Relay>,
    folder: tempfile::TempDir,
}

impl Setup {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            rpc_socket: folder.path().join("relay.sock"),
            port: 0,
            workers: 1,
            metrics_listen: None,
            ..Config::default()
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let relay = runtime.block_on(Relay::start(&config)).unwrap();
        Self { runtime, relay: Some(relay), folder }
    }

    pub fn rpc(&self) -> StraitRpc {
        StraitRpc::connect(&self.folder.path().join("relay.sock")).unwrap()
    }

    pub fn run(&self, plan: &Plan) -> Report {
        strait_load::run(plan, Box::new(self.rpc())).unwrap()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        drop(self.relay.take());
    }
}

pub fn plan() -> Plan {
    Plan {
        publishers: 2,
        subscribers: 20,
        warmup: Duration::from_millis(700),
        duration: Duration::from_secs(2),
        window: Duration::from_secs(1),
        ..Plan::default()
    }
}
