//! Which encoding a subscription gets: the highest active one within its preference, entered by a key frame.

use crate::command::Preferences;
use crate::layer::Target;

/// What a subscription does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// It goes out.
    Forward,
    /// It does not, but this encoding is the one to go to: a key frame is needed.
    AwaitKeyFrame,
    /// It does not.
    Decline,
}

/// The encodings of a publication that carry packets, as a set of their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Active(u8);

impl Active {
    /// Adds an encoding.
    pub(crate) fn insert(&mut self, encoding: u8) {
        self.0 |= 1_u8.checked_shl(encoding.into()).unwrap_or_default();
    }

    /// Whether it is one of them.
    pub(crate) fn has(self, encoding: u8) -> bool {
        self.0 & 1_u8.checked_shl(encoding.into()).unwrap_or_default() != 0
    }

    /// The highest encoding up to `max`, or else the lowest above it.
    fn best(self, max: u8) -> Option<u8> {
        let within = self.0 & (u8::MAX >> (7 - max.min(7)));
        let best = if within == 0 { self.0.trailing_zeros() } else { within.ilog2() };
        (self.0 != 0).then_some(best as u8)
    }
}

/// What a subscription may have of what its subscriber prefers. By itself it permits everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Nothing is sent: not even the least of it can be afforded.
    pub(crate) paused: bool,
    /// Highest encoding, 0 the lowest.
    pub(crate) encoding: u8,
    /// Of that encoding no more than this. Of a higher one that still goes out, as few pictures as there are.
    pub(crate) target: Target,
    /// None above [`Limit::encoding`] is sent either while that does not come. Otherwise a higher one is better than none.
    pub(crate) strict: bool,
}

impl Default for Limit {
    fn default() -> Self {
        Self { paused: false, encoding: u8::MAX, target: Target::BEST, strict: false }
    }
}

/// What still goes out of an encoding that is too much, until a lower one begins.
pub(crate) const FEW_PICTURES: Target = Target::upto_temporal(0);

/// The choice of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Selector {
    preferences: Preferences,
    limit: Limit,
    current: Option<u8>,
}

impl Selector {
    /// With what the subscriber wants.
    pub(crate) fn new(preferences: Preferences) -> Self {
        Self { preferences, limit: Limit::default(), current: None }
    }

    /// The encoding that is forwarded.
    pub(crate) fn current(&self) -> Option<u8> {
        self.current
    }

    /// Whether nothing is wanted, or nothing can be afforded.
    pub(crate) fn is_paused(&self) -> bool {
        self.preferences.paused || self.limit.paused
    }

    /// What the subscriber wants.
    pub(crate) fn preferences(&self) -> Preferences {
        self.preferences
    }

    /// What it may have of it.
    pub(crate) fn limit(&self) -> Limit {
        self.limit
    }

    /// Changes what it may have. After a pause it starts anew; and at once where it goes on with what it has not.
    pub(crate) fn permit(&mut self, limit: Limit) {
        self.limit = limit;
        let above = self.current.is_some_and(|current| current > limit.encoding);
        if limit.paused || (limit.strict && above) {
            self.restart();
        }
    }

    /// Changes what is wanted. A pause forgets the encoding: what follows starts anew.
    pub(crate) fn prefer(&mut self, preferences: Preferences) {
        self.preferences = preferences;
        if preferences.paused {
            self.restart();
        }
    }

    /// The layers inside the stream to be sent, as preferred and permitted.
    pub(crate) fn layers(&self) -> Target {
        let permitted = match self.current {
            Some(current) if current == self.limit.encoding => self.limit.target,
            Some(current) if current > self.limit.encoding => FEW_PICTURES,
            _ => Target::BEST,
        };
        self.preferred_layers().within(permitted)
    }

    /// The layers inside a stream that are wanted at most.
    pub(crate) fn preferred_layers(&self) -> Target {
        let Preferences { spatial_max, temporal_max, .. } = self.preferences;
        Target::new(spatial_max.unwrap_or(u8::MAX), temporal_max.unwrap_or(u8::MAX))
    }

    /// Starts anew: the source changed or was interrupted.
    pub(crate) fn restart(&mut self) {
        self.current = None;
    }

    /// The encoding to be on, of those that are active.
    pub(crate) fn target(&self, active: Active) -> Option<u8> {
        let max = self.preferences.layer_max.unwrap_or(u8::MAX).min(self.limit.encoding);
        active.best(max).filter(|best| !self.limit.strict || *best <= self.limit.encoding)
    }

    /// Decides about a packet of `encoding`. `enters` says that decoding can begin with it, as it can with every packet
    /// of a codec without known key frames.
    pub(crate) fn choose(&mut self, encoding: u8, active: Active, enters: bool) -> Choice {
        if self.is_paused() {
            return Choice::Decline;
        }
        let target = self.target(active);
        if target == Some(encoding) && self.current != target {
            if !enters {
                return Choice::AwaitKeyFrame;
            }
            self.current = target;
        }
        if self.current == Some(encoding) { Choice::Forward } else { Choice::Decline }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(encodings: &[u8]) -> Active {
        let mut active = Active::default();
        encodings.iter().for_each(|encoding| active.insert(*encoding));
        active
    }

    fn upto(layer_max: u8) -> Preferences {
        Preferences { layer_max: Some(layer_max), ..Preferences::default() }
    }

    #[test]
    fn starts_on_a_key_frame_of_the_best_encoding() {
        let (mut selector, all) = (Selector::default(), active(&[0, 1, 2]));
        assert_eq!(selector.choose(0, all, true), Choice::Decline);
        assert_eq!(selector.choose(2, all, false), Choice::AwaitKeyFrame);
        assert_eq!(selector.choose(2, all, true), Choice::Forward);
        assert_eq!(selector.choose(2, all, false), Choice::Forward);
    }

    #[test]
    fn keeps_the_old_encoding_until_the_new_one_has_a_key_frame() {
        let (mut selector, all) = (Selector::default(), active(&[0, 1, 2]));
        assert_eq!(selector.choose(2, all, true), Choice::Forward);
        selector.prefer(upto(1));
        assert_eq!(selector.choose(2, all, false), Choice::Forward);
        assert_eq!(selector.choose(1, all, false), Choice::AwaitKeyFrame);
        assert_eq!(selector.choose(2, all, true), Choice::Forward);
        assert_eq!(selector.choose(1, all, true), Choice::Forward);
        assert_eq!(selector.choose(2, all, true), Choice::Decline);
    }

    #[test]
    fn falls_to_another_encoding_when_the_current_stops() {
        let mut selector = Selector::default();
        assert_eq!(selector.choose(2, active(&[0, 1, 2]), true), Choice::Forward);
        assert_eq!(selector.choose(1, active(&[0, 1]), false), Choice::AwaitKeyFrame);
        assert_eq!(selector.choose(1, active(&[0, 1]), true), Choice::Forward);
        assert_eq!(selector.choose(2, active(&[0, 1, 2]), true), Choice::Forward, "it came back");
    }

    #[test]
    fn takes_a_higher_one_rather_than_none() {
        let mut selector = Selector::new(upto(0));
        assert_eq!(selector.choose(1, active(&[1, 2]), true), Choice::Forward);
        assert_eq!(selector.choose(0, active(&[0, 1, 2]), true), Choice::Forward);
    }

    #[test]
    fn a_pause_starts_anew() {
        let mut selector = Selector::default();
        assert_eq!(selector.choose(0, active(&[0]), true), Choice::Forward);
        selector.prefer(Preferences { paused: true, ..Preferences::default() });
        assert_eq!(selector.choose(0, active(&[0]), true), Choice::Decline);
        selector.prefer(Preferences::default());
        assert_eq!(selector.choose(0, active(&[0]), false), Choice::AwaitKeyFrame);
    }

    fn limit(encoding: u8, strict: bool) -> Limit {
        Limit { encoding, strict, ..Limit::default() }
    }

    #[test]
    fn a_limit_is_entered_by_a_key_frame_and_what_was_sent_goes_on_until_then() {
        let (mut selector, all) = (Selector::default(), active(&[0, 1, 2]));
        assert_eq!(selector.choose(2, all, true), Choice::Forward);
        selector.permit(limit(0, false));
        assert_eq!(selector.choose(2, all, true), Choice::Forward);
        assert_eq!(selector.choose(0, all, false), Choice::AwaitKeyFrame);
        assert_eq!(selector.choose(0, all, true), Choice::Forward);
        selector.permit(Limit::default());
        assert_eq!(selector.choose(0, all, false), Choice::Forward);
        assert_eq!(selector.choose(2, all, true), Choice::Forward);
    }

    #[test]
    fn a_strict_limit_sends_nothing_above_it_not_even_while_nothing_else_comes() {
        let mut selector = Selector::default();
        assert_eq!(selector.choose(2, active(&[2]), true), Choice::Forward);
        selector.permit(limit(0, false));
        assert_eq!(selector.choose(2, active(&[2]), false), Choice::Forward, "better than none");
        selector.permit(limit(0, true));
        assert_eq!(selector.choose(2, active(&[2]), true), Choice::Decline);
        assert_eq!(selector.target(active(&[2])), None);
        assert_eq!(selector.choose(0, active(&[0, 2]), true), Choice::Forward);
    }

    #[test]
    fn what_cannot_be_afforded_is_paused_whatever_is_preferred() {
        let (mut selector, all) = (Selector::default(), active(&[0]));
        assert_eq!(selector.choose(0, all, true), Choice::Forward);
        selector.permit(Limit { paused: true, ..Limit::default() });
        assert!(selector.is_paused());
        assert_eq!(selector.choose(0, all, true), Choice::Decline);
        selector.permit(Limit::default());
        assert_eq!(selector.choose(0, all, false), Choice::AwaitKeyFrame, "anew");
    }
}
