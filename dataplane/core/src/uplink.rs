//! What a publisher may send altogether: a cap that it is told as REMB (draft-alvestrand-rmcat-remb). Browsers keep to it
//! whatever their own estimate by transport-wide feedback is.

use crate::command::{CommandError, PeerId};
use crate::limits::{REMB_BPS, UPLINK_BPS_MIN};
use crate::time::Now;
use crate::worker::Worker;

/// What was said of a peer's uplink.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Uplink {
    /// Stays once it was said: who was told a cap must be told that it is lifted.
    told_bps: Option<u64>,
}

impl Uplink {
    /// What its next REMB says. Who gives transport-wide feedback gets none before a cap is set: it has an estimate.
    pub(crate) fn remb_bps(self, transport_cc: bool) -> Option<u64> {
        self.told_bps.or((!transport_cc).then_some(REMB_BPS))
    }

    /// The cap, if there is one.
    pub(crate) fn max_bps(self) -> Option<u64> {
        self.told_bps.filter(|bps| *bps < REMB_BPS)
    }
}

impl Worker {
    /// Caps what a peer sends, or lifts the cap. It is told at once, and with each report.
    pub(crate) fn limit_uplink(
        &mut self,
        now: Now,
        id: PeerId,
        bps_max: Option<u64>,
    ) -> Result<(), CommandError> {
        let slot = self.peer_slot(id)?;
        let peer = self.peers.get_mut(slot).ok_or(CommandError::NotFound("peer"))?;
        if bps_max.is_none() && peer.uplink.told_bps.is_none() {
            return Ok(());
        }
        // Zero would mean to browsers that there is no cap, and less than sound needs ends the call.
        peer.uplink.told_bps = Some(bps_max.map_or(REMB_BPS, |bps| bps.max(UPLINK_BPS_MIN)));
        peer.report_at = now.at;
        self.start_reports(now, slot);
        Ok(())
    }
}
