//! `strait token`: signs a token for a user of an application (HS256 JSON Web Token).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use strait_control::auth::{self, Claims};
use strait_control::id;
use strait_control::store::{Applications, Store};

use crate::fault::Fault;
use crate::state;

/// Random bytes of a new secret: as many as HS256 can use (RFC 7518 section 3.2).
const SECRET_BYTES: usize = 32;

/// Whom the token is for, and what it allows.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The application that signs
    #[arg(long, value_name = "NAME")]
    application: String,
    /// Make the application, with a new secret, if the store does not have it
    #[arg(long)]
    create: bool,
    /// The scope that the token opens; `*` for all of the application
    #[arg(long, value_name = "NAME", default_value = "*")]
    scope: String,
    /// Who, as the application names its users
    #[arg(long, value_name = "ID", default_value = "someone")]
    subject: String,
    /// Name that others in the scope see
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long it is valid: 90s, 15m, 12h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    ttl: Duration,
    /// Do not allow publishing
    #[arg(long)]
    no_publish: bool,
    /// Do not allow subscribing
    #[arg(long)]
    no_subscribe: bool,
    /// The store of control, as its configuration names it [default: that of `strait dev`]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// State folder of `strait dev`, whose store to use
    #[arg(long, value_name = "FOLDER", env = "STRAIT_STATE_DIR", conflicts_with = "store")]
    state_dir: Option<PathBuf>,
}

/// Prints the token alone, so that a script can take it.
pub fn run(options: &Options) -> Result<ExitCode, Fault> {
    let store = match (&options.store, &options.state_dir) {
        (Some(url), _) => url.clone(),
        (None, Some(folder)) => state::store_url(&state::make(folder)?),
        (None, None) => state::store_url(&state::make(&state::default_folder())?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Fault::new(format!("cannot start the runtime: {e}")))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.map_err(|_| Fault::new("the clock is before 1970; set it"))?.as_secs();
    println!("{}", runtime.block_on(token(options, &store, now))?);
    Ok(ExitCode::SUCCESS)
}

/// The token; `now` is in seconds since 1970.
async fn token(options: &Options, store: &str, now: u64) -> Result<String, Fault> {
    let said = |fault: strait_control::fault::Fault| Fault::new(fault.reason);
    let applications = Store::open(store).await.map_err(said)?.applications();
    let secret = match applications.secret(&options.application).await.map_err(said)? {
        Some(secret) => secret,
        None if options.create => create(&applications, &options.application, now).await?,
        None => {
            let known = applications.list().await.map_err(said)?.join(", ");
            return Err(Fault::new(format!(
                "{store} has no application {:?} (it has: {}); remedy: --create makes it",
                options.application,
                if known.is_empty() { "none" } else { &known }
            )));
        }
    };
    let claims = Claims {
        iss: options.application.clone(),
        sub: options.subject.clone(),
        name: options.name.clone(),
        scope: options.scope.clone(),
        publish: !options.no_publish,
        subscribe: !options.no_subscribe,
        exp: now.saturating_add(options.ttl.as_secs()),
        nbf: None,
    };
    auth::mint(&claims, secret.as_bytes()).map_err(said)
}

async fn create(applications: &Applications, name: &str, now: u64) -> Result<String, Fault> {
    let said = |fault: strait_control::fault::Fault| Fault::new(fault.reason);
    let mut bytes = [0; SECRET_BYTES];
    id::fill(&mut bytes).map_err(said)?;
    let secret = id::hex(&bytes);
    applications.put(name, &secret, now).await.map_err(said)?;
    eprintln!("made the application {name}; its secret, for signing tokens elsewhere: {secret}");
    Ok(secret)
}

/// A time such as `90s`, `15m`, `12h` or `7d`.
fn time(text: &str) -> Result<Duration, String> {
    let help = || format!("{text:?} is no time: write a number and s, m, h or d, such as 12h");
    let split = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at));
    let (number, unit) = text.split_at(split.ok_or_else(help)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(help()),
    };
    let number: u64 = number.parse().map_err(|_| help())?;
    match number.checked_mul(seconds) {
        Some(total) if total > 0 => Ok(Duration::from_secs(total)),
        _ => Err(help()),
    }
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

    fn options(arguments: &[&str]) -> Options {
        Command::parse_from([&["strait"], arguments].concat()).options
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "h", "12", "1y", "0s", "-1h", "99999999999999999d", "1é"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn control_accepts_what_is_signed_here() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = state::store_url(folder.path());
        let absent = token(&options(&["--application", "acme"]), &store, 1_000).await;
        assert!(absent.expect_err("not made yet").message.contains("--create"));

        let arguments = ["--application", "acme", "--create", "--scope", "lobby", "--ttl", "60s"];
        let arguments = [&arguments[..], &["--name", "Alice", "--no-subscribe"]].concat();
        let signed = token(&options(&arguments), &store, 1_000).await.expect("signed");
        let applications = Store::open(&store).await.expect("the store").applications();
        let secret = applications.secret("acme").await.expect("read").expect("made");
        let verify = |now| auth::verify(&signed, "acme", secret.as_bytes(), now);
        let identity = verify(1_060).expect("valid");
        assert_eq!(identity.name.as_deref(), Some("Alice"));
        assert!(identity.publish && !identity.subscribe);
        assert!(identity.check_scope("lobby").is_ok() && identity.check_scope("other").is_err());
        assert!(verify(1_060 + auth::LEEWAY_SECONDS + 1).is_err(), "expired");

        // The second call finds the secret that the first one made.
        token(&options(&arguments), &store, 1_000).await.expect("signed again");
        assert_eq!(applications.secret("acme").await.expect("read"), Some(secret));
    }
}
