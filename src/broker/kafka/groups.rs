//! Groups seen from outside: their members, and committed offsets without joining.

use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use topology::broker::{BrokerError, Reaction, Result};
use topology::record::{TopicPartition, Topics};

use super::context::Plain;
use super::{KafkaBroker, errors};
use crate::broker::Groups;

impl KafkaBroker {
    fn asking(&self, group: &str) -> Result<BaseConsumer<Plain>> {
        let config = self.desk.config();
        let mut asking = config.asking();
        // Committed offsets are then answered only when no open transaction is about to change them.
        asking.set("group.id", group).set("isolation.level", "read_committed");
        asking.create_with_context(Plain::default()).map_err(|error| errors::of_read("asking about a group", &error))
    }
}

impl Groups for KafkaBroker {
    fn members(&self, group: &str) -> Result<Vec<String>> {
        let answer = self.asking(group)?.fetch_group_list(Some(group), self.desk.config().request_timeout());
        let list = answer.map_err(|error| errors::of_read(&format!("asking who is in group {group}"), &error))?;
        let members = list.groups().iter().filter(|found| found.name() == group).flat_map(|found| found.members());
        Ok(members.map(|member| format!("{} at {}", member.id(), member.client_host())).collect())
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<u64>>> {
        let doing = format!("asking for committed offsets of group {group}");
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(self.topics.name(partition.topic), partition.partition as i32);
        }
        let timeout = self.desk.config().request_timeout();
        let answer = self.asking(group)?.committed_offsets(list, timeout).map_err(|error| errors::of_read(&doing, &error))?;
        next_offsets(&self.topics, &answer, partitions, &doing)
    }
}

/// What a group's coordinator answered for these partitions: the next offset to read, where one was committed.
pub(super) fn next_offsets(
    topics: &Topics,
    answer: &TopicPartitionList,
    partitions: &[TopicPartition],
    doing: &str,
) -> Result<Vec<Option<u64>>> {
    let next = |partition: &TopicPartition| {
        let name = topics.name(partition.topic);
        let missing = || BrokerError::new(Reaction::Retry, format!("{doing}: no answer for topic {name}"));
        let found = answer.find_partition(name, partition.partition as i32).ok_or_else(missing)?;
        found.error().map_err(|error| errors::of_read(doing, &error))?;
        Ok(match found.offset() {
            Offset::Offset(offset) => Some(offset as u64),
            _ => None,
        })
    };
    partitions.iter().map(next).collect()
}
