//! Faults: the simulation sets a hook, which is asked before each call of an instance and says what goes wrong with it.

use std::collections::BTreeMap;

use crate::broker::{BrokerError, Reaction};
use crate::record::TopicPartition;

/// A call that can fail, in the order of a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// `Broker::describe`.
    Describe,
    /// `Broker::create`.
    Create,
    /// The producer's initialisation in `Broker::join` and `Member::reopen`.
    InitProducer,
    /// `Broker::join`, the group's part.
    Join,
    /// The group's part of `Member::poll`: a lost one keeps the member from hearing of events and the group from hearing of it,
    /// while records are still fetched.
    Heartbeat,
    /// The fetching part of `Member::poll`.
    Poll,
    /// `Member::acknowledge`: mostly the client's own doing, so it can fail or be a member's last, but not be lost.
    Acknowledge,
    /// `Member::committed`.
    Committed,
    /// `Member::bounds`.
    Bounds,
    /// `Member::token`; a lost one leaves the member with the generation that it heard of last.
    Token,
    /// `Member::send`; a lost or late one is delivered by the next flush or commit, the idempotent producer's retry. A late one
    /// of a crashed instance arrives all the same.
    Send,
    /// Waiting for what is in flight: the first step of `Member::commit`, and `Member::flush`.
    Flush,
    /// Adding offsets to the transaction: the second step of `Member::commit`.
    AddOffsets,
    /// The commit itself: the third step of `Member::commit`.
    EndTxnCommit,
    /// `Member::abort`.
    EndTxnAbort,
    /// `Member::commit_offsets`.
    CommitOffsets,
    /// `Member::leave`.
    Leave,
    /// `Reader::bounds`.
    ReaderBounds,
    /// `Reader::poll`.
    ReaderPoll,
    /// `Publisher::send`.
    Publish,
    /// `Publisher::flush` and `Publisher::flush_positions`.
    PublisherFlush,
}

impl Op {
    /// All of them, in order.
    pub const ALL: [Self; 21] = [
        Self::Describe,
        Self::Create,
        Self::InitProducer,
        Self::Join,
        Self::Heartbeat,
        Self::Poll,
        Self::Acknowledge,
        Self::Committed,
        Self::Bounds,
        Self::Token,
        Self::Send,
        Self::Flush,
        Self::AddOffsets,
        Self::EndTxnCommit,
        Self::EndTxnAbort,
        Self::CommitOffsets,
        Self::Leave,
        Self::ReaderBounds,
        Self::ReaderPoll,
        Self::Publish,
        Self::PublisherFlush,
    ];

    /// What the caller hears when no answer comes: only a commit or abort leaves it in doubt, all else can be asked again.
    pub(super) fn unanswered(self) -> Reaction {
        match self {
            Self::EndTxnCommit | Self::EndTxnAbort => Reaction::Unknown,
            _ => Reaction::Retry,
        }
    }
}

/// A call about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpContext<'a> {
    /// Which.
    pub op: Op,
    /// By whom: a member's static identity, or the name of the handle ([`super::SimBroker::named`]) that made the reader or publisher.
    pub instance: &'a str,
    /// When, on the virtual clock.
    pub now_ms: u64,
    /// How many calls of this kind were made before, by anyone.
    pub nth: u64,
    /// Where to, for records that are sent.
    pub to: Option<TopicPartition>,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is not done, and the caller is told this reaction.
    Error(Reaction),
    /// It is not done and gets no answer: `Unknown` for a commit or abort, else `Retry`.
    LostRequest,
    /// It is done and gets no answer.
    LostAnswer,
    /// No answer; the request is held and delivered after so many milliseconds, whatever happened meanwhile. Kinds that change
    /// nothing in the broker are lost instead.
    Late(u64),
    /// A commit or abort is decided and answered, but its markers and offsets appear only after so many milliseconds, or when the same
    /// producer goes on. Nothing for other calls.
    SlowMarkers(u64),
    /// The instance dies at this call: from now on each of its calls answers `Stop`, until the simulation drops it.
    Crash {
        /// Whether the broker still did what was asked.
        done: bool,
    },
}

/// A kind of fault, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// [`Fault::Error`].
    Error,
    /// [`Fault::LostRequest`].
    LostRequest,
    /// [`Fault::LostAnswer`].
    LostAnswer,
    /// [`Fault::Late`].
    Late,
    /// [`Fault::SlowMarkers`].
    SlowMarkers,
    /// [`Fault::Crash`] before the broker did anything.
    CrashBefore,
    /// [`Fault::Crash`] after it did.
    CrashAfter,
}

impl Fault {
    fn kind(self) -> Option<FaultKind> {
        match self {
            Self::None => None,
            Self::Error(_) => Some(FaultKind::Error),
            Self::LostRequest => Some(FaultKind::LostRequest),
            Self::LostAnswer => Some(FaultKind::LostAnswer),
            Self::Late(_) => Some(FaultKind::Late),
            Self::SlowMarkers(_) => Some(FaultKind::SlowMarkers),
            Self::Crash { done: false } => Some(FaultKind::CrashBefore),
            Self::Crash { done: true } => Some(FaultKind::CrashAfter),
        }
    }
}

/// The simulation's say in every call.
pub type FaultHook = Box<dyn FnMut(&OpContext<'_>) -> Fault + Send>;

/// The hook and what it did.
#[derive(Default)]
pub(super) struct Faults {
    pub hook: Option<FaultHook>,
    calls: [u64; Op::ALL.len()],
    injected: BTreeMap<(Op, FaultKind), u64>,
}

impl Faults {
    pub fn next_call(&mut self, op: Op) -> u64 {
        let calls = &mut self.calls[op as usize];
        *calls += 1;
        *calls - 1
    }

    pub fn calls(&self, op: Op) -> u64 {
        self.calls[op as usize]
    }

    pub fn count(&mut self, op: Op, fault: Fault) {
        if let Some(kind) = fault.kind() {
            *self.injected.entry((op, kind)).or_default() += 1;
        }
    }

    pub fn injected(&self) -> BTreeMap<(Op, FaultKind), u64> {
        self.injected.clone()
    }
}

pub(super) fn injected(op: Op, reaction: Reaction) -> BrokerError {
    BrokerError::new(reaction, format!("injected by the simulation at {op:?}"))
}
