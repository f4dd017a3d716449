//! Small inputs that reach far into the parsers: where the fuzzers begin, and what the mutations are made of.

use super::sha1::hmac;
use strait_wire::dcep;
use strait_wire::rtcp::{Arrival, Dlrr, Outcome, ReportBlock, Writer};
use strait_wire::rtp::HeaderBuilder;
use strait_wire::stun::{Builder, Class};
use strait_wire::turn::{self, attribute as turns};

/// Name and bytes of the seeds of one fuzz target.
pub fn of(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "rtp" => rtp(),
        "rtcp" => rtcp(),
        "stun" => stun(),
        "codec" => codec(),
        "demux" => {
            let others = [
                ("dtls", [&[22, 254, 253][..], &[0; 10]].concat()),
                ("channel", vec![0x40, 1, 0, 0]),
            ];
            rtp()
                .into_iter()
                .take(2)
                .chain(rtcp().into_iter().take(2))
                .chain(stun().into_iter().take(1))
                .chain(others)
                .collect()
        }
        "dcep" => dcep(),
        "turn" => turn(),
        "framing" => framing(),
        _ => Vec::new(),
    }
}

/// The targets that [`of`] knows.
pub const TARGETS: [&str; 8] = ["rtp", "rtcp", "stun", "codec", "demux", "dcep", "turn", "framing"];

fn framing() -> Vec<(&'static str, Vec<u8>)> {
    let frame = |packet: &[u8]| [&(packet.len() as u16).to_be_bytes(), packet].concat();
    let (packet, check) = (rtp().remove(0).1, stun().remove(0).1);
    let all = [frame(&check), frame(&packet), frame(&[])].concat();
    vec![("cut", all[..all.len() - 3].to_vec()), ("check", frame(&check)), ("all", all)]
}

fn dcep() -> Vec<(&'static str, Vec<u8>)> {
    let open = |is_ordered, reliability, label, protocol| {
        let priority = 256;
        let open = dcep::Open { is_ordered, reliability, priority, label, protocol };
        let mut out = [0; dcep::BYTES_MAX];
        let len = dcep::Message::Open(open).write(&mut out).unwrap();
        out[..len].to_vec()
    };
    vec![
        ("ack", vec![2]),
        ("open", open(true, dcep::Reliability::Full, "strait", "strait-messages/1")),
        ("unreliable", open(false, dcep::Reliability::Retransmissions(0), "pose", "")),
        ("short-lived", open(true, dcep::Reliability::Lifetime(500), "", "ä")),
    ]
}

fn turn() -> Vec<(&'static str, Vec<u8>)> {
    let message = |class, method, fill: &dyn Fn(Builder<'_>) -> usize| {
        let mut out = [0; 200];
        let mut room = [0; 200];
        let len = fill(Builder::new(&mut room, class, method, *b"transactions"));
        out[..len].copy_from_slice(&room[..len]);
        out[..len].to_vec()
    };
    let peer = "192.0.2.1:8443".parse().unwrap();
    let allocate = message(Class::Request, turn::ALLOCATE, &|builder| {
        let builder = builder.attribute(turns::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        builder.attribute(turns::NONCE, b"nonce").integrity(|_| [7; 20]).finish().unwrap()
    });
    let send = message(Class::Indication, turn::SEND, &|builder| {
        let builder = builder.xor_address(turns::XOR_PEER_ADDRESS, peer);
        builder.attribute(turns::DATA, b"datum").finish().unwrap()
    });
    let channel = [&turn::channel_header(0x4001, 5).0[..], b"datum\0\0\0"].concat();
    vec![
        ("stream", [&allocate[..], &send, &channel, &channel].concat()),
        ("cut", [&channel[..], &send[..30]].concat()),
        ("neither", [&allocate[..], b"GET / HTTP/1.1"].concat()),
        ("too-long", vec![0x40, 0, 0xff, 0xff]),
    ]
}

fn rtp() -> Vec<(&'static str, Vec<u8>)> {
    let builder = HeaderBuilder {
        marker: true,
        pt: 96,
        seq: 65_535,
        timestamp: 0x8000_0000,
        ssrc: 0x1122_3344,
        padding: false,
    };
    let packet =
        |builder: HeaderBuilder, csrcs: &[u32], extensions: &[(u8, &[u8])], payload: &[u8]| {
            let mut out = [0; 256];
            let len = builder.write(csrcs, extensions.iter().copied(), &mut out).unwrap();
            [&out[..len], payload].concat()
        };
    vec![
        ("plain", packet(builder, &[], &[], b"payload")),
        (
            "one-byte",
            packet(
                builder,
                &[],
                &[(1, b"0"), (3, &[1, 2, 3]), (5, &[0, 9]), (10, &[0x85])],
                b"payload",
            ),
        ),
        (
            "two-byte",
            packet(builder, &[], &[(1, b"audio"), (20, &[]), (255, &[7; 17])], b"payload"),
        ),
        ("csrcs", packet(builder, &[1, 2, 3], &[(2, b"high")], &[])),
        (
            "padding",
            packet(HeaderBuilder { padding: true, ..builder }, &[], &[], &[0x78, 0, 0, 0, 4]),
        ),
        ("padding-only", packet(HeaderBuilder { padding: true, ..builder }, &[], &[], &[0, 0, 3])),
        (
            "no-profile",
            [&packet(builder, &[], &[(1, b"0")], b"x")[..12], &[0xab, 0xcd, 0, 1, 1, 2, 3, 4]]
                .concat(),
        ),
    ]
}

fn rtcp() -> Vec<(&'static str, Vec<u8>)> {
    let written = |write: &dyn Fn(&mut Writer<'_>)| {
        let mut out = [0; 512];
        let mut writer = Writer::new(&mut out);
        write(&mut writer);
        writer.bytes().to_vec()
    };
    let block = ReportBlock {
        ssrc: 7,
        fraction_lost: 12,
        cumulative_lost: -3,
        highest_seq: 0x1_0005,
        jitter: 90,
        last_sr: 0xaabb_ccdd,
        delay_since_last_sr: 65_536,
    };
    let sender = written(&|writer| {
        writer.sender_report(1, 0xe000_0000_8000_0000, 90_000, 100, 120_000, &[block]).unwrap();
        writer.cname(1, b"strait").unwrap();
    });
    // Arrivals in order and not, lost ones in between, and one after a hole longer than a vector chunk.
    let arrivals =
        [(65_530u16, 0), (65_531, 300), (65_533, 250), (2, 70_000), (3, 70_250), (40, 90_000)]
            .map(|(seq, at_us)| Arrival { seq, at_us: 10_000_000 + at_us });
    // Two streams: one with a hole, a mark and a number that wraps, one with an arrival too long ago and a loss.
    let outcomes = [
        (2, 65_535, Some(8_999_000), 0),
        (2, 1, Some(8_998_000), 3),
        (2, 2, Some(8_998_000), 1),
        (3, 7, Some(0), 2),
        (3, 8, None, 0),
    ]
    .map(|(ssrc, seq, at_us, ecn)| Outcome { ssrc, seq, at_us, ecn });
    vec![
        ("sender", sender.clone()),
        ("receiver", written(&|writer| writer.receiver_report(1, &[block, block]).unwrap())),
        ("bye", written(&|writer| writer.bye(&[1, 2]).unwrap())),
        ("bye-reason", vec![0x81, 203, 0, 2, 0, 0, 0, 1, 3, b'e', b'n', b'd']),
        ("nack", written(&|writer| writer.nack(1, 2, [65_535, 0, 5, 16, 90]).unwrap())),
        (
            "transport-cc",
            written(&|writer| {
                assert_eq!(writer.transport_cc(1, 2, 200, &arrivals), Ok(arrivals.len()));
            }),
        ),
        (
            "congestion-control",
            written(&|writer| {
                assert_eq!(writer.congestion_control(1, 9_000_000, 0x1234_8000, &outcomes), Ok(5));
            }),
        ),
        (
            "pictures",
            written(&|writer| {
                writer.pli(1, 2).unwrap();
                writer.fir(1, 2, 3).unwrap();
            }),
        ),
        ("remb", written(&|writer| writer.remb(1, 2_500_000, &[2, 3]).unwrap())),
        (
            "extended",
            written(&|writer| {
                writer.receiver_reference_time(1, 0x0123_4567_89ab_cdef).unwrap();
                writer.dlrr(1, &[Dlrr { ssrc: 2, last_rr: 3, delay_since_last_rr: 4 }]).unwrap();
            }),
        ),
        ("padding", [&sender[..], &[0xa0, 201, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4]].concat()),
    ]
}

fn stun() -> Vec<(&'static str, Vec<u8>)> {
    let id = *b"transaction!";
    let written = |write: &dyn for<'a> Fn(&'a mut [u8]) -> Builder<'a>| {
        let mut out = [0; 256];
        let len = write(&mut out).finish().unwrap();
        out[..len].to_vec()
    };
    vec![
        (
            "request",
            written(&|out| {
                Builder::binding_request(out, id)
                    .username(b"left", b"right")
                    .priority(0x6e00_01ff)
                    .ice_controlling(0x932f_f9b1_5126_3b36)
                    .use_candidate()
                    .integrity(|parts| hmac(b"secret", parts))
                    .fingerprint()
            }),
        ),
        (
            "success-v4",
            written(&|out| {
                Builder::binding_success(out, id, "192.0.2.1:32853".parse().unwrap())
                    .integrity(|parts| hmac(b"secret", parts))
                    .fingerprint()
            }),
        ),
        (
            "success-v6",
            written(&|out| {
                Builder::binding_success(out, id, "[2001:db8::1]:443".parse().unwrap())
                    .fingerprint()
            }),
        ),
        (
            "error",
            written(&|out| Builder::binding_error(out, id, 487, "Role Conflict").ice_controlled(7)),
        ),
        ("indication", written(&|out| Builder::new(out, Class::Indication, 0x0abc, id))),
    ]
}

fn codec() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "vp8-key",
            vec![0x90, 0xe0, 0x92, 0x34, 0x56, 0x20, 0x10, 0, 0, 0x9d, 1, 0x2a, 0x80, 2, 0xe0, 1],
        ),
        ("vp8-short", vec![0x80, 0xb0, 0x12, 0x45, 0x01]),
        (
            "vp9-key",
            vec![
                0xab, 0x81, 2, 0x10, 7, 0x38, 1, 0x40, 0, 0xb4, 2, 0x80, 1, 0x68, 2, 0x14, 1, 0x28,
                1, 2, 0xaa,
            ],
        ),
        ("vp9-flexible", vec![0xf8, 5, 0x40, 3, 5, 6, 0xaa]),
        ("h264-stap", vec![0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce, 0, 2, 0x65, 0x88]),
        ("h264-fu", vec![0x7c, 0x85, 0x88]),
        ("h265-ap", vec![96, 1, 0, 3, 64, 1, 12, 0, 3, 66, 1, 1, 0, 3, 38, 1, 0xaf]),
        ("h265-fu", vec![98, 1, 0x93, 0xaf]),
        ("av1", vec![0x28, 0x82, 0x01, 0x34, 0x48, 0x30]),
        ("opus", vec![0x7b, 3, 1, 2, 3]),
        (
            "flexfec-03",
            vec![
                0x10, 0x60, 0, 4, 0, 0, 3, 0xe8, 1, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xfe, 0xe0, 0, 1, 2,
                3, 4, 5,
            ],
        ),
        (
            "flexfec-03-long",
            vec![
                0x10, 0x60, 0, 2, 0, 0, 3, 0xe8, 1, 0, 0, 0, 0, 0, 0, 9, 0, 7, 0x40, 1, 0x40, 0, 0,
                1, 0xc0, 0, 0, 0, 0, 0, 0, 1, 8, 9,
            ],
        ),
        ("ulpfec", vec![0x10, 0x60, 0, 8, 0, 0, 3, 0xe8, 0, 3, 0, 3, 0xc0, 0, 7, 8, 9]),
        (
            "ulpfec-long",
            vec![0x50, 0x60, 0, 8, 0, 0, 3, 0xe8, 0, 3, 0, 3, 0x80, 0, 0, 0, 0, 1, 7, 8, 9, 1],
        ),
    ]
}
