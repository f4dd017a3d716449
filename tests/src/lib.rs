//! What the tests over the whole share: where the tree is, its files, and how a test says that it was skipped.
#![forbid(unsafe_code)]

pub mod hosts;
pub mod node;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The root of the source tree.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the tests package lies in the tree").to_path_buf()
}

/// Every file below `folder` (relative to the root) whose name ends in one of `endings`, as paths relative to the
/// root. Built, installed and generated folders are left out.
pub fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                let skipped = ["target", "node_modules", "dist", "out", "corpus", "__pycache__"];
                if !skipped.contains(&name.as_str()) && (!name.starts_with('.') || name == ".ci") {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path.strip_prefix(root()).expect("below the root").to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// The text of a file, by its path relative to the root.
///
/// # Panics
/// With the file's name, when it cannot be read.
pub fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Says that a test cannot run here, and why, so that `./dev test` can list it.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    let Some(list) = std::env::var_os("STRAIT_SKIPS") else { return };
    if let Ok(mut list) = OpenOptions::new().append(true).create(true).open(list) {
        // A list that cannot be written costs the summary a line, not the run its result.
        let _ = writeln!(list, "{test}: {reason}");
    }
}
