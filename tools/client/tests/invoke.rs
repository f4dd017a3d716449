//! A call by requests and events that are text, over real sockets, against the fake node.

use crate::sockets::{PATIENCE, Server};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;
use strait_client::Frame;
use strait_client::invoke::code::Code;
use strait_client::invoke::{Invoke, Told};

struct Member {
    client: Invoke,
    told: Receiver<String>,
}

impl Member {
    fn connect(server: &Server, name: &str) -> Self {
        let (to, told) = sync_channel(4096);
        let client = Invoke::new(move |what| {
            let text = match what {
                Told::Event(text) => text,
                Told::Media(media) => {
                    format!("media of {} {:?}", media.subscription_id, media.payload)
                }
            };
            drop(to.try_send(text));
        });
        let member = Self { client, told };
        let (port, file) = (server.address.port(), server.certificate.path().display());
        member.ask(&format!(
            r#"{{"method":"connect","host":"localhost","port":{port},"scope_id":"room","token":"token","ca_file":"{file}","name":"{name}"}}"#
        ));
        member
    }

    fn ask(&self, request: &str) -> String {
        let (code, answer) = self.client.invoke(request);
        assert_eq!(code, Code::Ok, "{request}: {answer}");
        answer
    }

    fn wait(&self, what: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(text) = self.told.recv_timeout(left) else {
                panic!("no {what}, but {others:?}")
            };
            if text.contains(what) {
                return text;
            }
            others.push(text);
        }
    }
}

/// The string of a field.
fn field(json: &str, name: &str) -> String {
    let value = json.split_once(&format!(r#""{name}":""#)).expect(name).1;
    value.split('"').next().unwrap().to_owned()
}

#[test]
fn a_call_by_requests_alone() {
    let server = Server::start(true);
    let ann = Member::connect(&server, "ann");
    let publish = r#"{"method":"publish","kind":"audio","codec":"opus"}"#;
    let handle = ann.ask(publish);
    let handle: u32 = handle.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    ann.wait(r#""event":"joined""#);
    ann.wait(&format!(r#""event":"published","handle":{handle}"#));
    let bob = Member::connect(&server, "bob");
    let id = field(&bob.wait(r#""event":"joined""#), "publication_id");
    bob.wait(r#"{"event":"transport","state":"udp_relay"}"#);
    bob.ask(&format!(r#"{{"method":"subscribe","publication_id":"{id}","as_sent":true}}"#));
    let subscription = field(&bob.wait(r#""event":"subscribed""#), "subscription_id");

    let frame = Frame { payload: &[1, 2, 3], timestamp: 960, marker: true, level: None };
    ann.client.send(handle, 0, &frame).unwrap();
    bob.wait(&format!("media of {subscription} [1, 2, 3]"));
    assert_eq!(ann.client.send(handle, 1, &frame).unwrap_err().number, Code::Unknown);
    let statistics = bob.ask(r#"{"method":"statistics"}"#);
    assert!(statistics.contains(r#""packets":1"#), "{statistics}");

    let number = ann.ask(r#"{"method":"send_message","text":"hello \u00e9"}"#);
    assert_eq!(number, r#"{"number":1}"#);
    let message = bob.wait(r#""event":"message""#);
    assert_eq!(
        (field(&message, "text").as_str(), message.contains("direct\":false")),
        ("hello é", true)
    );
    ann.ask(r#"{"method":"send_message","data":"AP8="}"#);
    assert_eq!(field(&bob.wait(r#""event":"message""#), "data"), "AP8=");

    bob.ask(r#"{"method":"subscribe","publication_id":"nothing"}"#);
    bob.wait(r#""code":"NOT_FOUND""#);
    ann.ask(r#"{"method":"leave"}"#);
    ann.wait(r#""event":"ended","code":"ENDED""#);
    assert_eq!(ann.client.invoke(publish).0, Code::Ended);
    bob.client.close();
    assert_eq!(bob.client.invoke(publish).0, Code::Ended);
}

#[test]
fn who_leaves_by_a_request_is_told_what_the_node_did_not_take() {
    let server = Server::start(true);
    let ann = Member::connect(&server, "ann");
    ann.wait(r#""event":"joined""#);
    server.node.lock().unwrap().slow = true;
    for number in 1..=2 {
        let answer = ann.ask(r#"{"method":"send_message","text":"hello"}"#);
        assert_eq!(answer, format!(r#"{{"number":{number}}}"#));
    }
    ann.ask(r#"{"method":"leave"}"#);
    let (code, _) = ann.client.invoke(r#"{"method":"send_message","text":"more"}"#);
    assert_eq!(code, Code::Ended);
    ann.wait(r#"{"event":"unconfirmed","numbers":[1,2]}"#);
    ann.wait(r#""event":"ended","code":"ENDED""#);
}
