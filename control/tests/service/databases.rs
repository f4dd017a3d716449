//! MariaDB and PostgreSQL as Debian has them, in folders of their own, reached by Unix sockets.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::redis::skip;

/// A server that ends with the test.
pub struct Database {
    child: Child,
    command: Command,
    folder: TempDir,
    /// As `store.url` takes it.
    pub url: String,
    /// By its Unix socket.
    pub local: String,
}

impl Drop for Database {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", log(self.folder.path()));
        }
    }
}

impl Database {
    /// A new MariaDB; none where it is not installed.
    pub fn mariadb(test: &str) -> Option<Self> {
        Self::mariadb_with(test, None)
    }

    /// One that is reached by TCP, and takes nobody without TLS.
    pub fn mariadb_tls(test: &str, tls: &Certificates) -> Option<Self> {
        Self::mariadb_with(test, Some(tls))
    }

    fn mariadb_with(test: &str, tls: Option<&Certificates>) -> Option<Self> {
        let server = Path::new("/usr/sbin/mariadbd");
        if !server.exists() {
            skip(test, "mariadbd is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let user =
            String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let user = format!("--user={}", user.trim());
        let data = format!("--datadir={}", at("data").display());
        let mut install = Command::new("mariadb-install-db");
        install.args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]);
        run(install.args([&data, &user]), folder.path());
        let mut command = Command::new(server);
        command.args(["--no-defaults", "--innodb-buffer-pool-size=32M"]);
        let port = free_port();
        match tls {
            None => command.arg("--skip-networking"),
            Some(tls) => command.args([
                format!("--port={port}"),
                "--bind-address=127.0.0.1".into(),
                "--require-secure-transport=ON".into(),
                format!("--ssl-cert={}", tls.path("cert.pem").display()),
                format!("--ssl-key={}", tls.path("key.pem").display()),
            ]),
        };
        command.args([&data, &user]).args([
            format!("--socket={}", at("socket").display()),
            format!("--pid-file={}", at("pid").display()),
        ]);
        let child = start(&mut command, folder.path());
        let local = format!("mysql://root@localhost/strait?socket={}", at("socket").display());
        let url = match tls {
            None => local.clone(),
            Some(_) => format!("mysql://root@localhost:{port}/strait?"),
        };
        let database = Self { child, command, folder, url, local };
        database.eventually(|folder| {
            let mut client = Command::new("mariadb");
            client.args(["--no-defaults", "--user=root", "--execute=CREATE DATABASE strait"]);
            client.arg(format!("--socket={}", folder.join("socket").display()));
            client
        });
        Some(database)
    }

    /// A new PostgreSQL; none where it is not installed.
    pub fn postgres(test: &str) -> Option<Self> {
        Self::postgres_with(test, None)
    }

    /// One that is reached by TCP, and takes TLS.
    pub fn postgres_tls(test: &str, tls: &Certificates) -> Option<Self> {
        Self::postgres_with(test, Some(tls))
    }

    fn postgres_with(test: &str, tls: Option<&Certificates>) -> Option<Self> {
        let Some(programs) = postgres_programs() else {
            skip(test, "PostgreSQL is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // It refuses to run as root.
        run(Command::new("chmod").arg("777").arg(folder.path()), folder.path());
        let as_user = |program: &str| {
            let program = programs.join(program);
            let is_root = is_root();
            let mut command =
                Command::new(if is_root { "setpriv".into() } else { program.clone() });
            if is_root {
                command
                    .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                    .arg(program);
            }
            command.current_dir(folder.path());
            command
        };
        let mut install = as_user("initdb");
        install.args([
            "--username=strait",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--pgdata",
        ]);
        run(install.arg(folder.path().join("data")), folder.path());
        let mut command = as_user("postgres");
        command.args(["-c", "fsync=off", "-k"]).arg(folder.path());
        let port = free_port();
        if let Some(tls) = tls {
            // It reads no key that others own.
            for name in ["cert.pem", "key.pem"] {
                let mut copy = Command::new("install");
                copy.args(["--mode=600"]).args(is_root().then_some("--owner=postgres"));
                let file = folder.path().join(name);
                run(copy.args([&tls.path(name), &file]), folder.path());
                let key = if name == "key.pem" { "ssl_key_file" } else { "ssl_cert_file" };
                command.args(["-c", &format!("{key}={}", file.display())]);
            }
            let port = format!("port={port}");
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", &port, "-c", "ssl=on"]);
        } else {
            command.args(["-c", "listen_addresses="]);
        }
        command.arg("-D").arg(folder.path().join("data"));
        let child = start(&mut command, folder.path());
        let place = folder.path().display();
        let (local, url) = match tls {
            None => {
                let local = format!("postgres://strait@localhost/strait?host={place}");
                (local.clone(), local)
            }
            Some(_) => (
                format!("postgres://strait@localhost:{port}/strait?host={place}"),
                format!("postgres://strait@localhost:{port}/strait?"),
            ),
        };
        let database = Self { child, command, folder, url, local };
        database.eventually(|folder| {
            let mut client = Command::new(programs.join("createdb"));
            client.args(["--username=strait", "strait", "--host"]).arg(folder);
            if tls.is_some() {
                client.args(["--port", &port.to_string()]);
            }
            client
        });
        Some(database)
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with what it had on disk; it takes a moment.
    pub fn start_again(&mut self) {
        self.child = start(&mut self.command, self.folder.path());
    }

    /// Repeats until it is done: the server takes a moment.
    fn eventually(&self, command: impl Fn(&Path) -> Command) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let mut command = command(self.folder.path());
            let output = command.stdin(Stdio::null()).output().unwrap();
            if output.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(Instant::now() < end, "{said}\n{}", log(self.folder.path()));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

/// A port of this machine that nobody listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A root, a certificate of `localhost` that it signed, and another root.
pub struct Certificates(TempDir);

impl Certificates {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        let root = || {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let key = rcgen::KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap(), rcgen::Issuer::new(params, key))
        };
        let (certificate, issuer) = root();
        write("root.pem", certificate.pem());
        write("other.pem", root().0.pem());
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        write("cert.pem", params.signed_by(&key, &issuer).unwrap().pem());
        write("key.pem", key.serialize_pem());
        // Other users' servers read them.
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(folder.path()), folder.path());
        Self(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders: Vec<_> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    folders.into_iter().rfind(|folder| folder.join("initdb").exists())
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

fn start(command: &mut Command, folder: &Path) -> Child {
    let log = std::fs::File::options().append(true).create(true).open(folder.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

fn run(command: &mut Command, folder: &Path) {
    let status = start(command, folder).wait().unwrap();
    assert!(status.success(), "{command:?}\n{}", log(folder));
}
