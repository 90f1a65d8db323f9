//! The Tier port: profiles by user outside of this machine, each with its guard, and how far a changelog has come into them.
//!
//! A projection writes tiers from the changelog; queries, and whoever lacks a profile, read them. Three implementations pass one suite
//! ([`conformance`]): Redis, Postgres (both of the product) and [`memory`].
//!
//! Writes are guarded by (generation, changelog offset): a tier keeps, by user, what has the greater guard, whatever the order in which
//! writes come and however often. The generation rises where offsets begin anew. With each batch goes the [`Progress`] of its changelog
//! partition, atomically: so a tier that lost its content has lost its progress with it, and the projection begins anew.
//!
//! Invariant (I5): "not found" and "not reachable" are different types: [`Lookup::NotFound`] is an answer, [`Unreachable`] is none.

pub mod conformance;
pub mod memory;

use std::fmt;

/// How new a profile is: the greater guard wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guard {
    /// Which life of the changelog: rises where its offsets begin anew.
    pub generation: u64,
    /// The record's offset in the changelog.
    pub offset: u64,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.generation, self.offset)
    }
}

/// A profile as a tier keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// How new it is.
    pub guard: Guard,
    /// The changelog's partition that it came from.
    pub partition: u32,
    /// The changelog record's time, in milliseconds since the epoch.
    pub at_ms: i64,
    /// The kept value, byte for byte as in the changelog.
    pub value: Vec<u8>,
}

/// What a tier that was reached has of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A profile.
    Found(Held),
    /// The profile was deleted, by a tombstone with this guard.
    Deleted(Guard),
    /// Nothing. A tier may have dropped what it had (memory, time to live), or not have got it yet: only the partition's owner knows
    /// that there is no such user.
    NotFound,
}

/// A tier gave no answer. Nothing follows from that about what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable(pub String);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreachable {}

/// How far a changelog's (or any topic's) partition has come into a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The generation that it was written under.
    pub generation: u64,
    /// The next offset to write.
    pub next: u64,
}

/// A change of one user's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Who.
    pub user: &'a str,
    /// The changelog record's offset.
    pub offset: u64,
    /// Its time, in milliseconds since the epoch.
    pub at_ms: i64,
    /// The kept value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The profile for people, as JSON; empty for a tombstone.
    pub json: &'a str,
}

/// One changelog partition's records from one offset to another.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The changelog's name.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// The generation it is written under.
    pub generation: u64,
    /// The first offset; the tier must have all before it.
    pub from: u64,
    /// One past the last offset.
    pub to: u64,
    /// True where there is nothing before `from` that the tier need have: the changelog's beginning, in this generation.
    pub first: bool,
    /// The changes, at most one of each user: the last one.
    pub changes: Vec<Change<'a>>,
}

impl Batch<'_> {
    /// What a tier that stands at `stored` is to do with it. Pure: each implementation follows it.
    #[must_use]
    pub fn verdict(&self, stored: Option<Progress>) -> Applied {
        match stored {
            Some(stored) if stored.generation > self.generation => Applied::Refused,
            Some(stored) if stored.generation == self.generation && stored.next >= self.from => Applied::Taken,
            _ if self.first => Applied::Taken,
            _ => Applied::Refused,
        }
    }

    /// What the tier stands at once it took the batch.
    #[must_use]
    pub fn progress_after(&self, stored: Option<Progress>) -> Progress {
        let before = stored.filter(|stored| stored.generation == self.generation).map_or(0, |stored| stored.next);
        Progress { generation: self.generation, next: self.to.max(before) }
    }
}

/// What a tier did with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It has the batch, and all before it.
    Taken,
    /// It lacks what came before the batch, or has a later generation: nothing of it was written. Read its progress anew.
    Refused,
}

/// Profiles by user, outside of this machine.
pub trait Tier: Send + Sync {
    /// What it has of each of these users, in their order, in one trip.
    fn read(&self, users: &[&str]) -> impl Future<Output = Result<Vec<Lookup>, Unreachable>> + Send;

    /// Writes each batch as a whole, with its progress, or nothing of it. Without an answer each may or may not be written.
    fn write(&self, batches: &[Batch<'_>]) -> impl Future<Output = Result<Vec<Applied>, Unreachable>> + Send;

    /// How far these partitions have come, none where the tier has nothing of them.
    fn progress(&self, of: &[(&str, u32)]) -> impl Future<Output = Result<Vec<Option<Progress>>, Unreachable>> + Send;
}
