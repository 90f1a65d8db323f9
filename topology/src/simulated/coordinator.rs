//! The transaction coordinator: identities with epochs, open transactions, their timeouts and markers.
//!
//! Who initialises an identity gets its next epoch; what the previous epoch left open is aborted and all that it still sends is
//! refused. A request to end a transaction names identity and epoch only, as in Kafka without KIP-890's second part: a late one ends
//! whatever that epoch has open when it arrives (I8).

use super::cluster::{Cluster, stop};
use super::group::Seat;
use super::transactions::{Credentials, Identity, Scope, State};
use crate::broker::{BrokerError, Reaction, Result};
use crate::record::TopicPartition;

impl Cluster {
    /// Gives an identity its next epoch and ends what the previous one left.
    pub fn init_producer(&mut self, id: &str, timeout_ms: u64) -> Credentials {
        self.finish_markers(id);
        self.abort_ongoing(id);
        let transactions = &mut self.transactions;
        if !transactions.identities.contains_key(id) {
            transactions.producers += 1;
            let identity = Identity { producer: transactions.producers, epoch: 0, timeout_ms, state: State::Empty };
            transactions.identities.insert(id.to_owned(), identity);
        }
        let identity = transactions.identities.get_mut(id).expect("invariant: inserted above");
        identity.epoch += 1;
        identity.timeout_ms = timeout_ms;
        identity.state = State::Empty;
        Credentials { id: id.to_owned(), producer: identity.producer, epoch: identity.epoch }
    }

    /// Makes a partition part of the producer's transaction, opening one where none is open.
    pub fn add_partition(&mut self, who: &Credentials, partition: TopicPartition) -> Result<()> {
        self.log(partition)?;
        self.scope(who)?.partitions.insert(partition);
        Ok(())
    }

    /// Refuses a record of a transaction that is not open any more.
    pub fn verify(&mut self, who: &Credentials, partition: TopicPartition) -> Result<()> {
        match &self.transactions.admit(who)?.state {
            State::Ongoing { scope, .. } if scope.partitions.contains(&partition) => Ok(()),
            _ => Err(BrokerError::new(Reaction::Abort, format!("the transaction of {} is over", who.id))),
        }
    }

    /// Adds offsets to the producer's transaction: pending until it ends. `open` says whether they may open one.
    pub fn add_offsets(&mut self, who: &Credentials, seat: &Seat, offsets: &[(TopicPartition, u64)], open: bool) -> Result<()> {
        let has_group = |state: &State| matches!(state, State::Ongoing { scope, .. } if scope.groups.contains(&seat.group));
        if !open && !has_group(&self.transactions.admit(who)?.state) {
            return Err(stop("late offsets of a transaction that is over"));
        }
        // The transaction coordinator comes first and the group's second, so a refused member leaves a transaction open to be aborted.
        self.scope(who)?.groups.insert(seat.group.clone());
        let now_ms = self.now_ms;
        let group = self.groups.entry(seat.group.clone()).or_default();
        group.admit(seat, now_ms)?;
        group.hold(who.producer, offsets);
        Ok(())
    }

    fn scope(&mut self, who: &Credentials) -> Result<&mut Scope> {
        self.transactions.admit(who)?;
        // Until the markers of its last transaction are written Kafka answers "concurrent transactions", and the client tries again.
        self.finish_markers(&who.id);
        let now_ms = self.now_ms;
        let identity = self.transactions.admit(who)?;
        if !matches!(identity.state, State::Ongoing { .. }) {
            identity.state = State::Ongoing { since_ms: now_ms, scope: Scope::default() };
        }
        let State::Ongoing { scope, .. } = &mut identity.state else { unreachable!("invariant: opened above") };
        Ok(scope)
    }

    /// Ends whatever this identity and epoch have open. Asking again for the same end is answered as the first time.
    pub fn end_transaction(&mut self, who: &Credentials, commit: bool) -> Result<()> {
        let delay_ms = self.marker_delay_ms.take();
        let now_ms = self.now_ms;
        let identity = self.transactions.admit(who)?;
        match &identity.state {
            State::Ongoing { scope, .. } => {
                let (scope, due_ms) = (scope.clone(), now_ms.saturating_add(delay_ms.unwrap_or(0)));
                identity.state = State::Decided { commit, due_ms, scope };
                if delay_ms.is_none() {
                    self.finish_markers(&who.id);
                }
                Ok(())
            }
            State::Decided { commit: decided, .. } | State::Complete { commit: decided } if *decided == commit => Ok(()),
            _ => Err(BrokerError::new(Reaction::Fenced, format!("{} has no transaction to end", who.id))),
        }
    }

    fn abort_ongoing(&mut self, id: &str) {
        let Some(identity) = self.transactions.identities.get_mut(id) else { return };
        if let State::Ongoing { scope, .. } = &identity.state {
            identity.state = State::Decided { commit: false, due_ms: self.now_ms, scope: scope.clone() };
            self.finish_markers(id);
        }
    }

    /// Writes the markers of a decided transaction and settles its offsets.
    fn finish_markers(&mut self, id: &str) {
        let Some(identity) = self.transactions.identities.get_mut(id) else { return };
        let State::Decided { commit, scope, .. } = &identity.state else { return };
        let (producer, commit, scope) = (identity.producer, *commit, scope.clone());
        identity.state = State::Complete { commit };
        for partition in scope.partitions {
            if let Some(log) = self.log_mut(partition) {
                log.mark(producer, commit);
            }
        }
        for name in scope.groups {
            if let Some(group) = self.groups.get_mut(&name) {
                group.settle(producer, commit);
            }
        }
    }

    /// When the next transaction times out, or its slow markers appear.
    pub fn next_transaction_deadline(&self) -> Option<u64> {
        let deadline = |identity: &Identity| match &identity.state {
            State::Ongoing { since_ms, .. } => Some(since_ms.saturating_add(identity.timeout_ms)),
            State::Decided { due_ms, .. } => Some(*due_ms),
            State::Empty | State::Complete { .. } => None,
        };
        self.transactions.identities.values().filter_map(deadline).min()
    }

    /// Ends what is due by now. A timeout also takes the epoch from the producer, so that it can't go on as if nothing had happened.
    pub fn end_due_transactions(&mut self) {
        let now_ms = self.now_ms;
        let due = |identity: &Identity| match &identity.state {
            State::Ongoing { since_ms, .. } => since_ms.saturating_add(identity.timeout_ms) <= now_ms,
            State::Decided { due_ms, .. } => *due_ms <= now_ms,
            State::Empty | State::Complete { .. } => false,
        };
        let identities = &mut self.transactions.identities;
        let ids: Vec<String> = identities.iter().filter(|(_, it)| due(it)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            if let Some(identity) = self.transactions.identities.get_mut(&id)
                && matches!(identity.state, State::Ongoing { .. })
            {
                identity.epoch += 1;
                self.abort_ongoing(&id);
            } else {
                self.finish_markers(&id);
            }
        }
    }
}
