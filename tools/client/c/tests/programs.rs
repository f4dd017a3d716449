//! C programs: how they are made and run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-g"];
/// What the Rust library in an archive needs of the system. Kerberos is for the feature `negotiate`, which
/// all that is built for tests has.
const SYSTEM: [&str; 5] = ["-lpthread", "-ldl", "-lm", "-lgcc_s", "-lgssapi_krb5"];

#[derive(Clone, Copy)]
pub enum Library {
    Shared,
    Archive,
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where Cargo puts the libraries for this test: beside it.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().to_owned()
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{command:?}: {said}");
}

/// Compiles the header alone, twice included.
pub fn compile_header(compiler: &str, language: &[&str]) {
    let folder = folder();
    let source = folder.path().join("header");
    std::fs::write(&source, "#include \"strait.h\"\n#include \"strait.h\"\n").unwrap();
    let mut command = Command::new(compiler);
    command.args(language).args(STRICT).arg("-fsyntax-only").arg("-I").arg(here().join("include"));
    succeed(command.arg(&source));
}

/// A program of this folder.
pub fn compile(source: &str, library: Library, into: &Path) -> PathBuf {
    let libraries = libraries();
    let program = into.join(match library {
        Library::Shared => "shared",
        Library::Archive => "archive",
    });
    let mut command = Command::new("cc");
    command.args(["-std=c99"]).args(STRICT).arg("-I").arg(here().join("include"));
    command.arg(here().join(source)).arg("-o").arg(&program);
    match library {
        Library::Shared => {
            let so = libraries.join("libstrait.so");
            command.arg(so).arg(format!("-Wl,-rpath,{}", libraries.display()));
        }
        Library::Archive => {
            command.arg(libraries.join("libstrait.a"));
        }
    }
    succeed(command.args(SYSTEM));
    program
}

/// Runs a program to its end, which must come in time.
pub fn run(program: &Path, arguments: &[String], patience: Duration) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + patience;
    // What these programs say fits into a pipe.
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= end {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            panic!("{program:?} did not end within {patience:?}: {said}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}
