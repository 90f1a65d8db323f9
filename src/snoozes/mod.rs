//! Snoozes: users and merchants whose anomalies nobody wants to be told of for a while, each with a reason and an end.
//!
//! Payments are scored as ever, and verdicts and `anomalies` stay as they are; notifications and the dashboard's list ask
//! [`Snoozes::is_snoozed`] and leave out what is. The compacted topic `<application>-snoozes` (one partition, read whole by every instance)
//! holds one record for each name, under `user:NAME` or `merchant:NAME`; a tombstone ends it early.
//! Limits: [`SNOOZES_MAX`] at once. A user's name is personal data: erasing the user takes [`Snoozes::forget`] along, and what was erased without it
//! ends by [`Erasures`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use topology::broker::{Broker, BrokerError};
use topology::clock::Clock;
use topology::record::TopicId;
use tracing::warn;

use crate::registry::{BrokerLog, ModelsLog, Write, writer};
use crate::trouble::Trouble;

mod erasures;
#[cfg(test)]
mod tests;

pub use erasures::Erasures;

/// Snoozes in force at once.
pub const SNOOZES_MAX: usize = 10_000;
/// The longest one.
pub const SNOOZE_MS_MAX: i64 = 10 * 366 * 86_400_000;
/// Bytes of a name or a reason.
pub const TEXT_BYTES_MAX: usize = 512;
/// The longest that one look at the topic waits for news.
const LOOK: Duration = Duration::from_millis(100);
/// Looks until a record that was written is read back.
const LOOKS_MAX: usize = 100;
/// Records of what is over that one new snooze takes away.
const SWEPT_MAX: usize = 100;

/// What is snoozed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "snoozed_kind")]
pub enum Kind {
    /// Everything of one user.
    User,
    /// Everything at one merchant.
    Merchant,
}

impl Kind {
    /// The key of its record.
    #[must_use]
    pub fn key(self, name: &str) -> String {
        match self {
            Self::User => format!("user:{name}"),
            Self::Merchant => format!("merchant:{name}"),
        }
    }
}

/// One snooze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snooze {
    /// What.
    pub kind: Kind,
    /// The user's id, or the merchant.
    pub name: String,
    /// Why.
    pub reason: String,
    /// By whom.
    #[serde(default)]
    pub by: Option<String>,
    /// From when on, in milliseconds since the epoch.
    pub from_ms: i64,
    /// The first millisecond after it.
    pub until_ms: i64,
}

impl Snooze {
    /// Its key in the topic, and its id over HTTP.
    #[must_use]
    pub fn id(&self) -> String {
        self.kind.key(&self.name)
    }

    fn fits(&self) -> bool {
        let fits = |text: &str| (1..=TEXT_BYTES_MAX).contains(&text.len());
        fits(&self.name) && fits(&self.reason) && self.by.as_deref().is_none_or(fits) && self.from_ms < self.until_ms
    }

    fn holds(&self, at_ms: i64) -> bool {
        (self.from_ms..self.until_ms).contains(&at_ms)
    }
}

/// Why one was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnoozeError {
    /// There are as many as there may be.
    #[error("{SNOOZES_MAX} snoozes are in force already")]
    TooMany,
    /// There is none of this id.
    #[error("no snooze has this id")]
    Unknown,
    /// The broker did not take the record, or not surely.
    #[error("the snoozes topic cannot be written: {0}")]
    Broker(#[from] BrokerError),
    /// It is in the topic, and this instance has not followed yet.
    #[error("written to the snoozes topic, but this instance has not read it back yet")]
    Pending,
}

#[derive(Default)]
struct View {
    snoozes: BTreeMap<String, Snooze>,
    position: u64,
}

struct Inner {
    clock: Arc<dyn Clock>,
    view: Mutex<View>,
    log: Mutex<Box<dyn ModelsLog>>,
    write: Mutex<Box<Write>>,
}

/// See the module's header. Clones share it.
#[derive(Clone)]
pub struct Snoozes(Arc<Inner>);

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Snoozes {
    /// Nothing is read yet: see [`Self::run`].
    #[must_use]
    pub fn new<B: Broker>(broker: &Arc<B>, topic: TopicId, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            clock,
            view: Mutex::default(),
            log: Mutex::new(Box::new(BrokerLog::new(Arc::clone(broker), topic))),
            write: Mutex::new(writer(broker, topic)),
        }))
    }

    /// True where somebody has snoozed the user or the merchant at that time (milliseconds since the epoch).
    #[must_use]
    pub fn is_snoozed(&self, user: &str, merchant: &str, at_ms: i64) -> bool {
        let view = lock(&self.0.view);
        let holds = |kind: Kind, name| view.snoozes.get(&kind.key(name)).is_some_and(|snooze| snooze.holds(at_ms));
        !view.snoozes.is_empty() && (holds(Kind::User, user) || holds(Kind::Merchant, merchant))
    }

    /// Those that are not over yet, in order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<Snooze> {
        let now_ms = self.0.clock.now_ms();
        lock(&self.0.view).snoozes.values().filter(|snooze| now_ms < snooze.until_ms).cloned().collect()
    }

    /// Begins one; it takes the place of an earlier one for the same name.
    ///
    /// # Errors
    /// [`SnoozeError`]; nothing has changed, but for [`SnoozeError::Pending`].
    ///
    /// # Panics
    /// Where its texts are out of bounds: a fault of the caller.
    pub fn begin(&self, snooze: &Snooze) -> Result<(), SnoozeError> {
        assert!(snooze.fits(), "texts and times are checked before");
        let now_ms = self.0.clock.now_ms();
        let over: Vec<String> = {
            let view = lock(&self.0.view);
            let in_force = view.snoozes.values().filter(|other| now_ms < other.until_ms && other.id() != snooze.id()).count();
            if in_force >= SNOOZES_MAX {
                return Err(SnoozeError::TooMany);
            }
            let over = view.snoozes.iter().filter(|(id, other)| other.until_ms <= now_ms && **id != snooze.id());
            over.map(|(id, _)| id.clone()).take(SWEPT_MAX).collect()
        };
        for id in over {
            self.write(&id, None)?;
        }
        let value = serde_json::to_vec(snooze).expect("invariant: texts and numbers always serialise");
        let offset = self.write(&snooze.id(), Some(&value))?;
        self.reach(offset)
    }

    /// Ends one before its time.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn end(&self, id: &str) -> Result<(), SnoozeError> {
        if !lock(&self.0.view).snoozes.contains_key(id) {
            return Err(SnoozeError::Unknown);
        }
        let offset = self.write(id, None)?;
        self.reach(offset)
    }

    /// Ends what a user is snoozed by, if anything: part of erasing them.
    ///
    /// # Errors
    /// The broker's.
    pub fn forget(&self, user: &str) -> Result<(), SnoozeError> {
        // An instance that has just started may not have read all there is.
        self.look(LOOK)?;
        match self.end(&Kind::User.key(user)) {
            // The record is written: that another look shows it is no part of it.
            Err(SnoozeError::Unknown | SnoozeError::Pending) => Ok(()),
            other => other,
        }
    }

    /// Whether a user is snoozed, as far as is known here.
    fn names_users(&self) -> bool {
        lock(&self.0.view).snoozes.values().any(|snooze| snooze.kind == Kind::User)
    }

    /// Ends one that began until then, if there is such a one.
    fn end_before(&self, id: &str, at_ms: i64) -> Result<(), BrokerError> {
        if lock(&self.0.view).snoozes.get(id).is_some_and(|snooze| snooze.from_ms <= at_ms) {
            self.write(id, None)?;
        }
        Ok(())
    }

    fn write(&self, id: &str, value: Option<&[u8]>) -> Result<u64, BrokerError> {
        (*lock(&self.0.write))(id.as_bytes(), value, self.0.clock.now_ms())
    }

    /// Waits until a record has taken effect here.
    fn reach(&self, offset: u64) -> Result<(), SnoozeError> {
        for _ in 0..LOOKS_MAX {
            if lock(&self.0.view).position > offset {
                return Ok(());
            }
            self.look(LOOK)?;
        }
        Err(SnoozeError::Pending)
    }

    /// Follows the topic, and erasures, until `stopped`.
    pub fn run<B: Broker>(&self, mut erasures: Erasures<B>, stopped: &dyn Fn() -> bool) {
        let mut trouble = Trouble::default();
        while !stopped() {
            match self.follow(&mut erasures, LOOK) {
                Ok(()) => {
                    trouble.is_over();
                    // Whoever writes wants to look as well.
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                Err(why) => {
                    if trouble.is_news(&why) {
                        warn!(%why, "the topics of snoozes and decisions cannot be followed; what is snoozed stays as it is");
                    }
                    std::thread::park_timeout(LOOK);
                }
            }
        }
    }

    /// One look at the topic, which waits for news at most `wait`, and one at erasures: what they end the next look shows.
    pub(crate) fn follow<B: Broker>(&self, erasures: &mut Erasures<B>, wait: Duration) -> Result<(), BrokerError> {
        self.look(wait)?;
        erasures.look(self, Duration::ZERO)
    }

    fn look(&self, wait: Duration) -> Result<(), BrokerError> {
        let mut log = lock(&self.0.log);
        let mut news = Vec::new();
        let position = log.read(wait, &mut |_, key, value| news.push((key.to_vec(), value.map(<[u8]>::to_vec))))?;
        let mut view = lock(&self.0.view);
        for (key, value) in news {
            let Ok(id) = String::from_utf8(key) else { continue };
            match value.map(|value| serde_json::from_slice::<Snooze>(&value)) {
                None => drop(view.snoozes.remove(&id)),
                Some(Ok(snooze)) if snooze.fits() && snooze.id() == id => drop(view.snoozes.insert(id, snooze)),
                Some(_) => warn!("a record of the snoozes topic is none: it is left out"),
            }
        }
        view.position = view.position.max(position);
        Ok(())
    }
}
