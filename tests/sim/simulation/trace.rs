//! What happened in a seed, step by step: to be read when it fails, and to be compared when it is replayed.

use std::fmt;

use super::steps::{Step, Trouble};

/// Who, and about which partition of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub instance: usize,
    pub worker: Option<usize>,
    pub partition: Option<u32>,
}

impl At {
    pub fn instance(instance: usize) -> Self {
        Self { instance, worker: None, partition: None }
    }

    /// As the group and the producers know a worker.
    pub fn name(self) -> String {
        format!("i{}-w{}", self.instance, self.worker.unwrap_or(0))
    }

    /// A worker by that name; none for what tests call themselves.
    pub fn parse(name: &str) -> Option<Self> {
        let (instance, worker) = name.strip_prefix('i')?.split_once("-w")?;
        Some(Self { instance: instance.parse().ok()?, worker: Some(worker.parse().ok()?), partition: None })
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.instance)?;
        if let Some(worker) = self.worker {
            write!(f, "-w{worker}")?;
        }
        if let Some(partition) = self.partition {
            write!(f, " profiles-{partition}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A call to the broker or the disk, and what went wrong with it.
    Call(Step, Option<Trouble>),
    /// Anything else.
    Did(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    now_ms: u64,
    at: At,
    what: What,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(Vec<Event>);

impl Trace {
    pub fn note(&mut self, now_ms: u64, at: At, what: What) {
        self.0.push(Event { now_ms, at, what });
    }

    /// The last events, for a person. Fetches and heartbeats without trouble say nothing and are left out.
    pub fn tail(&self, count: usize) -> String {
        let dull = |what: What| matches!(what, What::Call(Step::Fetch | Step::Heartbeat, None));
        let telling: Vec<&Event> = self.0.iter().filter(|event| !dull(event.what)).collect();
        let from = telling.len().saturating_sub(count);
        telling[from..].iter().map(|event| format!("{event}\n")).collect()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7} ms  {:<16} ", self.now_ms, self.at.to_string())?;
        match self.what {
            What::Call(step, None) => write!(f, "{step:?}"),
            What::Call(step, Some(trouble)) => write!(f, "{step:?}   <-- {trouble:?}"),
            What::Did(did) => f.write_str(did),
        }
    }
}
