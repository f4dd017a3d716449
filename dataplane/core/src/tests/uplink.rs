//! Publishers are told what they may send altogether.

use crate::command::{Command, CommandError, Kind, PeerId};
use crate::limits::{REMB_BPS, UPLINK_BPS_MIN};
use crate::testing::{Bench, Client, IDS, VP8, encoding, ms, packet, publish, vp8};
use strait_wire::rtcp;

/// A publisher whose video leg agreed on both kinds of feedback, and has sent something.
fn publisher(bench: &mut Bench, remb: bool) -> Client {
    let mut client = Client::connected(bench, 1);
    let mut command = publish(client.id, 1, Kind::Video, &[encoding(5)]);
    if let Command::Publish { codecs, .. } = &mut command {
        codecs.iter_mut().for_each(|codec| codec.remb = remb);
    }
    bench.command(command);
    let packet = packet((5, VP8, 1, 0), &[(IDS.mid, b"1")], &vp8(1, 0, true));
    client.send(bench, &packet);
    bench.run(ms(1100));
    bench.sent();
    client
}

/// What it is told since the last time: bit rate and SSRCs.
fn told(bench: &mut Bench, client: &mut Client) -> Vec<(u64, Vec<u32>)> {
    let sent = bench.sent();
    let (_, reports) = client.open(&sent);
    let packets = reports.iter().flat_map(|report| rtcp::packets(report));
    let told = packets.filter_map(|packet| match packet {
        Ok(rtcp::Packet::Remb(remb)) => Some((remb.bitrate, remb.ssrcs().collect())),
        _ => None,
    });
    told.collect()
}

fn limit(bps_max: Option<u64>) -> Command {
    Command::LimitUplink { peer: PeerId(1), bps_max }
}

fn max_bps(bench: &Bench) -> Option<u64> {
    bench.worker.peer_statistics(PeerId(1)).unwrap().uplink_max_bps
}

#[test]
fn a_cap_is_told_at_once_and_with_each_report_beside_transport_feedback() {
    let mut bench = Bench::new();
    let mut client = publisher(&mut bench, true);
    bench.run(ms(3000));
    assert_eq!(told(&mut bench, &mut client), [], "it has an estimate of its own");
    bench.command(limit(Some(640_000)));
    bench.run(ms(10));
    assert_eq!(told(&mut bench, &mut client), [(640_000, vec![5])]);
    assert_eq!(max_bps(&bench), Some(640_000));
    bench.run(ms(3000));
    assert_eq!(told(&mut bench, &mut client).len(), 3, "every second");
}

#[test]
fn a_cap_that_is_lifted_is_told_to_be() {
    let mut bench = Bench::new();
    let mut client = publisher(&mut bench, true);
    bench.command(limit(None));
    bench.run(ms(1500));
    assert_eq!(told(&mut bench, &mut client), [], "there was none");
    bench.command(limit(Some(0)));
    bench.run(ms(10));
    assert_eq!(told(&mut bench, &mut client)[0].0, UPLINK_BPS_MIN, "not what means no cap");
    bench.command(limit(None));
    bench.run(ms(1500));
    let told = told(&mut bench, &mut client);
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|(bps, _)| bps.abs_diff(REMB_BPS) < 1000), "{told:?}");
    assert_eq!(max_bps(&bench), None);
}

#[test]
fn who_did_not_agree_is_told_nothing_and_who_is_not_there_is_an_error() {
    let mut bench = Bench::new();
    let mut client = publisher(&mut bench, false);
    bench.command(limit(Some(640_000)));
    bench.run(ms(3000));
    assert_eq!(told(&mut bench, &mut client), []);
    let Bench { worker, egress, now } = &mut bench;
    let command = Command::LimitUplink { peer: PeerId(9), bps_max: None };
    assert_eq!(worker.on_command(*now, command, egress), Err(CommandError::NotFound("peer")));
}
