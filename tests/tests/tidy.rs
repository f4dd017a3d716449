//! House style that a machine can check; the rest is in CONTRIBUTING.md.
#![forbid(unsafe_code)]

use strait_tests::{files, text};

/// A file longer than this becomes the one that people fear.
const LINES_MAX: usize = 800;

/// Words that may not stay in Rust code, with what to do instead. Split so that this file passes its own test.
const BANNED: &[(&str, &str)] = &[
    (concat!("to", "do!("), "finish it, or return an error"),
    (concat!("unim", "plemented!("), "finish it, or return an error"),
    (concat!("db", "g!("), "use tracing, or take it out"),
    (concat!("FIX", "ME"), "fix it, or write an issue"),
    (concat!("XX", "X:"), "fix it, or write an issue"),
    (concat!("#[allow(dead", "_code)]"), "take the dead code out"),
];

/// Paths of one machine have no place in the tree.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/home/", "user"),
    concat!("\"resol", "ved\""),
];

const SOURCES: &[&str] = &[".rs", ".ts", ".js", ".mjs", ".py", ".sh", ".proto", ".css", ".html"];
const TEXTS: &[&str] = &[
    ".rs", ".ts", ".js", ".mjs", ".py", ".sh", ".proto", ".css", ".html", ".md", ".toml", ".json",
    ".service", ".conf", "dev", "run",
];

#[test]
fn files_stay_readable() {
    let long: Vec<String> = files(".", SOURCES)
        .into_iter()
        .filter_map(|path| {
            let lines = text(&path).lines().count();
            (lines > LINES_MAX).then(|| format!("{} has {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "split these by noun (at most {LINES_MAX} lines): {long:#?}");
}

#[test]
fn nothing_is_left_half_done() {
    for path in files(".", &[".rs"]) {
        for (number, line) in text(&path).lines().enumerate() {
            for (word, instead) in BANNED {
                let place = format!("{}:{}", path.display(), number + 1);
                assert!(!line.contains(word), "{place}: '{word}': {instead}");
            }
        }
    }
}

#[test]
fn no_paths_of_one_machine() {
    for path in files(".", TEXTS) {
        for (number, line) in text(&path).lines().enumerate() {
            for machine in MACHINE_PATHS {
                let place = format!("{}:{}", path.display(), number + 1);
                assert!(!line.contains(machine), "{place}: '{machine}' is of one machine only");
            }
        }
    }
}

/// An ignored test that does not say why is a test that nobody will run again.
#[test]
fn ignored_tests_say_why() {
    for path in files(".", &[".rs"]) {
        for (number, line) in text(&path).lines().enumerate() {
            let place = format!("{}:{}", path.display(), number + 1);
            assert!(line.trim() != concat!("#[ig", "nore]"), "{place}: write the reason");
        }
    }
}

#[test]
fn scripts_are_executable() {
    use std::os::unix::fs::PermissionsExt as _;
    for script in ["dev", ".ci/run"] {
        let path = strait_tests::root().join(script);
        let mode = std::fs::metadata(&path).expect(script).permissions().mode();
        assert!(mode & 0o111 != 0, "{script} is not executable");
    }
}
