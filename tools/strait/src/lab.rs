//! `strait lab`: a bad line between UDP clients and a server, whose conditions can be changed while it runs.

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use strait_load::{Impairment, Order, Shaper};

use crate::fault::Fault;

/// The line. Without conditions it is a clear one.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where clients send to; port 0 for one of the system's choice, which the first line of output names
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The server
    #[arg(long, value_name = "IP:PORT")]
    to: SocketAddr,
    /// Bits per second both ways, as in 300k or 1.5M
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,
    /// What fits before the bottleneck, as in 200ms or 64k bytes [default: 200ms]
    #[arg(long, value_name = "TIME|BYTES")]
    queue: Option<String>,
    /// Delay of each way, as in 20ms
    #[arg(long, value_name = "TIME")]
    delay: Option<String>,
    /// Up to so much more delay, evenly
    #[arg(long, value_name = "TIME")]
    jitter: Option<String>,
    /// Share of datagrams that is lost on each way, as in 1%
    #[arg(long, value_name = "SHARE")]
    loss: Option<String>,
    /// Further words for both ways, or for one after `up` or `down`, or for later after a time: "10s down rate=300k"; may
    /// be repeated (docs/lab.md)
    #[arg(long = "set", value_name = "WORDS")]
    set: Vec<Order>,
    /// A file of such lines; # begins a comment
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// What chance is drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Let all clients share one line; otherwise each has its own
    #[arg(long)]
    shared: bool,
    /// End when standard input ends: for a program that starts this one and may die
    #[arg(long)]
    until_eof: bool,
}

impl Options {
    fn impairment(&self) -> Result<Impairment, Fault> {
        let named = [
            ("rate", &self.rate),
            ("queue", &self.queue),
            ("delay", &self.delay),
            ("jitter", &self.jitter),
            ("loss", &self.loss),
        ];
        let words =
            named.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
        let words = words.collect::<Vec<_>>().join(" ");
        let mut orders = Vec::new();
        if !words.is_empty() {
            orders.push(words.parse::<Order>().map_err(|error| Fault::config(format!("{error}")))?);
        }
        orders.extend(self.set.iter().cloned());
        if let Some(file) = &self.trace {
            let name = file.display();
            let text =
                std::fs::read_to_string(file).map_err(|e| Fault::new(format!("{name}: {e}")))?;
            for (number, line) in (1..).zip(text.lines()) {
                let line = line.split('#').next().unwrap_or_default().trim();
                if !line.is_empty() {
                    let wrong = |error| Fault::config(format!("{name}:{number}: {error}"));
                    orders.push(line.parse::<Order>().map_err(wrong)?);
                }
            }
        }
        Ok(Impairment { orders, seed: self.seed, shared: self.shared })
    }
}

/// Runs until it is told to end.
pub fn run(options: &Options) -> Result<ExitCode, Fault> {
    let impairment = options.impairment()?;
    let shaper = Shaper::start(options.listen, options.to, &impairment)
        .map_err(|e| Fault::new(format!("cannot listen at {}: {e}", options.listen)))?;
    say(&format!("listening {}", shaper.address()));
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match line.trim() {
            "" => {}
            "quit" => return Ok(ExitCode::SUCCESS),
            "tell" => {
                let lines: Vec<String> = shaper.tell().iter().map(|told| told.to_json()).collect();
                say(&format!("[{}]", lines.join(",")));
            }
            words => match words.parse() {
                Ok(order) => {
                    shaper.order(order);
                    say("ok");
                }
                Err(error) => say(&format!("error: {error}")),
            },
        }
    }
    if !options.until_eof {
        // Nobody can say anything any more: a signal ends it.
        loop {
            std::thread::park();
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A reader that went away is no reason to end: the line is still there.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn impairment(line: &str) -> Result<Impairment, Fault> {
        Line::parse_from(line.split(' ')).options.impairment()
    }

    #[test]
    fn a_line_becomes_conditions() {
        let folder = tempfile::tempdir().expect("a folder");
        let trace = folder.path().join("trace");
        std::fs::write(&trace, "# a narrow minute\n10s down rate=100k\n\n70s down rate=none\n")
            .expect("a file");
        let line = format!(
            "lab --to 127.0.0.1:1 --rate 300k --delay 20ms --set up --trace {}",
            trace.display()
        );
        let wrong = Line::try_parse_from(line.split(' '));
        assert!(wrong.is_err(), "`up` alone sets nothing");
        let orders = impairment(&line.replace("--set up", "--set loss=1%")).expect("good").orders;
        assert_eq!(orders.len(), 4);
        assert_eq!(orders[0], "rate=300k delay=20ms".parse().expect("words"));
        assert_eq!(orders[3].after.as_secs(), 70);
    }

    #[test]
    fn what_is_wrong_ends_it_before_it_begins() {
        let error = impairment("lab --to 127.0.0.1:1 --rate fast").expect_err("no rate");
        assert!(error.message.contains("300k") && error.code == crate::fault::EXIT_CONFIG);
    }
}
