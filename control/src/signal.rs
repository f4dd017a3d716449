//! Signalling over WebSocket: the frames (`jsonrtc`), and what they do (`conference`).

pub(crate) mod base64;
pub mod conference;
mod direct;
pub mod hub;
pub mod jsonrtc;
mod message;
