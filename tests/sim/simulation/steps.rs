//! What may go wrong, and where: the steps of an instance's life, the troubles, and which pairs cannot be, with the reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use topology::simulated::Op;

/// A step at which the simulation can interfere, in the order of a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    InitProducer,
    Join,
    Heartbeat,
    Acknowledge,
    Committed,
    StoreOpen,
    ChangelogBounds,
    RestoreRead,
    RestoreWrite,
    InputBounds,
    RestoreFinish,
    StoreDrop,
    Fetch,
    Begin,
    Prefetch,
    SendDecision,
    SendVerdict,
    SendAnomaly,
    SendDeadLetter,
    SendChangelog,
    Flush,
    Token,
    AddOffsets,
    EndTxnCommit,
    EndTxnAbort,
    CommitOffsets,
    StoreWrite,
    PublishView,
    Leave,
}

/// What goes wrong at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    CrashBefore,
    CrashAfter,
    PowerLoss,
    Error,
    LostRequest,
    LostAnswer,
    Late,
    SlowMarkers,
    Rebalance,
    Zombie,
    ClockJump,
    DiskFull,
    Damage,
    Refused,
    TierOutage,
}

use Step as S;
use Trouble as T;

impl Step {
    pub const ALL: [Self; 29] = [
        S::InitProducer,
        S::Join,
        S::Heartbeat,
        S::Acknowledge,
        S::Committed,
        S::StoreOpen,
        S::ChangelogBounds,
        S::RestoreRead,
        S::RestoreWrite,
        S::InputBounds,
        S::RestoreFinish,
        S::StoreDrop,
        S::Fetch,
        S::Begin,
        S::Prefetch,
        S::SendDecision,
        S::SendVerdict,
        S::SendAnomaly,
        S::SendDeadLetter,
        S::SendChangelog,
        S::Flush,
        S::Token,
        S::AddOffsets,
        S::EndTxnCommit,
        S::EndTxnAbort,
        S::CommitOffsets,
        S::StoreWrite,
        S::PublishView,
        S::Leave,
    ];

    /// The step that a call of the broker is; a record sent is told by its topic. None for what only tests ask for.
    pub fn of(op: Op, topic: Option<&str>) -> Option<Self> {
        Some(match op {
            Op::InitProducer => S::InitProducer,
            Op::Join => S::Join,
            Op::Heartbeat => S::Heartbeat,
            Op::Poll => S::Fetch,
            Op::Acknowledge => S::Acknowledge,
            Op::Committed => S::Committed,
            Op::Bounds => S::InputBounds,
            Op::Token => S::Token,
            Op::Send => match topic? {
                "verdicts" => S::SendVerdict,
                "anomalies" => S::SendAnomaly,
                "dead-letters" => S::SendDeadLetter,
                name if name.ends_with("-decisions") => S::SendDecision,
                _ => S::SendChangelog,
            },
            Op::Flush => S::Flush,
            Op::AddOffsets => S::AddOffsets,
            Op::EndTxnCommit => S::EndTxnCommit,
            Op::EndTxnAbort => S::EndTxnAbort,
            Op::CommitOffsets => S::CommitOffsets,
            Op::Leave => S::Leave,
            Op::ReaderBounds => S::ChangelogBounds,
            Op::ReaderPoll => S::RestoreRead,
            Op::Describe | Op::Create | Op::Publish | Op::PublisherFlush => return None,
        })
    }

    pub fn is_sending(self) -> bool {
        matches!(self, S::SendDecision | S::SendVerdict | S::SendAnomaly | S::SendDeadLetter | S::SendChangelog)
    }

    pub fn is_end(self) -> bool {
        matches!(self, S::EndTxnCommit | S::EndTxnAbort)
    }

    fn is_disk(self) -> bool {
        matches!(self, S::StoreOpen | S::RestoreWrite | S::RestoreFinish | S::StoreDrop | S::Prefetch | S::StoreWrite)
    }

    /// It asks and changes nothing.
    fn is_question(self) -> bool {
        matches!(
            self,
            S::Heartbeat
                | S::Committed
                | S::ChangelogBounds
                | S::RestoreRead
                | S::InputBounds
                | S::Fetch
                | S::Prefetch
                | S::Token
                | S::PublishView
        )
    }

    /// False where a guarantee never comes to this step.
    pub fn happens(self, exactly_once: bool) -> bool {
        match self {
            S::InitProducer | S::AddOffsets | S::EndTxnCommit | S::EndTxnAbort => exactly_once,
            S::CommitOffsets => !exactly_once,
            _ => true,
        }
    }
}

impl Trouble {
    pub const ALL: [Self; 15] = [
        T::CrashBefore,
        T::CrashAfter,
        T::PowerLoss,
        T::Error,
        T::LostRequest,
        T::LostAnswer,
        T::Late,
        T::SlowMarkers,
        T::Rebalance,
        T::Zombie,
        T::ClockJump,
        T::DiskFull,
        T::Damage,
        T::Refused,
        T::TierOutage,
    ];

    fn title(self) -> &'static str {
        match self {
            T::CrashBefore => "crash",
            T::CrashAfter => "crash after",
            T::PowerLoss => "power loss",
            T::Error => "error",
            T::LostRequest => "lost request",
            T::LostAnswer => "lost answer",
            T::Late => "late",
            T::SlowMarkers => "slow markers",
            T::Rebalance => "rebalance",
            T::Zombie => "zombie",
            T::ClockJump => "clock jump",
            T::DiskFull => "disk full",
            T::Damage => "damage",
            T::Refused => "refused",
            T::TierOutage => "tier outage",
        }
    }
}

/// Why a pair cannot be; none where it can, and must have been tried.
pub fn impossible(step: Step, trouble: Trouble) -> Option<&'static str> {
    let unless = |possible: bool, why: &'static str| (!possible).then_some(why);
    let local = "nothing is asked over a network";
    match trouble {
        _ if step == S::Begin => {
            Some("a transaction begins in the client's memory: whatever hits it hits the step before or after")
        }
        T::CrashBefore | T::PowerLoss | T::Rebalance | T::Zombie | T::ClockJump => None,
        T::CrashAfter => unless(!step.is_question(), "changes nothing: a crash after it is one before the next step"),
        T::TierOutage => Some("no tier is in the product's path yet"),
        T::SlowMarkers => unless(step.is_end(), "only the end of a transaction writes markers"),
        T::DiskFull => unless(step.is_disk() && step != S::Prefetch, "writes nothing to the disk"),
        T::Damage => unless(step == S::Prefetch, "reads no values from the disk"),
        T::Refused => unless(step == S::StoreOpen, "only opening can be refused"),
        _ if step.is_disk() || step == S::PublishView => Some(local),
        T::Late => {
            let changes = step.is_sending() || step.is_end();
            let changes = changes || matches!(step, S::InitProducer | S::AddOffsets | S::CommitOffsets);
            unless(changes, "changes nothing in the broker, or not by one request: a late one is a lost one")
        }
        T::LostRequest | T::LostAnswer => {
            unless(step != S::Acknowledge, "mostly the client's own doing: it fails or is its last act, but is not lost")
        }
        T::Error => None,
    }
}

/// How often each trouble happened at each step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<(Step, Trouble), u64>);

impl Tally {
    pub fn count(&mut self, step: Step, trouble: Trouble) {
        *self.0.entry((step, trouble)).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (pair, n) in &other.0 {
            *self.0.entry(*pair).or_default() += n;
        }
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Pairs that could have been and never were.
    pub fn untried(&self) -> Vec<(Step, Trouble)> {
        let pairs = Step::ALL.into_iter().flat_map(|step| Trouble::ALL.map(|trouble| (step, trouble)));
        pairs.filter(|&(step, trouble)| impossible(step, trouble).is_none() && !self.0.contains_key(&(step, trouble))).collect()
    }

    /// The table: a number for each pair, a letter where it cannot be; then the letters' reasons.
    pub fn table(&self) -> String {
        let mut reasons: Vec<&'static str> = Vec::new();
        let mut out = format!("{:<16}", "");
        for trouble in Trouble::ALL {
            let _ = write!(out, "{:>13}", trouble.title());
        }
        for step in Step::ALL {
            let _ = write!(out, "\n{:<16}", format!("{step:?}"));
            for trouble in Trouble::ALL {
                let cell = match impossible(step, trouble) {
                    None => self.0.get(&(step, trouble)).copied().unwrap_or(0).to_string(),
                    Some(why) => {
                        let at = reasons.iter().position(|known| *known == why).unwrap_or_else(|| {
                            reasons.push(why);
                            reasons.len() - 1
                        });
                        char::from(b'a' + at as u8).to_string()
                    }
                };
                let _ = write!(out, "{cell:>13}");
            }
        }
        out.push_str("\nimpossible:\n");
        for (at, why) in reasons.iter().enumerate() {
            let _ = writeln!(out, "  {}  {why}", char::from(b'a' + at as u8));
        }
        out
    }
}
