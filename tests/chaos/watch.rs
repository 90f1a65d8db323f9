//! What comes out, as a read-committed reader sees it while the chaos goes on.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::ledger::id_of;
use crate::common::records::{Seen, Tail};
use crate::common::scene::{PARTITIONS, Scene};
use crate::schedule::Kind;

const LOOK: Duration = Duration::from_millis(5);

/// What a verdict or dead letter says: its bytes, key and time, as one number. The oracle makes the same of what it expects.
pub fn digest(key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64, cause: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value, timestamp, cause).hash(&mut hasher);
    hasher.finish()
}

/// What came of one record.
#[derive(Clone, Debug, Default)]
pub struct Came {
    pub digest: u64,
    /// How often the same came, and how often something else.
    pub times: u32,
    pub others: u32,
}

/// What came of all records, by partition and offset of the input.
#[derive(Default)]
pub struct Outcomes {
    pub verdicts: u64,
    pub dead: u64,
    pub of: Vec<Vec<Came>>,
}

impl Outcomes {
    /// True where it is the first of its record.
    fn take(&mut self, partition: u32, offset: u64, digest: u64) -> bool {
        let (partition, offset) = (partition as usize, offset as usize);
        if self.of.len() <= partition {
            self.of.resize(partition + 1, Vec::new());
        }
        let of = &mut self.of[partition];
        if of.len() <= offset {
            of.resize(offset + 1, Came::default());
        }
        let came = &mut of[offset];
        match came.times {
            0 => (came.digest, came.times) = (digest, 1),
            _ if came.digest == digest => came.times += 1,
            _ => came.others += 1,
        }
        came.times + came.others == 1
    }
}

struct Gaps {
    fault: Option<Kind>,
    last: Vec<Instant>,
    longest: BTreeMap<Option<Kind>, Duration>,
}

pub struct Watch {
    pub outcomes: Mutex<Outcomes>,
    first: AtomicU64,
    gaps: Mutex<Gaps>,
}

impl Watch {
    pub fn new() -> Self {
        let gaps = Gaps { fault: None, last: vec![Instant::now(); PARTITIONS as usize], longest: BTreeMap::new() };
        Self { outcomes: Mutex::default(), first: AtomicU64::new(0), gaps: Mutex::new(gaps) }
    }

    /// Records of which something came.
    pub fn outcomes(&self) -> u64 {
        self.first.load(Ordering::Relaxed)
    }

    /// From now on gaps are that fault's.
    pub fn fault(&self, kind: Kind) {
        self.gaps.lock().unwrap().fault = Some(kind);
    }

    /// When each partition had its last verdict.
    pub fn last(&self) -> Vec<Instant> {
        self.gaps.lock().unwrap().last.clone()
    }

    /// The longest time between two verdicts of one partition in the course of each kind of fault.
    pub fn longest(&self) -> BTreeMap<Option<Kind>, Duration> {
        self.gaps.lock().unwrap().longest.clone()
    }

    /// Reads until it is told to end.
    pub fn run(&self, scene: &Scene, ends: &AtomicBool) {
        let mut verdicts = Tail::new(&scene.address, &scene.topic("verdicts"));
        let mut dead = Tail::new(&scene.address, &scene.topic("dead-letters"));
        self.gaps.lock().unwrap().last.fill(Instant::now());
        while !ends.load(Ordering::Relaxed) {
            let mut wait = LOOK;
            while let Some(seen) = verdicts.next(wait) {
                wait = Duration::ZERO;
                self.verdict(&seen);
            }
            while let Some(seen) = dead.next(Duration::ZERO) {
                self.dead_letter(&seen);
            }
        }
    }

    fn verdict(&self, seen: &Seen) {
        let id = id_of(seen.value.as_deref().unwrap_or_default());
        let mut parts = id.rsplit(':').map(|part| part.parse::<u64>().expect("a number"));
        let (offset, partition) = (parts.next().expect("an offset"), parts.next().expect("a partition") as u32);
        self.gap(partition);
        let digest = digest(seen.key.as_deref(), seen.value.as_deref(), seen.timestamp, "");
        let mut outcomes = self.outcomes.lock().unwrap();
        outcomes.verdicts += 1;
        self.first.fetch_add(u64::from(outcomes.take(partition, offset, digest)), Ordering::Relaxed);
    }

    fn dead_letter(&self, seen: &Seen) {
        let number = |name: &str| seen.header(&format!("__streams.errors.{name}")).parse::<u64>().expect("a number");
        let cause = seen.header("__streams.errors.exception");
        let digest = digest(seen.key.as_deref(), seen.value.as_deref(), seen.timestamp, &cause);
        let mut outcomes = self.outcomes.lock().unwrap();
        outcomes.dead += 1;
        let first = outcomes.take(number("partition") as u32, number("offset"), digest);
        self.first.fetch_add(u64::from(first), Ordering::Relaxed);
    }

    fn gap(&self, partition: u32) {
        let mut gaps = self.gaps.lock().unwrap();
        let now = Instant::now();
        let lasted = now - std::mem::replace(&mut gaps.last[partition as usize], now);
        let fault = gaps.fault;
        let longest = gaps.longest.entry(fault).or_default();
        *longest = lasted.max(*longest);
    }
}
