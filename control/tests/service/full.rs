//! A disk that is full: a real process whose store and state are on a small one, in a namespace of its
//! own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::fake_relay::FakeRelay;
use crate::redis::skip;
use crate::{PUBLISH, socket};

/// Of the disk: several times what an empty store needs.
const DISK: &str = "6m";
const OPERATOR: &str = "an operator's token of 32 letters or more";

struct Process {
    child: Child,
    address: SocketAddr,
    client: Client,
    /// The disk as this process reaches it.
    disk: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Process {
    /// None where nobody may mount anything.
    async fn start(folder: &Path, relay: &Path) -> Option<Self> {
        let (disk, config) = (folder.join("disk"), folder.join("control.toml"));
        std::fs::create_dir(&disk).unwrap();
        let mount = format!("mount -t tmpfs -o size={DISK} none {}", disk.display());
        let mut may = Command::new("unshare");
        let may = may.args(["--mount", "sh", "-c", &mount]).stderr(Stdio::null()).status();
        if !may.is_ok_and(|status| status.success()) {
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "[http]\nhttps_listen = []\nhttp_listen = ['{address}']\nstate_dir = '{disk}/state'\n\
             [store]\nurl = 'sqlite:{disk}/control.db'\n[auth]\ndev_tokens = ['dev']\n\
             [api]\ntokens = [\"{OPERATOR}\"]\n\
             [relay]\nrpc_socket = '{}'\n[log]\nfilter = 'warn'\n",
            relay.display(),
            disk = disk.display(),
        );
        std::fs::write(&config, text).unwrap();
        let (program, config) = (env!("CARGO_BIN_EXE_strait-control"), config.display());
        let script = format!("{mount} && exec {program} --config {config}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let disk = PathBuf::from(format!("/proc/{}/root{}", child.id(), disk.display()));
        let process = Self { child, address, client: Client::new(), disk };
        until("it serves", async || {
            let ready = process.get("/readyz").send().await;
            ready.is_ok_and(|ready| ready.status() == StatusCode::OK)
        })
        .await;
        Some(process)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    fn post(&self, path: &str, kind: &str, body: String) -> RequestBuilder {
        let post = self.client.post(format!("http://{}{path}", self.address));
        post.bearer_auth("dev").header("content-type", kind).body(body)
    }

    async fn text(&self, path: &str) -> String {
        self.get(path).send().await.unwrap().text().await.unwrap()
    }

    async fn metric(&self, name: &str) -> u64 {
        let text = self.text("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }

    /// A client's report of some kilobytes. The answer's status and what it says.
    async fn report(&self) -> (StatusCode, String) {
        let body = format!(r#"{{"text": "{}"}}"#, "x".repeat(60_000));
        let answer = self.post("/api/v1/diagnostics/reports", "application/json", body);
        let answer = answer.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// Somebody comes, and leaves a moment later.
    async fn call(&self, scope: &str) {
        let path = format!("/whip/{scope}");
        let joined = self.post(&path, "application/sdp", PUBLISH.to_owned());
        let joined = joined.send().await.unwrap();
        assert_eq!(joined.status(), StatusCode::CREATED, "{scope}");
        let location = joined.headers()["location"].to_str().unwrap().to_owned();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let left = self.client.delete(format!("http://{}{location}", self.address));
        assert_eq!(left.bearer_auth("dev").send().await.unwrap().status(), StatusCode::OK);
    }

    /// Leaves no room on the disk.
    fn fill(&self) {
        let mut file = std::fs::File::options();
        let mut file = file.append(true).create(true).open(self.disk.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.disk.join("filler")).unwrap();
    }

    /// How many stays each scope's sessions had that are over.
    async fn accounts(&self) -> BTreeMap<String, i64> {
        let asked = self.get("/api/v1/sessions?limit=100").bearer_auth(OPERATOR);
        let told: Value = asked.send().await.unwrap().json().await.unwrap();
        let over = told["items"].as_array().unwrap().iter().filter(|each| each["present"] == 0);
        over.map(|each| (each["scope"].as_str().unwrap().into(), each["stays"].as_i64().unwrap()))
            .collect()
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < Duration::from_secs(60), "{what}: not in a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_calls_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, _running) = FakeRelay::start(&socket(&folder));
    let Some(process) = Process::start(folder.path(), &socket(&folder)).await else {
        return skip("a_full_disk_is_said_and_calls_go_on", "no namespace for mounts can be made");
    };
    process.call("before").await;
    until("it is written", async || process.accounts().await.len() == 1).await;
    assert_eq!(process.report().await.0, StatusCode::CREATED);
    assert_eq!(process.metric("control_store_full_total").await, 0);

    process.fill();
    // What the store's files had room for already it may still write.
    let mut said = process.report().await;
    for _ in 0..15 {
        if said.0 != StatusCode::CREATED {
            break;
        }
        process.fill();
        said = process.report().await;
    }
    assert_eq!(said.0, StatusCode::SERVICE_UNAVAILABLE, "{}", said.1);
    assert!(said.1.contains("unavailable") && said.1.contains("no room"), "{}", said.1);
    let scopes = ["one", "two", "three", "four"];
    for scope in scopes {
        process.call(scope).await;
    }
    until("accounts wait", async || process.metric("control_events_stalled").await == 1).await;
    assert!(process.metric("control_store_full_total").await > 0);
    let failures = async || process.metric("control_events_spool_failures_total").await > 0;
    until("the disk does not take them either", failures).await;
    let ready = process.get("/readyz").send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
    assert!(ready.text().await.unwrap().contains("no room"));
    process.call("five").await;

    process.free();
    until("all is told", async || process.metric("control_events_stalled").await == 0).await;
    let expected = scopes.into_iter().chain(["before", "five"]);
    let expected: BTreeMap<_, _> = expected.map(|scope| (scope.to_owned(), 1)).collect();
    until("all is written", async || process.accounts().await == expected).await;
    assert_eq!(process.metric("control_events_lost_total").await, 0);
    assert_eq!(process.report().await.0, StatusCode::CREATED);
}
