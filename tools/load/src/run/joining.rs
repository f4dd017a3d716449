//! Joining: sockets, signalling, ICE and DTLS, until everybody is there.

use std::sync::atomic::Ordering;
use std::time::Duration;

use strait_io::batch::Incoming;

use super::{Load, system};
use crate::LoadError;
use crate::join::{Ask, Desk, LAYERS};
use crate::limits::JOINS_AT_A_TIME;
use crate::peer::Peer;
use crate::random::Random;
use crate::signalling::{AgreedStream, Joined, PublisherJoin, SubscriberJoin};
use crate::source::Source;
use crate::subscriber::Subscriber;

/// The longest wait: signalling has no socket to wake the loop with.
const WAIT: Duration = Duration::from_millis(1);

impl Load<'_> {
    /// Joins all peers: publishers first, then subscribers, a bounded number at a time.
    pub(super) fn join(&mut self, desk: &Desk) -> Result<(), LoadError> {
        let begin = self.clock.instant();
        let all = self.plan.publishers + self.plan.subscribers;
        let (mut connected, mut seen) = (0, vec![false; all]);
        let mut agreed: Vec<Option<Vec<AgreedStream>>> = Vec::new();
        let mut confirmed = 0;
        let (mut incoming, mut ready) = (Incoming::new(), Vec::new());
        while confirmed < all {
            if self.plan.stop.load(Ordering::Relaxed) {
                return Err(LoadError::before_all_joined());
            }
            // Subscribers come when everything that they ask for is there.
            let most = if connected < self.plan.publishers { self.plan.publishers } else { all };
            while self.peers.len() < most && self.peers.len() - connected < JOINS_AT_A_TIME {
                let ask = self.announce(self.peers.len())?;
                agreed.push(None);
                desk.ask(ask);
            }
            while let Some((n, answer)) = desk.answer() {
                match answer? {
                    Some(joined) => {
                        let streams = self.begin_peer(n, joined)?;
                        if let Some(slot) = agreed.get_mut(n) {
                            *slot = Some(streams);
                        }
                    }
                    None => confirmed += 1,
                }
            }
            self.poller.wait(WAIT, &mut ready);
            let now = self.clock.instant();
            for token in &ready {
                self.receive(*token as usize, now, &mut incoming, None);
            }
            self.tick_peers(now);
            for (n, peer) in self.peers.iter().enumerate() {
                if let Some(why) = peer.failure() {
                    return Err(LoadError::Transport(why.to_owned()));
                }
                if peer.is_connected() && !std::mem::replace(&mut seen[n], true) {
                    connected += 1;
                    desk.ask(Ask::Connected(n, peer.name.clone()));
                }
            }
            self.progress.joined(connected, all);
        }
        self.join_time = self.clock.instant().since(begin);
        self.cast_roles(agreed);
        Ok(())
    }

    /// Makes peer `n`, and what the server is told of it.
    fn announce(&mut self, n: usize) -> Result<Ask, LoadError> {
        let publishers = self.plan.publishers;
        let subscriber = n.checked_sub(publishers);
        let name = match subscriber {
            None => self.cast.publisher_name(n),
            Some(subscriber) => self.cast.subscriber_name(subscriber),
        };
        let local = self.cast.local_address(n);
        // ICE credentials must not be those of the run before.
        let random = Random::new(self.clock.instant().0, n as u64);
        let peer = Peer::new(name.clone(), local, self.plan.receive_runs, random)
            .map_err(|e| system(&format!("open a socket at {} for peer {n}", local.ip()), e))?;
        let transport = peer
            .local(&self.certificate, self.plan.security, self.plan.profile)
            .map_err(|e| system("share a socket", e))?;
        self.peers.push(peer);
        let scope = self.cast.scope(subscriber.unwrap_or(n));
        Ok(match subscriber {
            None => {
                let stream = self.cast.published(n);
                let join = PublisherJoin { scope, peer: name, transport, stream };
                Ask::Publisher(n, Box::new(join))
            }
            Some(subscriber) => {
                let streams = self.cast.wanted(subscriber);
                let join = SubscriberJoin { scope, peer: name, transport, streams };
                Ask::Subscriber(n, Box::new(join))
            }
        })
    }

    fn begin_peer(&mut self, n: usize, joined: Joined) -> Result<Vec<AgreedStream>, LoadError> {
        let want = match n.checked_sub(self.plan.publishers) {
            None => 1,
            Some(subscriber) => self.cast.publishers_of(subscriber).count(),
        };
        let Joined { transport, streams } = joined;
        let (now, remote) = (self.clock.instant(), transport.address);
        let Some(peer) = self.peers.get_mut(n) else { return Ok(streams) };
        if streams.len() != want {
            let name = &peer.name;
            return Err(LoadError::Transport(format!(
                "{name}: the server agreed to {} streams of {want}",
                streams.len()
            )));
        }
        peer.begin(transport, &self.certificate, now)
            .map_err(|e| system(&format!("connect a socket to {remote}"), e))?;
        // Until now it was the signalling's.
        self.poller.add(&peer.socket, n as u64).map_err(|e| system("epoll", e))?;
        self.wake_peer(n, now);
        Ok(streams)
    }

    /// Everybody is there: makes the sources and the checkers.
    fn cast_roles(&mut self, agreed: Vec<Option<Vec<AgreedStream>>>) {
        let now = self.clock.instant();
        let kind = self.layers.first().map(|layer| layer.traffic.kind).unwrap_or_default();
        for (n, streams) in agreed.into_iter().enumerate() {
            let streams = streams.unwrap_or_default();
            if n >= self.plan.publishers {
                let ssrc = 0x2000_0000 + n as u32;
                self.subscribers.push(Subscriber::new(ssrc, kind, streams, now));
                continue;
            }
            for agreed in streams {
                for (at, layer) in self.layers.iter().enumerate() {
                    let stream = (n * LAYERS + at) as u32;
                    let random = Random::new(self.plan.seed, stream.into());
                    let ssrc = self.cast.ssrc(n, at);
                    let agreed = agreed.clone();
                    self.sources.push(Source::new(n, stream, ssrc, *layer, agreed, random));
                }
            }
        }
    }
}
