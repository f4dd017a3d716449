//! Messages between peers as payloads of NOTIFY: `docs/reference/jsonrtc.md`.

use serde_json::{Value, json};

use super::base64;
use crate::fault::Fault;
use crate::scope::Message;

/// What a client says, and whether it is text.
///
/// # Errors
/// [`crate::fault::Class::Malformed`] for neither or both, and for what is no base 64.
pub fn said(text: Option<String>, data: Option<String>) -> Result<(Vec<u8>, bool), Fault> {
    match (text, data) {
        (Some(text), None) => Ok((text.into_bytes(), true)),
        (None, Some(data)) => Ok((base64::decode(&data)?, false)),
        _ => Err(Fault::malformed("payload of a message: either text, or data in base 64")),
    }
}

/// A message as its receiver is told it.
pub fn told(message: &Message, number: Option<u32>) -> Value {
    let mut payload =
        json!({"event": "message", "from": message.from, "direct": message.is_direct});
    let text = message.is_text.then(|| std::str::from_utf8(&message.payload).ok()).flatten();
    let (key, value) = match text {
        Some(text) => ("text", text.to_owned()),
        None => ("data", base64::encode(&message.payload)),
    };
    if let Some(payload) = payload.as_object_mut() {
        payload.insert(key.into(), value.into());
        if let Some(number) = number {
            payload.insert("number".into(), number.into());
        }
    }
    payload
}
