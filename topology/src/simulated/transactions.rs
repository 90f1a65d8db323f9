//! What the transaction coordinator remembers: identities with epochs, and the transactions they have open.

use std::collections::{BTreeMap, BTreeSet};

use super::log::ProducerId;
use crate::broker::{BrokerError, Reaction, Result};
use crate::record::{TopicId, TopicPartition};

/// What a producer proves itself with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    /// The transactional id.
    pub id: String,
    pub producer: ProducerId,
    pub epoch: u32,
}

/// What a transaction touched.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    pub partitions: BTreeSet<TopicPartition>,
    pub groups: BTreeSet<String>,
}

/// `Empty -> Ongoing -> (Decided ->) Complete -> Ongoing ...`
#[derive(Clone, Debug)]
pub(super) enum State {
    Empty,
    Ongoing {
        since_ms: u64,
        scope: Scope,
    },
    /// Decided and answered, its markers still under way.
    Decided {
        commit: bool,
        due_ms: u64,
        scope: Scope,
    },
    Complete {
        commit: bool,
    },
}

#[derive(Debug)]
pub(super) struct Identity {
    pub producer: ProducerId,
    pub epoch: u32,
    pub timeout_ms: u64,
    pub state: State,
}

/// All transactional identities.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    pub identities: BTreeMap<String, Identity>,
    /// The last one given.
    pub producers: ProducerId,
}

/// A transaction that is neither committed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// The transactional id.
    pub transactional_id: String,
    /// The epoch that opened it.
    pub epoch: u32,
    /// When, on the virtual clock.
    pub since_ms: u64,
    /// Where it wrote.
    pub partitions: Vec<TopicPartition>,
}

impl Transactions {
    pub fn open(&self) -> Vec<OpenTransaction> {
        let open = |(id, identity): (&String, &Identity)| match &identity.state {
            State::Ongoing { since_ms, scope } => Some(OpenTransaction {
                transactional_id: id.clone(),
                epoch: identity.epoch,
                since_ms: *since_ms,
                partitions: scope.partitions.iter().copied().collect(),
            }),
            _ => None,
        };
        self.identities.iter().filter_map(open).collect()
    }

    /// Producers whose transactions in this partition are decided to commit, and whose markers are still under way.
    pub fn committing(&self, partition: TopicPartition) -> BTreeSet<ProducerId> {
        let commits = |identity: &&Identity| matches!(&identity.state, State::Decided { commit: true, scope, .. } if scope.partitions.contains(&partition));
        self.identities.values().filter(commits).map(|identity| identity.producer).collect()
    }

    pub fn epoch(&self, id: &str) -> Option<u32> {
        self.identities.get(id).map(|identity| identity.epoch)
    }

    pub fn forget_topic(&mut self, topic: TopicId) {
        for identity in self.identities.values_mut() {
            if let State::Ongoing { scope, .. } | State::Decided { scope, .. } = &mut identity.state {
                scope.partitions.retain(|partition| partition.topic != topic);
            }
        }
    }

    /// The identity, if the credentials are its newest.
    pub fn admit(&mut self, who: &Credentials) -> Result<&mut Identity> {
        match self.identities.get_mut(&who.id) {
            Some(identity) if identity.producer == who.producer && identity.epoch == who.epoch => Ok(identity),
            _ => Err(BrokerError::new(Reaction::Fenced, format!("a newer producer took the identity {}", who.id))),
        }
    }
}
