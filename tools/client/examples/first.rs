//! Joins a scope, sends a tone's worth of empty Opus frames and a message, and prints what comes from the others.

use std::time::{Duration, Instant};
use strait_client::v1::{Kind, Publish, auth::Credential, user_event};
use strait_client::{Client, Config, Descriptor, Error, Event, Frame, Trust};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, certificate, token, name, quic @ ..] = arguments.as_slice() else {
        eprintln!("first HOST PORT CERTIFICATE TOKEN NAME [QUIC_PORT]");
        std::process::exit(2);
    };
    let descriptor = Descriptor {
        config: Config {
            host: host.clone(),
            port: port.parse().unwrap_or(8443),
            credential: Credential::Token(token.clone()),
            scope_id: "lobby".into(),
            name: name.clone(),
            client: "first/1".into(),
            profiles: Vec::new(),
            relay_only: false,
            cluster: None,
        },
        trust: Trust::CaFile(certificate.into()),
        proxy: None,
        udp: true,
        quic: quic.first().and_then(|port| port.parse().ok()),
    };
    let (to_main, events) = std::sync::mpsc::sync_channel(1024);
    let client = Client::connect(descriptor, move |event| drop(to_main.try_send(event)))?;
    let voice = client.publish(Publish {
        kind: Kind::Audio.into(),
        codec: "opus".into(),
        ..Publish::default()
    })?;
    client.send_message("", format!("{name} is here").into_bytes(), true)?;
    let started = Instant::now();
    for frame in 0u32.. {
        // A frame of silence each 20 ms; 960 units of 48 kHz. Before the scope is joined there is nobody to send it to.
        let silence = Frame {
            payload: &[0xf8, 0xff, 0xfe],
            timestamp: frame.wrapping_mul(960),
            marker: frame == 0,
            level: None,
        };
        let _not_yet = client.send(voice, 0, &silence);
        for event in events.try_iter() {
            let wanted: Vec<String> = match &event {
                Event::Payload(_) => continue,
                Event::Joined { peers, resumed: false, .. } => {
                    let all = peers.iter().flat_map(|peer| &peer.publications);
                    all.map(|publication| publication.publication_id.clone()).collect()
                }
                Event::Scope(user_event::Body::Started(started)) => {
                    let publication = started.publication.iter();
                    publication.map(|publication| publication.publication_id.clone()).collect()
                }
                Event::Ended(error) => return Err(error.clone()),
                _ => Vec::new(),
            };
            println!("{event:?}");
            for publication_id in wanted {
                client.subscribe(&publication_id, false)?;
            }
        }
        if frame % 250 == 0 {
            println!("{:?}", client.statistics());
        }
        let next = started + Duration::from_millis(20) * (frame + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}
