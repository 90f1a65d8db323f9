//! Brings evicted profiles back from Redis and Postgres, for threads that wait: workers in their prefetch, and queries beside the event loop.
//!
//! Bounded: a trip takes [`TRIP_MAX`] at most, whatever state the servers are in. A warm tier that failed is left alone for a while, so that
//! one that is frozen does not cost each batch its time-out while the cold one answers.

use std::fmt;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use state::tier::{Applied, Batch, Lookup, Progress, Tier, Unreachable};
use state::tiered::{Recall, Recalled, Stub, bring_back};
use tokio::runtime::Runtime;

use super::{Tiers, Warm};
use crate::clock::{monotonic, since};

/// The longest that a thread waits: other partitions of its worker wait as long.
const TRIP_MAX: Duration = Duration::from_secs(2);
/// Of it, what the warm tier may take.
const WARM_MAX: Duration = Duration::from_millis(500);
/// How long a warm tier that failed is not asked.
const WARM_RESTS: Duration = Duration::from_secs(5);

/// See the module's header.
pub struct Ladder {
    tiers: Tiers,
    /// Its own threads: a worker's wait must not hang on how busy the HTTP interface is. None once it is being dropped.
    runtime: Option<Runtime>,
    warm_failed: Arc<Mutex<Option<Duration>>>,
}

impl fmt::Debug for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ladder").field("tiers", &self.tiers).finish_non_exhaustive()
    }
}

impl Ladder {
    /// Up these tiers; nothing is connected yet.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn new(tiers: Tiers) -> Result<Self, Unreachable> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("recall").enable_all().build();
        let runtime = runtime.map_err(|why| Unreachable(format!("cannot start threads: {why}")))?;
        Ok(Self { tiers, runtime: Some(runtime), warm_failed: Arc::default() })
    }

    /// The stubs of what the cold tier holds of these users, in their order; none where it holds nothing.
    ///
    /// # Errors
    /// Where it gives no answer.
    pub fn held_cold(&self, users: Vec<String>) -> Result<Vec<Option<Stub>>, Unreachable> {
        let cold = self.tiers.cold.clone();
        self.wait(async move {
            let Some(cold) = cold else { return Err(Unreachable("there is no cold tier".to_owned())) };
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            let stub = |lookup| match lookup {
                Lookup::Found(held) => Some(Stub::of(&held.value)),
                _ => None,
            };
            Ok(cold.read(&users).await?.into_iter().map(stub).collect())
        })
    }

    fn wait<T: Send + 'static>(
        &self,
        asking: impl Future<Output = Result<T, Unreachable>> + Send + 'static,
    ) -> Result<T, Unreachable> {
        let (tell, told) = sync_channel(1);
        let runtime = self.runtime.as_ref().expect("invariant: taken only by drop");
        runtime.spawn(async move {
            let late = || Err(Unreachable(format!("the tiers gave no answer within {} s", TRIP_MAX.as_secs())));
            // Who asked may have given up.
            let _gone = tell.send(tokio::time::timeout(TRIP_MAX, asking).await.unwrap_or_else(|_| late()));
        });
        told.recv().unwrap_or_else(|_| Err(Unreachable("the thread that asks tiers has ended".to_owned())))
    }
}

impl Recall for Ladder {
    fn recall(&self, wanted: &[(&[u8], Stub)]) -> Result<Vec<Recalled>, Unreachable> {
        let text = |(key, stub): &(&[u8], Stub)| Some((std::str::from_utf8(key).ok()?.to_owned(), *stub));
        let wanted: Option<Vec<(String, Stub)>> = wanted.iter().map(text).collect();
        let wanted = wanted.ok_or_else(|| Unreachable("a user's id is no text".to_owned()))?;
        let (warm, cold) = (self.tiers.warm.clone(), self.tiers.cold.clone());
        let failed = Arc::clone(&self.warm_failed);
        let rests = failed.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| since(at) < WARM_RESTS);
        self.wait(async move {
            let wanted: Vec<(&str, Stub)> = wanted.iter().map(|(user, stub)| (user.as_str(), *stub)).collect();
            let warm = warm.filter(|_| !rests).map(|warm| Impatient { warm, failed });
            bring_back(warm.as_ref().map(|warm| ("redis", warm)), cold.as_ref().map(|cold| ("postgres", cold)), &wanted).await
        })
    }
}

impl Drop for Ladder {
    fn drop(&mut self) {
        // The last handle may be dropped on another runtime's thread, which must not block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The warm tier with a shorter time-out, which remembers that it failed.
struct Impatient {
    warm: Warm,
    failed: Arc<Mutex<Option<Duration>>>,
}

impl Tier for Impatient {
    async fn read(&self, users: &[&str]) -> Result<Vec<Lookup>, Unreachable> {
        let late = |_| Err(Unreachable(format!("Redis gave no answer within {} ms", WARM_MAX.as_millis())));
        let read = tokio::time::timeout(WARM_MAX, self.warm.read(users)).await.unwrap_or_else(late);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = read.is_err().then(monotonic);
        read
    }

    async fn write(&self, batches: &[Batch<'_>]) -> Result<Vec<Applied>, Unreachable> {
        self.warm.write(batches).await
    }

    async fn progress(&self, of: &[(&str, u32)]) -> Result<Vec<Option<Progress>>, Unreachable> {
        self.warm.progress(of).await
    }
}
