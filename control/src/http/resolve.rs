//! `GET /resolve`: the node of a scope.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::answer::{Refusal, accepts};
use super::query::Query;
use crate::auth::DEV_APPLICATION;
use crate::cluster::{Cluster, Node, counters};
use crate::config::cluster::Role;
use crate::fault::{Class, Fault};
use crate::scope::ScopeKey;
use crate::{id, limits};

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    application_id: Option<String>,
    scope_id: Option<String>,
    region: Option<String>,
    #[serde(default)]
    reconnect: Option<String>,
    streamer_endpoint: Option<String>,
}

/// `GET /resolve?applicationId=…&scopeId=…[&region=…][&reconnect=true&streamerEndpoint=HOST:PORT]`.
///
/// # Errors
/// 400 for what is missing, 404 for an application that nobody knows, 429, 503.
pub async fn resolve(
    State(app): Shared,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Query(request): Query<Request>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let cluster = &app.cluster;
    if !cluster.config().has(Role::Cnc) {
        let fault =
            Fault::not_found("this process has not the role cnc (cluster.roles); ask another");
        return Err(fault.into());
    }
    let address = client.ip().to_canonical();
    cluster.admit(address)?;
    let scope = request.scope()?;
    let is_reconnect = request.reconnect.as_deref() == Some("true");
    let is_dev = scope.application == DEV_APPLICATION && !app.config.auth.dev_tokens.is_empty();
    let is_gone = !is_dev && app.keys.lack(&scope.application);
    let known = if is_reconnect || is_gone { None } else { cluster.known(&scope) };
    let node = match known {
        Some(node) => {
            counters::count(&cluster.counters().hits);
            node
        }
        None => {
            counters::count(&cluster.counters().misses);
            if !is_dev {
                match app.keys.find(&scope.application).await {
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        cluster.give_up(&scope).await;
                        return Err(unknown(&scope.application).into());
                    }
                    // Without the store nobody can say; a credential is needed on the node anyway.
                    Err(fault) => tracing::debug!("the store does not answer: {fault}"),
                }
            }
            let reported = request.streamer_endpoint.as_deref().filter(|_| is_reconnect);
            cluster.resolve(&scope, address, request.region.as_deref(), reported).await?
        }
    };
    Ok(answer(cluster, &node, &headers))
}

impl Request {
    fn scope(&self) -> Result<ScopeKey, Fault> {
        let (Some(application), Some(scope)) = (&self.application_id, &self.scope_id) else {
            return Err(Fault::malformed(
                "applicationId or scopeId is missing: GET /resolve?applicationId=…&scopeId=…",
            ));
        };
        id::check_name("applicationId", application, limits::APPLICATION_BYTES)?;
        id::check_name("scopeId", scope, limits::SCOPE_NAME_BYTES)?;
        Ok(ScopeKey { application: application.clone(), scope: scope.clone() })
    }
}

fn unknown(application: &str) -> Fault {
    Fault::new(
        Class::NotFound,
        format!(
            "there is no application {application:?}: it was removed, or this is another cluster \
             (strait app list)"
        ),
    )
}

fn answer(cluster: &Cluster, node: &Node, headers: &HeaderMap) -> Response {
    let endpoint = node.endpoint();
    // Plain text is what everybody gets who does not ask for JSON by name.
    let wants_json = headers.contains_key(header::ACCEPT)
        && accepts(headers, "application/json")
        && !accepts(headers, "text/plain");
    let mut response = if wants_json {
        axum::Json(json!({
            "name": node.name,
            "region": node.region,
            "endpoint": endpoint,
            "https": node.elsewhere().origin(),
            "link": endpoint,
            "quic": node.quic,
            "cncs": cluster.config().cncs,
        }))
        .into_response()
    } else {
        endpoint.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
    response
}
