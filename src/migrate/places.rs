//! The topics of both applications in one table.

use topology::record::{TopicId, TopicPartition, Topics};
use topology::topology::Topology;

use super::{MigrateError, Result};

/// The topics of both applications. Inputs and changelogs of the two correspond by place.
#[derive(Clone, Debug)]
pub struct Places {
    /// The old application's id and group.
    pub old: String,
    /// The new one's.
    pub new: String,
    pub(super) old_inputs: Vec<TopicId>,
    pub(super) new_inputs: Vec<TopicId>,
    pub(super) old_changelogs: Vec<TopicId>,
    pub(super) new_changelogs: Vec<TopicId>,
    journal: TopicId,
    /// A topic that goes along, old and new.
    pub(super) carried: Option<(TopicId, TopicId)>,
    topics: Topics,
}

impl Places {
    /// Of two topologies of one kind.
    ///
    /// # Errors
    /// Where they are the same application, or not of the shape that can be moved: one sub-topology.
    pub fn of(old: &Topology, new: &Topology) -> Result<Self> {
        if old.application() == new.application() {
            return Err(MigrateError::Refused(format!(
                "the state of {} cannot move to itself: give a new id by --application",
                old.application()
            )));
        }
        let ([of_old], [of_new]) = (old.subs(), new.subs()) else {
            return Err(MigrateError::Refused(
                "under INPUT_PARTITIONING=any payments go through a repartition topic, which keeps its number of partitions when the input \
                 grows: nothing has to be moved. Start the instances again"
                    .into(),
            ));
        };
        let mut names: Vec<String> = Vec::new();
        let mut number = |name: &str| {
            let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            });
            TopicId(at as u16)
        };
        let mut all = |topology: &Topology, ids: &[TopicId]| -> Vec<TopicId> {
            ids.iter().map(|&id| number(topology.topics().name(id))).collect()
        };
        let (old_inputs, new_inputs) = (all(old, &of_old.inputs), all(new, &of_new.inputs));
        let changelogs = |topology: &Topology| topology.changelogs().collect::<Vec<_>>();
        let (old_changelogs, new_changelogs) = (all(old, &changelogs(old)), all(new, &changelogs(new)));
        let journal = number(&format!("{}-migration", new.application()));
        let (old, new) = (old.application().to_owned(), new.application().to_owned());
        let topics = Topics::new(names);
        Ok(Self { old, new, old_inputs, new_inputs, old_changelogs, new_changelogs, journal, carried: None, topics })
    }

    /// Has a compacted topic of one partition go along, by its names in the two applications.
    #[must_use]
    pub fn carrying(mut self, old: &str, new: &str) -> Self {
        let mut names: Vec<String> = self.topics.iter().map(|(_, name)| name.to_owned()).collect();
        let (from, to) = (TopicId(names.len() as u16), TopicId(names.len() as u16 + 1));
        names.extend([old.to_owned(), new.to_owned()]);
        self.topics = Topics::new(names);
        self.carried = Some((from, to));
        self
    }

    /// The table of topics that the broker needs.
    #[must_use]
    pub fn topics(&self) -> Topics {
        self.topics.clone()
    }

    pub(super) fn name(&self, topic: TopicId) -> &str {
        self.topics.name(topic)
    }

    pub(super) fn journal_at(&self) -> TopicPartition {
        TopicPartition { topic: self.journal, partition: 0 }
    }
}
