//! `./dev fuzz rtcp`; the body is `strait_wire::fuzz::rtcp`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_wire::fuzz::rtcp(bytes));
