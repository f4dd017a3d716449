//! `./dev fuzz channels`; the body is `strait_relay::channels::fuzz::channels`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_relay::channels::fuzz::channels(bytes));
