//! What sums are made of, as they are kept.

use crate::events::grade;
use crate::fault::Fault;

/// Milliseconds, stays, sessions, bytes in and out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Used(pub [i64; 5]);

/// Sums over minutes of streams, in the order of `QUALITY_SUMS`.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Marks(pub [f64; 14]);

/// Where the counts of problems begin in [`Marks`].
const PROBLEMS_AT: usize = 7;
const _: () = assert!(PROBLEMS_AT + grade::PROBLEMS.len() == 14);

impl Used {
    /// Adds, and stays at the largest number.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(more);
        }
    }

    /// As it is kept.
    pub fn write(&self) -> String {
        serde_json::json!(self.0).to_string()
    }

    /// Reads what [`Used::write`] wrote.
    ///
    /// # Errors
    /// It is none.
    pub fn read(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map(Self).map_err(|_| odd(text))
    }
}

impl Marks {
    /// Adds a stream's minute; what is not known is NaN.
    pub fn mark(&mut self, score: f64, problems: i64, loss: f64, round_trip: f64, frozen: f64) {
        let count = |value: f64| if value.is_nan() { (0.0, 0.0) } else { (value, 1.0) };
        let ((loss, losses), (round_trip, round_trips)) = (count(loss), count(round_trip));
        let mut one = [0.0; 14];
        let known = [1.0, score, loss, losses, round_trip, round_trips, frozen];
        for (place, value) in one.iter_mut().zip(known) {
            *place = value;
        }
        for (place, value) in one.iter_mut().skip(PROBLEMS_AT).enumerate() {
            *value = if problems >> place & 1 == 1 { 1.0 } else { 0.0 };
        }
        self.add(&Self(one));
    }

    /// Adds.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// How many minutes of streams there are.
    pub fn measured(&self) -> i64 {
        whole(self.0[0])
    }

    /// Problems that there were, as bits.
    pub fn problems(&self) -> i64 {
        let counts = self.counts();
        counts.iter().enumerate().map(|(place, count)| i64::from(*count > 0) << place).sum()
    }

    /// How many minutes had each problem.
    pub fn counts(&self) -> Vec<i64> {
        self.0.iter().skip(PROBLEMS_AT).map(|count| whole(*count)).collect()
    }

    /// As it is kept; empty when nothing was measured.
    pub fn write(&self) -> String {
        if self.measured() == 0 {
            return String::new();
        }
        serde_json::json!(self.0).to_string()
    }

    /// Reads what [`Marks::write`] wrote.
    ///
    /// # Errors
    /// It is none.
    pub fn read(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map(Self).map_err(|_| odd(text))
    }
}

#[allow(clippy::cast_possible_truncation)] // a count of minutes
fn whole(count: f64) -> i64 {
    count as i64
}

fn odd(text: &str) -> Fault {
    Fault::unavailable(format!("{text:?} is no sum of the statistics; somebody changed them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_as_they_are_written() {
        let mut marks = Marks::default();
        assert_eq!(marks.write(), "");
        marks.mark(70.0, 0b10, 0.03, f64::NAN, 0.1);
        marks.mark(100.0, 0, f64::NAN, 0.2, 0.2);
        assert_eq!(Marks::read(&marks.write()).unwrap(), marks);
        assert_eq!((marks.measured(), marks.problems()), (2, 2));
        assert_eq!(marks.0[1..7], [170.0, 0.03, 1.0, 0.2, 1.0, 0.1 + 0.2]);
        assert_eq!(marks.counts(), [0, 1, 0, 0, 0, 0, 0]);
        let mut used = Used([1, 2, 3, 4, i64::MAX]);
        used.add(&Used([1; 5]));
        assert_eq!(Used::read(&used.write()).unwrap(), Used([2, 3, 4, 5, i64::MAX]));
        assert!(Used::read("[1]").is_err() && Marks::read("x").is_err());
        assert_eq!(Marks::read("").unwrap(), Marks::default());
    }
}
