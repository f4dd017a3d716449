//! What a peer says of whole kinds of streams: from whom it takes them, and how much it may send.

use super::{Line, Participant};
use crate::fault::Fault;
use crate::limits;
use crate::scope::allowed::AllowSpec;

impl Participant {
    /// Says from whom the peer takes what. Slots that show what is not allowed any more are freed.
    ///
    /// # Errors
    /// [`crate::fault::Class::TooLarge`] for too many peers, and nothing changed; the relay's refusal, and the
    /// slots that it concerns are bound as before.
    pub async fn allow(&mut self, spec: AllowSpec) -> Result<(), Fault> {
        self.allowed.change(spec)?;
        let refused: Vec<(String, String)> = {
            let roster = self.scope.roster();
            let bound = self.slots().filter_map(|slot| Some((slot, slot.bound.as_deref()?)));
            let refused = bound.filter(|(_, publication)| {
                let found = roster.publication(publication);
                found.is_some_and(|(sender, view)| !self.allowed.allows(sender, view))
            });
            refused.map(|(slot, _)| (slot.mid.clone(), slot.id.clone())).collect()
        };
        for (mid, id) in refused {
            self.scopes.relay.bind(&self.scope.relay_id, &id, None).await?;
            for line in self.media.iter_mut().flat_map(|media| &mut media.lines) {
                if let Line::Slot(slot) = line
                    && slot.mid == mid
                {
                    slot.bound = None;
                }
            }
        }
        Ok(())
    }

    /// Caps what the peer itself sends, in bits per second; 0 lifts the cap but for the
    /// configuration's.
    ///
    /// # Errors
    /// [`crate::fault::Class::Malformed`] for less than carries a call; the relay's refusal.
    pub async fn limit_uplink(&mut self, bps_max: u64) -> Result<(), Fault> {
        if (1..limits::UPLINK_BPS_MIN).contains(&bps_max) {
            return Err(Fault::malformed(format!(
                "payload.uplinkMaxBps: less than {} carries no call; 0 is no cap",
                limits::UPLINK_BPS_MIN
            )));
        }
        let before = self.uplink_bps_max();
        self.uplink_wish_bps = bps_max;
        if self.uplink_bps_max() == before { Ok(()) } else { self.tell_uplink().await }
    }

    /// Tells the relay of the cap, once there is a transport.
    pub(super) async fn tell_uplink(&self) -> Result<(), Fault> {
        let Some(media) = &self.media else { return Ok(()) };
        let relay = &self.scopes.relay;
        relay.limit_uplink(&self.scope.relay_id, &media.relay_peer, self.uplink_bps_max()).await
    }

    /// The smaller of the configuration's cap and the client's; 0 without either.
    pub fn uplink_bps_max(&self) -> u64 {
        let caps = [self.scopes.uplink_bps_max(), self.uplink_wish_bps];
        caps.into_iter().filter(|bps| *bps > 0).min().unwrap_or(0)
    }
}
