//! The header of an outgoing stream with the extensions that each of its packets has, laid out once: for every copy only
//! what changes is filled in.

use crate::command::Extensions;
use crate::packet::Carried;
use strait_wire::rtp;

/// Fixed header, extension header, and in the one-byte form the longest MID, send time and transport-wide number.
const BYTES: usize = 12 + 4 + 17 + 4 + 3;
/// Where the elements begin.
const ELEMENTS: usize = 12 + 4;
/// The largest header that is written.
pub(crate) const HEADER_BYTES: usize =
    12 + 4 + 2 * 7 + MID_BYTES + 3 + 2 + 1 + 3 + 1 + DESCRIPTOR_BYTES + 3;
const MID_BYTES: usize = 32;
/// A two-byte extension element at most.
pub(crate) const DESCRIPTOR_BYTES: usize = 255;

/// What changes from packet to packet besides the fixed header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamps {
    /// `abs-send-time`.
    pub(crate) send_time: [u8; 3],
    /// The transport-wide sequence number, where that is agreed.
    pub(crate) number: Option<[u8; 2]>,
}

/// A header to be filled in.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: [u8; BYTES],
    /// Of fixed header and elements, not rounded up.
    len: usize,
    /// Where the send time is written; 0 where it is not agreed.
    send_time: usize,
    /// Where the transport-wide number is written; 0 where it is not agreed.
    number: usize,
}

impl Template {
    /// The header of a leg with this MID and these extensions; `None` where they need the two-byte form (RFC 8285
    /// section 4.3).
    pub(crate) fn new(mid: &str, ids: &Extensions) -> Option<Self> {
        let mut template = Self { bytes: [0; BYTES], len: ELEMENTS, send_time: 0, number: 0 };
        let mid = mid.as_bytes();
        if ids.mid != 0 {
            template.element(ids.mid, mid)?;
        }
        if ids.abs_send_time != 0 {
            template.send_time = template.element(ids.abs_send_time, &[0; 3])?;
        }
        if ids.transport_cc != 0 {
            template.number = template.element(ids.transport_cc, &[0; 2])?;
        }
        let data = (template.len - ELEMENTS).div_ceil(4) as u8; // At most 6 words.
        template.bytes.get_mut(12..ELEMENTS)?.copy_from_slice(&[0xBE, 0xDE, 0, data]);
        Some(template)
    }

    /// Appends an element; where its data begins.
    fn element(&mut self, id: u8, data: &[u8]) -> Option<usize> {
        let at = self.len;
        self.len = append(&mut self.bytes, at, id, data)?;
        Some(at + 1)
    }

    /// Writes a header; its length. `None` where this packet needs another form.
    #[inline]
    pub(crate) fn write(
        &self,
        header: rtp::HeaderBuilder,
        stamps: Stamps,
        ids: &Extensions,
        carried: &Carried<'_>,
        room: &mut [u8],
    ) -> Option<usize> {
        // Without its number the packet would have another layout.
        if stamps.number.is_some() != (self.number != 0) {
            return None;
        }
        let front: &mut [u8; BYTES] = room.first_chunk_mut()?;
        *front = self.bytes;
        let extended = self.len > ELEMENTS;
        *front.first_chunk_mut()? = header.fixed(extended);
        if self.send_time != 0 {
            *front.get_mut(self.send_time..)?.first_chunk_mut()? = stamps.send_time;
        }
        if let Some(number) = stamps.number {
            *front.get_mut(self.number..)?.first_chunk_mut()? = number;
        }
        if carried.is_empty() {
            return Some(if extended { self.len.next_multiple_of(4) } else { 12 });
        }
        self.append(ids, carried, room)
    }

    /// Appends what the packet brought along.
    #[inline(never)]
    fn append(&self, ids: &Extensions, carried: &Carried<'_>, room: &mut [u8]) -> Option<usize> {
        let mut len = self.len;
        for (id, data) in carried.agreed(ids) {
            len = append(room, len, id, data)?;
        }
        if len == ELEMENTS {
            return Some(12);
        }
        let end = len.next_multiple_of(4);
        room.get_mut(len..end)?.fill(0);
        let words = u16::try_from((end - ELEMENTS) / 4).ok()?;
        room.get_mut(14..ELEMENTS)?.copy_from_slice(&words.to_be_bytes());
        *room.first_mut()? |= EXTENSION_BIT;
        Some(end)
    }
}

const EXTENSION_BIT: u8 = 0x10;

/// Writes an element of the one-byte form at `at`; where it ends. `None` where that form or the room cannot hold it.
fn append(room: &mut [u8], at: usize, id: u8, data: &[u8]) -> Option<usize> {
    if !(1..=14).contains(&id) || !(1..=16).contains(&data.len()) {
        return None;
    }
    let end = at + 1 + data.len();
    let (head, rest) = room.get_mut(at..end)?.split_first_mut()?;
    *head = (id << 4) | (data.len() - 1) as u8;
    rest.copy_from_slice(data);
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids() -> impl Strategy<Value = Extensions> {
        // Ids that are not agreed, of the one-byte form, and of the other.
        let id = || (0_u8..20).prop_map(|id| id.saturating_sub(4));
        (id(), id(), id(), id(), id(), id(), id()).prop_map(
            |(mid, send_time, number, level, delay, orientation, descriptor)| Extensions {
                mid,
                abs_send_time: send_time,
                transport_cc: number,
                audio_level: level,
                playout_delay: delay,
                video_orientation: orientation,
                dependency_descriptor: descriptor,
                ..Extensions::default()
            },
        )
    }

    fn data(max: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=max))
    }

    proptest! {
        #[test]
        fn it_writes_what_the_builder_writes_or_nothing(
            ids in ids(),
            mid in "[a-z]{0,20}",
            number in proptest::option::of(any::<[u8; 2]>()),
            (level, descriptor) in (data(1), data(40)),
            (seq, timestamp, ssrc, marker, padding) in any::<(u16, u32, u32, bool, bool)>(),
        ) {
            let header = rtp::HeaderBuilder { marker, pt: 96, seq, timestamp, ssrc, padding };
            let stamps = Stamps { send_time: [1, 2, 3], number };
            let carried = Carried {
                audio_level: level.as_deref(),
                dependency_descriptor: descriptor.as_deref(),
                ..Carried::default()
            };
            let Some(template) = Template::new(&mid, &ids) else {
                let long = ids.mid != 0 && !(1..=16).contains(&mid.len());
                prop_assert!(long || ids.mid.max(ids.abs_send_time).max(ids.transport_cc) > 14);
                return Ok(());
            };
            // What lay there before shows where nothing was written.
            let mut room = [0xAA; HEADER_BYTES];
            let len = template.write(header, stamps, &ids, &carried, &mut room);
            let mut expected = [0; HEADER_BYTES];
            let elements = [
                (ids.mid, Some(mid.as_bytes())),
                (ids.abs_send_time, Some(&stamps.send_time)),
                (ids.transport_cc, stamps.number.as_ref().map(<[u8; 2]>::as_slice)),
            ];
            let elements = elements.into_iter().filter(|(id, _)| *id != 0);
            let elements = elements.filter_map(|(id, data)| Some((id, data?)));
            let elements = elements.chain(carried.agreed(&ids));
            let expected_len = header.write(&[], elements.clone(), &mut expected).unwrap();
            if let Some(len) = len {
                prop_assert_eq!(&room[..len], &expected[..expected_len]);
            } else {
                let two_byte = elements.clone().any(|(id, data)| id > 14 || !(1..=16).contains(&data.len()));
                prop_assert!(two_byte || stamps.number.is_some() != (ids.transport_cc != 0));
            }
        }
    }
}
