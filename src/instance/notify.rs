//! Notifications on an instance: the notifier's thread (role `notify`), and the view of what it does.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use models::Verdict;
use topology::broker::Broker;
use topology::record::TopicId;
use topology::topology::Topology;
use tracing::{info, warn};

use super::{InstanceError, Stop};
use crate::clock::{RealClock, monotonic};
use crate::config::{Role, Settings};
use crate::notify::Notifications;
use crate::notify::book::Book;
use crate::notify::notifier::{Notifier, Plan, Status};
use crate::notify::send::{Couriers, Sender};
use crate::notify::targets::Targets;
use crate::scoring::notifications_topic;
use crate::snoozes::Snoozes;
use crate::threads::{ended_by, spawn};
use crate::trouble::Trouble;

/// The longest that a step waits for news.
const STEP: Duration = Duration::from_millis(100);
/// After a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// Running threads.
pub(super) struct Notifying {
    front: Notifications,
    stop: Stop,
    notifier: Option<JoinHandle<()>>,
}

impl Notifying {
    /// What the HTTP interface shows.
    pub(super) fn front(&self) -> Notifications {
        self.front.clone()
    }

    /// Tells the threads to end.
    pub(super) fn tell(&self) {
        self.stop.raise();
    }

    /// Waits for the notifier's last commit, so long.
    pub(super) fn wait(self, within: Duration) {
        if let Some(thread) = &self.notifier {
            ended_by(thread, monotonic() + within);
        }
    }
}

/// The targets of the settings.
///
/// # Errors
/// Where the file has become wrong since the settings were checked.
pub fn targets(settings: &Settings) -> Result<Option<Targets>, InstanceError> {
    let Some(path) = &settings.notify_targets else { return Ok(None) };
    let targets = Targets::read(path, settings.notify_allow_private);
    targets.map(Some).map_err(|why| InstanceError(format!("NOTIFY_TARGETS {}: {}", path.display(), why.join("; "))))
}

/// Who sends to the targets of the settings.
#[must_use]
pub fn sender(settings: &Settings, targets: Targets) -> Sender {
    let dashboard = settings.http_advertised_addr.clone().unwrap_or_else(|| settings.http_addr.to_string());
    let scheme = if settings.http_tls_cert.is_some() { "https" } else { "http" };
    Sender::new(targets, &format!("{scheme}://{dashboard}"), settings.notify_allow_private)
}

/// The notifications topic.
#[must_use]
pub fn topic(topology: &Topology) -> TopicId {
    let name = notifications_topic(topology.application());
    topology.topics().find(&name).expect("invariant: the topology has the notifications topic")
}

/// Starts the threads; none where there are no targets.
pub(super) fn start<B: Broker>(
    settings: &Settings,
    broker: &Arc<B>,
    topology: &Topology,
    instance: &str,
    snoozes: &Snoozes,
) -> Result<Option<Notifying>, InstanceError> {
    let Some(targets) = targets(settings)? else { return Ok(None) };
    let stop = Stop::default();
    let memory = topic(topology);
    let clock = Arc::new(RealClock);
    let book = Book::new(broker, memory, clock.clone());
    let (reader, stopped) = (book.clone(), stop.clone());
    spawn("notifications", move || reader.run(&|| stopped.raised()));
    let kinds = targets.list.iter().map(|target| (target.name.clone(), target.way.kind(), target.min_severity)).collect();
    let mut status: Arc<Status> = Arc::default();
    let mut thread = None;
    if settings.roles.plays(Role::Notify) {
        let anomalies = topology.topics().find(&settings.anomalies_topic);
        let plan = Plan {
            application: topology.application().to_owned(),
            instance: instance.to_owned(),
            anomalies: anomalies.expect("invariant: the topology writes anomalies"),
            notifications: memory,
            transaction_timeout_ms: settings.transaction_timeout_ms,
            // Another third is what people look at; another is the topic while it is read back.
            rules: targets.rules(
                i64::try_from(settings.notify_window_s).unwrap_or(i64::MAX / 1_000) * 1_000,
                super::budget(settings)?.notify / 3,
            ),
        };
        info!(targets = targets.list.len(), window_s = settings.notify_window_s, "notifications are on");
        let couriers = Couriers::new(Arc::new(sender(settings, targets)));
        let couriers = couriers.map_err(|why| InstanceError(format!("cannot start threads: {why}")))?;
        let snoozes = snoozes.clone();
        let snoozed = move |verdict: &Verdict| snoozes.is_snoozed(&verdict.user_id, &verdict.merchant, crate::clock::now_ms());
        let notifier = Notifier::new(broker, plan, clock, Box::new(couriers), Box::new(snoozed));
        status = notifier.status();
        let stopped = stop.clone();
        thread = Some(spawn("notify", move || run(notifier, &stopped)));
    }
    Ok(Some(Notifying { front: Notifications { book, status, targets: kinds }, stop, notifier: thread }))
}

fn run<B: Broker>(mut notifier: Notifier<B>, stop: &Stop) {
    let mut trouble = Trouble::default();
    while !stop.raised() {
        match notifier.step(STEP, &|| stop.raised()) {
            Ok(()) => trouble.is_over(),
            Err(why) => {
                if trouble.is_news(&why) {
                    warn!(%why, "notifications are held up; trying again");
                }
                std::thread::park_timeout(AGAIN);
            }
        }
    }
    if let Err(why) = notifier.close() {
        warn!(%why, "the last notifications were not committed: they may come again");
    }
}
