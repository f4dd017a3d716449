//! Writing an answer: ICE-lite, everything bundled, DTLS-SRTP, as RFC 8829 and RFC 9429 say.

use std::fmt::Write;

use super::codec::CONGESTION_CONTROL;
use super::offer::{Direction, Media, Offer};
use super::{Codec, Extension, IceCredentials};
use crate::limits::CHANNEL_FRAME_BYTES;

/// What browsers say as well; the relay takes any.
const SCTP_PORT: u16 = 5000;

/// What is answered, beside the m-lines.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    /// Identifies the session in `o=`: a number, as text.
    pub session_id: u64,
    /// Counts the answers of the session, from 1.
    pub version: u64,
    /// The relay's ICE credentials.
    pub ice: &'a IceCredentials,
    /// `a=candidate` values.
    pub candidates: &'a [String],
    /// SHA-256 of the relay's certificate, upper-case hex with colons.
    pub fingerprint: &'a str,
    /// Whether the relay is the DTLS client.
    pub is_dtls_client: bool,
    /// One for each m-line of the offer, in its order.
    pub lines: Vec<AnswerLine>,
}

/// The answer to one m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerLine {
    /// Refused: port 0.
    Rejected,
    /// Accepted.
    Accepted {
        /// Direction, as the relay sees it.
        direction: Direction,
        /// Codecs taken, in the offer's order; the feedback in them is what is answered.
        codecs: Vec<Codec>,
        /// Header extensions taken.
        extensions: Vec<Extension>,
        /// RIDs that the relay takes, when the offer had simulcast.
        rids: Vec<String>,
        /// What the relay sends here.
        sending: Option<Sending>,
    },
    /// Data channels, accepted.
    Channels,
}

/// The stream that the relay sends on an m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// `a=msid`: stream and track.
    pub stream: String,
    /// Track identifier.
    pub track: String,
    /// SSRC.
    pub ssrc: u32,
    /// SSRC of retransmissions, 0 for none.
    pub rtx_ssrc: u32,
}

impl Answer<'_> {
    /// The answer to `offer` as text.
    pub fn write(&self, offer: &Offer) -> String {
        let mut sdp = String::with_capacity(1024 + 1024 * self.lines.len());
        self.write_to(offer, &mut sdp).unwrap_or_default(); // a String takes everything
        sdp
    }

    fn write_to(&self, offer: &Offer, sdp: &mut String) -> std::fmt::Result {
        write!(sdp, "v=0\r\no=- {} {} IN IP4 127.0.0.1\r\n", self.session_id, self.version)?;
        write!(sdp, "s=-\r\nt=0 0\r\n")?;
        let pairs = || offer.medias.iter().zip(&self.lines);
        let accepted = || pairs().filter(|(_, line)| **line != AnswerLine::Rejected);
        if offer.has_bundle {
            write!(sdp, "a=group:BUNDLE")?;
            for (media, _) in accepted() {
                write!(sdp, " {}", media.mid)?;
            }
            write!(sdp, "\r\n")?;
        }
        if offer.extmap_allow_mixed {
            write!(sdp, "a=extmap-allow-mixed\r\n")?;
        }
        write!(sdp, "a=msid-semantic: WMS *\r\na=ice-lite\r\n")?;
        let lead = accepted().next().map(|(media, _)| media.mid.as_str());
        for (media, line) in pairs() {
            let is_lead = lead == Some(&media.mid);
            match line {
                AnswerLine::Rejected => write_rejected(sdp, media)?,
                AnswerLine::Accepted { .. } => {
                    self.write_accepted(sdp, offer, media, line, is_lead)?;
                }
                AnswerLine::Channels => {
                    write!(sdp, "m={} 9 {} {}", media.media, media.protocol, media.formats)?;
                    self.write_transport(sdp, offer, media, is_lead)?;
                    write!(sdp, "a=sctp-port:{SCTP_PORT}\r\n")?;
                    write!(sdp, "a=max-message-size:{CHANNEL_FRAME_BYTES}\r\n")?;
                }
            }
        }
        Ok(())
    }

    fn write_accepted(
        &self,
        sdp: &mut String,
        offer: &Offer,
        media: &Media,
        line: &AnswerLine,
        is_lead: bool,
    ) -> std::fmt::Result {
        let AnswerLine::Accepted { direction, codecs, extensions, rids, sending } = line else {
            return Ok(());
        };
        write!(sdp, "m={} 9 {}", media.media, media.protocol)?;
        for codec in codecs {
            write!(sdp, " {}", codec.payload_type)?;
        }
        for rtx in codecs.iter().filter_map(|codec| codec.rtx) {
            write!(sdp, " {rtx}")?;
        }
        self.write_transport(sdp, offer, media, is_lead)?;
        write!(sdp, "a={}\r\na=rtcp-mux\r\n", direction_name(*direction))?;
        if media.rtcp_rsize {
            write!(sdp, "a=rtcp-rsize\r\n")?;
        }
        for extension in extensions {
            // What is offered for one direction is answered for the other (RFC 8285 section 6).
            let direction = match extension.direction {
                Some(Direction::ReceiveOnly) => "/sendonly",
                Some(Direction::SendOnly) => "/recvonly",
                _ => "",
            };
            write!(sdp, "a=extmap:{}{direction} {}\r\n", extension.id, extension.uri)?;
        }
        for codec in codecs {
            write_codec(sdp, codec)?;
        }
        // RFC 8888 section 6: for all payload types, or none.
        let of_rfc8888 = |codec: &Codec| codec.feedback.iter().any(|f| f == CONGESTION_CONTROL);
        if codecs.iter().any(of_rfc8888) {
            write!(sdp, "a=rtcp-fb:* {CONGESTION_CONTROL}\r\n")?;
        }
        if !rids.is_empty() {
            for rid in rids {
                write!(sdp, "a=rid:{rid} recv\r\n")?;
            }
            write!(sdp, "a=simulcast:recv {}\r\n", rids.join(";"))?;
        }
        if let Some(sending) = sending {
            write_sending(sdp, sending)?;
        }
        Ok(())
    }

    /// The rest of the m-line, and what all of a bundle have in common.
    fn write_transport(
        &self,
        sdp: &mut String,
        offer: &Offer,
        media: &Media,
        is_lead: bool,
    ) -> std::fmt::Result {
        write!(sdp, "\r\nc=IN IP4 0.0.0.0\r\n")?;
        write_mid(sdp, media)?;
        write!(sdp, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ice.ufrag, self.ice.pwd)?;
        if offer.trickle {
            write!(sdp, "a=ice-options:trickle\r\n")?;
        }
        write!(sdp, "a=fingerprint:sha-256 {}\r\n", self.fingerprint)?;
        write!(sdp, "a=setup:{}\r\n", if self.is_dtls_client { "active" } else { "passive" })?;
        if is_lead {
            for candidate in self.candidates {
                write!(sdp, "a=candidate:{candidate}\r\n")?;
            }
            write!(sdp, "a=end-of-candidates\r\n")?;
        }
        Ok(())
    }
}

fn write_rejected(sdp: &mut String, media: &Media) -> std::fmt::Result {
    write!(sdp, "m={} 0 {} {}\r\n", media.media, media.protocol, media.formats)?;
    write!(sdp, "c=IN IP4 0.0.0.0\r\n")?;
    write_mid(sdp, media)?;
    write!(sdp, "a=inactive\r\n")
}

fn write_mid(sdp: &mut String, media: &Media) -> std::fmt::Result {
    if media.has_mid { write!(sdp, "a=mid:{}\r\n", media.mid) } else { Ok(()) }
}

fn write_codec(sdp: &mut String, codec: &Codec) -> std::fmt::Result {
    let pt = codec.payload_type;
    write!(sdp, "a=rtpmap:{pt} {}\r\n", codec.rtpmap())?;
    for feedback in codec.feedback.iter().filter(|feedback| *feedback != CONGESTION_CONTROL) {
        write!(sdp, "a=rtcp-fb:{pt} {feedback}\r\n")?;
    }
    if !codec.fmtp.is_empty() {
        write!(sdp, "a=fmtp:{pt} {}\r\n", codec.fmtp)?;
    }
    if let Some(rtx) = codec.rtx {
        write!(sdp, "a=rtpmap:{rtx} rtx/{}\r\na=fmtp:{rtx} apt={pt}\r\n", codec.clock_rate_hz)?;
    }
    Ok(())
}

fn write_sending(sdp: &mut String, sending: &Sending) -> std::fmt::Result {
    let Sending { stream, track, ssrc, rtx_ssrc } = sending;
    write!(sdp, "a=msid:{stream} {track}\r\n")?;
    if *rtx_ssrc != 0 {
        write!(sdp, "a=ssrc-group:FID {ssrc} {rtx_ssrc}\r\n")?;
    }
    for ssrc in [*ssrc, *rtx_ssrc].into_iter().filter(|ssrc| *ssrc != 0) {
        write!(sdp, "a=ssrc:{ssrc} cname:strait\r\na=ssrc:{ssrc} msid:{stream} {track}\r\n")?;
    }
    Ok(())
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::SendReceive => "sendrecv",
        Direction::SendOnly => "sendonly",
        Direction::ReceiveOnly => "recvonly",
        Direction::Inactive => "inactive",
    }
}
