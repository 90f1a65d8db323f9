//! A [`Backend`] some of whose values lie elsewhere: a user idle for long leaves a [`Stub`], and whoever reads the key gets the value back
//! from outside of this machine, all of one read in one trip ([`Recall`]).
//!
//! A stub is a digest of the kept value, so what comes back is that very value, byte for byte, or nothing: eviction changes where a value
//! lies, never what it is. A changelog holds no stubs, and a store restored from one has every value in full.
//!
//! Two sides evict: whoever looks for idle users stages keys with the digest of what the cold tier holds of them ([`Tiered::stage`]); the
//! partition's one writer (I1) puts the stubs down ([`Backend::evict_staged`]), and only where the value is still the same.
//!
//! Invariant (I5): a value that no tier gives back is [`BackendError::Away`], never an absent one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_128;

use crate::backend::{Backend, BackendError, Peeked, Result, StorePartition, WriteSet};
use crate::tier::{Lookup, Tier, Unreachable};

/// The first byte of a stub. Kept values begin with [`crate::codec::VERSION`], so no value of any store is taken for a stub.
pub const STUB_MARK: u8 = 0xE5;
/// A stub's bytes.
const STUB_BYTES: usize = 1 + size_of::<u128>();

/// What an evicted value leaves behind: its digest (XXH3-128). Format: [`STUB_MARK`], then the digest, big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stub(u128);

impl Stub {
    /// Of a kept value.
    #[must_use]
    pub fn of(kept: &[u8]) -> Self {
        Self(xxh3_128(kept))
    }

    /// As it lies in the store.
    #[must_use]
    pub fn encode(self) -> [u8; STUB_BYTES] {
        let mut bytes = [STUB_MARK; STUB_BYTES];
        bytes[1..].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }

    /// The stub that these bytes are; none where they are a value.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STUB_BYTES] = bytes.try_into().ok()?;
        let (&mark, digest) = bytes.split_first()?;
        (mark == STUB_MARK).then(|| Self(u128::from_be_bytes(digest.try_into().expect("invariant: the rest of a stub"))))
    }
}

/// A value from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// The kept value.
    pub value: Vec<u8>,
    /// The tier that had it.
    pub from: &'static str,
}

/// Brings evicted values back.
pub trait Recall: Send + Sync + fmt::Debug {
    /// The values of these stubs, in their order, in one trip to each tier at most. May wait; bounded by the implementation.
    ///
    /// # Errors
    /// [`Unreachable`] where any of them is not to be had at the moment, be it that no tier answers or that one is behind.
    fn recall(&self, wanted: &[(&[u8], Stub)]) -> std::result::Result<Vec<Recalled>, Unreachable>;
}

/// A tier with the name that answers call it by.
pub type Named<'t, T> = (&'static str, &'t T);

/// Asks the warm tier, and for what it has not (or not so) the cold one.
///
/// # Errors
/// As [`Recall::recall`].
pub async fn bring_back<W: Tier, C: Tier>(
    warm: Option<Named<'_, W>>,
    cold: Option<Named<'_, C>>,
    wanted: &[(&str, Stub)],
) -> std::result::Result<Vec<Recalled>, Unreachable> {
    let mut found: Vec<Option<Recalled>> = vec![None; wanted.len()];
    let mut troubles = Vec::new();
    if let Some((name, tier)) = warm {
        ask(name, tier, wanted, &mut found, &mut troubles).await;
    }
    if let Some((name, tier)) = cold {
        ask(name, tier, wanted, &mut found, &mut troubles).await;
    }
    let lacking = found.iter().filter(|value| value.is_none()).count();
    if lacking > 0 {
        let why = if troubles.is_empty() { "they hold other versions, or none".to_owned() } else { troubles.join("; ") };
        return Err(Unreachable(format!(
            "{lacking} of {} evicted profiles are not to be had from the tiers: {why}",
            wanted.len()
        )));
    }
    Ok(found.into_iter().flatten().collect())
}

async fn ask<T: Tier>(
    name: &'static str,
    tier: &T,
    wanted: &[(&str, Stub)],
    found: &mut [Option<Recalled>],
    troubles: &mut Vec<String>,
) {
    let missing: Vec<usize> = (0..wanted.len()).filter(|&at| found[at].is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let users: Vec<&str> = missing.iter().map(|&at| wanted[at].0).collect();
    match tier.read(&users).await {
        Ok(lookups) => {
            for (at, lookup) in missing.into_iter().zip(lookups) {
                // Another version of the profile is an older one: the tier has yet to catch up.
                if let Lookup::Found(held) = lookup
                    && Stub::of(&held.value) == wanted[at].1
                {
                    found[at] = Some(Recalled { value: held.value, from: name });
                }
            }
        }
        Err(why) => troubles.push(why.0),
    }
}

/// What was evicted and brought back since the start.
#[derive(Debug, Default)]
pub struct TieredCounts {
    /// Values that left a stub.
    pub evicted: AtomicU64,
    /// Values brought back.
    pub brought_back: AtomicU64,
    /// Reads that failed for want of a tier.
    pub away: AtomicU64,
}

type Staged = Vec<(Box<[u8]>, Stub)>;

/// See the module's header.
#[derive(Debug)]
pub struct Tiered {
    inner: Arc<dyn Backend>,
    recall: Arc<dyn Recall>,
    staged: Mutex<BTreeMap<StorePartition, Staged>>,
    counts: TieredCounts,
}

impl Tiered {
    /// Above a backend.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, recall: Arc<dyn Recall>) -> Self {
        Self { inner, recall, staged: Mutex::default(), counts: TieredCounts::default() }
    }

    /// What it counts.
    #[must_use]
    pub fn counts(&self) -> &TieredCounts {
        &self.counts
    }

    /// These keys of a partition may go, as soon as its writer comes by and where their values are still these. Replaces what is staged.
    pub fn stage(&self, partition: &StorePartition, keys: Vec<(Box<[u8]>, Stub)>) {
        self.lock().insert(partition.clone(), keys);
    }

    /// Whether the partition's writer has yet to take what is staged.
    #[must_use]
    pub fn is_staged(&self, partition: &StorePartition) -> bool {
        self.lock().contains_key(partition)
    }

    fn below<R>(&self, call: impl FnOnce(&dyn Backend) -> Result<R>) -> Result<R> {
        call(&*self.inner)
    }

    // Each change is one insert or remove: a thread that panicked left whole entries behind.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<StorePartition, Staged>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bring(&self, partition: &StorePartition, wanted: &[(&[u8], Stub)]) -> Result<Vec<Recalled>> {
        let is_them = |values: &[Recalled]| {
            values.len() == wanted.len() && values.iter().zip(wanted).all(|(got, (_, stub))| Stub::of(&got.value) == *stub)
        };
        let brought = self.recall.recall(wanted).and_then(|values| {
            if is_them(&values) {
                Ok(values)
            } else {
                Err(Unreachable("a tier gave other values than were asked for".to_owned()))
            }
        });
        match brought {
            Ok(values) => {
                self.counts.brought_back.fetch_add(wanted.len() as u64, Ordering::Relaxed);
                Ok(values)
            }
            Err(why) => {
                self.counts.away.fetch_add(1, Ordering::Relaxed);
                Err(BackendError::Away { partition: partition.clone(), what: why.0 })
            }
        }
    }
}

impl Backend for Tiered {
    crate::pass_on!(
        below: open, positions, write, load, revive, drop_partition, scan, partitions, size, compact
    );

    fn get_from(&self, partition: &StorePartition, key: &[u8]) -> Result<Option<(Vec<u8>, Option<&'static str>)>> {
        let Some(value) = self.inner.get(partition, key)? else { return Ok(None) };
        let Some(stub) = Stub::decode(&value) else { return Ok(Some((value, None))) };
        Ok(self.bring(partition, &[(key, stub)])?.pop().map(|Recalled { value, from }| (value, Some(from))))
    }

    fn peek(&self, partition: &StorePartition, key: &[u8]) -> Result<Peeked> {
        Ok(match self.inner.peek(partition, key)? {
            Peeked::Here(Some(value)) if Stub::decode(&value).is_some() => Peeked::NotAtHand,
            peeked => peeked,
        })
    }

    fn multi_get(&self, partition: &StorePartition, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        let mut away: Vec<(usize, Stub)> = Vec::new();
        self.inner.multi_get(partition, keys, &mut |at, value| match value.and_then(Stub::decode) {
            Some(stub) => away.push((at, stub)),
            None => found(at, value),
        })?;
        if away.is_empty() {
            return Ok(());
        }
        let wanted: Vec<(&[u8], Stub)> = away.iter().map(|&(at, stub)| (keys[at], stub)).collect();
        for ((at, _), back) in away.iter().zip(self.bring(partition, &wanted)?) {
            found(*at, Some(&back.value));
        }
        Ok(())
    }

    fn evict_staged(&self, partition: &StorePartition) -> Result<u64> {
        let Some(staged) = self.lock().remove(partition) else { return Ok(0) };
        let keys: Vec<&[u8]> = staged.iter().map(|(key, _)| &**key).collect();
        let mut same = vec![false; keys.len()];
        self.inner.multi_get(partition, &keys, &mut |at, value| {
            same[at] = value.is_some_and(|value| Stub::decode(value).is_none() && Stub::of(value) == staged[at].1);
        })?;
        let mut set = WriteSet::default();
        set.begin(partition.clone());
        let mut evicted = 0;
        for ((key, stub), _) in staged.iter().zip(same).filter(|(_, same)| *same) {
            set.change(key, Some(&stub.encode()));
            evicted += 1;
        }
        if evicted > 0 {
            self.inner.write(&set)?;
            self.counts.evicted.fetch_add(evicted, Ordering::Relaxed);
        }
        Ok(evicted)
    }
}

#[cfg(test)]
mod tests;
