//! `./dev fuzz envelope`; the body is `strait_control::fuzz::envelope`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_control::fuzz::envelope(bytes));
