//! Against real servers, which `./dev test` installs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::Cluster;
use super::super::announce::Listens;
use super::super::claims::Claim;
use super::super::health::{Health, Probe};
use super::super::table::Table;
use super::super::table::tests::node;
use super::*;
use crate::config::cluster::{self as config, Role};
use crate::fault::Class;

#[path = "../../../tests/service/redis.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod server;
use server::{Redis, Sentinel, replica_of};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Nodes that answer, by their names.
#[derive(Clone, Default)]
struct Well(Arc<Mutex<BTreeSet<String>>>);

impl Probe for Well {
    fn attempt(&self, node: Node) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let is_well = self.0.lock().unwrap().contains(&node.name);
        Box::pin(std::future::ready(is_well))
    }
}

/// A process of a cluster, with what its server does in the background.
struct Process {
    cluster: Arc<Cluster>,
    heart: JoinHandle<()>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

struct World {
    urls: Vec<String>,
    well: Well,
}

impl World {
    fn new(urls: &[String]) -> Self {
        Self { urls: urls.to_vec(), well: Well::default() }
    }

    async fn process(&self, name: &str, roles: Vec<Role>) -> Process {
        let config = config::Cluster {
            roles,
            name: name.into(),
            public: format!("{name}.example:8443"),
            ..config::Cluster::default()
        };
        let urls: Vec<_> = self.urls.iter().map(|url| Secret::from(url.as_str())).collect();
        let partitions = Partitions::new(&urls).unwrap();
        let health = Health::by(Box::new(self.well.clone()));
        let cluster =
            Cluster::on(config, Arc::clone(&partitions) as _, partitions, health).unwrap();
        cluster.listens(&Listens { secure: true, ..Listens::default() }).await.unwrap();
        let beating = Arc::clone(&cluster);
        let heart = tokio::spawn(async move {
            loop {
                let _ = beating.announce().await;
                beating.refresh().await;
                beating.release_unused().await;
                beating.assert_held(&|_| {}).await;
                sleep(Duration::from_millis(200)).await;
            }
        });
        Process { cluster, heart }
    }

    async fn node(&self, name: &str) -> Process {
        let process = self.process(name, vec![Role::Node]).await;
        self.well.0.lock().unwrap().insert(name.into());
        process
    }

    async fn cnc(&self, name: &str) -> Process {
        self.process(name, vec![Role::Cnc]).await
    }
}

fn scope(name: &str) -> ScopeKey {
    ScopeKey { application: "acme".into(), scope: name.into() }
}

async fn resolve(cnc: &Process, scope: &ScopeKey) -> Result<String, Fault> {
    cnc.cluster.resolve(scope, CLIENT, None, None).await.map(|node| node.name)
}

/// Asks until there is an answer. How long that took.
async fn answered(what: &str, cnc: &Process, scope: &ScopeKey) -> (String, Duration) {
    let began = Instant::now();
    loop {
        match resolve(cnc, scope).await {
            Ok(name) => return (name, began.elapsed()),
            Err(fault) if began.elapsed() > Duration::from_secs(20) => panic!("{what}: {fault}"),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

#[test]
fn a_scope_has_the_partition_that_it_always_had() {
    // The published vectors of FNV-1a.
    assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    let urls = ["redis://h:1", "redis://h:2", "redis://h:3"].map(Secret::from);
    let partitions = Partitions::new(&urls).unwrap();
    let mut counts = [0; 3];
    for at in 0..3_000 {
        let partition = partitions.of(&format!("acme\nscope {at}")).unwrap();
        counts[partition.number()] += 1;
    }
    assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
}

#[test]
fn what_another_version_says_of_nodes_is_read_as_far_as_it_goes() {
    let record = serde_json::to_string(&node("a", "1")).unwrap();
    let newer = record.replace("\"name\"", "\"color\":\"red\",\"name\"");
    let words = ["ok", &record, "1 0 12", &newer, "0 1 9000", "{}", "1 0 1", "x", "y"];
    let words = words.map(str::to_owned);
    let nodes = listed(&words);
    assert_eq!(nodes.len(), 2);
    assert!(nodes[0].is_alive && !nodes[0].is_drained && nodes[0].age_ms == 12);
    assert!(!nodes[1].is_alive && nodes[1].is_drained);
}

/// The scripts in Redis decide as [`Table`] does, fences counted from where each began.
#[tokio::test(flavor = "multi_thread")]
async fn redis_decides_as_the_table_does() {
    let server = Redis::start(&[]).await;
    let redis = Partitions::new(&[Secret::from(server.url().as_str())]).unwrap();
    let mut table = Table::default();
    let mut now = 10_000;
    let nodes = [node("a", "1"), node("b", "1"), node("c", "1"), node("a", "2")];
    let scopes = ["x", "y", "z"].map(scope);
    // A partition knows nothing for certain while it is young.
    redis.announce(&nodes[2]).await.unwrap();
    let probe = scope("probe");
    let (owner, began) = (nodes[2].owner(), Instant::now());
    let ask = Ask { proposal: Some(&owner), ..Ask::default() };
    let first = loop {
        match redis.locate(&probe, ask).await.unwrap() {
            Found::Owned(mapping) => break mapping.fence,
            Found::Young => {}
            other => panic!("{other:?}"),
        }
        sleep(Duration::from_millis(100)).await;
        redis.announce(&nodes[2]).await.unwrap();
    };
    assert!(began.elapsed() >= Duration::from_millis(1_500));
    table.announce(now, &nodes[2]);
    table.locate(now, &id(&probe), ask);
    let base = first - 1;
    // Numbers that are the same in each run.
    let mut state = 2026_u64;
    let mut random = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..3 {
        // Whoever is not announced again is dead by the next round.
        for _ in 0..150 {
            let one = &nodes[usize::try_from(random(4)).unwrap()];
            let (owner, at) = (one.owner(), usize::try_from(random(3)).unwrap());
            let fence = random(20);
            match random(if round == 0 { 9 } else { 7 }) {
                0 | 1 => {
                    let kept = redis.assert(&owner, &[(scopes[at].clone(), base + fence)]).await;
                    let kept = kept.unwrap().remove(0).unwrap().map(|fence| fence - base);
                    assert_eq!(kept, table.assert(now, &owner, &id(&scopes[at]), fence));
                }
                2 if fence > 10 => {
                    redis.forget(&scopes[at]).await.unwrap();
                    table.forget(now, &id(&scopes[at]));
                }
                2 => {
                    redis.release(&scopes[at], base + fence).await.unwrap();
                    table.release(&id(&scopes[at]), fence);
                }
                3..7 => {
                    let given_up = (random(2) == 0).then_some(fence);
                    let ask = Ask {
                        proposal: (random(4) > 0).then_some(&owner),
                        holds: random(2) == 0,
                        given_up,
                        is_quiet: random(8) == 0,
                    };
                    let given_up = given_up.map(|fence| base + fence);
                    let found = redis.locate(&scopes[at], Ask { given_up, ..ask }).await.unwrap();
                    let found = match found {
                        Found::Owned(m) => Found::Owned(Mapping { fence: m.fence - base, ..m }),
                        Found::Stale(m) => Found::Stale(Mapping { fence: m.fence - base, ..m }),
                        other => other,
                    };
                    assert_eq!(found, table.locate(now, &id(&scopes[at]), ask), "{ask:?}");
                }
                7 => {
                    let told = redis.announce(one).await.ok();
                    assert_eq!(told, table.announce(now, one));
                }
                _ => {
                    redis.set_drained(&one.name, fence > 10).await.unwrap();
                    table.set_drained(&one.name, fence > 10);
                }
            }
        }
        let sorted = |nodes: Vec<Listed>| -> BTreeMap<_, _> {
            nodes.into_iter().map(|l| (l.node.name.clone(), (l.is_alive, l.is_drained))).collect()
        };
        assert_eq!(sorted(redis.nodes().await.unwrap()), sorted(table.nodes(now)));
        if round == 0 {
            sleep(Duration::from_millis(2_100)).await;
            now += 2_100;
        } else {
            redis.announce(&nodes[1]).await.unwrap();
            table.announce(now, &nodes[1]);
        }
        redis.sweep().await.unwrap();
        table.sweep(now);
        let held = scopes.iter().filter(|scope| {
            matches!(
                table.locate(now, &id(scope), Ask::default()),
                Found::Owned(_) | Found::Stale(_)
            )
        });
        let mut there = 0;
        for scope in &scopes {
            let found = redis.locate(scope, Ask::default()).await.unwrap();
            there += usize::from(matches!(found, Found::Owned(_) | Found::Stale(_)));
        }
        assert_eq!(there, held.count());
    }
}

/// Who held which scope, from when to when.
type History = Arc<Mutex<BTreeMap<String, Vec<(String, Instant, Option<Instant>)>>>>;

/// A client that goes where it is told, and comes again when its node died.
async fn client(
    number: usize,
    cncs: Arc<Vec<Process>>,
    nodes: Arc<Mutex<BTreeMap<String, Arc<Process>>>>,
    history: History,
) -> (String, String, Claim) {
    let scope = scope(&format!("scope {}", number % 100));
    let mut cnc = number;
    let mut failed: Option<String> = None;
    for _ in 0..200 {
        cnc += 1;
        let asked = &cncs[cnc % cncs.len()].cluster;
        let reported = failed.as_deref();
        let Ok(node) = asked.resolve(&scope, CLIENT, None, reported).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let process = nodes.lock().unwrap().get(&node.name).cloned();
        let Some(process) = process else {
            failed = Some(node.endpoint());
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        match process.cluster.claim(&scope).await {
            Ok(claim) => {
                // It may have died meanwhile, as a process would have with its answer.
                let nodes = nodes.lock().unwrap();
                if nodes.contains_key(&node.name) {
                    let mut history = history.lock().unwrap();
                    let held = history.entry(scope.scope.clone()).or_default();
                    if !held.iter().any(|(owner, _, end)| *owner == node.name && end.is_none()) {
                        held.push((node.name.clone(), Instant::now(), None));
                    }
                    return (scope.scope, node.name, claim);
                }
                failed = Some(node.endpoint());
            }
            // Sent on: it asks again.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("client {number} found no node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_who_come_at_once_never_find_two_owners() {
    let masters = [Redis::start(&[]).await, Redis::start(&[]).await, Redis::start(&[]).await];
    let _replica = replica_of(&masters[0]).await;
    let urls: Vec<_> = masters.iter().map(Redis::url).collect();
    let world = World::new(&urls);
    let nodes: Arc<Mutex<BTreeMap<String, Arc<Process>>>> = Arc::default();
    for name in ["a", "b", "c"] {
        let node = Arc::new(world.node(name).await);
        nodes.lock().unwrap().insert(name.to_owned(), node);
    }
    let mut cncs = Vec::new();
    for name in ["cnc1", "cnc2", "cnc3"] {
        cncs.push(world.cnc(name).await);
    }
    let cncs = Arc::new(cncs);
    // Its youth over, all come within one second, as nodes come and go.
    answered("a young partition", &cncs[0], &scope("first")).await;
    let history: History = Arc::default();
    let mut clients = tokio::task::JoinSet::new();
    let come = |clients: &mut tokio::task::JoinSet<_>, numbers: std::ops::Range<usize>| {
        for number in numbers {
            let (cncs, nodes) = (Arc::clone(&cncs), Arc::clone(&nodes));
            clients.spawn(client(number, cncs, nodes, Arc::clone(&history)));
        }
    };
    let began = Instant::now();
    come(&mut clients, 0..400);
    let joined = Arc::new(world.node("d").await);
    nodes.lock().unwrap().insert("d".into(), joined);
    cncs[0].cluster.drain("b", true).await.unwrap();
    come(&mut clients, 400..700);
    // One dies: what it held is nobody's from then on, though its lease goes on.
    let dead = {
        world.well.0.lock().unwrap().remove("c");
        let mut nodes = nodes.lock().unwrap();
        let now = Instant::now();
        for held in history.lock().unwrap().values_mut() {
            for (_, _, end) in held.iter_mut().filter(|(owner, ..)| owner == "c") {
                *end = Some(now);
            }
        }
        nodes.remove("c").unwrap()
    };
    dead.heart.abort();
    come(&mut clients, 700..1_000);
    let (mut places, mut claims) = (BTreeMap::<_, BTreeSet<_>>::new(), Vec::new());
    let mut again = 1_000;
    while let Some(outcome) = clients.join_next().await {
        let (scope, node, claim) = outcome.unwrap();
        if node == "c" {
            // Those who were on it come again.
            let number = scope.trim_start_matches("scope ").parse::<usize>().unwrap();
            again += 100;
            come(&mut clients, again + number..again + number + 1);
        } else {
            places.entry(scope).or_default().insert(node);
        }
        claims.push(claim);
    }
    println!("all have their node after {:?}", began.elapsed());
    assert_eq!(places.len(), 100);
    assert!(places.values().all(|nodes| nodes.len() == 1), "{places:?}");
    let used: BTreeSet<_> = places.values().flatten().cloned().collect();
    assert!(used.contains("a") && !used.contains("c"), "{used:?}");
    // Never two at once: each had ended when the next began.
    for (scope, held) in history.lock().unwrap().iter() {
        for pair in held.windows(2) {
            let [(before, _, end), (after, begin, _)] = pair else { unreachable!() };
            let ended = end.is_some_and(|end| end <= *begin);
            assert!(ended, "{scope}: {before} had it still when {after} got it");
        }
    }
    // One that was not used by those who died goes on taking scopes, and one that drains does not.
    for at in 0..20 {
        let (name, _) = answered("a new scope", &cncs[1], &scope(&format!("later {at}"))).await;
        assert!(name == "a" || name == "d", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_redis_gone_leaves_open_what_was_open_and_is_reconciled() {
    // Nothing on disk: it comes back empty.
    let mut servers =
        [Redis::start(&["--appendonly", "no"]).await, Redis::start(&["--appendonly", "no"]).await];
    let urls: Vec<_> = servers.iter().map(Redis::url).collect();
    let world = World::new(&urls);
    let (a, b) = (world.node("a").await, world.node("b").await);
    let cnc = world.cnc("cnc").await;
    let scopes: Vec<_> = (0..20).map(|at| scope(&at.to_string())).collect();
    let mut claims = Vec::new();
    for scope in &scopes {
        let (name, _) = answered("before", &cnc, scope).await;
        let node = if name == "a" { &a } else { &b };
        claims.push((name, node.cluster.claim(scope).await.unwrap()));
    }
    servers.iter_mut().for_each(Redis::kill);
    let new = scope("new");
    // A lease and more: nothing that is known comes from a registry.
    for _ in 0..15 {
        for (scope, (name, _)) in scopes.iter().zip(&claims) {
            let node = if name == "a" { &a } else { &b };
            let began = Instant::now();
            assert!(node.cluster.claim(scope).await.is_ok(), "who is there stays open");
            assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        }
        assert_eq!(a.cluster.claim(&new).await.err().unwrap().class, Class::Unavailable);
        let refused = resolve(&cnc, &new).await.unwrap_err();
        assert!(refused.class == Class::Unavailable && refused.reason.contains("Redis"));
        // What a CnC remembers is looked for at the node itself.
        assert_eq!(resolve(&cnc, &scopes[0]).await.unwrap(), claims[0].0);
        sleep(Duration::from_millis(200)).await;
    }
    for server in &mut servers {
        server.start_again().await;
    }
    let other = world.process("other", vec![Role::Cnc]);
    let (name, time) = answered("after", &cnc, &new).await;
    println!("new scopes again after {time:?}, at {name}");
    let other = other.await;
    for (scope, (name, _)) in scopes.iter().zip(&claims) {
        assert_eq!(answered("after", &other, scope).await.0, *name, "it went elsewhere");
    }
    let superseded = |node: &Process| {
        node.cluster.counters().superseded.load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(superseded(&a) + superseded(&b), 0);
}

fn signal(process: &Redis, signal: &str) {
    let pid = process.pid().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stalls_holds_up_nobody_for_long() {
    let server = Redis::start(&[]).await;
    let world = World::new(&[server.url()]);
    let a = world.node("a").await;
    let cnc = world.cnc("cnc").await;
    let (lobby, new) = (scope("lobby"), scope("new"));
    answered("before", &cnc, &lobby).await;
    let _claim = a.cluster.claim(&lobby).await.unwrap();
    signal(&server, "-STOP");
    let began = Instant::now();
    assert!(a.cluster.claim(&lobby).await.is_ok());
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    assert!(a.cluster.claim(&new).await.is_err());
    assert!(resolve(&cnc, &new).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    signal(&server, "-CONT");
    assert_eq!(answered("after", &cnc, &new).await.0, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_schema_is_named_and_nothing_is_written() {
    let server = Redis::start(&[]).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let set = redis::cmd("SET").arg("{strait}:schema").arg("7").exec_async(&mut connection).await;
    set.unwrap();
    let redis = Partitions::new(&[Secret::from(server.url().as_str())]).unwrap();
    let fault = redis.announce(&node("a", "1")).await.unwrap_err();
    assert!(fault.reason.contains("another version of Strait"), "{fault}");
    assert_eq!(redis.partitions(), (1, 0));
    let keys: usize = redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap();
    assert_eq!(keys, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_killed_loses_no_mapping_that_was_told() {
    let mut master = Redis::start(&[]).await;
    let _replica = replica_of(&master).await;
    let sentinel = Sentinel::start(&master).await;
    let world = World::new(&[format!("redis+sentinel://127.0.0.1:{}/part0", sentinel.port())]);
    let _nodes = (world.node("a").await, world.node("b").await);
    let cnc = Arc::new(world.cnc("cnc").await);
    answered("a young partition", &cnc, &scope("first")).await;
    // Scopes are placed all the time, up to the kill and through it.
    let told: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let placing = {
        let (cnc, told) = (Arc::clone(&cnc), Arc::clone(&told));
        tokio::spawn(async move {
            for at in 0.. {
                let scope = scope(&format!("scope {at}"));
                if let Ok(name) = resolve(&cnc, &scope).await {
                    told.lock().unwrap().insert(scope.scope, name);
                }
                sleep(Duration::from_millis(1)).await;
            }
        })
    };
    while told.lock().unwrap().len() < 100 {
        sleep(Duration::from_millis(10)).await;
    }
    master.kill();
    let killed = Instant::now();
    let (_, known) = answered("what was told", &cnc, &scope("first")).await;
    let (_, new) = answered("a new scope", &cnc, &scope("after")).await;
    println!("resolved again: known scopes after {known:?}, new ones after {new:?}");
    assert!(known < Duration::from_secs(2), "{known:?}");
    placing.abort();
    // A CnC that remembers nothing.
    let other = world.cnc("other").await;
    let told = told.lock().unwrap().clone();
    assert!(told.len() >= 100);
    for (name, node) in &told {
        assert_eq!(answered(name, &other, &scope(name)).await.0, *node, "{name} was lost");
    }
    assert!(killed.elapsed() < Duration::from_secs(60));
    let failed = cnc.cluster.counters().failed.load(std::sync::atomic::Ordering::Relaxed);
    println!("{} told, {failed} calls of the registry failed", told.len());
}

/// What a process of the version before says to a partition: its script, which is sent with each call.
async fn said_before(server: &Redis, call: &[&str]) -> Vec<String> {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let names = ["schema", "nodes", "seen", "drained", "mappings", "fence", "born"];
    let keys = names.map(|name| format!("{{strait}}:{name}"));
    let mut eval = redis::cmd("EVAL");
    eval.arg(include_str!("partition-before.lua")).arg(keys.len()).arg(&keys[..]);
    eval.arg(2_000).arg(60_000).arg(1_000).arg(call);
    eval.query_async(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn half_the_cluster_may_be_of_the_version_before() {
    let server = Redis::start(&[]).await;
    let world = World::new(&[server.url()]);
    let (new, cnc) = (world.node("new").await, world.cnc("cnc").await);
    // It says less of itself, and something that nobody knows any more.
    let mut record = serde_json::to_value(node("old", "1")).unwrap();
    record["color"] = "red".into();
    let record = record.to_string();
    let announce = ["announce", "old", "1", &record];
    world.well.0.lock().unwrap().insert("old".into());
    answered("the partition is no longer young", &cnc, &scope("first")).await;
    assert_eq!(said_before(&server, &announce).await, ["ok", "0"]);
    let locate = ["locate", "acme\nof the old", "old", "1", "1", "", "0"];
    let mine = said_before(&server, &locate).await;
    assert_eq!(mine[..3], ["owned", "old", "1"]);
    // Both see what the other has, and neither takes it.
    cnc.cluster.refresh().await;
    assert_eq!(answered("of the old one", &cnc, &scope("of the old")).await.0, "old");
    let refused = new.cluster.claim(&scope("of the old")).await.err().unwrap();
    assert_eq!(refused.class, Class::Elsewhere);
    let _claim = new.cluster.claim(&scope("of the new")).await.unwrap();
    let theirs = said_before(&server, &["locate", "acme\nof the new", "old", "1", "1", "", "0"]);
    assert_eq!(theirs.await[..2], ["owned", "new"]);
    let kept = said_before(&server, &["assert", "old", "1", "acme\nof the old", &mine[3]]).await;
    assert_eq!(kept, ["ok", mine[3].as_str()]);
    assert_eq!(said_before(&server, &["nodes"]).await.len(), 1 + 2 * 2);
    assert_eq!(said_before(&server, &["sweep", "0", "100"]).await[2], "0", "all of it is held");
    said_before(&server, &["release", "acme\nof the old", &mine[3]]).await;
    said_before(&server, &["withdraw", "old", "1"]).await;
    cnc.cluster.refresh().await;
    assert_eq!(answered("it is nobody's", &cnc, &scope("of the old")).await.0, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_apart_by_half_a_minute_move_nothing() {
    let mut servers = [Redis::start(&[]).await, Redis::start(&[]).await, Redis::start(&[]).await];
    if !(servers[0].set_clock(30).await && servers[1].set_clock(-30).await) {
        return server::skip("clocks of Redis that are apart", "there is no C compiler");
    }
    let mut times = Vec::new();
    for server in &servers {
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let (seconds, _): (i64, i64) =
            redis::cmd("TIME").query_async(&mut connection).await.unwrap();
        times.push(seconds);
    }
    assert!(times[0] > times[2] + 25 && times[1] < times[2] - 25, "{times:?}");
    let urls: Vec<_> = servers.iter().map(Redis::url).collect();
    let world = World::new(&urls);
    let (a, b) = (world.node("a").await, world.node("b").await);
    let cnc = world.cnc("cnc").await;
    let mut claims = Vec::new();
    for at in 0..30 {
        let scope = scope(&at.to_string());
        let (name, _) = answered("apart", &cnc, &scope).await;
        let node = if name == "a" { &a } else { &b };
        claims.push((scope.clone(), name, node.cluster.claim(&scope).await.unwrap()));
    }
    // Each is set right: for one, all that was said is still to come, for another long ago.
    for server in &mut servers {
        assert!(server.set_clock(0).await);
    }
    sleep(Duration::from_millis(2_500)).await;
    let (other, new) = (world.cnc("other").await, scope("new"));
    for (scope, name, _) in &claims {
        assert_eq!(answered("set right", &other, scope).await.0, *name, "it went elsewhere");
    }
    answered("new ones are placed", &other, &new).await;
    let superseded = |node: &Process| {
        node.cluster.counters().superseded.load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(superseded(&a) + superseded(&b), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_gives_nothing_away() {
    let mut server = Redis::start(&["--appendfsync", "always"]).await;
    let world = World::new(&[server.url()]);
    let (a, _b) = (world.node("a").await, world.node("b").await);
    let cnc = world.cnc("cnc").await;
    answered("the partition is no longer young", &cnc, &scope("first")).await;
    let (had, kept) = (server.folder().join("appendonlydir"), server.folder().join("kept"));
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
    };
    copy(&had, &kept);
    let scopes: Vec<_> = (0..20).map(|at| scope(&at.to_string())).collect();
    let mut claims = Vec::new();
    for scope in &scopes {
        claims.push(a.cluster.claim(scope).await.unwrap());
    }
    a.heart.abort();
    server.kill();
    std::fs::remove_dir_all(&had).unwrap();
    copy(&kept, &had);
    server.start_again().await;
    // It lives, and says what it was told of last; what it holds it says a moment later.
    let began = Instant::now();
    while a.cluster.announce().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(50)).await;
    }
    let asserted = async {
        sleep(Duration::from_millis(300)).await;
        assert!(a.cluster.assert_held(&|scope| panic!("{scope:?} is another's")).await);
    };
    let asked = async {
        let mut names = BTreeSet::new();
        for scope in &scopes {
            names.insert(answered("after", &cnc, scope).await.0);
        }
        names
    };
    let ((), names) = tokio::join!(asserted, asked);
    assert_eq!(names, BTreeSet::from(["a".to_owned()]), "none was placed anew");
}

/// Who put it there takes it away again, as the log asks for.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_had_in_our_place_moves_nothing_when_it_is_gone() {
    let server = Redis::start(&[]).await;
    let world = World::new(&[server.url()]);
    let (a, _b) = (world.node("a").await, world.node("b").await);
    let cnc = world.cnc("cnc").await;
    answered("the partition is no longer young", &cnc, &scope("first")).await;
    let scopes: Vec<_> = (0..10).map(|at| scope(&at.to_string())).collect();
    let mut claims = Vec::new();
    for scope in &scopes {
        claims.push(a.cluster.claim(scope).await.unwrap());
    }
    a.heart.abort();
    let client = redis::Client::open(server.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    for key in ["mappings", "nodes", "seen", "drained", "fence", "born", "schema"] {
        let name = format!("{{strait}}:{key}");
        let mut put = redis::pipe();
        put.del(&name).ignore().lpush(&name, "theirs").ignore();
        put.exec_async(&mut redis).await.unwrap();
        let losses = a.cluster.mappings.losses();
        assert!(a.cluster.announce().await.is_err(), "{key}");
        redis::cmd("DEL").arg(&name).exec_async(&mut redis).await.unwrap();
        // One that noticed nothing, and remembers nothing.
        let other = world.cnc(&format!("beside {key}")).await;
        let asserted = async {
            sleep(Duration::from_millis(300)).await;
            a.cluster.announce().await.unwrap();
            assert!(a.cluster.mappings.losses() > losses, "{key}: it says at once what it holds");
            assert!(a.cluster.assert_held(&|scope| panic!("{scope:?} is another's")).await);
        };
        let asked = async {
            let mut names = BTreeSet::new();
            for scope in &scopes {
                names.insert(answered(key, &other, scope).await.0);
            }
            names
        };
        let ((), names) = tokio::join!(asserted, asked);
        assert_eq!(names, BTreeSet::from(["a".to_owned()]), "{key}");
    }
}

/// A partition of which only some keys are older, as whoever restores it by hand may make it.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_an_older_copy_leave_one_owner_to_each_scope() {
    let server = Redis::start(&[]).await;
    let world = World::new(&[server.url()]);
    let (a, _b) = (world.node("a").await, world.node("b").await);
    let cnc = world.cnc("cnc").await;
    answered("the partition is no longer young", &cnc, &scope("first")).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut fence = async |older: Option<u64>| {
        let mut pipe = redis::pipe();
        if let Some(older) = older {
            pipe.cmd("SET").arg("{strait}:fence").arg(older).ignore();
        } else {
            pipe.cmd("GET").arg("{strait}:fence");
        }
        pipe.query_async::<Vec<u64>>(&mut redis).await.unwrap().first().copied()
    };
    let before = fence(None).await.unwrap();
    let scopes: Vec<_> = (0..10).map(|at| scope(&at.to_string())).collect();
    let mut claims = Vec::new();
    for scope in &scopes {
        claims.push(a.cluster.claim(scope).await.unwrap());
    }
    a.heart.abort();
    // What it counts is older than its mappings: whoever was told of more says so.
    fence(Some(before)).await;
    assert!(a.cluster.assert_held(&|scope| panic!("{scope:?} is another's")).await);
    assert!(fence(None).await.unwrap() >= before + 10, "a number is given twice");

    // Its mappings are older than what it counts: nobody can tell that the others were never there.
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    sleep(Duration::from_millis(2_500)).await;
    let del = redis::cmd("DEL").arg("{strait}:mappings").exec_async(&mut redis).await;
    del.unwrap();
    a.cluster.announce().await.unwrap();
    let (asked, _) = answered("asked before its owner said so", &cnc, &scopes[0]).await;
    let lost = Mutex::new(Vec::new());
    let lose = |scope: ScopeKey| lost.lock().unwrap().push(scope);
    assert!(a.cluster.assert_held(&lose).await);
    let expected = if asked == "a" { &scopes[..0] } else { &scopes[..1] };
    assert_eq!(*lost.lock().unwrap(), expected, "its clients go where it was placed");
    let other = world.cnc("other").await;
    for (scope, owner) in scopes.iter().zip([&*asked].into_iter().chain(["a"; 9])) {
        assert_eq!(answered("afterwards", &other, scope).await.0, owner, "{scope:?}");
    }
}
