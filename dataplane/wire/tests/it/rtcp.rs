//! RTCP round trips, and against rtcp-types.

use super::{mutate, mutations, seeds};
use proptest::prelude::*;
use rtcp_types::{
    Compound, Packet as Theirs, RtcpPacketWriter, RtcpPacketWriterExt as _, TwccPacketStatus,
};
use strait_wire::rtcp::{
    Arrival, Dlrr, Error, Metric, Outcome, Packet, ReportBlock, TransportCc, Writer, XrBlock,
    packets,
};

fn only(bytes: &[u8]) -> Packet<'_> {
    let all: Vec<_> = packets(bytes).collect();
    assert_eq!(all.len(), 1);
    all[0].unwrap()
}

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = [0; 4096];
    let mut writer = Writer::new(&mut out);
    write(&mut writer);
    writer.bytes().to_vec()
}

fn theirs(packet: &impl RtcpPacketWriter) -> Vec<u8> {
    let mut out = vec![0; 70_000];
    let len = packet.write_into(&mut out).unwrap();
    out.truncate(len);
    out
}

#[test]
fn headers_that_end_a_compound() {
    let pli = written(|writer| writer.pli(1, 2).unwrap());
    let results = |tail: &[u8]| {
        packets(&[&pli[..], tail].concat()).map(|packet| packet.err()).collect::<Vec<_>>()
    };
    assert_eq!(results(&[]), [None]);
    assert_eq!(results(&[0x80, 206, 0]), [None, Some(Error::TooShort)]);
    assert_eq!(results(&[0x80, 206, 0, 1]), [None, Some(Error::TooShort)]);
    assert_eq!(results(&[0x41, 206, 0, 0]), [None, Some(Error::Version)]);
    // A bad body or padding is one packet's matter.
    assert_eq!(results(&[&[0x81, 206, 0, 0], &pli[..]].concat()), [None, Some(Error::Body), None]);
    assert_eq!(
        results(&[&[0xa1, 206, 0, 0], &pli[..]].concat()),
        [None, Some(Error::Padding), None]
    );
    assert_eq!(
        results(&[&[0xa1, 206, 0, 1, 0, 0, 0, 5], &pli[..]].concat()),
        [None, Some(Error::Padding), None]
    );
}

#[test]
fn unknown_packets_are_ignored() {
    let Packet::Other(other) = only(&[0x83, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e']) else {
        panic!()
    };
    assert_eq!((other.packet_type, other.count, other.body.len()), (204, 3, 8));
    // Application-layer feedback that is no REMB.
    assert!(matches!(
        only(&[0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]),
        Packet::Other(_)
    ));
}

#[test]
fn a_full_buffer_keeps_what_was_there() {
    for space in 0..40 {
        let mut out = vec![0; space];
        let mut writer = Writer::new(&mut out);
        let first = writer.pli(1, 2);
        let len = writer.len();
        assert_eq!(first.is_ok(), space >= 12);
        assert_eq!(len, if space >= 12 { 12 } else { 0 });
        assert_eq!(writer.remb(1, 1000, &[5]).is_ok(), space >= 12 + 24);
        assert_eq!(
            packets(writer.bytes()).filter(Result::is_ok).count(),
            writer.len() / 12 - usize::from(writer.len() == 36)
        );
    }
}

#[test]
fn remb_bitrates() {
    for (bitrate, want) in
        [(0, 0), (1, 1), (0x3_ffff, 0x3_ffff), (2_500_000, 2_500_000), (u64::MAX, 0x3_ffff << 46)]
    {
        let bytes = written(|writer| writer.remb(1, bitrate, &[2]).unwrap());
        let Packet::Remb(remb) = only(&bytes) else { panic!() };
        assert_eq!(remb.bitrate, want);
    }
    // An exponent of 63 asks for more bits than there are.
    let bytes =
        [&[0x8f, 206, 0, 4][..], &[0, 0, 0, 1, 0, 0, 0, 0], b"REMB", &[0, 0xff, 0xff, 0xff]]
            .concat();
    assert!(matches!(only(&bytes), Packet::Remb(remb) if remb.bitrate == u64::MAX));
}

#[test]
fn transport_cc_by_hand() {
    // Base 5, seven statuses, reference 3 * 64 ms, count 9: a run of two small deltas, then a two-bit vector that has
    // a hole, a large negative delta, and three holes of which two count.
    let body = [
        &[0, 5, 0, 7, 0, 0, 3, 9][..],
        &0x2002u16.to_be_bytes(),
        &0b1100_1000_0000_0000u16.to_be_bytes(),
        &[4, 8, 0xff, 0xfe],
    ]
    .concat();
    let bytes = [&[0x8f, 205, 0, 6][..], &[0, 0, 0, 1, 0, 0, 0, 2], &body].concat();
    let Packet::TransportCc(feedback) = only(&bytes) else { panic!() };
    assert_eq!((feedback.reference_us(), feedback.feedback_count), (192_000, 9));
    let statuses: Vec<_> = feedback.statuses().collect();
    let want =
        [(5, Some(4)), (6, Some(8)), (7, None), (8, Some(-2)), (9, None), (10, None), (11, None)];
    assert_eq!(statuses, want);
}

#[test]
fn congestion_control_by_hand() {
    // RFC 8888 section 3.1: two streams, the first with an odd number of metrics and padding behind them.
    let head = [0x8b, 205, 0, 9, 0, 0, 0, 1];
    let first = [0, 0, 0, 2, 0xff, 0xff, 0, 3, 0x80, 10, 0, 0, 0xe4, 0, 0, 0];
    let second = [0, 0, 0, 3, 0, 7, 0, 2, 0xbf, 0xfe, 0xdf, 0xff];
    let bytes = [&head[..], &first, &second, &[0x12, 0x34, 0x80, 0]].concat();
    let Packet::CongestionControl(feedback) = only(&bytes) else { panic!() };
    assert_eq!((feedback.sender_ssrc, feedback.report_timestamp), (1, 0x1234_8000));
    let streams: Vec<_> = feedback.streams().collect();
    assert_eq!(streams.iter().map(|s| (s.ssrc, s.len())).collect::<Vec<_>>(), [(2, 3), (3, 2)]);
    let metric = |ecn, offset| Some(Metric { ecn, offset });
    let want = [(65_535, metric(0, Some(10))), (0, None), (1, metric(3, Some(1024)))];
    assert_eq!(streams[0].metrics().collect::<Vec<_>>(), want);
    assert_eq!(metric(3, Some(1024)).unwrap().offset_us(), Some(1_000_000));
    assert_eq!(streams[1].metric(7), Some(metric(1, None)), "longer ago than can be said");
    assert_eq!(streams[1].metric(8), Some(metric(2, None)), "not known when");
    assert_eq!((streams[1].metric(6), streams[1].metric(9)), (None, None));

    // The same, written.
    let outcomes = [
        (2, 65_535, Some(20_000_000 - 10_000), 0),
        (2, 1, Some(19_000_000), 3),
        (3, 7, Some(20_000_000 - 8_000_000), 1),
        (3, 8, Some(20_000_001), 2),
    ]
    .map(|(ssrc, seq, at_us, ecn)| Outcome { ssrc, seq, at_us, ecn });
    let again = written(|writer| {
        let told = writer.congestion_control(1, 20_000_000, 0x1234_8000, &outcomes);
        assert_eq!(told, Ok(4));
    });
    assert_eq!(again, bytes);
}

#[test]
fn congestion_control_refuses_what_cannot_be() {
    let report = |count: [u8; 2], metrics: &[u8]| {
        let words = 4 + metrics.len() / 4;
        let head = [0x8b, 205, (words >> 8) as u8, words as u8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0];
        let bytes = [&head[..], &count, metrics, &[0; 4]].concat();
        packets(&bytes).next().unwrap().map(drop)
    };
    assert_eq!(report([0, 0], &[]), Ok(()), "none of a stream");
    assert_eq!(report([0, 2], &[0; 4]), Ok(()));
    assert_eq!(report([0, 3], &[0; 4]), Err(Error::Body), "metrics missing");
    assert_eq!(report([0, 1], &[0; 8]), Err(Error::Body), "half a stream behind it");
    assert_eq!(report([0x40, 0], &[0; 0x8000]), Ok(()), "a quarter of the circle");
    assert_eq!(report([0x40, 2], &[0; 0x8004]), Err(Error::Body), "more than that");
    let bytes = [0x8b, 205, 0, 1, 0, 0, 0, 1];
    assert_eq!(packets(&bytes).next().unwrap().map(drop), Err(Error::Body), "no time");
    let bytes = [0x8b, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9];
    let Packet::CongestionControl(feedback) = only(&bytes) else { panic!() };
    assert_eq!((feedback.report_timestamp, feedback.streams().count()), (9, 0));
}

#[test]
fn congestion_control_tells_what_there_is_room_for() {
    let outcome = |n: u16| {
        let seq = 65_500_u16.wrapping_add(3 * (n % 20));
        Outcome { ssrc: u32::from(n / 20), seq, at_us: Some(1), ecn: 1 }
    };
    let outcomes: Vec<_> = (0..40).map(outcome).collect();
    for space in 0..300 {
        let mut out = vec![0; space];
        let mut left = &outcomes[..];
        let mut told = Vec::new();
        while !left.is_empty() {
            let mut writer = Writer::new(&mut out);
            let Ok(included) = writer.congestion_control(9, 2, 0, left) else {
                assert!((space < 24) && writer.is_empty(), "{space}");
                break;
            };
            assert!(included > 0);
            let Packet::CongestionControl(feedback) = only(writer.bytes()) else { panic!() };
            let arrived = feedback.streams().flat_map(|stream| {
                let arrived = stream.metrics().filter(|(_, metric)| metric.is_some());
                arrived.map(move |(seq, _)| (stream.ssrc, seq))
            });
            told.extend(arrived);
            left = &left[included..];
        }
        if space >= 24 {
            let all = outcomes.iter().map(|outcome| (outcome.ssrc, outcome.seq));
            assert_eq!(told, all.collect::<Vec<_>>(), "{space}");
        }
    }
}

#[test]
fn transport_cc_refuses_what_cannot_be() {
    let feedback = |count: u8, chunk: u16, deltas: [u8; 2]| {
        let head = [0x8f, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, count, 0, 0, 0, 0];
        [&head[..], &chunk.to_be_bytes(), &deltas].concat()
    };
    let result = |bytes: &[u8]| packets(bytes).next().unwrap().map(drop);
    assert_eq!(result(&feedback(2, 0x2002, [1, 1])), Ok(()));
    assert_eq!(result(&feedback(0, 0, [0, 0])), Ok(()));
    // Deltas missing, the reserved symbol in a run and in a vector, an empty run, a chunk missing.
    assert_eq!(result(&feedback(3, 0x2003, [1, 1])), Err(Error::Body));
    assert_eq!(result(&feedback(1, 0x6001, [1, 1])), Err(Error::Body));
    assert_eq!(result(&feedback(1, 0xf000, [1, 1])), Err(Error::Body));
    assert_eq!(result(&feedback(1, 0x2000, [1, 1])), Err(Error::Body));
    assert_eq!(result(&feedback(20, 0x0001, [0, 1])), Err(Error::Body));
}

#[test]
fn transport_cc_ends_where_it_must() {
    let write = |arrivals: &[(u16, u64)]| {
        let arrivals: Vec<_> =
            arrivals.iter().map(|&(seq, at_us)| Arrival { seq, at_us }).collect();
        let mut included = 0;
        written(|writer| included = writer.transport_cc(1, 2, 3, &arrivals).unwrap());
        included
    };
    assert_eq!(write(&[]), 0);
    assert_eq!(write(&[(1, 0), (2, 8_191_750)]), 2);
    assert_eq!(write(&[(1, 0), (2, 8_192_000)]), 1);
    assert_eq!(write(&[(1, 9_000_000), (2, 0)]), 1);
    assert_eq!(write(&[(1, 0), (1, 0), (2, 0)]), 1);
    assert_eq!(write(&[(2, 0), (1, 0)]), 1);
    assert_eq!(write(&[(0, 0), (8_190, 0)]), 2);
    assert_eq!(write(&[(0, 0), (8_191, 0)]), 1);
    assert_eq!(write(&[(65_535, 0), (0, 0)]), 2);
    assert_eq!(write(&[(0, u64::MAX), (1, u64::MAX)]), 2);
}

/// What both read of a compound is the same.
fn compare(bytes: &[u8]) {
    let Ok(compound) = Compound::parse(bytes) else { return };
    for (ours, theirs) in packets(bytes).zip(compound) {
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { continue };
        compare_packet(ours, &theirs);
    }
}

fn compare_packet(ours: Packet<'_>, theirs: &Theirs<'_>) {
    match (ours, theirs) {
        (Packet::SenderReport(ours), Theirs::Sr(theirs)) => {
            assert_eq!((ours.ssrc, ours.ntp), (theirs.ssrc(), theirs.ntp_timestamp()));
            assert_eq!(ours.rtp_timestamp, theirs.rtp_timestamp());
            assert_eq!(
                (ours.packet_count, ours.octet_count),
                (theirs.packet_count(), theirs.octet_count())
            );
            compare_blocks(ours.reports(), theirs.report_blocks());
        }
        (Packet::ReceiverReport(ours), Theirs::Rr(theirs)) => {
            assert_eq!(ours.ssrc, theirs.ssrc());
            compare_blocks(ours.reports(), theirs.report_blocks());
        }
        (Packet::SourceDescription(ours), Theirs::Sdes(theirs)) => {
            let ours: Vec<_> = ours
                .chunks()
                .map(|chunk| {
                    (
                        chunk.ssrc,
                        chunk
                            .items()
                            .map(|item| (item.kind, item.text.to_vec()))
                            .collect::<Vec<_>>(),
                    )
                })
                .collect();
            let theirs: Vec<_> = theirs
                .chunks()
                .map(|chunk| {
                    // For PRIV items the other side hides the prefix; nobody sends them.
                    let items = chunk.items().map(|item| (item.type_(), item.value().to_vec()));
                    (chunk.ssrc(), items.collect::<Vec<_>>())
                })
                .collect();
            if !ours.iter().flat_map(|(_, items)| items).any(|(kind, _)| *kind == 8) {
                // Where chunks disagree with the count, the other side goes by the length.
                assert!(
                    ours.iter().zip(&theirs).all(|(ours, theirs)| ours == theirs),
                    "{ours:?} {theirs:?}"
                );
            }
        }
        (Packet::Bye(ours), Theirs::Bye(theirs)) => {
            assert_eq!(ours.ssrcs().collect::<Vec<_>>(), theirs.ssrcs().collect::<Vec<_>>());
            assert_eq!(ours.reason.unwrap_or_default(), theirs.reason().unwrap_or_default());
        }
        (Packet::Nack(ours), Theirs::TransportFeedback(theirs)) if theirs.padding().is_none() => {
            assert_eq!(
                (ours.sender_ssrc, ours.media_ssrc),
                (theirs.sender_ssrc(), theirs.media_ssrc())
            );
            let theirs = theirs.parse_fci::<rtcp_types::Nack<'_>>().unwrap();
            assert_eq!(ours.seqs().collect::<Vec<_>>(), theirs.entries().collect::<Vec<_>>());
        }
        (Packet::TransportCc(ours), Theirs::TransportFeedback(theirs)) => {
            let theirs = theirs.parse_fci::<rtcp_types::Twcc<'_>>().unwrap();
            assert_eq!(ours.base_seq, theirs.base_sequence_number());
            assert_eq!(ours.reference_time.cast_unsigned() & 0xff_ffff, theirs.reference_time());
            let theirs: Vec<_> = theirs
                .packets()
                .map(|packet| match packet.unwrap() {
                    (seq, TwccPacketStatus::Received { delta }) => (seq, Some(delta)),
                    (seq, TwccPacketStatus::NotReceived) => (seq, None),
                })
                .collect();
            assert_eq!(ours.statuses().collect::<Vec<_>>(), theirs);
        }
        (Packet::Pli(ours), Theirs::PayloadFeedback(theirs)) => {
            assert_eq!(
                (ours.sender_ssrc, ours.media_ssrc),
                (theirs.sender_ssrc(), theirs.media_ssrc())
            );
        }
        (Packet::Fir(ours), Theirs::PayloadFeedback(theirs)) if theirs.padding().is_none() => {
            let theirs = theirs.parse_fci::<rtcp_types::Fir<'_>>().unwrap();
            let ours: Vec<_> = ours.entries().map(|entry| (entry.ssrc, entry.seq)).collect();
            assert_eq!(
                ours,
                theirs.entries().map(|entry| (entry.ssrc(), entry.sequence())).collect::<Vec<_>>()
            );
        }
        // The other side does not read RFC 8888.
        (Packet::Nack(_) | Packet::CongestionControl(_), Theirs::TransportFeedback(_)) => {}
        (Packet::Remb(_) | Packet::Fir(_), Theirs::PayloadFeedback(_)) => {}
        (Packet::ExtendedReport(_), Theirs::Xr(_)) | (Packet::Other(_), _) => {}
        (ours, theirs) => panic!("ours {ours:?}, theirs {theirs:?}"),
    }
}

fn compare_blocks<'a>(
    ours: impl Iterator<Item = ReportBlock>,
    theirs: impl Iterator<Item = rtcp_types::ReportBlock<'a>>,
) {
    let ours: Vec<_> = ours.collect();
    let theirs: Vec<_> = theirs.collect();
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!((ours.ssrc, ours.fraction_lost), (theirs.ssrc(), theirs.fraction_lost()));
        assert_eq!(ours.cumulative_lost.cast_unsigned() & 0xff_ffff, theirs.cumulative_lost());
        assert_eq!(ours.highest_seq, theirs.extended_sequence_number());
        assert_eq!(ours.jitter, theirs.interarrival_jitter());
        assert_eq!(ours.last_sr, theirs.last_sender_report_timestamp());
        assert_eq!(ours.delay_since_last_sr, theirs.delay_since_last_sender_report_timestamp());
    }
}

fn blocks() -> impl Strategy<Value = Vec<ReportBlock>> {
    let block = (any::<(u32, u8, u32, u32)>(), any::<(u32, u32)>(), -0x80_0000i32..0x80_0000)
        .prop_map(
            |(
                (ssrc, fraction_lost, highest_seq, jitter),
                (last_sr, delay_since_last_sr),
                cumulative_lost,
            )| ReportBlock {
                ssrc,
                fraction_lost,
                cumulative_lost,
                highest_seq,
                jitter,
                last_sr,
                delay_since_last_sr,
            },
        );
    prop::collection::vec(block, 0..=31)
}

/// Numbers that ascend with holes, and times that may go back.
fn some_arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (
        prop_oneof![9 => 1u16..4, 1 => 4u16..900],
        prop_oneof![8 => 0i64..2_000, 1 => -50_000i64..200_000],
    );
    (any::<u16>(), 1u64 << 30..1 << 40, prop::collection::vec(step, 1..200)).prop_map(
        |(mut seq, mut at_us, steps)| {
            let mut arrivals = Vec::new();
            for (ahead, later) in steps {
                arrivals.push(Arrival { seq, at_us });
                (seq, at_us) = (seq.wrapping_add(ahead), at_us.saturating_add_signed(later));
            }
            arrivals
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn reports_round_trip(ssrc: u32, ntp: u64, words: [u32; 3], blocks in blocks()) {
        let bytes = written(|writer| {
            writer.sender_report(ssrc, ntp, words[0], words[1], words[2], &blocks).unwrap();
            writer.receiver_report(ssrc, &blocks).unwrap();
        });
        compare(&bytes);
        prop_assert_eq!(Compound::parse(&bytes).unwrap().filter(Result::is_ok).count(), 2);
        let all: Vec<_> = packets(&bytes).map(Result::unwrap).collect();
        let [Packet::SenderReport(sender), Packet::ReceiverReport(receiver)] = &all[..] else { panic!() };
        prop_assert_eq!((sender.ssrc, sender.ntp, sender.rtp_timestamp), (ssrc, ntp, words[0]));
        prop_assert_eq!(sender.reports().collect::<Vec<_>>(), &blocks[..]);
        prop_assert_eq!(receiver.reports().collect::<Vec<_>>(), &blocks[..]);
    }

    #[test]
    fn nacks_both_ways(seqs in prop::collection::btree_set(any::<u16>(), 1..100), near in prop::collection::btree_set(0u16..60, 1..40)) {
        for seqs in [&seqs, &near] {
            let ours = written(|writer| writer.nack(1, 2, seqs.iter().copied()).unwrap());
            compare(&ours);
            let Packet::Nack(nack) = only(&ours) else { panic!() };
            prop_assert!(nack.seqs().eq(seqs.iter().copied()));
            let builder = seqs.iter().fold(rtcp_types::Nack::builder(), |builder, seq| builder.add_rtp_sequence(*seq));
            let bytes = theirs(&rtcp_types::TransportFeedback::builder(&builder).sender_ssrc(1).media_ssrc(2));
            prop_assert_eq!(bytes, ours);
        }
    }

    #[test]
    fn descriptions_and_goodbyes(ssrc: u32, cname in "[a-z0-9@]{0,255}", ssrcs in prop::collection::vec(any::<u32>(), 1..=31)) {
        let bytes = written(|writer| {
            writer.receiver_report(ssrc, &[]).unwrap();
            writer.cname(ssrc, cname.as_bytes()).unwrap();
            writer.bye(&ssrcs).unwrap();
        });
        compare(&bytes);
        prop_assert_eq!(Compound::parse(&bytes).unwrap().filter(Result::is_ok).count(), 3);
        let all: Vec<_> = packets(&bytes).map(Result::unwrap).collect();
        let [_, Packet::SourceDescription(description), Packet::Bye(bye)] = &all[..] else { panic!() };
        prop_assert_eq!(description.cname(ssrc), Some(cname.as_bytes()));
        prop_assert!(bye.ssrcs().eq(ssrcs.iter().copied()));
    }

    #[test]
    fn pictures_and_times(ssrc: u32, media: u32, seq: u8, ntp: u64, pieces in prop::collection::vec(any::<(u32, u32, u32)>(), 0..10)) {
        let pieces: Vec<_> = pieces.into_iter().map(|(ssrc, last_rr, delay_since_last_rr)| Dlrr { ssrc, last_rr, delay_since_last_rr }).collect();
        let bytes = written(|writer| {
            writer.pli(ssrc, media).unwrap();
            writer.fir(ssrc, media, seq).unwrap();
            writer.receiver_reference_time(ssrc, ntp).unwrap();
            writer.dlrr(ssrc, &pieces).unwrap();
        });
        compare(&bytes);
        prop_assert_eq!(Compound::parse(&bytes).unwrap().filter(Result::is_ok).count(), 4);
        let all: Vec<_> = packets(&bytes).map(Result::unwrap).collect();
        let [Packet::Pli(pli), Packet::Fir(fir), Packet::ExtendedReport(time), Packet::ExtendedReport(answer)] = &all[..] else { panic!() };
        prop_assert_eq!((pli.sender_ssrc, pli.media_ssrc), (ssrc, media));
        prop_assert!(fir.entries().all(|entry| (entry.ssrc, entry.seq) == (media, seq)));
        prop_assert_eq!(time.blocks().next(), Some(XrBlock::ReceiverReferenceTime(ntp)));
        let Some(XrBlock::Dlrr(dlrrs)) = answer.blocks().next() else { panic!() };
        prop_assert_eq!(dlrrs.iter().collect::<Vec<_>>(), pieces);
    }

    #[test]
    fn arrivals_round_trip(arrivals in some_arrivals()) {
        let mut left = &arrivals[..];
        while !left.is_empty() {
            let mut included = 0;
            let bytes = written(|writer| included = writer.transport_cc(1, 2, 3, left).unwrap());
            compare(&bytes);
            let Packet::TransportCc(feedback) = only(&bytes) else { panic!() };
            // The reference time wraps after 24 bits.
            let wrap_us = TransportCc::REFERENCE_US << 24;
            let mut at_us = feedback.reference_us();
            let mut told = left[..included].iter();
            for (seq, delta) in feedback.statuses() {
                let Some(delta) = delta else { continue };
                at_us += i64::from(delta) * TransportCc::DELTA_US;
                let arrival = told.next().unwrap();
                prop_assert_eq!(arrival.seq, seq);
                let error_us = (arrival.at_us.cast_signed() - at_us).rem_euclid(wrap_us);
                prop_assert!(error_us <= 125 || error_us >= wrap_us - 125, "{} us off", error_us);
            }
            prop_assert!(told.next().is_none());
            left = &left[included..];
        }
    }

    #[test]
    fn another_ones_transport_cc(
        base: u16,
        reference in 0u32..1 << 24,
        statuses in prop::collection::vec(prop_oneof![
            3 => Just(None), 3 => (0i16..256).prop_map(Some), 1 => any::<i16>().prop_map(Some),
        ], 1..300),
    ) {
        let list: Vec<_> = statuses
            .iter()
            .map(|status| status.map_or(TwccPacketStatus::NotReceived, |delta| TwccPacketStatus::Received { delta }))
            .collect();
        let twcc = rtcp_types::Twcc::builder(base, reference, 7, &list, None);
        let bytes = theirs(&rtcp_types::TransportFeedback::builder(&twcc).sender_ssrc(1).media_ssrc(2));
        compare(&bytes);
        let Packet::TransportCc(feedback) = only(&bytes) else { panic!() };
        prop_assert!(feedback.statuses().map(|(_, delta)| delta).eq(statuses.iter().copied()));
    }

    #[test]
    fn both_read_mutated_seeds_alike(pick: prop::sample::Index, mutations in mutations()) {
        let mut seeds = seeds::of("rtcp");
        let mut bytes = seeds.swap_remove(pick.index(seeds.len())).1;
        mutate(&mut bytes, &mutations.0, mutations.1);
        compare(&bytes);
    }
}
