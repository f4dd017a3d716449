//! The bounded way from the control side to a worker, and the answers back.

use crate::fault::Fault;
use crate::limits::{MAILBOX, MAILBOX_FULL_RETRY, REPLY};
use crate::report::Report;
use crate::steer::Whereabouts;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::time::Instant;
use strait_core::command::{Command, CommandError, ScopeId};
use strait_core::port::Path;
use strait_io::{Counters, Waker};
use tokio::sync::oneshot;

/// What a worker is asked.
#[derive(Debug)]
pub enum Request {
    /// To do something. The handshake thread wants no answer.
    Command(Box<Command>, Option<oneshot::Sender<Result<(), CommandError>>>),
    /// What it counted, and what of these scopes.
    Report(Vec<ScopeId>, oneshot::Sender<Report>),
    /// Whose datagrams of a path without ICE are: of this worker, or of nobody any more.
    Steer(Path, Option<usize>),
    /// To give a scope away to another worker, which answers.
    Move(ScopeId, usize, oneshot::Sender<Result<Whereabouts, CommandError>>),
    /// Where datagrams of a scope belong that moved.
    Redirect(Arc<Whereabouts>, usize),
    /// Whether it turns.
    Ping(oneshot::Sender<Pulse>),
    /// To fail, which only tests ask for.
    Fault(Fault),
    /// To end its loop.
    Stop,
}

/// A sign of life: what can be said without looking at peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pulse {
    /// What the sockets counted.
    pub sockets: Counters,
}

/// Why a worker did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum MailboxError {
    /// [`MAILBOX`] requests wait already.
    #[error(
        "{MAILBOX} commands wait for worker {0} already: it is overloaded; call again later, or use more workers"
    )]
    Full(usize),
    /// No answer within [`REPLY`].
    #[error(
        "worker {0} does not answer: it is stalled or ended; /readyz and the relay's log say more"
    )]
    Stalled(usize),
    /// It could not.
    #[error(transparent)]
    Refused(#[from] CommandError),
}

/// The control side's end: cheap to clone.
#[derive(Clone, Debug)]
pub struct Mailbox {
    worker: usize,
    queue: Arc<ArrayQueue<Request>>,
    waker: Waker,
}

/// The worker's end.
#[derive(Debug)]
pub struct Inbox {
    queue: Arc<ArrayQueue<Request>>,
}

/// Makes the mailbox of a worker that `waker` wakes.
#[must_use]
pub fn mailbox(worker: usize, waker: Waker) -> (Mailbox, Inbox) {
    let queue = Arc::new(ArrayQueue::new(MAILBOX));
    (Mailbox { worker, queue: queue.clone(), waker }, Inbox { queue })
}

impl Mailbox {
    /// Has a command carried out.
    ///
    /// # Errors
    /// The worker is overloaded or stalled, or refused the command.
    pub async fn command(&self, command: Command) -> Result<(), MailboxError> {
        Ok(self.ask(|reply| Request::Command(Box::new(command), Some(reply))).await??)
    }

    /// What the worker counted.
    ///
    /// # Errors
    /// The worker is overloaded or stalled.
    pub async fn report(&self, scopes: Vec<ScopeId>) -> Result<Report, MailboxError> {
        self.ask(|reply| Request::Report(scopes, reply)).await
    }

    /// Gives a scope away to worker `to`. When this returns, it is that one's: what is sent there finds it.
    ///
    /// # Errors
    /// The worker is overloaded or stalled, or refused; then it keeps the scope.
    pub async fn give_away(&self, scope: ScopeId, to: usize) -> Result<Whereabouts, MailboxError> {
        let (reply, mut answer) = oneshot::channel();
        let request = Request::Move(scope, to, reply);
        self.send(request).map_err(|_| MailboxError::Full(self.worker))?;
        let answer = match tokio::time::timeout(REPLY, &mut answer).await {
            Ok(answer) => answer.ok(),
            Err(_) => {
                // From now on the worker cannot answer, and keeps the scope; but it may have done so just before.
                answer.close();
                answer.try_recv().ok()
            }
        };
        let whereabouts = answer.ok_or(MailboxError::Stalled(self.worker))??;
        // It answers before it hands the scope over, so that there is one moment in which it is given away. When it takes
        // the next request, that is done.
        let _ = self.ping().await;
        Ok(whereabouts)
    }

    /// Returns when the worker turned.
    ///
    /// # Errors
    /// The worker is overloaded or stalled.
    pub async fn ping(&self) -> Result<Pulse, MailboxError> {
        self.ask(Request::Ping).await
    }

    /// Leaves a request, or gives it back when there is no room.
    ///
    /// # Errors
    /// The mailbox is full.
    pub fn send(&self, request: Request) -> Result<(), Request> {
        self.queue.push(request)?;
        self.waker.wake();
        Ok(())
    }

    /// Leaves a request that wants no answer, as soon as there is room.
    ///
    /// # Errors
    /// There was none within [`REPLY`].
    pub async fn deliver(&self, mut request: Request) -> Result<(), MailboxError> {
        let until = Instant::now() + REPLY;
        while let Err(back) = self.send(request) {
            if Instant::now() >= until {
                return Err(MailboxError::Full(self.worker));
            }
            request = back;
            tokio::time::sleep(MAILBOX_FULL_RETRY).await;
        }
        Ok(())
    }

    /// How many requests wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queue.len()
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, MailboxError> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).map_err(|_| MailboxError::Full(self.worker))?;
        match tokio::time::timeout(REPLY, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(MailboxError::Stalled(self.worker)),
        }
    }
}

impl Inbox {
    /// The next request.
    #[must_use]
    pub fn take(&self) -> Option<Request> {
        self.queue.pop()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
