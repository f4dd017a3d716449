//! Carries the messages of data channels to and from the relay.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strait_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
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
pub(super) struct Outbox(Mutex<Option<mpsc::Sender<v1::MessageToChannels>>>);

impl Outbox {
    fn set(&self, sender: Option<mpsc::Sender<v1::MessageToChannels>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sender;
    }

    fn say(&self, message: v1::MessageToChannels) -> bool {
        let outbox = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.as_ref().is_some_and(|outbox| outbox.try_send(message).is_ok())
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
    let (outbox, messages) = mpsc::channel(limits::CHANNEL_MESSAGES);
    let messages = Request::new(ReceiverStream::new(messages));
    let mut told = relay.client.clone().exchange_messages(messages).await?.into_inner();
    relay.outbox.set(Some(outbox));
    while let Some(event) = told.message().await? {
        scopes.channel_event(event);
    }
    Ok(())
}
