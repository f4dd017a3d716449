//! Events that go by Redis from nodes to agents, while either of them, Redis or the node dies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamInfoConsumersReply;
use strait_control::agent::reader::forget_gone;
use strait_control::cluster::redis::Address;
use strait_control::config::cluster::Role;
use strait_control::events::Moment;
use strait_control::events::stream::{ASIDE, GROUP, STREAM, open};
use strait_control::store::{Session, Store, WantedSessions};
use strait_control::{Config, limits};
use strait_link::v1::{Leave, client_message::Body as Request};

use crate::databases::Database;
use crate::log::Log;
use crate::native::{Native, auth, trusting};
use crate::redis::{Redis, Sentinel, replica_of};
use crate::{Service, eventually};

/// A store that all processes of a test share.
fn store_in(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("shared.db").display())
}

/// A node whose events others write.
fn node(redis: &Redis, folder: &Path) -> impl FnOnce(&mut Config) {
    node_of(redis.url(), store_in(folder))
}

/// The same, with its events and its store somewhere else.
fn node_of(events: String, store: String) -> impl FnOnce(&mut Config) {
    move |config| {
        config.cluster.roles = vec![Role::Node, Role::Cnc, Role::Api];
        config.events.redis = events.as_str().into();
        config.store.url = store.as_str().into();
        config.http.https_listen = vec!["127.0.0.1:0".parse().unwrap()];
    }
}

/// An agent, a process of its own.
struct Agent {
    process: Child,
}

impl Agent {
    fn start(name: &str, redis: &Redis, folder: &Path) -> Self {
        Self::start_of(name, &redis.url(), &store_in(folder), folder)
    }

    fn start_of(name: &str, events: &str, store: &str, folder: &Path) -> Self {
        let config = folder.join(format!("{name}.toml"));
        let state = folder.join(name);
        let text = format!(
            "[http]\nhttps_listen = []\nhttp_listen = ['127.0.0.1:0']\nstate_dir = '{}'\n\
             [store]\nurl = '{store}'\n[events]\nredis = '{events}'\n\
             [cluster]\nroles = ['agent']\n[log]\nfilter = 'warn'\n",
            state.display(),
        );
        std::fs::write(&config, text).unwrap();
        let program = env!("CARGO_BIN_EXE_strait-control");
        let mut command = Command::new(program);
        command.arg("--config").arg(&config).stdin(Stdio::null());
        Self { process: command.spawn().unwrap() }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may be dead already, as the test wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One that waits for as long as a busy machine takes.
async fn connect(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).unwrap();
    let patience = Some(Duration::from_secs(60));
    let config = AsyncConnectionConfig::new().set_connection_timeout(patience);
    let config = config.set_response_timeout(patience);
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

async fn length(redis: &mut MultiplexedConnection, stream: &str) -> u64 {
    redis::cmd("XLEN").arg(stream).query_async(redis).await.unwrap()
}

/// What the stream says of scopes. That the node is well it says beside, each minute.
async fn told(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut range = redis::cmd("XRANGE");
    range.arg(STREAM).arg("-").arg("+");
    let range: redis::streams::StreamRangeReply = range.query_async(redis).await.unwrap();
    let texts = range.ids.iter().map(|entry| entry.get::<String>("e").unwrap());
    texts.filter(|text| !text.contains("checked")).collect()
}

/// Somebody is in a scope for so many seconds, as the node tells it. The node's own clock is spared:
/// what is told is as if they had passed.
async fn stay(service: &Service, scope: &str, seconds: u64) {
    let notary = &service.server.app.notary;
    let began = Moment::now();
    let ended = Moment {
        even: began.even + Duration::from_secs(seconds),
        wall: began.wall + i64::try_from(seconds).unwrap() * 1_000,
    };
    let life = notary.life("dev", scope, began).unwrap();
    let stay = notary.joined(&life, ("p-1", "Ann"), "ann", "native", began);
    notary.left(stay, "left", ended);
    notary.disposed(&life, None, ended);
    notary.settle().await;
}

async fn sessions(store: &Store) -> Vec<Session> {
    let wanted = WantedSessions { count: 1_000, ..WantedSessions::default() };
    store.analytics().sessions(&wanted, Moment::now().wall).await.unwrap()
}

/// Seconds of all who were in a scope, by scope, of sessions that are over.
async fn usage(store: &Store) -> BTreeMap<String, f64> {
    let mut usage = BTreeMap::new();
    for session in sessions(store).await.into_iter().filter(|each| each.ended_at.is_some()) {
        *usage.entry(session.scope).or_default() += session.participant_seconds;
    }
    usage
}

async fn until<T: PartialEq + std::fmt::Debug>(
    what: &str,
    wanted: T,
    mut look: impl AsyncFnMut() -> T,
) {
    let since = Instant::now();
    loop {
        let now = look().await;
        if now == wanted {
            return;
        }
        assert!(since.elapsed().as_secs() < 60, "{what}: {now:?} in a minute, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_does_not_take_outlives_the_node() {
    let shared = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(&["--appendfsync", "always"]).await;
    let before = Service::start_with(node(&redis, shared.path())).await;
    let store = before.server.app.store.clone();
    stay(&before, "first", 11).await;
    // What Redis took without an answer is told again: none is on its way when it dies.
    until("the first is told", Some(0), async || {
        before.metric("control_events_spool_events").await
    })
    .await;
    redis.kill();
    stay(&before, "second", 12).await;
    assert_eq!(before.metric("control_events_stalled").await, Some(1));
    assert!(before.metric("control_events_spool_events").await.unwrap() >= 4);
    assert_eq!(before.metric("control_events_lost_total").await, Some(0));
    let state = before.folder.path().to_owned();
    let kept = tempfile::tempdir().unwrap();
    before.server.stop().await;
    std::fs::copy(state.join("events.db"), kept.path().join("events.db")).unwrap();

    // Redis is there again, and then the node: what waited is told before what is new.
    redis.start_again().await;
    let change = node(&redis, shared.path());
    let after = Service::start_with(|config| {
        change(config);
        config.http.state_dir = kept.path().into();
    })
    .await;
    stay(&after, "third", 13).await;
    let mut connection = connect(&redis).await;
    until("the stream has all", 12, async || told(&mut connection).await.len()).await;
    let scopes = told(&mut connection).await;
    for (at, name) in ["first", "second", "third"].into_iter().enumerate() {
        assert!(scopes[4 * at..4 * at + 4].iter().all(|text| text.contains(name)), "{scopes:?}");
    }
    assert_eq!(usage(&store).await, BTreeMap::new(), "no agent is there");
    let _agent = Agent::start("agent", &redis, shared.path());
    let expected = [("first", 11.0), ("second", 12.0), ("third", 13.0)];
    let expected: BTreeMap<_, _> = expected.map(|(name, time)| (name.to_owned(), time)).into();
    until("the store has all", expected, async || usage(&store).await).await;
    until("the stream is empty", 0, async || length(&mut connection, STREAM).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_take_over_what_others_left_and_put_aside_what_they_do_not_know() {
    let shared = tempfile::tempdir().unwrap();
    let redis = Redis::start(&[]).await;
    let service = Service::start_with(node(&redis, shared.path())).await;
    let store = service.server.app.store.clone();
    let mut connection = connect(&redis).await;
    stay(&service, "lobby", 7).await;
    let mut add = redis::pipe();
    add.cmd("XADD").arg(STREAM).arg("*").arg("v").arg(99).arg("e").arg("{}").ignore();
    add.cmd("XADD").arg(STREAM).arg("*").arg("something").arg(b"\xff").ignore();
    add.cmd("XADD").arg(STREAM).arg("*").arg("v").arg(1).arg("e").arg("no JSON").ignore();
    add.cmd("XGROUP").arg("CREATE").arg(STREAM).arg(GROUP).arg(0).ignore();
    // An agent that is given all of it, and dies.
    add.cmd("XREADGROUP").arg("GROUP").arg(GROUP).arg("dead").arg("STREAMS").arg(STREAM).arg(">");
    let (given,): (redis::streams::StreamReadReply,) =
        add.query_async(&mut connection).await.unwrap();
    assert!(given.keys[0].ids.len() >= 7);
    let agent = Agent::start("agent", &redis, shared.path());
    let lobby: BTreeMap<_, _> = [("lobby".to_owned(), 7.0)].into();
    until("it is taken over", lobby.clone(), async || usage(&store).await).await;
    until("the stream is empty", 0, async || length(&mut connection, STREAM).await).await;
    assert_eq!(length(&mut connection, ASIDE).await, 3);
    agent.kill();
    // One of them is what the next agent knows.
    stay(&service, "hall", 9).await;
    let mut aside = redis::pipe();
    for text in told(&mut connection).await {
        aside.cmd("XADD").arg(ASIDE).arg("*").arg("v").arg(1).arg("e").arg(text).ignore();
    }
    aside.cmd("DEL").arg(STREAM).ignore();
    aside.query_async::<()>(&mut connection).await.unwrap();
    let _agent = Agent::start("agent", &redis, shared.path());
    let both: BTreeMap<_, _> = lobby.into_iter().chain([("hall".to_owned(), 9.0)]).collect();
    until("a newer agent reads it", both, async || usage(&store).await).await;
    until("it is aside no more", 3, async || length(&mut connection, ASIDE).await).await;
}

#[tokio::test]
async fn agents_that_are_gone_are_forgotten_unless_something_is_theirs() {
    let redis = Redis::start(&[]).await;
    let mut connection = connect(&redis).await;
    let mut make = redis::pipe();
    make.cmd("XGROUP").arg("CREATE").arg(STREAM).arg(GROUP).arg(0).arg("MKSTREAM").ignore();
    for agent in ["own", "gone", "busy"] {
        make.cmd("XGROUP").arg("CREATECONSUMER").arg(STREAM).arg(GROUP).arg(agent).ignore();
    }
    make.cmd("XADD").arg(STREAM).arg("*").arg("v").arg(99).ignore();
    make.cmd("XREADGROUP").arg("GROUP").arg(GROUP).arg("busy").arg("STREAMS").arg(STREAM).arg(">");
    make.query_async::<()>(&mut connection).await.unwrap();
    let agents = async |connection: &mut MultiplexedConnection| {
        let mut asked = redis::cmd("XINFO");
        asked.arg("CONSUMERS").arg(STREAM).arg(GROUP);
        let told: StreamInfoConsumersReply = asked.query_async(connection).await.unwrap();
        told.consumers.into_iter().map(|agent| agent.name).collect::<BTreeSet<_>>()
    };
    let hour = Duration::from_secs(3_600);
    forget_gone(&mut connection, "own", hour).await.unwrap();
    assert_eq!(agents(&mut connection).await.len(), 3, "all were heard of lately");
    forget_gone(&mut connection, "own", Duration::ZERO).await.unwrap();
    let left = ["busy", "own"].map(str::to_owned).into();
    assert_eq!(agents(&mut connection).await, left);
}

/// Somebody else's data is under Strait's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_is_told_of_now_and_then() {
    let shared = tempfile::tempdir().unwrap();
    let redis = Redis::start(&[]).await;
    let mut connection = connect(&redis).await;
    let url = redis.url();
    let service = Service::start_with(|config| {
        config.events.redis = url.as_str().into();
        config.store.url = store_in(shared.path()).as_str().into();
    })
    .await;
    let mut set = redis::pipe();
    set.cmd("SET").arg(ASIDE).arg("theirs").ignore();
    set.cmd("XADD").arg(STREAM).arg("*").arg("v").arg(99).ignore();
    set.query_async::<()>(&mut connection).await.unwrap();
    let since = Instant::now();
    let failures = async || service.metric("control_events_read_failures_total").await.unwrap();
    while failures().await < 2 {
        assert!(since.elapsed().as_secs() < 60, "it goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let said = Log::of_strait().text().matches("no events are read").count();
    assert!(said >= 1 && said as u64 <= 1 + since.elapsed().as_secs() / 60, "{said}");
    redis::cmd("DEL").arg(ASIDE).query_async::<()>(&mut connection).await.unwrap();
    until("it is put aside", 1, async || length(&mut connection, ASIDE).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_cut_off_a_stream_that_is_full() {
    let shared = tempfile::tempdir().unwrap();
    let redis = Redis::start(&[]).await;
    let mut connection = connect(&redis).await;
    let fill = "for i = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'v', '0') end";
    // In pieces, none of which holds it up for long.
    for _ in 0..20 {
        let mut eval = redis::cmd("EVAL");
        eval.arg(fill).arg(1).arg(STREAM).arg(limits::EVENTS_STREAM / 20);
        eval.query_async::<()>(&mut connection).await.unwrap();
    }
    let service = Service::start_with(node(&redis, shared.path())).await;
    // Only with it is known how much is there.
    stay(&service, "first", 5).await;
    stay(&service, "second", 6).await;
    let there = length(&mut connection, STREAM).await;
    assert!((limits::EVENTS_STREAM..limits::EVENTS_STREAM + 8).contains(&there), "{there}");
    let waits = service.metric("control_events_spool_events").await.unwrap();
    assert!(waits >= 4, "{waits}");
    redis::cmd("DEL").arg(STREAM).query_async::<()>(&mut connection).await.unwrap();
    let spooled = async || service.metric("control_events_spool_events").await.unwrap();
    until("what waited is told", 0, spooled).await;
    assert_eq!(service.metric("control_events_lost_total").await, Some(0));
    assert!(length(&mut connection, STREAM).await >= waits);
}

/// What a client knows of its own stays in a scope, in seconds: at least so many, at most so many.
type Counted = BTreeMap<String, (f64, f64)>;

/// Comes and goes until it is to end. Numbers that look random, from a seed.
fn come_and_go(
    service: &Service,
    seed: u64,
    ends: Arc<AtomicBool>,
) -> impl FnOnce() -> Counted + use<> {
    let certificate = service.folder.path().join("certificate.pem");
    let address = service.server.https[0];
    let mut state = seed;
    let mut random = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    move || {
        let config = trusting(&certificate, Some(strait_link::ALPN));
        let (mut counted, began) = (Counted::new(), Instant::now());
        while !ends.load(Ordering::Relaxed) {
            let scope = format!("usage-{}-{}", began.elapsed().as_secs() / 5, random(2));
            let mut link = Native::open(address, Arc::clone(&config));
            let asked = Instant::now();
            link.authenticate(auth(&scope, "somebody")).unwrap();
            let there = Instant::now();
            std::thread::sleep(Duration::from_millis(100 + random(3_000)));
            let leaves = Instant::now();
            link.ask(Request::Leave(Leave::default())).unwrap();
            let (least, most) = counted.entry(scope).or_default();
            *least += (leaves - there).as_secs_f64();
            *most += asked.elapsed().as_secs_f64();
            std::thread::sleep(Duration::from_millis(random(500)));
        }
        counted
    }
}

/// The usage of each scope is what its clients counted themselves, to the second, though agents are
/// killed all the time, and `harm` is done every third time.
async fn usage_is_right(events: &str, store: &str, folder: &Path, mut harm: impl AsyncFnMut(u64)) {
    let service = Service::start_with(node_of(events.to_owned(), store.to_owned())).await;
    let start = |name| (name, Agent::start_of(name, events, store, folder));
    let mut agents: Vec<_> = ["one", "two"].map(start).into();
    let ends = Arc::<AtomicBool>::default();
    let clients: Vec<_> = (1..=6)
        .map(|seed| std::thread::spawn(come_and_go(&service, seed, Arc::clone(&ends))))
        .collect();
    for round in 0..10 {
        tokio::time::sleep(Duration::from_millis(400 + 700 * (round * 7 % 4))).await;
        if round % 3 == 2 {
            harm(round).await;
        } else {
            let (name, agent) = agents.remove(0);
            agent.kill();
            agents.push(start(name));
        }
    }
    ends.store(true, Ordering::Relaxed);
    let mut counted = Counted::new();
    for client in clients {
        for (scope, (least, most)) in client.join().unwrap() {
            let sum = counted.entry(scope).or_default();
            *sum = (sum.0 + least, sum.1 + most);
        }
    }
    eventually("all are gone", || service.server.app.scopes.counts().1 == 0).await;
    service.server.app.notary.settle().await;
    let spooled = async || service.metric("control_events_spool_events").await.unwrap();
    until("nothing waits on disk", 0, spooled).await;
    let address = Address::parse(events).unwrap();
    let mut connection = open(&address).await.unwrap();
    until("nothing waits in Redis", 0, async || length(&mut connection, STREAM).await).await;
    assert_eq!(service.metric("control_events_lost_total").await, Some(0));
    assert_eq!(length(&mut connection, ASIDE).await, 0);

    let told = usage(&service.server.app.store).await;
    assert!(counted.len() >= 4, "{counted:?}");
    assert_eq!(told.keys().collect::<Vec<_>>(), counted.keys().collect::<Vec<_>>());
    for (scope, (least, most)) in counted {
        let told = told[&scope];
        assert!(
            (least - 0.5..most + 0.5).contains(&told),
            "{scope}: {told} s, its clients counted {least} to {most}"
        );
    }
    for session in sessions(&service.server.app.store).await {
        assert_eq!(session.present, 0, "{session:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_right_to_the_second_while_agents_and_redis_are_killed() {
    let shared = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(&["--appendfsync", "always"]).await;
    let (events, store) = (redis.url(), store_in(shared.path()));
    usage_is_right(&events, &store, shared.path(), async |round| {
        redis.kill();
        tokio::time::sleep(Duration::from_millis(500 * (round % 4))).await;
        redis.start_again().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_right_to_the_second_while_mariadb_is_killed() {
    let test = "usage_is_right_to_the_second_while_mariadb_is_killed";
    let Some(mut database) = Database::mariadb(test) else { return };
    let shared = tempfile::tempdir().unwrap();
    let redis = Redis::start(&["--appendfsync", "always"]).await;
    let store = database.url.clone();
    usage_is_right(&redis.url(), &store, shared.path(), async |round| {
        database.kill();
        tokio::time::sleep(Duration::from_millis(500 * (round % 4))).await;
        database.start_again();
    })
    .await;
}

/// What the master acknowledged its replica has, and what it did not is told again.
#[tokio::test(flavor = "multi_thread")]
async fn usage_is_right_to_the_second_while_a_master_is_killed_and_its_replica_promoted() {
    let shared = tempfile::tempdir().unwrap();
    let mut master = Redis::start(&["--appendfsync", "always"]).await;
    let replica = replica_of(&master).await;
    let sentinel = Sentinel::start(&master).await;
    let events = format!("redis+sentinel://127.0.0.1:{}/part0", sentinel.port());
    let store = store_in(shared.path());
    usage_is_right(&events, &store, shared.path(), async |round| match round {
        2 => master.kill(),
        // It becomes a replica of the one that was its own.
        5 => master.start_again().await,
        _ => {}
    })
    .await;
    let address = Address::parse(&events).unwrap();
    let now = address.server().await.unwrap().addr().to_string();
    assert!(now.ends_with(&format!(":{}", replica.port())), "{now} is the master");
}
