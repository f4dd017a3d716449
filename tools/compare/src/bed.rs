//! The bench bed: two network namespaces joined by a veth pair, the server pinned to one core in one of them, the load in
//! the other. Removed with everything in it when it is dropped.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

/// Where servers listen.
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// Where the load comes from.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// The server's core.
pub const SERVER_CORE: usize = 0;
/// The load's core.
pub const CLIENT_CORE: usize = 1;

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The server's.
    Server,
    /// The load's.
    Client,
}

/// The bed.
#[derive(Debug)]
pub struct Bed {
    name: String,
    ahead: bool,
}

impl Bed {
    /// Makes it. Needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN) and `ip`.
    ///
    /// # Errors
    /// What `ip` says, and what to do.
    pub fn new() -> io::Result<Self> {
        let bed = Self { name: format!("strait-{}", std::process::id()), ahead: false };
        let (server, client) = (bed.namespace(Side::Server), bed.namespace(Side::Client));
        ip(&["netns", "add", &server])?;
        ip(&["netns", "add", &client])?;
        ip(&[
            "link", "add", "bed", "netns", &server, "type", "veth", "peer", "name", "bed", "netns",
            &client,
        ])?;
        for (namespace, address) in [(&server, SERVER), (&client, CLIENT)] {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", "bed"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", namespace, "link", "set", "bed", "up"])?;
        }
        Ok(bed)
    }

    /// Lets server and load run ahead of everything else on their cores (SCHED_FIFO), for a machine that is not quiet.
    /// What others leave in the caches still costs.
    #[must_use]
    pub fn ahead(mut self, ahead: bool) -> Self {
        self.ahead = ahead;
        self
    }

    /// A command that runs on this side, on its core.
    #[must_use]
    pub fn command(&self, side: Side, program: &std::path::Path) -> Command {
        let core = match side {
            Side::Server => SERVER_CORE,
            Side::Client => CLIENT_CORE,
        };
        let mut command = match self.ahead {
            true => self.unpinned(side, std::path::Path::new("chrt")),
            false => self.unpinned(side, std::path::Path::new("taskset")),
        };
        if self.ahead {
            command.args(["--fifo", "10", "taskset"]);
        }
        command.args(["-c", &core.to_string()]).arg(program);
        command
    }

    /// A command that runs on this side, on any core.
    #[must_use]
    pub fn unpinned(&self, side: Side, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(side)]).arg(program).stdin(Stdio::null());
        command
    }

    fn namespace(&self, side: Side) -> String {
        match side {
            Side::Server => format!("{}-s", self.name),
            Side::Client => format!("{}-c", self.name),
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for side in [Side::Server, Side::Client] {
            // What is left when this fails was never made.
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(side)]).output();
        }
    }
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "ip {}: {}: the bench bed needs root and network namespaces (run as root; Debian: apt install iproute2)",
        arguments.join(" "),
        said.trim()
    )))
}
