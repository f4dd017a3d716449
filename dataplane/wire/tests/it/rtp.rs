//! RTP by RFC 8285's examples, and against rtp-types.

use super::{mutate, mutations, seeds};
use proptest::prelude::*;
use rtp_types::{RtpPacket, RtpPacketBuilder};
use strait_wire::rtp::{Error, Header, HeaderBuilder, Packet, WriteError, extension_mut};

fn with_extension(profile: u16, data: &[u8]) -> Vec<u8> {
    assert_eq!(data.len() % 4, 0);
    let words = (data.len() / 4) as u16;
    [
        &[0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        &profile.to_be_bytes()[..],
        &words.to_be_bytes(),
        data,
        b"payload",
    ]
    .concat()
}

fn elements(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    Header::parse(bytes).unwrap().extensions().map(|(id, data)| (id, data.to_vec())).collect()
}

#[test]
fn one_byte_form_of_rfc_8285_section_4_2() {
    // Three elements with padding between and after, as the figure has them.
    let bytes =
        with_extension(0xbede, &[0x10, 0xaa, 0x21, 0xbb, 0xbb, 0, 0, 0x33, 0xcc, 0xcc, 0xcc, 0xcc]);
    assert_eq!(elements(&bytes), [(1, vec![0xaa]), (2, vec![0xbb; 2]), (3, vec![0xcc; 4])]);
    assert_eq!(Packet::parse(&bytes).unwrap().payload(), b"payload");
}

#[test]
fn two_byte_form_of_rfc_8285_section_4_3() {
    let bytes = with_extension(0x1000, &[1, 0, 2, 1, 0xbb, 0, 3, 4, 0xcc, 0xcc, 0xcc, 0xcc]);
    assert_eq!(elements(&bytes), [(1, vec![]), (2, vec![0xbb]), (3, vec![0xcc; 4])]);
    // The low four bits belong to the application.
    let bytes = with_extension(0x100f, &[9, 2, 1, 2]);
    assert_eq!(elements(&bytes), [(9, vec![1, 2])]);
}

#[test]
fn what_ends_the_elements() {
    // Id 15 of the one-byte form, an element past the end, a lone id, and another profile.
    assert_eq!(
        elements(&with_extension(0xbede, &[0x10, 1, 0xf0, 2, 0x20, 3, 0, 0])),
        [(1, vec![1])]
    );
    assert_eq!(elements(&with_extension(0xbede, &[0x10, 1, 0x22, 2])), [(1, vec![1])]);
    assert_eq!(elements(&with_extension(0x1000, &[1, 1, 1, 2])), [(1, vec![1])]);
    assert_eq!(elements(&with_extension(0x2000, &[1, 1, 1, 2])), []);
    assert_eq!(elements(&with_extension(0xbede, &[])), []);
}

#[test]
fn errors_say_what_is_wrong() {
    let bytes = with_extension(0xbede, &[0x10, 1, 0, 0]);
    assert_eq!(Header::parse(&bytes[..11]).unwrap_err(), Error::TooShort);
    assert_eq!(Header::parse(&bytes[..15]).unwrap_err(), Error::Extension);
    assert_eq!(Header::parse(&bytes[..19]).unwrap_err(), Error::Extension);
    assert_eq!(Header::parse(&[0x40; 12]).unwrap_err(), Error::Version);
    assert_eq!(
        Header::parse(&[0x82, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]).unwrap_err(),
        Error::TooShort
    );
    for padding in [&[0][..], &[1, 2, 4], &[]] {
        let bytes = [&[0xa0, 96][..], &[0; 10], padding].concat();
        assert_eq!(Packet::parse(&bytes).unwrap_err(), Error::Padding);
        // Encrypted, the count says nothing yet.
        assert_eq!(Header::parse(&bytes).unwrap().header_len(), 12);
    }
}

#[test]
fn form_is_chosen_by_ids_and_lengths() {
    let written = |extensions: &[(u8, &[u8])]| {
        let mut out = [0; 600];
        let len = HeaderBuilder::default().write(&[], extensions.iter().copied(), &mut out)?;
        Ok(out[..len].to_vec())
    };
    assert_eq!(written(&[]).unwrap().len(), 12);
    assert_eq!(written(&[(14, &[0; 16])]).unwrap()[12..16], [0xbe, 0xde, 0, 5]);
    for (id, data) in [(15, &[0][..]), (1, &[]), (1, &[0; 17])] {
        assert_eq!(written(&[(2, &[0]), (id, data)]).unwrap()[12..14], [0x10, 0x00]);
    }
    assert_eq!(written(&[(0, &[1])]), Err(WriteError::Invalid));
    assert_eq!(written(&[(1, &[0; 256])]), Err(WriteError::Invalid));
    assert_eq!(
        HeaderBuilder::default().write(&[0; 16], [], &mut [0; 600]),
        Err(WriteError::Invalid)
    );
    for space in 0..20 {
        let result = HeaderBuilder::default().write(&[], [(1, &[1][..])], &mut [0; 20][..space]);
        assert_eq!(result, Err(WriteError::Full), "{space} bytes");
    }
}

#[test]
fn elements_are_written_in_place() {
    let mut bytes = with_extension(0xbede, &[0x31, 0, 0, 0x10, 5, 0, 0, 0]);
    extension_mut(&mut bytes, 3).unwrap().copy_from_slice(&[0x12, 0x34]);
    assert_eq!(elements(&bytes), [(3, vec![0x12, 0x34]), (1, vec![5])]);
    assert!(extension_mut(&mut bytes, 2).is_none());
    assert!(extension_mut(&mut bytes[..17], 3).is_none());
}

/// What both read of a packet is the same, and so is whether they read it at all.
fn compare(bytes: &[u8]) {
    match (Packet::parse(bytes), RtpPacket::parse(bytes)) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.ssrc(), theirs.ssrc());
            assert_eq!(ours.seq(), theirs.sequence_number());
            assert_eq!(ours.timestamp(), theirs.timestamp());
            assert_eq!(ours.pt(), theirs.payload_type());
            assert_eq!(ours.marker(), theirs.marker_bit());
            assert_eq!(ours.csrcs().collect::<Vec<_>>(), theirs.csrc().collect::<Vec<_>>());
            assert_eq!(ours.payload(), theirs.payload());
            assert_eq!(ours.header_len(), theirs.payload_offset());
            assert_eq!(ours.padding_len(), usize::from(theirs.padding().unwrap_or(0)));
            assert_eq!(ours.extension_profile(), theirs.extension().map(|(profile, _)| profile));
        }
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("ours {ours:?}, theirs {:?}", theirs.map(drop)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn reads_what_another_writes(
        ssrc: u32, seq: u16, timestamp: u32, pt in 0u8..128, marker: bool,
        csrcs in prop::collection::vec(any::<u32>(), 0..16),
        extension in prop::option::of((any::<u16>(), prop::collection::vec(any::<[u8; 4]>(), 0..20))),
        payload in prop::collection::vec(any::<u8>(), 0..100),
        padding in prop::option::of(1u8..),
        mutations in mutations(),
    ) {
        let extension = extension.map(|(profile, words)| (profile, words.concat()));
        let mut builder = RtpPacketBuilder::<&[u8], &[u8]>::new()
            .ssrc(ssrc).sequence_number(seq).timestamp(timestamp).payload_type(pt).marker_bit(marker)
            .payload(&payload[..]).maybe_padding(padding);
        for csrc in &csrcs {
            builder = builder.add_csrc(*csrc);
        }
        if let Some((profile, data)) = &extension {
            builder = builder.extension(*profile, data);
        }
        let mut bytes = builder.write_vec().unwrap();
        compare(&bytes);
        mutate(&mut bytes, &mutations.0, mutations.1);
        compare(&bytes);
    }

    #[test]
    fn another_reads_what_we_write(
        seq: u16, timestamp: u32, ssrc: u32, pt in 0u8..128, marker: bool,
        csrcs in prop::collection::vec(any::<u32>(), 0..16),
        extensions in prop::collection::vec((1u8..=255, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut out = vec![0; 1000];
        let builder = HeaderBuilder { marker, pt, seq, timestamp, ssrc, padding: false };
        let len = builder.write(&csrcs, extensions.iter().map(|(id, data)| (*id, &data[..])), &mut out).unwrap();
        out.truncate(len);
        out.extend(&payload);
        compare(&out);
        let theirs = RtpPacket::parse(&out).unwrap();
        prop_assert_eq!(theirs.payload(), &payload[..]);
        prop_assert_eq!((theirs.ssrc(), theirs.sequence_number(), theirs.timestamp()), (ssrc, seq, timestamp));
        prop_assert_eq!(elements(&out), extensions);
    }

    #[test]
    fn both_judge_mutated_seeds_alike(pick: prop::sample::Index, mutations in mutations()) {
        let mut seeds = seeds::of("rtp");
        let mut bytes = seeds.swap_remove(pick.index(seeds.len())).1;
        mutate(&mut bytes, &mutations.0, mutations.1);
        compare(&bytes);
    }
}
