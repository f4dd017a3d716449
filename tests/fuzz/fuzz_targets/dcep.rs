//! `./dev fuzz dcep`; the body is `strait_wire::fuzz::dcep`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_wire::fuzz::dcep(bytes));
