//! What a relay counted until now, by its RPC, and the CPU time of its threads, by the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use strait_load::StraitRpc;
use strait_proto::v1::{self, event::Event};
use tokio::net::UnixStream;

use crate::fault::Fault;

/// Scopes that are asked for in full, those with the most peers: each costs its worker some time.
const SCOPES: usize = 256;

/// What was counted until `at`.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Instant,
    pub info: v1::GetInfoResponse,
    pub statistics: v1::GetStatisticsResponse,
    /// CPU time by worker; empty where the relay runs elsewhere, or as somebody else.
    pub cpu: BTreeMap<u32, Duration>,
    /// Scopes beyond [`SCOPES`].
    pub scopes_left_out: usize,
}

/// The way to a relay.
pub struct Reader {
    rpc: StraitRpc,
    pid: Option<i32>,
}

impl Reader {
    /// Connects to the relay's RPC socket.
    pub fn connect(socket: &Path) -> Result<Self, Fault> {
        let mut rpc = StraitRpc::connect(socket).map_err(|error| Fault::new(error.to_string()))?;
        let (runtime, _) = rpc.client();
        let stream = runtime.block_on(async { UnixStream::connect(socket).await });
        let pid = stream.ok().and_then(|stream| stream.peer_cred().ok()?.pid());
        Ok(Self { rpc, pid })
    }

    /// Reads all counters.
    pub fn read(&mut self) -> Result<Sample, Fault> {
        let (runtime, client) = self.rpc.client();
        let read = runtime.block_on(async {
            let info = client.get_info(v1::GetInfoRequest {}).await?.into_inner();
            // It opens with all that there is; the rest is not waited for.
            let mut events = client.watch_events(v1::WatchEventsRequest {}).await?.into_inner();
            let mut scopes = match events.message().await?.and_then(|first| first.event) {
                Some(Event::Snapshot(snapshot)) => snapshot.scopes,
                _ => Vec::new(),
            };
            scopes.sort_by_key(|scope| std::cmp::Reverse(scope.peers.len()));
            let scopes_left_out = scopes.len().saturating_sub(SCOPES);
            let statistics = loop {
                let asked = scopes.iter().take(SCOPES).map(|scope| scope.scope_id.clone());
                let request = v1::GetStatisticsRequest { scope_ids: asked.collect() };
                match client.get_statistics(request).await {
                    Ok(statistics) => break statistics.into_inner(),
                    // One of them ended in this moment.
                    Err(status) if status.code() == tonic::Code::NotFound => {
                        let before = scopes.len();
                        scopes.retain(|scope| !status.message().contains(&scope.scope_id));
                        if scopes.len() == before {
                            return Err(status);
                        }
                    }
                    Err(status) => return Err(status),
                }
            };
            Ok((info, statistics, scopes_left_out))
        });
        let (info, statistics, scopes_left_out) = read.map_err(|status: tonic::Status| {
            Fault::new(format!(
                "the relay does not answer: {}; is it still running?",
                status.message()
            ))
        })?;
        let cpu = self.pid.map(cpu_times).unwrap_or_default();
        Ok(Sample { at: Instant::now(), info, statistics, cpu, scopes_left_out })
    }
}

/// The CPU time of each `worker-N` thread of a process (`schedstat` of proc(5), first number).
fn cpu_times(pid: i32) -> BTreeMap<u32, Duration> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeMap::new() };
    let of_thread = |folder: &Path| {
        let name = fs::read_to_string(folder.join("comm")).ok()?;
        let worker = name.trim().strip_prefix("worker-")?.parse().ok()?;
        let times = fs::read_to_string(folder.join("schedstat")).ok()?;
        let nanos = times.split_whitespace().next()?.parse().ok()?;
        Some((worker, Duration::from_nanos(nanos)))
    };
    threads.flatten().filter_map(|thread| of_thread(&thread.path())).collect()
}
