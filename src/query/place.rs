//! The decision where an answer comes from, pure: from what is known of a partition to the next step. The caller takes the step, adds
//! what came of it to what is known, and asks again.
//!
//! In this order: the partition runs here; its owner; with `any` a copy here, then the other copies, the freshest first, then the tiers, Redis
//! before Postgres: they say what they have of a user, and never that there is no such user. A partition
//! that is being restored here is not asked of anyone but copies: the group gave it to this instance, so whoever else believes to be its
//! owner has not heard of that yet, and would answer from the past.

use std::collections::BTreeSet;

use super::wish::Consistency;
use crate::membership::Peer;

/// What this instance has of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// Its task runs; committed state includes every input record before `next`.
    Running {
        /// The next input offset.
        next: u64,
    },
    /// Its task is being restored.
    Restoring {
        /// Changelog offsets still to pass.
        remaining: u64,
    },
    /// A copy that follows the changelog.
    Copy {
        /// The next input offset, as far as the copy knows.
        next: u64,
    },
    /// Nothing.
    Nothing,
}

/// What came of asking the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gave {
    /// It refused, and said why.
    Refused,
    /// It does not have the partition.
    NotThere,
    /// No answer.
    Nothing,
}

/// A tier that may have the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierName {
    /// The warm one.
    Redis,
    /// The cold one.
    Postgres,
}

impl TierName {
    /// As an answer's source.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// Who may answer.
    pub consistency: Consistency,
    /// The next input offset that an answer must have reached.
    pub min: u64,
    /// True where another instance passed the request on: it goes no further.
    pub hop: bool,
    /// True while the caller's time is not over.
    pub time_left: bool,
    /// This instance's id.
    pub me: &'f str,
    /// What it has.
    pub here: Here,
    /// Who is said to have the partition.
    pub owner: Option<&'f Peer>,
    /// Who is said to keep a copy, the one furthest ahead first.
    pub standbys: &'f [Peer],
    /// What came of asking the owner, once that was done.
    pub owner_gave: Option<Gave>,
    /// The instances that were asked for a copy, this one among them once its own was read; none of them could answer.
    pub tried: &'f BTreeSet<String>,
    /// The tiers that were not asked yet, the first one first.
    pub tiers: &'f [TierName],
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the committed state of the task here.
    Read,
    /// Read the copy here.
    ReadCopy,
    /// The task here is about to get there: look again in a moment.
    Wait,
    /// Ask the owner.
    AskOwner(Peer),
    /// Ask for a copy.
    AskStandby(Peer),
    /// Ask a tier.
    ReadTier(TierName),
    /// Nobody can answer.
    Refuse(Refusal),
}

/// Why nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request was passed on to this instance, which does not have the partition.
    NotHere,
    /// The partition is being restored here.
    Restoring {
        /// Changelog offsets still to pass.
        remaining: u64,
    },
    /// What is here has not reached the position that was asked for.
    Behind {
        /// The next input offset it stands at.
        next: u64,
    },
    /// Nobody has the partition, as far as is known: it is on its way.
    Moving,
    /// The owner gives no answer.
    Unreachable,
    /// The owner refused: its words are the answer.
    AsOwnerSaid,
}

/// The next step.
#[must_use]
pub fn next(facts: &Facts<'_>) -> Step {
    match facts.here {
        Here::Running { next } if next >= facts.min => return Step::Read,
        Here::Running { .. } if facts.time_left => return Step::Wait,
        // Nobody is ahead of the owner.
        Here::Running { next } => return Step::Refuse(Refusal::Behind { next }),
        Here::Restoring { .. } | Here::Copy { .. } | Here::Nothing => {}
    }
    let restoring = matches!(facts.here, Here::Restoring { .. });
    if let Some(owner) = facts.owner
        && !facts.hop
        && !restoring
        && owner.instance != facts.me
        && facts.owner_gave.is_none()
        && facts.time_left
    {
        return Step::AskOwner(owner.clone());
    }
    if facts.consistency == Consistency::Any
        && let Some(step) = copy(facts)
    {
        return step;
    }
    Step::Refuse(refusal(facts))
}

/// A copy that may do.
fn copy(facts: &Facts<'_>) -> Option<Step> {
    if matches!(facts.here, Here::Copy { next } if next >= facts.min) && !facts.tried.contains(facts.me) {
        return Some(Step::ReadCopy);
    }
    if facts.hop || !facts.time_left {
        return None;
    }
    let mut others = facts.standbys.iter().filter(|peer| peer.instance != facts.me && !facts.tried.contains(&peer.instance));
    let other = others.next().cloned().map(Step::AskStandby);
    other.or_else(|| facts.tiers.first().copied().map(Step::ReadTier))
}

fn refusal(facts: &Facts<'_>) -> Refusal {
    match (facts.here, facts.owner_gave) {
        (Here::Restoring { remaining }, _) => Refusal::Restoring { remaining },
        (_, Some(Gave::Refused)) => Refusal::AsOwnerSaid,
        (_, Some(Gave::Nothing)) => Refusal::Unreachable,
        (Here::Copy { next }, _) if facts.consistency == Consistency::Any && next < facts.min => Refusal::Behind { next },
        (_, _) if facts.hop => Refusal::NotHere,
        (_, Some(Gave::NotThere) | None) => Refusal::Moving,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "me";

    fn peer(instance: &str) -> Peer {
        Peer { instance: instance.to_owned(), endpoint: String::new(), active: Vec::new(), standby: Vec::new(), heard_ms: 0 }
    }

    /// A request of consistency owner, nothing here, nobody known: what each case begins with.
    fn nothing(tried: &BTreeSet<String>) -> Facts<'_> {
        Facts {
            consistency: Consistency::Owner,
            min: 0,
            hop: false,
            time_left: true,
            me: ME,
            here: Here::Nothing,
            owner: None,
            standbys: &[],
            owner_gave: None,
            tried,
            tiers: &[],
        }
    }

    /// One case of the table: [`nothing`] but for `change`.
    fn decided(change: impl Fn(&mut Facts<'_>)) -> Step {
        let tried = BTreeSet::new();
        let mut facts = nothing(&tried);
        change(&mut facts);
        next(&facts)
    }

    #[test]
    fn what_runs_here_is_read_here_once_it_is_there() {
        for hop in [false, true] {
            for consistency in [Consistency::Owner, Consistency::Any] {
                let with = |next, min, time_left| {
                    decided(|facts| {
                        (facts.here, facts.min, facts.time_left) = (Here::Running { next }, min, time_left);
                        (facts.hop, facts.consistency) = (hop, consistency);
                    })
                };
                assert_eq!(with(5, 0, false), Step::Read);
                assert_eq!(with(5, 5, false), Step::Read);
                assert_eq!(with(5, 6, true), Step::Wait);
                assert_eq!(with(5, 6, false), Step::Refuse(Refusal::Behind { next: 5 }));
            }
        }
    }

    #[test]
    fn the_owner_elsewhere_is_asked_once() {
        let owner = peer("other");
        let ask = |hop, time_left, owner_gave| {
            let tried = BTreeSet::new();
            next(&Facts { min: 9, hop, time_left, owner: Some(&owner), owner_gave, ..nothing(&tried) })
        };
        assert_eq!(ask(false, true, None), Step::AskOwner(owner.clone()));
        assert_eq!(ask(true, true, None), Step::Refuse(Refusal::NotHere), "a request goes no further than once");
        assert_eq!(ask(false, true, Some(Gave::Refused)), Step::Refuse(Refusal::AsOwnerSaid));
        assert_eq!(ask(false, true, Some(Gave::NotThere)), Step::Refuse(Refusal::Moving));
        assert_eq!(ask(false, true, Some(Gave::Nothing)), Step::Refuse(Refusal::Unreachable));
        assert_eq!(ask(false, false, None), Step::Refuse(Refusal::Moving), "no time is left to ask");
    }

    #[test]
    fn nobody_or_only_this_instance_is_said_to_own_it() {
        assert_eq!(decided(|_| ()), Step::Refuse(Refusal::Moving));
        assert_eq!(decided(|facts| facts.consistency = Consistency::Any), Step::Refuse(Refusal::Moving));
        assert_eq!(decided(|facts| facts.hop = true), Step::Refuse(Refusal::NotHere));
        let myself = peer(ME);
        let tried = BTreeSet::new();
        let facts = Facts { owner: Some(&myself), ..nothing(&tried) };
        assert_eq!(next(&facts), Step::Refuse(Refusal::Moving), "it never asks itself");
    }

    #[test]
    fn a_partition_under_restore_is_not_asked_of_its_former_owner() {
        let owner = peer("before");
        let copies = [peer("copy")];
        let tried = BTreeSet::new();
        let (here, owner) = (Here::Restoring { remaining: 7 }, Some(&owner));
        let mut facts = Facts { here, owner, standbys: &copies, ..nothing(&tried) };
        assert_eq!(next(&facts), Step::Refuse(Refusal::Restoring { remaining: 7 }));
        facts.consistency = Consistency::Any;
        assert_eq!(next(&facts), Step::AskStandby(copies[0].clone()));
        facts.hop = true;
        assert_eq!(next(&facts), Step::Refuse(Refusal::Restoring { remaining: 7 }));
    }

    #[test]
    fn copies_answer_only_who_allows_it_and_only_after_the_owner() {
        let owner = peer("other");
        let copies = [ME, "near", "late"].map(peer);
        let tried: [BTreeSet<String>; 4] =
            [&[][..], &[ME], &[ME, "near"], &[ME, "near", "late"]].map(|ids| ids.iter().map(|&id| id.to_owned()).collect());
        let facts = |owner_gave, tried| Facts {
            consistency: Consistency::Any,
            min: 20,
            here: Here::Copy { next: 20 },
            owner: Some(&owner),
            standbys: &copies,
            owner_gave,
            ..nothing(tried)
        };
        let gone = Some(Gave::Nothing);
        assert_eq!(next(&facts(None, &tried[0])), Step::AskOwner(owner.clone()));
        assert_eq!(next(&facts(gone, &tried[0])), Step::ReadCopy);
        assert_eq!(next(&Facts { hop: true, ..facts(None, &tried[0]) }), Step::ReadCopy);
        assert_eq!(next(&Facts { time_left: false, ..facts(None, &tried[0]) }), Step::ReadCopy, "a copy costs no time");
        let owner_only = Facts { consistency: Consistency::Owner, ..facts(gone, &tried[0]) };
        assert_eq!(next(&owner_only), Step::Refuse(Refusal::Unreachable));
        let behind = Facts { here: Here::Copy { next: 19 }, ..facts(gone, &tried[0]) };
        assert_eq!(next(&behind), Step::AskStandby(copies[1].clone()), "the freshest of the others");
        let behind = Facts { hop: true, owner_gave: None, ..behind };
        assert_eq!(next(&behind), Step::Refuse(Refusal::Behind { next: 19 }));
        assert_eq!(next(&facts(gone, &tried[1])), Step::AskStandby(copies[1].clone()));
        assert_eq!(next(&facts(gone, &tried[2])), Step::AskStandby(copies[2].clone()));
        let tiers = [TierName::Redis, TierName::Postgres];
        let with = |tiers, tried| Facts { tiers, ..facts(gone, tried) };
        assert_eq!(next(&with(&tiers, &tried[2])), Step::AskStandby(copies[2].clone()), "copies come before tiers");
        assert_eq!(next(&with(&tiers, &tried[3])), Step::ReadTier(TierName::Redis));
        assert_eq!(next(&with(&tiers[1..], &tried[3])), Step::ReadTier(TierName::Postgres));
        assert_eq!(next(&with(&[], &tried[3])), Step::Refuse(Refusal::Unreachable));
        let refused = Step::Refuse(Refusal::Unreachable);
        assert_eq!(
            next(&Facts { consistency: Consistency::Owner, ..with(&tiers, &tried[3]) }),
            refused,
            "who wants the owner gets no tier"
        );
        assert_eq!(next(&Facts { time_left: false, ..with(&tiers, &tried[3]) }), refused);
        assert!(
            matches!(next(&Facts { hop: true, ..with(&tiers, &tried[3]) }), Step::Refuse(_)),
            "who passed it on asks them itself"
        );
        let late = Facts { time_left: false, ..facts(gone, &tried[2]) };
        assert_eq!(next(&late), Step::Refuse(Refusal::Unreachable));
        assert_eq!(next(&facts(gone, &tried[3])), Step::Refuse(Refusal::Unreachable));
    }
}
