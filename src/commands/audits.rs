//! What the commands `verify`, `explain` and `rebuild` share: the broker of the settings, the store in `STATE_DIR`, progress.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use state::rocks::{RocksBackend, RocksOptions};
use topology::broker::Broker;
use tracing::info;

use super::{Failure, progress};
use crate::audit::{Audit, Naming};
use crate::clock::{monotonic, since};
use crate::config::{BrokerKind, ProcessingGuarantee, Settings};
use crate::instance::{self, Blueprint, Identity};
use crate::service;

/// Between two log lines of one step.
const SAY: Duration = Duration::from_secs(5);

/// What is done with an audit, whatever its broker.
pub(super) trait Auditor {
    fn audit<B: Broker>(self, audit: &Audit<B>) -> Result<(), Failure>;
}

/// Runs an auditor on the broker of the settings.
pub(super) fn with(settings: &Settings, auditor: impl Auditor) -> Result<(), Failure> {
    let blueprint = Blueprint::new(settings)?;
    match settings.broker {
        BrokerKind::Kafka => auditor.audit(&audit(settings, &blueprint, service::kafka(settings, &blueprint)?)?),
        BrokerKind::Embedded => {
            if !settings.embedded_dir.exists() {
                let what = format!("there is no embedded broker in EMBEDDED_DIR {}", settings.embedded_dir.display());
                return Err(Failure::new(what).hint("name its folder, or set BROKER=kafka"));
            }
            let broker = service::embedded(settings, &blueprint);
            auditor.audit(&audit(
                settings,
                &blueprint,
                broker.map_err(|why| why.hint("an instance or a demo may hold it: end it first"))?,
            )?)
        }
    }
}

fn audit<B: Broker>(settings: &Settings, blueprint: &Blueprint, broker: Arc<B>) -> Result<Audit<B>, Failure> {
    let exactly_once = settings.processing_guarantee == ProcessingGuarantee::ExactlyOnce;
    let names = instance::topic_names(settings);
    let audit = Audit::new(broker, &instance::application(settings), &names, &blueprint.params, exactly_once);
    audit.map_err(|why| Failure::new(why.to_string()))
}

/// How users are named.
pub(super) fn naming(show_users: bool) -> Naming {
    if show_users { Naming::Id } else { Naming::Hash(crate::random::secret()) }
}

/// The partitions asked for, or all.
pub(super) fn chosen(asked: &[u32], count: u32) -> Result<Vec<u32>, Failure> {
    match asked.iter().find(|&&partition| partition >= count) {
        Some(partition) => Err(Failure::usage(format!("there is no partition {partition}: they are 0 to {}", count - 1))),
        None if asked.is_empty() => Ok((0..count).collect()),
        None => Ok(asked.to_vec()),
    }
}

/// The store in the state folder, locked; or why it is not looked at.
pub(super) enum Local {
    Open(Box<(RocksBackend, Identity)>),
    Closed(String),
}

impl Local {
    /// Creates nothing.
    pub(super) fn open(settings: &Settings) -> Self {
        let folder = &settings.state_dir;
        if !folder.join("rocksdb").exists() {
            return Self::Closed(format!("not compared: there is none in STATE_DIR {}", folder.display()));
        }
        let Ok(identity) = Identity::lock(folder, settings.instance_id.as_deref()) else {
            return Self::Closed(format!("not compared: an instance uses STATE_DIR {}", folder.display()));
        };
        match open_rocks(&folder.join("rocksdb"), settings) {
            Ok(backend) => Self::Open(Box::new((backend, identity))),
            Err(why) => Self::Closed(format!("not compared: {why}")),
        }
    }

    pub(super) fn backend(&self) -> Result<&RocksBackend, &str> {
        match self {
            Self::Open(open) => Ok(&open.0),
            Self::Closed(why) => Err(why),
        }
    }
}

/// Opens a store as an instance would.
pub(super) fn open_rocks(path: &Path, settings: &Settings) -> Result<RocksBackend, state::backend::BackendError> {
    let memory_bytes = usize::try_from(settings.memory_limit / 4).unwrap_or(usize::MAX);
    RocksBackend::open(path, RocksOptions { memory_bytes, ..RocksOptions::default() })
}

/// A step's progress: a bar on a terminal, log lines otherwise.
pub(super) struct Step {
    bar: ProgressBar,
    name: String,
    said: Cell<Duration>,
}

impl Step {
    pub(super) fn new(name: String) -> Self {
        let bar = progress::steps("reading", 0);
        Self { bar, name, said: Cell::new(monotonic()) }
    }

    pub(super) fn told(&self, what: &str, done: u64, all: u64) {
        self.bar.set_length(all);
        self.bar.set_position(done);
        self.bar.set_message(format!("{}, {what}", self.name));
        if self.bar.is_hidden() && since(self.said.get()) > SAY {
            info!(step = self.name, what, done, all, "under way");
            self.said.set(monotonic());
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
