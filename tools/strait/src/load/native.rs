//! `strait load --native`: whole native clients, over the link of a node.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use strait_client::v1::auth::Credential;
use strait_client::{Config, Descriptor, Trust};
use strait_load::{NativePlan, Plan, host_and_port};

use super::{fault, print_json};
use crate::fault::Fault;
use crate::state;

/// What native peers need besides.
#[derive(Args, Clone, Debug)]
#[group(id = "native_options")]
pub struct Options {
    /// Load by native clients over the link of this node, instead of peers over the relay's RPC socket
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    native: Option<(String, u16)>,
    /// PEM file with the node's certificate or its CA's [default: whom the system trusts]
    #[arg(long, value_name = "FILE", requires = "native")]
    ca_file: Option<PathBuf>,
    /// What native peers are let in by
    #[arg(long, value_name = "TOKEN", default_value = "dev", requires = "native")]
    token: String,
    /// Scopes that native peers join: a number is added
    #[arg(long, value_name = "NAME", default_value = "load", requires = "native")]
    scope: String,
    /// Send no datagrams: media of native peers goes over TCP
    #[arg(long, requires = "native")]
    no_udp: bool,
    /// Messages that each native publisher sends to all others of its scope, in a second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0, requires = "native")]
    messages: f64,
}

impl Options {
    /// The plan, where native peers are wanted.
    pub(super) fn plan(&self, plan: &Plan, as_sent: bool) -> Result<Option<NativePlan>, Fault> {
        let Some((host, port)) = self.native.clone() else { return Ok(None) };
        let native = NativePlan {
            plan: plan.clone(),
            descriptor: Descriptor {
                config: Config {
                    host,
                    port,
                    credential: Credential::Token(self.token.clone()),
                    scope_id: self.scope.clone(),
                    name: String::new(),
                    client: String::new(),
                    profiles: Vec::new(),
                    // The load is for the node.
                    relay_only: true,
                    cluster: None,
                },
                trust: self.ca_file.clone().map_or(Trust::System, Trust::CaFile),
                proxy: None,
                udp: !self.no_udp,
                quic: None,
            },
            as_sent,
            messages_per_second: self.messages,
        };
        native.check().map_err(Fault::config)?;
        Ok(Some(native))
    }
}

/// Runs it, and prints what it found.
pub(super) fn run(plan: &NativePlan, json: bool) -> Result<ExitCode, Fault> {
    let report = strait_load::run_native(plan).map_err(|error| {
        let mut fault = fault(error);
        if fault.message.contains("not trusted") {
            let of_dev = state::default_folder().join("certificate.pem");
            fault.message += &format!("; that of `strait dev`: --ca-file {}", of_dev.display());
        }
        fault
    })?;
    if json {
        print_json(&report)?;
    } else {
        print!("{}", report.table());
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
