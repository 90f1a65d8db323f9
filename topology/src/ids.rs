//! The numbers that parts of a topology go by.

/// A store's number within its sub-topology, with the type of its values left to whoever asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreId(pub usize);

/// One partition of one sub-topology: the unit that moves between workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Which sub-topology, in the order built.
    pub sub: u16,
    /// Which partition of its lead topic.
    pub partition: u32,
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}", self.sub, self.partition)
    }
}
