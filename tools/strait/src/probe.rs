//! `strait probe`: a call from outside on every node, again and again, and a word to whoever is
//! called when one fails.

mod call;
mod verdict;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;
use strait_client::Trust;

use crate::fault::Fault;
use crate::http::{self, Url};
use call::{Call, Outcome};
use verdict::{Change, Verdicts};
use webhook::Webhook;

/// Whom to call, and whom to tell.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A node to call; may be given several times. Without one, those that --api lists
    #[arg(long = "node", value_name = "HOST:PORT", value_parser = strait_load::host_and_port)]
    nodes: Vec<(String, u16)>,
    /// The API of a strait-control: its list of nodes is called, and it is told how the calls went
    #[arg(long, value_name = "URL")]
    api: Option<Url>,
    /// Operator token for the API
    #[arg(long, value_name = "TOKEN", env = "STRAIT_OPERATOR_TOKEN", hide_env_values = true)]
    operator_token: Option<String>,
    /// What the two peers of a call are let in by
    #[arg(long, value_name = "TOKEN", default_value = "dev", env = "STRAIT_TOKEN")]
    token: String,
    /// PEM file with the nodes' certificates or their CA's [default: whom the system trusts]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Scope of a call: the node's name or address is added
    #[arg(long, value_name = "NAME", default_value = "strait-probe")]
    scope: String,
    /// Seconds between two rounds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = crate::load::seconds)]
    interval: Duration,
    /// Calls of a node that fail one after the other before that is told
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    failures: u32,
    /// Where to tell that a node fails, or works again: a POST of JSON
    #[arg(long, value_name = "URL", requires = "webhook_secret")]
    webhook: Option<Url>,
    /// What signs it: `Strait-Signature: t=TIME,v1=HEX`, HMAC-SHA-256 over TIME, a dot, and the body
    #[arg(long, value_name = "SECRET", env = "STRAIT_WEBHOOK_SECRET", hide_env_values = true)]
    webhook_secret: Option<String>,
    /// One round, then end: the exit code is 1 when a call failed
    #[arg(long)]
    once: bool,
}

/// A node to call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    name: String,
    host: String,
    port: u16,
}

/// Calls until it is stopped, or once.
pub fn run(options: &Options) -> Result<ExitCode, Fault> {
    if options.nodes.is_empty() && options.api.is_none() {
        return Err(Fault::config("nobody to call; give --node HOST:PORT, or --api URL"));
    }
    if options.nodes.is_empty() && options.operator_token.is_none() {
        return Err(Fault::config("the list of nodes is for operators; give --operator-token"));
    }
    let trust = options.ca_file.clone().map_or(Trust::System, Trust::CaFile);
    let webhook = options.webhook.clone().zip(options.webhook_secret.clone());
    let webhook = webhook.map(|(url, secret)| Webhook::new(url, &secret, &trust));
    let mut verdicts = Verdicts::new(options.failures);
    // The first list must come, or the options are wrong.
    let mut known = targets(options, &trust)?;
    loop {
        let next = Instant::now() + options.interval;
        let targets = match targets(options, &trust) {
            Ok(listed) => with_failing(listed, &known, &verdicts),
            Err(fault) => {
                eprintln!("the nodes of before are called: {}", fault.message);
                known.clone()
            }
        };
        known.clone_from(&targets);
        let outcomes = round(options, &trust, &targets);
        let judged = || targets.iter().zip(&outcomes);
        // A webhook that does not answer holds up no word of another node.
        std::thread::scope(|scope| {
            for (target, outcome) in judged() {
                println!("{} {:20} {outcome}", unix_now(), target.name);
                let Some(is_good) = outcome.verdict() else { continue };
                if let Some(change) = verdicts.note(&target.name, is_good, unix_now()) {
                    let webhook = webhook.as_ref();
                    scope.spawn(move || tell(webhook, target, outcome, change));
                }
            }
        });
        if options.once {
            let is_well = outcomes.iter().all(|outcome| outcome.verdict() != Some(false));
            let is_well = is_well && !outcomes.is_empty();
            return Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Those that are listed, and those that fail and are listed no more: a node that died leaves the
/// list, and that it is gone is to be told.
fn with_failing(mut listed: Vec<Target>, known: &[Target], verdicts: &Verdicts) -> Vec<Target> {
    let is_missing = |target: &&Target| {
        verdicts.fails(&target.name) && !listed.iter().any(|other| other.name == target.name)
    };
    let missing: Vec<_> = known.iter().filter(is_missing).cloned().collect();
    listed.extend(missing);
    listed
}

/// Calls all at once, and tells the API: one that hangs holds up no other.
fn round(options: &Options, trust: &Trust, targets: &[Target]) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = targets
            .iter()
            .map(|target| {
                let call = Call {
                    host: target.host.clone(),
                    port: target.port,
                    scope: format!("{}-{}", options.scope, target.name),
                    token: options.token.clone(),
                    trust: trust.clone(),
                };
                scope.spawn(move || {
                    let outcome = call.make();
                    tell_api(options, trust, target, &outcome);
                    outcome
                })
            })
            .collect();
        let panicked = || Outcome::Failed("this program failed".into());
        calls.into_iter().map(|call| call.join().unwrap_or_else(|_| panicked())).collect()
    })
}

/// Who is to be called. Nodes that drain or are full send others away by design, and are left out.
fn targets(options: &Options, trust: &Trust) -> Result<Vec<Target>, Fault> {
    let named = options.nodes.iter().map(|(host, port)| Target {
        name: format!("{host}:{port}"),
        host: host.clone(),
        port: *port,
    });
    let named: Vec<_> = named.collect();
    let Some(api) = options.api.as_ref().filter(|_| named.is_empty()) else { return Ok(named) };
    let answer = ask(options, api, trust, "GET", "/api/v1/nodes", "")?;
    let wrong = || Fault::new("the API's list of nodes is of another version");
    let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|_| wrong())?;
    let items = answer.get("items").and_then(serde_json::Value::as_array).ok_or_else(wrong)?;
    let text = |item: &serde_json::Value, key: &str| {
        item.get(key).and_then(serde_json::Value::as_str).map(str::to_owned)
    };
    let is_wanted = |item: &&serde_json::Value| {
        !matches!(text(item, "state").as_deref(), Some("draining" | "full"))
    };
    items
        .iter()
        .filter(is_wanted)
        .map(|item| {
            let (name, endpoint) =
                text(item, "node").zip(text(item, "address")).ok_or_else(wrong)?;
            let (host, port) = strait_load::host_and_port(&endpoint).map_err(|_| wrong())?;
            Ok(Target { name, host, port })
        })
        .collect()
}

fn ask(
    options: &Options,
    api: &Url,
    trust: &Trust,
    method: &str,
    path: &str,
    body: &str,
) -> Result<String, Fault> {
    let tls = trust.config(b"http/1.1").map_err(|error| Fault::new(error.to_string()))?;
    let token = options.operator_token.as_deref().unwrap_or_default();
    let headers =
        [format!("Authorization: Bearer {token}"), "Content-Type: application/json".to_owned()];
    match http::send(&api.with_path(path), method, &headers, body, Some(tls)) {
        Ok((200..=299, body)) => Ok(body),
        Ok((status, body)) => {
            Err(Fault::new(format!("{method} {path}: {status}: {}", body.trim())))
        }
        Err(error) => Err(Fault::new(format!("{method} {path}: {error}; is --api right?"))),
    }
}

/// What the availability is made of. That it cannot be noted stops no call.
fn tell_api(options: &Options, trust: &Trust, target: &Target, outcome: &Outcome) {
    let Some((api, is_good)) = options.api.as_ref().zip(outcome.verdict()) else { return };
    let reason = (!is_good).then(|| outcome.to_string());
    let body = json!({ "node": target.name, "ok": is_good, "reason": reason });
    if let Err(fault) = ask(options, api, trust, "POST", "/api/v1/probes", &body.to_string()) {
        eprintln!("not noted: {}", fault.message);
    }
}

fn tell(webhook: Option<&Webhook>, target: &Target, outcome: &Outcome, change: Change) {
    let (event, since) = match change {
        Change::Fails { since } => ("node_fails", since),
        Change::Works { since } => ("node_works", since),
    };
    let body = json!({
        "event": event,
        "node": target.name,
        "endpoint": format!("{}:{}", target.host, target.port),
        "since": since,
        "told": unix_now(),
        "what": outcome.to_string(),
    });
    eprintln!("{event}: {} since {since}: {outcome}", target.name);
    if let Some(webhook) = webhook
        && let Err(error) = webhook.tell(&body.to_string(), unix_now())
    {
        eprintln!("the webhook was not told: {error}");
    }
}

/// Seconds since 1970.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
