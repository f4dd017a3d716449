//! The client through real proxies: Dante and Squid as Debian has them, on ports and in folders of their own.

use crate::sockets::{Member, PATIENCE, Server, call};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use strait_client::proxy::{Kind, Proxy};
use strait_client::v1::transport_report::State;
use strait_client::{Descriptor, Error, Event, Trust};

const SQUID: &str = "/usr/sbin/squid";
const DANTE: &str = "/usr/sbin/danted";
/// `openssl passwd -6 -salt strait secret`, for a system's user.
const SECRET: &str = "$6$strait$rihTaTaluiSVODP84jsKYj3uGd14674Cd14IhIFwJCqu9sf4VNfrSHF.d7goe87u6l0J/Shf9q3oWWq9.8WGd0";

/// A proxy that ends with the test.
struct Process {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            for log in ["cache.log", "danted.log"] {
                let text = std::fs::read_to_string(self.folder.path().join(log));
                eprintln!("{log}: {}", text.unwrap_or_default());
            }
        }
    }
}

impl Process {
    fn start(configuration: impl FnOnce(u16, &Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Both work as a user of their own when they are started by root.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = configuration(port, folder.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let process = Self { child, port, folder };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "the proxy listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }

    fn squid(authentication: &str) -> Self {
        Self::start(|port, folder| {
            let place = folder.display();
            let (rule, program) = match authentication {
                "" => ("http_access allow all", String::new()),
                "basic" => (
                    "acl known proxy_auth REQUIRED\nhttp_access allow known",
                    format!(
                        "auth_param basic program /bin/sh {place}/basic.sh\nauth_param basic realm a proxy"
                    ),
                ),
                _ => (
                    "acl known proxy_auth REQUIRED\nhttp_access allow known",
                    format!(
                        "auth_param digest program /usr/lib/squid/digest_file_auth {place}/users\nauth_param digest realm a proxy"
                    ),
                ),
            };
            std::fs::write(folder.join("users"), "ann:secret\n").unwrap();
            let check =
                "while read line; do [ \"$line\" = 'ann secret' ] && echo OK || echo ERR; done\n";
            std::fs::write(folder.join("basic.sh"), check).unwrap();
            let text = format!(
                "http_port 127.0.0.1:{port}\npid_filename {place}/squid.pid\ncache deny all\n\
                 access_log none\ncache_log {place}/cache.log\ncoredump_dir {place}\n\
                 visible_hostname proxy.example\npinger_enable off\nnetdb_filename none\n\
                 shutdown_lifetime 0 seconds\n{program}\n{rule}\nhttp_access deny all\n"
            );
            std::fs::write(folder.join("squid.conf"), text).unwrap();
            let mut command = Command::new(SQUID);
            command.arg("-N").arg("-f").arg(folder.join("squid.conf"));
            // A name for each, so that instances share no memory.
            command.args(["-n", &format!("strait{port}")]);
            command
        })
    }

    /// `method`: of authentication, as Dante calls it.
    fn dante(method: &str) -> Self {
        Self::start(|port, folder| {
            let place = folder.display();
            let text = format!(
                "logoutput: {place}/danted.log\ninternal: 127.0.0.1 port = {port}\n\
                 external: 127.0.0.1\nclientmethod: none\nsocksmethod: {method}\n\
                 user.privileged: root\nuser.unprivileged: nobody\n\
                 client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
                 socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: connect udpassociate }}\n\
                 socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: udpreply }}\n"
            );
            std::fs::write(folder.join("danted.conf"), text).unwrap();
            // It knows the system's users alone: it gets a system with one more, in a namespace of its own.
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
            let ann = "ann:x:64321:65534::/nonexistent:/usr/sbin/nologin\n";
            std::fs::write(folder.join("passwd"), passwd + ann).unwrap();
            let shadow = format!("ann:{SECRET}:20000:0:99999:7:::\n");
            std::fs::write(folder.join("shadow"), shadow).unwrap();
            let script = format!(
                "mount --bind {place}/passwd /etc/passwd && mount --bind {place}/shadow /etc/shadow \
                 && exec {DANTE} -f {place}/danted.conf -p {place}/danted.pid"
            );
            let mut command = Command::new("unshare");
            command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script]);
            command
        })
    }

    fn proxy(&self, kind: Kind, credentials: Option<(&str, &str)>) -> Option<Proxy> {
        let credentials = credentials.map(|(user, password)| (user.into(), password.into()));
        Some(Proxy { kind, host: "127.0.0.1".into(), port: self.port, credentials })
    }
}

/// Whether a test can run here; `root`: only as root.
fn can_run(test: &str, program: &str, root: bool) -> bool {
    let is_root = std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t");
    let why = match (Path::new(program).exists(), root && !is_root) {
        (false, _) => format!("{program} is not installed"),
        (_, true) => "it needs root".into(),
        _ => return true,
    };
    strait_tests::skip(test, &why);
    false
}

fn refusal(descriptor: Descriptor) -> Error {
    Member::connect(descriptor).wait("a refusal", |event| match event {
        Event::Ended(error) | Event::LinkLost { error, .. } => Some(error.clone()),
        _ => None,
    })
}

fn through_squid(authentication: &str) {
    if !can_run(&format!("a proxy with CONNECT ({authentication})"), SQUID, false) {
        return;
    }
    let (server, squid) = (Server::start(false), Process::squid(authentication));
    let with = |credentials| Descriptor {
        proxy: squid.proxy(Kind::Http, credentials),
        ..server.descriptor()
    };
    let right = with(Some(("ann", "secret")));
    call(&right, &right, State::Link, State::Link);
    if authentication.is_empty() {
        return call(&with(None), &right, State::Link, State::Link);
    }
    assert_eq!(refusal(with(Some(("ann", "wrong")))), Error::ProxyCredentials);
    assert!(matches!(refusal(with(None)), Error::ProxyNeedsCredentials(_)));
}

#[test]
fn through_squid_without_authentication() {
    through_squid("");
}

#[test]
fn through_squid_with_basic_authentication() {
    through_squid("basic");
}

#[test]
fn through_squid_with_digest_authentication() {
    through_squid("digest");
}

fn through_dante(method: &str) {
    if !can_run(&format!("a SOCKS5 proxy ({method})"), DANTE, true) {
        return;
    }
    let (server, dante) = (Server::start(true), Process::dante(method));
    let with = |credentials| {
        let mut descriptor = Descriptor {
            proxy: dante.proxy(Kind::Socks5, credentials),
            trust: Trust::Fingerprint(server.fingerprint),
            ..server.descriptor()
        };
        // Where the node's address is known media goes by UDP through the proxy.
        descriptor.config.host = "127.0.0.1".into();
        descriptor
    };
    let right = with(Some(("ann", "secret")));
    call(&right, &right, State::UdpRelay, State::UdpRelay);
    let seen = server.node.lock().unwrap().peers[0].address.expect("it came by UDP");
    assert!(seen.ip().is_loopback());
    // By name, and without UDP through the proxy.
    let by_name = Descriptor { proxy: right.proxy.clone(), ..server.descriptor() };
    call(&by_name, &by_name, State::Link, State::Link);
    if method == "none" {
        return call(&with(None), &right, State::UdpRelay, State::UdpRelay);
    }
    assert_eq!(refusal(with(Some(("ann", "wrong")))), Error::ProxyCredentials);
    assert!(matches!(refusal(with(None)), Error::ProxyNeedsCredentials(_)));
}

#[test]
fn through_dante_without_authentication() {
    through_dante("none");
}

#[test]
fn through_dante_with_user_and_password() {
    through_dante("username");
}
