//! The two configuration files of a development setup, written from the options.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Options;
use crate::fault::Fault;
use crate::ports::{self, Protocol};
use crate::state;

/// What was written, and where.
pub struct Files {
    /// The state folder.
    pub folder: PathBuf,
    /// The relay's configuration.
    pub relay: PathBuf,
    /// Control's configuration.
    pub control: PathBuf,
    /// The relay's RPC socket.
    pub socket: PathBuf,
}

/// Writes both files into `folder`.
pub fn write(options: &Options, folder: &Path) -> Result<Files, Fault> {
    let files = Files {
        folder: folder.to_path_buf(),
        relay: folder.join("relay.toml"),
        control: folder.join("control.toml"),
        socket: state::socket(folder)?,
    };
    // Where HTTPS has the media port on TCP, control passes media on to the relay, which listens
    // on a port that nobody needs to know.
    let ice_tcp = if options.tcp_is_shared() {
        let port = ports::free(Protocol::Tcp, Ipv4Addr::LOCALHOST.into())
            .map_err(|e| Fault::new(format!("no free TCP port on 127.0.0.1: {e}")))?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    } else {
        None
    };
    save(&files.relay, &relay(options, &files, ice_tcp))?;
    save(&files.control, &control(options, &files, ice_tcp))?;
    Ok(files)
}

fn save(path: &Path, value: &impl Serialize) -> Result<(), Fault> {
    let text =
        toml::to_string(value).map_err(|e| Fault::new(format!("{}: {e}", path.display())))?;
    let text = format!("# Written anew by each start of `strait dev`.\n{text}");
    fs::write(path, text).map_err(|e| Fault::new(format!("cannot write {}: {e}", path.display())))
}

fn relay(options: &Options, files: &Files, ice_tcp: Option<SocketAddr>) -> toml::Table {
    let mut table = toml::Table::new();
    put(&mut table, "rpc_socket", files.socket.display().to_string());
    put(&mut table, "listen", strings(options.listen()));
    put(&mut table, "this_host_only", options.listen().iter().all(IpAddr::is_loopback));
    put(&mut table, "port", i64::from(options.media_port));
    if let Some(workers) = options.workers {
        put(&mut table, "workers", i64::from(workers));
    }
    if let Some(address) = ice_tcp {
        put(&mut table, "ice_tcp_listen", address.to_string());
        put(&mut table, "ice_tcp_announced_port", i64::from(options.media_port));
    }
    let metrics = match options.metrics_port {
        0 => String::new(),
        port => SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string(),
    };
    put(&mut table, "metrics_listen", metrics);
    put(&mut table, "log", options.log.clone());
    table
}

fn control(options: &Options, files: &Files, ice_tcp: Option<SocketAddr>) -> toml::Table {
    let mut http = toml::Table::new();
    put(&mut http, "https_listen", strings(options.https_listen()));
    put(&mut http, "http_listen", strings(options.http_listen()));
    put(&mut http, "state_dir", files.folder.display().to_string());
    let mut names = vec!["localhost".to_owned()];
    names.extend(options.listen().iter().map(ToString::to_string));
    put(&mut http, "certificate_names", strings(names));
    let mut relay = toml::Table::new();
    put(&mut relay, "rpc_socket", files.socket.display().to_string());
    if let Some(address) = ice_tcp {
        put(&mut relay, "ice_tcp", address.to_string());
    }
    let mut store = toml::Table::new();
    put(&mut store, "url", state::store_url(&files.folder));
    let mut auth = toml::Table::new();
    put(&mut auth, "dev_tokens", strings([&options.token]));
    let mut api = toml::Table::new();
    put(&mut api, "tokens", strings(&options.operator_token));
    let mut signal = toml::Table::new();
    put(&mut signal, "websocket_subprotocol", options.websocket_subprotocol.clone());
    let mut link = toml::Table::new();
    put(&mut link, "quic_listen", strings(options.quic_listen()));
    put(&mut link, "direct", !options.relayed);
    if let Some(rate) = options.messages_per_second {
        put(&mut link, "messages_per_second", i64::from(rate));
        if rate == 0 {
            put(&mut link, "kibibytes_per_second", 0);
        }
    }
    let mut log = toml::Table::new();
    put(&mut log, "filter", options.log.clone());
    let mut table = toml::Table::new();
    for (name, section) in [
        ("http", http),
        ("relay", relay),
        ("store", store),
        ("auth", auth),
        ("api", api),
        ("signal", signal),
        ("link", link),
        ("log", log),
    ] {
        put(&mut table, name, section);
    }
    table
}

fn put(table: &mut toml::Table, key: &str, value: impl Into<toml::Value>) {
    table.insert(key.to_owned(), value.into());
}

fn strings(items: impl IntoIterator<Item = impl ToString>) -> Vec<toml::Value> {
    items.into_iter().map(|item| toml::Value::String(item.to_string())).collect()
}
