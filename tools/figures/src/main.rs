//! `./dev figures`: measures what docs/specification.md promises, against the real processes.
#![forbid(unsafe_code)]

mod figure;

use std::process::ExitCode;

use clap::Parser;

use figure::Figure;

/// Measure the figures that docs/specification.md promises.
#[derive(Parser)]
#[command(name = "strait-figures", version)]
struct Arguments {
    /// What to measure
    #[arg(value_parser = ["call"], default_value = "call")]
    area: String,
    /// Print a JSON array of {"name", "bound", "value", "unit", "ok", "how"}
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let figures: Vec<Figure> =
        figure::CALL.iter().map(|promise| promise.missed("not built yet")).collect();
    if arguments.json {
        match serde_json::to_string_pretty(&figures) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("error: {error}"),
        }
    } else {
        print!("{}", figure::table(&figures));
    }
    if figures.iter().all(|figure| figure.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
