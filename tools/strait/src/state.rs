//! Where a development setup keeps what it makes.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::fault::Fault;

/// The longest path of a Unix socket (`sun_path` of unix(7), without its final zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The file that `strait dev` locks while it uses a folder; its number is in it.
const LOCK: &str = "dev.lock";

/// Where the packaged relay listens.
const SYSTEM_SOCKET: &str = "/run/strait/relay.sock";

/// The folder to use when none was named: that of the source tree one stands in, else the user's.
pub fn default_folder() -> PathBuf {
    folder_of("dev")
}

/// The folder of a cluster on this machine, found in the same way.
pub fn cluster_folder() -> PathBuf {
    folder_of("cluster")
}

fn folder_of(what: &str) -> PathBuf {
    if Path::new(".strait").is_dir() {
        return absolute(&Path::new(".strait").join(what));
    }
    let variable = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(env::temp_dir)
        .join("strait")
        .join(what)
}

/// Makes the folder, readable by its owner alone: keys and tokens are kept in it.
pub fn make(folder: &Path) -> Result<PathBuf, Fault> {
    let folder = absolute(folder);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|e| {
        Fault::new(format!(
            "cannot make the state folder {}: {e}; remedy: choose another with --state-dir",
            folder.display()
        ))
    })?;
    Ok(folder)
}

/// Has the folder alone for as long as the file lives: a second one would write other configurations
/// there, and speak to the first one's relay. The kernel lets go of it however the process ends.
pub fn hold(folder: &Path) -> Result<File, Fault> {
    let path = folder.join(LOCK);
    let fail = |e| {
        Fault::new(format!(
            "cannot lock {}: {e}; remedy: choose another folder with --state-dir",
            path.display()
        ))
    };
    let mut options = File::options();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(e)) => return Err(fail(e)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who took it in this instant has not yet said who it is.
            let _unknown = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => String::new(),
                number => format!(" (process {number})"),
            };
            return Err(Fault::new(format!(
                "{} is used by another strait dev{holder}; remedy: end that one, or give \
                 --state-dir another folder, and other ports",
                folder.display()
            )));
        }
    }
    let tell = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    tell.map_err(fail)?;
    Ok(file)
}

/// The relay's RPC socket in `folder`, or an error where the path would be too long for one.
pub fn socket(folder: &Path) -> Result<PathBuf, Fault> {
    let socket = folder.join("relay.sock");
    if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(socket);
    }
    Err(Fault::new(format!(
        "{} is too long for a Unix socket (at most {SOCKET_PATH_BYTES_MAX} bytes); remedy: choose \
         a shorter folder with --state-dir",
        socket.display()
    )))
}

/// The relay's RPC socket where none was named: that of `strait dev` in `folder`, or in the default
/// one; where none is there, that of a relay which the system runs.
pub fn relay(folder: Option<&Path>) -> Result<PathBuf, Fault> {
    let of_dev = socket(&folder.map_or_else(default_folder, Path::to_path_buf))?;
    let of_system = Path::new(SYSTEM_SOCKET);
    let is_system = folder.is_none() && !of_dev.exists() && of_system.exists();
    Ok(if is_system { of_system.to_path_buf() } else { of_dev })
}

/// The address of the SQLite store in `folder`.
pub fn store_url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("control.db").display())
}

/// How a person calls this program again: by its name where a shell finds it, else by its path from
/// here.
pub fn this_program() -> String {
    let name = env!("CARGO_BIN_NAME");
    let Ok(program) = env::current_exe() else { return name.to_owned() };
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join(name)).find(|it| it.is_file());
    if found.and_then(|it| it.canonicalize().ok()) == program.canonicalize().ok() {
        return name.to_owned();
    }
    let here = env::current_dir().ok();
    let shown = here.and_then(|here| program.strip_prefix(here).ok());
    shown.unwrap_or(&program).display().to_string()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_folder_is_refused_with_a_remedy() {
        let long = PathBuf::from(format!("/{}", "x".repeat(SOCKET_PATH_BYTES_MAX)));
        let fault = socket(&long).expect_err("too long");
        assert!(fault.message.contains("--state-dir"), "{}", fault.message);
        assert!(socket(Path::new("/short")).is_ok());
    }

    #[test]
    fn a_folder_is_held_by_one_at_a_time() {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let first = hold(temporary.path()).expect("nobody has it");
        let refused = hold(temporary.path()).expect_err("the first has it").message;
        let number = format!("(process {})", std::process::id());
        assert!(refused.contains(&number) && refused.contains("--state-dir"), "{refused}");
        drop(first);
        hold(temporary.path()).expect("nobody has it any more");
    }

    #[test]
    fn the_folder_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let made = make(&temporary.path().join("deep/state")).expect("made");
        let mode = fs::metadata(made).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
