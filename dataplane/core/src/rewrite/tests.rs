//! What becomes of numbers.

use super::*;
use crate::layer::Target;
use crate::time::Duration;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const A: Source = Source(1);
const B: Source = Source(2);
const CLOCK: u32 = 90_000;

fn at(ms: u64) -> Instant {
    Instant::default() + Duration::from_millis(ms)
}

fn position(seq: u64, timestamp: u32) -> Position {
    Position { seq, timestamp, ..Position::default() }
}

/// Sends as the path does: a new segment where needed, then map and advance.
fn send(rewriter: &mut Rewriter, source: Source, p: Position, ms: u64) -> Option<Rewrite> {
    if rewriter.needs_segment(source, p.seq) {
        rewriter.begin(source, p, at(ms), CLOCK, None, None);
    }
    let rewrite = rewriter.map(source, p.seq)?;
    rewriter.advance(p, rewrite, at(ms));
    Some(rewrite)
}

#[test]
fn gaps_stay_and_switches_close_up() {
    let mut r = Rewriter::new(65_535);
    assert_eq!(send(&mut r, A, position(70_000, 1000), 0).map(|r| r.seq as u16), Some(65_535));
    assert_eq!(send(&mut r, A, position(70_002, 4000), 33).map(|r| r.seq as u16), Some(1));
    let switched = send(&mut r, B, position(90_000, 77), 66).unwrap();
    assert_eq!(switched.seq as u16, 2, "right after the newest");
    let expected = 4000 + 33 * 90;
    assert_eq!(77_u32.wrapping_add(switched.offsets.timestamp), expected, "33 ms later");
    assert!(r.is_past(65_535) && r.is_past(1) && !r.is_past(2));
}

#[test]
fn late_packets_find_their_segment() {
    let mut r = Rewriter::new(100);
    send(&mut r, A, position(70_000, 0), 0);
    send(&mut r, A, position(70_005, 0), 0);
    send(&mut r, B, position(80_000, 0), 10);
    let late = r.map(A, 70_003).unwrap();
    assert_eq!(late.seq as u16, 103);
    assert_eq!(r.map(A, 70_006), None, "after the switch nothing more of it is due");
    assert_eq!(r.map(A, 69_999), None, "before the first");
    assert_eq!(r.origin(103), Some((A, 70_003)));
    assert_eq!(r.origin(106), Some((B, 80_000)));
    assert_eq!(r.origin(107), None, "not sent yet");
    assert_eq!(r.origin(99), None, "never sent");
}

#[test]
fn a_closed_stream_continues_with_a_new_segment() {
    let mut r = Rewriter::new(10);
    send(&mut r, A, position(70_000, 0), 0);
    r.close();
    assert!(r.needs_segment(A, 70_001));
    assert_eq!(r.map(A, 70_001), None);
    assert_eq!(send(&mut r, A, position(70_500, 45_000), 500).unwrap().seq as u16, 11);
}

#[test]
fn a_source_that_was_interrupted_keeps_its_own_clock() {
    let mut r = Rewriter::new(10);
    send(&mut r, A, position(70_000, 1000), 0);
    send(&mut r, B, position(90_000, 77), 33);
    let before = send(&mut r, B, position(90_001, 3_077), 66).unwrap();
    r.close();
    // A connection held it back over the whole interruption.
    let resumed = send(&mut r, B, position(90_002, 6_077), 1500).unwrap();
    assert_eq!(resumed.offsets.timestamp, before.offsets.timestamp);
    assert_eq!(resumed.seq, before.seq + 1);
    // A source that began anew has another clock.
    r.close();
    let restarted = send(&mut r, B, position(95_000, 90_000_000), 1533).unwrap();
    let step = 90_000_000_u32
        .wrapping_add(restarted.offsets.timestamp)
        .wrapping_sub(6_077_u32.wrapping_add(resumed.offsets.timestamp));
    assert_eq!(step, 33 * 90);
}

#[test]
fn late_is_what_is_not_newer_than_its_source() {
    let mut r = Rewriter::new(10);
    assert!(!r.is_late(A, 70_000), "nothing came before");
    send(&mut r, A, position(70_000, 0), 0);
    r.close();
    assert!(r.is_late(A, 69_999) && r.is_late(A, 70_000) && !r.is_late(A, 70_001));
    send(&mut r, B, position(90_000, 0), 20);
    assert!(r.is_late(A, 70_000) && !r.is_late(A, 70_001) && !r.is_late(B, 90_001));
}

#[test]
fn picture_ids_continue() {
    let mut r = Rewriter::new(0);
    let p = |seq, picture, tl0| Position {
        seq,
        picture: Some(picture),
        tl0: Some(tl0),
        ..Position::default()
    };
    assert_eq!(send(&mut r, A, p(70_000, 0x7FFF, 255), 0).unwrap().offsets.picture, 0);
    let switched = send(&mut r, B, p(80_000, 42, 7), 10).unwrap();
    assert_eq!(42_u16.wrapping_add(switched.offsets.picture) & 0x7FFF, 0);
    assert_eq!(7_u8.wrapping_add(switched.offsets.tl0), 0);
}

#[test]
fn numbers_close_over_what_is_left_out() {
    let mut r = Rewriter::new(0);
    let p = |seq, picture| Position { seq, picture: Some(picture), ..Position::default() };
    send(&mut r, A, p(70_000, 5), 0);
    // 70,001 is missing; the next picture is left out, of which it may be the beginning.
    r.skip(p(70_002, 6), Some(6));
    r.skip(p(70_003, 6), Some(6));
    r.skip(p(70_004, 7), Some(7));
    let after = send(&mut r, A, p(70_005, 8), 0).unwrap();
    assert_eq!((after.seq as u16, after.offsets.picture), (2, 0x7FFE), "picture 6");
    assert_eq!(r.map(A, 70_001).map(|r| (r.seq as u16, r.offsets.picture)), Some((1, 0)));
    assert_eq!(r.map(A, 70_003), None);
    assert!(r.is_late(A, 70_004) && !r.is_late(A, 70_006));
    assert_eq!(r.origin(1), Some((A, 70_001)));
    assert_eq!(r.origin(2), Some((A, 70_005)));
    let switched = send(&mut r, B, p(90_000, 1), 10).unwrap();
    assert_eq!((switched.seq as u16, 1 + switched.offsets.picture), (3, 7));
}

#[test]
fn a_picture_that_a_switch_interrupts_has_a_number_for_its_rest() {
    let mut r = Rewriter::new(0);
    send(&mut r, A, Position { open: true, ..position(70_000, 0) }, 0);
    assert_eq!(send(&mut r, B, position(90_000, 9), 10).map(|r| r.seq as u16), Some(2));
    assert_eq!(r.map(A, 70_001).map(|r| r.seq as u16), Some(1), "late");
    assert_eq!((r.origin(1), r.map(A, 70_002)), (Some((A, 70_001)), None));
    assert_eq!(send(&mut r, A, position(70_002, 18), 20).map(|r| r.seq as u16), Some(3));
}

#[test]
fn behind_what_is_left_out_nothing_more_of_a_picture_is_due() {
    let mut r = Rewriter::new(0);
    send(&mut r, A, Position { open: true, ..position(70_000, 0) }, 0);
    // The end of the picture, 70,001, is missing; the next one is left out.
    r.skip(position(70_002, 1), None);
    assert_eq!(send(&mut r, B, position(90_000, 9), 10).map(|r| r.seq as u16), Some(2));
    assert_eq!(r.map(A, 70_001).map(|r| r.seq as u16), Some(1), "late");
    assert_eq!(r.map(A, 70_003), None, "of a picture after the switch");
}

#[test]
fn what_is_missing_before_what_is_left_out_keeps_its_frame_number() {
    let mut r = Rewriter::new(0);
    let p = |seq, frame| Position { frame: Some(frame), ..position(seq, 0) };
    send(&mut r, A, p(70_000, 5), 0);
    // Frames 6 and 7 are missing, and still due; frame 8 is left out.
    r.skip(p(70_003, 8), None);
    let late = r.map(A, 70_002).unwrap();
    let switched = send(&mut r, B, p(90_000, 100), 10).unwrap();
    assert_eq!((late.seq as u16, switched.seq as u16), (2, 3));
    let number = 100_u16.wrapping_add(switched.offsets.frame);
    assert_eq!((7 + late.offsets.frame, number), (7, 9), "not 6, which is before 7");
    // The same where other layers are sent from there on.
    r.cut(90_003, Some(Target::new(0, 0)));
    r.skip(p(90_003, 103), None);
    let next = send(&mut r, A, p(95_000, 0), 20).unwrap();
    assert_eq!((next.seq as u16, next.offsets.frame), (6, 13), "after 101 and 102, as 10 and 11");
}

#[test]
fn a_cut_keeps_the_numbers_and_tells_who_was_sent_what() {
    let mut r = Rewriter::new(0);
    send(&mut r, A, position(70_000, 0), 0);
    let low = Some(Target::new(0, 0));
    r.cut(70_002, low);
    r.cut(70_002, low);
    assert_eq!(
        send(&mut r, A, position(70_002, 1), 0).map(|r| (r.seq as u16, r.share)),
        Some((2, low))
    );
    assert_eq!(r.map(A, 70_001).map(|r| (r.seq as u16, r.share)), Some((1, None)));
}

#[test]
fn reports_align_a_switch_within_bounds() {
    for (aligned, expected) in
        [(2_000 + 3_100, 3_100), (1_999, 3_000), (2_000 + 3_000 + 45_001, 3_000)]
    {
        let mut r = Rewriter::new(0);
        send(&mut r, A, position(70_000, 2_000), 0);
        // Three thousand ticks of 90 kHz are 33.333 ms.
        let later = Instant(33_333_400);
        r.begin(B, position(80_000, 0), later, CLOCK, Some(aligned), None);
        let step = r.map(B, 80_000).unwrap().offsets.timestamp.wrapping_sub(2_000);
        assert!(step.abs_diff(expected) <= 1, "{step} for {aligned}");
    }
}

#[test]
fn a_long_jump_is_a_new_start() {
    let mut r = Rewriter::new(0);
    send(&mut r, A, position(70_000, 0), 0);
    assert!(!r.needs_segment(A, 73_000));
    assert!(r.needs_segment(A, 73_001));
    assert_eq!(send(&mut r, A, position(90_000, 0), 0).unwrap().seq as u16, 1);
}

#[test]
fn what_is_given_up_leaves_no_hole_and_gets_no_number_again_that_was_sent() {
    let mut r = Rewriter::new(0);
    send(&mut r, A, position(70_000, 0), 0);
    for seq in [70_001, 70_002, 70_004, 70_005] {
        send(&mut r, A, position(seq, 3000), 33).unwrap();
        r.wait_for();
    }
    assert_eq!(r.newest().map(|(seq, _)| seq as u16), Some(0));
    assert_eq!(r.origin(2), None, "not sent yet");
    r.leaves((1 << 16) + 1);
    assert_eq!(r.origin(1), Some((A, 70_001)));
    // All but the first two, one of which is still to be sent.
    r.give_up((1 << 16) + 3);
    assert_eq!(r.map(A, 70_003), None);
    assert_eq!(r.map(A, 70_002).map(|r| r.seq as u16), Some(2));
    let next = send(&mut r, A, position(70_010, 9000), 99).unwrap();
    assert_eq!((next.seq as u16, next.offsets.timestamp), (3, 0));
    r.wait_for();
    r.leaves((1 << 16) + 2);
    r.leaves((1 << 16) + 3);
    // Whatever is asked for: 3 has been sent.
    r.give_up(0);
    assert_eq!(send(&mut r, B, position(80_000, 0), 100).map(|r| r.seq as u16), Some(4));
    assert_eq!(r.origin(3), Some((A, 70_010)));
}

#[test]
fn what_another_source_begins_goes_on_from_what_cannot_be_sent() {
    let mut r = Rewriter::new(0);
    for seq in [70_000, 70_001, 70_002] {
        send(&mut r, A, position(seq, 3000), 0).unwrap();
        r.wait_for();
    }
    let second = (1 << 16) + 1;
    r.leaves(second - 1);
    assert_eq!(r.close_over(A, second), None, "nothing else begins");
    for seq in [90_000, 90_002] {
        send(&mut r, B, position(seq, 5000), 40).unwrap();
        r.wait_for();
    }
    assert_eq!(r.close_over(A, second), Some(second + 2));
    assert_eq!((r.map(A, 70_000).map(|r| r.seq), r.map(A, 70_001)), (Some(second - 1), None));
    let of_b = [90_000, 90_001, 90_002].map(|seq| r.map(B, seq).map(|r| r.seq - second));
    assert_eq!(of_b, [Some(0), Some(1), Some(2)], "one of them may still come");
    assert_eq!(send(&mut r, B, position(90_003, 8000), 80).map(|r| r.seq - second), Some(3));
    r.wait_for();
    assert_eq!(r.origin(second as u16), None, "not sent yet");
    r.leaves(second);
    assert_eq!(r.origin(second as u16), Some((B, 90_000)));
    assert_eq!(r.close_over(A, second), None, "that number was sent");
}

#[test]
fn what_comes_late_before_what_was_left_out_can_be_taken_back() {
    let mut r = Rewriter::new(0);
    send(&mut r, A, position(70_000, 0), 0);
    r.skip(position(70_003, 1), None);
    let late = send(&mut r, A, position(70_001, 1), 1).unwrap();
    r.wait_for();
    assert_eq!((r.floor(), late.seq as u16), (late.seq, 1));
    r.give_up(late.seq);
    assert_eq!(send(&mut r, A, position(70_009, 9), 9).map(|r| r.seq as u16), Some(1));
}

proptest! {
    /// Under reordering, loss, switches, and with what waits given up at any time: no number goes out twice.
    #[test]
    fn numbers_go_out_once_whatever_is_given_up(
        steps in prop::collection::vec((0_u8..3, -6_i64..12, 0_u8..11), 1..300),
    ) {
        let mut r = Rewriter::new(9);
        let mut newest = [70_000_u64, 90_000, 110_000];
        let mut accepted: BTreeSet<(u8, u64)> = BTreeSet::new();
        let (mut waiting, mut sent): (BTreeMap<u64, u8>, BTreeSet<u64>) = Default::default();
        let mut current = 0_u8;
        for (ms, (switch, step, act)) in steps.into_iter().enumerate() {
            match act {
                0 => current = switch,
                1 => {
                    // Of what waits, what comes before some number stays.
                    let at = usize::from(switch) * waiting.len() / 3;
                    if let Some(from) = waiting.keys().nth(at).copied() {
                        waiting.split_off(&from);
                        r.give_up(from);
                    }
                }
                2..5 => {
                    if let Some((seq, _)) = waiting.pop_first() {
                        r.leaves(seq);
                        prop_assert!(sent.insert(seq), "{seq} twice");
                    }
                }
                10 => {
                    // The first that waits cannot be looked up, as if its source had begun anew.
                    let Some((from, source)) = waiting.pop_first() else { continue };
                    let to = r.close_over(Source(source.into()), from);
                    let rest = to.map(|to| waiting.split_off(&to)).unwrap_or_default();
                    let less = to.unwrap_or(from) - from;
                    waiting = rest.into_iter().map(|(seq, of)| (seq - less, of)).collect();
                    if to.is_none() {
                        r.give_up(from);
                    }
                }
                _ => {}
            }
            let newest = &mut newest[usize::from(current)];
            let seq = newest.saturating_add_signed(step);
            *newest = seq.max(*newest);
            if !accepted.insert((current, seq)) {
                continue;
            }
            let source = Source(current.into());
            if act == 8 && !r.needs_segment(source, seq) && seq == *newest {
                r.skip(position(seq, 0), None);
                continue;
            }
            let Some(rewrite) = send(&mut r, source, position(seq, 0), ms as u64) else { continue };
            let taken = waiting.contains_key(&rewrite.seq) || sent.contains(&rewrite.seq);
            prop_assert!(!taken, "{} twice", rewrite.seq);
            // Where nothing waits it may be sent at once.
            if act == 9 && waiting.is_empty() {
                sent.insert(rewrite.seq);
            } else {
                r.wait_for();
                waiting.insert(rewrite.seq, current);
            }
        }
    }

    /// Under reordering, loss and switches: no number is used twice, none goes to two packets, every number maps back,
    /// and what is sent anew is at most the source's own gap ahead.
    #[test]
    fn numbers_are_unique_and_reversible(
        first in any::<u16>(),
        steps in prop::collection::vec((0_u8..4, -20_i64..40, any::<bool>()), 1..400),
    ) {
        let mut rewriter = Rewriter::new(first);
        let mut newest = [70_000_u64, 90_000, 110_000, 130_000];
        let mut current = 0_usize;
        let mut accepted: BTreeSet<(u8, u64)> = BTreeSet::new();
        let mut sent: BTreeMap<u64, (u8, u64)> = BTreeMap::new();
        for (ms, (switch, step, lost)) in steps.into_iter().enumerate() {
            let switching = step == 39;
            if switching {
                current = usize::from(switch);
            }
            let seq = newest[current].saturating_add_signed(if switching { 1 } else { step });
            newest[current] = newest[current].max(seq);
            let source = Source(current as u64);
            if lost || !accepted.insert((current as u8, seq)) {
                continue;
            }
            let before = rewriter.next;
            let fresh = rewriter.needs_segment(source, seq);
            if let Some(rewrite) = send(&mut rewriter, source, position(seq, 0), ms as u64) {
                prop_assert!(sent.insert(rewrite.seq, (current as u8, seq)).is_none());
                if fresh {
                    prop_assert_eq!(rewrite.seq, before);
                }
                prop_assert_eq!(rewriter.origin(rewrite.seq as u16), Some((source, seq)));
            }
        }
    }
}
