//! Who gets which partition: balanced, and as sticky as balance allows (the cooperative-sticky assignor's aim).
//!
//! This function performs no I/O and looks at nothing but its arguments.

use std::collections::BTreeSet;

use crate::record::{TopicId, TopicPartition};

/// A member's claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    /// The topics that it takes partitions of.
    pub leads: &'a [TopicId],
    /// The partitions that it holds.
    pub owned: &'a BTreeSet<TopicPartition>,
}

/// The partitions that each member should have in the end, in the order of the claims.
pub(super) fn assign(claims: &[Claim<'_>], partitions: &[TopicPartition]) -> Vec<BTreeSet<TopicPartition>> {
    let mut target: Vec<BTreeSet<TopicPartition>> = vec![BTreeSet::new(); claims.len()];
    let takes = |member: usize, partition: &TopicPartition| claims[member].leads.contains(&partition.topic);
    for partition in partitions {
        let holder = (0..claims.len()).find(|&m| takes(m, partition) && claims[m].owned.contains(partition));
        if let Some(member) = holder {
            target[member].insert(*partition);
        }
    }
    for partition in partitions {
        if !target.iter().any(|set| set.contains(partition)) {
            let least = (0..claims.len()).filter(|&m| takes(m, partition)).min_by_key(|&m| target[m].len());
            if let Some(member) = least {
                target[member].insert(*partition);
            }
        }
    }
    while let Some((from, to, partition)) = unbalanced(&target, &takes) {
        target[from].remove(&partition);
        target[to].insert(partition);
    }
    target
}

/// A partition whose move evens out two members. The last one of the fuller member goes: each move lowers the sum of squares, so this ends.
fn unbalanced(
    target: &[BTreeSet<TopicPartition>],
    takes: &impl Fn(usize, &TopicPartition) -> bool,
) -> Option<(usize, usize, TopicPartition)> {
    for from in 0..target.len() {
        for to in 0..target.len() {
            if target[from].len() >= target[to].len() + 2
                && let Some(partition) = target[from].iter().rev().find(|partition| takes(to, partition))
            {
                return Some((from, to, *partition));
            }
        }
    }
    None
}
