//! JsonRTC: frames, their numbers, and what survives a broken WebSocket. Pure: no socket, no clock.
//! `docs/reference/jsonrtc.md` is the contract.

pub mod frame;
pub mod series;

pub use frame::{Action, Control, Frame, FrameError, FrameType, MessageState, Outgoing};
pub use series::{Received, Reconnect, Resumed, Series};
