//! How media to and from a peer is protected: by keys of its own, by the session key of its scope, or not at all.

use crate::command::ScopeId;
use crate::drop::DropReason;
use crate::hash::Map;
use strait_crypt::srtp::{self, Inbound, Outbound};

/// What protects a peer's media.
pub(crate) enum Keys {
    /// Keys that no other peer has, from DTLS.
    Own { inbound: Inbound, outbound: Outbound },
    /// The session key of its scope, which all peers that have it send and receive with.
    Shared { inbound: Inbound },
    /// Nothing: RTP as it is.
    Plain,
}

/// The session key of a scope.
///
/// All that the relay sends of its own under this key, to whichever peer, goes through the one context: two of them
/// would use the same nonces. It lives as long as the scope, because its history is what keeps nonces apart.
pub(crate) struct SessionKey {
    material: srtp::SharedKey,
    outbound: Outbound,
}

/// The session keys of all scopes of a worker.
pub(crate) type SessionKeys = Map<ScopeId, SessionKey>;

impl SessionKey {
    pub(crate) fn new(material: srtp::SharedKey) -> Result<Self, srtp::Error> {
        Ok(Self { outbound: material.outbound()?, material })
    }

    /// Whether the relay itself sent from this SSRC under it.
    pub(crate) fn is_used(&self, ssrc: u32) -> bool {
        self.outbound.is_used(ssrc)
    }

    /// Whether it is the same key.
    pub(crate) fn is(&self, material: &srtp::SharedKey) -> bool {
        self.material == *material
    }
}

impl Keys {
    pub(crate) fn own(keys: &srtp::SessionKeys) -> Result<Self, srtp::Error> {
        Ok(Self::Own { inbound: keys.inbound()?, outbound: keys.outbound()? })
    }

    pub(crate) fn shared(key: &srtp::SharedKey) -> Result<Self, srtp::Error> {
        Ok(Self::Shared { inbound: key.inbound()? })
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
    pub(crate) fn unprotect_rtp(&mut self, bytes: &mut [u8]) -> Result<usize, srtp::Error> {
        match self {
            Self::Own { inbound, .. } | Self::Shared { inbound } => inbound.unprotect_rtp(bytes),
            Self::Plain => Ok(bytes.len()),
        }
    }

    /// Decrypts an RTCP packet in place; the new length.
    pub(crate) fn unprotect_rtcp(&mut self, bytes: &mut [u8]) -> Result<usize, srtp::Error> {
        match self {
            Self::Own { inbound, .. } | Self::Shared { inbound } => inbound.unprotect_rtcp(bytes),
            Self::Plain => Ok(bytes.len()),
        }
    }

    /// Forgets what is known of an SSRC that the peer sent from.
    pub(crate) fn forget(&mut self, ssrc: u32) {
        if let Self::Own { inbound, .. } | Self::Shared { inbound } = self {
            inbound.forget(ssrc);
        }
    }

    /// What protects packets to a peer of this scope.
    pub(crate) fn protection<'a>(
        &'a mut self,
        scope: ScopeId,
        session_keys: &'a mut SessionKeys,
    ) -> Option<Protection<'a>> {
        match self {
            Self::Own { outbound, .. } => Some(Protection::Srtp(outbound)),
            Self::Shared { .. } => {
                session_keys.get_mut(&scope).map(|key| Protection::Srtp(&mut key.outbound))
            }
            Self::Plain => Some(Protection::Plain),
        }
    }

    /// Bytes that the contexts hold.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Own { inbound, outbound } => inbound.bytes() + outbound.bytes(),
            Self::Shared { inbound } => inbound.bytes(),
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

    /// Whether the two SSRCs of one more stream can be used and retired, `reserved` others being promised already.
    pub(crate) fn takes_streams(&self, reserved: usize) -> bool {
        match self {
            Self::Srtp(outbound) => outbound.retired() + reserved + 2 <= srtp::RETIRED_SSRCS,
            Self::Plain => true,
        }
    }

    /// Whether the SSRC was retired.
    pub(crate) fn is_retired(&self, ssrc: u32) -> bool {
        matches!(self, Self::Srtp(outbound) if outbound.is_retired(ssrc))
    }

    /// An SSRC of ours ended.
    pub(crate) fn retire(self, ssrcs: [u32; 2]) {
        if let Self::Srtp(outbound) = self {
            for ssrc in ssrcs {
                // There is room: it was reserved when the stream began.
                let _ = outbound.retire(ssrc);
            }
        }
    }
}
