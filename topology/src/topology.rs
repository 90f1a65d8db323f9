//! What an application is made of: inputs, processors with their stores, outputs. Built once, validated, then never changed.
//!
//! A topology has sub-topologies. Each reads co-partitioned inputs, the first of which is its lead topic (the group hands out the
//! lead's partitions), runs one processor per partition over its own stores, and writes outputs. One sub-topology may feed another
//! through a topic. Store names are part of the public interface: they name changelog topics, so renaming one is a reset.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use state::backend::{Backend, StorePartition};
use state::store::{AnyStore, MAX_INPUTS, Store, StoreOptions, Value};

pub use crate::ids::{StoreId, TaskId};
use crate::processor::Processor;
use crate::record::{TopicId, Topics};

type MakeStore = dyn Fn(StorePartition, Arc<dyn Backend>, StoreOptions) -> Box<dyn AnyStore> + Send + Sync;
type MakeProcessor = dyn Fn(TaskId) -> Box<dyn Processor> + Send + Sync;

/// A store as declared.
pub struct StoreSpec {
    /// Its name.
    pub name: Arc<str>,
    /// The topic that holds its changes.
    pub changelog: TopicId,
    pub(crate) make: Box<MakeStore>,
}

/// One stage: co-partitioned inputs, one processor, its stores, its outputs.
pub struct SubTopology {
    /// Its name, for people.
    pub name: String,
    /// Its inputs; the first is the lead.
    pub inputs: Vec<TopicId>,
    /// Topics its processor writes.
    pub outputs: Vec<TopicId>,
    /// Its stores.
    pub stores: Vec<StoreSpec>,
    /// Where decisions are written, for sub-topologies whose inputs beyond the lead take effect at a point that must be remembered.
    pub decisions: Option<TopicId>,
    pub(crate) make: Box<MakeProcessor>,
}

impl SubTopology {
    /// The lead topic.
    #[must_use]
    pub fn lead(&self) -> TopicId {
        self.inputs[0]
    }

    /// The number of an input among this sub-topology's inputs.
    #[must_use]
    pub fn input_number(&self, topic: TopicId) -> Option<u8> {
        self.inputs.iter().position(|&input| input == topic).map(|at| at as u8)
    }
}

/// A validated topology. Cheap to share.
pub struct Topology {
    application: String,
    topics: Topics,
    subs: Vec<SubTopology>,
    dead_letters: Option<TopicId>,
    members: Option<TopicId>,
    globals: Vec<TopicId>,
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Topology {
    /// Begins a topology for this application id: the consumer group's name and the prefix of internal topics.
    #[must_use]
    pub fn builder(application: &str) -> Builder {
        let (names, subs, globals) = (Vec::new(), Vec::new(), Vec::new());
        Builder { application: application.into(), names, subs, dead_letters: None, members: None, globals }
    }

    /// The application id.
    #[must_use]
    pub fn application(&self) -> &str {
        &self.application
    }

    /// Every topic it reads or writes.
    #[must_use]
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The sub-topologies in the order built.
    #[must_use]
    pub fn subs(&self) -> &[SubTopology] {
        &self.subs
    }

    /// The sub-topology that this topic leads.
    #[must_use]
    pub fn led_by(&self, topic: TopicId) -> Option<u16> {
        self.subs.iter().position(|sub| sub.lead() == topic).map(|at| at as u16)
    }

    /// Where records go that cannot be processed.
    #[must_use]
    pub fn dead_letters(&self) -> Option<TopicId> {
        self.dead_letters
    }

    /// Where instances announce themselves: one partition, whatever the others have.
    #[must_use]
    pub fn members(&self) -> Option<TopicId> {
        self.members
    }

    /// Topics of one partition that every instance reads as a whole, outside of its tasks.
    #[must_use]
    pub fn globals(&self) -> &[TopicId] {
        &self.globals
    }

    /// Changelog topics, in order.
    pub fn changelogs(&self) -> impl Iterator<Item = TopicId> {
        self.subs.iter().flat_map(|sub| sub.stores.iter().map(|store| store.changelog))
    }

    /// The graph as a person reads it.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut out = format!("Topology of {}\n", self.application);
        let list = |topics: &[TopicId]| topics.iter().map(|&t| self.topics.name(t)).collect::<Vec<_>>().join(", ");
        for (at, sub) in self.subs.iter().enumerate() {
            let _ = writeln!(out, "  Sub-topology {at}: {}", sub.name);
            let _ = writeln!(out, "    reads  {} (lead first, co-partitioned)", list(&sub.inputs));
            for store in &sub.stores {
                let _ = writeln!(out, "    keeps  {} -> {}", store.name, self.topics.name(store.changelog));
            }
            if let Some(decisions) = sub.decisions {
                let _ = writeln!(out, "    decides in {}", self.topics.name(decisions));
            }
            let _ = writeln!(out, "    writes {}", list(&sub.outputs));
        }
        if let Some(dead) = self.dead_letters {
            let _ = writeln!(out, "  Dead letters: {}", self.topics.name(dead));
        }
        if let Some(members) = self.members {
            let _ = writeln!(out, "  Members: {}", self.topics.name(members));
        }
        if !self.globals.is_empty() {
            let _ = writeln!(out, "  Read by every instance: {}", list(&self.globals));
        }
        out
    }

    /// The graph's edges as (from, to) of node names; a processor is named after its sub-topology.
    #[must_use]
    pub fn edges(&self) -> Vec<(String, String)> {
        let mut edges = Vec::new();
        for sub in &self.subs {
            let name = |topic| self.topics.name(topic).to_owned();
            edges.extend(sub.inputs.iter().map(|&topic| (name(topic), sub.name.clone())));
            edges.extend(sub.outputs.iter().map(|&topic| (sub.name.clone(), name(topic))));
            edges.extend(sub.stores.iter().map(|store| (sub.name.clone(), name(store.changelog))));
            edges.extend(sub.decisions.iter().map(|&topic| (sub.name.clone(), name(topic))));
            edges.extend(self.dead_letters.iter().map(|&topic| (sub.name.clone(), name(topic))));
        }
        edges
    }

    /// The graph for Graphviz.
    #[must_use]
    pub fn dot(&self) -> String {
        let mut out = String::from("digraph topology {\n  rankdir=LR;\n");
        for sub in &self.subs {
            let _ = writeln!(out, "  {:?} [shape=box];", sub.name);
        }
        for (from, to) in self.edges() {
            let _ = writeln!(out, "  {from:?} -> {to:?};");
        }
        out.push_str("}\n");
        out
    }

    /// The graph for Mermaid.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        let id = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        for (from, to) in self.edges() {
            let _ = writeln!(out, "  {}[\"{from}\"] --> {}[\"{to}\"]", id(&from), id(&to));
        }
        out
    }
}

/// Why a topology cannot be built; all faults at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the topology cannot be built: {}", .0.join("; "))]
pub struct InvalidTopology(pub Vec<String>);

/// Builds a [`Topology`]; see [`Topology::builder`].
pub struct Builder {
    application: String,
    names: Vec<String>,
    subs: Vec<SubTopology>,
    dead_letters: Option<TopicId>,
    members: Option<TopicId>,
    globals: Vec<TopicId>,
}

impl Builder {
    fn topic(&mut self, name: &str) -> TopicId {
        let at = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        TopicId(at as u16)
    }

    /// Where records go that cannot be processed; without it, such a record stops the worker.
    #[must_use]
    pub fn dead_letters(mut self, topic: &str) -> Self {
        self.dead_letters = Some(self.topic(topic));
        self
    }

    /// Has instances announce themselves on `<application>-members`.
    #[must_use]
    pub fn members(mut self) -> Self {
        let topic = format!("{}-members", self.application);
        self.members = Some(self.topic(&topic));
        self
    }

    /// A compacted topic of one partition that every instance reads as a whole: what it says has no order relative to the inputs, so
    /// what follows from it takes effect through decisions.
    #[must_use]
    pub fn global(mut self, topic: &str) -> Self {
        let topic = self.topic(topic);
        self.globals.push(topic);
        self
    }

    /// A topic of the application that no task reads or writes: it is created with as many partitions as the inputs.
    #[must_use]
    pub fn beside(mut self, topic: &str) -> Self {
        self.topic(topic);
        self
    }

    /// Adds a sub-topology whose processors `make` makes, one per task.
    #[must_use]
    pub fn sub<P: Processor + 'static>(
        mut self,
        name: &str,
        make: impl Fn(TaskId) -> P + Send + Sync + 'static,
        wire: impl FnOnce(Wiring<'_>) -> Wiring<'_>,
    ) -> Self {
        let sub = SubTopology {
            name: name.into(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            stores: Vec::new(),
            decisions: None,
            make: Box::new(move |task| Box::new(make(task))),
        };
        let sub = wire(Wiring { builder: &mut self, sub }).sub;
        self.subs.push(sub);
        self
    }

    /// Validates and builds.
    ///
    /// # Errors
    /// Every fault found, each naming its sub-topology.
    pub fn build(self) -> Result<Topology, InvalidTopology> {
        let mut faults = Vec::new();
        let topics = Topics::new(self.names);
        if self.subs.is_empty() {
            faults.push("it has no sub-topology".to_owned());
        }
        let (mut read, mut changelogs) = (BTreeSet::new(), BTreeSet::new());
        for sub in &self.subs {
            let name = &sub.name;
            if sub.inputs.is_empty() {
                faults.push(format!("`{name}` reads nothing"));
            }
            if sub.inputs.len() > MAX_INPUTS {
                faults.push(format!("`{name}` reads {} topics, {MAX_INPUTS} at most", sub.inputs.len()));
            }
            for &topic in &sub.inputs {
                if !read.insert(topic) {
                    faults.push(format!("`{}` is read twice", topics.name(topic)));
                }
                if Some(topic) == self.members {
                    faults.push(format!("`{name}` reads the members topic"));
                }
                if Some(topic) == self.dead_letters {
                    faults.push(format!("`{name}` reads the dead letters it may write"));
                }
                if sub.outputs.contains(&topic) {
                    faults.push(format!("`{name}` writes `{}`, which it reads", topics.name(topic)));
                }
            }
            for store in &sub.stores {
                if !changelogs.insert(store.changelog) {
                    faults.push(format!("two stores are named `{}`", store.name));
                }
            }
        }
        if let Some(both) = changelogs.intersection(&read).next() {
            faults.push(format!("`{}` is a changelog and an input", topics.name(*both)));
        }
        let written =
            |topic: &TopicId| self.subs.iter().any(|sub| sub.outputs.contains(topic)) || Some(*topic) == self.dead_letters;
        for topic in self.globals.iter().filter(|topic| read.contains(topic) || changelogs.contains(topic) || written(topic)) {
            faults.push(format!("`{}` is for every instance and is something else as well", topics.name(*topic)));
        }
        if faults.is_empty() {
            let Self { application, subs, dead_letters, members, globals, .. } = Self { names: Vec::new(), ..self };
            Ok(Topology { application, topics, subs, dead_letters, members, globals })
        } else {
            Err(InvalidTopology(faults))
        }
    }
}

/// Wires one sub-topology; see [`Builder::sub`].
pub struct Wiring<'b> {
    builder: &'b mut Builder,
    sub: SubTopology,
}

impl Wiring<'_> {
    /// Reads a topic. The first one is the lead; the others must have as many partitions.
    #[must_use]
    pub fn input(mut self, topic: &str) -> Self {
        let topic = self.builder.topic(topic);
        self.sub.inputs.push(topic);
        self
    }

    /// Writes a topic. Outputs are numbered in the order declared: [`crate::processor::Context::emit`] takes that number.
    #[must_use]
    pub fn output(mut self, topic: &str) -> Self {
        let topic = self.builder.topic(topic);
        self.sub.outputs.push(topic);
        self
    }

    /// Keeps a store, with its changelog `<application>-<name>-changelog`. Stores are numbered in the order declared.
    #[must_use]
    pub fn store<V: Value>(mut self, name: &str) -> Self {
        let changelog = format!("{}-{name}-changelog", self.builder.application);
        let changelog = self.builder.topic(&changelog);
        self.sub.stores.push(StoreSpec {
            name: name.into(),
            changelog,
            make: Box::new(|partition, backend, options| Box::new(Store::<V>::new(partition, backend, options))),
        });
        self
    }

    /// Writes down decisions in `<application>-decisions`.
    #[must_use]
    pub fn decisions(mut self) -> Self {
        let topic = format!("{}-decisions", self.builder.application);
        self.sub.decisions = Some(self.builder.topic(&topic));
        self
    }
}
