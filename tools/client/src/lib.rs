//! The client SDK for programs that are no browsers.
#![forbid(unsafe_code)]

pub mod core;
