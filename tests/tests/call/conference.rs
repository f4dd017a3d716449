//! A conference of 25, each with a camera and a microphone, each of whom sees and hears all others.

use std::time::{Duration, Instant};

use crate::jsonrtc::Link;
use crate::peer::Traits;
use crate::person::Person;
use crate::system::System;

const PEOPLE: u8 = 25;
/// Frames of each kind that must come of each: 2 s.
const FRAMES: usize = 10;
/// From the first join to the last frame: 8 s on two quiet cores, 46 s were seen on two busy ones.
const BOUND: Duration = Duration::from_secs(120);

#[test]
fn twenty_five_see_and_hear_each_other_at_one_offer_per_join() {
    let system = System::start();
    let begins = Instant::now();
    let mut people: Vec<Person> = Vec::new();
    for mark in 1..=PEOPLE {
        let link = Link::connect(system.http, &format!("peer {mark}"));
        let interval = Duration::from_millis(200);
        let traits = Traits { interval, video_bytes: 300, ..Traits::new(mark) };
        let mut joiner = Person::join(link, "plenary", traits, 0);
        assert_eq!(joiner.others.len(), people.len());
        let theirs: Vec<_> =
            joiner.others.iter().filter_map(|p| p["publications"].as_array()).flatten().collect();
        let theirs: Vec<_> = theirs.into_iter().cloned().collect();
        if !theirs.is_empty() {
            joiner.add(&theirs);
        }
        for other in &mut people {
            let before = other.offers;
            let news = other.newcomer();
            other.add(&news);
            assert_eq!(other.offers, before + 1, "a joiner costs each other one offer");
        }
        people.push(joiner);
    }
    let joined = begins.elapsed();
    for (mark, person) in (1..).zip(&people) {
        let seen = person.peer.wait_for(usize::from(PEOPLE) - 1, FRAMES);
        seen.assert_from((1..=PEOPLE).filter(|other| *other != mark));
    }
    let all = begins.elapsed();
    let offers: usize = people.iter().map(|person| person.offers).sum();
    eprintln!("25 joined in {joined:.1?}, with {offers} offers; all saw all after {all:.1?}");
    assert!(all < BOUND, "all saw all after {all:?}, {joined:?} of it to join");
}
