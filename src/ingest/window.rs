//! Transaction ids of the last while, each with the offset of the first record under it.
//!
//! Bounded twice, by time and by count: what falls out is forgotten, and a payment under its id counts as new. An entry is a fact
//! about the topic and never becomes wrong; partitions that go elsewhere leave theirs behind, which then only age.
//! Memory: about 100 bytes an entry.

use std::collections::{HashMap, VecDeque};

/// Stands for a user's transaction id.
pub(super) type Fingerprint = [u8; 16];

/// Where a payment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: u32,
    pub(super) offset: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    place: Place,
    time_ms: i64,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Window {
    keep_ms: i64,
    max: usize,
    entries: HashMap<Fingerprint, Entry>,
    /// In the order of their times, near enough: an entry's own time decides.
    order: VecDeque<(Fingerprint, i64)>,
}

impl Window {
    pub(super) fn new(keep_ms: i64, max: usize) -> Self {
        Self { keep_ms, max, entries: HashMap::new(), order: VecDeque::new() }
    }

    /// Where the first payment under this id is, if one is remembered.
    pub(super) fn find(&self, of: &Fingerprint, now_ms: i64) -> Option<Place> {
        let entry = self.entries.get(of)?;
        (now_ms.saturating_sub(entry.time_ms) < self.keep_ms).then_some(entry.place)
    }

    /// Remembers a payment that was written at this time.
    pub(super) fn add(&mut self, of: Fingerprint, place: Place, time_ms: i64) {
        self.entries.insert(of, Entry { place, time_ms });
        self.order.push_back((of, time_ms));
        self.forget(time_ms);
    }

    /// Remembers what was read back from a partition, in the order of offsets. It is older than what is known already.
    pub(super) fn add_read(&mut self, read: Vec<(Fingerprint, Place, i64)>, now_ms: i64) {
        for (of, place, time_ms) in read.into_iter().rev() {
            // The first one counts: within a partition that is the lowest offset.
            let first = self
                .entries
                .get(&of)
                .is_none_or(|known| known.place.partition != place.partition || known.place.offset >= place.offset);
            if first {
                self.entries.insert(of, Entry { place, time_ms });
                self.order.push_front((of, time_ms));
            }
        }
        self.forget(now_ms);
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn forget(&mut self, now_ms: i64) {
        while let Some(&(of, time_ms)) = self.order.front() {
            if self.entries.len() <= self.max && now_ms.saturating_sub(time_ms) < self.keep_ms {
                break;
            }
            self.order.pop_front();
            // The id may have come anew since, under a later time.
            if self.entries.get(&of).is_some_and(|entry| entry.time_ms == time_ms) {
                self.entries.remove(&of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> Fingerprint {
        [n; 16]
    }

    fn at(offset: u64) -> Place {
        Place { partition: 0, offset }
    }

    #[test]
    fn an_id_is_known_for_its_time_and_not_longer() {
        let mut window = Window::new(1_000, 10);
        window.add(id(1), at(5), 0);
        assert_eq!(window.find(&id(1), 999), Some(at(5)));
        assert_eq!(window.find(&id(1), 1_000), None);
        window.add(id(2), at(6), 2_000);
        assert_eq!(window.len(), 1, "what is too old is forgotten");
    }

    #[test]
    fn the_oldest_go_first_where_there_are_too_many() {
        let mut window = Window::new(1_000, 2);
        for n in 1..=3 {
            window.add(id(n), at(u64::from(n)), i64::from(n));
        }
        assert_eq!([1, 2, 3].map(|n| window.find(&id(n), 4).is_some()), [false, true, true]);
    }

    #[test]
    fn the_first_record_under_an_id_counts_whenever_it_is_learned_of() {
        let mut window = Window::new(1_000, 10);
        window.add(id(1), at(9), 50);
        window.add_read(vec![(id(1), at(3), 20), (id(2), at(4), 30), (id(1), at(7), 40)], 60);
        assert_eq!(window.find(&id(1), 60), Some(at(3)));
        assert_eq!(window.find(&id(2), 60), Some(at(4)));
    }

    proptest! {
        /// Against a plain model: adds at rising times are found for exactly their time, as long as there is room.
        #[test]
        fn as_a_plain_list_would_have_it(steps in prop::collection::vec((0u8..20, 0i64..300), 1..200)) {
            let mut window = Window::new(1_000, 1_000);
            let mut model: BTreeMap<u8, (u64, i64)> = BTreeMap::new();
            let mut now_ms = 0;
            for (offset, (n, passed)) in steps.into_iter().enumerate() {
                now_ms += passed;
                let expected = model.get(&n).filter(|(_, time_ms)| now_ms - time_ms < 1_000).map(|(offset, _)| at(*offset));
                prop_assert_eq!(window.find(&id(n), now_ms), expected);
                if expected.is_none() {
                    window.add(id(n), at(offset as u64), now_ms);
                    model.insert(n, (offset as u64, now_ms));
                }
            }
        }
    }
}
