//! Publishers learn which of their layers anybody needs.

use super::allocate::{Call, ssrc};
use crate::command::{Command, Event, Preferences, PublicationId};

/// What was told since the last time, as sets.
fn told(call: &mut Call) -> Vec<u8> {
    let events = call.bench.events().into_iter();
    let wanted = events.filter_map(|event| match event {
        Event::LayersWanted { publication: PublicationId(1), encodings } => Some(encodings),
        _ => None,
    });
    wanted.collect()
}

fn upto(layer_max: u8) -> Preferences {
    Preferences { layer_max: Some(layer_max), ..Preferences::default() }
}

/// The publisher does as it is told.
fn obey(call: &mut Call) {
    for wanted in told(call) {
        for layer in 0..3 {
            let ssrc = ssrc(1, layer);
            if wanted >> layer & 1 == 1 {
                call.stopped.remove(&ssrc);
            } else {
                call.stopped.insert(ssrc);
            }
        }
    }
}

#[test]
fn the_high_layer_stops_when_nobody_wants_it_and_comes_back_when_somebody_does() {
    let mut call = Call::new(1, 2);
    call.flow(500);
    assert_eq!(told(&mut call).last(), Some(&0b111), "all that is sent");
    call.prefer(0, 1, upto(0));
    call.prefer(1, 1, upto(1));
    call.flow(500);
    assert_eq!(told(&mut call), [0; 0], "not for a moment's sake");
    call.flow(500);
    assert_eq!(told(&mut call), [0b011], "within a second");
    call.stopped.insert(ssrc(1, 2));
    call.flow(3000);
    assert_eq!((call.layers(0, 1), call.layers(1, 1)), (vec![0], vec![1]));
    call.prefer(0, 1, Preferences::default());
    call.flow(40);
    assert_eq!(told(&mut call), [0b111], "at once");
    assert_eq!(call.layers(0, 1), [0], "which goes on");
    call.stopped.clear();
    call.flow(400);
    call.flow(400);
    assert_eq!(call.layers(0, 1), [2]);
    call.flow(3000);
    assert_eq!(told(&mut call), [0b110], "the low one is nobody's now");
}

#[test]
fn one_who_is_alone_sends_the_low_layer_for_whoever_comes() {
    let mut call = Call::new(1, 1);
    call.prefer(0, 1, Preferences { paused: true, ..Preferences::default() });
    call.flow(4000);
    assert_eq!(told(&mut call).last(), Some(&0b001));
}

#[test]
fn layers_stop_and_start_with_what_a_narrow_link_takes() {
    let mut call = Call::new(1, 1);
    for _ in 0..10 {
        call.flow(400);
        obey(&mut call);
    }
    assert!(call.stopped.contains(&ssrc(1, 0)), "nobody is in trouble");
    call.link(0, 300_000);
    let mut standstill = 0;
    for _ in 0..40 {
        call.flow(80);
        obey(&mut call);
        standstill += u64::from(call.layers(0, 1).is_empty()) * 80;
    }
    assert_eq!(call.layers(0, 1), [0]);
    assert!(standstill <= 400, "{standstill} ms");
    for _ in 0..30 {
        call.flow(80);
        obey(&mut call);
    }
    assert!(call.stopped.contains(&ssrc(1, 2)));
    call.link(0, 10_000_000);
    for _ in 0..50 {
        call.flow(400);
        obey(&mut call);
    }
    assert_eq!(call.layers(0, 1), [2], "a layer that is not sent is attempted all the same");
    assert!(call.stopped.contains(&ssrc(1, 0)));
}

#[test]
fn what_is_told_is_told_again_in_case_it_was_lost() {
    let mut call = Call::new(1, 1);
    call.flow(5000);
    assert_eq!(told(&mut call).last(), Some(&0b100));
    call.flow(9000);
    assert_eq!(told(&mut call), [0b100]);
    call.bench.command(Command::Unpublish { publication: PublicationId(1) });
    call.flow(12_000);
    assert_eq!(told(&mut call), [0; 0]);
}
