//! `strait cluster status` and `drain`: how the parts are, asked of themselves.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use serde::Serialize;

use super::layout::SERVERS;
use super::machine::Machine;
use super::part::{self, Part, Ready};
use super::wire;
use crate::fault::Fault;

/// One part, as it is now.
#[derive(Serialize)]
struct Line {
    part: String,
    pid: Option<u32>,
    address: String,
    state: String,
}

/// Says how everything is. The exit code is 1 where something does not run.
pub fn run(machine: &Machine, as_json: bool) -> Result<ExitCode, Fault> {
    let parts = part::all(&machine.layout);
    let lines: Vec<Line> = parts.iter().map(|part| line(machine, part)).collect();
    let is_well = lines.iter().all(|line| line.pid.is_some());
    let nodes = nodes(machine);
    let page = if as_json {
        let whole = serde_json::json!({
            "folder": machine.layout.folder,
            "operator_token": machine.layout.operator_token,
            "parts": lines,
            "nodes": nodes.ok(),
        });
        format!("{whole:#}\n")
    } else {
        let mut page = String::new();
        for Line { part, pid, address, state } in &lines {
            let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            page += &format!("{part:13} {pid:>8}  {address:21}  {state}\n");
        }
        page + &match nodes {
            Ok(nodes) => format!("\n{}", table(&nodes)),
            Err(fault) => format!("\nno node answers: {}\n", fault.message),
        }
    };
    // Who reads no further, such as `head`, has seen enough.
    let _enough = std::io::stdout().write_all(page.as_bytes());
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(crate::fault::EXIT_ERROR) })
}

/// Tells a node to take no further scopes, or to take some again.
pub fn drain(machine: &Machine, node: &str, undo: bool) -> Result<(), Fault> {
    if machine.layout.node(node).is_none() {
        let names: Vec<_> = machine.layout.nodes.iter().map(|node| node.name()).collect();
        return Err(Fault::new(format!("there is no {node}; there are: {}", names.join(", "))));
    }
    let verb = if undo { "undrain" } else { "drain" };
    ask(machine, "POST", &format!("/api/v1/nodes/{node}/{verb}"))?;
    match undo {
        true => println!("{node} takes scopes again"),
        false => println!("{node} takes no further scopes; those that it has go on"),
    }
    Ok(())
}

fn line(machine: &Machine, part: &Part) -> Line {
    let process = machine.process(&part.name);
    let (address, answers) = match &part.ready {
        Ready::Redis(at) => (at.to_string(), redis(*at)),
        Ready::Listens(at) => (at.to_string(), Ok("listens".to_owned())),
        Ready::Http(at) => (at.to_string(), http(*at)),
        Ready::File(_) => (String::new(), Ok("runs".to_owned())),
    };
    let state = match (process, answers) {
        (None, _) => "does not run".to_owned(),
        (Some(_), Ok(state)) => state,
        (Some(_), Err(why)) => format!("does not answer: {why}"),
    };
    Line { part: part.name.clone(), pid: process.map(|process| process.pid), address, state }
}

fn redis(at: SocketAddr) -> Result<String, String> {
    let words = wire::redis_role(at)?;
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match *words.as_slice() {
        // Role, place in the stream of changes, then address, port and place of each replica.
        ["master", _, address, port, ..] => Ok(format!("master of {address}:{port}")),
        ["master", ..] => Ok("master, without a replica".to_owned()),
        ["slave", address, port, state, ..] => Ok(format!("replica of {address}:{port}, {state}")),
        ["sentinel", ..] => Ok("watches".to_owned()),
        _ => Err("it says nothing of its role".to_owned()),
    }
}

fn http(at: SocketAddr) -> Result<String, String> {
    let (status, body) = wire::http(at, "GET", "/readyz", None).map_err(|e| e.to_string())?;
    if status == 200 {
        return Ok("ready".to_owned());
    }
    let bad: Vec<_> = body.lines().filter(|line| line.starts_with("FAIL")).collect();
    Ok(format!("not ready: {}", bad.join("; ")))
}

/// The registry's nodes, from the first node that answers.
fn nodes(machine: &Machine) -> Result<serde_json::Value, Fault> {
    let text = ask(machine, "GET", "/api/v1/nodes")?;
    serde_json::from_str(&text).map_err(|e| Fault::new(format!("/api/v1/nodes: {e}")))
}

fn ask(machine: &Machine, method: &str, path: &str) -> Result<String, Fault> {
    let mut why = format!("no node listens on {SERVERS}");
    for node in &machine.layout.nodes {
        let token = Some(machine.layout.operator_token.as_str());
        match wire::http(node.http(), method, path, token) {
            Ok((200..=299, body)) => return Ok(body),
            Ok((status, body)) => why = format!("{}: {status}: {}", node.name(), body.trim()),
            Err(error) => why = format!("{}: {error}", node.name()),
        }
    }
    Err(Fault::new(format!("{method} {path}: {why}")))
}

fn table(nodes: &serde_json::Value) -> String {
    let list = nodes.get("items").and_then(serde_json::Value::as_array);
    let text = |node: &serde_json::Value, key: &str| match node.get(key) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let mut page =
        format!("{:10} {:10} {:>7} {:>7}  headroom\n", "node", "state", "scopes", "peers");
    for node in list.into_iter().flatten() {
        page += &format!(
            "{:10} {:10} {:>7} {:>7}  {}\n",
            text(node, "node"),
            text(node, "state"),
            text(node, "scopes"),
            text(node, "peers"),
            text(node, "headroom"),
        );
    }
    page
}
