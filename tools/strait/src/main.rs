//! `strait`: what a person types.
#![forbid(unsafe_code)]

mod app;
mod configuration;
mod dev;
mod doctor;
mod fault;
mod lab;
mod load;
mod ports;
mod state;
mod token;
mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::fault::Fault;

/// Strait, a relay for real-time media: start it, watch it, check the host, make tokens, load it.
#[derive(Parser)]
#[command(name = "strait", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start relay, control and the page on this machine, for trying and for development.
    Dev(dev::Options),
    /// Show what a relay does: its workers, what it drops, its scopes, peers and streams.
    Top(top::Options),
    /// Say whether this host is fit, and what to do where it is not.
    Doctor(doctor::Options),
    /// Print default configurations, check files.
    Config(configuration::Options),
    /// Say which applications' users may come in, and with which keys.
    App(app::Options),
    /// Sign a token for a user of an application.
    Token(token::Options),
    /// Drive a relay with publishers and subscribers, and check every packet.
    Load(Box<load::Options>),
    /// Stand between UDP clients and a server as a bad line: delay, rate, loss.
    Lab(lab::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Dev(options) => dev::run(options),
        Verb::Top(options) => top::run(&options),
        Verb::Doctor(options) => doctor::run(&options),
        Verb::Config(options) => configuration::run(&options),
        Verb::App(options) => app::run(&options),
        Verb::Token(options) => token::run(&options),
        Verb::Load(options) => load::run(&options),
        Verb::Lab(options) => lab::run(&options),
    };
    match outcome {
        Ok(code) => code,
        Err(Fault { message, code }) => {
            eprintln!("error: {message}");
            ExitCode::from(code)
        }
    }
}
