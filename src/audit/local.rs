//! The store on disk beside its changelog, at the store's own position: one that is merely behind is not different.

use std::collections::BTreeSet;

use state::backend::{Backend, StorePartition};
use state::tiered::Stub;
use topology::broker::Broker;

use super::compared::Compared;
use super::difference::{Difference, Naming, first_field};
use super::fold::{Fold, Kept, Stand};
use super::player::decoded;
use super::{Audit, Result};

const BETWEEN: &str = "store and changelog";

impl<B: Broker> Audit<B> {
    pub(super) fn store(&self, partition: u32) -> StorePartition {
        StorePartition { store: std::sync::Arc::clone(&self.sub().stores[0].name), partition }
    }

    /// Where a store stands; none where there is no such partition in it.
    pub(super) fn stand(&self, partition: u32, backend: &dyn Backend) -> Result<Option<Stand>> {
        let store = self.store(partition);
        if !backend.partitions()?.contains(&store) {
            return Ok(None);
        }
        let positions = backend.positions(&store)?;
        Ok(positions.map(|positions| Stand::of(&positions, self.name(self.sub().lead()))))
    }

    pub(super) fn compare_store(
        &self,
        partition: u32,
        backend: &dyn Backend,
        stand: Stand,
        fold: &Fold,
        naming: &Naming,
        differences: &mut Vec<Difference>,
    ) -> Result<Compared> {
        let mut compared = Compared::default();
        let mut found = |user: Option<&[u8]>, (field, left, right): (String, String, String), offset: u64| {
            compared.differ += 1;
            if compared.differ == 1 {
                let at = vec![self.place(self.changelog(partition), offset)];
                let user = user.map(|key| naming.of(key));
                differences.push(Difference { between: BETWEEN, partition, user, field, left, right, at });
            }
        };
        if stand.changelog > fold.end {
            let stands = format!("stands at offset {}", stand.changelog);
            found(None, ("position".into(), stands, format!("ends at {}", fold.end)), fold.end);
            return Ok(compared);
        }
        if stand.changelog < fold.start {
            return Ok(Compared::not("it stands before the changelog's first record: its next start rebuilds it"));
        }
        let mut users = BTreeSet::new();
        let mut count = 0;
        let scanned = backend.scan(&self.store(partition), None, usize::MAX, &mut |key, value| {
            count += 1;
            users.insert(Box::<[u8]>::from(key));
            match expected(fold, stand, key) {
                Expected::Any => {}
                Expected::OneOf(choices) => {
                    // Of an evicted user there is the digest of the value.
                    let stub = Stub::decode(value);
                    let is_it = |kept: &[u8]| kept == value || stub.is_some_and(|stub| stub == Stub::of(kept));
                    if choices.iter().any(|kept| kept.value.as_deref().is_some_and(is_it)) {
                        return true;
                    }
                    let offset = choices.last().map_or(fold.start, |kept| kept.offset);
                    let right = choices.iter().rev().find_map(|kept| kept.value.as_deref());
                    found(Some(key), named(value, right), offset);
                }
            }
            true
        });
        for key in fold.users.keys().filter(|key| !users.contains(*key)) {
            if let Expected::OneOf(choices) = expected(fold, stand, key)
                && let Some(last) = choices.last()
                && choices.iter().all(|kept| kept.value.is_some())
            {
                let is = format!("a value that includes payments below offset {}", last.marks.0[0]);
                found(Some(key), ("profile".into(), "none".into(), is), last.offset);
            }
        }
        if let Err(why) = scanned {
            found(None, ("bytes".into(), why.to_string(), "readable".into()), stand.changelog);
        }
        compared.compared = count;
        Ok(compared)
    }
}

/// What a store may have for a key.
enum Expected<'f> {
    /// What it had is compacted away: there is nothing to compare with.
    Any,
    /// One of these, in the order of their offsets; none in it is "nothing".
    OneOf(Vec<&'f Kept>),
}

fn expected<'f>(fold: &'f Fold, stand: Stand, key: &[u8]) -> Expected<'f> {
    let last = fold.users.get(key);
    let below = last.filter(|kept| kept.offset < stand.changelog).or_else(|| fold.beside.below.get(key));
    if below.is_none() && last.is_some() {
        return Expected::Any;
    }
    let band = fold.beside.band.get(key).into_iter().flatten();
    Expected::OneOf(below.into_iter().chain(band).collect())
}

fn named(value: &[u8], right: Option<&[u8]>) -> (String, String, String) {
    let plain = |left: &str, right: &str| ("value".to_owned(), left.to_owned(), right.to_owned());
    if Stub::decode(value).is_some() {
        return plain("an evicted value", right.map_or("no such user", |_| "another value"));
    }
    match (decoded(value), right.map(decoded)) {
        (Err(why), _) => plain(&why.to_string(), "a value that can be read"),
        (_, None) => plain("a value", "no such user"),
        (Ok(left), Some(Ok(right))) => first_field(&left, &right).unwrap_or_else(|| plain("other bytes", "its bytes")),
        (Ok(_), Some(Err(why))) => plain("a value", &why.to_string()),
    }
}
