//! The direction of dependency, as ARCHITECTURE.md draws it, read from `cargo metadata`.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use strait_tests::{files, root, text};

/// Which crates of the workspace each crate that ships may know. Leaves are not listed: they may know all.
const ARROWS: &[(&str, &[&str])] = &[
    ("strait-wire", &[]),
    ("strait-crypt", &["strait-wire"]),
    ("strait-core", &["strait-wire", "strait-crypt"]),
    ("strait-io", &["strait-wire", "strait-crypt", "strait-core"]),
    ("strait-relay", &["strait-wire", "strait-crypt", "strait-core", "strait-io", "strait-proto"]),
    ("strait-proto", &[]),
    ("strait-link", &[]),
    ("strait-control", &["strait-proto", "strait-link"]),
    ("strait-lab", &[]),
    ("strait-sim", &["strait-wire", "strait-crypt", "strait-core", "strait-lab"]),
];

/// Which crates a crate may know for its tests alone.
const TESTED_WITH: &[(&str, &[&str])] =
    &[("strait-core", &["strait-lab"]), ("strait-sim", &["strait-client", "strait-link"])];

/// Leaves may know everything; nothing that ships may know them.
const LEAVES: &[&str] = &[
    "strait-benches",
    "strait-instructions",
    "strait-tests",
    "strait-cli",
    "strait-figures",
    "strait-load",
    "strait-compare",
    "strait-client",
    "strait-client-c",
];

/// The whole list of foreign crates that the sans-IO crates and the sockets may use. A new name here is a decision.
const FOREIGN: &[(&str, &[&str])] = &[
    ("strait-wire", &[]),
    ("strait-crypt", &["aws-lc-rs", "dimpl", "thiserror"]),
    ("strait-core", &["thiserror"]),
    ("strait-io", &["aya", "io-uring", "libc", "thiserror"]),
];

/// What may not be reached from core, even through others: runtimes, sockets, shared state, other crypto stacks.
const UNREACHABLE_FROM_CORE: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "io-uring",
    "crossbeam-queue",
    "parking_lot",
    "arc-swap",
    "bytes",
    "ring",
    "openssl-sys",
    "native-tls",
];

/// Where `unsafe` may be written (DESIGN: I/O, the libsrtp backend, steering, sandboxing; and the client's C interface, whose
/// arguments are pointers).
const UNSAFE_ALLOWED: &[&str] = &[
    "dataplane/io/",
    "ebpf/",
    "dataplane/crypt/src/libsrtp.rs",
    "tests/tests/srtp_libsrtp.rs",
    "tests/tests/alloc.rs",
    "benches/benches/srtp.rs",
    "dataplane/src/steer.rs",
    "dataplane/src/sandbox.rs",
    "tools/client/c/src/lib.rs",
];

/// Crates that cannot forbid `unsafe` at their root, because one of the places above is theirs.
const MAY_HOLD_UNSAFE: &[&str] = &["strait-io", "strait-relay"];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .current_dir(root())
        .other_options(vec!["--locked".into(), "--offline".into()])
        .exec()
        .expect("cargo metadata (offline; the tree was built before)")
}

fn members(metadata: &Metadata) -> BTreeMap<String, Package> {
    let packages = metadata.workspace_packages();
    packages.into_iter().map(|p| (p.name.to_string(), p.clone())).collect()
}

#[test]
fn every_crate_has_its_place() {
    let known: BTreeSet<&str> =
        ARROWS.iter().map(|(name, _)| *name).chain(LEAVES.iter().copied()).collect();
    for name in members(&metadata()).keys() {
        assert!(known.contains(name.as_str()), "{name} is in the workspace, but not in ARROWS");
    }
}

#[test]
fn arrows_run_one_way() {
    let metadata = metadata();
    let members = members(&metadata);
    for (name, allowed) in ARROWS {
        for dependency in &members[*name].dependencies {
            let target = dependency.name.as_str();
            if !members.contains_key(target) {
                continue;
            }
            // A crate may test itself with what lies below it, core with the lab, which knows nothing, and the simulator with the
            // client, which is a leaf and runs in it.
            let tests = dependency.kind == DependencyKind::Development
                && TESTED_WITH.iter().any(|(of, with)| of == name && with.contains(&target));
            assert!(
                allowed.contains(&target) || tests,
                "{name} depends on {target} ({:?}): the arrow runs the wrong way",
                dependency.kind
            );
        }
    }
}

#[test]
fn sans_io_crates_use_only_what_is_listed() {
    let metadata = metadata();
    let members = members(&metadata);
    for (name, allowed) in FOREIGN {
        for dependency in &members[*name].dependencies {
            let target = dependency.name.as_str();
            if dependency.kind == DependencyKind::Development || members.contains_key(target) {
                continue;
            }
            assert!(
                allowed.contains(&target),
                "{name} depends on {target}, which FOREIGN does not list"
            );
        }
    }
}

#[test]
fn nothing_reaches_the_world_from_core() {
    let metadata = metadata();
    let core = &members(&metadata)["strait-core"].id;
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|n| (&n.id, n)).collect();
    let (mut seen, mut open) = (BTreeSet::from([core]), vec![core]);
    while let Some(id) = open.pop() {
        for next in &nodes[id].deps {
            let shipped = next.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
            if shipped && seen.insert(&next.pkg) {
                open.push(&next.pkg);
            }
        }
    }
    for package in metadata.packages.iter().filter(|p| seen.contains(&p.id)) {
        assert!(
            !UNREACHABLE_FROM_CORE.contains(&package.name.as_str()),
            "strait-core reaches {}",
            package.name
        );
    }
}

#[test]
fn the_two_planes_meet_only_in_proto() {
    let metadata = metadata();
    let members = members(&metadata);
    let knows = |from: &str, to: &str| members[from].dependencies.iter().any(|d| d.name == to);
    assert!(!knows("strait-control", "strait-relay") && !knows("strait-relay", "strait-control"));
    assert!(knows("strait-control", "strait-proto") && knows("strait-relay", "strait-proto"));
}

#[test]
fn unsafe_stays_where_it_is_allowed() {
    for path in files(".", &[".rs"]) {
        let name = path.to_string_lossy();
        if UNSAFE_ALLOWED.iter().any(|allowed| name.starts_with(allowed)) {
            continue;
        }
        for (number, line) in text(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            let used =
                words.clone().any(|word| word == concat!("un", "safe")) && !code.contains('"');
            assert!(!used, "{name}:{}: this file may not hold that keyword: {line}", number + 1);
        }
    }
}

#[test]
fn the_others_forbid_it_at_their_roots() {
    let metadata = metadata();
    for package in members(&metadata).values() {
        if MAY_HOLD_UNSAFE.contains(&package.name.as_str()) {
            continue;
        }
        for target in package.targets.iter().filter(|t| t.is_lib() || t.is_bin()) {
            let path = target.src_path.as_std_path();
            let name = path.strip_prefix(root()).unwrap_or(path).to_string_lossy();
            if UNSAFE_ALLOWED.iter().any(|allowed| name.starts_with(allowed)) {
                continue;
            }
            let source = std::fs::read_to_string(path).expect("a target's source");
            assert!(
                source.contains("#![forbid(unsafe_code)]"),
                "{}: write #![forbid(unsafe_code)] at its top",
                path.strip_prefix(root()).unwrap_or(path).display()
            );
        }
    }
}

/// ARCHITECTURE.md tells a new reader where to look; what it names must be there.
#[test]
fn the_map_is_true() {
    let map = text("ARCHITECTURE.md");
    for (number, line) in map.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let (path, item) = quoted.split_once("::").unwrap_or((quoted, ""));
            if !path.contains('/') || path.contains([' ', '{', '*', '<']) || path.starts_with('/') {
                continue;
            }
            let place = root().join(path);
            assert!(place.exists(), "ARCHITECTURE.md:{}: {path} does not exist", number + 1);
            if !item.is_empty() {
                let item = item.rsplit("::").next().unwrap_or(item).trim_end_matches("()");
                let source = text(path);
                let declared = ["fn", "struct", "enum", "trait", "service", "message", "rpc"]
                    .iter()
                    .any(|word| source.contains(&format!("{word} {item}")));
                assert!(declared, "ARCHITECTURE.md:{}: {path} declares no {item}", number + 1);
            }
        }
    }
    for question in
        ["comes in", "goes out", "layer is chosen", "call is signalled", "scope is placed"]
    {
        assert!(map.contains(question), "ARCHITECTURE.md does not say where a … {question}");
    }
}
