//! `strait cluster`: several nodes with real Redis and MariaDB on this machine, for trying what
//! happens when parts of them die.

mod files;
mod layout;
mod machine;
mod part;
mod process;
mod status;
mod up;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use crate::fault::Fault;
use crate::state;
use machine::Machine;

/// What to do with the cluster on this machine.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Folder of its data, logs and configurations [default: .strait/cluster in a source tree, else
    /// $XDG_STATE_HOME/strait/cluster]
    #[arg(long, global = true, value_name = "FOLDER", env = "STRAIT_CLUSTER_DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Start nodes, Redis and MariaDB, each a process of its own, and say where they are
    Up(Wanted),
    /// Say what runs, and how the nodes are
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Kill a part without a warning (SIGKILL): node-2, relay-2, control-2, keys-2, agent-1, redis-1a,
    /// redis-events, sentinel-1, mariadb, or redis for all of Redis
    Kill {
        /// What
        part: String,
    },
    /// Start again what was killed
    Start {
        /// What
        part: String,
    },
    /// Let a node take no further scopes; those that it has go on
    Drain {
        /// Which, such as node-2
        node: String,
        /// Let it take scopes again
        #[arg(long)]
        undo: bool,
    },
    /// End everything, and remove the folder
    Down,
}

/// What to start.
#[derive(Args, Clone, Debug)]
pub struct Wanted {
    /// Nodes: a relay and a control plane each, on an address of its own (127.0.1.1 and so on)
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// Partitions of the mappings: a Redis master with a replica each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    partitions: u8,
    /// Where accounts and statistics are kept
    #[arg(long, value_enum, default_value_t = Sql::Mariadb)]
    sql: Sql,
    /// Token that opens every scope
    #[arg(long, value_name = "TOKEN", default_value = "dev", env = "STRAIT_TOKEN")]
    token: String,
    /// Port of HTTPS and of media of the first node; each further node has the next
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https_port: u16,
    /// Port of plain HTTP of each node
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,
    /// Media workers of each node
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: u16,
    /// What is logged: error, warn, info, debug, or per module
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Folder of the programs strait-relay and strait-control [default: that of this program]
    #[arg(long, value_name = "FOLDER", env = "STRAIT_BIN_DIR")]
    bin_dir: Option<PathBuf>,
}

/// The engine of accounts and statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sql {
    /// A server of its own.
    Mariadb,
    /// One file that all nodes share.
    Sqlite,
}

/// Does it.
pub fn run(options: Options) -> Result<ExitCode, Fault> {
    let folder = options.state_dir.unwrap_or_else(state::cluster_folder);
    match options.verb {
        Verb::Up(wanted) => up::run(&wanted, &folder)?,
        Verb::Status { json } => return status::run(&Machine::open(&folder)?, json),
        Verb::Kill { part } => Machine::open(&folder)?.kill(&part)?,
        Verb::Start { part } => Machine::open(&folder)?.start_again(&part)?,
        Verb::Drain { node, undo } => status::drain(&Machine::open(&folder)?, &node, undo)?,
        Verb::Down => Machine::open(&folder)?.down()?,
    }
    Ok(ExitCode::SUCCESS)
}
