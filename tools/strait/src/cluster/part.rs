//! The processes of a cluster, in the order in which they start.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Sql;
use super::layout::{Layout, SERVERS};

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What people call it.
    pub name: String,
    /// Program: a path, or a name that is looked for.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How it is known that it is ready.
    pub ready: Ready,
}

/// How it is known that a process is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Redis, or Sentinel, says there what its role is.
    Redis(SocketAddr),
    /// Something listens there.
    Listens(SocketAddr),
    /// `/readyz` there says so.
    Http(SocketAddr),
    /// This file is there.
    File(PathBuf),
}

/// All of them.
pub fn all(layout: &Layout) -> Vec<Part> {
    let mut parts = Vec::new();
    let at = |port| SocketAddr::from((SERVERS, port));
    let file = |name: &str| layout.folder.join(name).display().to_string();
    let redis = |name: String, port: u16, further: &[&str]| {
        let mut arguments = vec![file(&format!("{name}.conf"))];
        arguments.extend(further.iter().map(ToString::to_string));
        Part { name, program: "redis-server".into(), arguments, ready: Ready::Redis(at(port)) }
    };
    for partition in &layout.partitions {
        parts.push(redis(format!("redis-{}a", partition.number), partition.first, &[]));
        parts.push(redis(format!("redis-{}b", partition.number), partition.second, &[]));
    }
    parts.push(redis("redis-keys".into(), layout.keys, &[]));
    parts.push(redis("redis-events".into(), layout.events, &[]));
    for node in &layout.nodes {
        parts.push(redis(format!("keys-{}", node.number), node.keys, &[]));
    }
    for (number, port) in (1..).zip(&layout.sentinels) {
        parts.push(redis(format!("sentinel-{number}"), *port, &["--sentinel"]));
    }
    if layout.sql == Sql::Mariadb {
        parts.push(Part {
            name: "mariadb".into(),
            program: "mariadbd".into(),
            arguments: vec![format!("--defaults-file={}", file("mariadb.cnf"))],
            ready: Ready::Listens(at(layout.sql_port)),
        });
    }
    for (number, port) in (1..).zip(&layout.agents) {
        let name = format!("agent-{number}");
        parts.push(Part {
            program: layout.control_program.clone(),
            arguments: vec!["--config".to_owned(), file(&format!("{name}/control.toml"))],
            ready: Ready::Http(at(*port)),
            name,
        });
    }
    for node in &layout.nodes {
        let configured =
            |kind: &str| vec!["--config".to_owned(), file(&format!("{}/{kind}.toml", node.name()))];
        parts.push(Part {
            name: format!("relay-{}", node.number),
            program: layout.relay_program.clone(),
            arguments: configured("relay"),
            ready: Ready::File(layout.folder.join(node.name()).join("relay.sock")),
        });
        parts.push(Part {
            name: format!("control-{}", node.number),
            program: layout.control_program.clone(),
            arguments: configured("control"),
            ready: Ready::Http(node.http()),
        });
    }
    parts
}

/// Those that a person means by a word: a part, a node with all of its parts, or all of Redis.
pub fn meant<'a>(parts: &'a [Part], word: &str) -> Vec<&'a Part> {
    let is_meant = |part: &&Part| match word.strip_prefix("node-") {
        Some(number) => {
            ["relay-", "control-", "keys-"].map(|k| format!("{k}{number}")).contains(&part.name)
        }
        None if word == "redis" => part.program.as_os_str() == "redis-server",
        None => part.name == word,
    };
    parts.iter().filter(is_meant).collect()
}
