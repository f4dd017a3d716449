//! `strait app`: the applications whose users may come in, and their API keys.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use strait_control::auth::{Key, Material, PrivateKey, PublicKey, Secret};
use strait_control::store::{Applications, Store};

use crate::fault::Fault;
use crate::state;

/// Name of the key that an application begins with.
pub const FIRST_KEY: &str = "first";

/// Which store.
#[derive(Args, Clone, Debug)]
pub struct StoreOptions {
    /// The store of control, as its configuration names it [default: that of `strait dev`]
    #[arg(long, value_name = "URL", global = true)]
    store: Option<String>,
    /// State folder of `strait dev`, whose store to use
    #[arg(
        long,
        value_name = "FOLDER",
        env = "STRAIT_STATE_DIR",
        conflicts_with = "store",
        global = true
    )]
    state_dir: Option<PathBuf>,
}

impl StoreOptions {
    /// The address of the store.
    pub fn url(&self) -> Result<String, Fault> {
        Ok(match (&self.store, &self.state_dir) {
            (Some(url), _) => url.clone(),
            (None, Some(folder)) => state::store_url(&state::make(folder)?),
            (None, None) => state::store_url(&state::make(&state::default_folder())?),
        })
    }
}

/// What to do with applications.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Add an application with a new API key, which is printed this once.
    Add {
        /// Its identifier
        application: String,
    },
    /// List applications and their keys, without what is secret.
    List,
    /// Remove an application with its keys: what they signed is refused from now on.
    Remove {
        /// Its identifier
        application: String,
    },
    /// Change what an application takes.
    Set {
        /// Its identifier
        application: String,
        /// Take signatures over concatenated fields (docs/authentication.md says what is wrong with them)
        #[arg(long, value_name = "BOOL", required_unless_present = "change_keys")]
        concatenated: Option<bool>,
        /// Change the session key of a scope when a native client leaves (docs/authentication.md says what it costs)
        #[arg(long, value_name = "BOOL")]
        change_keys: Option<bool>,
    },
    /// Add, remove, switch keys.
    #[command(subcommand)]
    Key(KeyVerb),
}

#[derive(Subcommand, Clone, Debug)]
enum KeyVerb {
    /// Add a key; without an option a new secret, which is printed this once.
    Add {
        /// The application
        application: String,
        /// What to call the key
        id: String,
        #[command(flatten)]
        source: Source,
    },
    /// Switch a key on.
    Enable {
        /// The application
        application: String,
        /// The key
        id: String,
    },
    /// Switch a key off: what it signed is refused from now on.
    Disable {
        /// The application
        application: String,
        /// The key
        id: String,
    },
    /// Remove a key: what it signed is refused from now on.
    Remove {
        /// The application
        application: String,
        /// The key
        id: String,
    },
}

/// Where a key comes from.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
struct Source {
    /// A public key for ES256, PEM
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Make a pair for ES256 and write its private key to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    new_pair: Option<PathBuf>,
    /// A secret that others made, as the file's only line
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// Prints a new secret alone on the standard output, so that a script can take it; what it is, a
/// person is told on the standard error.
pub fn run(options: &Options) -> Result<ExitCode, Fault> {
    let url = options.store.url()?;
    let now = unix_now()?;
    let printed = block_on(act(&options.verb, &url, now))??;
    print!("{printed}");
    Ok(ExitCode::SUCCESS)
}

/// Adds an application with its first key, and returns that.
pub async fn add(applications: &Applications, name: &str, now: u64) -> Result<Secret, Fault> {
    let secret = Secret::random().map_err(said)?;
    let key = Key::new(FIRST_KEY, Material::Secret(secret.clone()), now);
    applications.add_with(name, &key).await.map_err(said)?;
    Ok(secret)
}

/// A refusal of control's, as this program says it.
pub fn said(fault: strait_control::Fault) -> Fault {
    Fault::new(fault.reason)
}

/// Seconds since 1970.
pub fn unix_now() -> Result<u64, Fault> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since.map_err(|_| Fault::new("the clock is before 1970; set it"))?.as_secs())
}

/// Waits for what `work` comes to.
pub fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Fault::new(format!("cannot start the runtime: {e}")))?;
    Ok(runtime.block_on(work))
}

/// What is to be printed.
async fn act(verb: &Verb, url: &str, now: u64) -> Result<String, Fault> {
    let applications = Store::open(url).await.map_err(said)?.applications();
    let outcome = match verb {
        Verb::Add { application } => {
            let secret = add(&applications, application, now).await?;
            eprintln!(
                "made the application {application} with the key {FIRST_KEY}; its secret, for \
                 signing tokens, told this once:"
            );
            return Ok(format!("{}\n", secret.expose()));
        }
        Verb::List => return list(&applications).await,
        Verb::Key(KeyVerb::Add { application, id, source }) => {
            let (material, printed, note) = source.read()?;
            let key = Key::new(id, material, now);
            applications.add_key(application, &key).await.map_err(said)?;
            eprintln!("added the key {id} to {application}{note}");
            return Ok(printed);
        }
        Verb::Remove { application } => applications.remove(application).await,
        Verb::Set { application, concatenated, change_keys } => {
            if let Some(is_on) = concatenated {
                applications.set_concatenated(application, *is_on).await.map_err(said)?;
            }
            match change_keys {
                Some(is_on) => applications.set_changes_keys(application, *is_on).await,
                None => Ok(()),
            }
        }
        Verb::Key(KeyVerb::Enable { application, id }) => {
            applications.enable_key(application, id, true).await
        }
        Verb::Key(KeyVerb::Disable { application, id }) => {
            applications.enable_key(application, id, false).await
        }
        Verb::Key(KeyVerb::Remove { application, id }) => {
            applications.remove_key(application, id).await
        }
    };
    outcome.map_err(said)?;
    Ok(String::new())
}

async fn list(applications: &Applications) -> Result<String, Fault> {
    let mut text = String::new();
    for application in applications.all().await.map_err(said)? {
        text.push_str(&application.id);
        let settings = [
            (application.concatenated, " (concatenated)"),
            (application.changes_keys, " (changes keys)"),
        ];
        settings.iter().filter(|(is_on, _)| *is_on).for_each(|(_, text_of)| text.push_str(text_of));
        text.push('\n');
        for key in &application.keys {
            let state = if key.is_enabled { "enabled" } else { "disabled" };
            text.push_str(&format!("  {} {} {state}\n", key.id, key.material.kind()));
        }
    }
    Ok(text)
}

impl Source {
    /// The key, what is to be printed of it, and how a person is told what that is.
    fn read(&self) -> Result<(Material, String, String), Fault> {
        if let Some(path) = &self.public_key {
            let public = PublicKey::from_pem(&file(path)?).map_err(said)?;
            return Ok((Material::Es256(public), String::new(), String::new()));
        }
        if let Some(path) = &self.new_pair {
            let pair = PrivateKey::random().map_err(said)?;
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            options
                .open(path)
                .and_then(|mut file| file.write_all(pair.to_pem().expose().as_bytes()))
                .map_err(|e| Fault::new(format!("{}: cannot be written: {e}", path.display())))?;
            let note = format!(
                "; the private key, for `strait token --scheme jwt-es256 --private-key`, is in {}",
                path.display()
            );
            return Ok((Material::Es256(pair.public().map_err(said)?), String::new(), note));
        }
        if let Some(path) = &self.secret_file {
            let secret = Material::Secret(file(path)?.trim().into());
            return Ok((secret, String::new(), String::new()));
        }
        let secret = Secret::random().map_err(said)?;
        let printed = format!("{}\n", secret.expose());
        Ok((Material::Secret(secret), printed, "; its secret, told this once:".into()))
    }
}

/// The text of a file that holds a key.
pub fn file(path: &Path) -> Result<String, Fault> {
    fs::read_to_string(path)
        .map_err(|error| Fault::new(format!("{}: cannot be read: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    #[tokio::test]
    async fn applications_and_keys_come_and_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = state::store_url(folder.path());
        let path = |name: &str| folder.path().join(name).display().to_string();
        let act = async |arguments: &[&str]| {
            let options = Command::parse_from([&["app"], arguments].concat()).options;
            act(&options.verb, &url, 7).await.map_err(|fault| fault.message)
        };
        let secret = act(&["add", "acme"]).await.expect("added");
        assert_eq!(secret.trim().len(), 64);
        assert!(act(&["add", "acme"]).await.expect_err("twice").contains("already"));
        let other = act(&["key", "add", "acme", "second"]).await.expect("added");
        assert_ne!(other, secret);
        let pair = path("pair.pem");
        let made = ["key", "add", "acme", "pair", "--new-pair", &pair];
        assert_eq!(act(&made).await.expect("made"), "");
        assert!(act(&made).await.is_err(), "no private key is overwritten");
        let private = PrivateKey::from_pem(&file(Path::new(&pair)).expect("written"));
        let public = private.expect("a key").public().expect("its other half");
        fs::write(path("public.pem"), public.pem()).expect("written");
        let known = ["key", "add", "acme", "known", "--public-key", &path("public.pem")];
        act(&known).await.expect("added");
        fs::write(path("secret"), "too short\n").expect("written");
        let weak = ["key", "add", "acme", "weak", "--secret-file", &path("secret")];
        assert!(act(&weak).await.expect_err("weak").contains("guessed"));
        act(&["key", "disable", "acme", "second"]).await.expect("disabled");
        act(&["set", "acme", "--concatenated", "true"]).await.expect("set");
        let list = act(&["list"]).await.expect("listed");
        assert!(list.starts_with("acme (concatenated)\n"), "{list}");
        act(&["set", "acme", "--concatenated", "false", "--change-keys", "true"])
            .await
            .expect("set");
        let list = act(&["list"]).await.expect("listed");
        assert!(list.starts_with("acme (changes keys)\n"), "{list}");
        act(&["set", "acme", "--change-keys", "false"]).await.expect("set");
        assert!(Command::try_parse_from(["app", "set", "acme"]).is_err(), "nothing to set");
        for line in ["first secret enabled", "second secret disabled", "pair es256 enabled"] {
            assert!(list.contains(line), "{list}");
        }
        assert!(!list.contains(secret.trim()));
        act(&["key", "enable", "acme", "second"]).await.expect("enabled");
        act(&["key", "remove", "acme", "first"]).await.expect("removed");
        assert!(act(&["key", "remove", "acme", "first"]).await.is_err());
        act(&["remove", "acme"]).await.expect("removed");
        assert_eq!(act(&["list"]).await.expect("listed"), "");
    }
}
