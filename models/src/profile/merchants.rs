//! The merchants that a user pays: exact counts for at most [`MERCHANTS_MAX`] of them.
//!
//! Before one more is added to a full table, the merchant with the lowest count leaves; of equals the one whose last
//! payment arrived longest ago. Names are kept sorted in one string (their ends beside the counts), so that a cached
//! profile pays 16 bytes and the name per merchant instead of a heap block each.

use alloc::string::String;
use alloc::vec::Vec;

/// Merchants remembered per user.
pub const MERCHANTS_MAX: usize = 64;
/// Longest merchant name in bytes.
pub const MERCHANT_BYTES_MAX: usize = 256;
/// Room grows by this many merchants, and names by this many bytes, at a time.
const GROWTH: usize = 4;
const NAMES_GROWTH: usize = 48;
/// Low bits of `Entry::count_end` that hold the end of the name: 64 names of 256 bytes end at 2^14.
const END_BITS: u32 = 16;

/// One merchant: its count, the end of its name, and which of the user's payments was the last to it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    count_end: u64,
    last: u64,
}

impl Entry {
    fn new(count: u64, end: usize, last: u64) -> Self {
        debug_assert!(end <= MERCHANTS_MAX * MERCHANT_BYTES_MAX, "the names are bounded");
        Self { count_end: count << END_BITS | end as u64, last }
    }

    fn count(self) -> u64 {
        self.count_end >> END_BITS
    }

    fn end(self) -> usize {
        (self.count_end & ((1 << END_BITS) - 1)) as usize
    }
}

/// Where a merchant is, or where it would be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// At this position.
    Known(usize),
    /// Unknown; it would be inserted at this position.
    New(usize),
}

/// Counts by merchant, sorted by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Merchants {
    entries: Vec<Entry>,
    names: String,
}

impl Merchants {
    pub(super) fn with_capacity(entries: usize, bytes: usize) -> Self {
        Self { entries: Vec::with_capacity(entries), names: String::with_capacity(bytes) }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All names in order, without separators.
    pub(super) fn names(&self) -> &str {
        &self.names
    }

    /// (name, count, number of the user's payment that was the last to it), sorted by name.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, u64, u64)> + Clone {
        self.entries.iter().enumerate().map(|(i, entry)| (self.name(i), entry.count(), entry.last))
    }

    fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.entries[i - 1].end() }
    }

    fn name(&self, i: usize) -> &str {
        &self.names[self.start(i)..self.entries[i].end()]
    }

    /// Looks a merchant up.
    pub(super) fn find(&self, name: &str) -> Place {
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.name(middle).cmp(name) {
                core::cmp::Ordering::Equal => return Place::Known(middle),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        Place::New(low)
    }

    /// Payments counted at a place.
    pub(super) fn count_at(&self, place: Place) -> u64 {
        match place {
            Place::Known(i) => self.entries[i].count(),
            Place::New(_) => 0,
        }
    }

    /// Counts a payment, the `sequence`-th of this user, to the merchant at the place that [`Self::find`] gave.
    pub(super) fn add(&mut self, name: &str, place: Place, sequence: u64) {
        match place {
            Place::Known(i) => {
                let entry = &mut self.entries[i];
                *entry = Entry::new(entry.count() + 1, entry.end(), sequence);
            }
            Place::New(at) if self.entries.len() < MERCHANTS_MAX => self.insert(at, name, 1, sequence),
            Place::New(at) => {
                let leaves = self.least();
                self.remove(leaves);
                self.insert(if leaves < at { at - 1 } else { at }, name, 1, sequence);
            }
        }
    }

    /// Appends a merchant that sorts after all others: how a decoder fills the table.
    pub(super) fn push(&mut self, name: &str, count: u64, last: u64) {
        self.insert(self.entries.len(), name, count, last);
    }

    /// Position of the merchant that leaves first. The table is not empty.
    fn least(&self) -> usize {
        let least = self.entries.iter().enumerate().min_by_key(|(_, entry)| (entry.count(), entry.last));
        least.expect("invariant: only a full table gives one up").0
    }

    fn insert(&mut self, at: usize, name: &str, count: u64, last: u64) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(GROWTH);
        }
        if self.names.len() + name.len() > self.names.capacity() {
            self.names.reserve_exact(name.len().max(NAMES_GROWTH));
        }
        let start = self.start(at);
        self.names.insert_str(start, name);
        self.entries.insert(at, Entry::new(count, start + name.len(), last));
        for entry in &mut self.entries[at + 1..] {
            *entry = Entry::new(entry.count(), entry.end() + name.len(), entry.last);
        }
    }

    fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.entries[at].end());
        self.names.drain(start..end);
        self.entries.remove(at);
        for entry in &mut self.entries[at..] {
            *entry = Entry::new(entry.count(), entry.end() - (end - start), entry.last);
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.names.capacity()
    }
}
