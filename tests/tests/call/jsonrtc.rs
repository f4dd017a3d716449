//! A small JsonRTC client (docs/reference/jsonrtc.md).

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// A connection, encrypted or not.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

pub struct Link {
    socket: WebSocket<Box<dyn Stream>>,
    sent: u64,
    events: VecDeque<Value>,
}

impl Link {
    /// A session of the development token over plain HTTP.
    pub fn connect(http: SocketAddr, name: &str) -> Self {
        let stream = TcpStream::connect(http).expect("control listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Self::over(Box::new(stream), &format!("ws://{http}"), name)
    }

    /// A session of the development token.
    pub fn over(stream: Box<dyn Stream>, origin: &str, name: &str) -> Self {
        let url = format!("{origin}/ws?access_token=dev");
        let (socket, _) = match tungstenite::client(url, stream) {
            Ok(opened) => opened,
            Err(error) => panic!("no WebSocket: {error}"),
        };
        let mut link = Self { socket, sent: 0, events: VecDeque::new() };
        link.request(json!({}), json!({"action": "CONNECT", "initiator": name}), json!({}));
        link
    }

    /// START of a scope: the subsession and the payload of the answer.
    pub fn start(&mut self, scope: &str, payload: Value) -> (String, Value) {
        let header = json!({"action": "START", "target": scope});
        let frame = self.request(json!({"package_type": "scope"}), header, payload);
        let subsession = frame["control"]["subsession_id"].as_str().expect("a subsession");
        (subsession.to_owned(), frame["payload"].clone())
    }

    /// UPDATE of a subsession: the payload of the answer.
    pub fn update(&mut self, subsession: &str, payload: Value) -> Value {
        let control = json!({"package_type": "scope", "subsession_id": subsession});
        self.request(control, json!({"action": "UPDATE"}), payload)["payload"].clone()
    }

    /// The next event of this name; others before it are passed over.
    pub fn event(&mut self, name: &str) -> Value {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.read()["payload"].clone(),
            };
            if event["event"] == name {
                return event;
            }
        }
    }

    fn request(&mut self, mut control: Value, header: Value, payload: Value) -> Value {
        self.sent += 1;
        control["type"] = "request".into();
        control["sequence"] = self.sent.into();
        let frame = json!({"control": control, "header": header, "payload": payload});
        self.socket.send(Message::text(frame.to_string())).expect("a frame goes out");
        loop {
            let frame = self.read();
            if frame["control"]["correlation_id"] == format!("c{}", self.sent) {
                assert_eq!(frame["control"]["type"], "response", "{frame}");
                return frame;
            }
            self.events.push_back(frame["payload"].clone());
        }
    }

    fn read(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.read().expect("a frame") {
                return serde_json::from_str(&text).expect("JSON");
            }
        }
    }
}
