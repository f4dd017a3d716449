//! Signalling over WebSocket: the frames (`jsonrtc`), and what they do (`conference`).

pub mod conference;
pub mod hub;
pub mod jsonrtc;
