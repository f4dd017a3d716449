//! Network namespaces without names: they go with their last user, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::Command;

/// A host of its own.
#[derive(Debug)]
pub struct Host(File);

impl Host {
    /// An error says why there can be none.
    fn new() -> Result<Self, String> {
        let thread = std::thread::spawn(|| {
            // SAFETY: no pointers; it moves this thread alone, which ends here.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
                return Err(format!("no network namespace: {}", io::Error::last_os_error()));
            }
            let namespace = File::open("/proc/thread-self/ns/net");
            namespace.map(Self).map_err(|error| format!("its namespace: {error}"))
        });
        thread.join().expect("no panic")
    }

    /// Does something there. Sockets that it makes stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let there = || {
            // SAFETY: no pointers; it moves this thread alone, which ends after the work.
            let moved = unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(moved, 0, "{}", io::Error::last_os_error());
            work()
        };
        let result = std::thread::scope(|scope| scope.spawn(there).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command there, its words separated by spaces; an error says what it said.
    pub fn command(&self, words: &str) -> Result<(), String> {
        let mut split = words.split_whitespace();
        let mut command = Command::new(split.next().expect("a program"));
        let output = self.run(|| command.args(split).output());
        let output = output.map_err(|error| format!("{words}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// Two hosts on one wire, whose device is `wire` on either.
#[derive(Debug)]
pub struct Wire {
    pub near: Host,
    pub far: Host,
}

/// Addresses on the wire.
pub const NEAR: [&str; 2] = ["10.77.0.1", "fd77::1"];
pub const FAR: [&str; 2] = ["10.77.0.2", "fd77::2"];

impl Wire {
    /// `None` where there can be none, which is said aloud.
    pub fn new(test: &str) -> Option<Self> {
        match Self::try_new() {
            Ok(wire) => Some(wire),
            Err(reason) => {
                skip(test, &reason);
                None
            }
        }
    }

    fn try_new() -> Result<Self, String> {
        let (near, far) = (Host::new()?, Host::new()?);
        // The other end is made in the namespace that this descriptor of ours stands for.
        let (id, fd) = (std::process::id(), far.0.as_raw_fd());
        let macs = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
        near.command(&format!(
            "ip link add wire address {} type veth peer name wire address {} netns /proc/{id}/fd/{fd}",
            macs[0], macs[1],
        ))?;
        for (host, own, other, mac) in [(&near, NEAR, FAR, macs[1]), (&far, FAR, NEAR, macs[0])] {
            host.command("ip link set lo up")?;
            host.command(&format!("ip address add {}/24 dev wire", own[0]))?;
            host.command(&format!("ip address add {}/64 dev wire nodad", own[1]))?;
            host.command("ip link set wire up")?;
            for address in other {
                // Nobody has to ask for it, and nothing is lost while somebody does.
                host.command(&format!("ip neighbour add {address} lladdr {mac} dev wire"))?;
            }
        }
        Ok(Self { near, far })
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Says that a test cannot run here, and why, so that `./dev test` can list it.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    let Some(list) = std::env::var_os("STRAIT_SKIPS") else { return };
    if let Ok(mut list) = OpenOptions::new().append(true).create(true).open(list) {
        // A list that cannot be written costs the summary a line, not the run its result.
        let _ = writeln!(list, "{test}: {reason}");
    }
}
