//! Signalling whose peers reach the server over bad lines.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::shaper::{Impairment, Shaper, Told};
use crate::signalling::{
    Joined, PublisherJoin, SecurityKind, Signalling, SignallingError, SubscriberJoin,
};

/// Puts a [`Shaper`] between the load and each address of the server.
pub struct Impaired {
    server: Box<dyn Signalling>,
    impairment: Impairment,
    shapers: Shapers,
}

/// The shapers of an [`Impaired`], to be asked after the run. They end with the last holder.
#[derive(Clone, Debug, Default)]
pub struct Shapers(Arc<Mutex<BTreeMap<SocketAddr, Shaper>>>);

impl Shapers {
    /// What the lines did.
    #[must_use]
    pub fn tell(&self) -> Vec<Told> {
        self.0
            .lock()
            .map_or_else(|_| Vec::new(), |all| all.values().flat_map(Shaper::tell).collect())
    }

    /// The shaper that passes on to `server`, started if need be.
    fn towards(&self, server: SocketAddr, impairment: &Impairment) -> io::Result<SocketAddr> {
        let mut shapers = self.0.lock().map_err(|_| io::Error::other("the load's thread ended"))?;
        if let Some(shaper) = shapers.get(&server) {
            return Ok(shaper.address());
        }
        // Beside the server, so that sockets bound to an address of this host have a way to it.
        let listen = SocketAddr::new(server.ip(), 0);
        let shaper = Shaper::start(listen, server, impairment)?;
        let address = shaper.address();
        shapers.insert(server, shaper);
        Ok(address)
    }
}

impl Impaired {
    /// The same server over lines like this.
    #[must_use]
    pub fn new(server: Box<dyn Signalling>, impairment: Impairment) -> Self {
        Self { server, impairment, shapers: Shapers::default() }
    }

    /// What tells afterwards what the lines did.
    #[must_use]
    pub fn shapers(&self) -> Shapers {
        self.shapers.clone()
    }

    fn divert(&self, mut joined: Joined) -> Result<Joined, SignallingError> {
        let server = joined.transport.address;
        joined.transport.address =
            self.shapers.towards(server, &self.impairment).map_err(|error| {
                SignallingError::Unreachable(format!(
                    "cannot put a line between this process and {server}: {error}; --impair works on the server's host"
                ))
            })?;
        Ok(joined)
    }
}

impl Signalling for Impaired {
    fn join_publisher(&mut self, join: &PublisherJoin) -> Result<Joined, SignallingError> {
        refuse_plain(join.transport.security)?;
        self.server.join_publisher(join).and_then(|joined| self.divert(joined))
    }

    fn join_subscriber(&mut self, join: &SubscriberJoin) -> Result<Joined, SignallingError> {
        refuse_plain(join.transport.security)?;
        self.server.join_subscriber(join).and_then(|joined| self.divert(joined))
    }

    fn connected(&mut self, peer: &str) -> Result<(), SignallingError> {
        self.server.connected(peer)
    }

    fn end(&mut self) {
        self.server.end();
    }
}

/// The server is told where a plain peer sends from, which is not where the line's other end is.
fn refuse_plain(security: SecurityKind) -> Result<(), SignallingError> {
    match security {
        SecurityKind::Dtls | SecurityKind::SessionKey => Ok(()),
        SecurityKind::Plain => Err(SignallingError::Refused(
            "peers without ICE cannot be reached over a line: --transport dtls or session-key"
                .into(),
        )),
    }
}
