//! STUN by the vectors of RFC 5769, and against stun-types.

use super::sha1::hmac;
use super::{mutate, mutations, seeds};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use strait_wire::Full;
use strait_wire::stun::{Builder, Class, Error, IntegrityError, Message, attribute};
use stun_types::attribute::{Attribute as _, XorMappedAddress};
use stun_types::message::{
    Message as Theirs, MessageClass, MessageIntegrityCredentials, ShortTermCredentials,
};

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const ID: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

/// RFC 5769 section 2.1.
#[rustfmt::skip]
const REQUEST: [u8; 108] = [
    0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
    0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73, 0x74, 0x20, 0x63, 0x6c, 0x69, 0x65, 0x6e, 0x74,
    0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff,
    0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36,
    0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20, 0x20,
    0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e, 0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49, 0xc1, 0xb5, 0x71, 0xa2,
    0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
];
/// RFC 5769 section 2.2.
#[rustfmt::skip]
const RESPONSE_V4: [u8; 80] = [
    0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
    0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20,
    0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
    0x00, 0x08, 0x00, 0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7,
    0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
];
/// RFC 5769 section 2.3.
#[rustfmt::skip]
const RESPONSE_V6: [u8; 92] = [
    0x01, 0x01, 0x00, 0x48, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
    0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20,
    0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
    0x00, 0x08, 0x00, 0x14, 0xa3, 0x82, 0x95, 0x4e, 0x4b, 0xe6, 0x7b, 0xf1, 0x17, 0x84, 0xc9, 0x7c, 0x82, 0x92, 0xc2, 0x75, 0xbf, 0xe3, 0xed, 0x41,
    0x80, 0x28, 0x00, 0x04, 0xc8, 0xfb, 0x0b, 0x4c,
];

fn check(message: &Message<'_>, password: &[u8]) -> Result<(), IntegrityError> {
    message.check_integrity(|parts| hmac(password, parts))
}

#[test]
fn rfc_5769_request() {
    let message = Message::parse(&REQUEST).unwrap();
    assert!(message.is_binding_request());
    assert_eq!(message.transaction_id(), ID);
    assert_eq!(message.username_parts(), Some((&b"evtj"[..], &b"h6vY"[..])));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!(message.ice_controlled(), Some(0x932f_f9b1_5126_3b36));
    assert_eq!((message.ice_controlling(), message.use_candidate()), (None, false));
    assert_eq!(message.attribute(attribute::SOFTWARE), Some(&b"STUN test client"[..]));
    assert_eq!(message.unknown_required(), None);
    assert!(message.is_fingerprint_valid());
    assert_eq!(check(&message, PASSWORD), Ok(()));
    assert_eq!(check(&message, b"another"), Err(IntegrityError::Wrong));
}

#[test]
fn rfc_5769_responses() {
    let responses = [
        (&RESPONSE_V4[..], "192.0.2.1:32853"),
        (&RESPONSE_V6[..], "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ];
    for (bytes, address) in responses {
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Success, 1));
        assert_eq!(message.attribute(attribute::SOFTWARE), Some(&b"test vector"[..]));
        assert_eq!(message.xor_mapped_address(), Some(address.parse().unwrap()));
        assert!(message.is_fingerprint_valid());
        assert_eq!(check(&message, PASSWORD), Ok(()));
    }
}

/// The vectors pad with spaces and the builder with zeros, so only what needs no padding comes out the same: here the
/// address.
#[test]
fn rfc_5769_addresses_are_written_alike() {
    for (bytes, at) in [(&RESPONSE_V4[..], 36..48), (&RESPONSE_V6[..], 36..60)] {
        let address = Message::parse(bytes).unwrap().xor_mapped_address().unwrap();
        let mut out = [0; 64];
        let len = Builder::binding_success(&mut out, ID, address).finish().unwrap();
        assert_eq!(out[20..len], bytes[at]);
    }
}

#[test]
fn any_flipped_bit_is_seen() {
    for bit in 0..8 * REQUEST.len() {
        let mut bytes = REQUEST;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(message) = Message::parse(&bytes) else { continue };
        assert!(!message.is_fingerprint_valid(), "bit {bit}");
        // What stands before the end of MESSAGE-INTEGRITY is authenticated; the length is set anew.
        if bit / 8 < 100 && check(&message, PASSWORD).is_ok() {
            panic!("bit {bit} passes");
        }
    }
}

#[test]
fn what_follows_integrity_is_not_believed() {
    let mut out = [0; 200];
    let len = Builder::binding_request(&mut out, ID)
        .username(b"a", b"b")
        .integrity(|parts| hmac(PASSWORD, parts))
        .use_candidate()
        .finish()
        .unwrap();
    let message = Message::parse(&out[..len]).unwrap();
    assert_eq!(check(&message, PASSWORD), Ok(()));
    assert!(!message.use_candidate());
    assert_eq!(message.attributes().count(), 1);
}

#[test]
fn errors_say_what_is_wrong() {
    assert_eq!(Message::parse(&REQUEST[..19]).unwrap_err(), Error::TooShort);
    assert_eq!(Message::parse(&REQUEST[..104]).unwrap_err(), Error::Length);
    assert_eq!(Message::parse(&[&REQUEST[..], &[0; 4]].concat()).unwrap_err(), Error::Length);
    let bent = |at: usize, value: u8| {
        let mut bytes = REQUEST;
        bytes[at] = value;
        Message::parse(&bytes).unwrap_err()
    };
    assert_eq!(bent(0, 0x80), Error::NotStun);
    assert_eq!(bent(4, 0), Error::NotStun);
    assert_eq!(bent(3, 0x59), Error::Length);
    // The last attribute's length.
    assert_eq!(bent(103, 5), Error::Attribute);
    let plain = &mut [0; 20];
    let len = Builder::binding_request(plain, ID).finish().unwrap();
    let plain = Message::parse(&plain[..len]).unwrap();
    assert_eq!(check(&plain, PASSWORD), Err(IntegrityError::Missing));
    assert!(!plain.is_fingerprint_valid());
}

#[test]
fn error_responses() {
    let mut out = [0; 100];
    let len =
        Builder::binding_error(&mut out, ID, 487, "Role Conflict").fingerprint().finish().unwrap();
    let message = Message::parse(&out[..len]).unwrap();
    assert_eq!(message.class(), Class::Error);
    assert_eq!(message.error_code(), Some((487, &b"Role Conflict"[..])));
    let theirs = Theirs::from_bytes(&out[..len]).unwrap();
    let code = theirs.attribute::<stun_types::attribute::ErrorCode>().unwrap();
    assert_eq!((code.code(), code.reason()), (487, "Role Conflict"));
}

#[test]
fn a_small_buffer_is_an_error() {
    for space in 0..52 {
        let mut out = vec![0; space];
        let result =
            Builder::binding_request(&mut out, ID).integrity(|_| [0; 20]).fingerprint().finish();
        assert_eq!(result, Err(Full), "{space} bytes");
    }
    let mut out = [0; 52];
    assert_eq!(
        Builder::binding_request(&mut out, ID).integrity(|_| [0; 20]).fingerprint().finish(),
        Ok(52)
    );
}

#[test]
fn required_attributes_that_nobody_knows() {
    let mut out = [0; 64];
    let len = Builder::binding_request(&mut out, ID)
        .attribute(0x8abc, &[1])
        .attribute(0x7abc, &[])
        .finish()
        .unwrap();
    assert_eq!(Message::parse(&out[..len]).unwrap().unknown_required(), Some(0x7abc));
}

/// What both read of a message is the same.
fn compare(bytes: &[u8]) {
    let (ours, theirs) = (Message::parse(bytes), Theirs::from_bytes(bytes));
    let ours = match (ours, &theirs) {
        (Ok(ours), _) => ours,
        // The other side lets bytes follow the message, as they do in a stream.
        (Err(Error::Length), _) | (Err(_), Err(_)) => return,
        (Err(error), Ok(_)) => panic!("only they read it: {error}"),
    };
    let Ok(theirs) = theirs else {
        // The other side checks fingerprints as it reads.
        return;
    };
    assert_eq!(ours.method(), theirs.method().value());
    assert_eq!(ours.class(), class(theirs.class()));
    let id = ours.transaction_id().iter().fold(0, |id, byte| id << 8 | u128::from(*byte));
    assert_eq!(id, u128::from(theirs.transaction_id()));
    for (ours, (_, theirs)) in ours.attributes().zip(theirs.iter_attributes()) {
        assert_eq!((ours.kind, ours.value), (theirs.get_type().value(), &*theirs.value));
    }
    if let Ok(address) = theirs.attribute::<XorMappedAddress>()
        && ours.attribute(attribute::XOR_MAPPED_ADDRESS).is_some()
    {
        assert_eq!(ours.xor_mapped_address(), Some(address.addr(theirs.transaction_id())));
    }
}

fn class(class: MessageClass) -> Class {
    match class {
        MessageClass::Request => Class::Request,
        MessageClass::Indication => Class::Indication,
        MessageClass::Success => Class::Success,
        MessageClass::Error => Class::Error,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn another_reads_what_we_write(
        id: [u8; 12], ip: IpAddr, port: u16, priority: u32, tie: u64, password in "[a-zA-Z0-9+/]{22}",
        ufrags in ("[a-zA-Z0-9+/]{4,64}", "[a-zA-Z0-9+/]{4,64}"), method in 0u16..0x1000,
    ) {
        let mut out = [0; 400];
        let len = Builder::new(&mut out, Class::Request, method, id)
            .username(ufrags.0.as_bytes(), ufrags.1.as_bytes())
            .priority(priority)
            .ice_controlling(tie)
            .use_candidate()
            .xor_mapped_address(SocketAddr::new(ip, port))
            .integrity(|parts| hmac(password.as_bytes(), parts))
            .fingerprint()
            .finish()
            .unwrap();
        let bytes = &out[..len];
        compare(bytes);
        let theirs = Theirs::from_bytes(bytes).unwrap();
        let credentials = MessageIntegrityCredentials::ShortTerm(ShortTermCredentials::new(password.clone()));
        prop_assert!(theirs.validate_integrity(&credentials).is_ok());
        let ours = Message::parse(bytes).unwrap();
        prop_assert_eq!(check(&ours, password.as_bytes()), Ok(()));
        prop_assert!(ours.is_fingerprint_valid() && ours.use_candidate());
        prop_assert_eq!(ours.username_parts(), Some((ufrags.0.as_bytes(), ufrags.1.as_bytes())));
        prop_assert_eq!((ours.priority(), ours.ice_controlling()), (Some(priority), Some(tie)));
        prop_assert_eq!(ours.xor_mapped_address(), Some(SocketAddr::new(ip.to_canonical(), port)));
    }

    #[test]
    fn both_read_mutated_seeds_alike(pick: prop::sample::Index, mutations in mutations()) {
        let mut seeds = seeds::of("stun");
        let mut bytes = seeds.swap_remove(pick.index(seeds.len())).1;
        mutate(&mut bytes, &mutations.0, mutations.1);
        compare(&bytes);
    }
}
