//! The port through which queries and probes ask about other instances.

/// Another instance, or this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub instance: String,
    /// Where it serves HTTP, `host:port`; empty where it serves none.
    pub endpoint: String,
    /// The partitions of users that it owns, ascending.
    pub active: Vec<u32>,
    /// The partitions that it keeps a copy of, ascending, each with the changelog offset that the copy stands at.
    pub standby: Vec<(u32, u64)>,
    /// Milliseconds since it was last heard of.
    pub heard_ms: u64,
}

/// Who owns which partition of users, and who keeps copies: eventual, and only of instances heard of within three of their beats.
pub trait Directory: Send + Sync {
    /// This instance's name.
    fn me(&self) -> String;

    /// The instance that announced the partition as its own last.
    fn owner(&self, partition: u32) -> Option<Peer>;

    /// Instances that keep a copy of the partition, the one furthest ahead first.
    fn standbys(&self, partition: u32) -> Vec<Peer>;

    /// All instances, by name.
    fn members(&self) -> Vec<Peer>;
}
