//! `strait top`: what a relay does now: its workers, what it drops, its scopes, peers and streams.

mod sample;
mod text;
mod view;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use crate::fault::Fault;
use crate::state;
use sample::Reader;
use view::Frame;

/// Lines and columns where nobody says how many there are.
const SCREEN: (usize, usize) = (24, 100);
/// Moves to the upper left corner; forgets the rest of a line; forgets what is below (ECMA-48 CUP, EL, ED).
const HOME: &str = "\x1b[H";
const LINE_END: &str = "\x1b[K";
const BELOW: &str = "\x1b[J";

/// What to look at, and how.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The relay's RPC socket: `unix:PATH`, or the path alone [default: that of `strait dev`, else
    /// /run/strait/relay.sock]
    #[arg(long, value_name = "SOCKET", value_parser = crate::load::socket)]
    relay: Option<PathBuf>,
    /// State folder of `strait dev`, whose relay to look at
    #[arg(long, value_name = "FOLDER", env = "STRAIT_STATE_DIR", conflicts_with = "relay")]
    state_dir: Option<PathBuf>,
    /// Seconds between two looks; rates are means over them
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = crate::load::seconds)]
    interval: Duration,
    /// Look once, print everything, and end
    #[arg(long)]
    once: bool,
    /// Print one JSON object for each look instead
    #[arg(long)]
    json: bool,
}

/// Looks until it is stopped, or once.
pub fn run(options: &Options) -> Result<ExitCode, Fault> {
    let socket = match &options.relay {
        Some(socket) => socket.clone(),
        None => state::relay(options.state_dir.as_deref())?,
    };
    let mut reader = Reader::connect(&socket)?;
    let is_screen = io::stdout().is_terminal() && !options.once && !options.json;
    let mut before = reader.read()?;
    loop {
        let next = Instant::now() + options.interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = reader.read()?;
        let frame = Frame::between(&before, &now);
        let out = match (options.json, is_screen) {
            (true, _) => json(&frame)?,
            (false, true) => on_screen(&frame, screen()),
            (false, false) => text::page(&frame, None).join("\n") + "\n",
        };
        if write(&out).is_err() || options.once {
            // Whoever read us has seen enough.
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

fn write(out: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(out.as_bytes())?;
    stdout.flush()
}

fn json(frame: &Frame) -> Result<String, Fault> {
    let line = serde_json::to_string(frame);
    line.map(|line| line + "\n").map_err(|error| Fault::new(error.to_string()))
}

/// A page that takes the place of the one before, without flicker.
fn on_screen(frame: &Frame, (height, width): (usize, usize)) -> String {
    let lines = text::page(frame, Some(height));
    let cut = |line: &String| line.chars().take(width).collect::<String>() + LINE_END;
    let lines: Vec<String> = lines.iter().take(height).map(cut).collect();
    format!("{HOME}{}{BELOW}", lines.join("\r\n"))
}

/// Lines and columns of the terminal.
fn screen() -> (usize, usize) {
    let asked = Command::new("stty").arg("size").stdin(Stdio::inherit()).output();
    let said = asked.ok().filter(|output| output.status.success());
    let said = said.and_then(|output| String::from_utf8(output.stdout).ok());
    let numbers: Vec<usize> = said
        .iter()
        .flat_map(|text| text.split_whitespace())
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers[..] {
        [height, width] if height > 0 && width > 0 => (height, width),
        _ => SCREEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fits_the_terminal() {
        let frame = view::testing::large();
        for height in [1, 2, 5, 10, 24, 60] {
            let page = on_screen(&frame, (height, 60));
            assert!(page.starts_with(HOME) && page.ends_with(BELOW));
            let lines: Vec<&str> = page.split("\r\n").collect();
            assert!(lines.len() <= height, "{} lines of {height}", lines.len());
            for line in lines {
                let shown = line.replace(HOME, "").replace(LINE_END, "").replace(BELOW, "");
                assert!(shown.chars().count() <= 60, "{shown:?}");
            }
        }
    }
}
