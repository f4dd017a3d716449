//! `strait token`: makes a credential for a user of an application.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use strait_control::auth::{self, Application, Claims, PrivateKey, Secret, Signed, Signer};
use strait_control::store::Store;
use strait_control::{Config, id, limits};

use crate::app::{self, StoreOptions, said};
use crate::fault::Fault;

/// Random bytes of a salt.
const SALT_BYTES: usize = 16;

/// Whom the token is for, and what it allows.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The application that signs
    #[arg(long, value_name = "NAME")]
    application: String,
    /// Make the application, with a new secret, if the store does not have it
    #[arg(long)]
    create: bool,
    /// How to sign
    #[arg(long, value_name = "SCHEME", default_value = "jwt-hs256")]
    scheme: Scheme,
    /// Which of the application's keys signs [default: the oldest that is enabled]
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// The private key for jwt-es256, PEM
    #[arg(long, value_name = "FILE", required_if_eq("scheme", "jwt-es256"))]
    private_key: Option<PathBuf>,
    /// The scope that the token opens; `*` for all of the application (JSON Web Tokens)
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
    /// Do not allow sending messages
    #[arg(long)]
    no_message: bool,
    /// Allow acting on others in the scope; the dashboard takes such a token with scope `*`
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    store: StoreOptions,
}

/// How a token is signed; `docs/authentication.md` describes each.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// JSON Web Token, HMAC-SHA-256 with a secret
    JwtHs256,
    /// JSON Web Token, ECDSA on P-256 with a private key
    JwtEs256,
    /// Signed fields, HMAC-SHA-256, for one session
    HmacSha256,
    /// Signed fields, SHA-256 over all in a row, for one session; the application must allow it
    Sha256,
}

/// Prints the token alone, so that a script can take it.
pub fn run(options: &Options) -> Result<ExitCode, Fault> {
    let (url, now) = (options.store.url()?, app::unix_now()?);
    if let Some(note) = options.note() {
        eprintln!("{note}");
    }
    println!("{}", app::block_on(token(options, &url, now))??);
    Ok(ExitCode::SUCCESS)
}

/// The token; `now` is in seconds since 1970.
async fn token(options: &Options, store: &str, now: u64) -> Result<String, Fault> {
    let applications = Store::open(store).await.map_err(said)?.applications();
    let name = &options.application;
    let mut application = applications.find(name).await.map_err(said)?;
    if application.is_none() && options.create {
        let secret = app::add(&applications, name, now).await?;
        let secret = secret.expose();
        eprintln!(
            "made the application {name}; its secret, for signing tokens elsewhere: {secret}"
        );
        application = applications.find(name).await.map_err(said)?;
    }
    let Some(application) = application else {
        let known = applications.list().await.map_err(said)?.join(", ");
        return Err(Fault::new(format!(
            "{store} has no application {name:?} (it has: {}); remedy: --create makes it",
            if known.is_empty() { "none" } else { &known }
        )));
    };
    options.check()?;
    match options.scheme {
        Scheme::JwtHs256 => {
            let (key, secret) = options.secret(&application)?;
            let signer = Signer::Hs256(secret);
            auth::mint(&options.claims(now), Some(key), &signer).map_err(said)
        }
        Scheme::JwtEs256 => {
            let private = options.private_key.as_deref();
            let private = private.ok_or_else(|| Fault::new("--private-key FILE is missing"))?;
            let private = PrivateKey::from_pem(&app::file(private)?).map_err(said)?;
            let signer = Signer::Es256(&private);
            auth::mint(&options.claims(now), options.key.as_deref(), &signer).map_err(said)
        }
        Scheme::HmacSha256 => options.signed(&application, auth::Scheme::HmacSha256, now),
        Scheme::Sha256 if !application.concatenated => Err(Fault::new(format!(
            "{name:?} does not take this scheme; remedy: strait app set {name} --concatenated true"
        ))),
        Scheme::Sha256 => options.signed(&application, auth::Scheme::Concatenated, now),
    }
}

impl Options {
    /// What no server takes is not signed.
    fn check(&self) -> Result<(), Fault> {
        id::check_name("--scope", &self.scope, limits::SCOPE_NAME_BYTES).map_err(said)?;
        if let Some(name) = self.name.as_deref().filter(|name| !name.is_empty()) {
            id::check_name("--name", name, limits::NAME_BYTES).map_err(said)?;
        }
        match self.subject.as_str() {
            // Signed fields may have a user of no bytes.
            "" if self.is_of_fields() => Ok(()),
            subject => id::check_name("--subject", subject, limits::USER_BYTES).map_err(said),
        }
    }

    /// Whether signed fields are made, no JSON Web Token.
    fn is_of_fields(&self) -> bool {
        matches!(self.scheme, Scheme::HmacSha256 | Scheme::Sha256)
    }

    /// What may be wrong with the credential, and only the server that is asked knows.
    fn note(&self) -> Option<String> {
        let most = Config::default().auth.expires_ahead_seconds_max;
        (self.is_of_fields() && self.ttl.as_secs() > most).then(|| {
            format!(
                "servers take signed fields that expire at most {most} s ahead, unless \
                 auth.expires_ahead_seconds_max says otherwise: this one does for longer"
            )
        })
    }

    fn claims(&self, now: u64) -> Claims {
        let exp = now.saturating_add(self.ttl.as_secs());
        Claims {
            name: self.name.clone(),
            publish: !self.no_publish,
            subscribe: !self.no_subscribe,
            message: !self.no_message,
            admin: self.admin,
            ..Claims::new(&self.application, &self.subject, &self.scope, exp)
        }
    }

    fn signed(
        &self,
        application: &Application,
        scheme: auth::Scheme,
        now: u64,
    ) -> Result<String, Fault> {
        let is_narrowed = self.no_publish || self.no_subscribe || self.no_message;
        if self.name.is_some() || self.admin || is_narrowed {
            return Err(Fault::new(
                "signed fields carry no name and no grants; remedy: --scheme jwt-hs256",
            ));
        }
        let mut salt = [0; SALT_BYTES];
        id::fill(&mut salt).map_err(said)?;
        let mut signed = Signed {
            scheme,
            application: self.application.clone(),
            scope: self.scope.clone(),
            user: self.subject.clone(),
            salt: id::hex(&salt),
            expires: now.saturating_add(self.ttl.as_secs()),
            signature: String::new(),
        };
        signed.sign(self.secret(application)?.1);
        signed.check().map_err(|refusal| Fault::new(refusal.text))?;
        Ok(signed.to_text())
    }

    fn secret<'a>(&self, application: &'a Application) -> Result<(&'a str, &'a Secret), Fault> {
        let is_meant = |id: &str| self.key.as_ref().is_none_or(|wanted| wanted == id);
        application.secrets().find(|(id, _)| is_meant(id)).ok_or_else(|| {
            let name = &application.id;
            Fault::new(format!(
                "{name:?} has no such secret that is enabled; remedy: strait app list shows its \
                 keys, strait app key add {name} ID makes one"
            ))
        })
    }
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
    use strait_control::auth::{Authenticator, Credential, Identity, Reason};

    use super::*;
    use crate::state;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        Command::parse_from([&["strait"], arguments].concat()).options
    }

    async fn identify(store: &str, token: &str, now: u64) -> Result<Identity, Reason> {
        let applications = Store::open(store).await.expect("the store").applications();
        let control = Authenticator::new(
            Default::default(),
            strait_control::keys::Keys::new(applications, None),
        );
        let admitted = control.identify(Some(Credential::Bearer(token)), None, now).await;
        admitted.map(|admitted| admitted.identity).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "h", "12", "1y", "0s", "-1h", "99999999999999999d", "1é"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_no_server_takes_is_said_here() {
        let long = "x".repeat(200);
        let of = |more: &[&str]| options(&[&["--application", "acme"], more].concat());
        assert!(of(&["--scope", "lobby"]).check().is_ok());
        for (wrong, value) in
            [("--scope", &*long), ("--subject", &*long), ("--subject", ""), ("--name", &*long)]
        {
            let fault = of(&[wrong, value]).check().expect_err(wrong);
            assert!(fault.message.contains(wrong), "{fault:?}");
        }
        assert!(of(&["--subject", "", "--scheme", "hmac-sha256"]).check().is_ok());
        let noted = |scheme, ttl| of(&["--scheme", scheme, "--ttl", ttl]).note().is_some();
        assert!(noted("hmac-sha256", "2d") && noted("sha256", "25h"));
        assert!(!noted("hmac-sha256", "1d") && !noted("jwt-hs256", "30d"));
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
        let identity = identify(&store, &signed, 1_060).await.expect("valid");
        assert_eq!(identity.name.as_deref(), Some("Alice"));
        assert!(identity.publish && !identity.subscribe && !identity.admin);
        assert!(identity.check_scope("lobby").is_ok() && identity.check_scope("other").is_err());
        let late = 1_060 + auth::LEEWAY_SECONDS + 1;
        assert_eq!(identify(&store, &signed, late).await.err(), Some(Reason::Expired));

        // The second call finds the secret that the first one made.
        token(&options(&arguments), &store, 1_000).await.expect("signed again");
        let applications = Store::open(&store).await.expect("the store").applications();
        let acme = applications.find("acme").await.expect("read").expect("made");
        assert_eq!(acme.keys.len(), 1);
    }

    #[tokio::test]
    async fn every_scheme_is_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = state::store_url(folder.path());
        let applications = Store::open(&store).await.expect("the store").applications();
        app::add(&applications, "acme", 0).await.expect("added");
        let pair = PrivateKey::random().expect("a pair");
        let file = folder.path().join("pair.pem");
        std::fs::write(&file, pair.to_pem().expose()).expect("written");
        let public = auth::Material::Es256(pair.public().expect("its other half"));
        let key = auth::Key::new("pair", public, 1);
        applications.add_key("acme", &key).await.expect("added");
        let made = async |scheme: &str, more: &[&str]| {
            let file = file.display().to_string();
            let arguments = ["--application", "acme", "--scope", "lobby", "--scheme", scheme];
            let arguments = [&arguments[..], &["--private-key", &file], more].concat();
            token(&options(&arguments), &store, 1_000).await.map_err(|fault| fault.message)
        };
        assert!(made("sha256", &[]).await.expect_err("off").contains("--concatenated true"));
        applications.set_concatenated("acme", true).await.expect("set");
        for scheme in ["jwt-hs256", "jwt-es256", "hmac-sha256", "sha256"] {
            let token = made(scheme, &["--subject", "alice"]).await.expect(scheme);
            let identity = identify(&store, &token, 1_001).await.expect(scheme);
            assert_eq!((identity.subject.as_str(), identity.scope.as_str()), ("alice", "lobby"));
        }
        let admin = made("jwt-hs256", &["--admin"]).await.expect("signed");
        assert!(identify(&store, &admin, 1_001).await.expect("valid").admin);
        assert!(made("hmac-sha256", &["--admin"]).await.expect_err("no grants").contains("jwt"));
        let all = options(&["--application", "acme", "--scheme", "hmac-sha256"]);
        assert!(token(&all, &store, 1_000).await.expect_err("*").message.contains("one scope"));
        assert!(made("jwt-hs256", &["--key", "other"]).await.expect_err("absent").contains("list"));
    }
}
