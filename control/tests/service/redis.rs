//! A real Redis for a test: a process of its own, on a port of its own, gone with it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A running redis-server.
pub(crate) struct Redis {
    process: Child,
    port: u16,
    folder: TempDir,
    further: Vec<String>,
}

impl Redis {
    /// Starts one with these options beside its own.
    pub(crate) async fn start(further: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let further: Vec<_> = further.iter().map(ToString::to_string).collect();
        let process = run(port, &folder, &further);
        let redis = Self { process, port, folder, further };
        redis.is_ready().await;
        redis
    }

    /// `redis://HOST:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    #[allow(dead_code, reason = "the cluster's tests stop it for a while")]
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, with what it had on disk.
    pub(crate) async fn start_again(&mut self) {
        self.process = run(self.port, &self.folder, &self.further);
        self.is_ready().await;
    }

    async fn is_ready(&self) {
        for _ in 0..400 {
            let client = redis::Client::open(self.url()).unwrap();
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
                let ping = redis::cmd("PING").query_async::<String>(&mut connection).await;
                if ping.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("redis-server on port {}: not ready in ten seconds", self.port);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may be dead already, as the test wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(port: u16, folder: &TempDir, further: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "yes", "--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(folder.path())
        .arg("--unixsocket")
        .arg(folder.path().join("redis.sock"))
        .args(further)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server runs; `./dev test` installs it (apt-get install redis-server)")
}
