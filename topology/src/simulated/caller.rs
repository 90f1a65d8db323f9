//! The way every call takes from an instance to the broker: past the simulation's hook, which may fail, lose, delay or end it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cluster::{Cluster, Request, stop};
use super::faults::{Fault, FaultHook, Faults, Op, OpContext, injected};
use crate::broker::{BrokerError, Result};
use crate::record::{TopicPartition, Topics};

/// What all handles of one simulated broker share. The hook runs while neither lock is held, so it may look at the broker.
pub(super) struct Shared {
    pub topics: Topics,
    cluster: Mutex<Cluster>,
    faults: Mutex<Faults>,
}

impl Shared {
    pub fn new(topics: Topics) -> Self {
        let cluster = Mutex::new(Cluster::new(topics.clone()));
        Self { topics, cluster, faults: Mutex::default() }
    }

    /// A check that panics while it holds the lock must not hide behind the panics of those who come after it.
    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, op: Op, instance: &str, to: Option<TopicPartition>) -> Fault {
        let mut faults = self.faults();
        let nth = faults.next_call(op);
        let Some(hook) = faults.hook.take() else { return Fault::None };
        drop(faults);
        let mut hook: FaultHook = hook;
        let now_ms = self.cluster().now_ms;
        let fault = hook(&OpContext { op, instance, now_ms, nth, to });
        let mut faults = self.faults();
        faults.count(op, fault);
        // Unless the hook has set another one meanwhile.
        faults.hook.get_or_insert(hook);
        fault
    }
}

/// One instance's handle on the broker; after a crash it answers nothing any more.
#[derive(Clone)]
pub(super) struct Caller {
    pub shared: Arc<Shared>,
    pub instance: Arc<str>,
    crashed: bool,
}

impl Caller {
    pub fn new(shared: Arc<Shared>, instance: &str) -> Self {
        Self { shared, instance: instance.into(), crashed: false }
    }

    /// Makes a call that can't be late: it is lost instead.
    pub fn call<T>(&mut self, op: Op, act: impl FnOnce(&mut Cluster) -> Result<T>) -> Result<T> {
        self.call_or_hold(op, || None, act)
    }

    /// Fetches. A client asks again on its own, so a request or answer lost on the way only means that nothing has come yet.
    pub fn fetch(&mut self, op: Op, act: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
        match self.ask(op)? {
            Fault::None | Fault::SlowMarkers(_) => act(&mut self.shared.cluster()),
            Fault::Error(reaction) => Err(injected(op, reaction)),
            Fault::LostRequest | Fault::LostAnswer | Fault::Late(_) => Ok(()),
            Fault::Crash { .. } => Err(self.crash()),
        }
    }

    /// Makes a call; `request` is what arrives if it is late.
    pub fn call_or_hold<T>(
        &mut self,
        op: Op,
        request: impl FnOnce() -> Option<Request>,
        act: impl FnOnce(&mut Cluster) -> Result<T>,
    ) -> Result<T> {
        let fault = self.ask(op)?;
        let mut cluster = self.shared.cluster();
        let unanswered = || Err(injected(op, op.unanswered()));
        match fault {
            Fault::None => act(&mut cluster),
            Fault::Error(reaction) => Err(injected(op, reaction)),
            Fault::LostRequest => unanswered(),
            Fault::LostAnswer => act(&mut cluster).and_then(|_| unanswered()),
            Fault::Late(ms) => {
                if let Some(request) = request() {
                    cluster.hold(ms, request);
                }
                unanswered()
            }
            Fault::SlowMarkers(ms) => {
                cluster.marker_delay_ms = Some(ms);
                let result = act(&mut cluster);
                cluster.marker_delay_ms = None;
                result
            }
            Fault::Crash { done } => {
                if done {
                    // The dead hear no answer.
                    let _unheard = act(&mut cluster);
                }
                drop(cluster);
                self.crashed = true;
                Err(crash())
            }
        }
    }

    /// What the simulation wants to go wrong with a call, for those that are not simply a request and its answer.
    pub fn ask(&mut self, op: Op) -> Result<Fault> {
        self.check_alive()?;
        Ok(self.shared.fault(op, &self.instance, None))
    }

    /// As [`Self::ask`], for a record on its way.
    pub fn ask_to_send(&mut self, op: Op, to: TopicPartition) -> Result<Fault> {
        self.check_alive()?;
        Ok(self.shared.fault(op, &self.instance, Some(to)))
    }

    pub fn crash(&mut self) -> BrokerError {
        self.crashed = true;
        crash()
    }

    pub fn check_alive(&self) -> Result<()> {
        if self.crashed { Err(crash()) } else { Ok(()) }
    }
}

fn crash() -> BrokerError {
    stop("the simulation crashed this instance")
}
