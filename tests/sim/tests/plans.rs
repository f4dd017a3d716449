//! Runs in words: what was thought of, beside what chance finds.

use strait_core::command::Kind;
use strait_core::port::Protocol;
use strait_core::time::Duration;
use strait_sim::network::{Bottleneck, Burst, Conditions, Queue};
use strait_sim::plan::{Check, Media, Plan, Step, VideoSpec, Weather, millis, secs};
use strait_sim::{Outcome, run};

fn check(plan: Plan) -> Outcome {
    let seed = plan.seed;
    let outcome = run(plan);
    assert!(outcome.faults.is_empty(), "plan {seed}:\n{outcome}\n{}", outcome.tables());
    outcome
}

fn loss(loss: f64) -> Conditions {
    Conditions { loss, ..Conditions::GOOD }
}

#[test]
fn a_call_on_good_lines_loses_nothing() {
    let outcome = check(Plan::new(1).media(Media::call(3)));
    assert_eq!(outcome.streams.len(), 12, "six times sound and six times pictures");
    for stream in &outcome.streams {
        assert_eq!(stream.counts.freezes, 0, "{}", stream.name);
        assert_eq!(stream.counts.nacks, 0, "{}", stream.name);
        assert!(stream.counts.decoded > 100, "{}: {:?}", stream.name, stream.counts);
    }
}

#[test]
fn a_tenth_lost_on_each_line_is_repaired_while_it_lasts() {
    for seed in 0..8 {
        let rtx = seed % 2 == 0;
        let outcome = check(
            Plan::new(seed)
                .conditions(Weather::everywhere(secs(1)..secs(9), loss(0.1)))
                .media(Media::call(2).each(|peer| peer.rtx = rtx))
                .check(Check { end: secs(13), ..Check::default() }),
        );
        for stream in outcome.streams.iter().filter(|stream| stream.name.contains("Video")) {
            // 12.8 s of 15 frames: without repair, every second frame or so would be lost for 8 s.
            let counts = &stream.counts;
            assert!(counts.decoded > 170, "{}: {counts:?}", stream.name);
            assert!(counts.freezes <= 4, "{}: {counts:?}", stream.name);
            assert_eq!(counts.repaired > 0, rtx, "{}: {counts:?}", stream.name);
        }
    }
}

#[test]
fn media_comes_back_when_a_line_was_cut() {
    for seed in 0..8 {
        let mut cut = Weather::everywhere(secs(2)..secs(5), Conditions::CUT);
        cut.peer = Some(usize::try_from(seed % 2).unwrap());
        let plan = Plan::new(seed).conditions(cut).media(Media::call(2));
        check(plan.check(Check { end: secs(10), ..Check::default() }));
    }
}

#[test]
fn bursts_reordering_and_duplicates_leave_no_stream_stuck() {
    let odd = Conditions {
        burst: Some(Burst { enter: 0.02, leave: 0.1, loss: 1.0 }),
        reorder: 0.2,
        detour: millis(60),
        duplicate: 0.2,
        jitter: millis(30),
        ..Conditions::GOOD
    };
    for seed in 0..8 {
        let plan = Plan::new(seed).conditions(Weather::everywhere(secs(1)..secs(4), odd));
        check(plan.media(Media::call(3)).check(Check { end: secs(8), ..Check::default() }));
    }
}

#[test]
fn a_bottleneck_that_drops_at_its_tail_is_got_over() {
    let bottleneck = Some(Bottleneck { rate_bps: 60_000, queue: Queue::Time(millis(400)) });
    let slow = Conditions { bottleneck, ..Conditions::GOOD };
    for seed in 0..4 {
        let plan = Plan::new(seed).conditions(Weather::everywhere(secs(1)..secs(4), slow));
        check(plan.media(Media::call(2)));
    }
}

#[test]
fn simulcast_follows_what_is_wanted_and_what_is_sent() {
    let layers = VideoSpec { layers: 3, ..VideoSpec::default() };
    for seed in 0..8 {
        let signalled = seed % 2 == 0;
        check(
            Plan::new(seed)
                .media(Media::broadcast(2).each(|peer| {
                    peer.video = peer.video.map(|_| layers);
                    peer.ssrcs_signalled = signalled;
                }))
                .run(secs(2), Step::LayerMax { peer: 1, of: 0, layer: Some(0) })
                .run(millis(5500), Step::LayerMax { peer: 1, of: 0, layer: None })
                .run(secs(3), Step::StopLayer { peer: 0, layer: 2 })
                .run(secs(9), Step::StartLayer { peer: 0, layer: 2 })
                .check(Check { end: secs(14), ..Check::default() }),
        );
    }
}

#[test]
fn a_slot_shows_one_after_the_other_without_a_break() {
    let kind = Kind::Video;
    for seed in 0..8 {
        check(
            Plan::new(seed)
                .media(Media::call(3))
                .run(secs(2), Step::Rebind { peer: 0, of: 1, to: 2, kind })
                .run(millis(2200), Step::Rebind { peer: 0, of: 1, to: 1, kind })
                .run(secs(4), Step::Rebind { peer: 0, of: 1, to: 2, kind }),
        );
    }
}

#[test]
fn muting_pausing_and_falling_silent_hold_and_let_go() {
    for kind in [Kind::Video, Kind::Audio] {
        check(
            Plan::new(5)
                .media(Media::call(2))
                .run(secs(1), Step::Mute { peer: 0, kind })
                .run(secs(5), Step::Unmute { peer: 0, kind })
                .run(secs(6), Step::Pause { peer: 1, of: 0, kind })
                .run(secs(10), Step::Resume { peer: 1, of: 0, kind })
                .run(secs(11), Step::Silence { peer: 1, kind })
                .run(secs(13), Step::Speak { peer: 1, kind })
                .check(Check { end: secs(17), ..Check::default() }),
        );
    }
}

#[test]
fn another_address_and_new_credentials_do_not_end_a_call() {
    for seed in 0..6 {
        check(
            Plan::new(seed)
                .media(Media::call(2))
                .run(secs(2), Step::Move { peer: 0, knows: false })
                .run(secs(7), Step::Move { peer: 1, knows: true })
                .run(secs(8), Step::RestartIce { peer: 0 })
                .check(Check { end: secs(13), ..Check::default() }),
        );
    }
}

/// What the whole control plane is for is done before: after that, consent, repair, key frames, sender and receiver
/// reports, and which layer goes to whom are the relay's own affair (B-04).
#[test]
fn an_hour_without_a_control_plane_is_noticed_by_nobody() {
    const HOUR: u64 = 3600;
    let (begin, end) = (secs(10), secs(10 + HOUR));
    let layers = VideoSpec { layers: 2, packets_max: 2, ..VideoSpec::default() };
    let mut plan = Plan::new(11).alone(begin..end).media(Media::broadcast(1).each(|peer| {
        peer.video = peer.video.map(|_| layers);
        (peer.transport_cc, peer.remb) = (true, true);
    }));
    // Each ten minutes the lines are bad for a while, each in another way, and the clients do what they do by themselves.
    let bad = [
        loss(0.1),
        Conditions { jitter: millis(30), reorder: 0.1, ..Conditions::GOOD },
        Conditions {
            bottleneck: Some(Bottleneck { rate_bps: 60_000, queue: Queue::Time(millis(300)) }),
            ..Conditions::GOOD
        },
        Conditions {
            burst: Some(Burst { enter: 0.02, leave: 0.1, loss: 1.0 }),
            ..Conditions::GOOD
        },
    ];
    for (number, tenth) in (60..HOUR).step_by(600).enumerate() {
        let bad = bad[number % bad.len()];
        let video = Kind::Video;
        plan = plan
            .conditions(Weather::everywhere(secs(tenth)..secs(tenth + 30), bad))
            .conditions(Weather::everywhere(secs(tenth + 60)..secs(tenth + 65), Conditions::CUT))
            .run(secs(tenth + 100), Step::Move { peer: number % 2, knows: number % 4 < 2 })
            .run(secs(tenth + 200), Step::StopLayer { peer: 0, layer: 1 })
            .run(secs(tenth + 230), Step::StartLayer { peer: 0, layer: 1 })
            .run(secs(tenth + 300), Step::Silence { peer: 0, kind: video })
            .run(secs(tenth + 340), Step::Speak { peer: 0, kind: video });
    }
    let outcome = check(plan.check(Check { end: end + secs(5), ..Check::default() }));
    assert!(outcome.virtual_time > end, "{:?}", outcome.virtual_time);
    let of = |kind: &str| {
        let stream = outcome.streams.iter().find(|stream| stream.name.contains(kind));
        stream.expect("it was seen").counts
    };
    let (pictures, sound) = (of("Video"), of("Audio"));
    // 15 frames and 50 packets a second, but for 6 times 5 s of cut lines, and 40 s of a camera that is off.
    assert!(pictures.decoded > 15 * (HOUR - 600), "{pictures:?}");
    assert!(sound.decoded > 50 * (HOUR - 100), "{sound:?}");
    assert!(sound.packets > 2 << 16, "sequence numbers came round twice: {sound:?}");
    assert!(pictures.switches >= 12, "two for each layer that ended and began: {pictures:?}");
    assert!(pictures.repaired > 0 && pictures.plis > 0, "{pictures:?}");
}

#[test]
fn who_is_switched_off_is_found_out_and_leaves_nothing() {
    let plan = Plan::new(3).media(Media::call(2)).run(secs(3), Step::Vanish { peer: 1 });
    let outcome = check(plan.check(Check { end: secs(5), ..Check::default() }));
    assert!(outcome.virtual_time > secs(33));
}

#[test]
fn a_page_that_is_loaded_again_is_back_at_once() {
    check(
        Plan::new(4)
            .media(Media::call(2))
            .run(millis(50), Step::Join { peer: 1 })
            .run(secs(3), Step::Vanish { peer: 1 })
            .run(millis(3200), Step::Join { peer: 1 }),
    );
}

#[test]
fn strangers_change_nothing() {
    for seed in 0..8 {
        let mut plan = Plan::new(seed).media(Media::call(2).each(|peer| peer.dtls = seed % 2 == 0));
        for at in 0..20 {
            plan = plan.run(millis(100 + 300 * at), Step::Attack { datagrams: 60 });
        }
        check(plan);
    }
}

#[test]
fn real_handshakes_give_keys_even_on_bad_lines() {
    for seed in 0..4 {
        check(
            Plan::new(seed)
                .conditions(Weather::everywhere(Duration::ZERO..secs(3), loss(0.3)))
                .media(Media::call(2).each(|peer| peer.dtls = true))
                .check(Check { end: secs(14), ..Check::default() }),
        );
    }
}

#[test]
fn frames_on_a_connection_are_as_good_as_datagrams() {
    check(
        Plan::new(8)
            .conditions(Weather::everywhere(secs(1)..secs(3), loss(0.05)))
            .media(Media::call(3).each(|peer| peer.protocol = Protocol::Tcp)),
    );
}

/// What is still on its way of the old stream must not be taken for the new one.
#[test]
fn a_new_stream_takes_the_place_of_an_old_one_on_a_slow_line() {
    let slow = Conditions { delay: millis(150), jitter: millis(30), ..Conditions::GOOD };
    for seed in 0..6 {
        let mut plan = Plan::new(seed)
            .conditions(Weather::everywhere(Duration::ZERO..secs(4), slow))
            .media(Media::call(2).each(|peer| peer.ssrcs_signalled = seed % 2 == 0));
        for (at, kind) in [(1000, Kind::Video), (1700, Kind::Audio), (2400, Kind::Video)] {
            plan = plan.run(millis(at), Step::Republish { peer: 0, kind });
        }
        check(plan);
    }
}
