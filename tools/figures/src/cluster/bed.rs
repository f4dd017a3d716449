//! A cluster on this machine for the time of a measurement, by `strait cluster`.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;
use crate::setup::{TOKEN, beside_us};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Ports of its nodes, beside those of a setup for people.
const HTTPS_PORT: u16 = 18_443;
const HTTP_PORT: u16 = 18_080;

/// A running cluster of three nodes.
pub struct Bed {
    program: PathBuf,
    state: TempDir,
}

impl Bed {
    /// Starts it, and returns when it is ready.
    pub fn up() -> io::Result<Self> {
        let bed = Self { program: beside_us("strait")?, state: tempfile::tempdir()? };
        let (https, http) = (HTTPS_PORT.to_string(), HTTP_PORT.to_string());
        let ports = ["--https-port", &https, "--http-port", &http];
        bed.strait(&[&["up", "--log", "warn", "--token", TOKEN], ports.as_slice()].concat())?;
        Ok(bed)
    }

    /// Where plain HTTP of a node is; the first is 1.
    pub fn http(&self, node: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 1, node], HTTP_PORT))
    }

    /// The certificates of its nodes.
    pub fn certificates(&self) -> PathBuf {
        self.state.path().join("c/certificates.pem")
    }

    /// Lets pages of any origin ask the CnCs, as applications have their own.
    pub fn allow_pages(&self, nodes: u8) -> io::Result<()> {
        for node in 1..=nodes {
            let path = self.state.path().join(format!("c/node-{node}/control.toml"));
            let text = fs::read_to_string(&path)?;
            fs::write(&path, text.replace("[http]\n", "[http]\ncors_origins = [\"*\"]\n"))?;
            let name = format!("control-{node}");
            self.strait(&["kill", &name])?;
            self.strait(&["start", &name])?;
        }
        Ok(())
    }

    /// Carries out `strait cluster` with these words, and returns what it says.
    pub fn strait(&self, words: &[&str]) -> io::Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("cluster").args(words).arg("--state-dir").arg(self.state.path().join("c"));
        let output = command.stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("strait cluster {}: {}", words.join(" "), said.trim())))
    }

    /// The token that opens the API.
    pub fn operator_token(&self) -> io::Result<String> {
        let told: serde_json::Value = serde_json::from_str(&self.strait(&["status", "--json"])?)?;
        let token = told.get("operator_token").and_then(serde_json::Value::as_str);
        token.map(ToOwned::to_owned).ok_or_else(|| io::Error::other("there is no operator token"))
    }

    /// What the API of the first node answers.
    pub fn get(&self, path: &str, token: &str) -> io::Result<serde_json::Value> {
        let mut stream = TcpStream::connect_timeout(&self.http(1), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\n\r\n",
            self.http(1)
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        match head.split(' ').nth(1) {
            Some("200") => Ok(serde_json::from_str(body)?),
            _ => Err(io::Error::other(format!("{path}: {answer}"))),
        }
    }

    /// The process of a part.
    pub fn process(&self, name: &str) -> io::Result<Process> {
        let told: serde_json::Value = serde_json::from_str(&self.strait(&["status", "--json"])?)?;
        let parts = told.get("parts").and_then(serde_json::Value::as_array);
        let part = parts.into_iter().flatten().find(|part| part["part"] == name);
        let pid = part.and_then(|part| part["pid"].as_u64()).and_then(|pid| pid.try_into().ok());
        let pid = pid.ok_or_else(|| io::Error::other(format!("{name} does not run")))?;
        Ok(Process::of(name, pid))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Err(error) = self.strait(&["down"]) {
            eprintln!("{error}");
        }
    }
}

/// A connection that asks again and again.
pub struct Asker {
    address: SocketAddr,
    reader: BufReader<TcpStream>,
}

impl Asker {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { address, reader: BufReader::new(stream) })
    }

    /// The node of a scope: status and body.
    pub fn resolve(&mut self, scope: &str) -> io::Result<(u16, String)> {
        let request = format!(
            "GET /resolve?applicationId=dev&scopeId={scope} HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.address
        );
        self.reader.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        let (mut status, mut length) = (None, None);
        loop {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let words = line.trim_end().to_ascii_lowercase();
            if words.is_empty() {
                break;
            }
            match status {
                None => status = words.split(' ').nth(1).and_then(|code| code.parse().ok()),
                Some(_) => {
                    if let Some(value) = words.strip_prefix("content-length:") {
                        length = value.trim().parse().ok();
                    }
                }
            }
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no answer of HTTP");
        let (status, length): (u16, usize) = (status.ok_or_else(wrong)?, length.ok_or_else(wrong)?);
        let mut body = vec![0; length.min(64 << 10)];
        self.reader.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
    }
}
