//! Messages of data channels, to and from the one caller that carries them.

use super::State;
use crate::channels::{Counters, Event, Names, Outgoing, Way};
use crate::limits::{CHANNEL_MESSAGE_BYTES, CHANNEL_RECEIVERS};
use std::sync::Arc;
use strait_core::command::PeerId;
use strait_proto::v1;
use strait_proto::v1::channel_event::Event as Told;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// What the caller reads.
pub(super) type Stream = ReceiverStream<Result<v1::ChannelEvent, Status>>;

/// What calls share.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Whoever has it reads.
    events: Mutex<mpsc::Receiver<(Arc<Names>, Event)>>,
    orders: mpsc::Sender<Outgoing>,
    /// How many callers there were: who is not the last ends.
    callers: watch::Sender<u64>,
    pub(crate) counters: Arc<Counters>,
}

impl Desk {
    pub(super) fn new(way: Way) -> Self {
        let Way { events, orders, counters } = way;
        Self { events: Mutex::new(events), orders, callers: watch::Sender::new(0), counters }
    }
}

/// Carries messages until the caller goes, or another comes.
pub(super) fn exchange(state: Arc<State>, incoming: Streaming<v1::MessageToChannels>) -> Stream {
    let (reader, stream) = mpsc::channel(1);
    let mut callers = state.messages.callers.subscribe();
    let mut caller = 0;
    state.messages.callers.send_modify(|callers| {
        *callers += 1;
        caller = *callers;
    });
    tokio::spawn(async move {
        let replaced = async {
            let _ = callers.wait_for(|callers| *callers != caller).await;
            Status::aborted("another caller carries the messages now: only one does at a time")
        };
        let ended = tokio::select! {
            status = replaced => Some(status),
            () = tell(&state, &reader) => None,
            status = take(&state, incoming) => status,
        };
        if let Some(status) = ended {
            let _ = reader.send(Err(status)).await;
        }
    });
    ReceiverStream::new(stream)
}

/// From the channels to the caller.
async fn tell(state: &State, reader: &mpsc::Sender<Result<v1::ChannelEvent, Status>>) {
    // The one before gives it up at once.
    let mut events = state.messages.events.lock().await;
    let _ = state.messages.orders.send(Outgoing::Tell).await;
    state.handshakes.wake();
    // The place first: what was taken out would be lost with a caller that goes.
    while let Ok(place) = reader.reserve().await {
        let happened = tokio::select! {
            happened = events.recv() => happened,
            () = reader.closed() => return,
        };
        let Some((names, event)) = happened else { return };
        // Peers may wait for this room.
        state.handshakes.wake();
        place.send(Ok(told(&names, event)));
    }
}

/// From the caller to the channels. `None`: it has nothing more to say.
async fn take(state: &State, mut incoming: Streaming<v1::MessageToChannels>) -> Option<Status> {
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                if let Err(status) = pass_on(state, message).await {
                    return Some(status);
                }
            }
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}

/// # Errors
/// The message breaks the contract. Who is not there any more gets none, and that is no error: it left a moment ago.
async fn pass_on(state: &State, message: v1::MessageToChannels) -> Result<(), Status> {
    let v1::MessageToChannels { scope_id, to, is_text, payload, close } = message;
    if payload.len() > CHANNEL_MESSAGE_BYTES || to.len() > CHANNEL_RECEIVERS {
        return Err(Status::invalid_argument(format!(
            "a message of {} bytes to {} channels: at most {CHANNEL_MESSAGE_BYTES} bytes to {CHANNEL_RECEIVERS} of them",
            payload.len(),
            to.len()
        )));
    }
    if is_text && std::str::from_utf8(&payload).is_err() {
        return Err(Status::invalid_argument("payload: is_text, and no UTF-8"));
    }
    let Some(scope) = state.registry.scope(&scope_id) else { return Ok(()) };
    let known: Vec<(PeerId, u16)> = {
        let contents = scope.state.lock().await;
        let number = |address: &v1::ChannelAddress| {
            let peer = contents.peers.get(&address.peer_id)?;
            Some((peer.id, u16::try_from(address.channel).ok()?))
        };
        to.iter().filter_map(number).collect()
    };
    let payload: Arc<[u8]> = payload.into();
    for (peer, channel) in known {
        let payload = payload.clone();
        let order = match close {
            true => Outgoing::Close { peer, channel },
            false => Outgoing::Say { peer, channel, is_text, payload },
        };
        if state.messages.orders.send(order).await.is_err() {
            return Err(Status::unavailable("the relay is ending"));
        }
        state.handshakes.wake();
    }
    Ok(())
}

fn told(names: &Names, event: Event) -> v1::ChannelEvent {
    let (channel, event) = match event {
        Event::Opened { channel, label, protocol } => {
            (channel, Told::Opened(v1::ChannelOpened { label, protocol }))
        }
        Event::Closed { channel, detail } => (channel, Told::Closed(v1::ChannelClosed { detail })),
        Event::Message { channel, is_text, payload } => {
            (channel, Told::Message(v1::ChannelMessage { is_text, payload }))
        }
    };
    v1::ChannelEvent {
        scope_id: names.scope.clone(),
        peer_id: names.peer.clone(),
        channel: channel.into(),
        event: Some(event),
    }
}
