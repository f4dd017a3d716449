//! Several processes on one registry, without a network: who is well is said by the test.

use std::collections::BTreeSet;
use std::pin::Pin;

use super::announce::Listens;
use super::health::Probe;
use super::*;

/// Nodes that answer, by their names.
#[derive(Clone, Default)]
struct Well(Arc<Mutex<BTreeSet<String>>>);

impl Probe for Well {
    fn attempt(&self, node: Node) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let is_well = self.0.lock().unwrap().contains(&node.name);
        Box::pin(std::future::ready(is_well))
    }
}

struct Host {
    local: Arc<Local>,
    well: Well,
}

impl Host {
    fn new() -> Self {
        Self { local: Arc::default(), well: Well::default() }
    }

    fn process(&self, config: config::Cluster) -> Arc<Cluster> {
        let local = &self.local;
        let health = Health::by(Box::new(self.well.clone()));
        Cluster::on(config, Arc::clone(local) as _, Arc::clone(local) as _, health).unwrap()
    }

    async fn node(&self, name: &str, region: &str) -> Arc<Cluster> {
        let node = self.process(config::Cluster {
            name: name.into(),
            public: format!("{name}.example:8443"),
            region: region.into(),
            ..config::Cluster::default()
        });
        node.listens(&Listens { secure: true, ..Listens::default() }).await.unwrap();
        self.well.0.lock().unwrap().insert(name.into());
        node
    }

    async fn cnc(&self) -> Arc<Cluster> {
        let roles = vec![Role::Cnc];
        let cnc = self.process(config::Cluster { roles, ..config::Cluster::default() });
        cnc.refresh().await;
        cnc
    }

    fn dies(&self, name: &str) {
        self.well.0.lock().unwrap().remove(name);
    }
}

/// Mappings whose answers are lost.
#[derive(Default)]
struct Lossy {
    local: Arc<Local>,
    is_lost: AtomicBool,
    /// What was to be released, and is not yet.
    late: Mutex<Vec<(ScopeKey, u64)>>,
}

impl Lossy {
    fn lose(&self, is_lost: bool) {
        self.is_lost.store(is_lost, Ordering::Relaxed);
    }

    fn answer<T: Send + 'static>(&self, answer: T) -> directory::Pending<'static, T> {
        let lost = Fault::unavailable("lost");
        let is_lost = self.is_lost.load(Ordering::Relaxed);
        Box::pin(std::future::ready(if is_lost { Err(lost) } else { Ok(answer) }))
    }
}

impl Mappings for Lossy {
    fn locate<'a>(&'a self, scope: &'a ScopeKey, ask: Ask<'a>) -> directory::Pending<'a, Found> {
        Box::pin(async move { self.answer(self.local.locate(scope, ask).await?).await })
    }

    fn release<'a>(&'a self, scope: &'a ScopeKey, fence: u64) -> directory::Pending<'a, ()> {
        if !self.is_lost.load(Ordering::Relaxed) {
            return self.local.release(scope, fence);
        }
        self.late.lock().unwrap().push((scope.clone(), fence));
        self.answer(())
    }

    fn forget<'a>(&'a self, scope: &'a ScopeKey) -> directory::Pending<'a, ()> {
        self.local.forget(scope)
    }

    fn assert<'a>(
        &'a self,
        owner: &'a Owner,
        held: &'a [(ScopeKey, u64)],
    ) -> directory::Pending<'a, Vec<Result<Option<u64>, Fault>>> {
        self.local.assert(owner, held)
    }

    fn sweep(&self) -> directory::Pending<'_, usize> {
        self.local.sweep()
    }

    fn partitions(&self) -> (usize, usize) {
        (1, 1)
    }

    fn losses(&self) -> u64 {
        0
    }
}

/// A node whose mappings lose their answers, and another one beside it.
async fn beside_lossy() -> (Arc<Lossy>, Arc<Cluster>, Arc<Cluster>) {
    let host = Host::new();
    let lossy = Arc::new(Lossy { local: Arc::clone(&host.local), ..Lossy::default() });
    let config = config::Cluster {
        name: "a".into(),
        public: "a.example:8443".into(),
        ..config::Cluster::default()
    };
    let health = Health::by(Box::new(host.well.clone()));
    let a = Cluster::on(config, Arc::clone(&host.local) as _, Arc::clone(&lossy) as _, health);
    let a = a.unwrap();
    a.listens(&Listens { secure: true, ..Listens::default() }).await.unwrap();
    host.well.0.lock().unwrap().insert("a".into());
    let b = host.node("b", "").await;
    (lossy, a, b)
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_given_back() {
    let (lossy, a, b) = beside_lossy().await;
    let lobby = scope("lobby");
    lossy.lose(true);
    assert_eq!(a.claim(&lobby).await.err().unwrap().class, Class::Unavailable);
    assert_eq!(b.claim(&lobby).await.err().unwrap().class, Class::Elsewhere, "it was carried out");
    let later = Instant::now() + limits::LATEST_CLAIM;
    a.release_unused_at(later).await;
    assert_eq!(a.held(), 1, "nobody answers yet");
    lossy.lose(false);
    a.release_unused().await;
    assert_eq!(a.held(), 1, "it may be carried out yet");
    a.release_unused_at(later).await;
    assert_eq!(a.held(), 0);
    assert!(b.claim(&lobby).await.is_ok());
}

#[tokio::test]
async fn a_release_that_comes_late_takes_nothing_from_who_came_since() {
    let (lossy, a, b) = beside_lossy().await;
    let lobby = scope("lobby");
    drop(a.claim(&lobby).await.unwrap());
    lossy.lose(true);
    a.release_unused().await;
    lossy.lose(false);
    let _claim = a.claim(&lobby).await.unwrap();
    for (scope, fence) in lossy.late.lock().unwrap().drain(..) {
        lossy.local.table().release(&directory::id(&scope), fence);
    }
    assert_eq!(b.claim(&lobby).await.err().unwrap().class, Class::Elsewhere);
    assert!(a.is_held(&lobby));
}

fn scope(name: &str) -> ScopeKey {
    ScopeKey { application: "acme".into(), scope: name.into() }
}

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

async fn resolve(cnc: &Cluster, scope: &ScopeKey) -> String {
    cnc.resolve(scope, CLIENT, None, None).await.unwrap().name
}

#[tokio::test]
async fn all_cncs_give_the_same_node_and_others_redirect_there() {
    let host = Host::new();
    let (a, b) = (host.node("a", "").await, host.node("b", "").await);
    let (one, two) = (host.cnc().await, host.cnc().await);
    let mut names = BTreeSet::new();
    for at in 0..20 {
        let scope = scope(&at.to_string());
        assert!(one.known(&scope).is_none());
        let name = resolve(&one, &scope).await;
        assert_eq!(resolve(&two, &scope).await, name);
        assert_eq!(one.known(&scope).unwrap().name, name);
        let (here, there) = if name == "a" { (&a, &b) } else { (&b, &a) };
        assert!(here.claim(&scope).await.is_ok());
        let fault = there.claim(&scope).await.err().unwrap();
        assert_eq!(fault.class, Class::Elsewhere);
        assert_eq!(fault.elsewhere.unwrap().host, format!("{name}.example"));
        names.insert(name);
    }
    assert_eq!(names.len(), 2, "all on one node");
}

#[tokio::test]
async fn a_scope_is_given_back_when_the_last_one_left() {
    let host = Host::new();
    let (a, b) = (host.node("a", "").await, host.node("b", "").await);
    let lobby = scope("lobby");
    let (first, second) = (a.claim(&lobby).await.unwrap(), a.claim(&lobby).await.unwrap());
    drop(first);
    a.release_unused().await;
    assert!(b.claim(&lobby).await.is_err(), "somebody is there");
    drop(second);
    a.ended().await;
    a.release_unused().await;
    assert_eq!(a.held(), 0);
    assert!(b.claim(&lobby).await.is_ok());
}

#[tokio::test]
async fn a_reported_node_loses_its_scope_only_when_it_is_unwell() {
    let host = Host::new();
    let (a, _b) = (host.node("a", "").await, host.node("b", "").await);
    let cnc = host.cnc().await;
    let lobby = scope("lobby");
    let claim = a.claim(&lobby).await.unwrap();
    let report =
        async |endpoint| cnc.resolve(&lobby, CLIENT, None, Some(endpoint)).await.unwrap().name;
    assert_eq!(report("a.example:8443").await, "a", "it is well");
    assert_eq!(report("b.example:8443").await, "a", "not the scope's");
    assert_eq!(report("169.254.169.254:80").await, "a", "nobody's");
    let forged = cnc.counters().forged.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(forged, 1);
    // Verdicts are kept for half a second; another CnC has none.
    host.dies("a");
    let other = host.cnc().await;
    let report = other.resolve(&lobby, CLIENT, None, Some("a.example:8443")).await;
    assert_eq!(report.unwrap().name, "b");
    assert_eq!(resolve(&other, &lobby).await, "b");
    // Its other scopes move when somebody comes to them, and nothing new goes there.
    for at in 0..20 {
        assert_eq!(resolve(&other, &scope(&at.to_string())).await, "b");
    }
    // The former owner is told when it says what it holds.
    let lost = Mutex::default();
    assert!(a.assert_held(&|scope| *lost.lock().unwrap() = Some(scope)).await);
    assert_eq!(lost.into_inner().unwrap(), Some(lobby.clone()));
    assert!(!a.is_held(&lobby), "who enters now is sent on");
    drop(claim);
    a.release_unused().await;
    assert_eq!(resolve(&other, &lobby).await, "b");
}

#[tokio::test]
async fn a_drained_node_keeps_what_it_has_and_gets_nothing_new() {
    let host = Host::new();
    let (a, b) = (host.node("a", "").await, host.node("b", "").await);
    let cnc = host.cnc().await;
    let old = scope("old");
    let _claim = a.claim(&old).await.unwrap();
    cnc.drain("a", true).await.unwrap();
    assert_eq!(cnc.drain("c", true).await.unwrap_err().class, Class::NotFound);
    for at in 0..20 {
        assert_eq!(resolve(&cnc, &scope(&at.to_string())).await, "b");
    }
    assert_eq!(resolve(&cnc, &old).await, "a");
    // Also for those who come to it without asking.
    a.announce().await.unwrap();
    a.refresh().await;
    assert_eq!(a.claim(&scope("new")).await.err().unwrap().class, Class::Elsewhere);
    assert!(a.claim(&old).await.is_ok());
    cnc.drain("b", true).await.unwrap();
    let refused = cnc.resolve(&scope("newer"), CLIENT, None, None).await.unwrap_err();
    assert_eq!(refused.class, Class::Unavailable);
    assert!(refused.reason.contains("no node has room"), "{refused}");
    cnc.drain("a", false).await.unwrap();
    assert_eq!(resolve(&cnc, &scope("newer")).await, "a");
    drop(b);
}

#[tokio::test]
async fn the_region_of_a_client_comes_first_by_hint_and_by_address() {
    let host = Host::new();
    let _nodes = (host.node("a", "eu").await, host.node("b", "us").await);
    let region = config::Region { network: "192.0.2.0/24".into(), region: "us".into() };
    let cnc = host.process(config::Cluster { regions: vec![region], ..Default::default() });
    cnc.refresh().await;
    for at in 0..10 {
        assert_eq!(resolve(&cnc, &scope(&format!("address {at}"))).await, "b");
        let hinted = scope(&format!("hint {at}"));
        let node = cnc.resolve(&hinted, CLIENT, Some("eu"), None).await.unwrap();
        assert_eq!(node.name, "a");
    }
}

#[tokio::test]
async fn those_who_come_at_once_get_one_fence() {
    let host = Host::new();
    let a = host.node("a", "").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let a = Arc::clone(&a);
        tasks.spawn(async move {
            for _ in 0..20 {
                let claim = a.claim(&scope("lobby")).await.unwrap();
                tokio::task::yield_now().await;
                drop(claim);
                a.release_unused().await;
            }
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap();
    }
    assert_eq!(a.held(), 0);
    assert_eq!(host.local.sweep().await.unwrap(), 0, "nothing is left behind");
}

#[tokio::test]
async fn a_scope_is_given_back_for_a_node_that_is_dead_and_for_no_other() {
    let host = Host::new();
    let (a, b) = (host.node("a", "").await, host.node("b", "").await);
    let lobby = scope("lobby");
    let _claim = a.claim(&lobby).await.unwrap();
    let fence = a.fence_of(&lobby).unwrap();
    assert!(!b.release_for(&lobby, a.me(), fence).await.unwrap(), "its lease is not over");
    tokio::time::sleep(LEASE + YOUNG_PAUSE).await;
    assert!(!b.release_for(&lobby, a.me(), fence).await.unwrap(), "it is well");
    host.dies("a");
    // For as long as it was well a moment ago, that is believed.
    tokio::time::sleep(limits::HEALTH_AGE).await;
    assert!(b.release_for(&lobby, a.me(), fence).await.unwrap());
    b.announce().await.unwrap();
    let _claim = b.claim(&lobby).await.unwrap();
    assert!(b.release_for(&lobby, a.me(), fence).await.unwrap(), "and once more");
    let cnc = host.cnc().await;
    assert_eq!(resolve(&cnc, &lobby).await, "b", "which is another hold");
}
