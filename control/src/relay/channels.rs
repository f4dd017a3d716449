//! Carries the messages of data channels to and from the relay.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strait_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Status};
use tracing::warn;

use super::Relay;
use crate::limits;
use crate::scope::Scopes;

/// Pause before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// And where another control plane has the channels: two would take them from each other all the time.
const PAUSE_REPLACED: Duration = Duration::from_secs(30);

/// Where messages for channels wait; none while the relay does not take them.
#[derive(Debug, Default)]
pub(super) struct Outbox(Mutex<Option<Senders>>);

/// What is closed finds room also where no message does: the messages may be why it is closed.
#[derive(Debug)]
struct Senders {
    messages: mpsc::Sender<v1::MessageToChannels>,
    ends: mpsc::Sender<v1::MessageToChannels>,
}

/// Both ends of what waits.
fn queue() -> (Senders, impl Stream<Item = v1::MessageToChannels>) {
    let (messages, waiting) = mpsc::channel(limits::CHANNEL_MESSAGES);
    let (ends, ending) = mpsc::channel(limits::CHANNEL_ENDS);
    let waiting = ReceiverStream::new(ending).merge(ReceiverStream::new(waiting));
    (Senders { messages, ends }, waiting)
}

impl Outbox {
    fn set(&self, senders: Option<Senders>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = senders;
    }

    fn say(&self, message: v1::MessageToChannels) -> bool {
        let outbox = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Senders { messages, ends }) = outbox.as_ref() else { return false };
        let sender = if message.close { ends } else { messages };
        sender.try_send(message).is_ok()
    }
}

impl Relay {
    /// Leaves a message for channels. False: there is no room, or the relay is away.
    pub fn say(&self, message: v1::MessageToChannels) -> bool {
        self.outbox.say(message)
    }
}

/// Carries messages for as long as the process lives.
pub async fn follow(relay: Relay, scopes: Arc<Scopes>) {
    loop {
        let ended = follow_once(&relay, &scopes).await;
        relay.outbox.set(None);
        scopes.channels_lost();
        let pause = match ended {
            Err(status) if status.code() == Code::Aborted => {
                warn!("data channels: {}", status.message());
                PAUSE_REPLACED
            }
            // What is wrong with the relay is said by who follows its events.
            _ => PAUSE,
        };
        tokio::time::sleep(pause).await;
    }
}

async fn follow_once(relay: &Relay, scopes: &Arc<Scopes>) -> Result<(), Status> {
    let (senders, messages) = queue();
    let messages = Request::new(messages);
    let mut told = relay.client.clone().exchange_messages(messages).await?.into_inner();
    relay.outbox.set(Some(senders));
    while let Some(event) = told.message().await? {
        scopes.channel_event(event);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_closed_finds_room_where_messages_do_not_and_goes_first() {
        let outbox = Outbox::default();
        let message = |payload: u16, close| v1::MessageToChannels {
            payload: payload.to_be_bytes().to_vec(),
            close,
            ..v1::MessageToChannels::default()
        };
        assert!(!outbox.say(message(0, false)), "the relay is away");
        let (senders, waiting) = queue();
        outbox.set(Some(senders));
        let mut waiting = std::pin::pin!(waiting);
        let most = limits::CHANNEL_MESSAGES as u16;
        assert!((0..most).all(|n| outbox.say(message(n, false))));
        assert!(!outbox.say(message(most, false)));
        assert!(outbox.say(message(most, true)));
        let first = [waiting.next().await.unwrap(), waiting.next().await.unwrap()];
        assert!(first.iter().any(|message| message.close), "{first:?}");
        assert!(outbox.say(message(most, false)), "there is room again");
    }
}
