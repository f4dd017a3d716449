//! `./dev fuzz auth`; the body is `strait_control::fuzz::auth`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_control::fuzz::auth(bytes));
