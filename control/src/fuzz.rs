//! Bodies of the fuzz targets, so that ordinary builds compile them and tests run their corpora.

use crate::auth;
use crate::scope::plan::{self, Role};
use crate::sdp::{Fec, Fragment, Offer};
use crate::signal::jsonrtc::Frame;

/// Target `sdp`: an offer from anyone.
pub fn sdp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(offer) = Offer::parse(text) {
        for role in [Role::Conference, Role::Publisher, Role::Player] {
            let _ = plan::plan(&offer, role, &[Fec::FlexFec, Fec::UlpFec]);
        }
    }
}

/// Target `jsonrtc`: a WebSocket text message.
pub fn jsonrtc(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(frame) = Frame::parse(text) {
        let _ = (frame.correlation(), frame.number("cslr"), frame.text("target"));
    }
}

/// Target `token`: a bearer token.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(application) = auth::application_of(text) {
        let _ = auth::verify(text, &application, b"secret", 0);
    }
}

/// Target `sdpfrag`: the body of a PATCH.
pub fn sdpfrag(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Fragment::parse(text);
}
