//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz srtp`
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_crypt::fuzz::srtp_unprotect(bytes));
