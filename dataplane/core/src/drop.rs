//! Why a packet was not forwarded. Each reason is counted per worker and shown to operators.

/// Declares the reasons once: the enum, [`DropReason::ALL`] and the names come from the same table.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $reason:ident = $name:literal,)+) => {
        /// Why a packet, or one outgoing copy of it, was not forwarded.
        ///
        /// Each reason says the cause, whose doing it is, and the remedy if there is one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $reason,)+ }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$reason,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in metrics and in the RPC's statistics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$reason => $name,)+ }
            }

            /// The text of the reference: cause, whose doing, remedy.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$reason => concat!($($doc, "\n"),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// Neither STUN, DTLS, RTP nor RTCP (RFC 7983): a stranger or a broken peer. Nothing to do unless it floods.
    UnknownProtocol = "unknown_protocol",
    /// STUN that cannot be read, or whose FINGERPRINT is wrong: a stranger or a broken peer.
    StunMalformed = "stun_malformed",
    /// STUN, but not a Binding request, or one that asks for more than its address: an ICE-lite agent has no other answer.
    StunNotRequest = "stun_not_request",
    /// An ICE check for a user fragment that no peer has: a peer that was removed, a scan, or a packet for another relay.
    StunUnknownUser = "stun_unknown_user",
    /// An ICE check whose MESSAGE-INTEGRITY is missing or made with another password: a stranger, or mixed-up signalling.
    StunBadIntegrity = "stun_bad_integrity",
    /// A plain Binding request beyond what one address, or all, may ask in a second: a flood, or somebody who forges addresses.
    StunTooMany = "stun_too_many",
    /// The answer to an ICE check would be larger than the check: a padded-down request, used for amplification.
    StunAnswerTooLarge = "stun_answer_too_large",
    /// An ICE check from the address of a peer without ICE, who was told to be there: a forged source address, or one that a NAT
    /// gave to somebody else. Remedy for the latter: remove the peer that was there.
    PathTaken = "path_taken",
    /// DTLS, RTP or RTCP from an address that has passed no ICE check: a stranger, or a peer whose consent expired.
    PathUnknown = "path_unknown",
    /// DTLS while the handshake queue is full: a join storm. The peer retransmits; more workers help.
    HandshakeQueueFull = "handshake_queue_full",
    /// Media before the DTLS handshake gave keys: normal for a few packets at a join.
    NoKeys = "no_keys",
    /// SRTP whose index was received before or is too old: a duplicate of the network, or an attacker.
    SrtpReplay = "srtp_replay",
    /// SRTP or SRTCP that does not authenticate: corruption, an attacker, or a peer with other keys.
    SrtpAuthentication = "srtp_authentication",
    /// SRTP of more SSRCs than a peer may use, or past the lifetime of its keys: a broken peer.
    SrtpLimit = "srtp_limit",
    /// RTP that cannot be read: a broken peer.
    RtpMalformed = "rtp_malformed",
    /// RTCP that cannot be read: a broken peer. What was read before the fault was used.
    RtcpMalformed = "rtcp_malformed",
    /// RTP that fits no publication by SSRC, MID, RID or payload type: media ahead of signalling, or after an unpublish.
    StreamUnknown = "stream_unknown",
    /// RTP with a payload type that its publication did not announce: a broken peer or mixed-up signalling.
    PayloadTypeUnknown = "payload_type_unknown",
    /// RTX without an original packet (RFC 4588): bandwidth probes of the publisher. Normal.
    RtxPadding = "rtx_padding",
    /// Forward error correction that ends here: what the publisher lost is mended with it, and subscribers have lines of
    /// their own. Normal where it was agreed.
    FecEnds = "fec_ends",
    /// Forward error correction that cannot be read, or protects no stream of the publisher: a broken peer.
    FecMalformed = "fec_malformed",
    /// A packet that arrived before, as itself or by RTX. Normal after loss.
    PacketDuplicate = "packet_duplicate",
    /// A packet so late that its place is gone. The publisher's network, or a retransmission after a long stall.
    PacketTooLate = "packet_too_late",
    /// The publication is muted. Normal.
    PublicationMuted = "publication_muted",
    /// Nobody subscribes to the publication. Normal.
    NoSubscriber = "no_subscriber",
    /// Every subscriber declined: paused, on another layer, or waiting for a key frame. Normal.
    NotSelected = "not_selected",
    /// Sound of a scope that forwards its loudest streams alone (`audio_streams_max`), and others were louder. Normal.
    NotLoudest = "not_loudest",
    /// The subscriber is not connected yet, or has no path: its copy is dropped. Normal at a join.
    SubscriberNotReady = "subscriber_not_ready",
    /// The turn's send buffer is full: too much for one turn. More workers, or fewer subscribers per publication.
    EgressFull = "egress_full",
    /// The outgoing packet could not be built or encrypted: larger than a datagram, or the keys are used up.
    ProtectFailed = "protect_failed",
    /// A retransmission beyond what the subscriber's share allows: heavy loss, or a subscriber that asks without need.
    ResendLimited = "resend_limited",
    /// A retransmission that would help nobody: the packet was sent again less than a round trip ago, or lies before a switch
    /// to a lower layer that the subscriber's line forced. Normal where a line is full.
    ResendInVain = "resend_in_vain",
    /// A picture, or what follows it up to the next key frame, while too much waits for the subscriber's line: it wants more than
    /// its line carries, and there is no lower layer to give it. Remedy: a publisher that sends layers.
    PacerFull = "pacer_full",
    /// A picture that waited for the subscriber's line when its stream was paused, muted, ended, bound to another or lowered, or
    /// when a newer key frame was shown instead. Normal.
    PacerForgotten = "pacer_forgotten",
    /// A copy for the subscribers on another worker, or their wish on its way back, while that worker's queue is full: it is
    /// overloaded. More workers, or smaller scopes.
    MirrorFull = "mirror_full",
    /// An event that nobody fetched in time: the control plane is too slow.
    EventsFull = "events_full",
}

/// Counters of all reasons, by their order in [`DropReason::ALL`].
#[derive(Clone, Debug)]
pub struct Drops([u64; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::COUNT])
    }
}

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts so many.
    pub fn add(&mut self, reason: DropReason, count: u64) {
        if let Some(counter) = self.0.get_mut(reason as usize) {
            *counter += count;
        }
    }

    /// How often this reason was counted.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or_default()
    }

    /// All counters, in the order of [`DropReason::ALL`].
    #[must_use]
    pub fn all(&self) -> &[u64; DropReason::COUNT] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_described() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
        for (position, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, position);
            assert!(reason.description().ends_with('.'), "{}", reason.name());
        }
    }

    #[test]
    fn counters_count() {
        let mut drops = Drops::default();
        drops.count(DropReason::NoKeys);
        drops.count(DropReason::NoKeys);
        assert_eq!(drops.of(DropReason::NoKeys), 2);
        assert_eq!(drops.all().iter().sum::<u64>(), 2);
    }
}
