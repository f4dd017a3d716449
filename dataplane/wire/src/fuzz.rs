//! What must hold for any bytes, as functions: the fuzz targets of `tests/fuzz` run them on what a fuzzer makes up, and
//! this crate's tests on the committed corpora and their mutations.
//!
//! Each panics when the promise is broken. They allocate and assert, so nothing but tests may call them.

use crate::codec::{av1, dependency, fec, h264, h265, opus, red, vp8, vp9};
use crate::rtcp::{
    self, Arrival, CongestionControl, Metric, Outcome, Packet as Rtcp, TransportCc, Writer, XrBlock,
};
use crate::stun::{self, Builder, Message};
use crate::{dcep, demux, ext, framing, rtp, turn};

/// Classification names a protocol only where its header fits, and the parsers agree with it.
pub fn demux(bytes: &[u8]) {
    match demux::classify(bytes) {
        demux::Kind::Rtp => assert!(bytes.len() >= rtp::FIXED_HEADER_LEN),
        demux::Kind::Rtcp => assert!(bytes.len() >= 8),
        demux::Kind::Stun => assert!(bytes.len() >= stun::HEADER_LEN),
        demux::Kind::Dtls => assert!(bytes.len() >= 13),
        _ => {}
    }
    if let Ok(message) = Message::parse(bytes) {
        // Methods from 0x100 on reach into the first byte, beyond what RFC 7983 leaves to STUN; none is registered.
        let stun = demux::classify(bytes) == demux::Kind::Stun;
        assert_eq!(stun, message.method() < 0x100);
    }
    if rtp::Header::parse(bytes).is_ok() {
        assert!(matches!(demux::classify(bytes), demux::Kind::Rtp | demux::Kind::Rtcp));
    }
}

/// A message of DCEP that is read can be written, and is the same again.
pub fn dcep(bytes: &[u8]) {
    let Ok(message) = dcep::Message::parse(bytes) else { return };
    let mut out = [0; dcep::BYTES_MAX];
    let len = message.write(&mut out).expect("what was read has room");
    assert_eq!(len, bytes.len());
    assert_eq!(dcep::Message::parse(&out[..len]), Ok(message));
}

/// Parts of an RTP packet add up to the whole, stay in bounds, and survive being written and rewritten.
pub fn rtp(bytes: &[u8]) {
    let Ok(header) = rtp::Header::parse(bytes) else {
        assert!(rtp::Packet::parse(bytes).is_err());
        return;
    };
    let extensions: Vec<_> = header.extensions().collect();
    for &(id, data) in &extensions {
        let range = header.extension_range(id).expect("an id that is there");
        assert!(range.start >= rtp::FIXED_HEADER_LEN && range.end <= header.header_len());
        assert_eq!(header.extension(id), bytes.get(range));
        typed_extensions(data);
    }
    if let Ok(packet) = rtp::Packet::parse(bytes) {
        let sum = packet.header_len() + packet.payload().len() + packet.padding_len();
        assert_eq!(sum, bytes.len());
        assert_eq!(packet.padding_len() > 0, packet.has_padding());
    }

    let csrcs: Vec<_> = header.csrcs().collect();
    let builder = rtp::HeaderBuilder {
        marker: header.marker(),
        pt: header.pt(),
        seq: header.seq(),
        timestamp: header.timestamp(),
        ssrc: header.ssrc(),
        padding: header.has_padding(),
    };
    // In two-byte form an element can have no data, so it takes two bytes at most for each of the original's.
    let mut out = vec![0; 2 * bytes.len() + 16];
    let len = builder.write(&csrcs, extensions.iter().copied(), &mut out).expect("room enough");
    out.truncate(len);
    let again = rtp::Header::parse(&out).expect("what was written");
    assert_eq!(again.header_len(), len);
    assert_eq!(again.csrcs().collect::<Vec<_>>(), csrcs);
    assert_eq!(again.extensions().collect::<Vec<_>>(), extensions);

    rtp::set_seq(&mut out, 0x1234).expect("a header");
    rtp::set_ssrc(&mut out, 0x5678_9abc).expect("a header");
    rtp::set_timestamp(&mut out, 0xdef0_1234).expect("a header");
    rtp::set_pt(&mut out, 0xff).expect("a header");
    rtp::set_marker(&mut out, !header.marker()).expect("a header");
    if let Some(&(id, _)) = extensions.first() {
        rtp::extension_mut(&mut out, id).expect("an id that is there").fill(0x55);
    }
    let again = rtp::Header::parse(&out).expect("what was rewritten");
    let want = (0x1234, 0x5678_9abc, 0xdef0_1234, 0x7f, !header.marker());
    assert_eq!((again.seq(), again.ssrc(), again.timestamp(), again.pt(), again.marker()), want);
    assert_eq!(again.extensions().count(), extensions.len());
    assert!(
        again.extensions().next().is_none_or(|(_, data)| data.iter().all(|byte| *byte == 0x55))
    );
}

fn typed_extensions(data: &[u8]) {
    if let Some(level) = ext::AudioLevel::parse(data) {
        assert_eq!(Some(&level.bytes()[..]), data.get(..1));
    }
    if let Some(time) = ext::AbsSendTime::parse(data) {
        assert_eq!(Some(&time.bytes()[..]), data.get(..3));
        assert_eq!(time.since_us(time), 0);
    }
    if let Some(delay) = ext::PlayoutDelay::parse(data) {
        assert_eq!(Some(&delay.bytes()[..]), data.get(..3));
    }
    if let Some(orientation) = ext::VideoOrientation::parse(data) {
        assert_eq!(data.first().map(|first| first & 0x0f), Some(orientation.bytes()[0]));
    }
    assert_eq!(ext::parse_transport_cc(data).is_some(), data.len() >= 2);
    assert_eq!(dependency::Descriptor::parse(data).is_some(), data.len() >= 3);
    let Some(descriptor) = dependency::Descriptor::parse(data) else { return };
    let Some(structure) = descriptor.structure(data) else { return };
    let frame = descriptor.read(data, &structure);
    assert!(frame.is_none() || structure.template(descriptor.template_id).is_some());
    for target in 0..structure.targets {
        let (spatial, temporal) = structure.layers(target).expect("a target of it");
        let best = structure.target(spatial, temporal).and_then(|best| structure.layers(best));
        assert_eq!(best, Some((spatial, temporal)));
    }
}

/// RTCP packets that were read say the same after being written and read again.
pub fn rtcp(bytes: &[u8]) {
    let mut out = vec![0; 4 * bytes.len() + 4096];
    let count = rtcp::packets(bytes).count();
    assert!(count <= bytes.len() / 4 + 1);
    for packet in rtcp::packets(bytes).flatten() {
        let mut writer = Writer::new(&mut out);
        match packet {
            Rtcp::SenderReport(report) => {
                let blocks: Vec<_> = report.reports().collect();
                let (time, counts) =
                    (report.rtp_timestamp, (report.packet_count, report.octet_count));
                writer
                    .sender_report(report.ssrc, report.ntp, time, counts.0, counts.1, &blocks)
                    .expect("room");
                let Rtcp::SenderReport(again) = reread(&writer) else { panic!("another type") };
                assert_eq!(
                    (again.ssrc, again.ntp, again.rtp_timestamp),
                    (report.ssrc, report.ntp, time)
                );
                assert_eq!((again.packet_count, again.octet_count), counts);
                assert_eq!(again.reports().collect::<Vec<_>>(), blocks);
            }
            Rtcp::ReceiverReport(report) => {
                let blocks: Vec<_> = report.reports().collect();
                writer.receiver_report(report.ssrc, &blocks).expect("room");
                let Rtcp::ReceiverReport(again) = reread(&writer) else { panic!("another type") };
                assert_eq!(again.ssrc, report.ssrc);
                assert_eq!(again.reports().collect::<Vec<_>>(), blocks);
            }
            Rtcp::SourceDescription(description) => {
                for chunk in description.chunks() {
                    chunk.items().for_each(drop);
                    let Some(cname) = description.cname(chunk.ssrc) else { continue };
                    let mut writer = Writer::new(&mut out);
                    writer.cname(chunk.ssrc, cname).expect("room");
                    let Rtcp::SourceDescription(again) = reread(&writer) else {
                        panic!("another type")
                    };
                    assert_eq!(again.cname(chunk.ssrc), Some(cname));
                }
            }
            Rtcp::Bye(bye) => {
                let ssrcs: Vec<_> = bye.ssrcs().collect();
                writer.bye(&ssrcs).expect("room");
                let Rtcp::Bye(again) = reread(&writer) else { panic!("another type") };
                assert_eq!(again.ssrcs().collect::<Vec<_>>(), ssrcs);
            }
            Rtcp::Nack(nack) => {
                let seqs = sorted(nack.seqs());
                writer.nack(nack.sender_ssrc, nack.media_ssrc, nack.seqs()).expect("room");
                let Rtcp::Nack(again) = reread(&writer) else { panic!("another type") };
                assert_eq!(sorted(again.seqs()), seqs);
            }
            Rtcp::TransportCc(feedback) => transport_cc(feedback, &mut out),
            Rtcp::CongestionControl(feedback) => congestion_control(feedback, &mut out),
            Rtcp::Pli(pli) => {
                writer.pli(pli.sender_ssrc, pli.media_ssrc).expect("room");
                assert!(matches!(reread(&writer), Rtcp::Pli(again) if again == pli));
            }
            Rtcp::Fir(fir) => {
                for entry in fir.entries() {
                    let mut writer = Writer::new(&mut out);
                    writer.fir(fir.sender_ssrc, entry.ssrc, entry.seq).expect("room");
                    let Rtcp::Fir(again) = reread(&writer) else { panic!("another type") };
                    assert_eq!(again.entries().collect::<Vec<_>>(), [entry]);
                }
            }
            Rtcp::Remb(remb) => {
                let ssrcs: Vec<_> = remb.ssrcs().collect();
                writer.remb(remb.sender_ssrc, remb.bitrate, &ssrcs).expect("room");
                let Rtcp::Remb(again) = reread(&writer) else { panic!("another type") };
                assert_eq!(again.ssrcs().collect::<Vec<_>>(), ssrcs);
                // 18 bits of mantissa, so only a bitrate that saturated is not exactly itself.
                assert!(again.bitrate == remb.bitrate || remb.bitrate == u64::MAX);
            }
            Rtcp::ExtendedReport(report) => {
                for block in report.blocks() {
                    let mut writer = Writer::new(&mut out);
                    match block {
                        XrBlock::ReceiverReferenceTime(ntp) => {
                            writer.receiver_reference_time(report.ssrc, ntp).expect("room");
                            let Rtcp::ExtendedReport(again) = reread(&writer) else {
                                panic!("another type")
                            };
                            assert_eq!(again.blocks().next(), Some(block));
                        }
                        XrBlock::Dlrr(dlrrs) => {
                            let pieces: Vec<_> = dlrrs.iter().collect();
                            writer.dlrr(report.ssrc, &pieces).expect("room");
                            let Rtcp::ExtendedReport(again) = reread(&writer) else {
                                panic!("another type")
                            };
                            let Some(XrBlock::Dlrr(again)) = again.blocks().next() else {
                                panic!("no block")
                            };
                            assert_eq!(again.iter().collect::<Vec<_>>(), pieces);
                        }
                        XrBlock::Other(_) => {}
                    }
                }
            }
            Rtcp::Other(other) => assert!(other.body.len() <= bytes.len() - 4),
        }
    }
}

fn reread<'w>(writer: &'w Writer<'_>) -> Rtcp<'w> {
    let mut packets = rtcp::packets(writer.bytes());
    let packet = packets.next().expect("a packet").expect("what was written");
    assert!(packets.next().is_none());
    packet
}

fn sorted(seqs: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut seqs: Vec<_> = seqs.collect();
    seqs.sort_unstable();
    seqs.dedup();
    seqs
}

/// Arrival times on a clock that begins far enough from zero for any negative delta.
fn arrivals(feedback: &TransportCc<'_>) -> Vec<Arrival> {
    let mut at_us = (1 << 40) * TransportCc::REFERENCE_US + feedback.reference_us();
    let mut arrivals = Vec::new();
    for (seq, delta) in feedback.statuses() {
        if let Some(delta) = delta {
            at_us += i64::from(delta) * TransportCc::DELTA_US;
            arrivals.push(Arrival { seq, at_us: at_us.cast_unsigned() });
        }
    }
    arrivals
}

fn transport_cc(feedback: TransportCc<'_>, out: &mut [u8]) {
    assert_eq!(feedback.statuses().count(), usize::from(feedback.status_count));
    let all = arrivals(&feedback);
    let mut left = &all[..];
    while !left.is_empty() {
        let mut writer = Writer::new(out);
        // A hole of more than half the circle may end the packet anywhere, but the first arrival is always told.
        let Ok(included) = writer.transport_cc(1, 2, 3, left) else { return };
        assert!((1..=left.len()).contains(&included));
        let Rtcp::TransportCc(again) = reread(&writer) else { panic!("another type") };
        let (told, rest) = left.split_at(included);
        let mut again = arrivals(&again);
        // The reference time has 24 bits, so the clocks differ by a multiple of them.
        let first = again.first().map_or(0, |first| first.at_us);
        for arrival in &mut again {
            arrival.at_us = arrival.at_us.wrapping_sub(first).wrapping_add(told[0].at_us);
        }
        assert_eq!(again, told);
        left = rest;
    }
}

fn congestion_control(feedback: CongestionControl<'_>, out: &mut [u8]) {
    const NOW_US: u64 = 1 << 40;
    for stream in feedback.streams().filter(|stream| !stream.is_empty()) {
        let outcomes: Vec<_> = stream
            .metrics()
            .map(|(seq, metric)| {
                // Rounded up, as an offset is rounded down. What is not known arrives after the report.
                let at_us = |metric: Metric| match metric.offset {
                    Some(offset) => NOW_US - (u64::from(offset) * 1_000_000).div_ceil(1024),
                    None => NOW_US + 1,
                };
                let ecn = metric.map_or(0, |metric| metric.ecn);
                Outcome { ssrc: stream.ssrc, seq, at_us: metric.map(at_us), ecn }
            })
            .collect();
        assert_eq!(outcomes.len(), stream.len());
        let mut writer = Writer::new(out);
        let told = writer.congestion_control(feedback.sender_ssrc, NOW_US, 7, &outcomes);
        assert_eq!(told, Ok(outcomes.len()));
        let Rtcp::CongestionControl(again) = reread(&writer) else { panic!("another type") };
        assert_eq!((again.sender_ssrc, again.report_timestamp), (feedback.sender_ssrc, 7));
        let again: Vec<_> = again.streams().collect();
        let [again] = &again[..] else { panic!("one stream, not {again:?}") };
        assert_eq!((again.ssrc, again.begin_seq), (stream.ssrc, stream.begin_seq));
        assert!(again.metrics().eq(stream.metrics()));
    }
}

/// Attributes of a STUN message lie within it, and a copy of it made with the builder reads the same.
pub fn stun(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    let sum: usize =
        message.attributes().map(|each| 4 + each.value.len().next_multiple_of(4)).sum();
    assert!(stun::HEADER_LEN + sum <= bytes.len());
    if let (Some((receiver, sender)), Some(username)) =
        (message.username_parts(), message.username())
    {
        assert_eq!(receiver.len() + 1 + sender.len(), username.len());
    }
    let _ = (message.priority(), message.use_candidate(), message.ice_controlled());
    let _ = (message.ice_controlling(), message.error_code(), message.unknown_required());
    let _ = (message.is_fingerprint_valid(), message.check_integrity(checksum));

    let mut out = vec![0; bytes.len() + 64];
    let mut builder =
        Builder::new(&mut out, message.class(), message.method(), message.transaction_id());
    for attribute in message.attributes() {
        builder = builder.attribute(attribute.kind, attribute.value);
    }
    if let Some(address) = message.xor_mapped_address() {
        builder = builder.xor_mapped_address(address);
    }
    // Integrity and fingerprint do not fit behind a message of the largest length.
    let Ok(len) = builder.integrity(checksum).fingerprint().finish() else {
        assert!(bytes.len() > usize::from(u16::MAX) - 64);
        return;
    };
    let copy = Message::parse(&out[..len]).expect("what was written");
    assert_eq!((copy.class(), copy.method()), (message.class(), message.method()));
    assert_eq!(copy.transaction_id(), message.transaction_id());
    assert!(message.attributes().zip(copy.attributes()).all(|(a, b)| a == b));
    assert_eq!(copy.xor_mapped_address(), message.xor_mapped_address());
    if !message.attributes().any(|each| each.kind == stun::attribute::FINGERPRINT) {
        assert!(copy.is_fingerprint_valid());
    }
    assert_eq!(copy.check_integrity(checksum), Ok(()));
    assert!(copy.check_integrity(|_| [0xa5; 20]).is_err());
}

/// Messages of a stream are the same however it is cut, and a cut one is waited for or refused as the whole one is.
pub fn turn(bytes: &[u8]) {
    const LONGEST: usize = 2048 + 64;
    let mut rest = bytes;
    loop {
        let whole = turn::frame(rest, LONGEST);
        if let Ok(Some((frame, taken))) = whole {
            assert!(taken <= rest.len() && taken <= LONGEST && taken > 0);
            assert_eq!(turn::frame(&rest[..taken], LONGEST), whole);
            assert_eq!(turn::frame(&rest[..taken - 1], LONGEST), Ok(None));
            match frame {
                turn::Frame::Stun(message) => stun(message),
                turn::Frame::Channel { number, data } => {
                    let (header, padding) = turn::channel_header(number, data.len() as u16);
                    assert!(rest.starts_with(&header));
                    assert_eq!(header.len() + data.len() + padding, taken);
                }
            }
            rest = &rest[taken..];
            continue;
        }
        for end in 0..rest.len().min(LONGEST) {
            // Refused is refused, whatever follows.
            if let Err(error) = turn::frame(&rest[..end], LONGEST) {
                assert_eq!(whole, Err(error));
            }
        }
        return;
    }
}

/// Frames of a stream are the whole of it, each as it is written; what is left is the beginning of one.
pub fn framing(bytes: &[u8]) {
    let (mut rest, mut written) = (bytes, Vec::new());
    while let Some((frame, after)) = framing::split(rest) {
        let packet = framing::packet(frame);
        assert_eq!(Some(packet.len()), framing::announced(rest));
        written.extend(framing::prefix(packet.len()).expect("a length that came in two bytes"));
        written.extend(packet);
        rest = after;
    }
    assert_eq!([&written, rest].concat(), bytes);
    assert!(framing::announced(rest).is_none_or(|len| len + framing::LENGTH_BYTES > rest.len()));
}

/// Not a message authentication code, but it depends on every byte and its place.
fn checksum(parts: &[&[u8]]) -> [u8; 20] {
    let mut sum = [0u8; 20];
    for (at, byte) in parts.iter().flat_map(|part| part.iter()).enumerate() {
        let slot = &mut sum[at % 20];
        *slot = slot.wrapping_mul(31).wrapping_add(*byte);
    }
    sum
}

/// Descriptors lie within their payload, and rewriting one changes what it should and nothing else.
pub fn codec(bytes: &[u8]) {
    if let Some(primary) = red::primary(bytes) {
        assert!(bytes.ends_with(primary));
        let mut payload = bytes.to_vec();
        red::set_pts(&mut payload, 5).expect("headers that end");
        assert_eq!(red::primary(&payload), Some(primary));
    }
    let repairs = [fec::Repair::parse_flexfec(bytes), fec::Repair::parse_ulpfec(bytes)];
    for repair in repairs.into_iter().flatten() {
        assert!(repair.mask != 0 && repair.mask >> fec::PROTECTED_MAX == 0);
        let mut copy = vec![0; bytes.len()];
        let len = repair.write(&mut copy).expect("no longer than it was");
        let again = match repair.ssrc {
            Some(_) => fec::Repair::parse_flexfec(&copy[..len]),
            None => fec::Repair::parse_ulpfec(&copy[..len]),
        };
        assert_eq!(again, Some(repair));
        let mut room = vec![0; rtp::FIXED_HEADER_LEN + repair.payload.len()];
        let whole = Some(bytes).filter(|bytes| bytes.len() >= rtp::FIXED_HEADER_LEN);
        if let Some(len) = repair.restore((1, 2), whole.into_iter(), &mut room) {
            assert!(len >= rtp::FIXED_HEADER_LEN && len <= room.len() && room[0] >> 6 == 2);
        }
    }
    if let Some(descriptor) = vp8::Descriptor::parse(bytes) {
        assert!(descriptor.len <= bytes.len());
        let mut payload = bytes.to_vec();
        descriptor.rewrite(&mut payload, 0x2a55, 0x77, 0x3d).expect("the same payload");
        let again = vp8::Descriptor::parse(&payload).expect("the same layout");
        let want = vp8::Descriptor {
            picture_id: descriptor.picture_id.map(|id| rewritten(id, 0x2a55)),
            tl0_pic_idx: descriptor.tl0_pic_idx.map(|_| 0x77),
            key_idx: descriptor.key_idx.map(|_| 0x1d),
            ..descriptor
        };
        assert_eq!(again, want);
        assert_eq!(payload[descriptor.len..], bytes[descriptor.len..]);
        assert_eq!(vp8::key_frame_size(&again, &payload), vp8::key_frame_size(&descriptor, bytes));
    }
    if let Some(descriptor) = vp9::Descriptor::parse(bytes) {
        assert!(descriptor.len <= bytes.len());
        let mut payload = bytes.to_vec();
        descriptor.rewrite(&mut payload, 0x2a55, 0x77).expect("the same payload");
        let again = vp9::Descriptor::parse(&payload).expect("the same layout");
        let want = vp9::Descriptor {
            picture_id: descriptor.picture_id.map(|id| rewritten(id, 0x2a55)),
            tl0_pic_idx: descriptor.tl0_pic_idx.map(|_| 0x77),
            ..descriptor
        };
        assert_eq!(again, want);
        assert_eq!(payload[descriptor.len..], bytes[descriptor.len..]);
        let _ = descriptor.structure.and_then(|structure| structure.largest());
    }
    assert!(h264::units(bytes).map(|unit| unit.data.len()).sum::<usize>() <= bytes.len());
    assert!(h265::units(bytes).map(|unit| unit.data.len()).sum::<usize>() <= bytes.len());
    if let Some(toc) = opus::Toc::parse(bytes) {
        assert!((2_500..=120_000).contains(&toc.duration_us()));
    }
    for marker in [false, true] {
        let peeks = [
            vp8::peek(bytes, marker),
            h264::peek(bytes, marker),
            h265::peek(bytes, marker),
            av1::peek(bytes, marker),
        ];
        for peek in peeks.into_iter().flatten() {
            assert_eq!(peek.end_of_frame, marker);
            assert!(peek.start_of_frame || !peek.key_frame);
        }
    }
    assert!(vp9::peek(bytes).is_none_or(|peek| peek.start_of_frame || !peek.key_frame));
}

fn rewritten(id: vp8::PictureId, value: u16) -> vp8::PictureId {
    match id {
        vp8::PictureId::Short(_) => vp8::PictureId::Short((value & id.mask()) as u8),
        vp8::PictureId::Long(_) => vp8::PictureId::Long(value & id.mask()),
    }
}
