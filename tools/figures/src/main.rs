//! `./dev figures`: measures what docs/specification.md promises, against the real processes.
#![forbid(unsafe_code)]

mod browser;
mod call;
mod cluster;
mod figure;
mod http;
mod link;
mod media;
mod path;
mod peer;
mod process;
mod setup;
mod video;

use std::process::ExitCode;

use clap::Parser;

use figure::Figure;

/// Measure the figures that docs/specification.md promises.
#[derive(Parser)]
#[command(name = "strait-figures", version)]
struct Arguments {
    /// What to measure
    #[arg(value_parser = ["call", "cluster", "link", "media", "path"], default_value = "call")]
    area: String,
    /// Only the rows of the areas `cluster`, `link`, `path` and `media` whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// How long everything is away in `cluster --only outage`
    #[arg(long, value_name = "NUMBER", default_value_t = 5.0)]
    minutes: f64,
    /// Print a JSON array of {"name", "bound", "value", "unit", "ok", "how"}
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // clap has refused what is none of them.
    let figures: Vec<Figure> = match arguments.area.as_str() {
        "path" => path::measure(&arguments.only),
        "media" => media::measure(&arguments.only),
        "link" => link::measure(&arguments.only).await,
        "cluster" => cluster::measure(&arguments.only, arguments.minutes),
        _ => call::measure().await,
    };
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
