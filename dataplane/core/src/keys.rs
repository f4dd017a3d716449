//! How media to and from a peer is protected: by keys of its own, by the session key of its scope, or not at all.

use crate::command::{CommandError, ScopeId};
use crate::drop::DropReason;
use crate::hash::Map;
use crate::limits::{KEY_OVERLAP, SUBSCRIPTIONS_PER_PEER};
use crate::time::Instant;
use strait_crypt::srtp::{self, Inbound, OUTBOUND_SSRCS, Outbound, PreparedKey};

/// What protects a peer's media.
pub(crate) enum Keys {
    /// Keys that no other peer has, from DTLS.
    Own { inbound: Inbound, outbound: Outbound },
    /// The session key of its scope, which all peers that have it send and receive with.
    Shared {
        inbound: Inbound,
        outbound: Outbound,
        /// How long packets under the key before are taken.
        before_until: Option<Instant>,
    },
    /// Nothing: RTP as it is.
    Plain,
}

/// The session key of a scope.
///
/// Each peer has contexts of its own, with state for what goes to it alone, so that nothing is shared that could run full.
/// SSRCs keep their nonces apart: the relay sends from none twice under a key, to whichever peer.
pub(crate) struct SessionKey {
    key: PreparedKey,
    /// The one before, and how long it is taken.
    before: Option<(PreparedKey, Instant)>,
    /// The last SSRC that the relay took for itself: they ascend, so that none comes twice.
    last: u32,
}

// The streams of a peer with the session key find room, each with its retransmissions.
const _: () = assert!(2 * SUBSCRIPTIONS_PER_PEER <= OUTBOUND_SSRCS);

/// The session keys of all scopes of a worker.
pub(crate) type SessionKeys = Map<ScopeId, SessionKey>;

impl SessionKey {
    pub(crate) fn new(material: &srtp::SharedKey) -> Result<Self, srtp::Error> {
        Ok(Self { key: material.prepare()?, before: None, last: 0 })
    }

    /// Takes SSRCs for what the relay itself sends.
    ///
    /// # Errors
    /// They do not come after all that were taken before.
    pub(crate) fn take(&mut self, ssrcs: &[u32]) -> Result<(), CommandError> {
        let mut last = self.last;
        for ssrc in ssrcs.iter().copied().filter(|ssrc| *ssrc != 0) {
            if ssrc <= last {
                return Err(CommandError::Invalid("under a session key the relay's SSRCs ascend"));
            }
            last = ssrc;
        }
        self.last = last;
        Ok(())
    }

    /// Whether it is the same key, or the one that it was a moment ago: a control plane's call may have been on its way.
    pub(crate) fn is(&self, now: Instant, material: &srtp::SharedKey) -> bool {
        let before = self.before.as_ref().filter(|(_, until)| now < *until);
        self.key.material() == material || before.is_some_and(|(key, _)| key.material() == material)
    }

    /// Makes it another key. False when it is that already.
    ///
    /// # Errors
    /// The key is none, is of another profile, or was the one before: its nonces would come again.
    pub(crate) fn change(
        &mut self,
        now: Instant,
        material: &srtp::SharedKey,
    ) -> Result<bool, CommandError> {
        if self.key.material() == material {
            return Ok(false);
        }
        if self.key.material().profile != material.profile {
            return Err(CommandError::Invalid(
                "a new session key has the profile of the one before",
            ));
        }
        if self.before.as_ref().is_some_and(|(key, _)| key.material() == material) {
            return Err(CommandError::Invalid("the session key was in use before: make a new one"));
        }
        let key = material.prepare().map_err(wrong_key)?;
        self.before = Some((std::mem::replace(&mut self.key, key), now + KEY_OVERLAP));
        Ok(true)
    }

    /// What a peer with it needs.
    pub(crate) fn for_peer(&self, now: Instant) -> Keys {
        let before = self.before.as_ref().filter(|(_, until)| now < *until);
        let mut inbound = before.map_or(&self.key, |(key, _)| key).inbound();
        if before.is_some() {
            inbound.change_key(&self.key);
        }
        let before_until = before.map(|(_, until)| *until);
        Keys::Shared { inbound, outbound: self.key.outbound(), before_until }
    }
}

/// What to say of a key that is none.
pub(crate) fn wrong_key(_: srtp::Error) -> CommandError {
    CommandError::Invalid("a key or salt has not the length that its profile asks for")
}

impl Keys {
    pub(crate) fn own(keys: &srtp::SessionKeys) -> Result<Self, srtp::Error> {
        Ok(Self::Own { inbound: keys.inbound()?, outbound: keys.outbound()? })
    }

    /// The scope has another session key.
    pub(crate) fn change(&mut self, to: &SessionKey) {
        if let Self::Shared { inbound, outbound, before_until } = self {
            inbound.change_key(&to.key);
            outbound.change_key(&to.key);
            *before_until = to.before.as_ref().map(|(_, until)| *until);
        }
    }

    /// Whether what one of them sent can be handed to the other as it came: both know how to open it. Both are peers of
    /// one scope.
    pub(crate) fn opens_as_sent(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Shared { .. }, Self::Shared { .. }) | (Self::Plain, Self::Plain)
        )
    }

    /// Whether others may open what it sends.
    pub(crate) fn is_common(&self) -> bool {
        !matches!(self, Self::Own { .. })
    }

    /// Decrypts an RTP packet in place; the new length.
    pub(crate) fn unprotect_rtp(
        &mut self,
        now: Instant,
        bytes: &mut [u8],
    ) -> Result<usize, srtp::Error> {
        match self.inbound(now) {
            Some(inbound) => inbound.unprotect_rtp(bytes),
            None => Ok(bytes.len()),
        }
    }

    /// Decrypts an RTCP packet in place; the new length.
    pub(crate) fn unprotect_rtcp(
        &mut self,
        now: Instant,
        bytes: &mut [u8],
    ) -> Result<usize, srtp::Error> {
        match self.inbound(now) {
            Some(inbound) => inbound.unprotect_rtcp(bytes),
            None => Ok(bytes.len()),
        }
    }

    /// What opens packets that come now.
    fn inbound(&mut self, now: Instant) -> Option<&mut Inbound> {
        match self {
            Self::Own { inbound, .. } => Some(inbound),
            Self::Shared { inbound, before_until, .. } => {
                if before_until.take_if(|until| *until <= now).is_some() {
                    inbound.forget_key();
                }
                Some(inbound)
            }
            Self::Plain => None,
        }
    }

    /// Forgets what is known of an SSRC that the peer sent from.
    pub(crate) fn forget(&mut self, ssrc: u32) {
        if let Self::Own { inbound, .. } | Self::Shared { inbound, .. } = self {
            inbound.forget(ssrc);
        }
    }

    /// What protects packets to the peer.
    pub(crate) fn protection(&mut self) -> Protection<'_> {
        match self {
            Self::Own { outbound, .. } | Self::Shared { outbound, .. } => {
                Protection::Srtp(outbound)
            }
            Self::Plain => Protection::Plain,
        }
    }

    /// Whether the two SSRCs of one more stream can be used and retired, `reserved` others being promised already. Under a
    /// session key none is remembered: [`SessionKey::take`] keeps them apart.
    pub(crate) fn takes_streams(&self, reserved: usize) -> bool {
        match self {
            Self::Own { outbound, .. } => outbound.retired() + reserved + 2 <= srtp::RETIRED_SSRCS,
            Self::Shared { .. } | Self::Plain => true,
        }
    }

    /// Whether the SSRC was retired.
    pub(crate) fn is_retired(&self, ssrc: u32) -> bool {
        matches!(self, Self::Own { outbound, .. } if outbound.is_retired(ssrc))
    }

    /// SSRCs of ours ended.
    pub(crate) fn retire(&mut self, ssrcs: [u32; 2]) {
        for ssrc in ssrcs {
            match self {
                // There is room: it was reserved when the stream began.
                Self::Own { outbound, .. } => drop(outbound.retire(ssrc)),
                Self::Shared { outbound, .. } => outbound.forget(ssrc),
                Self::Plain => {}
            }
        }
    }

    /// Bytes that the contexts hold.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Own { inbound, outbound } | Self::Shared { inbound, outbound, .. } => {
                inbound.bytes() + outbound.bytes()
            }
            Self::Plain => 0,
        }
    }
}

/// What turns a packet of ours into what goes on the wire.
pub(crate) enum Protection<'a> {
    Srtp(&'a mut Outbound),
    Plain,
}

impl Protection<'_> {
    /// Protects the packet in the first `len` bytes of `room` in place; the new length. `again`: it was protected before.
    pub(crate) fn rtp(self, again: bool, room: &mut [u8], len: usize) -> Result<usize, DropReason> {
        let result = match self {
            Self::Srtp(outbound) if again => outbound.resend_rtp(room, len),
            Self::Srtp(outbound) => outbound.protect_rtp(room, len),
            Self::Plain => Ok(len),
        };
        result.map_err(|_| DropReason::ProtectFailed)
    }

    /// Protects the packet whose header is in the first `header_len` bytes of `room`, with `payload` from elsewhere.
    pub(crate) fn rtp_from(
        self,
        again: bool,
        room: &mut [u8],
        header_len: usize,
        payload: &[u8],
    ) -> Result<usize, DropReason> {
        let result = match self {
            Self::Srtp(outbound) if again => outbound.resend_rtp_into(room, header_len, payload),
            Self::Srtp(outbound) => outbound.protect_rtp_into(room, header_len, payload),
            Self::Plain => {
                let end = header_len + payload.len();
                let to = room.get_mut(header_len..end).ok_or(DropReason::ProtectFailed)?;
                to.copy_from_slice(payload);
                Ok(end)
            }
        };
        result.map_err(|_| DropReason::ProtectFailed)
    }

    /// Protects the RTCP compound in the first `len` bytes of `room` in place; the new length.
    pub(crate) fn rtcp(self, room: &mut [u8], len: usize) -> Result<usize, DropReason> {
        match self {
            Self::Srtp(outbound) => {
                outbound.protect_rtcp(room, len).map_err(|_| DropReason::ProtectFailed)
            }
            Self::Plain => Ok(len),
        }
    }
}
