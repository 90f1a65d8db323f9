//! Starting and stopping synthetic load from elsewhere: what the demo lends to its HTTP interface.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drive::LoadParams;
use super::pace::Bursts;
use super::report::Report;
use super::session::{Progress, Session, Shared};
use super::share::Share;
use super::traffic::TrafficParams;
use crate::clock::now_ms;
use crate::failure::Failure;
use crate::generator::{AnomalyMix, GeneratorParams};

/// More people than this take too much memory beside an instance.
const USERS_MAX: u32 = 200_000;
const RATE_MAX: f64 = 100_000.0;

/// What is asked for; what is left out is as in the demo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// Payments a second.
    pub rate: f64,
    /// How many people pay.
    pub users: u32,
    /// Zipf's exponent of how often each pays; none is a natural crowd.
    pub skew: Option<f64>,
    /// Who the people are.
    pub seed: u64,
    /// The share of anomalous payments.
    pub anomalies: Share,
    /// The share of late ones.
    pub late: Share,
    /// The share of those out of order.
    pub out_of_order: Share,
    /// The share of broken records.
    pub poison: Share,
    /// Times of a higher rate.
    pub bursts: Option<Bursts>,
    /// How many payments; none is until it is stopped.
    pub count: Option<u64>,
    /// For how many seconds; none is until it is stopped.
    pub duration_s: Option<f64>,
}

impl Default for Order {
    fn default() -> Self {
        let GeneratorParams { seed, .. } = GeneratorParams::default();
        Self {
            rate: 1_000.0,
            users: 50_000,
            skew: None,
            seed,
            anomalies: Share::try_from(0.01).expect("invariant: it is a share"),
            late: Share::NONE,
            out_of_order: Share::NONE,
            poison: Share::NONE,
            bursts: None,
            count: None,
            duration_s: None,
        }
    }
}

impl Order {
    fn params(&self, now_ms: i64) -> Result<LoadParams, Refusal> {
        let wrong = |field, expected: &str| Err(Refusal::Invalid { field, expected: expected.to_owned() });
        if !(self.rate > 0.0 && self.rate <= RATE_MAX) {
            return wrong("/rate", "above 0, up to 100,000 a second");
        }
        if !(1..=USERS_MAX).contains(&self.users) {
            return wrong("/users", "from 1 to 200,000");
        }
        if !self.duration_s.is_none_or(|seconds| seconds > 0.0 && seconds < 1e9) {
            return wrong("/duration_s", "a number of seconds above 0");
        }
        let generator = GeneratorParams {
            users: self.users,
            seed: self.seed,
            skew: self.skew,
            anomaly_share: self.anomalies.get(),
            anomaly_mix: AnomalyMix::EVERY_KIND,
            // Another sequence of payments each time, by the same people.
            stream: u32::try_from((now_ms / 1000) & 0x7fff_ffff).expect("invariant: 31 bits"),
            id_prefix: Some(format!("load-{now_ms:x}-")),
            start_ms: now_ms,
            worldwide: true,
            ..GeneratorParams::default()
        };
        let Self { late, out_of_order, poison, .. } = *self;
        // Who looks at it looks at now.
        let traffic = TrafficParams { generator, late, out_of_order, poison, real_time: true, ..TrafficParams::default() };
        let params = LoadParams {
            traffic,
            rate: Some(self.rate),
            bursts: self.bursts,
            count: self.count,
            duration: self.duration_s.map(Duration::from_secs_f64),
            ..LoadParams::default()
        };
        match params.check() {
            Ok(()) => Ok(params),
            Err(why) => Err(Refusal::Invalid { field: "", expected: why.to_string() }),
        }
    }
}

/// Why a load is not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// One is under way: stop it first.
    Running,
    /// A part of the order is wrong.
    Invalid {
        /// Where, as a JSON pointer.
        field: &'static str,
        /// What is expected.
        expected: String,
    },
    /// It cannot be started.
    Failed(String),
}

/// What goes on.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Status {
    /// `demo`: the demo's own payments; `running`, `ending` (the last ones are waited for); `stopped`.
    pub state: &'static str,
    /// What was asked for last.
    pub order: Option<Order>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// What came of the last one.
    pub report: Option<Report>,
    /// Why the last one failed, where it did.
    pub error: Option<String>,
}

/// Runs a load to its end.
type Launch = Arc<dyn Fn(&LoadParams, &Shared) -> Result<Report, Failure> + Send + Sync>;

#[derive(Default)]
struct Last {
    session: Option<Session>,
    order: Option<Order>,
    report: Option<Report>,
    error: Option<String>,
}

impl Last {
    /// Takes what came of a load that has ended.
    fn collect(&mut self) {
        if let Some(session) = self.session.take_if(|session| session.is_finished()) {
            match session.join() {
                Ok(report) => self.report = Some(report),
                Err(why) => self.error = Some(why.to_string()),
            }
        }
    }
}

/// At most one load at a time.
pub struct Control {
    launch: Launch,
    /// The demo's own payments are over for good.
    taken_over: Arc<AtomicBool>,
    last: Mutex<Last>,
}

impl Control {
    /// Takes the place of payments that end once `taken_over` is set.
    pub fn new(
        taken_over: Arc<AtomicBool>,
        launch: impl Fn(&LoadParams, &Shared) -> Result<Report, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self { launch: Arc::new(launch), taken_over, last: Mutex::default() }
    }

    /// Starts a load.
    ///
    /// # Errors
    /// Why it is not started.
    pub fn start(&self, order: Order) -> Result<Status, Refusal> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.collect();
        if last.session.is_some() {
            return Err(Refusal::Running);
        }
        let params = order.params(now_ms())?;
        self.taken_over.store(true, Ordering::Release);
        let launch = Arc::clone(&self.launch);
        let prefix = params.traffic.generator.id_prefix.clone().unwrap_or_default();
        let work = move |shared: &Arc<Shared>| launch(&params, shared);
        let session = Session::start(prefix, work).map_err(|why| Refusal::Failed(why.to_string()))?;
        *last = Last { session: Some(session), order: Some(order), report: None, error: None };
        drop(last);
        Ok(self.status())
    }

    /// Sends nothing more, the demo's own payments included; the last ones are waited for.
    pub fn stop(&self) -> Status {
        self.taken_over.store(true, Ordering::Release);
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &last.session {
            session.shared.stop();
        }
        drop(last);
        self.status()
    }

    /// What goes on.
    pub fn status(&self) -> Status {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.collect();
        let state = match &last.session {
            Some(session) if session.shared.is_stopped() || session.shared.is_over() => "ending",
            Some(_) => "running",
            None if self.taken_over.load(Ordering::Acquire) => "stopped",
            None => "demo",
        };
        let progress = last.session.as_ref().map(|session| session.shared.progress());
        Status { state, order: last.order.clone(), progress, report: last.report.clone(), error: last.error.clone() }
    }

    /// Ends what is under way, and waits for it.
    pub fn end(&self) {
        let session = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.session.take()
        };
        if let Some(session) = session {
            session.shared.stop();
            session.shared.fail();
            // What it says is of no account any more.
            let _ended = session.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A load that lasts until it is stopped.
    fn control() -> Control {
        let launch = |_: &LoadParams, shared: &Shared| {
            while !shared.is_stopped() && !shared.has_failed() {
                std::thread::yield_now();
            }
            Ok(Report { sent: 7, ..Report::default() })
        };
        Control::new(Arc::default(), launch)
    }

    fn until_stopped(control: &Control) -> Status {
        loop {
            let status = control.status();
            if status.state == "stopped" {
                return status;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_load_at_a_time_takes_the_place_of_the_demos() {
        let control = control();
        assert_eq!(control.status().state, "demo");
        let status = control.start(Order::default()).unwrap();
        assert_eq!((status.state, status.progress.map(|progress| progress.sent)), ("running", Some(0)));
        assert!(control.taken_over.load(Ordering::Acquire), "the demo's own payments end");
        assert_eq!(control.start(Order::default()), Err(Refusal::Running));
        assert_eq!(control.stop().error, None);
        let stopped = until_stopped(&control);
        assert_eq!(stopped.report.map(|report| report.sent), Some(7));
        assert_eq!(control.start(Order { rate: 5.0, ..Order::default() }).unwrap().report, None);
        control.end();
    }

    #[test]
    fn stopping_ends_the_demos_own_payments_too() {
        let control = control();
        assert_eq!(control.stop().state, "stopped");
        assert!(control.taken_over.load(Ordering::Acquire));
    }

    #[test]
    fn what_does_not_fit_is_named_and_nothing_ends() {
        let control = control();
        for (order, field) in [
            (r#"{"rate":0}"#, "/rate"),
            (r#"{"users":0}"#, "/users"),
            (r#"{"duration_s":-1}"#, "/duration_s"),
            (r#"{"skew":9}"#, ""),
            (r#"{"bursts":{"every_s":1,"for_s":2,"factor":3}}"#, ""),
        ] {
            let order: Order = serde_json::from_str(order).unwrap();
            assert!(matches!(control.start(order), Err(Refusal::Invalid { field: found, .. }) if found == field), "{field}");
        }
        for order in [r#"{"rates":1}"#, r#"{"poison":2}"#] {
            assert!(serde_json::from_str::<Order>(order).is_err(), "{order}");
        }
        assert_eq!(control.status().state, "demo");
    }
}
