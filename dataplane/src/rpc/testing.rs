//! What the tests of the calls share.

use super::{Identity, State};
use crate::mailbox::{Inbox, Mailbox, Request, mailbox};
use crate::watchdog::{Health, Timing};
use std::sync::Arc;
use strait_crypt::dtls::Certificate;
use strait_io::{Bound, Options, bind};

/// The state of a relay without threads but DTLS's, which ends with [`State`]'s `handshakes.stop()`.
pub(super) fn state(workers: Vec<Mailbox>) -> Arc<State> {
    state_with(workers, 400)
}

/// The same, whose workers carry so many subscriptions of a scope.
pub(super) fn state_with(workers: Vec<Mailbox>, subscriptions_per_worker: u32) -> Arc<State> {
    let certificate = Certificate::generate().unwrap();
    let (post, way) = crate::channels::way();
    let (handshakes, _) = crate::handshake::start(certificate, Vec::new(), post, ()).unwrap();
    let identity = Identity {
        instance_id: String::new(),
        fingerprint: String::new(),
        udp: vec!["127.0.0.1:8443".parse().unwrap()],
        candidates: Vec::new(),
        stun: false,
        degradations: Vec::new(),
    };
    let health = Arc::new(Health::new(workers.len(), Timing::default()));
    Arc::new(State::new(
        identity,
        workers,
        (handshakes, way),
        None,
        health,
        Arc::default(),
        subscriptions_per_worker,
    ))
}

/// The mailbox of a worker that is not there.
pub(super) fn worker() -> (Mailbox, Inbox, Bound) {
    let bound =
        bind(&Options { udp: vec![[127, 0, 0, 1].into()], workers: 1, ..Options::default() })
            .unwrap();
    let (mailbox, inbox) = mailbox(0, bound.ports[0].waker());
    (mailbox, inbox, bound)
}

/// The mailboxes of workers that are not there.
pub(super) fn workers(count: usize) -> (Vec<Mailbox>, Vec<Inbox>, Bound) {
    let udp = vec![[127, 0, 0, 1].into()];
    let bound = bind(&Options { udp, workers: count, ..Options::default() }).unwrap();
    let ports = bound.ports.iter().enumerate();
    let (mailboxes, inboxes) = ports.map(|(worker, port)| mailbox(worker, port.waker())).unzip();
    (mailboxes, inboxes, bound)
}

/// Says "done" to every command while `work` goes on.
pub(super) async fn obeyed<T>(inbox: &Inbox, work: impl Future<Output = T>) -> T {
    let obey = async {
        loop {
            while let Some(request) = inbox.take() {
                if let Request::Command(_, Some(reply)) = request {
                    let _ = reply.send(Ok(()));
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { result = work => result, () = obey => unreachable!("it has no end") }
}
