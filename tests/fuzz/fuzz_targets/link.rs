//! `./dev fuzz link`; the body is `strait_control::fuzz::link`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_control::fuzz::link(bytes));
