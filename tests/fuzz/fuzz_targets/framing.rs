//! `./dev fuzz framing`; the body is `strait_wire::fuzz::framing`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_wire::fuzz::framing(bytes));
