//! One frame: control headers, general headers, payload.

use serde_json::{Map, Value, json};

use crate::fault::Fault;
use crate::limits;

/// A frame that a client sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Control headers.
    pub control: Control,
    /// What it asks for.
    pub action: Action,
    /// General headers, `action` included.
    pub header: Map<String, Value>,
    /// Payload; null where there is none.
    pub payload: Value,
}

/// Control headers of a client's frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// What kind of frame.
    pub frame_type: FrameType,
    /// Session, when the client wrote it.
    pub session_id: Option<String>,
    /// Number of the frame in the client's series.
    pub sequence: Option<u64>,
    /// All frames of the server up to this one have arrived.
    pub ack_sequence: Option<u64>,
    /// Package.
    pub package_type: Option<String>,
    /// Subsession.
    pub subsession_id: Option<String>,
    /// The frame that this one answers.
    pub correlation_id: Option<String>,
}

/// What kind of frame it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameType {
    /// Wants a response.
    Request,
    /// Answers a request.
    Response,
    /// Wants none.
    Message,
    /// Acknowledges and does nothing else.
    Acknowledgement,
    /// Says that a frame was refused.
    Error,
}

/// How far a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageState {
    /// More follows.
    Subsequent,
    /// This is all.
    Final,
}

/// What a frame asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open or resume a session.
    Connect,
    /// Open a subsession.
    Start,
    /// Change a subsession.
    Update,
    /// The answer of a START is applied.
    Complete,
    /// Tell something.
    Notify,
    /// End a subsession.
    Shutdown,
    /// Keep-alive of clients that cannot send WebSocket pings.
    Ping,
    /// None: acknowledgements have nothing to ask.
    None,
}

/// What is wrong with a frame. Never the end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameError {
    /// Why.
    pub fault: Fault,
    /// Number of the frame, where it could be read.
    pub sequence: Option<u64>,
    /// Action of the frame, where it could be read.
    pub action: Option<String>,
}

impl Frame {
    /// Reads a frame.
    ///
    /// # Errors
    /// [`FrameError`] with code 400 or 413.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let fail = |sequence: Option<u64>, action: Option<&str>, reason: &str| FrameError {
            fault: Fault::malformed(reason),
            sequence,
            action: action.map(|action| action.chars().take(32).collect()),
        };
        if text.len() > limits::FRAME_BYTES {
            let fault = Fault::too_large("the frame is larger than 256 KiB; send less at a time");
            // Its number counts all the same, or the series could never go on. The WebSocket bounds
            // what is read here.
            let root: Value = serde_json::from_str(text).unwrap_or_default();
            let control = root.get("control").and_then(Value::as_object);
            let sequence = control.and_then(|control| number(control, "sequence").ok().flatten());
            return Err(FrameError { fault, sequence, action: None });
        }
        let mut root = match serde_json::from_str(text) {
            Ok(Value::Object(root)) => root,
            Ok(_) => return Err(fail(None, None, "the frame is no JSON object")),
            Err(error) => return Err(fail(None, None, &format!("the frame is no JSON: {error}"))),
        };
        let Some(Value::Object(control)) = root.get("control") else {
            return Err(fail(None, None, "the frame has no control object"));
        };
        let sequence = match number(control, "sequence") {
            Ok(sequence) => sequence,
            Err(reason) => return Err(fail(None, None, &reason)),
        };
        let header = match root.get("header") {
            Some(Value::Object(header)) => header.clone(),
            None => Map::new(),
            Some(_) => return Err(fail(sequence, None, "header is no object")),
        };
        let action_text = header.get("action").and_then(Value::as_str);
        let fail = |reason: &str| fail(sequence, action_text, reason);
        let frame_type = match control.get("type").and_then(Value::as_str) {
            Some("request") => FrameType::Request,
            Some("response") => FrameType::Response,
            Some("message") => FrameType::Message,
            Some("acknowledgement") => FrameType::Acknowledgement,
            Some("error") => FrameType::Error,
            _ => {
                return Err(fail(
                    "control.type must be request, response, message, acknowledgement or error",
                ));
            }
        };
        let action = match action_text.map(str::to_ascii_uppercase).as_deref() {
            Some("CONNECT") => Action::Connect,
            Some("START") => Action::Start,
            Some("UPDATE") => Action::Update,
            Some("COMPLETE") => Action::Complete,
            Some("NOTIFY") => Action::Notify,
            Some("SHUTDOWN") => Action::Shutdown,
            Some("PING") => Action::Ping,
            _ if matches!(
                frame_type,
                FrameType::Acknowledgement | FrameType::Error | FrameType::Response
            ) =>
            {
                Action::None
            }
            Some(_) => {
                return Err(fail(
                    "header.action is unknown; CONNECT, START, UPDATE, COMPLETE, NOTIFY and \
                     SHUTDOWN are known",
                ));
            }
            None => return Err(fail("header.action is missing")),
        };
        let text = |name: &str| match control.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() <= 128 => Ok(Some(text.clone())),
            Some(_) => Err(fail(&format!("control.{name} must be a text of at most 128 bytes"))),
        };
        let control = Control {
            frame_type,
            session_id: text("session_id")?,
            sequence,
            ack_sequence: number(control, "ack_sequence").map_err(|reason| fail(&reason))?,
            package_type: text("package_type")?,
            subsession_id: text("subsession_id")?,
            correlation_id: text("correlation_id")?,
        };
        let payload = root.remove("payload").unwrap_or(Value::Null);
        Ok(Self { control, action, header, payload })
    }

    /// A general header that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.header.get(name).and_then(Value::as_str)
    }

    /// A general header that is a number, or a number written as text.
    ///
    /// # Errors
    /// A sentence, when it is something else.
    pub fn number(&self, name: &str) -> Result<Option<u64>, String> {
        number(&self.header, name)
    }

    /// How an answer refers to this frame.
    pub fn correlation(&self) -> Option<String> {
        self.control.sequence.map(|sequence| format!("c{sequence}"))
    }
}

impl Action {
    /// As it is sent.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Start => "START",
            Self::Update => "UPDATE",
            Self::Complete => "COMPLETE",
            Self::Notify => "NOTIFY",
            Self::Shutdown => "SHUTDOWN",
            Self::Ping => "PING",
            Self::None => "",
        }
    }
}

/// A frame of the server before it has its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    control: Map<String, Value>,
    header: Map<String, Value>,
    payload: Option<Value>,
}

impl Outgoing {
    fn new(frame_type: &str, action: &str) -> Self {
        let mut frame = Self { control: Map::new(), header: Map::new(), payload: None }
            .control("type", frame_type);
        if !action.is_empty() {
            frame = frame.header("action", action);
        }
        frame
    }

    /// The final response to `request`.
    pub fn response(request: &Frame, payload: Value) -> Self {
        Self::new("response", request.action.name())
            .control("message_state", "final")
            .correlated(request.correlation())
            .payload(payload)
    }

    /// A message.
    pub fn message(action: Action, payload: Value) -> Self {
        Self::new("message", action.name()).payload(payload)
    }

    /// A request.
    pub fn request(action: Action, payload: Value) -> Self {
        Self::new("request", action.name()).payload(payload)
    }

    /// A refusal. Errors stand outside the series.
    pub fn error(action: &str, correlation: Option<String>, fault: &Fault) -> Self {
        let frame = Self::new("error", action)
            .correlated(correlation)
            .header("error_code", fault.code())
            .header("reason", fault.reason.as_str());
        let frame = match &fault.elsewhere {
            Some(elsewhere) => frame.header("location", elsewhere.origin()),
            None => frame,
        };
        let frame = match fault.credential {
            Some(reason) => frame.header("credential_error", reason.name()),
            None => frame,
        };
        match fault.passes {
            true => frame.header("retry_ms", limits::RETRY_MS),
            false => frame,
        }
    }

    /// An acknowledgement; its number is added when it is written.
    pub fn acknowledgement() -> Self {
        Self::new("acknowledgement", "")
    }

    /// The answer to a PING.
    pub fn pong() -> Self {
        Self::new("message", "PONG")
    }

    /// Sets a control header.
    #[must_use]
    pub fn control(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.control.insert(name.into(), value.into());
        self
    }

    /// Sets a general header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.into(), value.into());
        self
    }

    /// Puts the frame into a subsession of the package `scope`.
    #[must_use]
    pub fn in_subsession(self, subsession: &str) -> Self {
        self.control("package_type", "scope").control("subsession_id", subsession)
    }

    /// The text of the frame.
    pub fn write(self) -> String {
        let mut root = json!({"control": self.control, "header": self.header});
        if let (Some(payload), Some(root)) = (self.payload, root.as_object_mut()) {
            root.insert("payload".into(), payload);
        }
        root.to_string()
    }

    /// Whether the frame carries a number of the server's series.
    pub fn is_numbered(&self) -> bool {
        let frame_type = self.control.get("type").and_then(Value::as_str);
        let is_pong = self.header.get("action").is_some_and(|action| action == "PONG");
        matches!(frame_type, Some("request" | "response" | "message")) && !is_pong
    }

    fn correlated(self, correlation: Option<String>) -> Self {
        match correlation {
            Some(correlation) => self.control("correlation_id", correlation),
            None => self,
        }
    }

    fn payload(mut self, payload: Value) -> Self {
        self.payload = Some(payload);
        self
    }
}

fn number(object: &Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    let number = match object.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    // Above 2^53 JavaScript loses count.
    let number = number.filter(|number| *number <= 1 << 53);
    number.map(Some).ok_or_else(|| format!("{name} must be a whole number, 0 or more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_documented() {
        let frame = Frame::parse(
            r#"{"control": {"type": "request", "sequence": "3", "version": "1.0", "ack_sequence": 2,
                "package_type": "scope"},
                "header": {"action": "start", "target": "lobby", "extra": 1}, "payload": {"a": 1}}"#,
        )
        .unwrap();
        assert_eq!(frame.action, Action::Start);
        assert_eq!(frame.control.sequence, Some(3));
        assert_eq!(frame.control.ack_sequence, Some(2));
        assert_eq!(frame.text("target"), Some("lobby"));
        assert_eq!(frame.correlation().as_deref(), Some("c3"));
        assert_eq!(frame.payload["a"], 1);
    }

    #[test]
    fn malformed_frames_say_what_is_wrong() {
        for (text, word) in [
            ("", "no JSON"),
            ("[]", "no JSON object"),
            ("{}", "control"),
            (r#"{"control":{"type":"request","sequence":-1}}"#, "sequence"),
            (r#"{"control":{"type":"request","sequence":1.5}}"#, "sequence"),
            (r#"{"control":{"type":"wish","sequence":1}}"#, "type"),
            (r#"{"control":{"type":"request","sequence":1}}"#, "action"),
            (r#"{"control":{"type":"request","sequence":1},"header":{"action":"X"}}"#, "unknown"),
            (r#"{"control":{"type":"request"},"header":[]}"#, "header"),
            (
                r#"{"control":{"type":"request","session_id":7},"header":{"action":"START"}}"#,
                "session_id",
            ),
        ] {
            let error = Frame::parse(text).unwrap_err();
            assert_eq!(error.fault.code(), 400, "{text}");
            assert!(error.fault.reason.contains(word), "{text}: {}", error.fault);
        }
        assert_eq!(Frame::parse(&" ".repeat(300 << 10)).unwrap_err().fault.code(), 413);
        let long = json!({"control": {"sequence": 7}, "payload": " ".repeat(300 << 10)});
        let error = Frame::parse(&long.to_string()).unwrap_err();
        assert_eq!((error.fault.code(), error.sequence), (413, Some(7)));
    }

    #[test]
    fn outgoing_frames_have_the_documented_shape() {
        let request = Frame::parse(
            r#"{"control":{"type":"request","sequence":2},"header":{"action":"START"}}"#,
        )
        .unwrap();
        let response = Outgoing::response(&request, json!({"ok": true})).in_subsession("c2");
        assert!(response.is_numbered());
        let value: Value = serde_json::from_str(&response.write()).unwrap();
        assert_eq!(
            value,
            json!({
                "control": {"type": "response", "message_state": "final", "correlation_id": "c2",
                            "package_type": "scope", "subsession_id": "c2"},
                "header": {"action": "START"},
                "payload": {"ok": true},
            })
        );
        let error = Outgoing::error("START", Some("c2".into()), &Fault::not_found("none"));
        assert!(!error.is_numbered());
        let value: Value = serde_json::from_str(&error.write()).unwrap();
        assert_eq!(value["header"]["error_code"], 404);
        assert_eq!(value["control"]["correlation_id"], "c2");
    }
}
