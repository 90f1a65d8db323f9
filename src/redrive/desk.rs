//! Redriving while an instance runs, one at a time: what there is, and sending it back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use schemars::JsonSchema;
use serde::Serialize;
use topology::broker::{Broker, BrokerError, Reaction, Result};
use tracing::{info, warn};

use super::{Filter, Options, Places, Report, redrive};

/// A letter is redriven at most so often from here.
const REDRIVES_MAX: u32 = 3;
/// Records a second.
const RATE: u32 = 1_000;

/// How the last redrive went.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "redrive")]
pub struct Done {
    /// True while one runs.
    pub running: bool,
    /// What the last one did; null before the first.
    pub last: Option<Report>,
    /// Why the last one ended early; null where it did not. What it had redriven stays so.
    pub failed: Option<String>,
}

type Act = dyn Fn(bool) -> Result<Report> + Send + Sync;

/// See the module's header. Clones are the same.
#[derive(Clone)]
pub struct Desk {
    act: Arc<Act>,
    done: Arc<Mutex<Done>>,
    counting: Arc<Mutex<()>>,
}

/// Whatever ends a redrive, the next one may begin.
struct End(Desk);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().running = false;
    }
}

impl Desk {
    /// For the dead letters at these places; the broker's table of topics must be theirs.
    #[must_use]
    pub fn new<B: Broker>(broker: &Arc<B>, places: Places) -> Self {
        let broker = Arc::clone(broker);
        let act = move |execute| {
            let options = Options { filter: Filter::default(), max_redrives: REDRIVES_MAX, rate: RATE, execute };
            redrive(&*broker, &places, &options, &|_, _| {})
        };
        Self { act: Arc::new(act), done: Arc::default(), counting: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what would be redriven. Reads all dead letters, so it is done for one at a time.
    ///
    /// # Errors
    /// The broker's; to be tried again where they are being counted.
    pub fn count(&self) -> Result<Report> {
        let _alone = match self.counting.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(BrokerError::new(Reaction::Retry, "the dead letters are being counted already"));
            }
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Ok(alone) => alone,
        };
        (self.act)(false)
    }

    /// How the last redrive went.
    #[must_use]
    pub fn done(&self) -> Done {
        let done = self.lock().clone();
        Done { failed: done.failed.filter(|_| !done.running), ..done }
    }

    /// Begins a redrive of all that can be; false where one runs.
    ///
    /// # Errors
    /// Where there is no thread for it.
    pub fn begin(&self) -> Result<bool> {
        let mut done = self.lock();
        if done.running {
            return Ok(false);
        }
        let (end, act) = (End(self.clone()), Arc::clone(&self.act));
        let work = move || {
            let ended = act(true);
            let mut done = end.0.lock();
            match ended {
                Ok(report) => {
                    info!(redriven = report.redriven, "dead letters were redriven");
                    done.last = Some(report);
                    done.failed = None;
                }
                Err(why) => {
                    warn!(%why, "redriving ended early");
                    done.failed = Some("the broker failed; what was redriven stays so and is not redriven twice".to_owned());
                }
            }
        };
        let thread = std::thread::Builder::new().name("redrive".to_owned()).spawn(work);
        thread.map_err(|why| BrokerError::new(Reaction::Retry, format!("cannot start a thread: {why}")))?;
        *done = Done { running: true, failed: Some("it did not come to its end".to_owned()), last: done.last.take() };
        Ok(true)
    }
}
