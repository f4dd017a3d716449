//! Instruction counts beside those that were committed: `benches/instructions.txt`, one name and count a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// A count may rise by this share of the baseline: what another order of code generation units makes of the same
/// source is below it, another comparison per packet is above.
pub const RISE_PERCENT_MAX: u64 = 3;
/// Below this share of the baseline a count has clearly fallen: the baseline is to follow, or the next rise goes unseen.
pub const FALL_PERCENT_MAX: u64 = 3;

/// Instructions by what was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

/// What came of one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the bounds.
    Kept,
    /// Less than the baseline says.
    Fallen,
    /// More than the bound.
    Risen,
    /// Counted, and not in the baseline.
    New,
    /// In the baseline, and not counted.
    Missing,
}

impl Verdict {
    /// Whether `./dev test` goes on: a count that fell is a matter for whoever made it fall.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, Self::Kept | Self::Fallen)
    }
}

impl Counts {
    /// What gungraun prints with `--output-format=json`: one object a line.
    ///
    /// # Errors
    /// A sentence that names the line which holds no count.
    pub fn of_gungraun(lines: &str) -> Result<Self, String> {
        let count = |line: &str| {
            let value: Value = serde_json::from_str(line).ok()?;
            let name = value.get("function_name")?.as_str()?;
            let id = value.get("id")?.as_str()?;
            let count = value.pointer("/profiles/0/data/total/metrics/Ir/values/new")?.as_u64()?;
            Some((format!("{name}/{id}"), count))
        };
        let numbered = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let counts: Result<_, _> = numbered
            .map(|(at, line)| count(line).ok_or(format!("line {}: no count of gungraun's", at + 1)))
            .collect();
        counts.map(Self)
    }

    /// What [`Counts::to_text`] wrote.
    ///
    /// # Errors
    /// A sentence that names the line which is none.
    pub fn of_text(text: &str) -> Result<Self, String> {
        let mut counts = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let parts = line.split_once(' ').and_then(|(name, count)| {
                let count: u64 = count.trim().parse().ok()?;
                Some((name.to_owned(), count))
            });
            let (name, count) =
                parts.ok_or(format!("line {}: not a name and a count", number + 1))?;
            counts.insert(name, count);
        }
        Ok(Self(counts))
    }

    /// The baseline's text. `toolchain` is its first line: only what the same one made can be compared.
    #[must_use]
    pub fn to_text(&self, toolchain: &str) -> String {
        let mut text = format!("# {toolchain}\n# Written by `./dev bench --bless`.\n");
        for (name, count) in &self.0 {
            let _ = writeln!(text, "{name} {count}");
        }
        text
    }

    /// Each count beside the baseline's: what it is called, its line for people, and the verdict.
    #[must_use]
    pub fn beside(&self, baseline: &Self) -> Vec<(String, Verdict)> {
        let mut names: Vec<&String> = self.0.keys().chain(baseline.0.keys()).collect();
        names.sort();
        names.dedup();
        let of = |name: &String| match (self.0.get(name), baseline.0.get(name)) {
            (Some(count), Some(before)) => {
                let change = 100.0 * (*count as f64 / *before as f64 - 1.0);
                let verdict = match 100 * count {
                    scaled if scaled > (100 + RISE_PERCENT_MAX) * before => Verdict::Risen,
                    scaled if scaled < (100 - FALL_PERCENT_MAX) * before => Verdict::Fallen,
                    _ => Verdict::Kept,
                };
                (format!("{name:<34} {count:>9}  {change:+.2} %"), verdict)
            }
            (Some(count), None) => (format!("{name:<34} {count:>9}"), Verdict::New),
            (None, _) => (format!("{name:<34} {:>9}", "-"), Verdict::Missing),
        };
        names.into_iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> Counts {
        Counts(of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    }

    #[test]
    fn the_text_is_read_as_it_was_written() {
        let counts = counts(&[("path/packet_to_50", 99_246), ("demux/hundred", 4852)]);
        let text = counts.to_text("rustc 1.95.0");
        assert!(text.starts_with("# rustc 1.95.0\n"));
        assert_eq!(Counts::of_text(&text), Ok(counts));
        assert_eq!(Counts::of_text("a 1\nb x\n"), Err("line 2: not a name and a count".into()));
    }

    #[test]
    fn gungraun_is_understood() {
        let line = r#"{"function_name":"path","id":"packet_to_1","profiles":[{"data":{"total":
            {"metrics":{"Ir":{"values":{"new":8207}}}}}}]}"#;
        let line = line.replace('\n', "");
        assert_eq!(Counts::of_gungraun(&line), Ok(counts(&[("path/packet_to_1", 8207)])));
        let wrong = format!("{line}\n\n{{\"function_name\":\"path\"}}\n");
        assert_eq!(Counts::of_gungraun(&wrong), Err("line 3: no count of gungraun's".into()));
    }

    #[test]
    fn what_rises_falls_comes_and_goes_is_told() {
        let before = counts(&[("a", 1000), ("b", 1000), ("c", 1000), ("d", 1000)]);
        let after = counts(&[("a", 1030), ("b", 1031), ("c", 969), ("e", 1)]);
        let verdicts: Vec<_> = after.beside(&before).into_iter().map(|line| line.1).collect();
        let expected =
            [Verdict::Kept, Verdict::Risen, Verdict::Fallen, Verdict::Missing, Verdict::New];
        assert_eq!(verdicts, expected);
        let pass: Vec<_> = expected.into_iter().map(Verdict::passes).collect();
        assert_eq!(pass, [true, false, true, false, false]);
    }
}
