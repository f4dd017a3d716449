//! What is known of one session, and what follows from it: its row, and what it adds to minutes and
//! hours. A function of the rows that events wrote, and of nothing else, so whoever calculates last
//! is right.

use std::collections::{BTreeMap, BTreeSet};

use super::figures::{Marks, Used};
use crate::limits;
use crate::store::record::floor;

pub(super) const MINUTE: i64 = 60_000;
pub(super) const HOUR: i64 = 3_600_000;

/// One session as it is known.
#[derive(Default)]
pub(super) struct Life {
    pub(super) created: i64,
    pub(super) has_ended: bool,
    pub(super) stays: BTreeMap<String, Presence>,
    /// By minute.
    pub(super) grades: BTreeMap<i64, Marks>,
}

/// One stay.
#[derive(Default)]
pub(super) struct Presence {
    pub(super) joined: i64,
    pub(super) is_over: bool,
    /// As it was told last within each hour: until when, and bytes in and out so far.
    pub(super) hours: BTreeMap<i64, (i64, [i64; 2])>,
    /// Bytes so far, as told last within each minute; of the hours that were read.
    pub(super) minutes: BTreeMap<i64, [i64; 2]>,
}

/// A session's own sums.
pub(super) struct Whole {
    pub(super) until: i64,
    pub(super) stays: usize,
    pub(super) present: usize,
    pub(super) used: Used,
    pub(super) marks: Marks,
}

impl Presence {
    fn until(&self) -> i64 {
        self.hours.values().map(|hour| hour.0).max().unwrap_or(self.joined).max(self.joined)
    }

    /// Bytes so far, before a minute or an hour began.
    fn before(&self, at: i64) -> [i64; 2] {
        let minute = self.minutes.range(floor(at, HOUR)..at).next_back().map(|(_, bytes)| *bytes);
        let hour = || self.hours.range(..floor(at, HOUR)).next_back().map(|(_, hour)| hour.1);
        minute.or_else(hour).unwrap_or_default()
    }

    /// What it adds to a unit of time, given bytes so far at the end of that.
    fn used(&self, at: i64, length: i64, bytes: Option<[i64; 2]>) -> Used {
        let here = self.until().min(at + length) - self.joined.max(at);
        let before = self.before(at);
        let [bytes_in, bytes_out] = bytes.map_or([0, 0], |bytes| {
            [bytes[0].saturating_sub(before[0]).max(0), bytes[1].saturating_sub(before[1]).max(0)]
        });
        Used([here.max(0), i64::from(floor(self.joined, length) == at), 0, bytes_in, bytes_out])
    }

    /// Hours whose minutes have to be known to say what a telling at `until` changed: its own, and
    /// the next one that was told of, whose bytes are counted from here.
    pub(super) fn near(&self, until: i64) -> impl Iterator<Item = i64> {
        let hour = floor(until, HOUR);
        [Some(hour), self.next_hour(hour)].into_iter().flatten()
    }

    fn next_hour(&self, hour: i64) -> Option<i64> {
        self.hours.range(hour + 1..).next().map(|(hour, _)| *hour)
    }

    /// Minutes that a telling at `until` changed: from the one of the telling before, as nobody told
    /// of those between, to its own, and the next that was told of. What that is depends on what is
    /// known, not on who told it when: whoever tells it again changes the same.
    pub(super) fn changed(&self, until: i64) -> impl Iterator<Item = i64> {
        let (minute, hour) = (floor(until, MINUTE), floor(until, HOUR));
        let in_hour = self.minutes.range(hour..minute).next_back().map(|(minute, _)| *minute);
        let earlier = || self.hours.range(..hour).next_back().map(|(_, hour)| hour.0);
        let from = in_hour.or_else(earlier).unwrap_or(self.joined);
        let from = floor(from, MINUTE).clamp(minute - limits::CQL_GAP_MS, minute);
        let next = self.minutes.range(minute + 1..).next().map(|(minute, _)| *minute);
        let gap = (from..=minute).step_by(usize::try_from(MINUTE).unwrap_or(usize::MAX));
        gap.chain(next)
    }
}

impl Life {
    /// Minutes that what was told changed.
    pub(super) fn changed<'a>(
        &self,
        told: impl Iterator<Item = (&'a str, i64)>,
        graded: impl Iterator<Item = i64>,
        has_begun_or_ended: bool,
    ) -> BTreeSet<i64> {
        let mut minutes: BTreeSet<i64> = graded.collect();
        for (stay, until) in told {
            if let Some(stay) = self.stays.get(stay) {
                minutes.extend(stay.changed(until));
            }
        }
        // That there is a session is counted where it began.
        if has_begun_or_ended || minutes.iter().any(|at| floor(*at, HOUR) == self.hour()) {
            minutes.insert(floor(self.created, MINUTE));
        }
        minutes
    }

    /// The hour in which it began.
    pub(super) fn hour(&self) -> i64 {
        floor(self.created, HOUR)
    }

    /// What it adds to a minute of an hour whose minutes are known.
    pub(super) fn minute(&self, at: i64) -> (Used, Marks) {
        let mut used = self.begun(at, MINUTE);
        for stay in self.stays.values() {
            used.add(&stay.used(at, MINUTE, stay.minutes.get(&at).copied()));
        }
        (used, self.grades.get(&at).copied().unwrap_or_default())
    }

    /// What it adds to an hour.
    pub(super) fn at_hour(&self, at: i64) -> (Used, Marks) {
        let (mut used, mut marks) = (self.begun(at, HOUR), Marks::default());
        for stay in self.stays.values() {
            used.add(&stay.used(at, HOUR, stay.hours.get(&at).map(|hour| hour.1)));
        }
        for (_, minute) in self.grades.range(at..at + HOUR) {
            marks.add(minute);
        }
        (used, marks)
    }

    fn begun(&self, at: i64, length: i64) -> Used {
        Used([0, 0, i64::from(floor(self.created, length) == at), 0, 0])
    }

    /// The session as a whole.
    pub(super) fn whole(&self) -> Whole {
        let (mut used, mut marks) = (Used::default(), Marks::default());
        for stay in self.stays.values() {
            let bytes = stay.hours.last_key_value().map_or([0, 0], |(_, hour)| hour.1);
            used.add(&Used([stay.until() - stay.joined, 1, 0, bytes[0], bytes[1]]));
        }
        for minute in self.grades.values() {
            marks.add(minute);
        }
        let ends = self.stays.values().map(Presence::until);
        Whole {
            until: ends.max().unwrap_or(self.created).max(self.created),
            stays: self.stays.len(),
            present: self.stays.values().filter(|stay| !stay.is_over).count(),
            used,
            marks,
        }
    }

    /// A number that grows with whatever more is known, of the whole or also of the minutes of an
    /// hour: the time of what was calculated from it. Two who know different things that are equal in
    /// it know less than a third, who wrote after both, and whose number is larger.
    pub(super) fn version(&self, hour: Option<i64>) -> i64 {
        let mut sum = 1 + i64::from(self.has_ended);
        let mut add = |more: i64| sum = sum.saturating_add(more);
        for stay in self.stays.values() {
            add(1 + i64::from(stay.is_over));
            for (until, [bytes_in, bytes_out]) in stay.hours.values() {
                add((until - stay.joined).max(0) + 1);
                add(*bytes_in);
                add(*bytes_out);
            }
            let hour = hour.map_or(0..0, |hour| hour..hour + HOUR);
            for [bytes_in, bytes_out] in stay.minutes.range(hour).map(|(_, bytes)| bytes) {
                add(1);
                add(*bytes_in);
                add(*bytes_out);
            }
        }
        for minute in self.grades.values() {
            add(minute.measured());
        }
        sum.min(limits::CQL_VERSION_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: i64 = 1_769_903_400_000 - 1_769_903_400_000 % HOUR + 58 * MINUTE;

    /// Tells `stay` so far at `until`.
    fn tell(life: &mut Life, until: i64, bytes: i64) {
        let stay = life.stays.entry("n.1".into()).or_default();
        stay.joined = BEGAN;
        let hour = stay.hours.entry(floor(until, HOUR)).or_default();
        *hour = (hour.0.max(until), [hour.1[0].max(bytes), 0]);
        let minute = stay.minutes.entry(floor(until, MINUTE)).or_default();
        minute[0] = minute[0].max(bytes);
    }

    /// Whatever the order in which tellings come, and whatever of them is known to whom, the rows that
    /// were written last by their version are those of all that was told.
    #[test]
    fn the_latest_row_of_each_unit_is_right() {
        // The third comes after a gap of several minutes, and over the end of the hour.
        let tellings = [
            (BEGAN, 0),
            (BEGAN + 30_000, 10),
            (BEGAN + 6 * MINUTE + 5, 70),
            (BEGAN + 9 * MINUTE, 90),
        ];
        let mut orders = vec![vec![]];
        for _ in 0..tellings.len() {
            orders = orders
                .iter()
                .flat_map(|order: &Vec<usize>| {
                    let rest = (0..tellings.len()).filter(|next| !order.contains(next));
                    rest.map(|next| [order.as_slice(), &[next]].concat()).collect::<Vec<_>>()
                })
                .collect();
        }
        assert_eq!(orders.len(), 24);
        for order in orders {
            let mut life = Life { created: BEGAN, ..Life::default() };
            let mut rows: BTreeMap<(i64, i64), (i64, Used)> = BTreeMap::new();
            for next in &order {
                let (until, bytes) = tellings[*next];
                tell(&mut life, until, bytes);
                let told = [("n.1", until)].into_iter();
                for minute in life.changed(told, [].into_iter(), *next == 0) {
                    let hour = floor(minute, HOUR);
                    let version = life.version(Some(hour));
                    for (key, used) in [
                        ((MINUTE, minute), life.minute(minute).0),
                        ((HOUR, hour), life.at_hour(hour).0),
                    ] {
                        let row = rows.entry(key).or_insert((version, used));
                        if row.0 <= version {
                            *row = (version, used);
                        }
                    }
                }
            }
            for length in [MINUTE, HOUR] {
                let mut sum = Used::default();
                for ((_, at), (_, used)) in rows.range((length, 0)..(length + 1, 0)) {
                    sum.add(used);
                    let here = (BEGAN + 9 * MINUTE).min(at + length) - BEGAN.max(*at);
                    assert_eq!(used.0[0], here.max(0), "{order:?} {at}");
                }
                assert_eq!(sum.0, [9 * MINUTE, 1, 1, 90, 0], "{order:?} {length}");
            }
        }
    }

    #[test]
    fn a_forged_gap_is_bounded() {
        let mut life = Life { created: 0, ..Life::default() };
        tell(&mut life, BEGAN, 1);
        life.stays.get_mut("n.1").unwrap().joined = 0;
        let changed = life.changed([("n.1", BEGAN)].into_iter(), [].into_iter(), false).len();
        assert!(i64::try_from(changed).unwrap() <= limits::CQL_GAP_MS / MINUTE + 1, "{changed}");
    }
}
