//! How `MEMORY_LIMIT` is divided: the one place that knows what takes memory and how much of it.
//!
//! | share | what | bounds |
//! |---|---|---|
//! | program | code, threads, clients' own tables, HTTP, the model twice | taken off first |
//! | state | RocksDB: blocks, indexes, filters, memtables | 30 % of the rest |
//! | profiles | decoded profiles of all partitions | 30 % |
//! | workers | each worker: fetched and waiting, restoring, producing, processing: a quarter each | 40 %, divided by their number |
//!
//! Where copies are kept (`STANDBY_REPLICAS`) the one thread that follows their changelogs counts as one more worker: it reads with a restore's
//! buffers, which are half of a worker's.
//!
//! The embedded broker takes half of the workers' share for its own RocksDB; its members keep no queues of a client library.

/// Code, threads, HTTP: what an instance takes that does nothing, as measured (docs/performance.md), generously.
const PROGRAM: u64 = 48 << 20;
/// A worker's thread and its three Kafka clients.
const WORKER: u64 = 4 << 20;
/// The least for RocksDB and for decoded profiles, each.
const STORE_MIN: u64 = 8 << 20;
/// The least for a worker's buffers together.
const BUFFERS_MIN: u64 = 4 << 20;
/// More than this in any one buffer gains nothing; a restore's has to hold a bulk worth writing of each of many partitions.
const BUFFER_MAX: u64 = 16 << 20;
const RESTORE_MAX: u64 = 48 << 20;

/// Bytes for each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// RocksDB of the state: block cache and memtables together.
    pub state: usize,
    /// Decoded profiles of all partitions together.
    pub profiles: usize,
    /// By worker: records fetched and not yet handed over by the client.
    pub fetch: usize,
    /// By worker, while it restores: changelog records fetched; and once more as much being applied.
    pub restore: usize,
    /// By worker: records written and not yet acknowledged.
    pub produce: usize,
    /// By worker: records of one poll; and of one transaction before it must commit.
    pub poll: usize,
    /// RocksDB of the embedded broker; unused with Kafka.
    pub broker: usize,
}

impl Budget {
    /// Divides `limit` bytes among `workers`, and whoever keeps `copies`, with a model of `model` bytes on disk.
    ///
    /// # Errors
    /// The least that would do, in bytes.
    pub fn new(limit: u64, workers: u32, copies: bool, model: u64, embedded: bool) -> Result<Self, u64> {
        let workers = u64::from(workers.max(1)) + u64::from(copies);
        // The model that scores, and the next one being read.
        let fixed = PROGRAM + WORKER * workers + 2 * model;
        let rest = limit.saturating_sub(fixed);
        let (store, buffers) = (rest * 3 / 10, rest * 4 / 10 / workers);
        if store < STORE_MIN || buffers < BUFFERS_MIN {
            return Err(fixed + (STORE_MIN * 10).div_ceil(3).max((BUFFERS_MIN * workers * 10).div_ceil(4)));
        }
        let broker = if embedded { buffers * workers / 2 } else { 0 };
        let share = (buffers - broker / workers) / 4;
        let buffer = size(share.min(BUFFER_MAX));
        Ok(Self {
            state: size(store),
            profiles: size(store),
            fetch: buffer,
            restore: size(share.min(RESTORE_MAX)),
            produce: buffer,
            poll: buffer,
            broker: size(broker),
        })
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of it at its fullest.
    fn sum(budget: &Budget, workers: u32, copies: bool, model: u64) -> u64 {
        let by_worker = budget.fetch + 2 * budget.restore.max(budget.poll) + budget.produce;
        let fixed = PROGRAM + 2 * model + u64::from(workers) * (WORKER + by_worker as u64);
        let following = if copies { WORKER + 2 * budget.restore as u64 } else { 0 };
        fixed + following + (budget.state + budget.profiles + budget.broker) as u64
    }

    #[test]
    fn the_parts_never_add_up_to_more_than_the_limit() {
        for limit_mib in [96, 128, 256, 512, 4_096, 1 << 20] {
            for workers in [1, 2, 8, 64, 1_024] {
                let models = [(0, false), (5 << 20, false), (5 << 20, true), (300 << 20, false)];
                for (copies, (model, embedded)) in
                    [false, true].into_iter().flat_map(|copies| models.map(|model| (copies, model)))
                {
                    let limit = limit_mib << 20;
                    match Budget::new(limit, workers, copies, model, embedded) {
                        Ok(budget) => {
                            assert!(sum(&budget, workers, copies, model) <= limit, "{limit_mib} MiB, {workers}: {budget:?}");
                        }
                        Err(least) => {
                            assert!(least > limit, "{limit_mib} MiB, {workers} workers are refused for {least}");
                            let enough = Budget::new(least, workers, copies, model, embedded).expect("what is asked for does");
                            assert!(sum(&enough, workers, copies, model) <= least);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_fit_is_told_with_what_would() {
        assert_eq!(Budget::new(64 << 20, 2, false, 0, false), Err((56 << 20) + ((80_u64 << 20).div_ceil(3))));
        assert_eq!(Budget::new(512 << 20, 64, false, 0, false), Err((304 << 20) + (640 << 20)));
    }
}
