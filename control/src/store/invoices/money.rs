//! Amounts of money: whole millionths of a currency, never floating point.

use crate::fault::Fault;
use crate::limits;

/// Millionths of one.
const MICROS: i64 = 1_000_000;
/// Decimals of these.
const DECIMALS: usize = 6;

/// Reads a price, `3.99`, as millionths.
///
/// # Errors
/// [`crate::fault::Class::Malformed`].
pub fn read(text: &str) -> Result<i64, Fault> {
    let wrong = || {
        let most = write(limits::PRICE_MICROS, 0);
        Fault::malformed(format!(
            "{text:?} is no price; give a decimal of 0 to {most} with at most {DECIMALS} digits \
             behind the point, as \"3.99\""
        ))
    };
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > DECIMALS {
        return Err(wrong());
    }
    let number = format!("{whole}{part:0<DECIMALS$}").parse().ok();
    number.filter(|micros| *micros <= limits::PRICE_MICROS).ok_or_else(wrong)
}

/// Millionths as a decimal, with `decimals` digits or as many more as it takes.
pub fn write(micros: i64, decimals: usize) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, part) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let part = format!("{part:06}");
    let kept = part.trim_end_matches('0').len().max(decimals.min(DECIMALS));
    match part.get(..kept).unwrap_or_default() {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    }
}

/// What minutes cost at so many millionths for 1,000, rounded to `decimals`, halves away from zero: what was
/// billed and turns out to be none comes to the same below zero.
///
/// # Errors
/// [`crate::fault::Class::NotAcceptable`]: it is more than can be written down.
pub fn amount(minutes: i64, price: i64, decimals: usize) -> Result<i64, Fault> {
    let least =
        i128::from(MICROS) / 10_i128.pow(u32::try_from(decimals.min(DECIMALS)).unwrap_or(0));
    let exact = i128::from(minutes) * i128::from(price);
    // Of a thousand minutes each: the half of what is rounded to is 500 of these.
    let units = (exact.abs() + 500 * least) / (1_000 * least);
    let rounded = units * exact.signum() * least;
    i64::try_from(rounded).map_err(|_| too_much())
}

/// The sum of amounts.
///
/// # Errors
/// As [`amount`].
pub fn sum(amounts: impl Iterator<Item = i64>) -> Result<i64, Fault> {
    amounts.into_iter().try_fold(0_i64, i64::checked_add).ok_or_else(too_much)
}

fn too_much() -> Fault {
    Fault::not_acceptable(
        "the amount is above nine million millions; see whether price and minutes are right",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_read_exactly() {
        for (text, micros) in [
            ("0", 0),
            ("3.99", 3_990_000),
            ("0.000001", 1),
            ("007.5", 7_500_000),
            ("1000000", limits::PRICE_MICROS),
        ] {
            assert_eq!(read(text).unwrap(), micros, "{text}");
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1,5",
            "0.0000001",
            "1000000.000001",
            " 1",
            "99999999999999999999999",
            "٣",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(write(3_990_000, 2), "3.99");
        assert_eq!(write(500_000, 2), "0.50");
        assert_eq!(write(1, 2), "0.000001");
        assert_eq!((write(7_000_000, 0), write(-20_000, 2)), ("7".into(), "-0.02".into()));
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        // 0.004, 0.005, 0.006 of the currency.
        for (minutes, micros) in [(4, 0), (5, 10_000), (6, 10_000), (15, 20_000), (0, 0)] {
            assert_eq!(amount(minutes, 1_000_000, 2).unwrap(), micros, "{minutes}");
            assert_eq!(amount(-minutes, 1_000_000, 2).unwrap(), -micros, "-{minutes}");
        }
        assert_eq!(amount(500, 1_000_000, 0).unwrap(), 1_000_000);
        assert_eq!(amount(499, 1_000_000, 0).unwrap(), 0);
        assert!(amount(i64::MAX, limits::PRICE_MICROS, 2).is_err());
        assert!(sum([i64::MAX, 1].into_iter()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(micros in 0..=limits::PRICE_MICROS, decimals in 0_usize..=4) {
            prop_assert_eq!(read(&write(micros, decimals)).unwrap(), micros);
        }

        /// Less than half of what is rounded to away, or exactly that and farther from zero.
        #[test]
        fn nothing_is_lost_but_by_rounding(
            minutes in 0_i64..1_000_000_000, price in 0_i64..10_000_000, decimals in 0_usize..=4,
        ) {
            let least = 10_i128.pow(6 - decimals as u32);
            let rounded = i128::from(amount(minutes, price, decimals).unwrap());
            let twice_off = 2 * (rounded * 1_000 - i128::from(minutes) * i128::from(price));
            prop_assert_eq!(rounded % least, 0);
            prop_assert!(-1_000 * least < twice_off && twice_off <= 1_000 * least);
            prop_assert_eq!(i128::from(amount(-minutes, price, decimals).unwrap()), -rounded);
        }
    }
}
