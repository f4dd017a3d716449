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
    /// By how many seconds its clock is ahead.
    ahead: i32,
}

impl Redis {
    /// Starts one with these options beside its own.
    pub(crate) async fn start(further: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let further: Vec<_> = further.iter().map(ToString::to_string).collect();
        let ahead = 0;
        let process = run(port, &folder, &further, ahead);
        let redis = Self { process, port, folder, further, ahead };
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
        self.process = run(self.port, &self.folder, &self.further, self.ahead);
        self.is_ready().await;
    }

    /// Kills it, and starts it again with a clock that is so many seconds ahead. False where there is no C compiler to make
    /// one of.
    #[allow(dead_code, reason = "for the cluster's tests")]
    pub(crate) async fn set_clock(&mut self, ahead: i32) -> bool {
        const CLOCK: &str = r#"
            #include <stdlib.h>
            #include <sys/syscall.h>
            #include <sys/time.h>
            #include <unistd.h>
            int gettimeofday(struct timeval *restrict now, void *restrict zone) {
                long failed = syscall(SYS_gettimeofday, now, zone);
                const char *ahead = getenv("STRAIT_TEST_AHEAD");
                if (!failed && now && ahead) now->tv_sec += atol(ahead);
                return failed;
            }
        "#;
        let source = self.folder.path().join("clock.c");
        std::fs::write(&source, CLOCK).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(source.with_extension("so")).arg(&source);
        if !compiler.status().is_ok_and(|status| status.success()) {
            return false;
        }
        self.kill();
        self.ahead = ahead;
        self.start_again().await;
        true
    }

    /// Where it keeps what it has.
    #[allow(dead_code, reason = "for the cluster's tests")]
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
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

/// A replica, when it has what its master has.
#[allow(dead_code, reason = "for tests of what outlives a master")]
pub(crate) async fn replica_of(master: &Redis) -> Redis {
    let port = master.port().to_string();
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &port]).await;
    let client = redis::Client::open(master.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for _ in 0..1000 {
        let online: usize =
            redis::cmd("WAIT").arg(1).arg(10).query_async(&mut connection).await.unwrap();
        if online == 1 {
            return replica;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no replica");
}

/// A running Sentinel, which watches one master.
#[allow(dead_code, reason = "for tests of what outlives a master")]
pub(crate) struct Sentinel {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[allow(dead_code, reason = "for tests of what outlives a master")]
impl Sentinel {
    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// One that knows the master as `part0`, and its replica.
    pub(crate) async fn start(master: &Redis) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor part0 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds part0 400\nsentinel failover-timeout part0 3000\n",
            folder.path().display(),
            master.port()
        );
        std::fs::write(&file, text).unwrap();
        let process = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let sentinel = Self { process, port, _folder: folder };
        // Until it has found the replica.
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        for _ in 0..2000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                continue;
            };
            let replicas = redis::cmd("SENTINEL").arg("replicas").arg("part0").to_owned();
            let found: redis::RedisResult<Vec<redis::Value>> =
                replicas.query_async(&mut connection).await;
            if found.is_ok_and(|found| found.len() == 1) {
                return sentinel;
            }
        }
        panic!("the Sentinel found no replica");
    }
}

fn run(port: u16, folder: &TempDir, further: &[String], ahead: i32) -> Child {
    let mut command = Command::new("redis-server");
    if ahead != 0 {
        command.env("LD_PRELOAD", folder.path().join("clock.so"));
        command.env("STRAIT_TEST_AHEAD", ahead.to_string());
    }
    command
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

/// Says that a test cannot run here, as `strait_tests::skip` does, which this crate must not know.
#[allow(dead_code, reason = "for the cluster's tests")]
pub(crate) fn skip(test: &str, reason: &str) {
    use std::io::Write as _;

    eprintln!("skipped {test}: {reason}");
    let Some(list) = std::env::var_os("STRAIT_SKIPS") else { return };
    if let Ok(mut list) = std::fs::OpenOptions::new().append(true).create(true).open(list) {
        let _written = writeln!(list, "{test}: {reason}");
    }
}
