//! `./dev fuzz srtp`; the body is `strait_crypt::fuzz::srtp_unprotect`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_crypt::fuzz::srtp_unprotect(bytes));
