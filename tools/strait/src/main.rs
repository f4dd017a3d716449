//! `strait`: what a person types.
#![forbid(unsafe_code)]

mod app;
mod cluster;
mod configuration;
mod dev;
mod doctor;
mod fault;
mod http;
mod lab;
mod load;
mod ports;
mod probe;
mod state;
mod token;
mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::fault::Fault;

/// Strait, a relay for real-time media: start it, watch it, check the host, make tokens, load it.
#[derive(Parser)]
#[command(name = "strait", version = strait_proto::version!(), arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start relay, control and the page on this machine, for trying and for development.
    Dev(dev::Options),
    /// Start several nodes with Redis and MariaDB on this machine, and let parts of them die.
    Cluster(cluster::Options),
    /// Call every node from outside, again and again, and tell when one fails.
    Probe(probe::Options),
    /// Show what a relay does: its workers, what it drops, its scopes, peers and streams.
    Top(top::Options),
    /// Say whether this host is fit, and what to do where it is not.
    Doctor(doctor::Options),
    /// Print default configurations, check files.
    Config(configuration::Options),
    /// Say which applications' users may come in, and with which keys.
    App(app::Options),
    /// Sign a token for a user of an application.
    Token(token::Options),
    /// Drive a relay with publishers and subscribers, and check every packet.
    Load(Box<load::Options>),
    /// Stand between UDP clients and a server as a bad line: delay, rate, loss.
    Lab(lab::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Dev(options) => dev::run(options),
        Verb::Cluster(options) => cluster::run(options),
        Verb::Probe(options) => probe::run(&options),
        Verb::Top(options) => top::run(&options),
        Verb::Doctor(options) => doctor::run(&options),
        Verb::Config(options) => configuration::run(&options),
        Verb::App(options) => app::run(&options),
        Verb::Token(options) => token::run(&options),
        Verb::Load(options) => load::run(&options),
        Verb::Lab(options) => lab::run(&options),
    };
    match outcome {
        Ok(code) => code,
        Err(Fault { message, code }) => {
            eprintln!("error: {message}");
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The words of a line of documentation, as a shell would have them: quotes, a comment, the end
    /// of a redirection; what another command would fill in is a number.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut is_quoted = false;
        let mut rest = line.chars();
        while let Some(next) = rest.next() {
            match next {
                '"' => is_quoted = !is_quoted,
                '#' | '>' if !is_quoted => break,
                '$' => {
                    let _command = rest.by_ref().find(|&c| c == ')');
                    words.last_mut().expect("one").push('7');
                }
                ' ' if !is_quoted => words.push(String::new()),
                other => words.last_mut().expect("one").push(other),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_line_of_the_documentation_is_understood() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut lines = 0;
        for folder in [".", "docs", "docs/reference", "tools/packaging"] {
            for file in std::fs::read_dir(root.join(folder)).expect("a folder") {
                let file = file.expect("a file").path();
                if file.extension().is_none_or(|extension| extension != "md") {
                    continue;
                }
                let text = std::fs::read_to_string(&file).expect("text");
                for line in text.lines().filter(|line| line.trim_start().starts_with("strait ")) {
                    lines += 1;
                    let parsed = Arguments::try_parse_from(words(line.trim_start()));
                    let told = parsed.err().map(|error| error.to_string()).unwrap_or_default();
                    assert!(told.is_empty(), "{}: {line}\n{told}", file.display());
                }
            }
        }
        assert!(lines > 10, "{lines} lines were found");
    }
}
