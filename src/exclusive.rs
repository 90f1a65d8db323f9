//! Acting in the name of a group, alone: a member that owns all partitions, and reads and transactions under that ownership.
//!
//! Who commits through [`Exclusive`] is fenced by the group like any worker: where another member joins, the next step fails instead of
//! writing beside it, and a second run under the same identity ends the first one.

use std::collections::BTreeSet;
use std::time::Duration;

use topology::broker::{Broker, BrokerError, Event, Member, MemberConfig, Reaction, Reader, Result};
use topology::record::{Fetched, Outgoing, Record, TopicId, TopicPartition};

use crate::clock::{monotonic, since};

/// How long the group may take to give us its partitions: a rebalance, and the session of one that was killed.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
/// How long a read may stand still: longer than any transaction that somebody left open.
const READ_PATIENCE: Duration = Duration::from_secs(120);
/// One wait for records or events.
const WAIT: Duration = Duration::from_millis(100);
/// Records of one read.
pub const CHUNK: usize = 1_000;

/// Hands a record to the open transaction.
pub type Sending<'a> = dyn FnMut(&Outgoing<'_>) -> Result<()> + 'a;
/// Offsets to be committed: the next to read.
pub type Offsets = Vec<(TopicPartition, u64)>;

/// A member that owns everything its group hands out.
pub struct Exclusive<B: Broker> {
    member: B::Member,
    group: String,
    owned: BTreeSet<TopicPartition>,
}

/// How a command joins: its identity is the same at each run, so that a repetition ends what an interrupted run left open.
#[must_use]
pub fn identity(group: &str, instance: &str, leads: Vec<TopicId>) -> MemberConfig {
    MemberConfig {
        group: group.to_owned(),
        instance: instance.to_owned(),
        transactional_id: Some(instance.to_owned()),
        transaction_timeout_ms: 15_000,
        leads,
    }
}

impl<B: Broker> Exclusive<B> {
    /// Joins and waits until all these partitions are ours.
    ///
    /// # Errors
    /// The broker's, and where others in the group keep partitions.
    pub fn join(broker: &B, config: &MemberConfig, partitions: &[TopicPartition]) -> Result<Self> {
        let began = monotonic();
        let member = loop {
            match broker.join(config) {
                Err(BrokerError { reaction: Reaction::Retry, .. }) if since(began) < JOIN_PATIENCE => {
                    std::thread::park_timeout(WAIT);
                }
                joined => break joined?,
            }
        };
        let mut this = Self { member, group: config.group.clone(), owned: BTreeSet::new() };
        while !partitions.iter().all(|partition| this.owned.contains(partition)) {
            this.follow(WAIT)?;
            if since(began) > JOIN_PATIENCE {
                let what = format!("group {} did not hand out all partitions: somebody else is in it", this.group);
                return Err(BrokerError::new(Reaction::Stop, what));
            }
        }
        Ok(this)
    }

    /// Follows the group; an error where it takes anything from us.
    ///
    /// # Errors
    /// The broker's, and where another member joined.
    pub fn follow(&mut self, wait: Duration) -> Result<()> {
        let mut fetched = Fetched::default();
        let event = match self.member.poll(&mut fetched, CHUNK, wait) {
            Err(BrokerError { reaction: Reaction::Retry, .. }) => return Ok(()),
            event => event?,
        };
        let Some(event) = event else { return Ok(()) };
        self.member.acknowledge(&event)?;
        match event {
            Event::Assigned(partitions) => self.owned.extend(partitions),
            Event::Revoked(gone) | Event::Lost(gone) if !gone.is_empty() => {
                let what = format!("another member joined group {}: nothing more is done beside it", self.group);
                return Err(BrokerError::new(Reaction::Stop, what));
            }
            Event::Revoked(_) | Event::Lost(_) => {}
        }
        Ok(())
    }

    /// Writes records and commits the offsets that `write` gives in one transaction; all of it or nothing.
    ///
    /// # Errors
    /// The broker's. After [`Reaction::Unknown`] it may have happened all the same.
    pub fn transact(&mut self, write: impl FnOnce(&mut Sending<'_>) -> Result<Offsets>) -> Result<()> {
        self.follow(Duration::ZERO)?;
        self.member.begin()?;
        let done = write(&mut |record| self.member.send(record)).and_then(|offsets| {
            let token = self.member.token()?;
            self.member.commit(&offsets, token)
        });
        if done.is_err() {
            // The first failure is the one to tell; the next run's producer ends what cannot be aborted now.
            let _ = self.member.abort();
        }
        done
    }

    /// Leaves the group.
    ///
    /// # Errors
    /// The broker's.
    pub fn leave(mut self) -> Result<()> {
        self.member.leave(true)
    }
}

/// Reads a partition's committed records of `from..until`, in order, a chunk at a time; `each` also gets the offset up to which all is read.
///
/// # Errors
/// The broker's or those of `each`; where an open transaction hides the rest for too long.
pub fn read<R: Reader, E: From<BrokerError>>(
    reader: &mut R,
    at: TopicPartition,
    from: u64,
    until: u64,
    each: impl FnMut(&Fetched, u64) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    if read_within(reader, at, from, until, READ_PATIENCE, each)? {
        return Ok(());
    }
    let what = "a partition cannot be read to its end: a transaction is open on it, or the broker does not answer";
    Err(BrokerError::new(Reaction::Retry, what).into())
}

/// As [`read`], and false where nothing came for so long: the rest may be an open transaction's.
///
/// # Errors
/// The broker's or those of `each`.
pub fn read_within<R: Reader, E: From<BrokerError>>(
    reader: &mut R,
    at: TopicPartition,
    from: u64,
    until: u64,
    patience: Duration,
    mut each: impl FnMut(&Fetched, u64) -> std::result::Result<(), E>,
) -> std::result::Result<bool, E> {
    if from >= until {
        return Ok(true);
    }
    reader.assign(at, from)?;
    let mut fetched = Fetched::default();
    let (mut position, mut moved) = (from, monotonic());
    while position < until && since(moved) < patience {
        fetched.clear(1 << 20);
        match reader.poll(&mut fetched, CHUNK, WAIT) {
            Err(BrokerError { reaction: Reaction::Retry, .. }) => {}
            polled => polled?,
        }
        let now = reader.position(at).unwrap_or(position);
        if now > position || !fetched.is_empty() {
            each(&fetched, now.max(position))?;
            (position, moved) = (now.max(position), monotonic());
        }
    }
    reader.unassign(at)?;
    Ok(position >= until)
}

/// The records of a chunk below an offset: a read may fetch more than was asked for.
pub fn below(fetched: &Fetched, until: u64) -> impl Iterator<Item = Record<'_>> {
    fetched.iter().filter(move |record| record.offset < until)
}

/// All partitions of topics, by how many each has.
#[must_use]
pub fn partitions(counts: &[(TopicId, u32)]) -> Vec<TopicPartition> {
    counts.iter().flat_map(|&(topic, count)| (0..count).map(move |partition| TopicPartition { topic, partition })).collect()
}
