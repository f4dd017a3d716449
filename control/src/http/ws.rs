//! `GET /ws`: carries text between a WebSocket and its session.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{ConnectInfo, Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::answer::refuse;
use super::query::Query;
use super::turn::ReachedAt;
use super::{Shared, bearer, now};
use crate::limits;
use crate::scope::ScopeKey;
use crate::signal::hub::Wire;

/// Tokens in the address, for browsers: they cannot set headers on a WebSocket. And the scope that is
/// to be entered: whoever names it is sent to its node at once.
#[derive(Deserialize)]
pub struct Options {
    access_token: Option<String>,
    token: Option<String>,
    #[serde(rename = "applicationId")]
    application: Option<String>,
    #[serde(rename = "scopeId")]
    scope: Option<String>,
}

/// Opens a WebSocket. The token is judged at CONNECT, so that a page can read why it is refused.
pub async fn upgrade(
    State(app): Shared,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Query(options): Query<Options>,
    reached: Option<Extension<ReachedAt>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if let (Some(application), Some(scope)) = (options.application, options.scope)
        && let Err(fault) = app.scopes.check_here(&ScopeKey { application, scope }).await
    {
        return refuse(&fault);
    }
    let token = bearer(&headers).map(str::to_owned).or(options.access_token).or(options.token);
    let hub = Arc::clone(&app.hub);
    let turn = app.turn().zip(reached);
    let turn = turn.and_then(|(turn, Extension(at))| turn.server(&at, now()));
    upgrade
        .protocols([app.config.signal.websocket_subprotocol.clone()])
        // Frames up to here are refused with words; larger ones end the WebSocket.
        .max_message_size(4 * limits::FRAME_BYTES)
        .max_frame_size(4 * limits::FRAME_BYTES)
        .on_upgrade(move |socket| async move {
            let (to_session, inbound) = mpsc::channel(limits::INBOUND_FRAMES);
            let (outbound, from_session) = mpsc::channel(limits::OUTBOUND_FRAMES);
            let address = client.ip().to_canonical();
            tokio::spawn(hub.serve(Wire { inbound, outbound, turn }, token, address));
            carry(socket, to_session, from_session).await;
        })
}

/// Carries until either side ends. A WebSocket that is silent, or does not read, is closed. While its session takes nothing,
/// because the client speaks too fast, nothing is read, and what is said to it goes on.
async fn carry(
    mut socket: WebSocket,
    to_session: mpsc::Sender<String>,
    mut from_session: mpsc::Receiver<String>,
) {
    let mut heard = Instant::now();
    let mut read: Option<String> = None;
    let mut pings = interval_at(heard + limits::PING_INTERVAL, limits::PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            place = to_session.reserve(), if read.is_some() => {
                let Ok(place) = place else { break };
                heard = Instant::now();
                if let Some(text) = read.take() {
                    place.send(text);
                }
            }
            message = socket.recv(), if read.is_none() => {
                let Some(Ok(message)) = message else { return };
                heard = Instant::now();
                match message {
                    Message::Text(text) => read = Some(text.as_str().to_owned()),
                    Message::Binary(_) => {
                        let reason = "text messages only".into();
                        return close(socket, close_code::UNSUPPORTED, reason).await;
                    }
                    Message::Close(_) => return,
                    Message::Ping(_) | Message::Pong(_) => {}
                }
            }
            text = from_session.recv() => {
                let Some(text) = text else { break };
                if !write(&mut socket, Message::Text(text.into())).await {
                    return;
                }
            }
            _ = pings.tick() => {
                if heard.elapsed() >= limits::SILENCE {
                    return close(socket, close_code::AWAY, "silent for 45 s".into()).await;
                }
                if !write(&mut socket, Message::Ping(Vec::new().into())).await {
                    return;
                }
            }
        }
    }
    // The session let go: what it said last still goes out.
    while let Ok(text) = from_session.try_recv() {
        if !write(&mut socket, Message::Text(text.into())).await {
            return;
        }
    }
    close(socket, close_code::NORMAL, "session ended".into()).await;
}

async fn write(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(limits::WRITE_TIME, socket.send(message)).await, Ok(Ok(())))
}

async fn close(mut socket: WebSocket, code: u16, reason: String) {
    let frame = CloseFrame { code, reason: reason.into() };
    write(&mut socket, Message::Close(Some(frame))).await;
}
