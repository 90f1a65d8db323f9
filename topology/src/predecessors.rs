//! Ending what dead owners left open.
//!
//! An owner that dies in the middle of a transaction leaves records behind that nobody can read past before the transaction's timeout:
//! a successor's restore would wait for that long. Whoever initialises the dead one's transactional id ends the transaction at once. The
//! successor may do so only where the group gave it the partition, so that the other one is an owner no more; one that lives and is fenced this
//! way joins again ([`crate::broker::Reaction::Fenced`]). An owner that handed its partition over has committed before and left nothing, so
//! only those are looked at that never said that they gave it up, and of these
//! - the silent ones at once,
//! - all others once the restore has stood still for `GRACE_US`: a zombie that does not know yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use crate::broker::{Broker, MemberConfig};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::task::Task;
use crate::topology::TaskId;

/// A restore that stands still for this long is held up by someone's transaction.
const GRACE_US: u64 = 200_000;
/// One that was ended is not ended again for this long.
const AGAIN_US: u64 = 2_000_000;

/// A producer that held a task and never said that it gave it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Its transactional id.
    pub transactional_id: String,
    /// Its instance has not been heard of for a while.
    pub silent: bool,
}

/// Whoever knows the other instances. What it says may be late, never made up.
pub trait Predecessors: Send + Sync {
    /// Producers that held the task and never said that they gave it up, the latest first; not the one under `mine`.
    fn of(&self, task: TaskId, mine: &str) -> Vec<Predecessor>;

    /// What was open under this transactional id has been ended.
    fn ended(&self, transactional_id: &str);
}

/// A worker's part of it.
#[derive(Default)]
pub(crate) struct Ending {
    known: Option<Arc<dyn Predecessors>>,
    /// By transactional id: when it was tried last.
    tried_us: BTreeMap<String, u64>,
    /// By restoring task: the positions it has reached, summed up, and since when.
    stands: BTreeMap<TaskId, (u64, u64)>,
}

impl Ending {
    /// With whoever knows.
    pub(crate) fn told_by(known: Arc<dyn Predecessors>) -> Self {
        Self { known: Some(known), ..Self::default() }
    }

    /// Ends what holds up these restoring tasks. A failure is no failure of the restore: it goes on when the timeout has come.
    pub(crate) fn end<B: Broker>(
        &mut self,
        broker: &B,
        me: &MemberConfig,
        restoring: &[&Task],
        clock: &dyn Clock,
        metrics: &Metrics,
    ) {
        let (Some(known), Some(mine)) = (&self.known, &me.transactional_id) else { return };
        let now_us = clock.monotonic_us();
        self.stands.retain(|id, _| restoring.iter().any(|task| task.id == *id));
        for task in restoring {
            let id = task.id;
            // One more for each that is planned: planning is progress.
            let reached = task.restores.iter().map(|progress| progress.position + 1).sum();
            let (stood, since_us) = self.stands.entry(id).or_insert((reached, now_us));
            if *stood != reached {
                (*stood, *since_us) = (reached, now_us);
            }
            let held_up = !task.restored() && now_us - *since_us >= GRACE_US;
            for Predecessor { transactional_id, silent } in known.of(id, mine) {
                let tried = self.tried_us.get(&transactional_id).is_some_and(|tried| now_us.saturating_sub(*tried) < AGAIN_US);
                if tried || !(silent || held_up) {
                    continue;
                }
                match broker.end_transactions_of(&transactional_id) {
                    Ok(()) => {
                        info!(task = %id, transactional_id, silent, "ended what the owner before may have left open");
                        Metrics::add(&metrics.predecessors_ended_total, 1);
                        known.ended(&transactional_id);
                    }
                    Err(why) => warn!(task = %id, %why, "what the owner before left open could not be ended; its timeout will"),
                }
                self.tried_us.insert(transactional_id, clock.monotonic_us());
            }
        }
        self.tried_us.retain(|_, tried| now_us.saturating_sub(*tried) < AGAIN_US);
    }
}
