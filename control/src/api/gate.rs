//! How often, and how many at a time, may call: whoever floods the API waits, not those who log in.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Refused;
use crate::admission::network;
use crate::config::Api;
use crate::fault::Fault;
use crate::http::{App, bearer};
use crate::limits::{self, CALLERS};
use crate::rate::Rate;

/// What is left to whom.
pub struct Gate {
    /// All calls.
    addresses: Rate<IpAddr>,
    /// By the digest of what came: a token that is wrong costs a look at the keys as well.
    tokens: Rate<[u8; digest::SHA256_OUTPUT_LEN]>,
    /// Of diagnostics.
    posts_by_address: Rate<IpAddr>,
    posts_by_application: Rate<String>,
    reads: Arc<Semaphore>,
}

/// The place of a question, held until it is answered. Who may not ask takes none.
#[derive(Clone, Default)]
pub struct Place(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Place {
    /// Takes one, for a caller that is known.
    ///
    /// # Errors
    /// [`crate::fault::Class::Unavailable`].
    pub fn take(&self, gate: &Gate) -> Result<(), Fault> {
        let Ok(place) = Arc::clone(&gate.reads).try_acquire_owned() else {
            let reason = "too many questions are under way; ask again in a moment";
            return Err(Fault::unavailable(reason));
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        Ok(())
    }
}

impl Gate {
    /// As the configuration says.
    pub fn new(config: &Api) -> Self {
        Self {
            addresses: Rate::each_second(config.calls_per_second, CALLERS),
            tokens: Rate::each_second(config.calls_per_second, CALLERS),
            posts_by_address: Rate::new(
                limits::POSTS_PER_ADDRESS,
                limits::POSTS_PER_ADDRESS_SECOND,
                CALLERS,
            ),
            posts_by_application: Rate::new(
                limits::POSTS_PER_APPLICATION,
                limits::POSTS_PER_APPLICATION_SECOND,
                CALLERS,
            ),
            reads: Arc::new(Semaphore::new(limits::READS_AT_ONCE)),
        }
    }

    /// Takes one call from what is left to an address and to a token.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooMany`].
    fn check(&self, address: IpAddr, token: Option<&str>, now: Instant) -> Result<(), Fault> {
        let refuse = |whose: &str| {
            Fault::too_many(format!(
                "{whose} calls more often than api.calls_per_second; wait a second, ask for more at \
                 a time"
            ))
            .passing()
        };
        if !self.addresses.admits(network(address), now) {
            return Err(refuse("your address"));
        }
        let digest = |token: &str| {
            let digest = digest::digest(&digest::SHA256, token.as_bytes());
            digest.as_ref().try_into().unwrap_or_default()
        };
        match token {
            Some(token) if !self.tokens.admits(digest(token), now) => {
                Err(refuse("who has this token"))
            }
            _ => Ok(()),
        }
    }

    /// Takes one post from what is left to an address.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooMany`].
    pub fn check_post(&self, address: IpAddr, now: Instant) -> Result<(), Fault> {
        self.posts_by_address.admits(network(address), now).then_some(()).ok_or_else(|| {
            let text = "your address posts too often; wait some seconds, put more in one post";
            Fault::too_many(text).passing()
        })
    }

    /// The same for an application.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooMany`].
    pub fn check_posts_of(&self, application: &str, now: Instant) -> Result<(), Fault> {
        self.posts_by_application.admits(application.to_owned(), now).then_some(()).ok_or_else(
            || {
                let text = "the application's clients post too often; wait some seconds";
                Fault::too_many(text).passing()
            },
        )
    }
}

/// Lets a call in, or not.
pub async fn pass(
    State(app): State<Arc<App>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let address = client.ip().to_canonical();
    if let Err(fault) = app.gate.check(address, bearer(request.headers()), Instant::now()) {
        return Refused::from(fault).into_response();
    }
    if *request.method() != Method::GET {
        return next.run(request).await;
    }
    let place = Place::default();
    request.extensions_mut().insert(place.clone());
    let response = next.run(request).await;
    drop(place);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_under_way_are_bounded() {
        let gate = Gate::new(&Api::default());
        let mut places = Vec::new();
        for _ in 0..limits::READS_AT_ONCE {
            let place = Place::default();
            place.take(&gate).unwrap();
            places.push(place);
        }
        assert!(Place::default().take(&gate).is_err());
        places.pop();
        Place::default().take(&gate).unwrap();
    }

    #[test]
    fn addresses_and_tokens_have_their_own() {
        let gate = Gate::new(&Api { calls_per_second: 2, ..Api::default() });
        let [a, b]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let now = Instant::now();
        let passed =
            |address, token| (0..9).filter(|_| gate.check(address, token, now).is_ok()).count();
        assert_eq!(passed(a, Some("one")), 4);
        assert_eq!(passed(a, Some("two")), 0, "the address has none left");
        assert_eq!(passed(b, Some("one")), 0, "nor the token");
        assert!(gate.check([192, 0, 2, 3].into(), Some("two"), now).is_ok());
    }
}
