//! Packets of media that come and go: which side they are of, and what is told of them.

use super::{Client, Event};
use crate::core::media::{Came, Side};
use crate::core::path::Random;
use std::net::SocketAddr;
use std::time::Duration;
use strait_link::v1;
use strait_wire::demux::{Kind, classify};

impl<R: Random> Client<R> {
    pub(super) fn on_packet(&mut self, now: Duration, from: Option<SocketAddr>, bytes: Vec<u8>) {
        if classify(&bytes) == Kind::Stun {
            self.transport.on_stun(now, from, &bytes);
        } else {
            let side = match from {
                Some(from) if self.transport.is_other(from) => Side::Other,
                _ => Side::Node,
            };
            self.on_protected(now, side, bytes);
        }
        self.flush();
    }

    /// RTP or RTCP came, protected.
    pub(super) fn on_protected(&mut self, now: Duration, side: Side, bytes: Vec<u8>) {
        let mut again = Vec::new();
        for came in self.media.on_packet(now, side, bytes, &mut again) {
            self.event(match came {
                Came::Payload(payload) => Event::Payload(payload),
                Came::KeyFrameWanted(ssrc) => {
                    let Some((publication_id, encoding)) = self.media.publication_of(ssrc) else {
                        continue;
                    };
                    Event::KeyFrameWanted { publication_id, encoding }
                }
            });
        }
        for (number, packet) in again {
            self.transport_send(v1::Kind::Video, number, packet);
        }
        self.retarget(now);
    }

    pub(super) fn transport_send(&mut self, kind: v1::Kind, number: u16, packet: Vec<u8>) {
        let directly = self.media.is_wanted(&packet);
        let ways = self.transport.send(kind, packet, directly);
        self.media.went(number, ways.udp || ways.tcp, ways.direct);
    }

    /// Tells the encoder of pictures what it is to keep to, where that changes.
    pub(super) fn retarget(&mut self, now: Duration) {
        let target = self.media.target(now, self.transport.is_direct());
        let mut kinds = self.publications.iter().map(|one| one.request.kind());
        if let Some(target) = target.filter(|_| kinds.any(|kind| kind == v1::Kind::Video)) {
            self.event(Event::Target(target));
        }
    }
}
