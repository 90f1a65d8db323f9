//! Which fault comes when to whom. A seed gives the same schedule on every machine; when a fault ends is up to the machine.

use std::fmt;
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

/// How many instances there are.
pub const INSTANCES: usize = 3;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// kill -9, and started again at once.
    Kill,
    /// kill -9, and started again when the others have its partitions.
    Takeover,
    /// SIGSTOP until the others have its partitions, then SIGCONT.
    Zombie,
    /// SIGTERM, and started again.
    Stop,
    /// SIGTERM and a new start of one after the other.
    Rolling,
    /// kill -9, and its state folder is deleted.
    StateLost,
    /// The broker: kill -9, and started again.
    Broker,
    /// Every request and answer takes longer.
    Slow,
    /// Connections are cut.
    Cut,
    /// Connections go silent.
    Silent,
    /// A commit never arrives.
    CommitLost,
    /// A commit's answer is lost.
    AnswerLost,
    /// A commit is held, the client connects anew, and it comes in the next transaction.
    CommitLate,
    /// A transaction's offsets are held and come in the next one; then kill -9.
    OffsetsLate,
}

impl Kind {
    /// All kinds that a guarantee is promised under.
    pub fn all(exactly_once: bool) -> Vec<Self> {
        use Kind::{
            AnswerLost, Broker, CommitLate, CommitLost, Cut, Kill, OffsetsLate, Rolling, Silent, Slow, StateLost, Stop, Takeover,
            Zombie,
        };
        let mut all = vec![Kill, Takeover, Stop, Rolling, StateLost, Broker, Slow, Cut, Silent];
        if exactly_once {
            // Without transactions there are none of their faults, and nothing fences a zombie.
            all.extend([Zombie, CommitLost, AnswerLost, CommitLate, OffsetsLate]);
        }
        all
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Takeover => "takeover",
            Self::Zombie => "zombie",
            Self::Stop => "stop",
            Self::Rolling => "rolling",
            Self::StateLost => "state-lost",
            Self::Broker => "broker",
            Self::Slow => "slow",
            Self::Cut => "cut",
            Self::Silent => "silent",
            Self::CommitLost => "commit-lost",
            Self::AnswerLost => "answer-lost",
            Self::CommitLate => "commit-late",
            Self::OffsetsLate => "offsets-late",
        }
    }
}

/// A fault of the schedule.
pub struct Fault {
    pub kind: Kind,
    /// The instance that it happens to, where it is one's.
    pub victim: usize,
    /// All instances suffer it, where it is the network's.
    pub all: bool,
    /// How long it lasts, where it lasts, and what comes between two of its steps.
    pub lasts: Duration,
    /// Between this fault and the recovery from the one before.
    pub after: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, victim, all, lasts, .. } = self;
        write!(f, "{} of {}, {lasts:?}", kind.name(), if *all { "all".to_owned() } else { format!("instance {victim}") })
    }
}

/// Rounds of all kinds, each in an order of its own, without an end.
pub struct Schedule {
    random: ChaCha8Rng,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Schedule {
    pub fn new(seed: u64, kinds: &[Kind]) -> Self {
        assert!(!kinds.is_empty(), "no such faults");
        Self { random: ChaCha8Rng::seed_from_u64(seed), kinds: kinds.to_vec(), left: Vec::new() }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            self.left.shuffle(&mut self.random);
        }
        let kind = self.left.pop()?;
        let mut ms = |from, to| Duration::from_millis(self.random.random_range(from..to));
        let lasts = match kind {
            Kind::Slow => ms(10, 60),
            Kind::Broker => ms(200, 2_000),
            Kind::Silent => ms(1_000, 9_000),
            _ => ms(100, 1_000),
        };
        let after = ms(100, 1_500);
        Some(Fault {
            kind,
            victim: self.random.random_range(0..INSTANCES),
            all: matches!(kind, Kind::Slow | Kind::Cut | Kind::Silent) && self.random.random_bool(0.4),
            lasts,
            after,
        })
    }
}

#[test]
fn a_seed_gives_the_same_schedule_with_each_kind_in_each_round() {
    let kinds = Kind::all(true);
    let round = |seed| Schedule::new(seed, &kinds).take(kinds.len()).map(|fault| (fault.kind, fault.victim, fault.lasts));
    let mut first: Vec<_> = round(7).collect();
    assert_eq!(first, round(7).collect::<Vec<_>>());
    assert_ne!(first, round(8).collect::<Vec<_>>());
    first.sort_unstable();
    let mut all = kinds.clone();
    all.sort_unstable();
    assert_eq!(first.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), all);
}
