//! Joins a scope without media; says what it reads and prints what it hears. A line is `TO TEXT`, with `*` for all others.
//! What it prints is JSON: `{"joined": PEER}`, then `{"from", "direct", "text"}` or, of bytes, `"data"` as numbers.

use std::io::BufRead as _;
use strait_client::v1::auth::Credential;
use strait_client::{Client, Config, Descriptor, Error, Event, Trust};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, certificate, token, scope, name] = arguments.as_slice() else {
        eprintln!("messages HOST PORT CERTIFICATE TOKEN SCOPE NAME");
        std::process::exit(2);
    };
    let descriptor = Descriptor {
        config: Config {
            host: host.clone(),
            port: port.parse().unwrap_or(8443),
            credential: Credential::Token(token.clone()),
            scope_id: scope.clone(),
            name: name.clone(),
            client: "messages/1".into(),
            profiles: Vec::new(),
            relay_only: true,
            cluster: None,
        },
        trust: Trust::CaFile(certificate.into()),
        proxy: None,
        udp: true,
        quic: None,
    };
    let client = Client::connect(descriptor, |event| match event {
        Event::Joined { peer_id, resumed: false, .. } => {
            println!("{}", serde_json::json!({"joined": peer_id}));
        }
        Event::Message { from, payload, text, direct } => {
            let said = match (text, String::from_utf8(payload)) {
                (true, Ok(text)) => serde_json::json!({"text": text}),
                (_, payload) => {
                    let bytes = payload.map_or_else(|other| other.into_bytes(), String::into_bytes);
                    serde_json::json!({"data": bytes})
                }
            };
            let mut line = serde_json::json!({"from": from, "direct": direct});
            if let (Some(line), Some(said)) = (line.as_object_mut(), said.as_object()) {
                line.extend(said.clone());
            }
            println!("{line}");
        }
        // It ended itself: nothing more to read.
        Event::Ended(Error::Ended) => {}
        Event::Ended(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
        _ => {}
    })?;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (to, text) = line.split_once(' ').unwrap_or(("*", &line));
        let to = if to == "*" { "" } else { to };
        client.send_message(to, text.as_bytes().to_vec(), true)?;
    }
    Ok(())
}
