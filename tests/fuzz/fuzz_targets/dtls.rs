//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz dtls`
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_crypt::fuzz::dtls_handle(bytes));
