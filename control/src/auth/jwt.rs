//! JSON Web Tokens (RFC 7519): HS256 with a secret, ES256 with a key pair (RFC 7518 section 3.1).

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;

use super::LEEWAY_SECONDS;
use super::identity::Identity;
use super::key::{Application, Key, Material, PrivateKey, Secret};
use super::refusal::{Counters, Kind, Reason, Refusal};
use crate::fault::Fault;
use crate::{id, limits};

/// The claims of a token.
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
    /// May send messages; absent means yes.
    #[serde(default = "yes")]
    pub message: bool,
    /// May act on others in the scope; absent means no.
    #[serde(default)]
    pub admin: bool,
    /// End of validity, seconds since 1970.
    #[serde(deserialize_with = "date")]
    pub exp: u64,
    /// Start of validity, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_date")]
    pub nbf: Option<u64>,
}

fn yes() -> bool {
    true
}

/// A NumericDate (RFC 7519 section 2), without its fraction.
fn date<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let date = Number::deserialize(from)?;
    let whole = |seconds| Duration::try_from_secs_f64(seconds).ok().map(|time| time.as_secs());
    let seconds = date.as_u64().or_else(|| date.as_f64().and_then(whole));
    seconds.ok_or_else(|| D::Error::custom(format!("{date} is no time in seconds since 1970")))
}

fn some_date<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Date(#[serde(deserialize_with = "date")] u64);
    Ok(Option::<Date>::deserialize(from)?.map(|date| date.0))
}

impl Claims {
    /// What a token allows that says nothing about it. `exp` is in seconds since 1970.
    pub fn new(application: &str, subject: &str, scope: &str, exp: u64) -> Self {
        Self {
            iss: application.into(),
            sub: subject.into(),
            name: None,
            scope: scope.into(),
            publish: true,
            subscribe: true,
            message: true,
            admin: false,
            exp,
            nbf: None,
        }
    }
}

/// What a token says of itself, without trust in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    /// The application (`iss`).
    pub application: String,
    /// Which of its keys (`kid`). Its own identifier there stands for any of them.
    key: Option<String>,
    kind: Kind,
}

impl Unverified {
    /// Reads header and issuer.
    ///
    /// # Errors
    /// [`Reason::Malformed`], also for algorithms other than HS256 and ES256.
    pub fn parse(token: &str) -> Result<Self, Refusal> {
        let malformed = |_| {
            Refusal::malformed(
                "token malformed: neither a known development token, nor a JSON Web Token, nor a \
                 signed credential; check that it was copied whole",
            )
        };
        let header = jsonwebtoken::decode_header(token).map_err(malformed)?;
        if header.crit.is_some() {
            let text = "token malformed: its header demands extensions (crit), none are known here";
            return Err(Refusal::malformed(text));
        }
        let kind = match header.alg {
            Algorithm::HS256 => Kind::Hs256,
            Algorithm::ES256 => Kind::Es256,
            _ => {
                let text = "token malformed: signed with another algorithm than HS256 or ES256";
                return Err(Refusal::malformed(text));
            }
        };
        #[derive(Deserialize)]
        struct Issuer {
            #[serde(default)]
            iss: String,
        }
        let application = jsonwebtoken::dangerous::insecure_decode_claims::<Issuer>(token)
            .map_err(malformed)?
            .iss;
        id::check_name("token malformed: claim iss", &application, limits::APPLICATION_BYTES)
            .map_err(|fault| Refusal::malformed(fault.reason))?;
        let key = header.kid.filter(|key| *key != application);
        Ok(Self { application, key, kind })
    }

    /// Verifies the token that this was read from; `now` is in seconds since 1970.
    ///
    /// Only keys of the kind that goes with the token's algorithm are tried, each with its own
    /// algorithm: a public key is never taken for a secret.
    ///
    /// # Errors
    /// See [`Reason`].
    pub fn verify(
        &self,
        token: &str,
        application: &Application,
        counters: &Arc<Counters>,
        now: u64,
    ) -> Result<(Kind, Identity), Refusal> {
        let is_meant = |key: &&Key| {
            let kind = match key.material {
                Material::Secret(_) => Kind::Hs256,
                Material::Es256(_) => Kind::Es256,
            };
            key.is_enabled && kind == self.kind
        };
        let of_kind = || application.keys.iter().filter(is_meant);
        let name = &application.id;
        if of_kind().next().is_none() {
            let (algorithm, kind) = match self.kind {
                Kind::Es256 => ("ES256", "public key"),
                _ => ("HS256", "secret"),
            };
            let text = format!(
                "the application {name:?} has no {kind} that is enabled, which {algorithm} needs; \
                 sign with another algorithm or add one (strait app key)"
            );
            return Err(Refusal::new(Reason::SchemeNotEnabled, text));
        }
        let is_named = |key: &&Key| self.key.as_ref().is_none_or(|named| *named == key.id);
        let mut claims = Err(Refusal::new(
            Reason::BadSignature,
            format!(
                "token with a bad signature: its kid names no key of {name:?} that is enabled and \
                 of its algorithm; was it removed?"
            ),
        ));
        for key in of_kind().filter(is_named) {
            claims = decode(token, &key.material, name);
            if !matches!(&claims, Err(refusal) if refusal.reason == Reason::BadSignature) {
                break;
            }
        }
        let identity = admit(claims?, counters, now)?;
        Ok((self.kind, Identity { changes_keys: application.changes_keys, ..identity }))
    }
}

/// The claims, if `key` signed them.
fn decode(token: &str, key: &Material, application: &str) -> Result<Claims, Refusal> {
    let (algorithm, key) = match key {
        Material::Secret(secret) => {
            (Algorithm::HS256, DecodingKey::from_secret(secret.expose().as_bytes()))
        }
        Material::Es256(public) => (Algorithm::ES256, DecodingKey::from_ec_der(public.der())),
    };
    let mut validation = Validation::new(algorithm);
    // The clock is an argument here, so these two are checked in `admit`.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let data = jsonwebtoken::decode::<Claims>(token, &key, &validation);
    data.map(|data| data.claims).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => Refusal::new(
            Reason::BadSignature,
            format!("token with a bad signature: no key of {application:?} made it"),
        ),
        ErrorKind::Json(cause) => {
            Refusal::malformed(format!("token malformed: its claims: {cause}"))
        }
        ErrorKind::MissingRequiredClaim(claim) => {
            Refusal::malformed(format!("token malformed: claim {claim} is missing"))
        }
        kind => Refusal::malformed(format!("token malformed: {kind:?}")),
    })
}

/// Judges claims that are known to be the application's.
fn admit(claims: Claims, counters: &Arc<Counters>, now: u64) -> Result<Identity, Refusal> {
    if claims.exp.saturating_add(LEEWAY_SECONDS) < now {
        let text = format!("token expired {} s ago: ask for a new one", now - claims.exp);
        return Err(Refusal::new(Reason::Expired, text));
    }
    if let Some(nbf) = claims.nbf.filter(|nbf| *nbf > now.saturating_add(LEEWAY_SECONDS)) {
        let text = format!("token not yet valid: it starts in {} s; check the clocks", nbf - now);
        return Err(Refusal::new(Reason::ClockSkewed, text));
    }
    let check = |claim, text: &str, bytes_max| {
        id::check_name(&format!("token malformed: claim {claim}"), text, bytes_max)
            .map_err(|fault| Refusal::malformed(fault.reason))
    };
    check("sub", &claims.sub, limits::USER_BYTES)?;
    // One that is empty says nothing.
    let name = claims.name.filter(|name| !name.is_empty());
    if let Some(name) = &name {
        check("name", name, limits::NAME_BYTES)?;
    }
    Ok(Identity {
        application: claims.iss,
        subject: claims.sub,
        name,
        scope: claims.scope,
        publish: claims.publish,
        subscribe: claims.subscribe,
        message: claims.message,
        admin: claims.admin,
        changes_keys: false,
        counters: Arc::clone(counters),
    })
}

/// What signs a token.
pub enum Signer<'a> {
    /// HS256.
    Hs256(&'a Secret),
    /// ES256.
    Es256(&'a PrivateKey),
}

/// Signs a token. `key` is the identifier of the key, for `kid`; without it the server tries all
/// keys of the application.
///
/// # Errors
/// [`crate::fault::Class::Internal`] when signing fails.
pub fn mint(claims: &Claims, key: Option<&str>, signer: &Signer<'_>) -> Result<String, Fault> {
    let (algorithm, encoding) = match signer {
        Signer::Hs256(secret) => {
            (Algorithm::HS256, EncodingKey::from_secret(secret.expose().as_bytes()))
        }
        Signer::Es256(private) => (Algorithm::ES256, EncodingKey::from_ec_der(private.der())),
    };
    let header = Header { kid: key.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, &encoding)
        .map_err(|error| Fault::internal(format!("the token could not be signed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::PublicKey;

    fn secret(id: &str, text: &str) -> Key {
        Key::new(id, Material::Secret(text.into()), 0)
    }

    fn application(keys: Vec<Key>) -> Application {
        Application { id: "acme".into(), concatenated: false, changes_keys: false, keys }
    }

    fn claims() -> Claims {
        let claims = Claims::new("acme", "alice", "lobby", 1_000);
        Claims { name: Some("Alice".into()), subscribe: false, nbf: Some(500), ..claims }
    }

    fn verify(token: &str, keys: Vec<Key>, now: u64) -> Result<Identity, Refusal> {
        let unverified = Unverified::parse(token)?;
        assert_eq!(unverified.application, "acme");
        unverified.verify(token, &application(keys), &Arc::default(), now).map(|(_, id)| id)
    }

    #[test]
    fn a_minted_token_verifies() {
        let key = secret("first", "one");
        let token = mint(&claims(), Some("first"), &Signer::Hs256(&"one".into())).unwrap();
        let identity = verify(&token, vec![key], 700).unwrap();
        assert_eq!(identity.subject, "alice");
        assert!(identity.check_scope("lobby").is_ok());
        assert!(identity.check_scope("other").unwrap_err().reason.contains("another scope"));
        assert!(identity.check_publish().is_ok());
        assert!(identity.check_subscribe().unwrap_err().reason.contains("subscrib"));
        assert!(identity.check_message().is_ok(), "absent means yes");
        assert!(identity.check_admin().unwrap_err().reason.contains("admin"), "absent means no");
        let refused: u64 = identity.counters.refused().map(|(_, count)| count).sum();
        assert_eq!(refused, 3, "what is forbidden is counted");
    }

    #[test]
    fn each_failure_has_its_own_words() {
        let token = mint(&claims(), None, &Signer::Hs256(&"one".into())).unwrap();
        let refusal = |token: &str, key: &str, now| {
            let refusal = verify(token, vec![secret("first", key)], now).unwrap_err();
            (refusal.reason, refusal.text)
        };
        assert!(verify(&token, vec![secret("k", "one")], 1_030).is_ok(), "30 s of leeway");
        assert!(verify(&token, vec![secret("k", "one")], 470).is_ok(), "30 s of leeway");
        assert_eq!(refusal(&token, "one", 1_031).0, Reason::Expired);
        let (reason, text) = refusal(&token, "one", 469);
        assert_eq!(reason, Reason::ClockSkewed);
        assert!(text.contains("not yet valid"));
        assert_eq!(refusal(&token, "another", 700).0, Reason::BadSignature);
        assert_eq!(Unverified::parse("garbage").unwrap_err().reason, Reason::Malformed);
        // {"alg":"none"}.{"iss":"acme"}.
        assert!(Unverified::parse("eyJhbGciOiJub25lIn0.eyJpc3MiOiJhY21lIn0.").is_err());
        // {"alg":"HS256","crit":["exp"]} (RFC 7515 section 4.1.11).
        let critical = "eyJhbGciOiJIUzI1NiIsImNyaXQiOlsiZXhwIl19.eyJpc3MiOiJhY21lIn0.AAAA";
        assert!(Unverified::parse(critical).unwrap_err().text.contains("crit"));
        let malformed = |claims: Claims| {
            let token = mint(&claims, None, &Signer::Hs256(&"one".into())).unwrap();
            let (reason, text) = refusal(&token, "one", 700);
            assert_eq!(reason, Reason::Malformed, "{text}");
            text
        };
        for sub in ["x".repeat(200), String::new()] {
            assert!(malformed(Claims { sub, ..claims() }).contains("claim sub"));
        }
        for name in ["x".repeat(200), "a\nb".into()] {
            assert!(malformed(Claims { name: Some(name), ..claims() }).contains("claim name"));
        }
    }

    #[test]
    fn times_may_have_fractions() {
        let verify = |exp: serde_json::Value, nbf: serde_json::Value, now| {
            let claims = serde_json::json!({
                "iss": "acme", "sub": "alice", "name": "", "scope": "lobby", "exp": exp, "nbf": nbf,
                "iat": 499.75,
            });
            let key = EncodingKey::from_secret(b"one");
            let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key);
            let identity = verify(&token.unwrap(), vec![secret("k", "one")], now);
            identity.map(|identity| identity.name).map_err(|refusal| refusal.reason)
        };
        let absent = serde_json::Value::Null;
        assert_eq!(verify(1_000.5.into(), 500.5.into(), 700), Ok(None));
        assert_eq!(verify(1_000.5.into(), 500.5.into(), 1_031), Err(Reason::Expired));
        assert_eq!(verify(1_000.5.into(), 500.5.into(), 469), Err(Reason::ClockSkewed));
        assert_eq!(verify(u64::MAX.into(), absent.clone(), 700), Ok(None));
        for wrong in [serde_json::json!(-1), serde_json::json!(-0.5), serde_json::json!("1000")] {
            assert_eq!(verify(wrong, absent.clone(), 0), Err(Reason::Malformed));
        }
    }

    #[test]
    fn a_key_can_be_replaced_while_the_old_one_still_signs() {
        let keys = || vec![secret("old", "one"), secret("new", "two")];
        let mint = |key: Option<&str>, secret: &str| {
            mint(&claims(), key, &Signer::Hs256(&secret.into())).unwrap()
        };
        for key in [None, Some("acme"), Some("new")] {
            assert!(verify(&mint(key, "two"), keys(), 700).is_ok(), "{key:?}");
        }
        assert!(verify(&mint(None, "one"), keys(), 700).is_ok());
        let named = verify(&mint(Some("new"), "one"), keys(), 700).unwrap_err();
        assert_eq!(named.reason, Reason::BadSignature, "kid names the key that is tried");
        let gone = verify(&mint(Some("gone"), "one"), keys(), 700).unwrap_err();
        assert!(gone.text.contains("kid names no key"), "{}", gone.text);
        let mut disabled = keys();
        disabled[0].is_enabled = false;
        assert!(verify(&mint(None, "one"), disabled, 700).is_err());
    }

    /// The key pair is OpenSSL's, and so is the signature; nobody has the private key any more.
    #[test]
    fn what_another_program_signs_is_taken() {
        const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEt0WxqH+XAeIpR8OfZ1Sc7iAllqkP
d11oTmc28o+M8EAW4jfJSLJpZ5wCUviPdGyFFyUmIND/dW+zd8rf9j7Tdw==
-----END PUBLIC KEY-----
";
        const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.\
            eyJpc3MiOiJhY21lIiwic3ViIjoiYWxpY2UiLCJzY29wZSI6ImxvYmJ5IiwiZXhwIjoxMDAwfQ.\
            aaSh9HhaiuRRS7cZXptepmD03BPbEmiCLbGC-syVTY29lxxKVG20JS2xGW8uIKm-9VUbwES62aCWC5HjWWcJhA";
        let pair =
            || Key::new("pair", Material::Es256(PublicKey::from_pem(PUBLIC_KEY).unwrap()), 0);
        assert_eq!(verify(TOKEN, vec![pair()], 900).unwrap().scope, "lobby");
        assert_eq!(verify(TOKEN, vec![pair()], 1_031).unwrap_err().reason, Reason::Expired);
        let changed = TOKEN.replace("YWxpY2Ui", "bWxpY2Ui");
        assert_ne!(changed, TOKEN);
        assert_eq!(verify(&changed, vec![pair()], 900).unwrap_err().reason, Reason::BadSignature);
    }

    #[test]
    fn the_kind_of_the_key_decides_the_algorithm() {
        let private = PrivateKey::random().unwrap();
        let public = private.public().unwrap();
        let pair = || Key::new("pair", Material::Es256(public.clone()), 0);
        let token = mint(&claims(), Some("pair"), &Signer::Es256(&private)).unwrap();
        let good = verify(&token, vec![secret("first", "one"), pair()], 700).unwrap();
        assert_eq!(good.subject, "alice");
        let other = mint(&claims(), None, &Signer::Es256(&PrivateKey::random().unwrap())).unwrap();
        assert_eq!(verify(&other, vec![pair()], 700).unwrap_err().reason, Reason::BadSignature);
        // What everyone knows, the public key, signs nothing, in whatever form it is tried.
        for known in [public.pem().to_owned(), public.pem().trim().to_owned()] {
            let token = mint(&claims(), None, &Signer::Hs256(&known.as_str().into())).unwrap();
            let refusal = verify(&token, vec![pair()], 700).unwrap_err();
            assert_eq!(refusal.reason, Reason::SchemeNotEnabled);
            let refusal = verify(&token, vec![pair(), secret("first", "one")], 700).unwrap_err();
            assert_eq!(refusal.reason, Reason::BadSignature);
        }
        let refusal = verify(&token, vec![secret("first", "one")], 700).unwrap_err();
        assert_eq!(refusal.reason, Reason::SchemeNotEnabled);
    }
}
