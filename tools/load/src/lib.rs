//! Load for a media relay: publishers and subscribers in the thousands from one thread, and a receiver that checks
//! every packet.
//!
//! [`run`] carries out a [`Plan`] against the server that a [`Signalling`] speaks to, and returns a [`Report`]. The
//! first implementation, [`StraitRpc`], drives a relay over its RPC socket.
//!
//! [`run_native`] carries out a [`NativePlan`]: whole native clients, over the link of a node.
#![forbid(unsafe_code)]

mod checker;
mod histogram;
mod impaired;
mod join;
pub mod limits;
mod measure;
mod native;
mod payload;
mod peer;
mod plan;
mod process;
mod progress;
mod random;
mod report;
mod run;
mod shape;
mod shaper;
pub mod signalling;
mod source;
mod strait;
mod subscriber;
mod verdict;
mod violation;

pub use impaired::{Impaired, Shapers};
pub use native::{NativePlan, NativeReport, host_and_port, run_native};
pub use plan::{KEY_INTERVAL, Plan, Shape};
pub use report::{Generator, Latency, Quartiles, Report, Server, Window};
pub use shaper::{Impairment, Shaper, Told};
pub use signalling::{Signalling, SignallingError};
pub use strait::StraitRpc;
pub use strait_crypt::dtls::Role;
pub use strait_crypt::srtp::Profile;
pub use strait_lab::setting::Order;

/// Why a run came to no report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The plan cannot be carried out.
    #[error("{0}")]
    Plan(String),
    /// The server cannot be reached or refused a peer.
    #[error("{0}")]
    Signalling(#[from] SignallingError),
    /// A peer's transport was not connected.
    #[error("{0}")]
    Transport(String),
    /// The system refused something.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
}

impl LoadError {
    /// The plan's `stop` came while peers joined.
    fn before_all_joined() -> Self {
        Self::Transport("stopped before all peers had joined".into())
    }

    /// The plan's `stop` came while media flowed that does not count.
    fn before_the_count() -> Self {
        Self::Transport("stopped before the count began".into())
    }
}

/// Carries out a plan: joins the peers, lets media flow, counts, and removes what was made.
///
/// # Errors
/// It could not come to a count. A run that counted returns a report, also when packets were lost or wrong:
/// [`Report::failures`] says so.
pub fn run(plan: &Plan, signalling: Box<dyn Signalling>) -> Result<Report, LoadError> {
    run::run(plan, signalling)
}
