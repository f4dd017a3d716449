//! Hosts to test with: network namespaces, gone when dropped.

use std::net::IpAddr;
use std::process::{Command, Output};

/// Three hosts: `relay` has a link to `left` and one to `right`, who have none to each other. No host
/// has a loopback device that is up.
pub struct Hosts {
    /// The one in the middle.
    pub relay: Host,
    /// On one side.
    pub left: Host,
    /// On the other.
    pub right: Host,
}

/// One of them.
pub struct Host {
    name: String,
}

/// How a router gives those behind it ports of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// The same one whoever it is for: who is told of it can be reached there.
    Cone,
    /// Another one for each place that is sent to.
    Symmetric,
}

/// A link's addresses: the relay's and the client's.
pub type Ends = (IpAddr, IpAddr);

impl Hosts {
    /// Makes them. `test`: a few letters that no other test has.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn new(test: &str, left: Ends, right: Ends) -> Result<Self, String> {
        let id = std::process::id();
        let host = |role: &str| Host::new(format!("strait-{id}-{test}-{role}"));
        let hosts = Self { relay: host("relay")?, left: host("left")?, right: host("right")? };
        for (host, device, ends) in [(&hosts.left, "left", left), (&hosts.right, "right", right)] {
            let (from, to) = (&hosts.relay.name, &host.name);
            ip(&["link", "add", device, "netns", from, "type", "veth"]
                .into_iter()
                .chain(["peer", "name", "relay", "netns", to])
                .collect::<Vec<_>>())?;
            for (at, device, address) in [(from, device, ends.0), (to, "relay", ends.1)] {
                let length = if address.is_ipv6() { 64 } else { 24 };
                let address = format!("{address}/{length}");
                let mut add = vec!["-n", at, "address", "add", &address, "dev", device];
                if length == 64 {
                    // Usable at once, without asking the link whether somebody else has it.
                    add.push("nodad");
                }
                ip(&add)?;
                ip(&["-n", at, "link", "set", device, "up"])?;
            }
        }
        Ok(hosts)
    }

    /// Lets `left` and `right` reach each other through `relay`'s host.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn connect_sides(&self, [left, right]: [Ends; 2]) -> Result<(), String> {
        // What its programs say to one another.
        ip(&["-n", &self.relay.name, "link", "set", "lo", "up"])?;
        self.forward(true)?;
        for (host, ends) in [(&self.left, left), (&self.right, right)] {
            ip(&["-n", &host.name, "route", "replace", "default", "via", &ends.0.to_string()])?;
        }
        Ok(())
    }

    /// Makes a host behind `left` (0) or `right` (1), which becomes a router that lets nothing in but
    /// answers. The link's addresses: the router's and the host's.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn behind(&self, side: usize, ends: Ends, nat: Nat) -> Result<Host, String> {
        let router = if side == 0 { &self.left } else { &self.right };
        let host = Host::new(format!("{}-home", router.name))?;
        ip(&["link", "add", "home", "netns", &router.name, "type", "veth"]
            .into_iter()
            .chain(["peer", "name", "router", "netns", &host.name])
            .collect::<Vec<_>>())?;
        let of_both = [(&router.name, "home", ends.0), (&host.name, "router", ends.1)];
        for (at, device, address) in of_both {
            ip(&["-n", at, "address", "add", &format!("{address}/24"), "dev", device])?;
            ip(&["-n", at, "link", "set", device, "up"])?;
        }
        ip(&["-n", &host.name, "route", "add", "default", "via", &ends.0.to_string()])?;
        router.set("/proc/sys/net/ipv4/ip_forward", "1")?;
        // Without being told to, Linux keeps the port that a host sends from.
        let random = if nat == Nat::Symmetric { "fully-random" } else { "" };
        let rules = format!(
            "add table ip router; \
             add chain ip router out {{ type nat hook postrouting priority 100; }}; \
             add rule ip router out oifname relay masquerade {random}; \
             add chain ip router in {{ type filter hook input priority 0; }}; \
             add rule ip router in iifname relay ct state new drop"
        );
        match router.command("nft").arg(rules).output() {
            Ok(Output { status, .. }) if status.success() => Ok(host),
            other => Err(format!("nft, of Debian's nftables: {other:?}")),
        }
    }

    /// What goes from one side to the other is lost from now on, and nobody is told.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn disconnect_sides(&self) -> Result<(), String> {
        self.forward(false)
    }

    fn forward(&self, on: bool) -> Result<(), String> {
        self.relay.set("/proc/sys/net/ipv4/ip_forward", if on { "1" } else { "0" })
    }

    /// All UDP between `left` and anybody is lost, or no longer, and nobody is told.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn block_udp_of_left(&self, on: bool) -> Result<(), String> {
        self.block(&[], &[], on)
    }

    /// What goes between `left` and this UDP port of `relay` is, likewise.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn block_udp_port_of_left(&self, port: u16, on: bool) -> Result<(), String> {
        let port = port.to_string();
        self.block(&["sport", &port], &["dport", &port], on)
    }

    fn block(&self, at_left: &[&str], at_relay: &[&str], on: bool) -> Result<(), String> {
        let verb = if on { "add" } else { "del" };
        let hosts = [(&self.left, "relay", at_left), (&self.relay, "left", at_relay)];
        for (host, device, which) in hosts {
            let rule = ["-n", &host.name, "rule", verb, "iif", device, "ipproto", "udp"];
            ip(&[&rule, which, &["blackhole", "pref", "10"]].concat())?;
        }
        Ok(())
    }

    /// All three.
    pub fn all(&self) -> [&Host; 3] {
        [&self.relay, &self.left, &self.right]
    }
}

impl Host {
    fn new(name: String) -> Result<Self, String> {
        ip(&["netns", "add", &name])?;
        let host = Self { name };
        // What is for the host itself is looked at first, unless that is moved behind what is lost.
        ip(&["-n", &host.name, "rule", "add", "lookup", "local", "pref", "100"])?;
        ip(&["-n", &host.name, "rule", "del", "lookup", "local", "pref", "0"])?;
        Ok(host)
    }

    /// A program on this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    fn set(&self, path: &str, value: &str) -> Result<(), String> {
        let set = format!("echo {value} > {path}");
        match self.command("sh").args(["-c", &set]).status() {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("{set}: {other:?}")),
        }
    }

    /// Its IPv4 addresses, as `ip` lists them.
    ///
    /// # Panics
    /// When `ip` does not say.
    pub fn ipv4(&self) -> String {
        ip(&["-n", &self.name, "-4", "address", "show"]).expect("its addresses")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // With it go its links and the other ends of them.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<String, String> {
    let told = |error: &dyn std::fmt::Display| format!("ip {}: {error}", arguments.join(" "));
    let Output { status, stdout, stderr } =
        Command::new("ip").args(arguments).output().map_err(|error| told(&error))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if status.success() { Ok(text(&stdout)) } else { Err(told(&text(&stderr))) }
}
