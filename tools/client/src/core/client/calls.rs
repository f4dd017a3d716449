//! What the application asks of a client.

use super::{Asked, Client, Handle, LEAVE, Link, Publication, Statistics};
use crate::core::output::Event;
use crate::core::path::Random;
use crate::core::resolver::Place;
use crate::core::sending::{Frame, PAYLOAD_BYTES};
use crate::error::Error;
use std::time::Duration;
use strait_link::v1::{self, client_message};
use strait_link::{MESSAGE_BYTES, encode};

/// Requests that wait for an answer.
const REQUESTS: usize = 1024;
/// Publications where the node did not say yet how many it takes; four times a node's own limit.
const PUBLICATIONS: usize = 64;
/// Bytes of a message where the node did not say yet what it takes; a node's own default.
const MESSAGE: usize = 65_536;

impl<R: Random> Client<R> {
    /// Publishes, now or as soon as the scope is joined, and again whenever it is joined anew.
    ///
    /// # Errors
    /// Too many.
    pub fn publish(&mut self, request: v1::Publish) -> Result<Handle, Error> {
        self.check_here()?;
        let most = match self.limits().publications as usize {
            0 => PUBLICATIONS,
            most => most,
        };
        if self.publications.len() >= most {
            return Err(Error::TooMany("publications"));
        }
        let handle = self.next_request();
        self.publications.push(Publication { handle, request, id: None });
        if matches!(self.link, Link::Joined) {
            self.publish_again(handle);
        }
        Ok(handle)
    }

    /// Ends a publication.
    ///
    /// # Errors
    /// There is no such.
    pub fn unpublish(&mut self, publication: Handle) -> Result<(), Error> {
        let at = self.publications.iter().position(|one| one.handle == publication);
        let one = self.publications.remove(at.ok_or(Error::Unknown("publication"))?);
        if let Some(publication_id) = one.id {
            self.media.unpublish(&publication_id);
            let request = v1::Unpublish { publication_id };
            // Without a link the node ends it with the session, or learns it at the next join.
            let _away = self.request(client_message::Body::Unpublish(request));
        }
        Ok(())
    }

    /// Subscribes to a publication. `as_sent`: as the publisher sends it, which lets media move to the direct way and back
    /// without a double or a gap; only of a native publisher with one encoding.
    ///
    /// # Errors
    /// There is no link, or too many requests wait.
    pub fn subscribe(&mut self, publication_id: &str, as_sent: bool) -> Result<Handle, Error> {
        let clock = self.clocks.get(publication_id).copied().unwrap_or(90_000);
        let publication_id = publication_id.to_owned();
        let request = v1::Subscribe { publication_id, as_sent, preferences: None };
        self.check_joined()?;
        if let Some(handle) = self.subscribed_already(&request.publication_id) {
            return Ok(handle);
        }
        let handle = self.next_request();
        self.keep_subscription(handle, &request);
        self.asked.insert(handle, Asked::Subscribe(handle, clock));
        self.write(handle, client_message::Body::Subscribe(request));
        Ok(handle)
    }

    /// Any other request: answered by `Done`, `Statistics` or `Refused`. What media needs is not to be sent by this:
    /// `Publish`, `Subscribe`, `SendMessage` have calls of their own.
    ///
    /// # Errors
    /// There is no link, too many requests wait, or it is too long.
    pub fn request(&mut self, body: client_message::Body) -> Result<Handle, Error> {
        self.check_joined()?;
        let mut bytes = Vec::new();
        encode(&v1::ClientMessage { request: u32::MAX, body: Some(body.clone()) }, &mut bytes);
        if bytes.len() > MESSAGE_BYTES {
            let (what, bytes) = ("a request", bytes.len());
            return Err(Error::TooLarge { what, bytes, most: MESSAGE_BYTES });
        }
        let handle = self.next_request();
        if self.remember(&body) {
            self.event(Event::Done { handle });
            return Ok(handle);
        }
        self.asked.insert(handle, Asked::Other(handle));
        self.write(handle, body);
        Ok(handle)
    }

    /// Sends a message to a peer, or to all others with an empty `to`; its number, which counts from 1 for as long as the
    /// client lives. It is sent again over a new link until the node took it over.
    ///
    /// # Errors
    /// It is too long, or too many wait: more than the node names, or [`BYTES`](crate::core::outbox::BYTES).
    pub fn send_message(&mut self, to: &str, payload: Vec<u8>, text: bool) -> Result<u64, Error> {
        self.check_here()?;
        let most = match self.limits().message_bytes as usize {
            0 => MESSAGE,
            most => most,
        };
        if payload.len() > most {
            return Err(Error::TooLarge { what: "a message", bytes: payload.len(), most });
        }
        let message = v1::SendMessage { number: 0, to: to.to_owned(), payload, text };
        let number = self.outbox.push(message).ok_or(Error::TooMany("messages"))?;
        self.feed();
        Ok(number)
    }

    /// Sends a packet of a publication's encoding, 0 for the first.
    ///
    /// # Errors
    /// It is not published (yet), or the payload is too long.
    pub fn send(
        &mut self,
        now: Duration,
        publication: Handle,
        encoding: usize,
        frame: &Frame<'_>,
    ) -> Result<(), Error> {
        self.check_here()?;
        let bytes = frame.payload.len();
        if bytes > PAYLOAD_BYTES {
            return Err(Error::TooLarge { what: "an RTP payload", bytes, most: PAYLOAD_BYTES });
        }
        let one = self.publications.iter().find(|one| one.handle == publication);
        let one = one.ok_or(Error::Unknown("publication"))?;
        let id = one.id.as_ref().ok_or(Error::NotJoined)?;
        let kind = one.request.kind();
        let packet = self.media.send(now, id, encoding, frame);
        let (number, packet) = packet.ok_or(Error::Unknown("encoding"))?;
        self.transport_send(kind, number, packet);
        self.flush();
        Ok(())
    }

    /// Asks the publisher of a subscription for a key frame.
    ///
    /// # Errors
    /// There is no such subscription.
    pub fn ask_key_frame(&mut self, subscription_id: &str) -> Result<(), Error> {
        let packet = self.media.ask_key_frame(subscription_id);
        self.transport.send_rtcp(None, packet.ok_or(Error::Unknown("subscription"))?);
        self.flush();
        Ok(())
    }

    /// The node that it is connected to, or was last, or is about to be: another one than was named where that one sent it on.
    #[must_use]
    pub fn node(&self) -> &Place {
        &self.at
    }

    /// How all fares, as the client sees it.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let sent = self.media.sent().map(|(id, ssrc, sent)| (id.to_owned(), ssrc, sent));
        let received = self.media.received().map(|(id, ssrc, one)| (id.to_owned(), ssrc, one));
        Statistics {
            transport: self.transport_state,
            round_trip: self.transport.round_trip(),
            udp: self.transport.udp(),
            sent: sent.collect(),
            received: received.collect(),
            dropped: self.media.dropped,
            direct_packets: self.media.direct_packets,
        }
    }

    /// Leaves for good, as soon as the node took over what messages wait, after [`LEAVE`] at the latest. Nothing can be asked
    /// or sent any more from now on.
    pub fn leave(&mut self, now: Duration) {
        if self.outbox.is_empty() {
            return self.leave_at_once(now);
        }
        // Nobody is to hear who left.
        self.publications.clear();
        self.leaves_by.get_or_insert(now + LEAVE);
    }

    /// The same now, whatever waits.
    pub fn leave_at_once(&mut self, now: Duration) {
        if matches!(self.link, Link::Ended) {
            return;
        }
        if matches!(self.link, Link::Joined) {
            self.tell(client_message::Body::Leave(v1::Leave { reason: String::new() }));
        }
        self.end(now, Error::Ended);
    }

    /// Somebody who leaves, or was ended, asks for nothing more.
    fn check_here(&self) -> Result<(), Error> {
        let is_over = self.leaves_by.is_some() || matches!(self.link, Link::Ended);
        if is_over { Err(Error::Ended) } else { Ok(()) }
    }

    fn check_joined(&self) -> Result<(), Error> {
        self.check_here()?;
        if !matches!(self.link, Link::Joined) {
            return Err(Error::NotJoined);
        }
        if self.asked.len() >= REQUESTS { Err(Error::TooMany("requests")) } else { Ok(()) }
    }
}
