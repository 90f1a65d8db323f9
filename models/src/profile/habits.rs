//! Payments by hour of the day and by day of the week.
//!
//! Most users have few payments, and most of what a cached profile took were zeros: so a count is a byte until one outgrows it, and all are u64 in
//! a block of their own from then on. Which of both it is follows from the counts, so equal counts are equal habits.

use alloc::boxed::Box;

const HOURS: usize = 24;
const DAYS: usize = 7;
const ALL: usize = HOURS + DAYS;

/// 24 counts by hour, then 7 by day.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Habits {
    /// None above 255.
    Few([u8; ALL]),
    /// At least one above.
    Many(Box<[u64; ALL]>),
}

impl Default for Habits {
    fn default() -> Self {
        Self::Few([0; ALL])
    }
}

impl Habits {
    pub(super) fn new(hours: &[u64; HOURS], days: &[u64; DAYS]) -> Self {
        let mut all = [0; ALL];
        all[..HOURS].copy_from_slice(hours);
        all[HOURS..].copy_from_slice(days);
        if all.iter().all(|&count| count <= u64::from(u8::MAX)) {
            Self::Few(all.map(|count| count as u8))
        } else {
            Self::Many(Box::new(all))
        }
    }

    /// Counts by hour.
    pub(super) fn hours(&self) -> [u64; HOURS] {
        self.part(0)
    }

    /// Counts by day.
    pub(super) fn days(&self) -> [u64; DAYS] {
        self.part(HOURS)
    }

    fn part<const N: usize>(&self, from: usize) -> [u64; N] {
        match self {
            Self::Few(all) => core::array::from_fn(|at| u64::from(all[from + at])),
            Self::Many(all) => core::array::from_fn(|at| all[from + at]),
        }
    }

    /// Counts one more payment.
    pub(super) fn add(&mut self, hour: u8, day: u8) {
        let both = [usize::from(hour), HOURS + usize::from(day)];
        if let Self::Few(all) = self {
            if both.iter().all(|&at| all[at] < u8::MAX) {
                both.iter().for_each(|&at| all[at] += 1);
                return;
            }
            *self = Self::Many(Box::new(all.map(u64::from)));
        }
        if let Self::Many(all) = self {
            both.iter().for_each(|&at| all[at] += 1);
        }
    }

    /// Bytes held on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Few(_) => 0,
            Self::Many(all) => size_of_val(&**all),
        }
    }
}
