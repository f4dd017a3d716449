use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cluster::node::State;

pub(crate) fn node(name: &str, incarnation: &str) -> Node {
    Node {
        name: name.into(),
        incarnation: incarnation.into(),
        region: String::new(),
        host: format!("{name}.example"),
        port: 8443,
        secure: true,
        quic: None,
        state: State::Ready,
        headroom: 900,
        scopes: 0,
        peers: 0,
        version: String::new(),
        machine: None,
    }
}

fn ask(proposal: &Owner) -> Ask<'_> {
    Ask { proposal: Some(proposal), ..Ask::default() }
}

fn mapping(found: Found) -> Mapping {
    match found {
        Found::Owned(mapping) => mapping,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_scope_stays_on_its_node_and_its_fence_grows_when_it_moves() {
    let mut table = Table::default();
    let (a, b) = (node("a", "1"), node("b", "1"));
    let (at_a, at_b) = (a.owner(), b.owner());
    assert_eq!(table.locate(0, "s", ask(&at_a)), Found::Free, "nobody lives");
    table.announce(0, &a);
    table.announce(0, &b);
    let first = mapping(table.locate(1, "s", ask(&at_a)));
    assert_eq!(mapping(table.locate(2, "s", ask(&at_b))), first);
    // Its lease is over: only who found it dead may take it.
    table.announce(2_500, &b);
    assert_eq!(table.locate(2_500, "s", ask(&at_b)), Found::Stale(first.clone()));
    let given_up = Some(first.fence);
    let quiet = Ask { given_up, is_quiet: true, ..ask(&at_b) };
    assert_eq!(table.locate(2_500, "s", quiet), Found::Stale(first.clone()));
    let second = mapping(table.locate(2_500, "s", Ask { given_up, ..ask(&at_b) }));
    assert_eq!(second.owner, at_b);
    assert!(second.fence > first.fence);
    // What was said under the former fence is void.
    let again = Ask { given_up, ..ask(&at_a) };
    table.announce(2_600, &a);
    assert_eq!(mapping(table.locate(2_600, "s", again)), second);
    table.release("s", first.fence);
    assert_eq!(table.assert(2_600, &at_a, "s", first.fence), None);
    assert_eq!(mapping(table.locate(2_600, "s", ask(&at_a))), second);
    table.release("s", second.fence);
    assert_eq!(mapping(table.locate(2_600, "s", ask(&at_a))).owner, at_a);
}

#[test]
fn a_new_start_has_nothing_of_the_one_before() {
    let mut table = Table::default();
    let (old, new) = (node("a", "1"), node("a", "2"));
    table.announce(0, &old);
    let first = mapping(table.locate(0, "s", ask(&old.owner())));
    assert_eq!(table.announce(1_000, &new), None, "the name is taken");
    assert_eq!(table.announce(2_000, &new), Some(false));
    let second = mapping(table.locate(2_000, "s", ask(&new.owner())));
    assert!(second.owner.incarnation == "2" && second.fence > first.fence);
}

#[test]
fn a_clock_that_is_set_back_makes_no_partition_young_again() {
    let mut table = Table::born(30_000);
    let a = node("a", "1");
    table.announce(1_000, &a);
    assert!(matches!(table.locate(1_000, "s", ask(&a.owner())), Found::Owned(_)));
}

#[test]
fn an_older_copy_moves_nothing_before_all_said_what_they_hold() {
    let mut table = Table::default();
    let (a, b) = (node("a", "1"), node("b", "1"));
    table.announce(0, &a);
    table.announce(0, &b);
    mapping(table.locate(0, "old", Ask { holds: true, ..ask(&b.owner()) }));
    let mut copy = table.clone();
    table.release("old", 1);
    let newer = mapping(table.locate(1, "new", Ask { holds: true, ..ask(&a.owner()) }));
    let moved = mapping(table.locate(1, "old", Ask { holds: true, ..ask(&a.owner()) }));
    // It comes back as it was, and the first who was told of more than it knows says so.
    copy.remember(1_000, moved.fence);
    assert_eq!(copy.locate(1_000, "new", ask(&b.owner())), Found::Young);
    assert_eq!(copy.locate(1_000, "old", ask(&b.owner())), Found::Young, "it may be another's");
    copy.announce(1_400, &a);
    for one in [&newer, &moved] {
        let scope = if *one == newer { "new" } else { "old" };
        assert!(copy.assert(1_500, &a.owner(), scope, one.fence).is_some());
        assert_eq!(mapping(copy.locate(1_500, scope, ask(&b.owner()))).owner, a.owner());
    }
    copy.announce(3_000, &b);
    assert!(mapping(copy.locate(3_000, "third", ask(&b.owner()))).fence > moved.fence);
    let before = copy.clone();
    copy.remember(9_000, moved.fence);
    assert_eq!(format!("{copy:?}"), format!("{before:?}"), "what it knows changes nothing");
}

#[test]
fn what_is_forgotten_or_swept_was_nobodys_for_certain() {
    let mut table = Table::default();
    let (a, b) = (node("a", "1"), node("b", "1"));
    table.announce(0, &a);
    let promised = mapping(table.locate(0, "s", ask(&a.owner())));
    table.forget(1, "s");
    assert_eq!(table.locate(1, "s", Ask::default()), Found::Free);
    let copy_of = |table: &Table| Table { born: Some(1_000), ..table.clone() };
    let sent = mapping(table.locate(1, "s", ask(&a.owner())));
    assert!(sent.fence > promised.fence);
    let mut older = copy_of(&table);
    // Somebody came a moment before.
    let held = mapping(table.locate(2, "s", Ask { holds: true, ..ask(&a.owner()) }));
    table.forget(3, "s");
    assert_eq!(mapping(table.locate(3, "s", ask(&b.owner()))), held);
    // A copy of before does not know that, nor who lives.
    older.nodes.clear();
    older.forget(1_001, "s");
    assert_eq!(older.sweep(1_001), 0);
    assert_eq!(older.assert(1_002, &a.owner(), "s", held.fence), Some(held.fence));
    older.announce(1_003, &a);
    older.forget(1_004, "s");
    assert_eq!((older.sweep(1_004), older.count()), (0, 1));
    // Who says nothing until it is old is gone.
    let mut silent = copy_of(&table);
    silent.nodes.clear();
    assert_eq!((silent.sweep(2_999), silent.sweep(3_000)), (0, 1));
}

#[test]
fn its_own_owner_takes_another_fence_also_while_nothing_moves() {
    let mut table = Table::default();
    let (a, b) = (node("a", "1"), node("b", "1"));
    table.announce(0, &a);
    table.announce(0, &b);
    let first = mapping(table.locate(0, "s", ask(&a.owner())));
    let (given_up, is_quiet) = (Some(first.fence), true);
    let of_b = table.locate(1, "s", Ask { given_up, is_quiet, ..ask(&b.owner()) });
    assert_eq!(mapping(of_b), first);
    let renewed = mapping(table.locate(1, "s", Ask { given_up, is_quiet, ..ask(&a.owner()) }));
    assert!(renewed.owner == a.owner() && renewed.fence > first.fence);
    table.release("s", first.fence);
    assert_eq!(mapping(table.locate(2, "s", ask(&b.owner()))), renewed, "too late");
}

#[test]
fn what_a_partition_forgot_comes_back_from_who_holds_it() {
    let mut table = Table::born(0);
    let (a, b) = (node("a", "1"), node("b", "1"));
    table.announce(0, &a);
    table.announce(0, &b);
    assert_eq!(table.locate(10, "s", ask(&b.owner())), Found::Young);
    let fence = table.assert(500, &a.owner(), "s", 41).unwrap();
    assert!(fence > 41);
    assert_eq!(mapping(table.locate(600, "s", ask(&b.owner()))).owner, a.owner());
    table.announce(2_000, &b);
    assert!(mapping(table.locate(2_000, "t", ask(&b.owner()))).fence > fence);
}

#[test]
fn promises_that_nobody_came_for_are_forgotten_and_what_is_held_is_not() {
    let mut table = Table::default();
    let a = node("a", "1");
    table.announce(0, &a);
    let owner = a.owner();
    table.locate(0, "promised", ask(&owner));
    table.locate(0, "held", Ask { holds: true, ..ask(&owner) });
    assert_eq!(table.sweep(59_999), 0);
    assert_eq!((table.sweep(60_000), table.count()), (1, 1));
    table.bury(1_000, &owner);
    assert_eq!(table.sweep(60_000), 0, "it lived");
    table.bury(60_000, &owner);
    assert_eq!((table.sweep(60_000), table.count()), (1, 0));
}

#[test]
fn a_clock_that_is_set_back_keeps_nobody_alive() {
    let mut table = Table::default();
    table.announce(30_000, &node("a", "1"));
    assert!(!table.nodes(1_000)[0].is_alive);
    table.announce(1_000, &node("a", "1"));
    assert!(table.nodes(1_000)[0].is_alive);
}

/// What may happen in a cluster. Indices are taken round.
#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    /// A node that lives and is not cut off announces itself.
    Announce(usize),
    /// It is cut off from the partition, or no longer.
    CutOff(usize),
    Die(usize),
    Start(usize),
    /// A node lets a client in: it claims the scope before, unless it has it.
    Join(usize, usize),
    End(usize, usize),
    Assert(usize),
    /// A CnC looks whether the scope's owner is well, and keeps the answer.
    Look(usize, usize),
    /// It asks for the scope's node, with what it has seen, be it long ago.
    Resolve(usize, usize, usize),
    /// The partition loses all it has.
    Forget,
    /// It is copied; and it loses what it had since.
    Copy,
    ComeBack,
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let (n, s, c) = (0..4_usize, 0..3_usize, 0..3_usize);
    prop_oneof![
        4 => (1..900_u64).prop_map(Step::Pass),
        8 => n.clone().prop_map(Step::Announce),
        1 => n.clone().prop_map(Step::CutOff),
        1 => n.clone().prop_map(Step::Die),
        2 => n.clone().prop_map(Step::Start),
        6 => (n.clone(), s.clone()).prop_map(|(n, s)| Step::Join(n, s)),
        2 => (n.clone(), s.clone()).prop_map(|(n, s)| Step::End(n, s)),
        4 => n.clone().prop_map(Step::Assert),
        4 => (c.clone(), s.clone()).prop_map(|(c, s)| Step::Look(c, s)),
        6 => (c, s, n).prop_map(|(c, s, n)| Step::Resolve(c, s, n)),
        1 => Just(Step::Forget),
        2 => Just(Step::Copy),
        1 => Just(Step::ComeBack),
        2 => Just(Step::Sweep),
    ]
}

#[derive(Default)]
struct Process {
    start: u64,
    is_alive: bool,
    is_cut_off: bool,
    holds: BTreeMap<usize, u64>,
    /// The highest fence that it was told of.
    told: u64,
}

/// The cluster around a partition: nodes know what they hold, CnCs what they saw.
struct World {
    now: u64,
    table: Table,
    nodes: Vec<Process>,
    seen_dead: Vec<BTreeMap<usize, u64>>,
    copy: Option<Table>,
    forgot_at: Option<u64>,
    highest: BTreeMap<usize, u64>,
}

impl World {
    fn owner(&self, at: usize) -> Owner {
        Owner { node: format!("n{at}"), incarnation: self.nodes[at].start.to_string() }
    }

    fn lives(&self, owner: &Owner) -> bool {
        let found = (0..self.nodes.len()).find(|at| self.owner(*at) == *owner);
        found.is_some_and(|at| self.nodes[at].is_alive)
    }

    /// A partition that was away is quiet for a lease, as its clients make it.
    fn is_quiet(&self) -> bool {
        self.forgot_at.is_some_and(|at| self.now - at < 2_000)
    }

    fn assert_all(&mut self, at: usize) {
        let owner = self.owner(at);
        let (table, now) = (&mut self.table, self.now);
        self.nodes[at].holds.retain(|scope, fence| {
            let kept = table.assert(now, &owner, &scope.to_string(), *fence);
            kept.inspect(|new| *fence = *new).is_some()
        });
    }

    fn announce(&mut self, at: usize) -> bool {
        let node = node(&self.owner(at).node, &self.owner(at).incarnation);
        self.table.announce(self.now, &node).is_some()
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Pass(time) => {
                self.now += time;
                // Whoever can, says within a lease that it lives, and after a loss what it holds.
                for at in 0..self.nodes.len() {
                    if self.nodes[at].is_alive && !self.nodes[at].is_cut_off {
                        self.announce(at);
                        if self.is_quiet() {
                            self.assert_all(at);
                        }
                    }
                }
            }
            Step::Announce(at) => {
                if self.nodes[at].is_alive && !self.nodes[at].is_cut_off {
                    self.announce(at);
                }
            }
            Step::CutOff(at) => {
                // Who is cut off while the partition forgets cannot say what it holds. That is two
                // failures at once, which nobody is told about: left out.
                if self.forgot_at.is_none() {
                    self.nodes[at].is_cut_off ^= true;
                }
            }
            Step::Die(at) => {
                self.nodes[at].is_alive = false;
                self.nodes[at].holds.clear();
            }
            Step::Start(at) => {
                let node = &mut self.nodes[at];
                if !node.is_alive {
                    *node = Process { start: node.start + 1, is_alive: true, ..Process::default() };
                }
            }
            Step::Join(at, scope) => {
                let node = &self.nodes[at];
                if !node.is_alive || node.is_cut_off || node.holds.contains_key(&scope) {
                    return;
                }
                let owner = self.owner(at);
                let ask = Ask {
                    proposal: Some(&owner),
                    holds: true,
                    is_quiet: self.is_quiet(),
                    given_up: None,
                };
                if let Found::Owned(m) = self.table.locate(self.now, &scope.to_string(), ask)
                    && m.owner == owner
                {
                    self.nodes[at].holds.insert(scope, m.fence);
                }
            }
            Step::End(at, scope) => {
                if !self.nodes[at].is_cut_off
                    && let Some(fence) = self.nodes[at].holds.remove(&scope)
                {
                    self.table.release(&scope.to_string(), fence);
                }
            }
            Step::Assert(at) => {
                if self.nodes[at].is_alive && !self.nodes[at].is_cut_off {
                    self.assert_all(at);
                }
            }
            Step::Look(cnc, scope) => {
                let ask = Ask { is_quiet: self.is_quiet(), ..Ask::default() };
                if let Found::Owned(m) | Found::Stale(m) =
                    self.table.locate(self.now, &scope.to_string(), ask)
                    && !self.lives(&m.owner)
                {
                    self.seen_dead[cnc].insert(scope, m.fence);
                }
            }
            Step::Resolve(cnc, scope, at) => {
                // What it was told of comes with what it asks.
                let told = self.seen_dead[cnc].values().copied().max().unwrap_or_default();
                if told > self.table.fence {
                    self.table.remember(self.now, told);
                    self.forgot_at = Some(self.now);
                }
                let owner = self.owner(at);
                let ask = Ask {
                    proposal: Some(&owner),
                    holds: false,
                    given_up: self.seen_dead[cnc].get(&scope).copied(),
                    is_quiet: self.is_quiet(),
                };
                self.table.locate(self.now, &scope.to_string(), ask);
            }
            Step::Forget => {
                if self.nodes.iter().any(|node| node.is_cut_off) {
                    return;
                }
                self.table = Table::born(self.now);
                self.forgot_at = Some(self.now);
            }
            Step::Copy => self.copy = Some(self.table.clone()),
            Step::ComeBack => {
                // As above, and a node that has nothing knows of nothing that was lost.
                if self.nodes.iter().any(|node| node.is_cut_off) {
                    return;
                }
                let Some(copy) = self.copy.clone() else { return };
                self.table = copy;
                self.forgot_at = Some(self.now);
                // What those knew who are dead may come again.
                self.highest.clear();
                // Each says twice a second that it lives, and what it was told of comes with it.
                for at in 0..self.nodes.len() {
                    if self.nodes[at].is_alive {
                        self.table.remember(self.now, self.nodes[at].told);
                        self.announce(at);
                    }
                }
            }
            Step::Sweep => {
                if !self.is_quiet() {
                    self.table.sweep(self.now);
                }
            }
        }
        if self.forgot_at.is_some_and(|at| self.now - at >= 2_000) {
            self.forgot_at = None;
        }
    }

    fn check(&mut self) {
        for scope in 0..3 {
            let mut holders = Vec::new();
            for node in &mut self.nodes {
                if let Some(fence) = node.holds.get(&scope) {
                    node.told = node.told.max(*fence);
                    holders.push(*fence);
                }
            }
            assert!(holders.len() <= 1, "scope {scope} has {} owners", holders.len());
            // Of what nodes hold, no fence comes twice and none goes back.
            if let Some(fence) = holders.first() {
                let highest = self.highest.entry(scope).or_default();
                assert!(*fence >= *highest, "fence {fence} after {highest}");
                *highest = *fence;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn no_scope_ever_has_two_owners(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World {
            now: 10_000,
            table: Table::default(),
            nodes: (0..4).map(|_| Process { is_alive: true, ..Process::default() }).collect(),
            seen_dead: vec![BTreeMap::new(); 3],
            copy: None,
            forgot_at: None,
            highest: BTreeMap::new(),
        };
        for step in &steps {
            world.run(step);
            world.check();
        }
    }
}
