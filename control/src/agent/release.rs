//! Scopes that ended on nodes that may not live to give them back: whoever makes their accounts
//! does it for them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use crate::cluster::{Cluster, Owner};
use crate::events::Event;
use crate::events::event::What;
use crate::limits::{LEASE, RELEASES_WAITING};
use crate::scope::ScopeKey;

/// A scope that ended.
#[derive(Debug, PartialEq)]
pub struct Ended {
    scope: ScopeKey,
    owner: Owner,
    fence: u64,
}

impl Ended {
    /// What an event says, if it tells of the end of a scope that had a mapping.
    pub fn of(event: &Event) -> Option<Self> {
        let What::SessionDisposed { hold: Some(hold) } = &event.what else { return None };
        let scope = ScopeKey { application: event.application.clone(), scope: event.scope.clone() };
        let owner = Owner { node: event.node.clone(), incarnation: hold.incarnation.clone() };
        Some(Self { scope, owner, fence: hold.fence })
    }
}

/// A way for scopes that ended, from those who read of it.
pub fn channel() -> (mpsc::Sender<Ended>, mpsc::Receiver<Ended>) {
    mpsc::channel(RELEASES_WAITING)
}

/// Gives back what nodes did not that are dead, for as long as this process lives. A node that lives
/// does it itself: somebody may be there again, under the same fence.
pub async fn run(cluster: Arc<Cluster>, mut ended: mpsc::Receiver<Ended>) {
    let mut waiting: VecDeque<(Instant, Ended)> = VecDeque::new();
    loop {
        let due = waiting.front().map(|(due, _)| *due);
        let come = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = ended.recv() => {
                let Some(told) = told else { return };
                // By then the lease of a node that died at that moment is over.
                let due = Instant::now() + 2 * LEASE;
                // Beyond it, whoever asks for the scope finds out that its node is dead.
                if waiting.len() < RELEASES_WAITING {
                    waiting.push_back((due, told));
                }
            }
            () = come => {
                let Some((_, Ended { scope, owner, fence })) = waiting.pop_front() else { continue };
                match cluster.release_for(&scope, &owner, fence).await {
                    Ok(true) => info!(
                        scope = scope.scope, node = owner.node, "the scope ended, and so did its node"
                    ),
                    Ok(false) => {}
                    // Nobody is told of it twice: it is forgotten with the node.
                    Err(fault) => debug!(scope = scope.scope, "not released: {fault}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::directory::{Local, Mappings as _};
    use crate::cluster::health::Health;
    use crate::cluster::table::{Ask, Found};
    use crate::events::event::Hold;

    #[tokio::test]
    async fn a_scope_that_ended_with_its_node_is_given_back_once() {
        let local = Arc::new(Local::default());
        let as_dyn = || Arc::clone(&local) as Arc<_>;
        let cluster =
            Cluster::on(Default::default(), as_dyn(), Arc::clone(&local) as _, Health::default());
        let (to, ended) = channel();
        let running = tokio::spawn(run(cluster.unwrap(), ended));
        let owner = |start: &str| Owner { node: "gone".into(), incarnation: start.into() };
        let lobby = ScopeKey { application: "acme".into(), scope: "lobby".into() };
        let mut held = local.assert(&owner("1"), &[(lobby.clone(), 5)]).await.unwrap();
        let fence = held.pop().unwrap().unwrap().unwrap();
        let event = |start: &str, fence| Event {
            id: "n.1".into(),
            at: 0,
            node: "gone".into(),
            application: "acme".into(),
            scope: "lobby".into(),
            session: "scope-1".into(),
            created: 0,
            what: What::SessionDisposed { hold: Some(Hold { incarnation: start.into(), fence }) },
        };
        let is_there = async || {
            let quiet = Ask { is_quiet: true, ..Ask::default() };
            local.locate(&lobby, quiet).await.unwrap() != Found::Free
        };
        // Under a fence before: that was another hold.
        to.send(Ended::of(&event("1", fence - 1)).unwrap()).await.unwrap();
        tokio::time::sleep(LEASE).await;
        to.send(Ended::of(&event("1", fence)).unwrap()).await.unwrap();
        tokio::time::sleep(LEASE * 3 / 2).await;
        assert!(is_there().await, "its node may do it itself");
        while is_there().await {
            assert!(!running.is_finished());
            tokio::time::sleep(LEASE / 20).await;
        }
        drop(to);
        running.await.unwrap();
    }
}
