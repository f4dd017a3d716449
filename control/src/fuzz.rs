//! Bodies of the fuzz targets, so that ordinary builds compile them and tests run their corpora.

mod auth;
mod choices;

pub use auth::auth;
pub use choices::Choices;

use std::sync::Arc;

use strait_link::v1::{ClientMessage, auth::Credential, client_message::Body as Request};
use strait_link::{Frames, MESSAGE_BYTES};

use crate::auth::{Application, Key, Material, PublicKey, Secret, Signed, Unverified};
use crate::link::convert;
use crate::scope::allowed::Allowed;
use crate::scope::channels::envelope::Envelope;
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

/// Target `envelope`: what a client says on a data channel. What is read is written the same again, flags apart.
pub fn envelope(data: &[u8]) {
    let Some(read) = Envelope::parse(data) else { return };
    let written = read.write();
    assert_eq!(Envelope::parse(&written), Some(read));
    assert_eq!(written.len(), data.len());
}

/// Target `link`: what a native client says, each message by itself. How they are cut is the target
/// `frames`, what they do to a session the target `session`.
pub fn link(data: &[u8]) {
    let mut frames = Frames::new();
    frames.push(data);
    while let Ok(Some(message)) = frames.next::<ClientMessage>(MESSAGE_BYTES) {
        match message.body {
            Some(Request::Auth(auth)) => {
                if let Some(Credential::Signed(signed)) = &auth.credential {
                    let _ =
                        convert::signed(signed, &auth.scope_id).and_then(|signed| signed.check());
                }
            }
            Some(Request::Publish(publish)) => drop(convert::publish(publish)),
            Some(Request::AllowSenders(allow)) => {
                let _ = convert::allow(allow).map(|spec| Allowed::default().change(spec));
            }
            Some(Request::Subscribe(subscribe)) => {
                let _ = subscribe.preferences.map(convert::preferences);
            }
            _ => {}
        }
    }
}

/// Target `token`: a bearer token.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = Unverified::parse(text) {
        let public = PublicKey::from_pem(PUBLIC_KEY).map(Material::Es256);
        let keys = public.into_iter().chain([Material::Secret("secret".into())]);
        let keys = keys.map(|material| Key::new("key", material, 0)).collect();
        let application = Application {
            id: token.application.clone(),
            concatenated: false,
            changes_keys: false,
            keys,
        };
        let _ = token.verify(text, &application, &Arc::default(), 0);
    }
}

/// Target `credential`: a signed credential in text form. Whatever is read is written as it came.
pub fn credential(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(Ok(mut signed)) = Signed::parse(text) {
        assert_eq!(signed.to_text(), text);
        let key = Secret::from("secret");
        if signed.check().is_ok() {
            let _ = signed.is_signed_by(&key);
        }
        signed.sign(&key);
        assert!(signed.is_signed_by(&key));
    }
}

/// Target `sdpfrag`: the body of a PATCH.
pub fn sdpfrag(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Fragment::parse(text);
}

/// Whose private key nobody has.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEG+aG8MsFre3UoG5woTdHHJe4T2OM
8JYGeImlS/PGzMAx2cTV0rlrYsNhVbY0fO2Sqt9Rd3BSu5PWvHKwiwQc+g==
-----END PUBLIC KEY-----
";
