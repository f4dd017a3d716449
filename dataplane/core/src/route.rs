//! Which payload type of the publisher's leg goes out as which of the subscriber's.

use crate::command::{Codec, CodecKind, CommandError, Extensions};
use crate::fec;
use crate::red::{self, Red};

/// What was agreed for one stream on one side.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) mid: Box<str>,
    pub(crate) codecs: Vec<Codec>,
    /// Forward error correction of these codecs.
    pub(crate) fec: fec::Agreed,
    pub(crate) extensions: Extensions,
}

impl Leg {
    /// One that takes these codecs, the preferred one first.
    pub(crate) fn new(mid: &str, mut codecs: Vec<Codec>, extensions: Extensions) -> Self {
        let fec = fec::Agreed::take_from(&mut codecs);
        Self { mid: mid.into(), codecs, fec, extensions }
    }

    /// The codec with this payload type.
    pub(crate) fn codec(&self, pt: u8) -> Option<&Codec> {
        self.codecs.iter().find(|codec| codec.pt == pt)
    }

    /// Whether the publisher takes PLI, and FIR.
    pub(crate) fn asks_key_frames(&self) -> (bool, bool) {
        self.codecs.first().map_or((false, false), |codec| (codec.pli, codec.fir))
    }

    /// Whether feedback goes by the streams' own numbers (RFC 8888).
    pub(crate) fn ccfb(&self) -> bool {
        self.codecs.first().is_some_and(|codec| codec.ccfb)
    }

    /// Whether feedback may go without reports (RFC 5506).
    pub(crate) fn reduced_size(&self) -> bool {
        self.codecs.first().is_some_and(|codec| codec.reduced_size)
    }

    /// The codec whose retransmissions have this payload type.
    pub(crate) fn codec_of_rtx(&self, rtx_pt: u8) -> Option<&Codec> {
        let red = self.fec.red.as_ref();
        self.codecs.iter().chain(red).find(|codec| codec.rtx_pt == Some(rtx_pt))
    }

    /// Whether packets of the stream itself, or its retransmissions, have this payload type.
    pub(crate) fn takes(&self, pt: u8) -> bool {
        let is_red = self.fec.red.as_ref().is_some_and(|red| red.pt == pt);
        self.codec(pt).is_some() || is_red || self.codec_of_rtx(pt).is_some()
    }
}

/// One payload type's way from leg to leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// On the publisher's leg.
    pub(crate) from: u8,
    /// On the subscriber's leg.
    pub(crate) to: u8,
    /// RTX on the subscriber's leg.
    pub(crate) to_rtx: Option<u8>,
    /// The subscriber may ask for packets again, and gets them as they were (RFC 4585 without RFC 4588).
    pub(crate) repeats: bool,
    pub(crate) kind: CodecKind,
    pub(crate) clock_rate_hz: u32,
    pub(crate) red: Red,
}

/// The ways of all payload types that both legs know, by codec identity.
pub(crate) fn compile(publisher: &Leg, subscriber: &Leg) -> Result<Vec<Route>, CommandError> {
    let routes: Vec<Route> = publisher
        .codecs
        .iter()
        .filter_map(|from| {
            if let Some(route) = red::route(publisher, subscriber, from) {
                return Some(route);
            }
            let to = subscriber.codecs.iter().find(|to| to.identity == from.identity)?;
            Some(Route {
                from: from.pt,
                to: to.pt,
                to_rtx: to.rtx_pt,
                repeats: to.nack && to.rtx_pt.is_none(),
                kind: from.kind,
                clock_rate_hz: from.clock_rate_hz,
                red: Red::AsIs,
            })
        })
        .collect();
    if routes.is_empty() {
        let names: Vec<&str> = publisher.codecs.iter().map(|c| c.identity.as_str()).collect();
        return Err(CommandError::NoCommonCodec(names.join(", ")));
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(codecs: &[(u8, Option<u8>, &str)]) -> Leg {
        let codec = |(pt, rtx_pt, identity): &(u8, Option<u8>, &str)| Codec {
            pt: *pt,
            rtx_pt: *rtx_pt,
            kind: CodecKind::Vp8,
            identity: (*identity).into(),
            clock_rate_hz: 90_000,
            nack: true,
            pli: true,
            fir: false,
            transport_cc: false,
            remb: false,
            ccfb: false,
            reduced_size: false,
        };
        Leg::new("0", codecs.iter().map(codec).collect(), Extensions::default())
    }

    #[test]
    fn payload_types_meet_by_identity() {
        let publisher = leg(&[(96, Some(97), "vp8"), (98, None, "vp9")]);
        let subscriber = leg(&[(120, None, "h264"), (121, Some(122), "vp8")]);
        let routes = compile(&publisher, &subscriber).unwrap();
        assert_eq!(routes.len(), 1);
        assert_eq!((routes[0].from, routes[0].to, routes[0].to_rtx), (96, 121, Some(122)));
        let error = compile(&publisher, &leg(&[(1, None, "av1")])).unwrap_err();
        assert_eq!(error, CommandError::NoCommonCodec("vp8, vp9".into()));
    }
}
