//! The HTTP side: page, WHIP, WHEP, WebSocket, health.

pub mod answer;
pub mod cors;
pub mod front_door;
pub mod handover;
pub mod health;
pub mod metrics;
pub mod page;
pub mod query;
pub mod redirect;
pub mod resolve;
pub mod resource;
pub mod sessions;
pub mod timed;
pub mod turn;
pub mod ws;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, patch, post};

use crate::admission::Admission;
use crate::api;
use crate::auth::{Admitted, Authenticator, Credential, Refusal};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::config::cluster::Role;
use crate::events::Notary;
use crate::fault::Fault;
use crate::keys::Keys;
use crate::limits;
use crate::link::Links;
use crate::scope::{self, Scopes};
use crate::signal::hub::Hub;
use crate::store::Store;

use answer::refuse;

/// What all handlers share.
pub struct App {
    /// Configuration.
    pub config: Config,
    /// Who may come in.
    pub auth: Arc<Authenticator>,
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Scopes.
    pub scopes: Arc<Scopes>,
    /// WebSocket sessions.
    pub hub: Arc<Hub>,
    /// Links of native clients.
    pub links: Arc<Links>,
    /// WHIP and WHEP sessions.
    pub sessions: Arc<sessions::Sessions>,
    /// Places for WHIP and WHEP sessions.
    pub admission: Arc<Admission>,
    /// Applications and their keys.
    pub keys: Arc<Keys>,
    /// Store.
    pub store: Store,
    /// Notes what happens in scopes.
    pub notary: Arc<Notary>,
    /// How often the API may be called.
    pub gate: api::Gate,
    /// TURN over TLS, if the configuration has it.
    pub turn: Option<turn::Turn>,
    /// Counters.
    pub metrics: metrics::Metrics,
    /// Turns true when the process ends.
    pub shutdown: tokio::sync::watch::Receiver<bool>,
}

impl App {
    /// TURN over TLS, while the relay serves it.
    pub fn turn(&self) -> Option<&turn::Turn> {
        self.turn.as_ref().filter(|_| self.scopes.relay().serves_turn())
    }
}

/// All routes. `is_plain` is for the listener without TLS, which serves this machine only.
pub fn router(app: Arc<App>, is_plain: bool) -> Router {
    let whip_session = patch(resource::patch).delete(resource::delete).options(cors::session);
    let router = Router::new()
        .route("/whip/{scope}", post(resource::whip).options(cors::endpoint))
        .route("/whep/{scope}", post(resource::whep).options(cors::endpoint))
        .route("/whip/{scope}/{session}", whip_session.clone())
        .route("/whep/{scope}/{session}", whip_session)
        .route("/ws", any(ws::upgrade))
        .route("/resolve", get(resolve::resolve))
        .route("/livez", get(health::livez))
        .route("/healthz", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(page::serve);
    let router = match app.cluster.config().has(Role::Api) {
        true => router.nest("/api/v1", api::router(Arc::clone(&app))),
        false => router,
    };
    let router = router
        .layer(from_fn(redirect::complete))
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&app), cors::add_headers))
        .layer(from_fn_with_state(Arc::clone(&app), metrics::count))
        .with_state(Arc::clone(&app));
    match is_plain {
        true => router.layer(from_fn(loopback_only)),
        false => router.layer(from_fn_with_state(app, turn::tell)),
    }
}

/// Refuses clients of other machines: what is sent here is not encrypted.
async fn loopback_only(
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if client.ip().to_canonical().is_loopback() {
        return next.run(request).await;
    }
    refuse(&Fault::forbidden("plain HTTP is for clients on this machine only; use https"))
}

/// Who sends the request; `session` is the one that it names.
///
/// # Errors
/// As [`Authenticator::identify`].
pub(crate) async fn identify(
    app: &App,
    headers: &HeaderMap,
    session: Option<&str>,
) -> Result<Admitted, Refusal> {
    app.auth.identify(bearer(headers).map(Credential::Bearer), session, now()).await
}

/// The bearer token of a request (RFC 6750 section 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub(crate) fn now() -> u64 {
    u64::try_from(scope::unix_now()).unwrap_or_default()
}

/// The state that handlers take.
pub(crate) type Shared = State<Arc<App>>;

impl From<Refusal> for answer::Refusal {
    fn from(refusal: Refusal) -> Self {
        Fault::from(refusal).into()
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        refuse(&self)
    }
}
