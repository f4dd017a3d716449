//! `strait config`: prints default configurations, checks files.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use crate::fault::Fault;

/// What to do with configurations.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Print the default configuration, with every field explained
    Default {
        /// Whose
        program: Program,
    },
    /// Check a configuration file; the exit code is 78 when it is wrong
    Check {
        /// Whose
        program: Program,
        /// The file
        file: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Program {
    /// strait-relay, the data plane
    Relay,
    /// strait-control, the control plane
    Control,
}

/// Does it.
pub fn run(options: &Options) -> Result<ExitCode, Fault> {
    match &options.verb {
        Verb::Default { program: Program::Relay } => {
            print!("{}", strait_relay::config::default_toml());
        }
        Verb::Default { program: Program::Control } => {
            print!("{}", strait_control::config::default_toml());
        }
        Verb::Check { program, file } => {
            check(*program, file)?;
            println!("{}: the configuration is good", file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(program: Program, file: &Path) -> Result<(), Fault> {
    let wrong = |error: &dyn Display| {
        let (text, file) = (error.to_string(), file.display().to_string());
        Fault::config(if text.contains(&file) { text } else { format!("{file}: {text}") })
    };
    match program {
        Program::Relay => {
            let config = strait_relay::config::Config::load(file).map_err(|e| wrong(&e))?;
            config.check().map_err(|e| wrong(&e))
        }
        Program::Control => {
            strait_control::config::Config::read(file).map(drop).map_err(|e| wrong(&e))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::EXIT_CONFIG;

    fn checked(program: Program, text: &str) -> Result<(), Fault> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("its.toml");
        std::fs::write(&file, text).expect("written");
        check(program, &file)
    }

    #[test]
    fn the_defaults_are_good() {
        checked(Program::Relay, &strait_relay::config::default_toml()).expect("relay");
        checked(Program::Control, &strait_control::config::default_toml()).expect("control");
    }

    #[test]
    fn a_wrong_key_is_named_with_its_file_and_a_guess() {
        for (program, text) in [
            (Program::Relay, "rpc_soket = \"x\"\n"),
            (Program::Control, "[http]\nhttps_lisen = []\n"),
        ] {
            let fault = checked(program, text).expect_err("wrong");
            assert_eq!(fault.code, EXIT_CONFIG);
            assert!(fault.message.contains("its.toml"), "{}", fault.message);
            assert!(fault.message.contains("did you mean"), "{}", fault.message);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_said() {
        let fault = check(Program::Control, Path::new("/nowhere/at.toml")).expect_err("absent");
        assert!(fault.message.contains("/nowhere/at.toml"), "{}", fault.message);
    }
}
