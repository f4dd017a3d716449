//! `./dev fuzz dtls`; the body is `strait_crypt::fuzz::dtls_handle`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_crypt::fuzz::dtls_handle(bytes));
