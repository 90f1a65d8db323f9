//! What every request of one server shares.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, watch};
use topology::record::TopicId;

use super::parts::{Api, Doors};
use super::rates::Rates;
use super::sessions::Sessions;
use super::tally::Tally;
use crate::config::ApiToken;
use crate::query::Peers;
use crate::tls::Tls;

/// Connections open at once.
pub(crate) const CONNECTIONS_MAX: usize = 1024;
/// Requests reading the store at once; others wait their turn.
pub(super) const WORK_MAX: usize = 64;
/// Streams open at once.
const STREAMS_MAX: usize = 64;
/// The store that profiles are kept in.
const PROFILES: &str = "profiles";

/// Where in the topology profiles are.
#[derive(Debug)]
pub(crate) struct Profiles {
    /// The sub-topology that keeps them.
    pub(crate) sub: u16,
    /// The store's name.
    pub(crate) store: Arc<str>,
    /// Partitions of the sub-topology's lead topic: a user's is murmur2 of the id modulo this.
    pub(crate) partitions: u32,
}

/// See the module's header.
pub(crate) struct Site {
    pub(crate) api: Arc<Api>,
    pub(crate) tokens: Vec<ApiToken>,
    /// Besides probes and metrics only other instances are answered.
    pub(crate) peers_only: bool,
    /// Those that tokens opened.
    pub(crate) sessions: Sessions,
    /// What each caller has left of its second.
    pub(crate) rates: Rates,
    pub(crate) profiles: Profiles,
    /// Places for connections.
    pub(crate) connections: Arc<Semaphore>,
    /// What handshakes are answered with.
    pub(crate) tls: Option<Tls>,
    /// Places for requests that read the store.
    pub(crate) work: Arc<Semaphore>,
    /// Places for readers of streams.
    pub(crate) streams: Arc<Semaphore>,
    /// True once the server is told to stop: streams end.
    pub(crate) closing: watch::Sender<bool>,
    /// The way to other instances.
    pub(crate) peers: Peers,
    pub(crate) tally: Tally,
    requests: AtomicU64,
}

impl Site {
    /// # Errors
    /// Where the topology keeps no profiles, or its partitions are not known: a fault of whoever put the instance together.
    pub(crate) fn new(api: Arc<Api>, doors: Doors) -> io::Result<Self> {
        let profiles = find_profiles(&api).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the topology has no partitioned store of profiles to answer from")
        })?;
        Ok(Self {
            api,
            tokens: doors.tokens,
            peers_only: doors.peers_only,
            sessions: Sessions::default(),
            rates: Rates::new(doors.requests_per_second),
            profiles,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            work: Arc::new(Semaphore::new(WORK_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            closing: watch::Sender::new(false),
            peers: Peers::new(doors.tls.as_ref().map(Tls::client)),
            tls: doors.tls,
            tally: Tally::default(),
            requests: AtomicU64::new(0),
        })
    }

    /// An id for a request: unique within the instance over restarts, and without meaning.
    pub(crate) fn next_request(&self) -> String {
        format!("{:x}-{:x}", self.api.started_at_ms, self.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// True where the server speaks TLS.
    pub(crate) fn secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Stands for a user in log lines: the same for the same user, and of no use without the key.
    pub(crate) fn hash_of(&self, user_id: &str) -> String {
        crate::logging::keyed_hash(&self.api.log_key, user_id.as_bytes())
    }

    /// Milliseconds since some moment.
    pub(crate) fn monotonic_ms(&self) -> u64 {
        self.api.clock.monotonic_us() / 1000
    }

    /// Milliseconds since a moment of people's clock.
    pub(crate) fn age_ms(&self, moment_ms: i64) -> u64 {
        self.api.clock.now_ms().saturating_sub(moment_ms).max(0).unsigned_abs()
    }

    /// A topic's name.
    pub(crate) fn topic(&self, topic: TopicId) -> &str {
        self.api.topology.topics().name(topic)
    }
}

fn find_profiles(api: &Api) -> Option<Profiles> {
    let mut subs = api.topology.subs().iter().enumerate();
    subs.find_map(|(at, sub)| {
        let store = sub.stores.iter().find(|store| &*store.name == PROFILES)?;
        let partitions = *api.partitions.get(usize::from(sub.lead().0))?;
        let sub = u16::try_from(at).ok()?;
        (partitions > 0).then(|| Profiles { sub, store: Arc::clone(&store.name), partitions })
    })
}
