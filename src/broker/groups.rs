//! Looking at a group from outside: what commands ask before they act in an application's name.

use topology::broker::{Broker, Result};
use topology::record::TopicPartition;

/// A broker whose groups can be looked at by someone who is not in them. Nothing here changes a group.
pub trait Groups: Broker {
    /// The members that the group has now, each as a person would recognise it; none where it has no member or does not exist.
    ///
    /// # Errors
    /// The broker's.
    fn members(&self, group: &str) -> Result<Vec<String>>;

    /// The group's committed offsets; waits as [`topology::broker::Member::committed`] does.
    ///
    /// # Errors
    /// The broker's.
    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<u64>>>;
}
