//! The client through real proxies: Dante and Squid as Debian has them, on ports and in folders of their own; and a realm of Kerberos
//! for negotiate.

use crate::sockets::{Member, PATIENCE, Server, call};
use std::io::Write as _;
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
const KDC: &str = "/usr/sbin/krb5kdc";
const NEGOTIATE: &str = "/usr/lib/squid/negotiate_kerberos_auth";
/// Of the run as which the test calls itself: where the proxy is, and what comes of it.
const CALLER: &str = "STRAIT_NEGOTIATE";
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
            for log in ["cache.log", "danted.log", "kdc.log"] {
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

    /// `authentication`: "", "basic", "digest", or what to say of another.
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
                "digest" => (
                    "acl known proxy_auth REQUIRED\nhttp_access allow known",
                    format!(
                        "auth_param digest program /usr/lib/squid/digest_file_auth {place}/users\nauth_param digest realm a proxy"
                    ),
                ),
                _ => (
                    "acl known proxy_auth REQUIRED\nhttp_access allow known",
                    format!("auth_param {authentication}"),
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
            command.args(["-n", &format!("strait{port}")]).env("KRB5RCACHENAME", "none:");
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

    /// A realm with the user ann, and the service of a proxy on localhost, whose key is in `keytab`.
    fn realm() -> Self {
        Self::start(|port, folder| {
            let place = folder.display();
            let realm = format!(
                "[libdefaults]\ndefault_realm = STRAIT.TEST\ndns_lookup_kdc = false\n\
                 dns_lookup_realm = false\ndns_canonicalize_hostname = false\nrdns = false\n\
                 udp_preference_limit = 1\n[realms]\nSTRAIT.TEST = {{\n kdc = 127.0.0.1:{port}\n}}\n\
                 ELSEWHERE.TEST = {{\n kdc = 127.0.0.1:{port}\n}}\n[domain_realm]\nlocalhost = "
            );
            let here = format!("{realm}STRAIT.TEST\n");
            std::fs::write(folder.join("krb5.conf"), here).unwrap();
            let elsewhere = format!("{realm}ELSEWHERE.TEST\n");
            std::fs::write(folder.join("elsewhere.conf"), elsewhere).unwrap();
            let kdc = format!(
                "[kdcdefaults]\nkdc_listen = 127.0.0.1:{port}\nkdc_tcp_listen = 127.0.0.1:{port}\n\
                 [realms]\nSTRAIT.TEST = {{\n database_name = {place}/principals\n\
                 key_stash_file = {place}/stash\n acl_file = {place}/acl\n}}\n\
                 [logging]\nkdc = FILE:{place}/kdc.log\n"
            );
            std::fs::write(folder.join("kdc.conf"), kdc).unwrap();
            kerberos(folder, "kdb5_util", &["create", "-s", "-P", "master"], "");
            for question in [
                "addprinc -pw secret ann".to_owned(),
                "addprinc -randkey HTTP/localhost".to_owned(),
                format!("ktadd -k {place}/keytab HTTP/localhost"),
            ] {
                kerberos(folder, "kadmin.local", &["-q", &question], "");
            }
            // For the proxy, which has a user of its own.
            std::fs::set_permissions(folder.join("keytab"), PermissionsExt::from_mode(0o644))
                .unwrap();
            let mut command = Command::new(KDC);
            command.arg("-n").envs(realm_of(folder));
            command
        })
    }

    fn proxy(&self, kind: Kind, credentials: Option<(&str, &str)>) -> Option<Proxy> {
        let credentials = credentials.map(|(user, password)| (user.into(), password.into()));
        Some(Proxy { kind, host: "127.0.0.1".into(), port: self.port, credentials })
    }
}

/// What tells the programs of Kerberos that the realm is in this folder.
fn realm_of(folder: &Path) -> [(&'static str, std::path::PathBuf); 3] {
    [
        ("KRB5_CONFIG", folder.join("krb5.conf")),
        ("KRB5_KDC_PROFILE", folder.join("kdc.conf")),
        ("KRB5CCNAME", folder.join("tickets")),
    ]
}

/// Runs one of them to its end.
fn kerberos(folder: &Path, program: &str, arguments: &[&str], input: &str) {
    let mut command = Command::new(program);
    command.args(arguments).envs(realm_of(folder)).stdin(Stdio::piped());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
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

/// Which realm there is the environment says, which a process has as a whole: so each caller is a process.
#[test]
fn through_squid_with_a_ticket() {
    if let Ok(told) = std::env::var(CALLER) {
        return call_with_ticket(&told);
    }
    let test = "a proxy with CONNECT (negotiate)";
    let programs = [SQUID, NEGOTIATE, KDC, "/usr/sbin/kadmin.local", "/usr/bin/kinit"];
    if !programs.iter().all(|program| can_run(test, program, false)) {
        return;
    }
    let realm = Process::realm();
    let folder = realm.folder.path();
    let keytab = folder.join("keytab");
    let keytab = keytab.display();
    let squid = Process::squid(&format!(
        "negotiate program {NEGOTIATE} -k {keytab} -s HTTP/localhost@STRAIT.TEST"
    ));
    let expect = |what: &str, configuration: &str| {
        let mut caller = Command::new(std::env::current_exe().unwrap());
        caller.args(["--exact", "proxies::through_squid_with_a_ticket", "--nocapture"]);
        caller.envs(realm_of(folder)).env("KRB5_CONFIG", folder.join(configuration));
        let output = caller.env(CALLER, format!("{} {what}", squid.port)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{what}: {output:?}");
    };
    expect("none", "krb5.conf");
    kerberos(folder, "kinit", &["ann"], "secret\n");
    expect("right", "krb5.conf");
    expect("none", "elsewhere.conf");
    // The proxy's keytab is of yesterday.
    kerberos(folder, "kadmin.local", &["-q", "cpw -randkey HTTP/localhost"], "");
    kerberos(folder, "kinit", &["ann"], "secret\n");
    expect("refused", "krb5.conf");
}

fn call_with_ticket(told: &str) {
    let (port, what) = told.split_once(' ').unwrap();
    let (kind, host) = (Kind::Http, "localhost".into());
    let proxy = Proxy { kind, host, port: port.parse().unwrap(), credentials: None };
    let server = Server::start(false);
    let descriptor = Descriptor { proxy: Some(proxy), ..server.descriptor() };
    match what {
        "right" => call(&descriptor, &descriptor, State::Link, State::Link),
        "refused" => assert_eq!(refusal(descriptor), Error::ProxyCredentials),
        _ => {
            let error = refusal(descriptor);
            assert!(matches!(error, Error::ProxyTicket(_)), "{error:?}");
        }
    }
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
