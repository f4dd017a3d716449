//! The configuration files of all parts.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use super::Sql;
use super::layout::{Layout, Node, SERVERS};
use crate::fault::Fault;

/// Writes them all.
pub fn write(layout: &Layout) -> Result<(), Fault> {
    let folder = &layout.folder;
    for partition in &layout.partitions {
        let names = [
            (format!("redis-{}a", partition.number), partition.first, None),
            (format!("redis-{}b", partition.number), partition.second, Some(partition.first)),
        ];
        for (name, port, master) in names {
            save(&folder.join(format!("{name}.conf")), &redis(layout, &name, port, master))?;
        }
    }
    save(&folder.join("redis-keys.conf"), &redis(layout, "redis-keys", layout.keys, None))?;
    // Whatever it said that it has is there, however it ends.
    let text = redis(layout, "redis-events", layout.events, None) + "appendfsync always\n";
    save(&folder.join("redis-events.conf"), &text)?;
    for (number, port) in (1..).zip(&layout.agents) {
        let of_agent = folder.join(format!("agent-{number}"));
        make(&of_agent)?;
        save(&of_agent.join("control.toml"), &agent(layout, *port, &of_agent).to_string())?;
    }
    for node in &layout.nodes {
        let name = format!("keys-{}", node.number);
        let mut text = redis(layout, &name, node.keys, Some(layout.keys));
        text += &format!("unixsocket \"{}\"\n", folder.join(&name).join("redis.sock").display());
        save(&folder.join(format!("{name}.conf")), &text)?;
    }
    for (number, port) in (1..).zip(&layout.sentinels) {
        let name = format!("sentinel-{number}");
        make(&folder.join(&name))?;
        save(&folder.join(format!("{name}.conf")), &sentinel(layout, &name, *port))?;
    }
    if layout.sql == Sql::Mariadb {
        mariadb(layout)?;
    }
    for node in &layout.nodes {
        let of_node = folder.join(node.name());
        make(&of_node)?;
        save(&of_node.join("relay.toml"), &relay(layout, node, &of_node).to_string())?;
        save(&of_node.join("control.toml"), &control(layout, node, &of_node).to_string())?;
    }
    Ok(())
}

/// One file with the certificates of all nodes, for clients that ask for one (`--ca-file`).
pub fn certificates(layout: &Layout) -> Result<(), Fault> {
    let all = layout
        .nodes
        .iter()
        .map(|node| {
            let path = layout.folder.join(node.name()).join("certificate.pem");
            fs::read_to_string(&path)
                .map_err(|e| Fault::new(format!("cannot read {}: {e}", path.display())))
        })
        .collect::<Result<String, _>>()?;
    save(&layout.folder.join("certificates.pem"), &all)
}

fn redis(layout: &Layout, name: &str, port: u16, master: Option<u16>) -> String {
    let folder = layout.folder.join(name);
    // The folder is made here as Redis does not; what cannot be made it says itself.
    let _told_by_redis = fs::create_dir_all(&folder);
    let replica = master.map(|port| format!("replicaof {SERVERS} {port}\n")).unwrap_or_default();
    // All that was acknowledged is there after a restart, or a second of it is not.
    format!(
        "bind {SERVERS}\nport {port}\ndir \"{}\"\nappendonly yes\nappendfsync everysec\nsave \"\"\n\
         maxmemory-policy noeviction\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n\
         repl-ping-replica-period 1\n{replica}",
        folder.display()
    )
}

/// Three of them agree in half a second that a master is gone: clients look for a node anew within
/// two.
fn sentinel(layout: &Layout, name: &str, port: u16) -> String {
    let folder = layout.folder.join(name);
    let mut text = format!("bind {SERVERS}\nport {port}\ndir \"{}\"\n", folder.display());
    for partition in &layout.partitions {
        let name = partition.name();
        text += &format!(
            "sentinel monitor {name} {SERVERS} {} 2\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 3000\nsentinel parallel-syncs {name} 1\n",
            partition.first
        );
    }
    text
}

/// Makes the tables of the server itself, which takes some seconds.
fn mariadb(layout: &Layout) -> Result<(), Fault> {
    let (data, socket) = (layout.folder.join("mariadb"), layout.folder.join("mariadb.sock"));
    let user = user()?;
    let password = &layout.sql_password;
    // Carried out at each start: a statement in each line.
    let statements = format!(
        "CREATE DATABASE IF NOT EXISTS strait CHARACTER SET utf8mb4;\n\
         CREATE USER IF NOT EXISTS 'strait'@'{SERVERS}' IDENTIFIED BY '{password}';\n\
         GRANT ALL ON strait.* TO 'strait'@'{SERVERS}';\n"
    );
    let init = layout.folder.join("mariadb.sql");
    save(&init, &statements)?;
    save(
        &layout.folder.join("mariadb.cnf"),
        &format!(
            "[mariadbd]\nuser = {user}\ndatadir = {}\nsocket = {}\npid-file = {}\n\
             bind-address = {SERVERS}\nport = {}\ninit-file = {}\nskip-name-resolve\n\
             skip-log-bin\nperformance-schema = OFF\ninnodb-buffer-pool-size = 64M\n\
             innodb-log-file-size = 32M\nmax-connections = 200\n",
            data.display(),
            socket.display(),
            layout.folder.join("mariadb.pid").display(),
            layout.sql_port,
            init.display()
        ),
    )?;
    let made = Command::new("mariadb-install-db")
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .args([format!("--user={user}"), format!("--datadir={}", data.display())])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            Fault::new(format!(
                "cannot run mariadb-install-db: {e}; remedy: apt-get install mariadb-server (its \
                 service need not run), or --sql sqlite"
            ))
        })?;
    if made.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&made.stderr);
    Err(Fault::new(format!("mariadb-install-db failed: {}", said.trim())))
}

fn user() -> Result<String, Fault> {
    let id = Command::new("id").arg("-un").output();
    let name = id.ok().and_then(|id| String::from_utf8(id.stdout).ok()).unwrap_or_default();
    match name.trim() {
        "" => Err(Fault::new("cannot tell who you are: `id -un` says nothing")),
        name => Ok(name.to_owned()),
    }
}

fn relay(layout: &Layout, node: &Node, folder: &Path) -> toml::Table {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
    let mut table = toml::Table::new();
    put(&mut table, "rpc_socket", folder.join("relay.sock").display().to_string());
    put(&mut table, "listen", vec![node.address.to_string()]);
    put(&mut table, "this_host_only", true);
    put(&mut table, "port", i64::from(node.https_port));
    put(&mut table, "workers", i64::from(layout.workers));
    put(&mut table, "ice_tcp_listen", at(node.ice_tcp));
    put(&mut table, "ice_tcp_announced_port", i64::from(node.https_port));
    put(&mut table, "metrics_listen", at(node.metrics));
    put(&mut table, "log", layout.log.clone());
    table
}

fn section(entries: Vec<(&str, toml::Value)>) -> toml::Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn text(text: &dyn ToString) -> toml::Value {
    toml::Value::String(text.to_string())
}

fn mappings(layout: &Layout) -> toml::Value {
    let urls = layout.partitions.iter().map(|partition| text(&layout.mapping_url(partition)));
    toml::Value::Array(urls.collect())
}

fn agent(layout: &Layout, port: u16, folder: &Path) -> toml::Table {
    let list = |items: Vec<toml::Value>| toml::Value::Array(items);
    let http = SocketAddr::from((SERVERS, port));
    let sections = [
        (
            "http",
            section(vec![
                ("https_listen", list(Vec::new())),
                ("http_listen", list(vec![text(&http)])),
                ("state_dir", text(&folder.display())),
            ]),
        ),
        ("store", section(vec![("url", text(&layout.store_url()))])),
        ("events", section(vec![("redis", text(&layout.events_url()))])),
        (
            "cluster",
            section(vec![("roles", list(vec![text(&"agent")])), ("mappings", mappings(layout))]),
        ),
        ("log", section(vec![("filter", text(&layout.log))])),
    ];
    sections.into_iter().map(|(name, table)| (name.to_owned(), table.into())).collect()
}

fn control(layout: &Layout, node: &Node, folder: &Path) -> toml::Table {
    let replica = layout.folder.join(format!("keys-{}", node.number)).join("redis.sock");
    let list = |items: Vec<toml::Value>| toml::Value::Array(items);
    let sections = [
        (
            "http",
            section(vec![
                ("https_listen", list(vec![text(&node.https())])),
                ("http_listen", list(vec![text(&node.http())])),
                ("state_dir", text(&folder.display())),
                ("certificate_names", list(vec![text(&node.address)])),
            ]),
        ),
        (
            "relay",
            section(vec![
                ("rpc_socket", text(&folder.join("relay.sock").display())),
                ("ice_tcp", text(&SocketAddr::from((Ipv4Addr::LOCALHOST, node.ice_tcp)))),
            ]),
        ),
        ("store", section(vec![("url", text(&layout.store_url()))])),
        ("events", section(vec![("redis", text(&layout.events_url()))])),
        ("auth", section(vec![("dev_tokens", list(vec![text(&layout.token)]))])),
        ("api", section(vec![("tokens", list(vec![text(&layout.operator_token)]))])),
        (
            "keys",
            section(vec![
                ("master", text(&format!("redis://{SERVERS}:{}", layout.keys))),
                ("replica", text(&format!("redis+unix:{}", replica.display()))),
            ]),
        ),
        (
            "cluster",
            section(vec![
                ("name", text(&node.name())),
                // All clients of a trial come from one address.
                ("resolves_per_second", toml::Value::Integer(0)),
                ("public", text(&node.https())),
                ("mappings", mappings(layout)),
                ("roles", list(["node", "cnc", "api"].map(|role| text(&role)).into())),
                ("cncs", list(layout.nodes.iter().map(|node| text(&node.https())).collect())),
            ]),
        ),
        ("log", section(vec![("filter", text(&layout.log))])),
    ];
    sections.into_iter().map(|(name, table)| (name.to_owned(), table.into())).collect()
}

fn put(table: &mut toml::Table, key: &str, value: impl Into<toml::Value>) {
    table.insert(key.to_owned(), value.into());
}

fn make(folder: &Path) -> Result<(), Fault> {
    fs::create_dir_all(folder)
        .map_err(|e| Fault::new(format!("cannot make {}: {e}", folder.display())))
}

fn save(path: &Path, text: &str) -> Result<(), Fault> {
    fs::write(path, text).map_err(|e| Fault::new(format!("cannot write {}: {e}", path.display())))
}
