use super::*;

/// Names of the records that a file declares.
fn declared(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let line = line.strip_prefix("    ")?.trim_end_matches('}').strip_suffix('{')?;
        let name = line.split(" => ").next()?.split_once(" \"")?.1;
        name.trim_end().strip_suffix('"').filter(|_| !line.starts_with(' '))
    })
}

#[test]
fn the_document_is_what_the_code_says() {
    let (docs, reference) = (include_str!("../../../../docs/reference/invoke.md"), reference());
    assert!(docs.ends_with(&reference), "docs/reference/invoke.md is to end with:\n{reference}");
    let sources = [include_str!("request.rs"), include_str!("event.rs")];
    let names: Vec<&str> = sources.iter().flat_map(|source| declared(source)).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        assert!(reference.contains(&format!("\n### `{name}`\n")), "{name} is not in the reference");
    }
}

fn nobody() -> Invoke {
    Invoke::new(|_| panic!("nothing is to be told"))
}

#[test]
fn each_method_of_the_document_is_one() {
    let reference = reference();
    let methods = reference.split("## Events").next().unwrap();
    let methods: Vec<&str> =
        methods.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    assert_eq!(methods.len(), 13);
    for method in methods {
        let (code, answer) = nobody().invoke(&json!({ "method": method }).to_string());
        assert!(matches!(code, Code::Malformed | Code::NotJoined), "{method}: {answer}");
        // A field that there is not.
        let (code, answer) = nobody().invoke(&json!({ "method": method, "x": 1 }).to_string());
        assert_eq!(code, Code::Malformed, "{method}: {answer}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let connect = |more: &str| {
        format!(r#"{{"method":"connect","host":"::1","port":1,"scope_id":"s",{more}}}"#)
    };
    for (request, code, words) in [
        ("", Code::Malformed, "the request"),
        ("[]", Code::Malformed, "the request"),
        ("{}", Code::Malformed, "no method"),
        (r#"{"method":1}"#, Code::Malformed, "no method"),
        (r#"{"method":"fly"}"#, Code::UnknownMethod, "no method fly"),
        (r#"{"method":"leave"}"#, Code::NotJoined, "joined"),
        (r#"{"method":"publish","kind":"smell","codec":"opus"}"#, Code::Malformed, "audio, video"),
        (r#"{"method":"publish","kind":"audio"}"#, Code::Malformed, "codec"),
        (r#"{"method":"unpublish","handle":-1}"#, Code::Malformed, "handle|-1"),
        (r#"{"method":"send_message"}"#, Code::Malformed, "one of text and data"),
        (r#"{"method":"send_message","data":"!"}"#, Code::Malformed, "base 64"),
        (&connect(r#""name":"x""#), Code::Malformed, "one of token and signed"),
        (&connect(r#""token":"t","fingerprint":"00""#), Code::Malformed, "fingerprint"),
        (&connect(r#""token":"t","ca_file":"/nowhere/x.pem""#), Code::Certificate, "/nowhere"),
        (
            &connect(r#""token":"t","proxy":{"kind":"ftp","host":"h","port":1}"#),
            Code::Malformed,
            "socks5 or http",
        ),
        (
            &connect(r#""token":"t","proxy":{"kind":"http","host":"h","port":1,"user":"u"}"#),
            Code::Malformed,
            "together",
        ),
        (
            &connect(
                r#""token":"t","proxy":{"kind":"http","host":"h","port":1,"user":"a\r\nX: 1","password":"p"}"#,
            ),
            Code::Malformed,
            "the proxy's user",
        ),
        (
            &connect(
                r#""token":"t","proxy":{"kind":"socks5","host":"h","port":1,"user":"a","password":"\u0001"}"#,
            ),
            Code::Malformed,
            "the proxy's password",
        ),
        (
            &connect(r#""token":"t","proxy":{"kind":"http","host":"","port":1}"#),
            Code::Malformed,
            "the proxy",
        ),
        (&connect(r#""token":"t","resolvers":["cnc.example"]"#), Code::Malformed, "https://HOST"),
        (
            &connect(r#""token":"t","resolvers":["http://cnc.example"]"#),
            Code::Malformed,
            "insecure_resolvers",
        ),
        (
            r#"{"method":"connect","scope_id":"s","token":"t"}"#,
            Code::Malformed,
            "host and port together, or resolvers",
        ),
        (&" ".repeat(REQUEST_BYTES + 1), Code::TooLarge, "a request of"),
        (&"[".repeat(REQUEST_BYTES), Code::Malformed, "the request"),
    ] {
        let (found, answer) = nobody().invoke(request);
        let request = &request[..request.len().min(100)];
        assert_eq!(found, code, "{request}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["error"]["code"], code.name());
        let reason = answer["error"]["reason"].as_str().unwrap();
        assert!(words.split('|').any(|word| reason.contains(word)), "{request}: {reason}");
    }
}

#[test]
fn a_host_that_is_none_is_refused_at_once() {
    for host in ["", " ", "https://node", "10.0.0.1:8443", "[::1]", "a b", "a\n", &"x".repeat(300)]
    {
        let request = json!({
            "method": "connect", "host": host, "port": 1, "scope_id": "s", "token": "t",
            "fingerprint": "0f".repeat(32),
        });
        let (code, answer) = nobody().invoke(&request.to_string());
        assert_eq!(code, Code::Malformed, "{host:?}: {answer}");
        assert!(answer.contains("the host"), "{answer}");
    }
}

#[test]
fn who_was_closed_does_not_connect() {
    let client = nobody();
    client.close();
    let request = r#"{"method":"connect","host":"::1","port":1,"scope_id":"s","token":"t","fingerprint":"F"}"#
        .replace('F', &"0f".repeat(32));
    assert_eq!(client.invoke(&request).0, Code::Ended);
}

#[test]
fn events_are_as_documented() {
    let to_value =
        |event| -> Value { serde_json::from_str(&event::to_json(event).unwrap()).unwrap() };
    let publication = v1::Publication {
        publication_id: "pub-1".into(),
        kind: v1::Kind::Audio.into(),
        source: v1::Source::ScreenAudio.into(),
        codec: "opus".into(),
        ..v1::Publication::default()
    };
    let peer =
        v1::Peer { peer_id: "p-2".into(), name: "Bob".into(), publications: vec![publication] };
    let joined = Event::Joined { peer_id: "p-1".into(), resumed: false, peers: vec![peer] };
    let shown = json!({
        "publication_id": "pub-1", "kind": "audio", "source": "screen-audio", "name": "", "muted": false, "codec": "opus",
    });
    assert_eq!(
        to_value(joined),
        json!({ "event": "joined", "peer_id": "p-1", "resumed": false, "peers": [
            { "peer_id": "p-2", "name": "Bob", "publications": [shown] },
        ]})
    );
    let reason = "no such publication".to_owned();
    let error = Error::Refused { code: v1::ErrorCode::NotFound, reason: reason.clone() };
    assert_eq!(
        to_value(Event::Refused { handle: 7, error }),
        json!({ "event": "refused", "handle": 7, "code": "NOT_FOUND", "reason": reason })
    );
    let message = |payload: &[u8], text| Event::Message {
        from: "p-2".into(),
        payload: payload.into(),
        text,
        direct: true,
    };
    assert_eq!(to_value(message("grüß".as_bytes(), true))["text"], "grüß");
    assert_eq!(to_value(message(b"foo", false))["data"], "Zm9v");
    assert_eq!(to_value(message(&[0xff], true))["data"], "/w==");
    let moved = Event::Moved { node: "[::1]:8443".into() };
    assert_eq!(to_value(moved), json!({ "event": "moved", "node": "[::1]:8443" }));
    let transport = Event::Transport(v1::transport_report::State::UdpRelay);
    assert_eq!(to_value(transport), json!({ "event": "transport", "state": "udp_relay" }));
    let statistics = Event::Statistics { handle: 1, json: r#"{"rtt":1.5}"#.into() };
    assert_eq!(to_value(statistics)["statistics"]["rtt"], 1.5);
}
