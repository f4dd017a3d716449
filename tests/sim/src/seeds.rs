//! Seeds that once found something, in `tests/sim/seeds.txt`: they run first, always.
//!
//! A line is a seed, a space, and what it found; `#` starts a comment.

/// The committed seeds, each with what it found.
#[must_use]
pub fn kept() -> Vec<(u64, &'static str)> {
    parse(include_str!("../seeds.txt"))
}

fn parse(text: &str) -> Vec<(u64, &str)> {
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let seeds = lines.filter_map(|line| {
        let (seed, found) = line.split_once(' ').unwrap_or((line, ""));
        Some((seed.parse().ok()?, found.trim()))
    });
    seeds.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_seed_and_a_story() {
        let text = "# comment\n\n17 core: a frame was lost\n18\n";
        assert_eq!(parse(text), [(17, "core: a frame was lost"), (18, "")]);
    }

    #[test]
    fn every_line_of_the_file_is_read() {
        let text = include_str!("../seeds.txt");
        let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')).count();
        assert_eq!(kept().len(), lines);
    }
}
