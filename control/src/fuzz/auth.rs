//! Target `auth`: credentials as applications make them, and what becomes of them on the way.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Runtime};

use super::Choices;
use crate::auth::{
    Admitted, Authenticator, Claims, Credential, Key, Material, PrivateKey, Reason, Scheme, Secret,
    Signed, Signer, mint,
};
use crate::config;
use crate::fault::Fault;
use crate::keys::Keys;
use crate::store::Store;

/// Seconds since 1970.
const NOW: u64 = 1_800_000_000;
/// Credentials of one run.
const SHOWN: usize = 16;

/// Target `auth`: each credential is signed well, by some key, for some time; some are then changed,
/// cut, or shown again. It is let in when nothing is wrong with it, and for nothing but what it says.
pub fn auth(data: &[u8]) {
    let world = WORLD.get_or_init(|| World::new().expect("a store in memory"));
    let mut choices = Choices::new(data);
    let config = config::Auth { dev_tokens: vec![Secret::from("dev")], ..Default::default() };
    let node = Authenticator::new(config, Arc::clone(&world.keys));
    // What each credential opened, by its text.
    let mut opened: HashMap<String, String> = HashMap::new();
    for number in 0..SHOWN {
        if choices.is_empty() {
            break;
        }
        let given = match choices.one_in(2) {
            true => world.token(&mut choices),
            false => signed(&mut choices),
        };
        let text = match choices.below(4) {
            0 => change(&given.text, &mut choices),
            _ => given.text.clone(),
        };
        let session = opened.get(&text).cloned().filter(|_| choices.one_in(2));
        let bearer = Some(Credential::Bearer(&text));
        let identified = node.identify(bearer, session.as_deref(), NOW);
        let outcome = world.runtime.block_on(identified).map_err(|refusal| refusal.reason);
        let is_again = given.is_once && session.is_none() && opened.contains_key(&text);
        match outcome {
            Ok(Admitted { identity, pass }) => {
                assert_eq!((&text, given.wrong), (&given.text, None), "it is let in");
                assert!(!is_again, "twice: {text}");
                let [application, subject, scope] = &given.says;
                assert_eq!((&identity.application, &identity.subject), (application, subject));
                assert_eq!((&identity.scope, identity.admin), (scope, given.is_admin));
                if choices.one_in(2) {
                    let session = format!("l-{number}");
                    pass.opened(&session, || ());
                    opened.insert(text, session);
                }
            }
            Err(reason) if text == given.text => match given.wrong {
                Some(wrong) => assert_eq!(reason, wrong, "{text}"),
                // Another of its salt was shown before, or it was itself, by whom has no session of it.
                None => {
                    assert!(given.is_once && session.is_none() && !opened.is_empty(), "{text}");
                    assert_eq!(reason, Reason::Replayed, "{text}");
                }
            },
            Err(_) => {}
        }
        assert!(node.salts() <= SHOWN);
    }
}

/// A credential.
struct Given {
    text: String,
    /// Application, subject, scope.
    says: [String; 3],
    is_admin: bool,
    /// It opens one session.
    is_once: bool,
    /// Why it must be refused.
    wrong: Option<Reason>,
}

/// What does not change from run to run.
struct World {
    runtime: Runtime,
    keys: Arc<Keys>,
    pair: PrivateKey,
    stranger: PrivateKey,
}

static WORLD: OnceLock<World> = OnceLock::new();

/// `acme` takes every scheme, `plain` not the one of concatenated fields, and has no key pair.
const APPLICATIONS: [&str; 3] = ["acme", "plain", "nobody"];
const KEY: &str = "an API key of 32 bytes or longer";
const REVOKED: &str = "one of before, which was revoked";
const STRANGER: &str = "one that no application ever had";

impl World {
    fn new() -> Result<Self, Fault> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Fault::internal(error.to_string()))?;
        let (pair, stranger) = (PrivateKey::random()?, PrivateKey::random()?);
        let public = Key::new("pair", Material::Es256(pair.public()?), 0);
        let keys = runtime.block_on(async {
            let applications = Store::open_in_memory().await?.applications();
            for name in ["acme", "plain"] {
                applications.add(name, 0).await?;
                for (id, secret) in [("revoked", REVOKED), ("first", KEY)] {
                    let key = Key::new(id, Material::Secret(secret.into()), 0);
                    applications.add_key(name, &key).await?;
                }
                applications.enable_key(name, "revoked", false).await?;
            }
            applications.set_concatenated("acme", true).await?;
            applications.add_key("acme", &public).await?;
            Ok::<_, Fault>(Keys::new(applications, None))
        })?;
        Ok(Self { runtime, keys, pair, stranger })
    }

    fn token(&self, choices: &mut Choices<'_>) -> Given {
        let application = choices.pick(&APPLICATIONS);
        let expires = choices.pick(&[NOW, NOW - 30, NOW - 31, 0, u64::MAX]);
        let from = choices.pick(&[None, Some(NOW + 30), Some(NOW + 31), Some(u64::MAX)]);
        let (subject, scope) = (choices.pick(&["", "alice", "zoë"]), choices.pick(&["lobby", "*"]));
        let claims = Claims {
            admin: choices.one_in(2),
            nbf: from,
            ..Claims::new(application, subject, scope, expires)
        };
        let key = choices.pick(&[None, Some("acme"), Some("first"), Some("pair"), Some("gone")]);
        let (secret, pair) =
            (Secret::from(choices.pick(&[KEY, REVOKED, STRANGER])), choices.one_in(2));
        let (signer, is_good) = match choices.one_in(3) {
            true if pair => (Signer::Es256(&self.pair), ["acme", "pair"]),
            true => (Signer::Es256(&self.stranger), ["", "pair"]),
            false => {
                (Signer::Hs256(&secret), [if secret.is(KEY) { application } else { "" }, "first"])
            }
        };
        let is_pair = matches!(signer, Signer::Es256(_));
        let [of, named] = is_good;
        // An application's own name stands for any of its keys.
        let is_named = key.is_none_or(|key| key == named || key == application);
        let wrong = if application == "nobody" {
            Some(Reason::UnknownApplication)
        } else if is_pair && application == "plain" {
            Some(Reason::SchemeNotEnabled)
        } else if of != application || !is_named {
            Some(Reason::BadSignature)
        } else if expires < NOW - 30 {
            Some(Reason::Expired)
        } else if from > Some(NOW + 30) {
            Some(Reason::ClockSkewed)
        } else if subject.is_empty() {
            Some(Reason::Malformed)
        } else {
            None
        };
        let text = mint(&claims, key, &signer).expect("a token");
        let says = [application, subject, scope].map(str::to_owned);
        Given { text, says, is_admin: claims.admin, is_once: false, wrong }
    }
}

fn signed(choices: &mut Choices<'_>) -> Given {
    let application = choices.pick(&APPLICATIONS);
    let scheme = choices.pick(&[Scheme::HmacSha256, Scheme::Concatenated]);
    let (user, scope) = (choices.pick(&["alice", "zoë"]), choices.pick(&["lobby", "hall", "*"]));
    let ahead = 24 * 3_600 + 30;
    let expires =
        choices.pick(&[NOW, NOW + ahead, NOW - 30, NOW - 31, NOW + ahead + 1, 0, u64::MAX]);
    let mut signed = Signed {
        scheme,
        application: application.into(),
        scope: scope.into(),
        user: user.into(),
        salt: choices.pick(&["1", "2", "3"]).into(),
        expires,
        signature: String::new(),
    };
    let key = choices.pick(&[KEY, KEY, REVOKED, STRANGER]);
    signed.sign(&key.into());
    let wrong = if scope == "*" {
        Some(Reason::Malformed)
    } else if application == "nobody" {
        Some(Reason::UnknownApplication)
    } else if scheme == Scheme::Concatenated && application == "plain" {
        Some(Reason::SchemeNotEnabled)
    } else if key != KEY {
        Some(Reason::BadSignature)
    } else if expires < NOW - 30 {
        Some(Reason::Expired)
    } else if expires > NOW + ahead {
        Some(Reason::ClockSkewed)
    } else {
        None
    };
    let says = [application, user, scope].map(str::to_owned);
    Given { text: signed.to_text(), says, is_admin: false, is_once: true, wrong }
}

/// One byte is another, or the end is missing. More would be too much: between two fields of the
/// concatenated scheme a letter may move, which its signature does not tell.
fn change(text: &str, choices: &mut Choices<'_>) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let place = (choices.below(256) * 256 + choices.below(256)) % bytes.len();
    match choices.byte() & 0x7f {
        0 => bytes.truncate(place),
        other => bytes[place] ^= other,
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
