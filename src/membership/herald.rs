//! The thread that announces this instance and listens to the others.
//!
//! It announces at each change of what the workers have and at each beat, and says so with a tombstone when the instance leaves for
//! good. What fails is tried again: the group works without it, only queries and take-overs lose their hints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use topology::broker::{Broker, BrokerError, Publisher, Reader};
use topology::clock::Clock;
use topology::predecessors::{Predecessor, Predecessors};
use topology::record::{Fetched, Outgoing, TopicId, TopicPartition};
use topology::status::{CopyStatus, Tasks};
use topology::topology::TaskId;
use tracing::{debug, info, warn};

use super::announcement::{Announcement, Claims, StandbyNote, pair};
use super::directory::{Directory, Peer};
use super::roster::Roster;
use crate::clock::monotonic;
use crate::threads::{ended_by, spawn};
use crate::trouble::Trouble;

/// How soon a change or an end is noticed.
const LOOK: Duration = Duration::from_millis(50);
/// After a failure.
const RETRY: Duration = Duration::from_millis(500);
/// Records that are read back at the start. Compaction is lazy; whoever matters is among so many of the last.
const BACK: u64 = 20_000;
/// Records of one poll.
const BITE: usize = 5_000;

/// What an instance says of itself, apart from what changes.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Its name.
    pub instance: String,
    /// Each worker's transactional id; none under at-least-once.
    pub workers: Vec<Option<String>>,
    /// The longest time between two announcements, in milliseconds.
    pub beat_ms: u64,
    /// The members topic.
    pub topic: TopicId,
    /// The sub-topology whose partitions hold users.
    pub users: u16,
}

/// What the thread and everybody else share.
struct Shared {
    roster: Mutex<Roster>,
    endpoint: OnceLock<String>,
    /// Set when it is to end: true for good.
    end: OnceLock<bool>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    fn roster(&self) -> MutexGuard<'_, Roster> {
        // Each change is whole: a thread that panicked left a roster behind that is right.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn monotonic_ms(&self) -> i64 {
        i64::try_from(self.clock.monotonic_us() / 1000).unwrap_or(i64::MAX)
    }
}

/// A running herald; see the module's header.
pub struct Herald {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What this instance knows of all.
struct Known(Arc<Shared>);

impl Herald {
    /// Starts the thread.
    ///
    /// # Panics
    /// Where the system gives no thread.
    pub fn start<B: Broker>(broker: &Arc<B>, introduction: Introduction, tasks: &Arc<Tasks>, clock: &Arc<dyn Clock>) -> Self {
        let mut rounds = Rounds::new(broker, introduction, tasks, clock);
        let shared = Arc::clone(&rounds.shared);
        Self { shared, thread: spawn("herald", move || rounds.run()) }
    }

    /// Where this instance serves HTTP from now on, `host:port`. The first word counts.
    pub fn serves_at(&self, endpoint: &str) {
        // Told twice is told once: a server binds before it serves.
        let _ = self.shared.endpoint.set(endpoint.to_owned());
        self.thread.thread().unpark();
    }

    /// What is known of all instances.
    #[must_use]
    pub fn directory(&self) -> Arc<dyn Directory> {
        Arc::new(Known(Arc::clone(&self.shared)))
    }

    /// The copies that this instance is to keep, asked anew at each change; none while too little is known.
    pub fn copies_to_keep(&self, tasks: Vec<TaskId>, replicas: usize) -> impl Fn() -> Option<BTreeSet<TaskId>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.roster().copies_to_keep(&tasks, replicas, shared.monotonic_ms())
    }

    /// What is known of who held tasks before.
    #[must_use]
    pub fn predecessors(&self) -> Arc<dyn Predecessors> {
        Arc::new(Known(Arc::clone(&self.shared)))
    }

    /// Says goodbye, for good or until the restart, and ends; gives up after `within`.
    pub fn stop(self, for_good: bool, within: Duration) {
        let _ = self.shared.end.set(for_good);
        ended_by(&self.thread, monotonic() + within);
    }
}

impl Predecessors for Known {
    fn of(&self, task: TaskId, mine: &str) -> Vec<Predecessor> {
        let claims = self.0.roster().claims(task, mine, self.0.monotonic_ms());
        claims.into_iter().map(|(transactional_id, silent)| Predecessor { transactional_id, silent }).collect()
    }

    fn ended(&self, transactional_id: &str) {
        self.0.roster().settle(transactional_id);
    }
}

impl Directory for Known {
    fn me(&self) -> String {
        self.0.roster().me().to_owned()
    }

    fn owner(&self, partition: u32) -> Option<Peer> {
        self.0.roster().owner(partition, self.0.monotonic_ms())
    }

    fn standbys(&self, partition: u32) -> Vec<Peer> {
        self.0.roster().standbys(partition, self.0.monotonic_ms())
    }

    fn members(&self) -> Vec<Peer> {
        self.0.roster().members(self.0.monotonic_ms())
    }
}

/// What was announced last, apart from how far copies are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    /// Worker and task.
    tasks: Vec<(usize, TaskId)>,
    /// The copies.
    copies: Vec<TaskId>,
    /// Where HTTP is served.
    endpoint: Option<String>,
}

pub(super) struct Rounds<B: Broker> {
    broker: Arc<B>,
    introduction: Introduction,
    tasks: Arc<Tasks>,
    shared: Arc<Shared>,
    reader: Option<B::Reader>,
    publisher: Option<B::Publisher>,
    fetched: Fetched,
    started_ms: i64,
    beat: u64,
    said: Option<Said>,
    said_at_ms: i64,
    /// The end of the topic when it was first read: what lies below is older than this process.
    caught_up_at: u64,
    trouble: Trouble,
}

impl<B: Broker> Rounds<B> {
    pub(super) fn new(broker: &Arc<B>, introduction: Introduction, tasks: &Arc<Tasks>, clock: &Arc<dyn Clock>) -> Self {
        let shared = Arc::new(Shared {
            roster: Mutex::new(Roster::new(&introduction.instance, introduction.users)),
            endpoint: OnceLock::new(),
            end: OnceLock::new(),
            clock: Arc::clone(clock),
        });
        Self {
            broker: Arc::clone(broker),
            started_ms: clock.now_ms(),
            introduction,
            tasks: Arc::clone(tasks),
            shared,
            reader: None,
            publisher: None,
            fetched: Fetched::default(),
            beat: 0,
            said: None,
            said_at_ms: 0,
            caught_up_at: 0,
            trouble: Trouble::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn directory(&self) -> Arc<dyn Directory> {
        Arc::new(Known(Arc::clone(&self.shared)))
    }

    fn run(&mut self) {
        let for_good = loop {
            if let Some(&for_good) = self.shared.end.get() {
                break for_good;
            }
            match self.round(LOOK) {
                Ok(()) => self.trouble.is_over(),
                Err(why) => {
                    if self.trouble.is_news(&why) {
                        warn!(%why, "the members topic cannot be used; trying again");
                    }
                    (self.reader, self.publisher) = (None, None);
                    std::thread::park_timeout(RETRY);
                }
            }
        };
        if let Err(why) = self.leave(for_good) {
            debug!(%why, "this instance's end could not be announced: others will notice its silence");
        }
    }

    /// Announces what is due and listens for a while.
    pub(super) fn round(&mut self, wait: Duration) -> Result<(), BrokerError> {
        self.announce_if_due()?;
        self.listen(wait)
    }

    fn partition(&self) -> TopicPartition {
        TopicPartition { topic: self.introduction.topic, partition: 0 }
    }

    fn listen(&mut self, wait: Duration) -> Result<(), BrokerError> {
        let from = self.partition();
        if self.reader.is_none() {
            let mut reader = self.broker.reader()?;
            let bounds = reader.bounds(from)?;
            reader.assign(from, bounds.start.max(bounds.end.saturating_sub(BACK)))?;
            self.caught_up_at = bounds.end;
            self.reader = Some(reader);
        }
        let reader = self.reader.as_mut().expect("invariant: made above");
        self.fetched.clear(1 << 20);
        reader.poll(&mut self.fetched, BITE, wait)?;
        let (now_ms, wall_ms) = (self.shared.monotonic_ms(), self.shared.clock.now_ms());
        let mut roster = self.shared.roster();
        for record in self.fetched.iter() {
            let Some(key) = record.key else { continue };
            let Some(value) = record.value else {
                let name = String::from_utf8_lossy(key);
                info!(instance = %name, "an instance has left for good");
                roster.forget(&name);
                continue;
            };
            match Announcement::decode(key, value) {
                Ok(said) => {
                    // What was written before this process listened is as old as the clocks say; all else is heard at once.
                    let before = record.offset < self.caught_up_at;
                    let age_ms = if before { wall_ms.saturating_sub(said.at_ms).max(0) } else { 0 };
                    roster.hear(said, now_ms.saturating_sub(age_ms));
                }
                Err(why) => debug!(offset = record.offset, %why, "a record of the members topic is ignored"),
            }
        }
        roster.sweep(now_ms);
        Ok(())
    }

    fn announce_if_due(&mut self) -> Result<(), BrokerError> {
        let copies = self.tasks.copies();
        let saying = Said {
            tasks: self.tasks.all().into_iter().map(|(task, status)| (status.worker, task)).collect(),
            copies: copies.keys().copied().collect(),
            endpoint: self.shared.endpoint.get().cloned(),
        };
        let now_ms = self.shared.monotonic_ms();
        let beat_ms = i64::try_from(self.introduction.beat_ms).unwrap_or(i64::MAX);
        if self.said.as_ref() == Some(&saying) && now_ms - self.said_at_ms < beat_ms {
            return Ok(());
        }
        self.announce(&saying, &copies)?;
        (self.said, self.said_at_ms) = (Some(saying), now_ms);
        Ok(())
    }

    fn announce(&mut self, saying: &Said, copies: &BTreeMap<TaskId, CopyStatus>) -> Result<(), BrokerError> {
        self.beat += 1;
        let workers = self.introduction.workers.iter().enumerate().map(|(at, transactional_id)| Claims {
            worker: at as u32,
            transactional_id: transactional_id.clone(),
            tasks: saying.tasks.iter().filter(|(worker, _)| *worker == at).map(|(_, task)| pair(*task)).collect(),
        });
        let announcement = Announcement {
            instance: self.introduction.instance.clone(),
            started_ms: self.started_ms,
            endpoint: saying.endpoint.clone(),
            beat: self.beat,
            beat_ms: self.introduction.beat_ms,
            at_ms: self.shared.clock.now_ms(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            codec: state::codec::VERSION,
            workers: workers.collect(),
            standbys: copies.iter().map(|(task, copy)| note(*task, copy)).collect(),
        };
        self.publish(Some(&announcement.encode()))
    }

    fn publish(&mut self, value: Option<&[u8]>) -> Result<(), BrokerError> {
        if self.publisher.is_none() {
            self.publisher = Some(self.broker.publisher()?);
        }
        let publisher = self.publisher.as_mut().expect("invariant: made above");
        let key = Some(self.introduction.instance.as_bytes());
        let to = TopicPartition { topic: self.introduction.topic, partition: 0 };
        publisher.send(&Outgoing { to, key, value, timestamp: self.shared.clock.now_ms(), headers: &[] })?;
        publisher.flush()
    }

    /// The last word: gone for good, or without tasks until the restart.
    pub(super) fn leave(&mut self, for_good: bool) -> Result<(), BrokerError> {
        if for_good { self.publish(None) } else { self.announce(&Said::default(), &BTreeMap::new()) }
    }
}

/// A copy is as far as the store that is furthest behind.
fn note(task: TaskId, copy: &CopyStatus) -> StandbyNote {
    let position = copy.changelogs.iter().map(|(_, position)| *position).min().unwrap_or(0);
    StandbyNote { task: pair(task), position, lag: copy.lag }
}
