//! The client's producer: what was sent and not yet acknowledged, and what went wrong with it.
//!
//! Records reach the log as they are sent. One that a fault holds back keeps all later ones of its partition behind it, as an idempotent
//! producer does, until a flush delivers them; what failed is told by the flush.

use std::collections::{BTreeSet, VecDeque};

use super::caller::Caller;
use super::cluster::{Cluster, Due, Request};
use super::faults::{Fault, Op, injected};
use super::log::Payload;
use super::transactions::Credentials;
use crate::broker::{BrokerError, Result};
use crate::record::{Outgoing, TopicPartition};

/// A record not yet in the log.
struct Held {
    to: TopicPartition,
    /// Its place among the positions of the records sent since the last flush.
    place: usize,
    payload: Payload,
    /// Set where the request itself is late, and arrives whether the producer still lives or not.
    late: Option<Due>,
}

#[derive(Default)]
pub(super) struct Producer {
    /// None outside of transactions.
    pub credentials: Option<Credentials>,
    /// The partitions that this client made part of the open transaction.
    added: BTreeSet<TopicPartition>,
    /// Offsets may be part of it.
    pub has_offsets: bool,
    held: VecDeque<Held>,
    failed: Option<BrokerError>,
    /// Where each record since the last flush went, if that is asked for; none while it is held or has failed.
    positions: Option<Vec<(TopicPartition, Option<u64>)>>,
}

impl Producer {
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, ..Self::default() }
    }

    /// One outside of transactions that remembers where its records went.
    pub fn with_positions() -> Self {
        Self { positions: Some(Vec::new()), ..Self::default() }
    }

    /// True where the broker has something of the open transaction to end.
    pub fn has_something(&self) -> bool {
        self.has_offsets || !self.added.is_empty()
    }

    /// What was part of a transaction is of no concern to the next one.
    pub fn forget_transaction(&mut self) {
        self.added.clear();
        self.has_offsets = false;
    }

    /// Sends a record. Errors of its delivery are the next flush's; only a crash is told at once.
    pub fn send(&mut self, caller: &mut Caller, op: Op, record: &Outgoing<'_>) -> Result<()> {
        let fault = caller.ask_to_send(op, record.to)?;
        let mut cluster = caller.shared.cluster();
        if let Err(error) = self.add(&mut cluster, record.to) {
            self.fail(error);
            return Ok(());
        }
        let place = self.positions.as_ref().map_or(0, Vec::len);
        if let Some(positions) = &mut self.positions {
            positions.push((record.to, None));
        }
        let behind = self.held.iter().any(|held| held.to == record.to);
        let held = |late| Held { to: record.to, place, payload: Payload::of(record), late };
        match fault {
            Fault::Error(reaction) => self.fail(injected(op, reaction)),
            Fault::Crash { done } => {
                if done && !behind {
                    self.write(&mut cluster, place, record.to, Payload::of(record));
                }
                drop(cluster);
                return Err(caller.crash());
            }
            // A publisher's caller must be told where its records went, so its late ones only wait.
            Fault::Late(ms) if !behind && op == Op::Send => {
                let request = Request::Produce { who: self.credentials.clone(), to: record.to, payload: Payload::of(record) };
                self.held.push_back(held(Some(cluster.hold(ms, request))));
            }
            Fault::LostRequest | Fault::Late(_) => self.held.push_back(held(None)),
            // The retry of a record whose acknowledgement was lost is recognised by its sequence number.
            Fault::None | Fault::LostAnswer | Fault::SlowMarkers(_) if behind => self.held.push_back(held(None)),
            Fault::None | Fault::LostAnswer | Fault::SlowMarkers(_) => {
                self.write(&mut cluster, place, record.to, Payload::of(record));
            }
        }
        Ok(())
    }

    /// Makes a partition part of the transaction before its first record is sent. Only then: if a late request to end a transaction
    /// has taken this one away meanwhile, what follows is refused.
    fn add(&mut self, cluster: &mut Cluster, to: TopicPartition) -> Result<()> {
        if let Some(who) = &self.credentials
            && !self.added.contains(&to)
        {
            cluster.add_partition(who, to)?;
            self.added.insert(to);
        }
        Ok(())
    }

    fn write(&mut self, cluster: &mut Cluster, place: usize, to: TopicPartition, payload: Payload) {
        match (cluster.produce(self.credentials.as_ref(), to, payload), &mut self.positions) {
            (Ok(offset), Some(positions)) => positions[place].1 = Some(offset),
            (Ok(_), None) => {}
            (Err(error), _) => self.fail(error),
        }
    }

    fn fail(&mut self, error: BrokerError) {
        self.failed.get_or_insert(error);
    }

    /// Delivers what is held back and tells what failed since the last flush. A late request that has arrived needs nothing more.
    /// Where something failed, the positions of its companions are of no use either: the caller has to send all of them again.
    pub fn flush(&mut self, cluster: &mut Cluster) -> Result<()> {
        while let Some(held) = self.held.pop_front() {
            let arrived = held.late.is_some_and(|due| cluster.take_back(due).is_none());
            if !arrived {
                self.write(cluster, held.place, held.to, held.payload);
            }
        }
        match self.failed.take() {
            None => Ok(()),
            Some(error) => {
                self.forget_positions();
                Err(error)
            }
        }
    }

    /// Where the records sent since the last flush went, in order: after a flush that succeeded.
    pub fn take_positions(&mut self, into: &mut Vec<(TopicPartition, u64)>) {
        let known = |offset: Option<u64>| offset.expect("invariant: what was flushed without failure has an offset");
        let positions = self.positions.iter_mut().flat_map(|positions| positions.drain(..));
        into.extend(positions.map(|(to, offset)| (to, known(offset))));
    }

    pub fn forget_positions(&mut self) {
        self.positions.iter_mut().for_each(Vec::clear);
    }

    /// Forgets what was sent and not delivered, late requests included: their sequence numbers no longer fit.
    pub fn purge(&mut self, cluster: &mut Cluster) {
        for held in self.held.drain(..) {
            if let Some(due) = held.late {
                cluster.take_back(due);
            }
        }
        self.failed = None;
        self.forget_positions();
    }
}
