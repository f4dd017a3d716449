//! The seam of I/O as the simulator fills it: what has arrived waits in a list, what is sent goes to
//! another, and waiting is left to the virtual clock.

use std::collections::VecDeque;
use strait_core::egress::Egress;
use strait_core::port::{Meta, Path, Port};
use strait_core::time::Instant;

/// Sockets that are two lists.
#[derive(Debug)]
pub struct SimPort {
    arrived: VecDeque<(Meta, Vec<u8>)>,
    sent: Vec<(Path, Vec<u8>)>,
    batch: usize,
    until: Option<Instant>,
}

impl SimPort {
    /// Sockets that hand over at most `batch` datagrams at a time.
    #[must_use]
    pub fn new(batch: usize) -> Self {
        Self { arrived: VecDeque::new(), sent: Vec::new(), batch: batch.max(1), until: None }
    }

    /// The kernel took a datagram in.
    pub fn arrive(&mut self, meta: Meta, bytes: Vec<u8>) {
        self.arrived.push_back((meta, bytes));
    }

    /// The batch size asked for at the start.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// What was sent since the last call.
    pub fn take_sent(&mut self) -> Vec<(Path, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    /// Until when the last [`Port::wait`] would have slept.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

impl Port for SimPort {
    fn receive(&mut self, _now: Instant, mut each: impl FnMut(Meta, &mut [u8])) -> usize {
        let count = self.arrived.len().min(self.batch);
        for (meta, mut bytes) in self.arrived.drain(..count) {
            each(meta, &mut bytes);
        }
        count
    }

    fn send(&mut self, egress: &mut Egress) {
        self.sent.extend(egress.iter().map(|(path, bytes)| (path, bytes.to_vec())));
        egress.clear();
    }

    fn wait(&mut self, _now: Instant, until: Option<Instant>) {
        self.until = until;
    }
}
