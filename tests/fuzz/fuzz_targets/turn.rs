//! `./dev fuzz turn`; the body is `strait_wire::fuzz::turn`.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_wire::fuzz::turn(bytes));
