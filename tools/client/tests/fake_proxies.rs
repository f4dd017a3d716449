//! The client through fake proxies: each says what a test wants, where Dante and Squid never do.

use crate::sockets::{Member, Server, call};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use strait_client::proxy::{Kind, Proxy};
use strait_client::v1::transport_report::State;
use strait_client::{Descriptor, Error, Event};

/// Keeps what it was asked.
struct FakeProxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeProxy {
    fn start(
        serve: impl Fn(TcpStream, &Mutex<Vec<String>>) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (kept, serve) = (Arc::clone(&asked), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, serve) = (Arc::clone(&kept), Arc::clone(&serve));
                std::thread::spawn(move || drop(serve(stream, &kept)));
            }
        });
        Self { port, asked }
    }

    /// `answer` is given how many heads came, and the last of them. What it says 200 to is let through.
    fn http(answer: impl Fn(usize, &str) -> String + Send + Sync + 'static) -> Self {
        Self::start(move |mut stream, asked| {
            loop {
                let head = head(&mut stream)?;
                let count = {
                    let mut asked = asked.lock().unwrap();
                    asked.push(head.clone());
                    asked.len()
                };
                let answer = answer(count, &head);
                stream.write_all(answer.as_bytes())?;
                if answer.contains("HTTP/1.1 200") {
                    let place = head.split(' ').nth(1).unwrap_or_default();
                    return tunnel(stream, TcpStream::connect(place)?);
                }
            }
        })
    }

    /// Each request is answered by this challenge.
    fn challenging(challenge: &'static str) -> Self {
        Self::http(move |_, _| ask(challenge))
    }

    /// It chooses this method; where that is none, connections lead to the node, and it knows no other command.
    fn socks(method: u8, node: SocketAddr) -> Self {
        Self::start(move |mut stream, asked| {
            let mut hello = [0; 2];
            stream.read_exact(&mut hello)?;
            stream.read_exact(&mut vec![0; hello[1].into()])?;
            stream.write_all(&[5, method])?;
            let mut request = [0; 512];
            let len = stream.read(&mut request)?;
            if method != 0 || len < 4 {
                return Ok(());
            }
            asked.lock().unwrap().push(format!("command {}", request[1]));
            let reply = if request[1] == 1 { 0 } else { 7 };
            stream.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0])?;
            if reply == 0 { tunnel(stream, TcpStream::connect(node)?) } else { Ok(()) }
        })
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn between(&self, server: &Server, kind: Kind, credentials: bool) -> Descriptor {
        let credentials = credentials.then(|| ("ann".to_owned(), "secret".to_owned()));
        let proxy = Proxy { kind, host: "127.0.0.1".into(), port: self.port, credentials };
        Descriptor { proxy: Some(proxy), ..server.descriptor() }
    }
}

fn ask(challenge: &str) -> String {
    format!("HTTP/1.1 407 Who?\r\nProxy-Authenticate: {challenge}\r\nContent-Length: 2\r\n\r\nno")
}

fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn tunnel(one: TcpStream, other: TcpStream) -> std::io::Result<()> {
    let (from, mut to) = (one.try_clone()?, other.try_clone()?);
    std::thread::spawn(move || {
        drop(std::io::copy(&mut &from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Both));
    });
    std::io::copy(&mut &other, &mut &one)?;
    one.shutdown(std::net::Shutdown::Both)
}

fn join(descriptor: Descriptor) -> Member {
    let member = Member::connect(descriptor);
    member.wait("Joined", |event| match event {
        Event::Joined { .. } => Some(()),
        Event::Ended(error) | Event::LinkLost { error, .. } => panic!("not joined: {error}"),
        _ => None,
    });
    member
}

/// Why it is tried again.
fn lost(descriptor: Descriptor) -> Error {
    Member::connect(descriptor).wait("LinkLost", |event| match event {
        Event::LinkLost { error, .. } => Some(error.clone()),
        Event::Ended(error) => panic!("it is not tried again: {error}"),
        _ => None,
    })
}

/// Why it is not tried again.
fn ended(descriptor: Descriptor) -> Error {
    Member::connect(descriptor).wait("Ended", |event| match event {
        Event::Ended(error) => Some(error.clone()),
        Event::LinkLost { error, .. } => panic!("it is tried again: {error}"),
        _ => None,
    })
}

/// RFC 9110 sections 11.6.1 and 15.2.
#[test]
fn a_proxy_may_list_its_challenges_and_say_more_before_200() {
    let server = Server::start(false);
    let proxy = FakeProxy::http(|_, head| {
        let right = r#"realm="one, Basic two=3", nonce="n, \"1\"", uri="#;
        if head.contains("\r\nProxy-Authorization: Digest ") && head.contains(right) {
            let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
            return format!("HTTP/1.1 100 Continue\r\n\r\n{early}HTTP/1.1 200 Fine\r\n\r\n");
        }
        ask("Negotiate, NTLM TlRM==, , Basic realm=\"b, Digest realm=x\",Digest realm = \
             \"one, Basic two=3\" , nonce=\"n, \\\"1\\\"\", qop=\"auth, auth-int\",\
             algorithm=SHA-256, Digest realm=\"old\", nonce=\"n2\", algorithm=MD5")
    });
    drop(join(proxy.between(&server, Kind::Http, true)));
}

#[test]
fn what_a_proxy_says_before_200_has_an_end() {
    let server = Server::start(false);
    let proxy = FakeProxy::http(|_, _| "HTTP/1.1 102 Processing\r\n\r\n".repeat(100));
    let error = lost(proxy.between(&server, Kind::Http, true));
    assert!(matches!(&error, Error::Proxy(why) if why.contains("102")), "{error}");
}

#[test]
fn a_nonce_is_stale_once() {
    let server = Server::start(false);
    let challenge =
        |count| ask(&format!("Digest realm=\"r\", nonce=\"n{count}\", qop=\"auth\", stale=true"));
    let once = FakeProxy::http(move |count, head| match head.contains("nonce=\"n2\"") {
        true => "HTTP/1.1 200 Fine\r\n\r\n".into(),
        false => challenge(count),
    });
    drop(join(once.between(&server, Kind::Http, true)));
    let always = FakeProxy::http(move |count, _| challenge(count));
    assert_eq!(ended(always.between(&server, Kind::Http, true)), Error::ProxyCredentials);
    assert_eq!(always.count(), 3);
}

#[test]
fn kinds_of_credentials_that_are_not_known_end_it() {
    let server = Server::start(false);
    for (challenge, words) in [
        ("NTLM", "NTLM"),
        ("Digest realm=r, nonce=n, algorithm=MD5-sess", "algorithm=MD5-sess"),
        ("Digest realm=r, nonce=n, algorithm=SHA-512-256, qop=\"auth\"", "algorithm=SHA-512-256"),
        ("Digest realm=r, nonce=n, qop=\"auth-int\", NTLM", "qop=auth-int, NTLM"),
    ] {
        let proxy = FakeProxy::challenging(challenge);
        let error = ended(proxy.between(&server, Kind::Http, true));
        let Error::ProxyNeedsCredentials(why) = &error else { panic!("{challenge}: {error:?}") };
        assert!(why.contains(words) && why.contains("SHA-256 with qop=auth"), "{error}");
        assert_eq!(proxy.count(), 1);
    }
    for method in [1, 0xff] {
        let proxy = FakeProxy::socks(method, server.address);
        let error = ended(proxy.between(&server, Kind::Socks5, true));
        let Error::ProxyNeedsCredentials(why) = &error else { panic!("{method}: {error:?}") };
        assert!(why.contains("GSSAPI"), "{error}");
    }
}

#[test]
fn control_characters_of_a_challenge_are_not_repeated() {
    let server = Server::start(false);
    let proxy = FakeProxy::challenging("Digest realm=\"r\", nonce=\"n\x01\", qop=\"auth\"");
    let error = lost(proxy.between(&server, Kind::Http, true));
    let named = matches!(&error, Error::Proxy(why) if why.contains("n\\u{1}"));
    assert!(named, "{error:?}");
    let asked = proxy.asked.lock().unwrap();
    assert!(asked.iter().all(|head| !head.contains('\x01')), "{asked:?}");
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let server = Server::start(false);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for kind in [Kind::Http, Kind::Socks5] {
        let nobody = FakeProxy { port, asked: Arc::default() };
        let error = lost(nobody.between(&server, kind, true));
        let place = format!("127.0.0.1:{port}");
        assert!(matches!(&error, Error::Proxy(why) if why.contains(&place)), "{error:?}");
    }
}

#[test]
fn without_datagrams_none_are_asked_for() {
    let server = Server::start(true);
    let proxy = FakeProxy::socks(0, server.address);
    let with = proxy.between(&server, Kind::Socks5, false);
    drop(join(with.clone()));
    let is_udp = |asked: &String| asked == "command 3";
    assert!(proxy.asked.lock().unwrap().iter().any(is_udp));
    proxy.asked.lock().unwrap().clear();
    let without = Descriptor { udp: false, ..with };
    call(&without, &without, State::Link, State::Link);
    let asked = proxy.asked.lock().unwrap();
    assert!(!asked.is_empty() && !asked.iter().any(is_udp), "{asked:?}");
}
