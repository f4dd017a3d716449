//! `strait probe` calls a real node, and tells a webhook that it fails and works again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use strait_link::v1::{Redirect, ServerMessage, server_message::Body};
use strait_tests::node::{Node, Place};

const SECRET: &str = "whsec-test";

/// Kills it at the end of a test.
struct Probe(Child);

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn probe(node: SocketAddr, certificate: &std::path::Path, further: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
    command.arg("probe").args(["--node", &node.to_string()]);
    command.arg("--ca-file").arg(certificate).args(further);
    command
}

#[test]
fn a_call_on_a_node_is_good_and_on_none_fails() {
    let node = Node::start();
    let output = probe(node.https(), &node.certificate(), &["--once"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("good: joined in"), "{said}");
    let output =
        probe(node.https(), &node.certificate(), &["--once", "--token", "wrong"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && said.contains("FAILED"), "{said}");
}

#[test]
fn a_node_that_sends_its_clients_on_is_not_followed_and_has_not_failed() {
    let folder = tempfile::tempdir().unwrap();
    let next = Node::start_in(folder.path(), &Place::default());
    let address = full(folder.path(), next.https().port());
    let output = probe(address, &next.certificate(), &["--once"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let there = format!("not called: it sends its clients on to localhost:{}", next.https().port());
    assert!(output.status.success() && said.contains(&there), "{said}");
}

/// A stand-in for a node that is full, with the certificate of another one: it sends everybody on to that.
fn full(folder: &Path, port: u16) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_file(folder.join("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    let mut config = config.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![strait_link::ALPN.to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let mut asked = [0; 4096];
            if stream.read(&mut asked).is_err() {
                continue;
            }
            let body =
                Some(Body::Redirect(Redirect { host: "localhost".into(), port: port.into() }));
            let mut bytes = Vec::new();
            // The client's first request.
            strait_link::encode(&ServerMessage { request: 1, body }, &mut bytes);
            let _gone = stream.write_all(&bytes);
            let _closed = stream.read(&mut asked);
        }
    });
    address
}

#[test]
fn who_is_called_hears_of_a_failure_and_of_its_end() {
    let folder = tempfile::tempdir().unwrap();
    // Its certificate stays in the folder; at its later address there is nobody yet.
    let certificate = Node::start_in(folder.path(), &Place::default()).certificate();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = Place { port: address.port(), ..Place::default() };
    let (webhook, told) = receiver();
    let url = format!("http://{webhook}/alerts");
    let further = ["--interval", "1", "--webhook", &url];
    let mut command = probe(address, &certificate, &further);
    command.env("STRAIT_WEBHOOK_SECRET", SECRET).stdout(Stdio::null());
    let _probe = Probe(command.spawn().unwrap());

    // Each call of a node that is not there takes ten seconds, and one alone is not told.
    let (signature, body) = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(body.contains(r#""event":"node_fails""#), "{body}");
    let (time, tag) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    assert_eq!(tag, expected(time, &body));

    let _node = Node::start_in(folder.path(), &place);
    let (_, body) = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(body.contains(r#""event":"node_works""#), "{body}");
}

/// What another program calculates.
fn expected(time: &str, body: &str) -> String {
    let program = "import hmac,sys; \
                   print(hmac.new(sys.argv[1].encode(), sys.argv[2].encode(), 'sha256').hexdigest())";
    let output = Command::new("python3")
        .args(["-c", program, SECRET, &format!("{time}.{body}")])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A server for webhooks: what it got, as signature and body.
fn receiver() -> (SocketAddr, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (to_test, told) = sync_channel(16);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let (mut signature, mut length) = (String::new(), 0);
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.strip_prefix("Strait-Signature: ") {
                    signature = value.trim().to_owned();
                }
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            if to_test.send((signature, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    (address, told)
}
