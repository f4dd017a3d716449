//! docs/features.md is kept true: every row has a state, and what works names the test that shows it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use strait_tests::{root, text};

/// The rows that were asked for: area and last number.
const AREAS: &[(&str, u32)] = &[
    ("S", 17),
    ("T", 11),
    ("Q", 4),
    ("L", 6),
    ("C", 9),
    ("A", 3),
    ("R", 4),
    ("J", 12),
    ("G", 4),
    ("W", 7),
    ("B", 14),
];
/// The platform's rows are lettered.
const PLATFORM: std::ops::RangeInclusive<char> = 'A'..='U';

struct Row {
    state: String,
    shown_by: String,
}

fn asked_for() -> Vec<String> {
    let numbered =
        AREAS.iter().flat_map(|(area, last)| (1..=*last).map(move |n| format!("{area}-{n:02}")));
    numbered.chain(PLATFORM.map(|letter| format!("P-{letter}"))).collect()
}

fn rows() -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for line in text("docs/features.md").lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [id, _feature, state, shown_by] = cells[..]
            && asked_for().iter().any(|known| known == id)
        {
            let row = Row { state: state.to_owned(), shown_by: shown_by.to_owned() };
            assert!(rows.insert(id.to_owned(), row).is_none(), "{id} has two rows");
        }
    }
    rows
}

/// `path::name` or `path` in backticks: the file exists and holds the name.
fn assert_test_exists(id: &str, quoted: &str) {
    let (path, name) = quoted.split_once("::").unwrap_or((quoted, ""));
    assert!(root().join(path).is_file(), "{id}: {path} does not exist");
    let name = name.rsplit("::").next().unwrap_or(name);
    assert!(text(path).contains(name), "{id}: {path} holds no test '{name}'");
}

#[test]
fn every_row_has_a_state() {
    let rows = rows();
    for id in asked_for() {
        let row = rows.get(&id).unwrap_or_else(|| panic!("docs/features.md has no row {id}"));
        assert!(
            ["works", "partly", "not yet"].contains(&row.state.as_str()),
            "{id}: the state is 'works', 'partly' or 'not yet', not '{}'",
            row.state
        );
    }
}

#[test]
fn what_works_names_its_test() {
    for (id, row) in rows() {
        let quoted: Vec<&str> = row.shown_by.split('`').skip(1).step_by(2).collect();
        let tests: Vec<&str> =
            quoted.into_iter().filter(|q| q.contains('/') && q.contains('.')).collect();
        if row.state == "works" {
            assert!(!tests.is_empty(), "{id} works: name the test that shows it");
        }
        if row.state == "partly" {
            assert!(row.shown_by.contains("lacks"), "{id} works partly: say what it lacks");
        }
        for test in tests {
            assert_test_exists(&id, test);
        }
    }
}

/// A figure that docs/specification.md promises is one that `./dev figures` measures.
#[test]
fn promised_figures_are_measured() {
    let specification = text("docs/specification.md");
    let measured: String =
        strait_tests::files("tools/figures/src", &[".rs"]).iter().map(text).collect();
    let mut promised = 0;
    for line in specification.lines().filter(|line| line.starts_with("| `")) {
        let name = line.split('`').nth(1).unwrap_or_default();
        assert!(measured.contains(&format!("\"{name}\"")), "nothing measures the figure '{name}'");
        promised += 1;
    }
    assert!(promised > 0, "docs/specification.md promises nothing");
}
