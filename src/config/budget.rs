//! How `MEMORY_LIMIT` is divided: the one place that knows what takes memory and how much of it.
//!
//! | share | what | bounds |
//! |---|---|---|
//! | program | code, threads, clients' own tables, HTTP, the model twice | taken off first |
//! | notify | notifications: what waits, what was given up, twice (who notifies, and what people look at) and once more while they are read back | 5 % of the rest where somebody is told, 48 MiB at most |
//! | state | RocksDB: blocks, indexes, filters, memtables | 30 % of the rest |
//! | profiles | decoded profiles of all partitions | 30 % |
//! | workers | each worker: fetched and waiting, restoring, producing, processing: a quarter each | 40 %, divided by their number |
//! | ids | transaction ids of payments by HTTP, where they are remembered (`DEDUP_ENTRIES`) | 5 % of the rest at most |
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

/// More than this for notifications keeps what nobody reads.
const NOTIFY_MAX: u64 = 48 << 20;
/// Notifications get one part in so many.
const NOTIFY_PART: u64 = 20;

/// A transaction id that is remembered, and its share of tables that have just grown.
const ID: u64 = 140;
/// Transaction ids get at most one part in so many.
const IDS_PART: u64 = 20;
/// So few are in what the program takes.
const IDS_MIN: u64 = 1_000;

/// What an instance has to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Threads that read as workers do.
    pub workers: u32,
    /// Whether it keeps copies.
    pub copies: bool,
    /// The model's bytes on disk.
    pub model: u64,
    /// Whether the broker is inside.
    pub embedded: bool,
    /// Whether somebody is told of anomalies.
    pub notifies: bool,
    /// How many transaction ids are to be remembered; 0 for none.
    pub ids: u64,
}

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
    /// Notifications; 0 where nobody is told.
    pub notify: usize,
    /// How many transaction ids of payments by HTTP are remembered.
    pub ids: usize,
}

impl Budget {
    /// Divides `limit` bytes.
    ///
    /// # Errors
    /// The least that would do, in bytes.
    pub fn new(limit: u64, load: Load) -> Result<Self, u64> {
        let Load { workers, copies, model, embedded, notifies, ids } = load;
        let workers = u64::from(workers.max(1)) + u64::from(copies);
        // The model that scores, and the next one being read.
        let fixed = PROGRAM + WORKER * workers + 2 * model;
        let rest = limit.saturating_sub(fixed);
        let notify = if notifies { (rest / NOTIFY_PART).min(NOTIFY_MAX) } else { 0 };
        let rest = rest - notify;
        let parts = |rest: u64| (rest * 3 / 10, rest * 4 / 10 / workers);
        let least = (STORE_MIN * 10).div_ceil(3).max((BUFFERS_MIN * workers * 10).div_ceil(4));
        let (store, buffers) = parts(rest);
        if store < STORE_MIN || buffers < BUFFERS_MIN {
            let part = if notifies { least.div_ceil(NOTIFY_PART - 1).min(NOTIFY_MAX) } else { 0 };
            // Divisions round down, each by less than one of its parts.
            return Err(fixed + least + part + if notifies { NOTIFY_PART } else { 0 });
        }
        // Fewer ids are no failure: the oldest are forgotten sooner.
        let ids = (ids * ID).min(rest / IDS_PART).min(rest - least.min(rest)) / ID;
        let (store, buffers) = parts(rest - ids * ID);
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
            notify: size(notify),
            ids: size(ids.max(IDS_MIN)),
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
    fn sum(budget: &Budget, load: Load) -> u64 {
        let Load { workers, copies, model, .. } = load;
        let by_worker = budget.fetch + 2 * budget.restore.max(budget.poll) + budget.produce;
        let fixed = PROGRAM + 2 * model + u64::from(workers) * (WORKER + by_worker as u64);
        let following = if copies { WORKER + 2 * budget.restore as u64 } else { 0 };
        fixed
            + following
            + (budget.state + budget.profiles + budget.broker + budget.notify) as u64
            + if budget.ids as u64 > IDS_MIN { budget.ids as u64 * ID } else { 0 }
    }

    #[test]
    fn the_parts_never_add_up_to_more_than_the_limit() {
        for limit_mib in [96, 128, 256, 512, 4_096, 1 << 20] {
            for workers in [1, 2, 8, 64, 1_024] {
                let models = [(0, false), (5 << 20, false), (5 << 20, true), (300 << 20, false)];
                let ways = [(false, false), (true, false), (false, true), (true, true)];
                for ((copies, notifies), (model, embedded)) in ways.into_iter().flat_map(|way| models.map(|model| (way, model))) {
                    let limit = limit_mib << 20;
                    let load = Load { workers, copies, model, embedded, notifies, ids: 1_000_000 };
                    match Budget::new(limit, load) {
                        Ok(budget) => {
                            assert!(sum(&budget, load) <= limit, "{limit_mib} MiB, {load:?}: {budget:?}");
                            assert_eq!(budget.notify > 0, notifies);
                            let ids = budget.ids as u64;
                            assert!((IDS_MIN..=1_000_000).contains(&ids), "{load:?}: {ids}");
                            assert!(limit_mib < 4_096 || ids == 1_000_000, "{load:?}: there is room for all");
                        }
                        Err(least) => {
                            assert!(least > limit, "{limit_mib} MiB, {load:?} is refused for {least}");
                            let enough = Budget::new(least, load).expect("what is asked for does");
                            assert!(sum(&enough, load) <= least);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_fit_is_told_with_what_would() {
        assert_eq!(Budget::new(64 << 20, Load { workers: 2, ..Load::default() }), Err((56 << 20) + ((80_u64 << 20).div_ceil(3))));
        assert_eq!(Budget::new(512 << 20, Load { workers: 64, ..Load::default() }), Err((304 << 20) + (640 << 20)));
    }
}
