//! What becomes of what happens: from the notary to the store, or to Redis, where agents take it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::agent::{Agent, reader::Reader, release};
use crate::cluster::{Cluster, redis::Address};
use crate::config::{Config, cluster::Role};
use crate::events::{self, Courier, Notary, Note, Sink, spool::Spool, stream::Stream};
use crate::fault::Fault;
use crate::store::Store;

/// All that records.
pub(super) struct Recording {
    /// What happens is told to it.
    pub(super) notary: Arc<Notary>,
    courier: Courier,
    waiting: mpsc::Receiver<Note>,
    agent: Agent,
    /// The Redis of the events, where there is one.
    stream: Option<Address>,
    ended: mpsc::Receiver<release::Ended>,
    keep_days: u32,
}

impl Recording {
    /// What this configuration wants; nothing runs yet.
    ///
    /// # Errors
    /// The address of the Redis is none; the system has no randomness.
    pub(super) fn new(config: &Config, store: &Store, node: &str) -> Result<Self, Fault> {
        let (outlet, waiting) = events::outlet();
        let counters = Arc::clone(outlet.counters());
        let (tell_ended, ended) = release::channel();
        let agent = Agent::new(store, Arc::clone(&counters)).with_ended(tell_ended);
        let stream = match config.events.redis.expose() {
            "" => None,
            url => Some(
                Address::parse(url)
                    .map_err(|why| Fault::internal(format!("events.redis: {why}")))?,
            ),
        };
        let sink = match &stream {
            Some(address) => {
                Sink::Stream(Box::new(Stream::new(address.clone(), Arc::clone(&counters))))
            }
            None => Sink::Store(agent.clone()),
        };
        let spool = Spool::new(config.http.state_dir.join("events.db"), Arc::clone(&counters));
        let notary = Arc::new(Notary::new(node, outlet)?);
        let courier = Courier::new(sink, spool, counters);
        let keep_days = config.agent.keep_days;
        Ok(Self { notary, courier, waiting, agent, stream, ended, keep_days })
    }

    /// Records for as long as this process lives.
    pub(super) fn run(self, cluster: &Arc<Cluster>) -> Vec<JoinHandle<()>> {
        let Self { notary, courier, waiting, agent, stream, ended, keep_days } = self;
        let mut running = vec![tokio::spawn(courier.run(waiting))];
        if cluster.config().has(Role::Agent) {
            running.push(tokio::spawn(agent.clone().forget(keep_days, move || notary.now())));
            if let Some(address) = stream {
                let reader = Reader::new(address, &cluster.me().incarnation, agent);
                running.push(tokio::spawn(reader.run()));
                running.push(tokio::spawn(release::run(Arc::clone(cluster), ended)));
            }
        }
        running
    }
}
