//! `strait`: what a person types.
#![forbid(unsafe_code)]

mod figures;

fn main() -> std::process::ExitCode {
    figures::list();
    std::process::ExitCode::FAILURE
}
