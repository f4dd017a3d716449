//! MariaDB and PostgreSQL as Debian has them, in folders of their own, reached by Unix sockets.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::redis::skip;

/// A server that ends with the test.
pub struct Database {
    child: Child,
    folder: TempDir,
    /// As `store.url` takes it.
    pub url: String,
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
        command.args(["--no-defaults", "--skip-networking", "--innodb-buffer-pool-size=32M"]);
        command.args([&data, &user]).args([
            format!("--socket={}", at("socket").display()),
            format!("--pid-file={}", at("pid").display()),
        ]);
        let child = start(&mut command, folder.path());
        let url = format!("mysql://root@localhost/strait?socket={}", at("socket").display());
        let database = Self { child, url, folder };
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
        let Some(programs) = postgres_programs() else {
            skip(test, "PostgreSQL is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // It refuses to run as root.
        run(Command::new("chmod").arg("777").arg(folder.path()), folder.path());
        let as_user = |program: &str| {
            let program = programs.join(program);
            let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
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
        command.args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"]).arg(folder.path());
        let child = start(command.arg("-D").arg(folder.path().join("data")), folder.path());
        let url = format!("postgres://strait@localhost/strait?host={}", folder.path().display());
        let database = Self { child, url, folder };
        database.eventually(|folder| {
            let mut client = Command::new(programs.join("createdb"));
            client.args(["--username=strait", "strait", "--host"]).arg(folder);
            client
        });
        Some(database)
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
    let log = std::fs::File::create(folder.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

fn run(command: &mut Command, folder: &Path) {
    let status = start(command, folder).wait().unwrap();
    assert!(status.success(), "{command:?}\n{}", log(folder));
}
