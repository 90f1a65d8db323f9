//! Looks for users who were idle for longer than `STATE_TTL`, and lets their profiles leave this machine where the cold tier has them.
//!
//! ```text
//! scan a bite of a partition -> idle? -> what the cold tier holds is the very same? -> stage -> the partition's worker puts stubs down
//! ```
//!
//! A user is idle by the partition's own event time: the last payment is older than the partition's newest one by more than the limit. So
//! nothing goes where nothing comes in, and a replay of last year keeps last year's active users. What is idle decides only where a profile
//! lies, never what it is, so nothing of this is replayed.

use std::collections::BTreeMap;

use state::backend::{Backend as _, BackendError, StorePartition};
use state::store::decode_kept;
use state::tier::Unreachable;
use state::tiered::{Stub, Tiered};

use crate::scoring::UserProfile;

/// What the cold tier holds of these users, in their order.
pub type Held<'a> = dyn Fn(Vec<String>) -> Result<Vec<Option<Stub>>, Unreachable> + 'a;

/// Why a bite could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The store's.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The cold tier's.
    #[error(transparent)]
    Cold(#[from] Unreachable),
}

/// What a bite came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bite {
    /// Profiles that may go.
    pub staged: usize,
    /// Profiles that are idle and that the cold tier does not hold as they are: it has yet to catch up.
    pub behind: usize,
    /// The partition's end was reached: the next bite begins anew.
    pub ended: bool,
}

/// The way through one partition, again and again.
#[derive(Clone, Debug, Default)]
struct Way {
    after: Option<Vec<u8>>,
    /// The newest event time seen, in milliseconds since the epoch.
    newest_ms: i64,
}

/// See the module's header.
#[derive(Debug)]
pub struct Sweep {
    ttl_ms: i64,
    ways: BTreeMap<StorePartition, Way>,
}

impl Sweep {
    /// With the longest idle time of profiles that stay, in milliseconds.
    #[must_use]
    pub fn new(ttl_ms: i64) -> Self {
        Self { ttl_ms, ways: BTreeMap::new() }
    }

    /// Forgets partitions that are no longer here.
    pub fn keep(&mut self, is_here: impl Fn(&StorePartition) -> bool) {
        self.ways.retain(|partition, _| is_here(partition));
    }

    /// Looks at the next `limit` keys of a partition and stages those that may go.
    ///
    /// # Errors
    /// The store's, the cold tier's; the next bite begins at the same place.
    pub fn bite(&mut self, tiered: &Tiered, partition: &StorePartition, limit: usize, held: &Held<'_>) -> Result<Bite, Trouble> {
        let way = self.ways.entry(partition.clone()).or_default();
        let (mut after, mut seen, mut users) = (None, 0, Vec::new());
        tiered.scan(partition, way.after.as_deref(), limit, &mut |key, value| {
            seen += 1;
            after = Some(key.to_vec());
            // A stub is not looked at again, and damage is found by whoever needs the value.
            if let Ok((_, profile)) = decode_kept::<UserProfile>(value)
                && let (Some(last_ms), Ok(user)) = (profile.0.last_seen_ms(), std::str::from_utf8(key))
            {
                users.push((last_ms, user.to_owned(), Stub::of(value)));
            }
            true
        })?;
        way.newest_ms = users.iter().map(|(last_ms, ..)| *last_ms).fold(way.newest_ms, i64::max);
        let idle_before = way.newest_ms.saturating_sub(self.ttl_ms);
        users.retain(|(last_ms, ..)| *last_ms < idle_before);
        let mut bite = Bite { ended: seen < limit, ..Bite::default() };
        if !users.is_empty() {
            let known = held(users.iter().map(|(_, user, _)| user.clone()).collect())?;
            let same = users.iter().zip(known).filter(|((_, _, stub), held)| *held == Some(*stub));
            let may_go: Vec<_> = same.map(|((_, user, stub), _)| (Box::from(user.as_bytes()), *stub)).collect();
            bite.staged = may_go.len();
            bite.behind = users.len() - may_go.len();
            if bite.staged > 0 {
                tiered.stage(partition, may_go);
            }
        }
        way.after = after.filter(|_| !bite.ended);
        Ok(bite)
    }
}
