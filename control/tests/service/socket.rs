//! A JsonRTC client for tests: it numbers what it sends and checks the numbers of what it gets.
//! It blocks, so tests that use it run on several threads.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::Service;

pub struct Client {
    pub socket: WebSocket<TcpStream>,
    pub session: String,
    pub peer: String,
    pub sent: u64,
    pub received: u64,
    /// Frames that came while another was waited for.
    waiting: VecDeque<Value>,
}

impl Client {
    /// A WebSocket without a session.
    pub fn open(service: &Service, query: &str) -> Self {
        let stream = TcpStream::connect(service.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let url = format!("ws://{}/ws{query}", service.address());
        let mut request = url.into_client_request().unwrap();
        let protocol = "strait.jsonrtc.v1".parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (socket, response) = tungstenite::client(request, stream).unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "strait.jsonrtc.v1");
        Self {
            socket,
            session: String::new(),
            peer: String::new(),
            sent: 0,
            received: 0,
            waiting: VecDeque::new(),
        }
    }

    /// A WebSocket with a session of the development token.
    pub fn connect(service: &Service, name: &str) -> Self {
        let mut client = Self::open(service, "?access_token=dev");
        let header = json!({"action": "CONNECT", "initiator": name});
        let answer = client.ask(json!({}), header, json!({})).unwrap();
        assert_eq!(answer["payload"]["application"], "dev");
        assert_eq!(answer["control"]["message_state"], "final");
        client.session = answer["control"]["session_id"].as_str().unwrap().into();
        client.peer = answer["payload"]["peer"].as_str().unwrap().into();
        client
    }

    /// START of a scope. Returns the subsession and the payload of the response.
    pub fn start(&mut self, scope: &str, payload: Value) -> Result<(String, Value), Value> {
        let header = json!({"action": "START", "target": scope});
        let answer = self.ask(json!({"package_type": "scope"}), header, payload)?;
        let subsession = answer["control"]["subsession_id"].as_str().unwrap().to_owned();
        assert_eq!(subsession, format!("c{}", self.sent));
        Ok((subsession, answer["payload"].clone()))
    }

    /// A request in a subsession. Returns the payload of the response.
    pub fn request(&mut self, sub: &str, action: &str, payload: Value) -> Result<Value, Value> {
        let control = json!({"package_type": "scope", "subsession_id": sub});
        let answer = self.ask(control, json!({"action": action}), payload)?;
        assert_eq!(answer["control"]["subsession_id"], sub);
        Ok(answer["payload"].clone())
    }

    /// A message in a subsession.
    pub fn message(&mut self, sub: &str, action: &str, payload: Value) {
        self.sent += 1;
        let control = json!({"type": "message", "sequence": self.sent, "package_type": "scope",
                             "subsession_id": sub});
        self.send(&json!({"control": control, "header": {"action": action}, "payload": payload}));
    }

    /// Sends a request and waits for what answers it: the response, or the error's headers.
    pub fn ask(&mut self, control: Value, header: Value, payload: Value) -> Result<Value, Value> {
        self.sent += 1;
        let mut frame = json!({"control": control, "header": header, "payload": payload});
        frame["control"]["type"] = "request".into();
        frame["control"]["sequence"] = self.sent.into();
        self.send(&frame);
        let correlation = format!("c{}", self.sent);
        let mut passed = VecDeque::new();
        loop {
            let frame = self.read();
            if frame["control"]["correlation_id"] == correlation.as_str() {
                self.waiting.append(&mut passed);
                return match frame["control"]["type"].as_str().unwrap() {
                    "response" => Ok(frame),
                    _ => Err(frame["header"].clone()),
                };
            }
            passed.push_back(frame);
        }
    }

    /// The next NOTIFY of the server: its payload.
    pub fn event(&mut self) -> Value {
        loop {
            let frame = self.waiting.pop_front().unwrap_or_else(|| self.read());
            if frame["header"]["action"] == "NOTIFY" {
                return frame["payload"].clone();
            }
        }
    }

    /// The next NOTIFY, which must be this one.
    pub fn expect_event(&mut self, name: &str) -> Value {
        let event = self.event();
        assert_eq!(event["event"], name, "{event}");
        event
    }

    pub fn send(&mut self, frame: &Value) {
        self.socket.send(Message::text(frame.to_string())).unwrap();
    }

    /// The next frame; its number must be the next one.
    pub fn read(&mut self) -> Value {
        let frame = self.read_raw().expect("a frame");
        if let Some(sequence) = frame["control"]["sequence"].as_u64() {
            self.received += 1;
            assert_eq!(sequence, self.received, "{frame}");
        }
        frame
    }

    /// The next frame as it is; none when the server closed.
    pub fn read_raw(&mut self) -> Option<Value> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => return None,
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::ConnectionReset =>
                {
                    return None;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Cuts the connection, without a goodbye.
    pub fn cut(self) {
        self.socket.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
    }
}
