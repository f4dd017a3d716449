//! What can be wrong with what a subscriber receives.

use std::collections::BTreeMap;

/// One kind of wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Cannot be decrypted, or is no RTP.
    Unreadable,
    /// Not a packet of this run, or of a stream that was not asked for.
    Foreign,
    /// The payload is not what was sent.
    Corrupt,
    /// Came before.
    Duplicate,
    /// Came after one that was sent later.
    Reordered,
    /// Did not come.
    Missing,
    /// The RTP sequence number does not count what the publisher counts.
    Sequence,
    /// The RTP timestamp does not follow the publisher's.
    Timestamp,
    /// The marker is not on the last packet of a frame, and on that alone.
    Marker,
    /// Another layer begins elsewhere than with a key frame.
    Switch,
    /// SSRC, payload type or MID is not what was agreed.
    Header,
    /// Took longer than the plan allows.
    Late,
    /// A stream of which nothing came.
    Silent,
}

impl Violation {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Unreadable, "unreadable"),
        (Self::Foreign, "foreign"),
        (Self::Corrupt, "corrupt"),
        (Self::Duplicate, "duplicate"),
        (Self::Reordered, "reordered"),
        (Self::Missing, "missing"),
        (Self::Sequence, "sequence"),
        (Self::Timestamp, "timestamp"),
        (Self::Marker, "marker"),
        (Self::Switch, "switch"),
        (Self::Header, "header"),
        (Self::Late, "late"),
        (Self::Silent, "silent"),
    ];
}

impl Violation {
    /// As reports call it.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// How often each kind was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Violations([u64; Violation::ALL.len()]);

impl Violations {
    pub(crate) fn add(&mut self, violation: Violation, count: u64) {
        if let Some(counted) = self.0.get_mut(violation as usize) {
            *counted += count;
        }
    }

    pub(crate) fn of(&self, violation: Violation) -> u64 {
        self.0.get(violation as usize).copied().unwrap_or(0)
    }

    /// Those that were seen, by name.
    pub(crate) fn by_name(&self) -> BTreeMap<String, u64> {
        let seen = Violation::ALL.iter().map(|(v, name)| ((*name).to_owned(), self.of(*v)));
        seen.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place_and_name() {
        for (n, (violation, name)) in Violation::ALL.into_iter().enumerate() {
            assert_eq!(violation as usize, n);
            let mut violations = Violations::default();
            violations.add(violation, 3);
            assert_eq!(violations.by_name(), [(name.to_owned(), 3)].into());
        }
    }
}
