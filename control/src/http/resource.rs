//! WHIP (RFC 9725) and WHEP (the same shape, the other way): `POST`, `PATCH`, `DELETE`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::time::timeout;
use tracing::info;

use super::answer::{Refusal, accepts, encode_segment, has_content_type, refuse_with};
use super::cors::add_ice_servers;
use super::query::Query;
use super::sessions::{self, Session, Wish, fill_slots};
use super::{App, Shared, identify};
use crate::auth::{Admitted, Identity, Pass};
use crate::fault::Fault;
use crate::scope::{Participant, Role, Sink};
use crate::sdp::Fragment;
use crate::{id, limits};

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// What the address may say besides the scope.
#[derive(Debug, Deserialize)]
pub struct Options {
    /// WHEP: the peer to play, by identifier or name.
    peer: Option<String>,
    /// Display name, where the token has none.
    name: Option<String>,
}

type Answer = Result<Response, Refusal>;

/// `POST /whip/{scope}`: publish.
pub async fn whip(
    app: Shared,
    client: ConnectInfo<SocketAddr>,
    path: Path<String>,
    options: Query<Options>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    create(app, Role::Publisher, client, path, options, headers, body).await
}

/// `POST /whep/{scope}`: play.
pub async fn whep(
    app: Shared,
    client: ConnectInfo<SocketAddr>,
    path: Path<String>,
    options: Query<Options>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    create(app, Role::Player, client, path, options, headers, body).await
}

async fn create(
    State(app): Shared,
    role: Role,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Path(scope): Path<String>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let Admitted { identity, pass } = identify(&app, &headers, None).await?;
    if !has_content_type(&headers, SDP) {
        let reason = "the body must be application/sdp; set Content-Type";
        let mut response = refuse_with(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
        response.headers_mut().insert("accept-post", HeaderValue::from_static(SDP));
        return Err(response.into());
    }
    if !accepts(&headers, SDP) {
        let reason = "the answer is application/sdp, which Accept rules out";
        return Err(refuse_with(StatusCode::NOT_ACCEPTABLE, reason).into());
    }
    let offer = text(body, limits::SDP_BYTES).await?;
    let request = Create {
        app: Arc::clone(&app),
        role,
        scope,
        options,
        identity,
        pass,
        address: client.ip().to_canonical(),
    };
    // A task of its own: a client that goes away in the middle must not leave half a session.
    let outcome = tokio::spawn(request.run(offer)).await;
    let (location, etag, answer) = outcome
        .unwrap_or_else(|_| Err(Fault::internal("the request broke off; see the server's log")))?;
    let mut response = (StatusCode::CREATED, answer).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert("accept-patch", HeaderValue::from_static(FRAGMENT));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [(header::LOCATION, location), (header::ETAG, etag)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    add_ice_servers(&app, headers);
    Ok(response)
}

struct Create {
    app: Arc<App>,
    role: Role,
    scope: String,
    options: Options,
    identity: Identity,
    pass: Pass,
    address: IpAddr,
}

impl Create {
    /// Makes the session: its path, its entity tag, the answer.
    async fn run(self, offer: String) -> Result<(String, String, String), Fault> {
        if *self.app.shutdown.borrow() {
            return Err(Fault::unavailable("the server is ending; try another"));
        }
        match self.role {
            Role::Player => self.identity.check_subscribe()?,
            _ => self.identity.check_publish()?,
        }
        let permit = self.app.admission.enter(self.address)?;
        let wish = Wish { plays: self.role == Role::Player, peer: self.options.peer.clone() };
        let name = self.name()?;
        let ids = sessions::Ids::new()?;
        let session_id = ids.session.clone();
        let (sender, notices) = sessions::notices();
        let peer = id::random("p")?;
        let (mut participant, _) = Participant::enter(
            &self.app.scopes,
            self.identity.clone(),
            self.role,
            &self.scope,
            &peer,
            &name,
            Sink::new(sender, 0),
        )
        .await?;
        let answer = match self.negotiate(&mut participant, &offer, &wish).await {
            Ok(answer) => answer,
            Err(fault) => {
                participant.leave("its offer was refused").await;
                return Err(fault);
            }
        };
        let sessions = &self.app.sessions;
        let session = sessions.add(ids, participant, self.identity, wish, notices, permit);
        self.pass.opened(&session_id, sessions.end_of(&session_id));
        let kind = if self.role == Role::Player { "whep" } else { "whip" };
        info!(kind, scope = self.scope, session = id::short(&session_id), "session created");
        let location = format!("/{kind}/{}/{session_id}", encode_segment(&self.scope));
        Ok((location, session.etag(), answer))
    }

    async fn negotiate(
        &self,
        participant: &mut Participant,
        offer: &str,
        wish: &Wish,
    ) -> Result<String, Fault> {
        let outcome = participant.negotiate(offer, &[], &[]).await?;
        let (is_empty, what) = match self.role {
            Role::Player => (participant.subscriptions().is_empty(), "recvonly"),
            _ => (participant.publications().is_empty(), "sendonly"),
        };
        if is_empty {
            return Err(match outcome.failed.into_iter().next() {
                Some(failed) => failed.fault,
                None => Fault::unsupported_codec(format!(
                    "no m-line of the offer is {what}: nothing would flow; add a transceiver"
                )),
            });
        }
        if wish.plays {
            fill_slots(participant, wish).await;
        }
        Ok(outcome.answer)
    }

    fn name(&self) -> Result<String, Fault> {
        if let Some(name) = &self.identity.name {
            return Ok(name.clone());
        }
        let given = self.options.name.as_deref().filter(|name| !name.is_empty());
        if let Some(name) = given {
            id::check_name("the name", name, limits::NAME_BYTES)?;
            return Ok(name.to_owned());
        }
        Ok(match (self.identity.subject.as_str(), self.role) {
            ("", Role::Player) => "whep".to_owned(),
            ("", _) => "whip".to_owned(),
            (subject, _) => subject.to_owned(),
        })
    }
}

/// `PATCH` of a session: trickle ICE, or an ICE restart (RFC 9725 section 4.3).
pub async fn patch(
    State(app): Shared,
    Path((scope, session_id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (session, identity) = find(&app, &scope, &session_id, &headers).await?;
    if !has_content_type(&headers, FRAGMENT) {
        let reason = "the body must be application/trickle-ice-sdpfrag; set Content-Type";
        let mut response = refuse_with(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
        response.headers_mut().insert("accept-patch", HeaderValue::from_static(FRAGMENT));
        return Err(response.into());
    }
    let Some(condition) = headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok())
    else {
        let reason = "If-Match is missing: send the ETag of the ICE session, or \"*\" to restart";
        return Err(refuse_with(StatusCode::PRECONDITION_REQUIRED, reason).into());
    };
    let condition = condition.trim().to_owned();
    let text = text(body, limits::FRAGMENT_BYTES).await?;
    let fragment = Fragment::parse(&text)?;
    if let Err(fault) = session.go_on_as(identity).await {
        app.sessions.end(&session_id);
        return Err(fault.into());
    }
    let outcome = tokio::spawn(async move { apply(&session, &condition, &fragment).await }).await;
    outcome.unwrap_or_else(|_| Err(Fault::internal("the request broke off").into()))
}

async fn apply(session: &Session, condition: &str, fragment: &Fragment) -> Answer {
    let mut participant = session.participant.lock().await;
    let participant = participant.as_mut().ok_or_else(gone)?;
    let is_new = fragment.ice.as_ref().is_some_and(|ice| participant.remote_ice() != Some(ice));
    // RFC 9725 shows it in quotes in an example, which clients copy.
    if matches!(condition, "*" | "\"*\"") {
        let Some(ice) = fragment.ice.as_ref().filter(|_| is_new) else {
            let reason = "an ICE restart (If-Match: *) needs new a=ice-ufrag and a=ice-pwd";
            return Err(Fault::malformed(reason).into());
        };
        let mid = participant.publications().into_iter().map(|(mid, _)| mid);
        let mid = mid.chain(participant.subscriptions().into_iter().map(|(mid, _)| mid)).next();
        let transport = participant.restart_ice(ice).await?;
        let mid = mid.unwrap_or_else(|| "0".into());
        let body = Fragment::write(&transport.ice, &mid, &transport.candidates);
        let etag = session.renew_etag()?;
        let mut response = (StatusCode::OK, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FRAGMENT));
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(header::ETAG, etag);
        }
        return Ok(response);
    }
    let etag = session.etag();
    if !condition.split(',').any(|tag| tag.trim() == etag) || is_new {
        let reason = "the ICE session is another: it was restarted meanwhile; use the new ETag";
        return Err(refuse_with(StatusCode::PRECONDITION_FAILED, reason).into());
    }
    // The candidates themselves are not needed: the relay learns addresses from the checks.
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE` of a session.
pub async fn delete(
    State(app): Shared,
    Path((scope, session_id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    find(&app, &scope, &session_id, &headers).await?;
    app.sessions.end(&session_id);
    Ok(StatusCode::OK.into_response())
}

/// The session, if the request may touch it, and for whom it speaks.
async fn find(
    app: &App,
    scope: &str,
    session_id: &str,
    headers: &HeaderMap,
) -> Result<(Arc<Session>, Identity), Refusal> {
    let Admitted { identity, pass } = identify(app, headers, Some(session_id)).await?;
    let session = app.sessions.get(session_id).filter(|session| session.scope == scope);
    let session = session.ok_or_else(gone)?;
    let owner = &session.identity;
    if (&owner.application, &owner.subject) != (&identity.application, &identity.subject) {
        let fault = Fault::forbidden("the session was made with another token; use that one");
        return Err(fault.into());
    }
    pass.opened(session_id, app.sessions.end_of(session_id));
    Ok((session, identity))
}

fn gone() -> Fault {
    Fault::not_found("there is no such session: it ended, or its address is wrong")
}

async fn text(body: Body, bytes_max: usize) -> Result<String, Fault> {
    let bytes = timeout(limits::BODY_TIME, to_bytes(body, bytes_max)).await;
    let bytes = bytes.map_err(|_| Fault::malformed("the body did not arrive in 15 s"))?;
    let bytes = bytes.map_err(|_| {
        Fault::too_large(format!("the body broke off or is larger than {} KiB", bytes_max >> 10))
    })?;
    String::from_utf8(bytes.into()).map_err(|_| Fault::malformed("the body is no UTF-8 text"))
}
