//! Groups seen from outside. All members are in this process.

use topology::broker::Result;
use topology::record::TopicPartition;

use super::EmbeddedBroker;
use crate::broker::Groups;

impl Groups for EmbeddedBroker {
    fn members(&self, group: &str) -> Result<Vec<String>> {
        let core = self.shared.lock();
        core.check()?;
        Ok(core.groups.get(group).map(super::group::Group::instances).unwrap_or_default())
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<u64>>> {
        let core = self.shared.lock();
        core.check()?;
        let offsets = core.groups.get(group).map(|group| &group.offsets);
        Ok(partitions.iter().map(|partition| offsets.and_then(|offsets| offsets.get(partition).copied())).collect())
    }
}
