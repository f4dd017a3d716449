//! `./dev fuzz frames`; the body is `strait_link::fuzz::frames`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_link::fuzz::frames(bytes));
