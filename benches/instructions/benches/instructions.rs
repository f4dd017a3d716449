//! Instructions that the path takes, counted by callgrind: the same in every run of the same binary, whatever else the
//! machine does. `./dev test` compares them with `benches/instructions.txt`.
//!
//! Peers of the path are plain: what their ciphers would take depends on the instructions that valgrind knows.
#![expect(missing_docs, reason = "the macros make public modules")]

use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use std::hint::black_box;
use strait_benches::call::{Call, Frame};
use strait_benches::datagrams::{Check, mixed};
use strait_benches::sealed::Sealed;
use strait_crypt::srtp::Profile;
use strait_wire::demux::{Kind, classify};

fn call(subscribers: u32, packets: usize) -> (Box<Call>, Frame) {
    let mut call = Box::new(Call::new(None, subscribers));
    let frame = call.frame(packets);
    (call, frame)
}

// What is handed back is dropped outside of what is counted.
#[library_benchmark(setup = call)]
#[bench::packet_to_1(1, 1)]
#[bench::packet_to_50(50, 1)]
#[bench::frame_of_10_to_50(50, 10)]
fn path((mut call, mut frame): (Box<Call>, Frame)) -> (Box<Call>, Frame, usize) {
    let sent = call.turn(&mut frame);
    (call, frame, sent)
}

#[library_benchmark(setup = mixed)]
#[bench::hundred_datagrams()]
fn demux(datagrams: Vec<(Kind, Vec<u8>)>) -> (Vec<(Kind, Vec<u8>)>, usize) {
    let right = datagrams.iter().filter(|(kind, bytes)| classify(black_box(bytes)) == *kind);
    let right = right.count();
    (datagrams, right)
}

fn check() -> Box<Check> {
    Box::new(Check::new())
}

#[library_benchmark(setup = check)]
#[bench::answered()]
fn stun(mut check: Box<Check>) -> (Box<Check>, usize) {
    let answers = check.turn();
    (check, answers)
}

fn unsealed() -> Box<Sealed> {
    let mut sealed = Box::new(Sealed::new(Profile::AeadAes128Gcm, 1200));
    sealed.next();
    sealed
}

#[library_benchmark(setup = unsealed)]
#[bench::aead_aes_128_gcm_1200()]
fn protect(mut sealed: Box<Sealed>) -> Box<Sealed> {
    sealed.protect();
    sealed
}

fn sealed() -> Box<Sealed> {
    let mut sealed = unsealed();
    sealed.protect();
    sealed
}

#[library_benchmark(setup = sealed)]
#[bench::aead_aes_128_gcm_1200()]
fn unprotect(mut sealed: Box<Sealed>) -> Box<Sealed> {
    sealed.unprotect();
    sealed
}

library_benchmark_group!(name = counts, benchmarks = [path, demux, stun, protect, unprotect]);
main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = counts
);
