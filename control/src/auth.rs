//! Who is there: bearer tokens.
//!
//! Two kinds: development tokens, which open every scope of the application `dev`, and JSON Web
//! Tokens signed with HS256 by an application's secret (RFC 7519).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::id;
use crate::limits;
use crate::store::Applications;

/// Application of development tokens.
pub const DEV_APPLICATION: &str = "dev";
/// Clock difference that is forgiven, in seconds.
pub const LEEWAY_SECONDS: u64 = 30;

/// Who a token speaks for and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The application: scopes of different applications never meet.
    pub application: String,
    /// The subject: who, as the application names them. Empty for development tokens.
    pub subject: String,
    /// Display name, if the token carries one.
    pub name: Option<String>,
    /// The scope that the token opens; `*` for every scope of the application.
    pub scope: String,
    /// Whether it may publish.
    pub publish: bool,
    /// Whether it may subscribe.
    pub subscribe: bool,
}

/// The claims of a signed token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Application identifier.
    pub iss: String,
    /// Who.
    pub sub: String,
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Scope name, or `*`.
    pub scope: String,
    /// May publish; absent means yes.
    #[serde(default = "yes")]
    pub publish: bool,
    /// May subscribe; absent means yes.
    #[serde(default = "yes")]
    pub subscribe: bool,
    /// End of validity, seconds since 1970.
    pub exp: u64,
    /// Start of validity, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
}

fn yes() -> bool {
    true
}

impl Identity {
    /// Whether this identity may enter `scope`.
    ///
    /// # Errors
    /// [`crate::fault::Class::Forbidden`].
    pub fn check_scope(&self, scope: &str) -> Result<(), Fault> {
        if self.scope == "*" || self.scope == scope {
            return Ok(());
        }
        Err(Fault::forbidden(format!(
            "the token is for another scope than {scope:?}; ask the application for one that \
             names this scope"
        )))
    }

    /// Whether this identity may publish.
    ///
    /// # Errors
    /// [`crate::fault::Class::Forbidden`].
    pub fn check_publish(&self) -> Result<(), Fault> {
        if self.publish {
            return Ok(());
        }
        Err(Fault::forbidden("the token does not allow publishing; ask for one with publish"))
    }

    /// Whether this identity may subscribe.
    ///
    /// # Errors
    /// [`crate::fault::Class::Forbidden`].
    pub fn check_subscribe(&self) -> Result<(), Fault> {
        if self.subscribe {
            return Ok(());
        }
        Err(Fault::forbidden("the token does not allow subscribing; ask for one with subscribe"))
    }
}

/// Checks tokens.
pub struct Authenticator {
    dev_tokens: Vec<String>,
    applications: Applications,
}

impl Authenticator {
    /// Takes development tokens from the configuration, applications from the store.
    pub fn new(dev_tokens: Vec<String>, applications: Applications) -> Self {
        Self { dev_tokens, applications }
    }

    /// Tells whom `token` speaks for; `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unauthorized`] with the reason; [`crate::fault::Class::Internal`]
    /// when the store fails.
    pub async fn identify(&self, token: Option<&str>, now: u64) -> Result<Identity, Fault> {
        let token = token.map(str::trim).filter(|token| !token.is_empty()).ok_or_else(|| {
            Fault::unauthorized("token missing: send Authorization: Bearer TOKEN")
        })?;
        if token.len() > limits::TOKEN_BYTES {
            return Err(Fault::unauthorized("token malformed: longer than 8 KiB"));
        }
        let same = |dev: &String| verify_slices_are_equal(dev.as_bytes(), token.as_bytes()).is_ok();
        if self.dev_tokens.iter().any(same) {
            return Ok(Identity {
                application: DEV_APPLICATION.into(),
                subject: String::new(),
                name: None,
                scope: "*".into(),
                publish: true,
                subscribe: true,
            });
        }
        let application = application_of(token)?;
        let secret = self.applications.secret(&application).await?.ok_or_else(|| {
            Fault::unauthorized(format!(
                "token of unknown application {application:?}: it was removed, or the token is \
                 for another server"
            ))
        })?;
        verify(token, &application, secret.as_bytes(), now)
    }
}

/// The application that a token names, without trust in it: `kid` of the header, or `iss`.
///
/// # Errors
/// [`crate::fault::Class::Unauthorized`]: malformed, or signed by another algorithm.
pub fn application_of(token: &str) -> Result<String, Fault> {
    let malformed = |_| {
        Fault::unauthorized(
            "token malformed: neither a known development token nor a JSON Web Token; check that \
             it was copied whole",
        )
    };
    let header = jsonwebtoken::decode_header(token).map_err(malformed)?;
    if header.alg != Algorithm::HS256 {
        return Err(Fault::unauthorized(
            "token malformed: signed with another algorithm than HS256",
        ));
    }
    #[derive(Deserialize)]
    struct Issuer {
        #[serde(default)]
        iss: String,
    }
    let application = match header.kid {
        Some(kid) => kid,
        None => {
            jsonwebtoken::dangerous::insecure_decode_claims::<Issuer>(token).map_err(malformed)?.iss
        }
    };
    id::check_name("token malformed: the application", &application, limits::APPLICATION_BYTES)
        .map_err(|fault| Fault::unauthorized(fault.reason))?;
    Ok(application)
}

/// Verifies a signed token of `application`; `now` is in seconds since 1970.
///
/// # Errors
/// [`crate::fault::Class::Unauthorized`]: bad signature, missing claim, expired, not yet valid.
pub fn verify(token: &str, application: &str, secret: &[u8], now: u64) -> Result<Identity, Fault> {
    use jsonwebtoken::errors::ErrorKind;
    let mut validation = Validation::new(Algorithm::HS256);
    // The clock is an argument here, so these two are checked below.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(secret);
    let claims = match jsonwebtoken::decode::<Claims>(token, &key, &validation) {
        Ok(data) => data.claims,
        Err(error) => {
            return Err(Fault::unauthorized(match error.kind() {
                ErrorKind::InvalidSignature => format!(
                    "token with a bad signature: it was not signed with the secret of \
                     {application:?}"
                ),
                ErrorKind::Json(cause) => format!("token malformed: its claims: {cause}"),
                ErrorKind::MissingRequiredClaim(claim) => {
                    format!("token malformed: claim {claim} is missing")
                }
                kind => format!("token malformed: {kind:?}"),
            }));
        }
    };
    if claims.iss != application {
        return Err(Fault::unauthorized("token malformed: kid and iss name two applications"));
    }
    if claims.exp.saturating_add(LEEWAY_SECONDS) < now {
        let ago = now - claims.exp;
        return Err(Fault::unauthorized(format!("token expired {ago} s ago: ask for a new one")));
    }
    if let Some(nbf) = claims.nbf.filter(|nbf| *nbf > now.saturating_add(LEEWAY_SECONDS)) {
        return Err(Fault::unauthorized(format!(
            "token not yet valid: it starts in {} s; check the clocks",
            nbf - now
        )));
    }
    Ok(Identity {
        application: claims.iss,
        subject: claims.sub,
        name: claims.name.filter(|name| id::check_name("name", name, limits::NAME_BYTES).is_ok()),
        scope: claims.scope,
        publish: claims.publish,
        subscribe: claims.subscribe,
    })
}

/// Signs a token for `claims.iss` with its secret.
///
/// # Errors
/// [`crate::fault::Class::Internal`] when signing fails.
pub fn mint(claims: &Claims, secret: &[u8]) -> Result<String, Fault> {
    let header = Header { kid: Some(claims.iss.clone()), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret))
        .map_err(|error| Fault::internal(format!("the token could not be signed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"a secret of at least 32 bytes, no less";

    fn claims() -> Claims {
        Claims {
            iss: "acme".into(),
            sub: "alice".into(),
            name: Some("Alice".into()),
            scope: "lobby".into(),
            publish: true,
            subscribe: false,
            exp: 1_000,
            nbf: Some(500),
        }
    }

    fn refusal(token: &str, secret: &[u8], now: u64) -> String {
        verify(token, "acme", secret, now).unwrap_err().reason
    }

    #[test]
    fn a_minted_token_verifies() {
        let token = mint(&claims(), SECRET).unwrap();
        assert_eq!(application_of(&token).unwrap(), "acme");
        let identity = verify(&token, "acme", SECRET, 700).unwrap();
        assert_eq!(identity.subject, "alice");
        assert!(identity.check_scope("lobby").is_ok());
        assert!(identity.check_scope("other").unwrap_err().reason.contains("another scope"));
        assert!(identity.check_publish().is_ok());
        assert!(identity.check_subscribe().unwrap_err().reason.contains("subscrib"));
    }

    #[test]
    fn each_failure_has_its_own_words() {
        let token = mint(&claims(), SECRET).unwrap();
        assert!(verify(&token, "acme", SECRET, 1_030).is_ok(), "30 s of leeway");
        assert!(verify(&token, "acme", SECRET, 470).is_ok(), "30 s of leeway");
        assert!(refusal(&token, SECRET, 1_031).contains("expired"));
        assert!(refusal(&token, SECRET, 469).contains("not yet valid"));
        assert!(refusal(&token, b"another", 700).contains("bad signature"));
        assert!(application_of("garbage").unwrap_err().reason.contains("malformed"));
        let mut parts: Vec<&str> = token.split('.').collect();
        parts[1] = "e30"; // {}
        assert!(refusal(&parts.join("."), SECRET, 700).contains("bad signature"));
    }

    #[test]
    fn the_none_algorithm_is_refused() {
        // {"alg":"none"}.{"iss":"acme"}.
        assert!(application_of("eyJhbGciOiJub25lIn0.eyJpc3MiOiJhY21lIn0.").is_err());
    }

    #[tokio::test]
    async fn development_tokens_open_every_scope() {
        let store = crate::store::Store::open_in_memory().await.unwrap();
        let auth = Authenticator::new(vec!["dev".into()], store.applications());
        let identity = auth.identify(Some("dev"), 0).await.unwrap();
        assert!(identity.check_scope("anything").is_ok());
        assert!(auth.identify(None, 0).await.unwrap_err().reason.contains("missing"));
        assert!(auth.identify(Some("devil"), 0).await.unwrap_err().reason.contains("malformed"));
        let token = mint(&claims(), SECRET).unwrap();
        let unknown = auth.identify(Some(&token), 700).await.unwrap_err();
        assert!(unknown.reason.contains("unknown application"));
        store.applications().put("acme", std::str::from_utf8(SECRET).unwrap(), 0).await.unwrap();
        assert_eq!(auth.identify(Some(&token), 700).await.unwrap().application, "acme");
    }
}
