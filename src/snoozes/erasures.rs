//! Who is erased is snoozed no more, whoever ordered it: an erasure that was written straight to `commands` shows in the decisions only.
//!
//! Every instance that knows of a snoozed user follows the decisions, of the past as well, and ends what began before the erasure. So nothing
//! is kept of how far it is: what one instance missed, it or another one ends at its next look or its next start. Decisions older than the last
//! [`LOOKED_BACK`] of a partition are not looked at again.

use std::sync::Arc;
use std::time::Duration;

use topology::broker::{Broker, BrokerError, Reader as _};
use topology::decision::Decision;
use topology::record::{Fetched, Record, TopicPartition};
use topology::topology::Topology;

use super::{Kind, Snoozes};
use crate::scoring::CommandKind;

/// Offsets of each partition that are looked at when it begins.
const LOOKED_BACK: u64 = 100_000;
/// Records of one look.
const POLL: usize = 1_000;
/// Arena memory that stays between looks.
const KEEP_BYTES: usize = 1 << 20;

/// See the module's header.
pub struct Erasures<B: Broker> {
    broker: Arc<B>,
    decisions: Vec<TopicPartition>,
    /// None while no user is snoozed, and after a failure.
    reader: Option<B::Reader>,
    fetched: Fetched,
}

impl<B: Broker> Erasures<B> {
    /// Of a topology whose topics have so many partitions, in the order of its table; nothing is asked of the broker yet.
    #[must_use]
    pub fn new(broker: &Arc<B>, topology: &Topology, partitions: &[u32]) -> Self {
        let topics = topology.subs().iter().filter_map(|sub| sub.decisions);
        let of = |topic: topology::record::TopicId| {
            (0..partitions[usize::from(topic.0)]).map(move |partition| TopicPartition { topic, partition })
        };
        Self { broker: Arc::clone(broker), decisions: topics.flat_map(of).collect(), reader: None, fetched: Fetched::default() }
    }

    /// Ends the snoozes of users that the next decisions erased; waits for news at most `wait`.
    ///
    /// # Errors
    /// The broker's: the next look begins anew.
    pub(super) fn look(&mut self, snoozes: &Snoozes, wait: Duration) -> Result<(), BrokerError> {
        if !snoozes.names_users() {
            self.reader = None;
            return Ok(());
        }
        let looked = self.try_look(snoozes, wait);
        if looked.is_err() {
            self.reader = None;
        }
        looked
    }

    fn try_look(&mut self, snoozes: &Snoozes, wait: Duration) -> Result<(), BrokerError> {
        if self.reader.is_none() {
            let mut reader = self.broker.reader()?;
            for (&at, bounds) in self.decisions.iter().zip(reader.bounds_of(&self.decisions)?) {
                reader.assign(at, bounds.start.max(bounds.end.saturating_sub(LOOKED_BACK)))?;
            }
            self.reader = Some(reader);
        }
        let reader = self.reader.as_mut().expect("invariant: made above");
        self.fetched.clear(KEEP_BYTES);
        reader.poll(&mut self.fetched, POLL, wait)?;
        let mut erased = self.fetched.iter().filter_map(|record| erased(&record).map(|user| (user.to_owned(), record.timestamp)));
        erased.try_for_each(|(user, at_ms)| snoozes.end_before(&Kind::User.key(&user), at_ms))
    }
}

/// Whom a decision erased, if anyone.
fn erased<'r>(record: &Record<'r>) -> Option<&'r str> {
    let decision = Decision::decode(record.value?).ok()?;
    if decision.kind == CommandKind::Erase.as_str() { std::str::from_utf8(record.key?).ok() } else { None }
}
