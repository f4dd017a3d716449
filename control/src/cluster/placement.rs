//! Which node a new scope goes to.

use std::collections::HashSet;

use super::node::{Listed, Owner};

/// Chooses by the power of two choices: of two nodes that `random` picks, the one with more headroom.
/// Nodes of `region` come before others. `avoided` are nodes that were found dead before their lease
/// ended. None when no node has room.
pub fn choose<'a>(
    nodes: impl Iterator<Item = &'a Listed>,
    region: Option<&str>,
    avoided: &HashSet<Owner>,
    headroom: impl Fn(&Listed) -> i64,
    random: u64,
) -> Option<&'a Listed> {
    let has_room = |listed: &&Listed| listed.has_room() && !avoided.contains(&listed.node.owner());
    let (near, far): (Vec<_>, Vec<_>) =
        nodes.filter(has_room).partition(|listed| Some(listed.node.region.as_str()) == region);
    let candidates = if near.is_empty() { far } else { near };
    let count = candidates.len() as u64;
    let pick = |at: u64| candidates.get(usize::try_from(at).unwrap_or_default()).copied();
    let at = (random & u64::from(u32::MAX)).checked_rem(count)?;
    let first = pick(at)?;
    // Another one than the first, where there is one.
    let Some(step) = (random >> 32).checked_rem(count - 1) else { return Some(first) };
    let second = pick((at + 1 + step) % count)?;
    Some(if headroom(second) > headroom(first) { second } else { first })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::node::State;
    use super::super::table::tests::node;
    use super::*;

    fn listed(name: &str, region: &str, headroom: u32) -> Listed {
        let node = crate::cluster::Node { region: region.into(), headroom, ..node(name, "1") };
        Listed { node, is_alive: true, is_drained: false, age_ms: 0 }
    }

    /// A sequence that is the same in each run (splitmix64).
    fn randoms() -> impl Iterator<Item = u64> {
        (1_u64..).map(|n| {
            let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
    }

    fn spread(nodes: &[Listed], region: Option<&str>) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for random in randoms().take(3_000) {
            let headroom = |listed: &Listed| i64::from(listed.node.headroom);
            let chosen = choose(nodes.iter(), region, &HashSet::new(), headroom, random);
            *counts.entry(chosen.unwrap().node.name.clone()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn equal_nodes_get_equal_shares_and_the_fullest_gets_none() {
        let equal = ["a", "b", "c"].map(|name| listed(name, "", 500));
        assert!(spread(&equal, None).values().all(|count| (900..1_100).contains(count)));
        let unlike = [listed("a", "", 100), listed("b", "", 500), listed("c", "", 900)];
        let counts = spread(&unlike, None);
        assert_eq!(counts.get("a"), None);
        assert!(counts["c"] > 3 * counts["b"] / 2, "{counts:?}");
    }

    #[test]
    fn who_is_dead_full_or_drained_gets_none_and_the_region_comes_first() {
        let mut nodes = ["dead", "full", "draining", "drained", "suspect", "far", "near"]
            .map(|name| listed(name, if name == "near" { "eu" } else { "us" }, 900));
        nodes[0].is_alive = false;
        nodes[1].node.state = State::Full;
        nodes[2].node.state = State::Draining;
        nodes[3].is_drained = true;
        let avoided = HashSet::from([nodes[4].node.owner()]);
        for random in randoms().take(100) {
            let name = |region| {
                let chosen = choose(nodes.iter(), region, &avoided, |_| 0, random).unwrap();
                chosen.node.name.clone()
            };
            assert_eq!(name(Some("eu")), "near");
            assert_eq!(name(Some("us")), "far");
            assert!(["near", "far"].contains(&name(Some("asia")).as_str()));
        }
        assert!(choose(nodes[..4].iter(), None, &avoided, |_| 0, 7).is_none());
    }
}
