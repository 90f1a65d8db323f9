//! How the instance is: three probes for whoever runs it, and `/v1/health` for people.
//!
//! | path | 200 while | on failure |
//! |---|---|---|
//! | `/livez` | every worker steps and, unless its broker is in trouble, commits | restart it |
//! | `/readyz` | started, not stopping, every partition it has is answerable | send requests elsewhere |
//! | `/startupz` | the first assignment is restored (never taken back) | wait |
//!
//! Probes are open to anyone, so they say numbers only: no text of a broker, no name of a user.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use topology::status::{Phase, TaskStatus};

use super::call::{Answer, Call};
use super::declare::{Declared, gives};
use super::health::WorkerView;
use super::reply::Reply;
use super::site::Site;
use super::tasks::{self, TaskShown};
use crate::portrait::rfc3339;
use crate::projection::TierView;

/// A probe's answer.
#[derive(Serialize, JsonSchema)]
struct Probe<D> {
    /// `ok` or `failing`.
    status: &'static str,
    /// Why it fails; empty where it does not.
    reasons: Vec<String>,
    #[serde(flatten)]
    details: D,
}

fn probe<D: Serialize>(reasons: Vec<String>, details: D) -> Reply {
    let (code, status) = if reasons.is_empty() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "failing") };
    Reply::json(code, &Probe { status, reasons, details })
}

#[derive(Serialize, JsonSchema)]
struct Workers {
    workers: Vec<WorkerShown>,
}

#[derive(Serialize, JsonSchema)]
struct WorkerShown {
    worker: usize,
    since_step_ms: u64,
    since_progress_ms: u64,
    stopped: bool,
    broker_trouble: bool,
}

fn workers(views: &[WorkerView]) -> Workers {
    let shown = |(worker, view): (usize, &WorkerView)| WorkerShown {
        worker,
        since_step_ms: view.since_step_ms,
        since_progress_ms: view.since_progress_ms,
        stopped: view.stopped,
        broker_trouble: view.trouble.is_some(),
    };
    Workers { workers: views.iter().enumerate().map(shown).collect() }
}

/// What `/livez` says of itself.
pub(crate) const LIVEZ: Declared = Declared::new(
    "Probes",
    "Whether the instance works, or should be restarted",
    &[gives::<Probe<Workers>>(200, "It works."), gives::<Probe<Workers>>(503, "It should be restarted.")],
);

/// `GET /livez`.
pub(crate) fn livez(call: &Call) -> Answer {
    let (health, now_ms) = (&call.site.api.health, call.site.monotonic_ms());
    Ok(probe(health.failures(now_ms), workers(&health.workers(now_ms))))
}

/// One store of one partition.
#[derive(Serialize, JsonSchema)]
struct StoreShown<'s> {
    store: &'s str,
    partition: u32,
    phase: &'static str,
    /// Changelog records applied in the current restore.
    restored: u64,
    /// Changelog offsets still to pass in it.
    remaining: u64,
    /// Changelog offsets passed per second in it.
    rate_per_second: u64,
    /// Seconds until its end at that rate; null where there is none or nothing is known yet.
    eta_seconds: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct Stores<'s> {
    stores: Vec<StoreShown<'s>>,
    /// What holds some of it up and is no reason to ask elsewhere; empty where nothing does.
    waits: Vec<String>,
}

/// What `/readyz` says of itself.
pub(crate) const READYZ: Declared = Declared::new(
    "Probes",
    "Whether every partition that the instance has is answerable",
    &[gives::<Probe<Stores<'_>>>(200, "They are."), gives::<Probe<Stores<'_>>>(503, "Requests should go elsewhere.")],
);

/// `GET /readyz`.
pub(crate) fn readyz(call: &Call) -> Answer {
    let site = &*call.site;
    let tasks = site.api.tasks.all();
    let mut stores = Vec::new();
    for (task, status) in &tasks {
        let TaskStatus { phase, restored, remaining, rate_per_second, eta_seconds, .. } = *status;
        let specs = site.api.topology.subs().get(usize::from(task.sub)).map_or(&[][..], |sub| &sub.stores);
        stores.extend(specs.iter().map(|spec| StoreShown {
            store: &spec.name,
            partition: task.partition,
            phase: phase.as_str(),
            restored,
            remaining,
            rate_per_second,
            eta_seconds,
        }));
    }
    Ok(probe(unready(site, tasks.values()), Stores { stores, waits: waits(tasks.values()) }))
}

/// Another instance has the same tiers: who asks there is no better off.
fn waits<'t>(tasks: impl Iterator<Item = &'t TaskStatus>) -> Vec<String> {
    match tasks.filter(|task| task.waits_for_tiers_since_ms.is_some()).count() {
        0 => Vec::new(),
        count => vec![format!("{count} partitions wait for evicted profiles: are Redis and Postgres reachable, and up to date?")],
    }
}

/// Why requests should go elsewhere.
fn unready<'t>(site: &Site, tasks: impl Iterator<Item = &'t TaskStatus>) -> Vec<String> {
    let health = &site.api.health;
    let mut reasons = Vec::new();
    if health.is_draining() {
        reasons.push("the instance is stopping".to_owned());
    }
    if !health.is_started() {
        reasons.push("the instance is starting".to_owned());
    }
    let waiting: Vec<u64> = tasks.filter(|task| task.phase != Phase::Running).map(|task| task.remaining).collect();
    if !waiting.is_empty() {
        let remaining: u64 = waiting.iter().sum();
        reasons.push(format!("{} partitions are being restored, {remaining} records remain", waiting.len()));
    }
    let workers = health.workers(site.monotonic_ms());
    let stopped = workers.iter().filter(|worker| worker.stopped).count();
    if stopped > 0 {
        reasons.push(format!("{stopped} workers stopped"));
    }
    let paused = workers.iter().filter(|worker| worker.paused).count();
    if paused > 0 {
        reasons.push(format!("{paused} workers wait for a state store that takes writes: is the disk full?"));
    }
    reasons
}

#[derive(Serialize, JsonSchema)]
struct Nothing {}

/// What `/startupz` says of itself.
pub(crate) const STARTUPZ: Declared = Declared::new(
    "Probes",
    "Whether the start is over",
    &[gives::<Probe<Nothing>>(200, "It is, and stays so."), gives::<Probe<Nothing>>(503, "It is not yet.")],
);

/// `GET /startupz`.
pub(crate) fn startupz(call: &Call) -> Answer {
    let started = call.site.api.health.is_started();
    let reasons = if started { Vec::new() } else { vec!["the instance is starting".to_owned()] };
    Ok(probe(reasons, Nothing {}))
}

/// The whole instance at a glance.
#[derive(Serialize, JsonSchema)]
struct Overview<'s> {
    /// `ok`, `starting`, `restoring`, `stopping` or `failing`.
    status: &'static str,
    version: &'static str,
    instance: &'s str,
    application: &'s str,
    /// `exactly_once` or `at_least_once`.
    guarantee: String,
    /// The model that scores; null with none.
    model_id: Option<String>,
    started_at: Option<String>,
    uptime_seconds: u64,
    tasks: Vec<TaskShown<'s>>,
    workers: Vec<WorkerInFull>,
    /// Redis and Postgres as the projection finds them; one that is down changes no status.
    tiers: Vec<TierShown>,
}

#[derive(Serialize, JsonSchema)]
struct TierShown {
    /// `redis` or `postgres`.
    tier: &'static str,
    up: bool,
    /// The trouble in words, for an operator; null where there is none.
    trouble: Option<String>,
    /// Offsets still to pass, in the partitions that this instance projects.
    lag_records: u64,
}

impl From<TierView> for TierShown {
    fn from(view: TierView) -> Self {
        Self { tier: view.tier, up: view.up, lag_records: view.lag_records(), trouble: view.trouble }
    }
}

#[derive(Serialize, JsonSchema)]
struct WorkerInFull {
    #[serde(flatten)]
    shown: WorkerShown,
    /// The trouble in words, for an operator; null where there is none.
    trouble: Option<String>,
}

/// What `/v1/health` says of itself.
pub(crate) const HEALTH: Declared = Declared::new(
    "Operations",
    "The instance at a glance",
    &[gives::<Overview<'_>>(200, "How it is, with every task and worker.")],
);

/// `GET /v1/health`.
pub(crate) fn health(call: &Call) -> Answer {
    let site = &*call.site;
    let (api, now_ms) = (&site.api, site.monotonic_ms());
    let views = api.health.workers(now_ms);
    let all = api.tasks.all();
    let shown = workers(&views).workers.into_iter();
    let overview = Overview {
        status: status(site, all.values(), now_ms),
        version: env!("CARGO_PKG_VERSION"),
        instance: &api.instance,
        application: api.topology.application(),
        guarantee: api.guarantee.to_string(),
        model_id: api.model.get().map(|model| model.id.clone()),
        started_at: rfc3339(api.started_at_ms),
        uptime_seconds: api.clock.now_ms().saturating_sub(api.started_at_ms).max(0).unsigned_abs() / 1000,
        tasks: all.iter().map(|(task, status)| tasks::shown(site, *task, status)).collect(),
        tiers: api.projection.all().into_iter().map(TierShown::from).collect(),
        workers: shown.zip(views).map(|(shown, view)| WorkerInFull { shown, trouble: view.trouble }).collect(),
    };
    Ok(Reply::json(StatusCode::OK, &overview))
}

fn status<'t>(site: &Site, mut tasks: impl Iterator<Item = &'t TaskStatus>, now_ms: u64) -> &'static str {
    let health = &site.api.health;
    if !health.failures(now_ms).is_empty() {
        "failing"
    } else if health.is_draining() {
        "stopping"
    } else if !health.is_started() {
        "starting"
    } else if tasks.any(|task| task.phase != Phase::Running) {
        "restoring"
    } else {
        "ok"
    }
}
