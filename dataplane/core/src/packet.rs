//! A media packet on its way: decrypted, unwrapped, looked into once for all subscribers.

use crate::command::{CodecKind, Extensions};
use crate::drop::DropReason;
use crate::layer::Layer;
use crate::peek::{Layering, Peek};
use crate::rewrite::Position;
use crate::route::Leg;
use strait_wire::rtp;

/// A decrypted packet as the subscribers see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) pt: u8,
    pub(crate) marker: bool,
    /// Extended by the source's window.
    pub(crate) seq: u64,
    pub(crate) timestamp: u32,
    /// Without padding. Empty when the packet only pads: its number is forwarded, its padding is not.
    pub(crate) payload: &'a [u8],
    /// The payload, and behind it the padding that the relay adds to make packets of one size; none at first.
    pub(crate) padded: &'a [u8],
    /// Header and payload as they came.
    pub(crate) bytes: &'a [u8],
    pub(crate) peek: Peek,
    pub(crate) carried: Carried<'a>,
}

/// The header extensions that are handed on as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried<'a> {
    pub(crate) audio_level: Option<&'a [u8]>,
    pub(crate) playout_delay: Option<&'a [u8]>,
    pub(crate) video_orientation: Option<&'a [u8]>,
    pub(crate) dependency_descriptor: Option<&'a [u8]>,
}

impl<'a> Packet<'a> {
    /// Reads a packet of the publication with this leg, whose extended sequence number is `seq`. What its payload says is
    /// what was seen when it came: later packets may have changed how that is read.
    pub(crate) fn parse(
        bytes: &'a [u8],
        seq: u64,
        leg: &Leg,
        peek: Peek,
    ) -> Result<Self, DropReason> {
        let packet = rtp::Packet::parse(bytes).map_err(|_| DropReason::RtpMalformed)?;
        let payload = packet.payload();
        let bytes = bytes.get(..packet.payload_range().end).unwrap_or_default();
        let carried = Carried::read(&packet, &leg.extensions);
        Ok(Self {
            pt: packet.pt(),
            marker: packet.marker(),
            seq,
            timestamp: packet.timestamp(),
            payload,
            padded: payload,
            bytes,
            peek,
            carried,
        })
    }

    /// Looks into the payload.
    pub(crate) fn look(&mut self, kind: CodecKind, layering: &mut Layering) {
        let descriptor = self.carried.dependency_descriptor;
        self.peek = layering.peek(kind, self.payload, (self.seq, self.marker), descriptor);
    }

    /// Whether it does not take part in a picture: sound, padding, what cannot be looked into.
    fn is_whole(&self) -> bool {
        self.payload.is_empty() || (self.peek.enters && !self.peek.key_frame)
    }

    /// What remains of it for somebody to whom its number is due, but not its layer.
    pub(crate) fn emptied(&self) -> Self {
        let peek = Peek { layer: Layer::ONLY, ..self.peek };
        let carried = Carried::default();
        Self { payload: &[], padded: &[], marker: false, peek, carried, ..*self }
    }

    /// What the rewriter needs to know.
    pub(crate) fn position(&self) -> Position {
        Position {
            seq: self.seq,
            timestamp: self.timestamp,
            picture: self.peek.picture,
            tl0: self.peek.tl0,
            key_idx: self.peek.key_idx,
            frame: self.peek.frame,
            // Where key frames are not known, pictures are not either.
            open: !self.marker && !self.peek.layer.ends && !self.is_whole(),
        }
    }
}

impl<'a> Carried<'a> {
    /// Whether there is nothing.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.audio_level.is_none()
            && self.playout_delay.is_none()
            && self.video_orientation.is_none()
            && self.dependency_descriptor.is_none()
    }

    /// Those that a leg agreed to, with its ids.
    pub(crate) fn agreed(&self, ids: &Extensions) -> impl Iterator<Item = (u8, &'a [u8])> + Clone {
        let all = [
            (ids.audio_level, self.audio_level),
            (ids.playout_delay, self.playout_delay),
            (ids.video_orientation, self.video_orientation),
            (ids.dependency_descriptor, self.dependency_descriptor),
        ];
        all.into_iter().filter_map(|(id, data)| Some((id, data.filter(|_| id != 0)?)))
    }

    fn read(packet: &rtp::Packet<'a>, ids: &Extensions) -> Self {
        let mut carried = Self::default();
        for (id, data) in packet.extensions() {
            // Ids are never 0 on the wire, so an extension that was not agreed (0) matches nothing.
            let slot = match id {
                id if id == ids.audio_level => &mut carried.audio_level,
                id if id == ids.playout_delay => &mut carried.playout_delay,
                id if id == ids.video_orientation => &mut carried.video_orientation,
                id if id == ids.dependency_descriptor => &mut carried.dependency_descriptor,
                _ => continue,
            };
            *slot = Some(data);
        }
        carried
    }
}

/// Turns an RTX packet into its original in place (RFC 4588 section 4) and returns the new length.
pub(crate) fn unwrap_rtx(bytes: &mut [u8], pt: u8, ssrc: u32) -> Result<usize, DropReason> {
    let packet = rtp::Packet::parse(bytes).map_err(|_| DropReason::RtpMalformed)?;
    let payload = packet.payload_range();
    let has_padding = packet.has_padding();
    let original: Option<[u8; 2]> = packet.payload().first_chunk().copied();
    let original = original.ok_or(DropReason::RtxPadding)?;
    if payload.len() == 2 {
        return Err(DropReason::RtxPadding);
    }
    let header_len = payload.start;
    bytes.copy_within(payload.start + 2..payload.end, header_len);
    if has_padding && let Some(first) = bytes.first_mut() {
        *first &= !PADDING_BIT;
    }
    rtp::set_seq(bytes, u16::from_be_bytes(original))
        .and_then(|()| rtp::set_pt(bytes, pt))
        .and_then(|()| rtp::set_ssrc(bytes, ssrc))
        .ok_or(DropReason::RtpMalformed)?;
    Ok(payload.end - 2)
}

const PADDING_BIT: u8 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtx_becomes_the_original() {
        let mut bytes =
            vec![0xA0, 0x80 | 97, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0x12, 0x34, 7, 8, 9, 0, 2];
        let len = unwrap_rtx(&mut bytes, 96, 5).unwrap();
        let packet = rtp::Packet::parse(&bytes[..len]).unwrap();
        assert_eq!((packet.seq(), packet.pt(), packet.ssrc()), (0x1234, 96, 5));
        assert_eq!((packet.timestamp(), packet.marker()), (1, true));
        assert_eq!(packet.payload(), [7, 8, 9]);
    }

    #[test]
    fn rtx_without_original_is_padding() {
        let head = [0xA0, 97, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2];
        for tail in [&[0, 0, 0, 4][..], &[1], &[0x12, 0x34, 0, 2]] {
            let mut bytes = [&head[..], tail].concat();
            assert_eq!(unwrap_rtx(&mut bytes, 96, 5), Err(DropReason::RtxPadding), "{tail:?}");
        }
    }
}
