//! Who is there: development tokens, JSON Web Tokens, signed credentials.
//!
//! `key` is what signs, `jwt` and `signed` are what is signed, `replay` keeps a signed credential
//! from being used twice, `identity` is what comes out, `refusal` why nothing does.
//! `docs/authentication.md` explains it to those who write applications.

mod identity;
mod jwt;
mod key;
mod refusal;
mod replay;
mod signed;

use std::sync::Arc;

use tracing::warn;

pub use identity::{Identity, Noted};
pub use jwt::{Claims, Signer, Unverified, mint};
pub use key::{Application, Key, Material, PrivateKey, PublicKey, Secret};
pub use refusal::{Counters, Kind, Reason, Refusal};
pub use replay::{Pass, Salts};
pub use signed::{Scheme, Signed};

use crate::config;
use crate::keys::Keys;
use crate::limits;

/// Application of development tokens.
pub const DEV_APPLICATION: &str = "dev";
/// Clock difference that is forgiven, in seconds.
pub const LEEWAY_SECONDS: u64 = 30;

/// What a client shows.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'a> {
    /// A text: a development token, a JSON Web Token, or a signed credential in text form.
    Bearer(&'a str),
    /// A signed credential.
    Signed(&'a Signed),
}

/// A client that was let in.
pub struct Admitted {
    /// Whom it speaks for.
    pub identity: Identity,
    /// To be told of the session that is opened for it, whatever the credential was. A salt is
    /// used up by that alone: who is refused afterwards may try again with the same credential.
    pub pass: Pass,
}

/// Checks credentials.
pub struct Authenticator {
    config: config::Auth,
    keys: Arc<Keys>,
    salts: Salts,
    counters: Arc<Counters>,
}

impl Authenticator {
    /// Takes development tokens from the configuration, applications from what the node knows.
    pub fn new(config: config::Auth, keys: Arc<Keys>) -> Self {
        Self { config, keys, salts: Salts::default(), counters: Arc::default() }
    }

    /// Tells whom `credential` speaks for. `session` is the identifier of a session that the
    /// caller says it holds; it lets a signed credential be shown again. `now` is in seconds since
    /// 1970.
    ///
    /// # Errors
    /// See [`Reason`].
    pub async fn identify(
        &self,
        credential: Option<Credential<'_>>,
        session: Option<&str>,
        now: u64,
    ) -> Result<Admitted, Refusal> {
        let outcome = match credential {
            Some(Credential::Signed(signed)) => self.signed(signed, session, now).await,
            Some(Credential::Bearer(text)) if !text.trim().is_empty() => {
                self.bearer(text.trim(), session, now).await
            }
            _ => Err(Refusal::new(
                Reason::Missing,
                "token missing: show one, by `Authorization: Bearer TOKEN` or in `Auth` of a link",
            )),
        };
        match outcome {
            Ok((kind, admitted)) => {
                self.counters.accept(kind);
                Ok(admitted)
            }
            Err(refusal) => {
                self.counters.refuse(refusal.reason);
                Err(refusal)
            }
        }
    }

    /// As [`Authenticator::identify`], of typed fields.
    ///
    /// # Errors
    /// See [`Reason`].
    pub async fn identify_signed(
        &self,
        signed: &Signed,
        session: Option<&str>,
        now: u64,
    ) -> Result<Admitted, Refusal> {
        self.identify(Some(Credential::Signed(signed)), session, now).await
    }

    /// An identity of before this process was started, as it was noted then.
    pub fn recalled(&self, noted: Noted) -> Identity {
        let Noted { application, subject, name, scope, publish, subscribe, .. } = noted;
        let Noted { message, admin, changes_keys, .. } = noted;
        let counters = Arc::clone(&self.counters);
        Identity {
            application,
            subject,
            name,
            scope,
            publish,
            subscribe,
            message,
            admin,
            changes_keys,
            counters,
        }
    }

    /// How many were let in and refused.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Salts that are remembered.
    pub fn salts(&self) -> usize {
        self.salts.count()
    }

    async fn bearer(
        &self,
        text: &str,
        session: Option<&str>,
        now: u64,
    ) -> Result<(Kind, Admitted), Refusal> {
        if text.len() > limits::TOKEN_BYTES {
            return Err(Refusal::malformed("token malformed: longer than 8 KiB"));
        }
        if self.config.dev_tokens.iter().any(|token| token.is(text)) {
            return Ok((Kind::Development, self.development()));
        }
        if let Some(signed) = Signed::parse(text) {
            return self.signed(&signed?, session, now).await;
        }
        let token = Unverified::parse(text)?;
        let application = self.application(&token.application).await?;
        let (kind, identity) = token.verify(text, &application, &self.counters, now)?;
        Ok((kind, Admitted { identity, pass: Pass::default() }))
    }

    async fn signed(
        &self,
        signed: &Signed,
        session: Option<&str>,
        now: u64,
    ) -> Result<(Kind, Admitted), Refusal> {
        signed.check()?;
        let application = self.application(&signed.application).await?;
        let kind = match signed.scheme {
            Scheme::HmacSha256 => Kind::HmacSha256,
            Scheme::Concatenated => Kind::Concatenated,
        };
        let name = &application.id;
        if kind == Kind::Concatenated && !application.concatenated {
            let text = format!(
                "the application {name:?} does not take the scheme {}; sign with {}, or switch it \
                 on (strait app set)",
                Scheme::Concatenated.name(),
                Scheme::HmacSha256.name()
            );
            return Err(Refusal::new(Reason::SchemeNotEnabled, text));
        }
        if !application.secrets().any(|(_, secret)| signed.is_signed_by(secret)) {
            let text = format!(
                "credential with a bad signature: no API key of {name:?} that is enabled made it, \
                 or a field was changed; compare with the test vector of docs/authentication.md"
            );
            return Err(Refusal::new(Reason::BadSignature, text));
        }
        let ends = signed.expires.saturating_add(LEEWAY_SECONDS);
        if ends < now {
            let ago = now - signed.expires;
            let text = format!("credential expired {ago} s ago: ask the application for a new one");
            return Err(Refusal::new(Reason::Expired, text));
        }
        let ahead_max = self.config.expires_ahead_seconds_max;
        if signed.expires > now.saturating_add(ahead_max).saturating_add(LEEWAY_SECONDS) {
            let ahead = signed.expires - now;
            let text = format!(
                "credential expires {ahead} s ahead, {ahead_max} are allowed: check the clocks, \
                 and that expires is in seconds since 1970"
            );
            return Err(Refusal::new(Reason::ClockSkewed, text));
        }
        let pass = self.salts.take(signed, session, ends, now)?;
        let identity = Identity {
            application: signed.application.clone(),
            subject: signed.user.clone(),
            name: None,
            scope: signed.scope.clone(),
            publish: true,
            subscribe: true,
            message: true,
            admin: false,
            changes_keys: application.changes_keys,
            counters: Arc::clone(&self.counters),
        };
        Ok((kind, Admitted { identity, pass }))
    }

    fn development(&self) -> Admitted {
        let identity = Identity {
            application: DEV_APPLICATION.into(),
            subject: String::new(),
            name: None,
            scope: "*".into(),
            publish: true,
            subscribe: true,
            message: true,
            admin: true,
            changes_keys: false,
            counters: Arc::clone(&self.counters),
        };
        Admitted { identity, pass: Pass::default() }
    }

    async fn application(&self, name: &str) -> Result<Application, Refusal> {
        let found = self.keys.find(name).await;
        let found = found.map_err(|fault| {
            warn!("who may come in is not known: {fault}");
            let text = "who may come in is not known, the store does not answer; try again in some \
                        seconds";
            Refusal::new(Reason::StoreFailed, text)
        })?;
        found.ok_or_else(|| {
            let text = format!(
                "token of unknown application {name:?}: it was removed, or the token is for \
                 another server"
            );
            Refusal::new(Reason::UnknownApplication, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    const KEY: &str = "an API key of 32 bytes or longer";

    async fn acme(store: &Store) {
        store.applications().add("acme", 0).await.unwrap();
        let key = Key::new("first", Material::Secret(KEY.into()), 0);
        store.applications().add_key("acme", &key).await.unwrap();
    }

    fn authenticator(store: &Store) -> Authenticator {
        let config = config::Auth { dev_tokens: vec!["dev".into()], ..Default::default() };
        Authenticator::new(config, Keys::new(store.applications(), None))
    }

    fn signed(scheme: Scheme, salt: &str, expires: u64) -> Signed {
        let mut signed = Signed {
            scheme,
            application: "acme".into(),
            scope: "lobby".into(),
            user: "alice".into(),
            salt: salt.into(),
            expires,
            signature: String::new(),
        };
        signed.sign(&KEY.into());
        signed
    }

    #[tokio::test]
    async fn development_tokens_open_every_scope() {
        let store = Store::open_in_memory().await.unwrap();
        let auth = authenticator(&store);
        let identify =
            async |text: &str, now| auth.identify(Some(Credential::Bearer(text)), None, now).await;
        let identity = identify("dev", 0).await.unwrap().identity;
        assert!(identity.check_scope("anything").is_ok() && identity.check_admin().is_ok());
        assert_eq!(auth.identify(None, None, 0).await.err().unwrap().reason, Reason::Missing);
        assert_eq!(identify(" ", 0).await.err().unwrap().reason, Reason::Missing);
        assert_eq!(identify("devil", 0).await.err().unwrap().reason, Reason::Malformed);
        let claims = Claims::new("acme", "alice", "lobby", 1_000);
        let token = mint(&claims, None, &Signer::Hs256(&KEY.into())).unwrap();
        let unknown = identify(&token, 700).await.err().unwrap();
        assert_eq!(unknown.reason, Reason::UnknownApplication);
        acme(&store).await;
        assert_eq!(identify(&token, 700).await.unwrap().identity.application, "acme");
        let accepted = |kind| auth.counters().accepted().find(|(k, _)| *k == kind).unwrap().1;
        assert_eq!((accepted(Kind::Development), accepted(Kind::Hs256)), (1, 1));
        let refused: u64 = auth.counters().refused().map(|(_, count)| count).sum();
        assert_eq!(refused, 4);
    }

    #[tokio::test]
    async fn signed_credentials_fail_each_in_its_own_way() {
        let store = Store::open_in_memory().await.unwrap();
        let auth = authenticator(&store);
        let hmac = |salt: &str, expires| signed(Scheme::HmacSha256, salt, expires);
        let identify = async |signed: &Signed, session: Option<&str>, now| {
            auth.identify_signed(signed, session, now).await.map_err(|refusal| refusal.reason)
        };
        let refusal = async |signed: &Signed, now| identify(signed, None, now).await.err().unwrap();
        assert_eq!(refusal(&hmac("a", 1_000), 900).await, Reason::UnknownApplication);
        acme(&store).await;

        let first = hmac("a", 1_000);
        let Admitted { identity, pass } = identify(&first, None, 900).await.unwrap();
        pass.opened("s-1", || ());
        assert_eq!((identity.subject.as_str(), identity.scope.as_str()), ("alice", "lobby"));
        assert!(identity.check_publish().is_ok() && identity.check_message().is_ok());
        assert!(identity.check_scope("other").is_err() && identity.check_admin().is_err());
        assert_eq!(refusal(&first, 901).await, Reason::Replayed);
        assert!(identify(&first, Some("s-1"), 901).await.is_ok());

        let day = 24 * 3_600;
        assert_eq!(refusal(&hmac("b", 1_000), 1_031).await, Reason::Expired);
        assert!(identify(&hmac("b", 1_000), None, 1_030).await.is_ok(), "30 s of leeway");
        assert_eq!(refusal(&hmac("c", day + 31), 0).await, Reason::ClockSkewed);
        assert!(identify(&hmac("c", day + 30), None, 0).await.is_ok());
        assert_eq!(refusal(&hmac("d", u64::MAX), 0).await, Reason::ClockSkewed);
        let forged = Signed { user: "mallory".into(), ..hmac("e", 1_000) };
        assert_eq!(refusal(&forged, 900).await, Reason::BadSignature);
        let empty = Signed { user: String::new(), ..hmac("e", 1_000) };
        assert_eq!(refusal(&empty, 900).await, Reason::Malformed);

        let concatenated = signed(Scheme::Concatenated, "f", 1_000);
        assert_eq!(refusal(&concatenated, 900).await, Reason::SchemeNotEnabled);
        store.applications().set_concatenated("acme", true).await.unwrap();
        identify(&concatenated, None, 900).await.unwrap().pass.opened("s-2", || ());
        assert_eq!(refusal(&concatenated, 900).await, Reason::Replayed);

        // A key that is disabled or removed stops at once.
        store.applications().enable_key("acme", "first", false).await.unwrap();
        assert_eq!(refusal(&hmac("g", 1_000), 900).await, Reason::BadSignature);
        store.applications().enable_key("acme", "first", true).await.unwrap();
        assert!(identify(&hmac("g", 1_000), None, 900).await.is_ok());
        store.applications().remove_key("acme", "first").await.unwrap();
        assert_eq!(refusal(&hmac("h", 1_000), 900).await, Reason::BadSignature);
    }

    #[tokio::test]
    async fn the_text_form_is_the_same_credential() {
        let store = Store::open_in_memory().await.unwrap();
        acme(&store).await;
        let auth = authenticator(&store);
        let one = signed(Scheme::HmacSha256, "a", 1_000);
        let text = one.to_text();
        let admitted = auth.identify(Some(Credential::Bearer(&text)), None, 900).await.unwrap();
        admitted.pass.opened("s-1", || ());
        let again = auth.identify_signed(&one, None, 900).await.err().unwrap();
        assert_eq!(again.reason, Reason::Replayed);
        assert_eq!(auth.salts(), 1);
    }
}
