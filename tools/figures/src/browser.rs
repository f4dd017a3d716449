//! Real Chromium, driven by `first-picture.mjs` beside this crate.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::peer::Server;

/// How long the browsers may take for all their joins.
const WITHIN: Duration = Duration::from_secs(180);

/// Seconds from Join to the first picture, once per join.
pub async fn join_to_first_picture(server: Server) -> io::Result<Vec<f64>> {
    let tree = source_tree()?;
    let mut node = Command::new("node");
    node.arg(tree.join("tools/figures/first-picture.mjs"))
        .arg(format!("http://localhost:{}", server.http.port()))
        .arg(server.token)
        .current_dir(tree)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = timeout(WITHIN, node.output()).await??;
    if !output.status.success() {
        return Err(io::Error::other(format!("Chromium could not be driven ({})", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}

/// The source tree, where the script and the driver's packages are: the folder one stands in, as
/// `./dev figures` sees to.
pub fn source_tree() -> io::Result<PathBuf> {
    let here = std::env::current_dir()?;
    if Path::new("tools/figures/first-picture.mjs").is_file() {
        return Ok(here);
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "not in the source tree; use ./dev figures"))
}
