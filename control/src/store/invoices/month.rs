//! Months of the UTC calendar.

use std::fmt;
use std::str::FromStr;

use crate::fault::Fault;
use crate::limits;
use crate::store::sums::month_of;

/// A month, by how many began since that of January 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(i64);

/// Of 400 years the mean, in milliseconds. No month begins more than three days from where months
/// of this length would, so the middle of one of these is in the month that is meant.
const MEAN_MS: i64 = 2_629_746_000;

impl Month {
    /// The one that a time is in.
    pub fn of(at: i64) -> Self {
        Self((month_of(at) + MEAN_MS / 2).div_euclid(MEAN_MS))
    }

    /// Its first millisecond since 1970.
    pub fn begin(self) -> i64 {
        month_of(self.0 * MEAN_MS + MEAN_MS / 2)
    }

    /// The first one after it.
    pub fn end(self) -> i64 {
        Self(self.0 + 1).begin()
    }

    /// So many months before.
    #[must_use]
    pub fn back(self, months: i64) -> Self {
        Self(self.0 - months)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", 1970 + self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }
}

impl FromStr for Month {
    type Err = Fault;

    /// Reads `2026-01`.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let number = |part: Option<&str>| {
            part.filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?.parse::<i64>().ok()
        };
        let year = number(text.get(..4)).filter(|year| (1970..=LAST_YEAR).contains(year));
        let month = number(text.get(5..)).filter(|month| (1..=12).contains(month));
        match (year, month) {
            (Some(year), Some(month))
                if text.len() == 7 && text.as_bytes().get(4) == Some(&b'-') =>
            {
                Ok(Self((year - 1970) * 12 + month - 1))
            }
            _ => Err(Fault::malformed(format!(
                "{text:?} is no month; give one of 1970 to {LAST_YEAR}, as 2026-01"
            ))),
        }
    }
}

/// The last whole year of [`limits::TIME_MS_MAX`].
const LAST_YEAR: i64 = 2254;
const _: () = assert!((LAST_YEAR + 1 - 1970) * 12 * MEAN_MS < limits::TIME_MS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_each_other_and_are_read_as_they_are_written() {
        let mut begin = 0;
        for index in 0..(LAST_YEAR + 1 - 1970) * 12 {
            let month = Month(index);
            assert_eq!(month.begin(), begin, "{month}");
            let next = month_of(begin + 32 * 86_400_000);
            assert_eq!(month.end(), next, "{month}");
            assert_eq!((Month::of(begin), Month::of(next - 1)), (month, month), "{month}");
            assert_eq!(month.to_string().parse::<Month>().unwrap(), month);
            begin = next;
        }
        // date -u -d 2024-02-01 +%s, and of its last day.
        let leap: Month = "2024-02".parse().unwrap();
        assert_eq!((leap.begin(), leap.end()), (1_706_745_600_000, 1_709_251_200_000));
        assert_eq!(leap.back(2).to_string(), "2023-12");
    }

    #[test]
    fn what_is_no_month_is_refused() {
        for text in [
            "",
            "2026",
            "2026-1",
            "2026-00",
            "2026-13",
            "2026/01",
            "+026-01",
            "2026-+1",
            "1969-12",
            "2255-01",
            "2026-01-01",
            "2026-0é",
            "९०२६-०१",
        ] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
    }
}
