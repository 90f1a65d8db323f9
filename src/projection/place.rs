//! Where a partition goes on, from what the tier and the topic say. Pure.

use state::tier::Progress;
use topology::broker::Bounds;

/// Where one partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The generation to write under.
    pub generation: u64,
    /// The tier has everything before this offset.
    pub next: u64,
    /// True until something was written: there is nothing before it that the tier need have.
    pub first: bool,
}

/// What there is to say about a place that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// It goes on where the tier stands.
    Continues,
    /// The tier has nothing of it.
    Begins,
    /// The topic ends before the tier's progress: it was created anew.
    Recreated,
    /// The topic no longer has what the tier lacks: so many offsets are lost to it.
    Skips(u64),
}

/// Decides; the second value is the offset to read from.
#[must_use]
pub fn choose(stored: Option<Progress>, bounds: Bounds) -> (Place, u64, Remark) {
    let Some(Progress { generation, next }) = stored else {
        return (Place { generation: 1, next: bounds.start, first: true }, bounds.start, Remark::Begins);
    };
    if next > bounds.end {
        let place = Place { generation: generation + 1, next: bounds.start, first: true };
        return (place, bounds.start, Remark::Recreated);
    }
    let place = Place { generation, next, first: false };
    if next < bounds.start {
        return (place, bounds.start, Remark::Skips(bounds.start - next));
    }
    (place, next, Remark::Continues)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_and_the_topic_say_where_to_go_on() {
        let bounds = Bounds { start: 10, end: 20 };
        let at = |generation, next| Some(Progress { generation, next });
        let place = |generation, next, first| Place { generation, next, first };
        assert_eq!(choose(None, bounds), (place(1, 10, true), 10, Remark::Begins));
        assert_eq!(choose(at(3, 15), bounds), (place(3, 15, false), 15, Remark::Continues));
        assert_eq!(choose(at(3, 20), bounds), (place(3, 20, false), 20, Remark::Continues));
        assert_eq!(choose(at(3, 21), bounds), (place(4, 10, true), 10, Remark::Recreated));
        // What is written next continues where the tier stands, though it is read from further on.
        assert_eq!(choose(at(3, 4), bounds), (place(3, 4, false), 10, Remark::Skips(6)));
        assert_eq!(choose(at(1, 0), Bounds { start: 0, end: 0 }), (place(1, 0, false), 0, Remark::Continues));
    }
}
