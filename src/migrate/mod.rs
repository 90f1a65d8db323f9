//! An application's state moves to another number of partitions, under a new application id.
//!
//! ```text
//! plan ──> journal + STATE_INCOMPLETE in the new group ──> STATE_MOVED in the old group ──> state ──> tail ──> verified
//!                                                                             ──> offsets of the new group + journal: done
//! ```
//!
//! *State*: the last value of each key of the old changelogs goes to the partition of murmur2(key) mod the new number. Its marks name
//! offsets of the old input, which mean nothing in the new one: they become the offset at which the new application begins there, so that
//! a value never includes what comes later (I2).
//! *Tail*: input that the old application had not processed is written again to the new input, where its key lives now, and the new
//! application begins in front of it. Where the input grew in place that is the same topic; records that came by the old rule go before
//! those that came by the new one, so that each user's stay in order.
//!
//! What people keep beside the state in a compacted topic (snoozes) goes along as it is.
//!
//! Invariants: every transaction holds what it copied and how far that is (journal `<new>-migration`), under a producer identity that a
//! repetition takes over: killed at any point, the same command goes on behind the last transaction. Until the last one, instances of
//! neither application start: both groups' offsets say why. A payment is processed by the old application or by the new one, never by
//! both: what the old one committed ends where the tail begins.
//! Limits: memory holds the values of one partition of the old state; producers must be still where the input is the same topic.
//! Why a new application id, and the whole procedure: docs/decisions/0017-migration.md.

mod carried;
mod journal;
mod places;
mod plan;
mod state_copy;
mod tail;
mod verify;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use topology::broker::{Broker, BrokerError, Reaction};
use topology::record::{Record, TopicId, TopicPartition};
use topology::restore::{STATE_INCOMPLETE, STATE_MOVED};

use crate::broker::Groups;
use crate::exclusive::{self, Exclusive};

pub use places::Places;
pub use plan::{InputPlan, Plan, Prospect};

use journal::{Entry, Journal, Progress};

/// How long the journal may take to be read once nobody else writes to it.
const JOURNAL: Duration = Duration::from_secs(60);

/// Why a migration is refused or ended; for a person, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MigrateError {
    /// The broker failed. The same command goes on from there.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// It must not be done as things stand.
    #[error("{0}")]
    Refused(String),
}

type Result<T> = std::result::Result<T, MigrateError>;

fn refused<T>(why: impl Into<String>) -> Result<T> {
    Err(MigrateError::Refused(why.into()))
}

/// Tells whose a record of an input is, by the input's number: the store's key, where its value says so.
pub type Owner<'a> = &'a (dyn Fn(usize, &Record<'_>) -> Option<Vec<u8>> + 'a);

/// How to migrate.
pub struct Migration<'a, B> {
    /// Where everything is.
    pub broker: &'a B,
    /// Which topics.
    pub places: &'a Places,
    /// The new number of partitions.
    pub partitions: u32,
    /// The old application processed exactly once.
    pub exactly_once: bool,
    /// Whose a record is.
    pub owner: Owner<'a>,
    /// Called with work done and work there is, in records.
    pub progress: &'a dyn Fn(u64, u64),
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// True where an earlier run had finished already, and nothing was done now.
    #[serde(default)]
    pub before: bool,
    /// Keys in the state, on both sides.
    pub keys: u64,
    /// Snoozes that went along.
    #[serde(default)]
    pub snoozes: u64,
    /// Records of each input that were moved for the new application to process.
    pub moved: Vec<u64>,
    /// Records of each input that the state included already, and that were left out (at-least-once).
    pub included: Vec<u64>,
    /// Records of each new input that somebody else wrote meanwhile.
    pub foreign: Vec<u64>,
    /// What the old group had committed, by input and partition: to go back, commit these again.
    pub committed: Vec<Vec<u64>>,
}

impl<B: Groups> Migration<'_, B> {
    /// Looks at everything and changes nothing.
    ///
    /// # Errors
    /// What stands in the way, with what to do about it.
    pub fn prospect(&self) -> Result<Prospect> {
        let mut reader = self.broker.reader()?;
        plan::prospect(self, &mut reader)
    }

    /// Migrates, or goes on with an interrupted migration.
    ///
    /// # Errors
    /// What stands in the way. Nothing that was done is lost: the same call goes on.
    pub fn run(&self) -> Result<Report> {
        let mut reader = self.broker.reader()?;
        let prospect = plan::prospect(self, &mut reader)?;
        if let Some(report) = prospect.done {
            return Ok(Report { before: true, ..report });
        }
        plan::create_topics(self, &prospect.plan)?;
        let (inputs, journal_at) = (&self.places.new_inputs, self.places.journal_at());
        let counts: Vec<(TopicId, u32)> = inputs.iter().map(|&topic| (topic, self.partitions)).collect();
        let config = exclusive::identity(&self.places.new, &instance(&self.places.new), vec![inputs[0]]);
        let mut hand = Exclusive::join(self.broker, &config, &exclusive::partitions(&counts[..1]))?;
        // Only now nobody else writes to the journal.
        let Journal { plan, progress, done, complete } = Journal::read(&mut reader, journal_at, JOURNAL)?;
        if !complete {
            return Err(BrokerError::new(Reaction::Retry, "the journal cannot be read to its end").into());
        }
        if let Some(report) = done {
            return Ok(Report { before: true, ..report });
        }
        let plan = match plan {
            Some(plan) => plan,
            None => {
                let held = exclusive::partitions(&counts).into_iter().map(|at| (at, STATE_INCOMPLETE)).collect();
                journal::write(&mut hand, journal_at, &Entry::Plan(prospect.plan.clone()), |_| Ok(held))?;
                prospect.plan
            }
        };
        self.stop_old(&plan)?;
        let snoozes = carried::copy(self)?;
        let progress = progress.unwrap_or_else(|| Progress::new(&plan));
        let mut work = Work { migration: self, plan: &plan, hand, reader, progress, passed: 0 };
        let copied = state_copy::copy(&mut work)?;
        tail::tail(&mut work, &copied)?;
        let foreign = verify::verify(&mut work, &copied)?;
        let report = Report {
            before: false,
            snoozes,
            keys: copied.folds.iter().map(|fold| fold.keys).sum(),
            moved: work.progress.moved.clone(),
            included: work.progress.included.clone(),
            foreign,
            committed: plan.inputs.iter().map(|input| input.committed.clone()).collect(),
        };
        let starts = plan.inputs.iter().zip(inputs).flat_map(|(input, &topic)| {
            (0..).zip(&input.starts).map(move |(partition, &start)| (TopicPartition { topic, partition }, start))
        });
        let starts = starts.collect();
        journal::write(&mut work.hand, journal_at, &Entry::Done(report.clone()), |_| Ok(starts))?;
        work.hand.leave()?;
        Ok(report)
    }

    /// From here on instances of the old application do not start, and one that still lives is fenced.
    fn stop_old(&self, plan: &Plan) -> Result<()> {
        let leads = vec![self.places.old_inputs[0]];
        let identity = exclusive::identity(&self.places.old, &instance(&self.places.old), leads);
        let all = |input: usize| {
            let topic = self.places.old_inputs[input];
            (0..plan.inputs[input].committed.len() as u32).map(move |partition| TopicPartition { topic, partition })
        };
        let mut hand = Exclusive::join(self.broker, &identity, &all(0).collect::<Vec<_>>())?;
        let offsets = (0..plan.inputs.len()).flat_map(all).map(|at| (at, STATE_MOVED)).collect();
        hand.transact(|_| Ok(offsets))?;
        Ok(hand.leave()?)
    }
}

/// Who we are within a group: the same at each run.
fn instance(group: &str) -> String {
    format!("{group}-migration")
}

/// A migration under way.
struct Work<'a, B: Broker> {
    migration: &'a Migration<'a, B>,
    plan: &'a Plan,
    hand: Exclusive<B>,
    reader: B::Reader,
    progress: Progress,
    /// Records of finished steps, for the progress shown.
    passed: u64,
}

impl<B: Groups> Work<'_, B> {
    /// Shows progress within a step.
    fn show(&self, within: u64) {
        (self.migration.progress)(self.passed + within, self.plan.records());
    }
}

/// A failed step that asks to be tried again is tried by starting the command again: nothing is lost.
fn stop(what: impl Into<String>) -> BrokerError {
    BrokerError::new(Reaction::Stop, what)
}
