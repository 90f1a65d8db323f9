//! A tier in memory: what the others are compared with, and a stand-in where none is there.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Applied, Batch, Guard, Held, Lookup, Progress, Tier, Unreachable};

#[derive(Debug, Default)]
struct Content {
    profiles: BTreeMap<String, (Guard, Option<Held>)>,
    progress: BTreeMap<(String, u32), Progress>,
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct MemoryTier(Mutex<Content>);

impl MemoryTier {
    // A thread that panicked left whole entries behind.
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tier for MemoryTier {
    async fn read(&self, users: &[&str]) -> Result<Vec<Lookup>, Unreachable> {
        let content = self.lock();
        let look = |user: &&str| match content.profiles.get(*user) {
            Some((_, Some(held))) => Lookup::Found(held.clone()),
            Some((guard, None)) => Lookup::Deleted(*guard),
            None => Lookup::NotFound,
        };
        Ok(users.iter().map(look).collect())
    }

    async fn write(&self, batches: &[Batch<'_>]) -> Result<Vec<Applied>, Unreachable> {
        let mut content = self.lock();
        let apply = |batch: &Batch<'_>| {
            let at = (batch.topic.to_owned(), batch.partition);
            let stored = content.progress.get(&at).copied();
            let verdict = batch.verdict(stored);
            if verdict == Applied::Taken {
                for change in &batch.changes {
                    let guard = Guard { generation: batch.generation, offset: change.offset };
                    let held = change.value.map(|value| Held {
                        guard,
                        partition: batch.partition,
                        at_ms: change.at_ms,
                        value: value.to_vec(),
                    });
                    if content.profiles.get(change.user).is_none_or(|(kept, _)| *kept < guard) {
                        content.profiles.insert(change.user.to_owned(), (guard, held));
                    }
                }
                content.progress.insert(at, batch.progress_after(stored));
            }
            verdict
        };
        Ok(batches.iter().map(apply).collect())
    }

    async fn progress(&self, of: &[(&str, u32)]) -> Result<Vec<Option<Progress>>, Unreachable> {
        let content = self.lock();
        Ok(of.iter().map(|&(topic, partition)| content.progress.get(&(topic.to_owned(), partition)).copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn conformance_of_the_tier_in_memory() {
        let mut suite = pin!(super::super::conformance::suite(|| std::future::ready(MemoryTier::default())));
        let done = suite.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(done, Poll::Ready(()), "nothing in memory waits");
    }
}
