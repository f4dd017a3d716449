//! What is watched is there: each metric of the alert rules and of the board is documented.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use strait_tests::{files, text};

const RULES: &str = "tools/packaging/monitoring/strait.rules.yml";
const BOARD: &str = "tools/packaging/monitoring/strait-board.json";

/// Names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_name(c));
    let prefixes = ["relay_", "control_"];
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).collect()
}

#[test]
fn every_metric_that_is_watched_is_documented() {
    let docs: Vec<String> = files("docs", &[".md"]).iter().map(text).collect();
    let known: BTreeSet<&str> = docs.iter().flat_map(|text| metrics(text)).collect();
    for file in [RULES, BOARD] {
        let text = text(file);
        let watched = metrics(&text);
        assert!(watched.len() > 10, "{file}: {watched:?}");
        for name in watched {
            // A histogram's parts carry its name.
            assert!(known.contains(name.trim_end_matches("_bucket")), "{file}: {name}");
        }
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let rules = text(RULES);
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 5);
    for alert in alerts {
        for part in ["expr:", "severity:", "summary:", "do:"] {
            assert!(alert.contains(part), "{part} in {alert}");
        }
    }
}

#[test]
fn every_panel_of_the_board_asks_and_explains() {
    let board: serde_json::Value = serde_json::from_str(&text(BOARD)).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(targets.iter().all(|target| !target["expr"].as_str().unwrap_or("").is_empty()));
        assert!(!panel["description"].as_str().unwrap_or("").is_empty(), "{}", panel["title"]);
    }
}
