//! The bare loops, as processes of their own: `strait-figures` and `./dev compare` run them in the bench bed.
#![forbid(unsafe_code)]

use clap::Parser;
use std::net::IpAddr;
use std::process::ExitCode;
use strait_compare::floor::{self, Loop};

/// Bare loops to hold a server against
#[derive(Parser)]
#[command(name = "strait-compare", version)]
enum Verb {
    /// Send, and print the CPU time for each packet as JSON
    Floor(Loop),
    /// Read and forget what comes
    Sink {
        /// Address to bind
        #[arg(long)]
        address: IpAddr,
        /// First port
        #[arg(long)]
        port: u16,
        /// Ports
        #[arg(long)]
        count: u16,
        /// Seconds
        #[arg(long)]
        seconds: f64,
    },
    /// Time AES-128-GCM over one packet, in nanoseconds
    Gcm {
        /// Bytes of a packet
        #[arg(long)]
        bytes: usize,
        /// Keys that take turns
        #[arg(long)]
        keys: usize,
        /// Packets of each turn
        #[arg(long)]
        run: usize,
    },
}

fn main() -> ExitCode {
    let result = match Verb::parse() {
        Verb::Floor(floor) => floor.run().and_then(|cost| Ok(serde_json::to_string(&cost)?)),
        Verb::Sink { address, port, count, seconds } => {
            floor::sink(address, port, count, seconds).map(|datagrams| datagrams.to_string())
        }
        Verb::Gcm { bytes, keys, run } => Ok(floor::gcm(bytes, keys, run).to_string()),
    };
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
