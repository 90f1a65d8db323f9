//! Orders: resets and erasures of users, as jobs whose truth is in the topics.
//!
//! ```text
//!  DELETE profile, POST erase -> Order -> `commands` (the user's partition) -> the owner's task -> `<app>-decisions`
//!                                  |                                                                  |
//!                                  job id <----------- the decision's subject -----------------------+
//! ```
//!
//! Nothing is kept here. A job's id names its partition and from which offsets on its command, its decision and its tombstone are to be looked
//! for, so that any instance can tell how far it is, after any restart, without reading whole topics. The number at its end makes it
//! one that nobody guesses.

mod id;
mod log;

use std::collections::BTreeSet;
use std::sync::Arc;

use topology::broker::{Bounds, Broker, BrokerError, TopicInfo};
use topology::decision::Decision;
use topology::record::{Record, TopicId, TopicPartition};
use topology::topology::Topology;

use crate::scoring::{Command, CommandKind};
use log::{BrokerLog, OrderLog};

pub use id::JobId;

/// Offsets of a changelog that are looked through for what is left of a user.
const LOOKED_THROUGH_MAX: u64 = 500_000;

/// A command on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// Its job.
    pub job: JobId,
    /// The offset of its record in `commands`.
    pub command_offset: u64,
}

/// A job as the topics tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The command's record; none once the topic no longer keeps it.
    pub command: Option<Given>,
    /// The decision that answers it; none while there is none.
    pub decided: Option<Decided>,
}

/// A command's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its offset.
    pub offset: u64,
    /// Whom it is about.
    pub user_id: String,
    /// When it was written, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// A decision's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Its offset.
    pub offset: u64,
    /// The payments' next offset when it took effect: those below were scored before, all others after.
    pub after: u64,
    /// The command's offset.
    pub command_offset: Option<u64>,
    /// The key of what it cleared: the user.
    pub user_id: Option<String>,
    /// When its command was written, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// What a compacted topic holds of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Keys whose last record is of it.
    pub records: usize,
    /// There are records that later ones under their keys have replaced: the broker lets them go when it compacts.
    pub before: bool,
}

struct Inner {
    log: Box<dyn OrderLog>,
    commands: TopicId,
    decisions: TopicId,
    changelog: TopicId,
}

/// See the module's header. Clones share it.
#[derive(Clone)]
pub struct Orders(Arc<Inner>);

impl Orders {
    /// Orders of an application; `changelog` is the one of its profiles.
    ///
    /// # Panics
    /// Where the topology takes no commands: a fault of whoever put the instance together.
    #[must_use]
    pub fn new<B: Broker>(broker: &Arc<B>, topology: &Topology) -> Self {
        let sub = topology.subs().last().expect("invariant: a topology has a sub-topology");
        let commands = *sub.inputs.get(1).expect("invariant: scoring takes commands as its second input");
        let decisions = sub.decisions.expect("invariant: scoring writes decisions");
        let changelog = sub.stores.first().expect("invariant: scoring keeps profiles").changelog;
        let log = Box::new(BrokerLog::new(Arc::clone(broker)));
        Self(Arc::new(Inner { log, commands, decisions, changelog }))
    }

    fn at(topic: TopicId, partition: u32) -> TopicPartition {
        TopicPartition { topic, partition }
    }

    /// Writes a command to its user's partition. It is durable in the broker when this returns.
    ///
    /// # Errors
    /// The broker's; the command may be there all the same, and taking it twice does no harm.
    pub fn give(&self, kind: CommandKind, user_id: &str, partition: u32, now_ms: i64) -> Result<Ordered, BrokerError> {
        let Inner { log, commands, decisions, changelog } = &*self.0;
        let end = |topic| Ok::<_, BrokerError>(log.bounds(Self::at(topic, partition))?.end);
        let job = JobId {
            kind,
            partition,
            commands_from: end(*commands)?,
            decisions_from: end(*decisions)?,
            changelog_from: end(*changelog)?,
            number: number(),
        };
        let command = Command { kind, user_id: user_id.to_owned(), job: Some(job.to_string()) };
        let value = serde_json::to_vec(&command).expect("invariant: a command is text");
        let command_offset = log.write(Self::at(*commands, partition), user_id.as_bytes(), &value, now_ms)?;
        Ok(Ordered { job, command_offset })
    }

    /// How far a job is; none where no record of it is there, so that it was never given or is long past.
    ///
    /// # Errors
    /// The broker's.
    pub fn look(&self, job: &JobId) -> Result<Option<Job>, BrokerError> {
        let Inner { log, commands, decisions, .. } = &*self.0;
        let subject = job.to_string();
        let mut command = None;
        log.scan(Self::at(*commands, job.partition), job.commands_from, &mut |record| {
            command = given(record, &subject);
            command.is_some()
        })?;
        let mut decided = None;
        log.scan(Self::at(*decisions, job.partition), job.decisions_from, &mut |record| {
            decided = answered(record, &subject);
            decided.is_some()
        })?;
        Ok((command.is_some() || decided.is_some()).then_some(Job { command, decided }))
    }

    /// The offset of the tombstone that an erasure wrote to the profiles' changelog; none where there is none yet, or the topic no longer
    /// keeps it.
    ///
    /// # Errors
    /// The broker's.
    pub fn tombstone(&self, job: &JobId, user_id: &str) -> Result<Option<u64>, BrokerError> {
        let mut found = None;
        self.0.log.scan(Self::at(self.0.changelog, job.partition), job.changelog_from, &mut |record| {
            if record.key == Some(user_id.as_bytes()) && record.value.is_none() {
                found = Some(record.offset);
            }
            found.is_some()
        })?;
        Ok(found)
    }

    /// Whether the changelog still has values of the user before the tombstone; none where that is too much to look through.
    ///
    /// # Errors
    /// The broker's.
    pub fn remains(&self, job: &JobId, user_id: &str, tombstone: u64) -> Result<Option<bool>, BrokerError> {
        let Inner { log, changelog, .. } = &*self.0;
        let at = Self::at(*changelog, job.partition);
        let start = log.bounds(at)?.start;
        if tombstone.saturating_sub(start) > LOOKED_THROUGH_MAX {
            return Ok(None);
        }
        let mut remains = false;
        log.scan(at, start, &mut |record| {
            remains |= record.offset < tombstone && record.key == Some(user_id.as_bytes());
            remains || record.offset >= tombstone
        })?;
        Ok(Some(remains))
    }

    /// What a compacted topic of one partition holds of something; none where that is too much to look through.
    ///
    /// # Errors
    /// The broker's.
    pub fn left(&self, topic: TopicId, is_of: impl Fn(&[u8], &[u8]) -> bool) -> Result<Option<Left>, BrokerError> {
        let at = Self::at(topic, 0);
        let Bounds { start, end } = self.0.log.bounds(at)?;
        if end.saturating_sub(start) > LOOKED_THROUGH_MAX {
            return Ok(None);
        }
        let (mut held, mut before) = (BTreeSet::new(), false);
        self.0.log.scan(at, start, &mut |record| {
            let Some(key) = record.key else { return false };
            // Whatever comes behind it under its key lets it go at the next compaction.
            before |= held.remove(key);
            if record.value.is_some_and(|value| is_of(key, value)) {
                held.insert(key.to_vec());
            }
            false
        })?;
        Ok(Some(Left { records: held.len(), before }))
    }

    /// The profiles' changelog.
    #[must_use]
    pub fn changelog(&self) -> TopicId {
        self.0.changelog
    }

    /// What the broker says of topics.
    ///
    /// # Errors
    /// The broker's.
    pub fn describe(&self, topics: &[TopicId]) -> Result<Vec<Option<TopicInfo>>, BrokerError> {
        self.0.log.describe(topics)
    }
}

/// Makes an id unique.
#[expect(clippy::disallowed_methods, reason = "what nobody is to guess comes from no seed")]
fn number() -> u64 {
    rand::random()
}

fn given(record: &Record<'_>, subject: &str) -> Option<Given> {
    let command = Command::decode(record.value?).ok()?;
    let ours = command.job.as_deref() == Some(subject);
    ours.then_some(Given { offset: record.offset, user_id: command.user_id, at_ms: record.timestamp })
}

fn answered(record: &Record<'_>, subject: &str) -> Option<Decided> {
    let decision = Decision::decode(record.value?).ok()?;
    let ours = decision.subject.as_deref() == Some(subject);
    ours.then(|| Decided {
        offset: record.offset,
        after: decision.after,
        command_offset: decision.offset,
        user_id: record.key.and_then(|key| String::from_utf8(key.to_vec()).ok()),
        at_ms: record.timestamp,
    })
}
