//! How browsers are told to go directly, and when no longer: `docs/reference/jsonrtc.md`.

use serde_json::{Value, json};

use crate::fault::Fault;
use crate::scope::direct::{Offer, Signal};

/// Media may go to the other of two; these servers say where who is told is seen.
pub fn offered(offer: &Offer, stun_servers: &[String]) -> Value {
    let servers: Vec<_> = stun_servers.iter().map(|url| json!({"urls": url})).collect();
    let Offer { peer, number, .. } = offer;
    json!({"event": "direct", "peer": peer, "number": number, "iceServers": servers})
}

/// It may do so no longer.
pub fn ended(reason: &str) -> Value {
    json!({"event": "direct-ended", "reason": reason})
}

/// What the other one says.
pub fn told(signal: &Signal) -> Value {
    json!({"event": "signal", "number": signal.number, "text": signal.text})
}

/// What a client says to the other one.
///
/// # Errors
/// [`crate::fault::Class::Malformed`] for one that says nothing, or not of which pair.
pub fn signal(number: Option<u32>, text: Option<String>) -> Result<Signal, Fault> {
    match (number, text) {
        (Some(number), Some(text)) => Ok(Signal { number: number.into(), text }),
        _ => Err(Fault::malformed("payload of a signal: the number of the event direct, and text")),
    }
}
