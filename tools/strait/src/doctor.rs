//! `strait doctor`: is this host fit, and what to do where it is not.

mod host;
mod kernel;
mod limits;
mod network;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::fault::{EXIT_ERROR, Fault};

/// What to look at.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Print a JSON array of {"name", "state", "found", "remedy"}
    #[arg(long)]
    json: bool,
    /// Port of media that is meant to be used (UDP and TCP)
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    media_port: u16,
    /// Port of HTTPS that is meant to be used (TCP)
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https_port: u16,
    /// Port of HTTP that is meant to be used (TCP)
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,
}

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, with less.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing needs to be done.
    pub remedy: String,
}

impl Finding {
    /// As it should be.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), remedy: String::new() }
    }

    /// It works, with less: what to do about it.
    pub fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, state: State::Warn, found: found.into(), remedy: remedy.into() }
    }

    /// It does not work: what to do about it.
    pub fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, state: State::Fail, found: found.into(), remedy: remedy.into() }
    }
}

/// Looks at everything, prints it, and fails if anything does not work.
pub fn run(options: &Options) -> Result<ExitCode, Fault> {
    let mut findings = kernel::look();
    findings.extend(limits::look());
    findings.extend(host::look());
    findings.extend(network::look(options.media_port, options.https_port, options.http_port));
    if options.json {
        let text = serde_json::to_string_pretty(&findings)
            .map_err(|e| Fault::new(format!("cannot write JSON: {e}")))?;
        println!("{text}");
    } else {
        print!("{}", table(&findings));
    }
    let failed = findings.iter().any(|finding| finding.state == State::Fail);
    Ok(if failed { ExitCode::from(EXIT_ERROR) } else { ExitCode::SUCCESS })
}

fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for Finding { name, state, found, remedy } in findings {
        let state = match state {
            State::Ok => "OK  ",
            State::Warn => "WARN",
            State::Fail => "FAIL",
        };
        text.push_str(&format!("{state}  {name:width$}  {found}\n"));
        if !remedy.is_empty() {
            text.push_str(&format!("{:indent$}remedy: {remedy}\n", "", indent = width + 8));
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (warned, failed) = (count(State::Warn), count(State::Fail));
    text.push_str(&match (failed, warned) {
        (0, 0) => "\nThis host is fit.\n".to_owned(),
        (0, _) => format!("\nThis host is fit, with {warned} warning(s).\n"),
        _ => format!("\nThis host is not fit: {failed} failure(s), {warned} warning(s).\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ok_has_a_remedy() {
        let mut findings = kernel::look();
        findings.extend(limits::look());
        findings.extend(host::look());
        findings.extend(network::look(0, 0, 0));
        assert!(findings.len() > 10);
        for finding in findings {
            assert_eq!(finding.state == State::Ok, finding.remedy.is_empty(), "{finding:?}");
            assert!(!finding.found.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn the_table_ends_with_the_verdict() {
        let findings = [Finding::ok("a", "good"), Finding::fail("longer", "bad", "mend it")];
        let text = table(&findings);
        assert!(text.contains("FAIL  longer  bad\n              remedy: mend it\n"), "{text}");
        assert!(text.ends_with("not fit: 1 failure(s), 0 warning(s).\n"), "{text}");
        assert!(table(&findings[..1]).ends_with("This host is fit.\n"));
    }

    #[test]
    fn states_are_written_in_capitals() {
        let json = serde_json::to_string(&Finding::warn("n", "f", "r")).expect("JSON");
        assert_eq!(json, r#"{"name":"n","state":"WARN","found":"f","remedy":"r"}"#);
    }
}
