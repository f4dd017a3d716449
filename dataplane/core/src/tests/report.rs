//! RTCP of both legs.

use crate::command::{Command, Kind, PeerId, PublicationId, ScopeId, SubscriptionId};
use crate::drop::DropReason;
use crate::limits::{EGRESS_DATAGRAMS, PEERS_PER_SCOPE};
use crate::testing::{Bench, Client, IDS, OPUS, VP8, encoding, ms, packet, publish, read, vp8};
use crate::time::Duration;
use strait_wire::rtcp;

fn audio(seq: u16, transport_seq: u16) -> Vec<u8> {
    let transport_seq = transport_seq.to_be_bytes();
    packet((5, OPUS, seq, u32::from(seq) * 960), &[(IDS.transport_cc, &transport_seq)], &[1, 2])
}

fn pair() -> (Bench, Client, Client) {
    let mut bench = Bench::new();
    let publisher = Client::connected(&mut bench, 1);
    let subscriber = Client::connected(&mut bench, 2);
    publisher.publish(&mut bench, 1, Kind::Audio, &[encoding(5)]);
    subscriber.subscribe(&mut bench, 1, Kind::Audio, Some(1));
    bench.run(ms(2100));
    bench.sent();
    (bench, publisher, subscriber)
}

#[test]
fn the_publisher_learns_its_loss_and_delay() {
    let (mut bench, mut publisher, _) = pair();
    let ntp = 0x1234_5678_9ABC_DEF0;
    publisher.send_rtcp(&mut bench, |rtcp| {
        rtcp.sender_report(5, ntp, 0, 0, 0, &[]).unwrap();
    });
    for seq in [1, 2, 4] {
        publisher.send(&mut bench, &audio(seq, seq));
    }
    bench.run(ms(2000));
    let sent = bench.sent();
    let (_, reports) = publisher.open(&sent);
    let packets: Vec<_> =
        reports.iter().flat_map(|report| rtcp::packets(report)).map(Result::unwrap).collect();
    let blocks: Vec<_> = packets
        .iter()
        .filter_map(|packet| match packet {
            rtcp::Packet::ReceiverReport(report) if report.ssrc == 901 => report.reports().next(),
            _ => None,
        })
        .collect();
    assert_eq!(blocks.len(), 1, "every two seconds for audio");
    let block = blocks[0];
    assert_eq!((block.ssrc, block.cumulative_lost, block.fraction_lost), (5, 1, 64));
    assert_eq!((block.highest_seq, block.last_sr), (4, 0x5678_9ABC));
    let seconds = f64::from(block.delay_since_last_sr) / 65_536.0;
    assert!((1.8..2.0).contains(&seconds), "{seconds}");
    assert!(packets.iter().any(|p| matches!(p, rtcp::Packet::SourceDescription(_))));
}

#[test]
fn a_full_turn_ends_a_round_of_reports_and_the_next_round_has_them() {
    let (mut bench, mut publisher, _) = pair();
    publisher.send_rtcp(&mut bench, |rtcp| {
        rtcp.sender_report(5, 77 << 32, 50_000, 0, 0, &[]).unwrap();
    });
    publisher.send(&mut bench, &audio(1, 1));
    while bench.egress.push(publisher.path, &[0]) {}
    bench.run(ms(2000));
    assert!(bench.dropped(DropReason::EgressFull) >= 2, "to the publisher and the subscriber");
    bench.sent();
    bench.run(ms(2000));
    let sent = bench.sent();
    assert!(!publisher.open(&sent).1.is_empty());
}

#[test]
fn reports_of_more_peers_than_a_turn_holds_are_all_sent() {
    let mut bench = Bench::new();
    let peers = EGRESS_DATAGRAMS as u32 + 500;
    for id in 0..peers {
        let scope = ScopeId(100 + id / PEERS_PER_SCOPE as u32);
        if id % PEERS_PER_SCOPE as u32 == 0 {
            bench.command(Command::CreateScope { scope });
        }
        let (peer, path) = (PeerId(id), crate::testing::path(10_000 + id as u16));
        bench.command(Command::AddFixedPeer { scope, peer, path });
        bench.command(Command::SetPlain { peer });
        bench.command(publish(peer, id, Kind::Audio, &[encoding(5)]));
        bench.receive(path, &audio(1, 1));
    }
    bench.sent();
    bench.advance(ms(10_000));
    let mut told = std::collections::BTreeSet::new();
    while bench.worker.on_timeout(bench.now, &mut bench.egress) {
        told.extend(bench.sent().into_iter().map(|sent| sent.path.remote.port()));
    }
    told.extend(bench.sent().into_iter().map(|sent| sent.path.remote.port()));
    assert_eq!((told.len(), bench.dropped(DropReason::EgressFull)), (peers as usize, 0));
    assert!(bench.worker.next_timeout().is_some_and(|next| next > bench.now.at));
}

#[test]
fn the_subscriber_gets_the_publishers_time_on_our_clock() {
    let (mut bench, mut publisher, mut subscriber) = pair();
    publisher.send_rtcp(&mut bench, |rtcp| {
        rtcp.sender_report(5, 77 << 32, 50_000, 0, 0, &[]).unwrap();
    });
    let reported_at = bench.now.ntp;
    publisher.send(&mut bench, &audio(1, 1));
    let first = subscriber.media(&mut bench).remove(0);
    bench.run(ms(2000));
    let sent = bench.sent();
    let (_, reports) = subscriber.open(&sent);
    let packets: Vec<_> =
        reports.iter().flat_map(|report| rtcp::packets(report)).map(Result::unwrap).collect();
    let [rtcp::Packet::SenderReport(report), rtcp::Packet::SourceDescription(names), ..] =
        &packets[..]
    else {
        panic!("a sender report and its name, not {packets:?}");
    };
    assert_eq!((report.ssrc, report.packet_count, report.octet_count), (1001, 1, 2));
    let offset = read(&first).timestamp().wrapping_sub(960);
    let elapsed = (report.ntp - reported_at) as f64 / (1_u64 << 32) as f64;
    let expected = 50_000 + offset + (elapsed * 48_000.0) as u32;
    assert!(report.rtp_timestamp.abs_diff(expected) <= 1);
    assert_eq!(names.cname(1001), Some(&b"peer-00000001"[..]));

    // The answer to it gives the round trip.
    let middle = report.ntp_middle();
    let waited = bench.now.ntp.wrapping_sub(report.ntp);
    bench.advance(ms(80));
    let delay_since_last_sr = (waited >> 16) as u32;
    subscriber.send_rtcp(&mut bench, |rtcp| {
        let block = rtcp::ReportBlock {
            ssrc: 1001,
            fraction_lost: 64,
            cumulative_lost: 3,
            jitter: 480,
            last_sr: middle,
            delay_since_last_sr,
            ..Default::default()
        };
        rtcp.receiver_report(9, &[block]).unwrap();
    });
    let statistics = bench.worker.peer_statistics(subscriber.id).unwrap();
    let subscription = &statistics.subscriptions[0];
    let trip = subscription.round_trip.unwrap();
    assert!(trip.abs_diff(ms(80)) < Duration::from_millis(1), "{trip:?}");
    assert_eq!((subscription.packets_lost, subscription.fraction_lost), (3, 0.25));
    assert_eq!(subscription.jitter, ms(10));
    assert_eq!((subscription.sent.packets, subscription.layer), (1, Some(0)));
}

#[test]
fn arrivals_are_fed_back() {
    let (mut bench, mut publisher, _) = pair();
    for seq in [1, 2, 4, 5] {
        publisher.send(&mut bench, &audio(seq, 65_533_u16.wrapping_add(seq)));
        bench.run(ms(10));
    }
    bench.run(ms(60));
    let sent = bench.sent();
    let (_, reports) = publisher.open(&sent);
    let feedback: Vec<_> = reports
        .iter()
        .flat_map(|report| rtcp::packets(report))
        .filter_map(|packet| match packet {
            Ok(rtcp::Packet::TransportCc(feedback)) => Some(feedback),
            _ => None,
        })
        .collect();
    assert_eq!(feedback.len(), 1);
    let statuses: Vec<_> = feedback[0].statuses().collect();
    let arrived: Vec<_> = statuses.iter().map(|(seq, delta)| (*seq, delta.is_some())).collect();
    assert_eq!(arrived, [(65_534, true), (65_535, true), (0, false), (1, true), (2, true)]);
    assert_eq!(statuses[1].1, Some(40), "10 ms in quarters of a millisecond");
}

#[test]
fn a_publisher_without_transport_feedback_gets_remb() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    let mut command = publish(publisher.id, 1, Kind::Video, &[encoding(5)]);
    if let Command::Publish { codecs, .. } = &mut command {
        codecs.iter_mut().for_each(|codec| (codec.transport_cc, codec.remb) = (false, true));
    }
    bench.command(command);
    publisher.send(&mut bench, &packet((5, VP8, 1, 0), &[], &vp8(1, 0, true)));
    bench.run(ms(1500));
    let sent = bench.sent();
    let (_, reports) = publisher.open(&sent);
    let remb =
        reports.iter().flat_map(|report| rtcp::packets(report)).find_map(|packet| match packet {
            Ok(rtcp::Packet::Remb(remb)) => Some((remb.bitrate, remb.ssrcs().collect::<Vec<_>>())),
            _ => None,
        });
    let (bitrate, ssrcs) = remb.expect("a REMB");
    assert!(bitrate.abs_diff(crate::limits::REMB_BPS) < 1000, "{bitrate}");
    assert_eq!(ssrcs, [5]);
}

#[test]
fn an_ended_subscription_says_goodbye() {
    let (mut bench, _, mut subscriber) = pair();
    bench.command(Command::Unsubscribe { subscription: SubscriptionId(1) });
    let sent = bench.sent();
    let (_, reports) = subscriber.open(&sent);
    let packets: Vec<_> = rtcp::packets(&reports[0]).map(Result::unwrap).collect();
    let [
        rtcp::Packet::ReceiverReport(_),
        rtcp::Packet::SourceDescription(_),
        rtcp::Packet::Bye(bye),
    ] = &packets[..]
    else {
        panic!("a goodbye, not {packets:?}");
    };
    assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [1001, 2001]);
}

#[test]
fn arrivals_that_nobody_can_report_do_not_keep_the_timer_busy() {
    let mut bench = Bench::new();
    let mut publisher = Client::connected(&mut bench, 1);
    publisher.publish(&mut bench, 1, Kind::Audio, &[encoding(5)]);
    publisher.subscribe(&mut bench, 1, Kind::Audio, None);
    publisher.send(&mut bench, &audio(1, 1));
    publisher.send(&mut bench, &audio(2, 2));
    bench.command(Command::Unpublish { publication: PublicationId(1) });
    let mut rings = 0;
    let end = bench.now.at + Duration::from_secs(10);
    while let Some(at) = bench.worker.next_timeout().filter(|at| *at <= end) {
        bench.run(at.since(bench.now.at));
        rings += 1;
    }
    assert!(rings < 50, "{rings}");
}
