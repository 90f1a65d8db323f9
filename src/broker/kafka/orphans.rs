//! Partitions that the group gave to nobody, and how a member that has just joined finds and mends that.
//!
//! The cooperative protocol hands a partition over in two rebalances: one takes it away, and the member that lost it asks for the next,
//! which gives it on. Should that member stop between the two and come back under its static identity before its session ends, the
//! coordinator sees no change and answers with the assignment that it has: the group is stable, and the partition is nobody's until
//! something else makes the group rebalance. No client of the classic protocol notices. So a member that has joined looks at the
//! whole group until it has once seen every partition owned; where one is not, twice in the same picture, it leaves for good and
//! joins anew, which makes the group assign everything.
//!
//! A partition that is only slow to be handed over is not nobody's: the member that gives it up said that it owned it when it
//! joined last, and will join again. One that came back under its identity said that it owns nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;

use super::deadline::Deadline;

/// Between two looks; the group has had its two rebalances by then, mostly, and the first look is the last.
const LOOK: Duration = Duration::from_secs(1);
/// A look takes some milliseconds. One that takes longer is given up: it holds up the worker.
const PATIENCE: Duration = Duration::from_secs(1);
/// Without a grant to describe groups, or with a broker that does not answer, it is as it was before there were looks.
const FAILURES: u32 = 3;
/// Waits between looks double with each time that joining anew did not help, up to 1 s << 5.
const DOUBLINGS: u32 = 5;

/// What each member said when it joined last and what it was assigned then, as bytes on the wire.
type Picture = BTreeMap<String, (Vec<u8>, Vec<u8>)>;

/// What a member that has joined does about partitions that nobody owns.
pub(super) enum Watch {
    /// It looks from time to time.
    Looking(Looks),
    /// It is leaving for good, to join anew.
    Leaving { tried: u32 },
    /// It has seen every partition owned, or cannot see.
    Done,
}

pub(super) struct Looks {
    next: Deadline,
    /// The last look found partitions without an owner, in this picture.
    suspect: Option<Picture>,
    failures: u32,
    tried: u32,
}

/// What one look shows.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Whole,
    Unsettled,
    Orphans(Picture, usize),
}

impl Watch {
    /// For a member that joins, having joined anew `tried` times.
    pub(super) fn new(tried: u32) -> Self {
        let next = Deadline::after(LOOK * (1 << tried.min(DOUBLINGS)));
        Self::Looking(Looks { next, suspect: None, failures: 0, tried })
    }

    /// Looks where it is time to; `leads` are the topics whose partitions the group gives away, with their numbers of partitions.
    pub(super) fn look<C: Consumer<X>, X: rdkafka::consumer::ConsumerContext>(
        &mut self,
        group: &C,
        name: &str,
        leads: impl FnOnce() -> Option<Vec<(String, u32)>>,
    ) {
        let Self::Looking(looks) = self else { return };
        if !looks.next.is_over() {
            return;
        }
        let found = describe::<C, X>(group, name).map(|seen| seen.and_then(|picture| Some(judge(picture, &leads()?))));
        if let Some(next) = looks.weigh(name, found) {
            *self = next;
        }
    }
}

impl Looks {
    /// What one look leads to; None where it leads to another look. An inner None is a group that is not to be judged now.
    fn weigh(&mut self, group: &str, found: Result<Option<Found>, KafkaError>) -> Option<Watch> {
        self.next = Deadline::after(LOOK);
        match found {
            Ok(Some(Found::Whole)) => return Some(Watch::Done),
            Ok(Some(Found::Orphans(picture, count))) => {
                if self.suspect.as_ref() == Some(&picture) {
                    tracing::warn!(group, partitions = count, "partitions that nobody owns in a stable group: joining anew");
                    return Some(Watch::Leaving { tried: self.tried + 1 });
                }
                self.suspect = Some(picture);
            }
            Ok(Some(Found::Unsettled) | None) => self.suspect = None,
            Err(error) => {
                self.failures += 1;
                if self.failures == FAILURES {
                    tracing::debug!(group, %error, "the group cannot be described: not looking for partitions without an owner");
                    return Some(Watch::Done);
                }
            }
        }
        None
    }
}

/// The members of a group and what each was assigned; None while it rebalances.
fn describe<C: Consumer<X>, X: rdkafka::consumer::ConsumerContext>(group: &C, name: &str) -> Result<Option<Picture>, KafkaError> {
    let answer = group.fetch_group_list(Some(name), PATIENCE)?;
    Ok(answer.groups().iter().find(|found| found.name() == name && found.state() == "Stable").map(|found| {
        let bytes = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
        let of = |member: &rdkafka::groups::GroupMemberInfo| (bytes(member.metadata()), bytes(member.assignment()));
        found.members().iter().map(|member| (member.id().to_owned(), of(member))).collect()
    }))
}

fn judge(picture: Picture, leads: &[(String, u32)]) -> Found {
    let mut missing: BTreeSet<(&str, i32)> =
        leads.iter().flat_map(|(topic, count)| (0..*count as i32).map(move |partition| (topic.as_str(), partition))).collect();
    for (joined, assigned) in picture.values() {
        let (Some(owned), Some(assigned)) = (owned_at_join(joined), assigned_by(assigned)) else { return Found::Unsettled };
        for partition in owned.into_iter().chain(assigned) {
            missing.remove(&partition);
        }
    }
    let count = missing.len();
    if count == 0 { Found::Whole } else { Found::Orphans(picture, count) }
}

/// Reads `ConsumerProtocolAssignment` (version, then topics with their partitions; what follows is the assignor's own). None where
/// it ends early; nothing at all is an assignment of nothing.
fn assigned_by(bytes: &[u8]) -> Option<Vec<(&str, i32)>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut wire = Wire(bytes);
    wire.short()?;
    wire.partitions()
}

/// Reads `ConsumerProtocolSubscription`: version, topics, the assignor's own bytes, and from version 1 on the partitions owned.
fn owned_at_join(bytes: &[u8]) -> Option<Vec<(&str, i32)>> {
    let mut wire = Wire(bytes);
    let version = wire.short()?;
    for _ in 0..wire.int()? {
        wire.text()?;
    }
    let own = wire.int()?;
    wire.take(own.max(0) as usize)?;
    if version < 1 { Some(Vec::new()) } else { wire.partitions() }
}

/// What is left to read of a structure of the protocol.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn short(&mut self) -> Option<i16> {
        self.take(2)?.try_into().ok().map(i16::from_be_bytes)
    }

    fn int(&mut self) -> Option<i32> {
        self.take(4)?.try_into().ok().map(i32::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.short()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn partitions(&mut self) -> Option<Vec<(&'a str, i32)>> {
        let mut found = Vec::new();
        for _ in 0..self.int()? {
            let topic = self.text()?;
            for _ in 0..self.int()? {
                found.push((topic, self.int()?));
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of a member that joined while it owned nothing.
    const JOINED: [u8; 14] = [0, 1, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0];

    fn encode(assigned: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend((assigned.len() as i32).to_be_bytes());
        for (topic, partitions) in assigned {
            bytes.extend((topic.len() as u16).to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend((partitions.len() as i32).to_be_bytes());
            partitions.iter().for_each(|partition| bytes.extend(partition.to_be_bytes()));
        }
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    fn picture(members: &[&[(&str, &[i32])]]) -> Picture {
        members.iter().enumerate().map(|(at, assigned)| (at.to_string(), (JOINED.to_vec(), encode(assigned)))).collect()
    }

    fn orphans(members: &[&[(&str, &[i32])]]) -> Found {
        judge(picture(members), &[("a".to_owned(), 3), ("b".to_owned(), 1)])
    }

    #[test]
    fn what_nobody_owns_is_counted() {
        assert_eq!(orphans(&[&[("a", &[0, 2]), ("b", &[0])], &[("a", &[1])]]), Found::Whole);
        assert_eq!(orphans(&[&[("a", &[0, 2])], &[]]), Found::Orphans(picture(&[&[("a", &[0, 2])], &[]]), 2));
        assert!(matches!(orphans(&[&[]]), Found::Orphans(_, 4)));
    }

    #[test]
    fn what_is_being_handed_over_is_not_nobodys() {
        // It said at its last join that it owns partitions 0 to 2 of a, and was left 0.
        let joined = [&JOINED[..10], &encode(&[("a", &[0, 1, 2]), ("b", &[0])])[2..]].concat();
        let mut picture = picture(&[&[("a", &[0])], &[]]);
        picture.get_mut("0").expect("a member").0 = joined;
        assert_eq!(judge(picture, &[("a".to_owned(), 3), ("b".to_owned(), 1)]), Found::Whole);
    }

    #[test]
    fn only_the_same_picture_twice_makes_a_member_join_anew() {
        let Watch::Looking(mut looks) = Watch::new(2) else { panic!("looks at first") };
        let found = |owned: &[i32]| Ok(Some(orphans(&[&[("a", owned)]])));
        assert!(looks.weigh("g", found(&[0])).is_none());
        assert!(looks.weigh("g", found(&[1])).is_none(), "something moved meanwhile");
        assert!(looks.weigh("g", Ok(None)).is_none(), "a rebalance");
        assert!(looks.weigh("g", found(&[1])).is_none());
        assert!(matches!(looks.weigh("g", found(&[1])), Some(Watch::Leaving { tried: 3 })));
        assert!(matches!(looks.weigh("g", Ok(Some(Found::Whole))), Some(Watch::Done)));
    }

    proptest! {
        #[test]
        fn whatever_the_broker_says_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for found in [assigned_by(&bytes), owned_at_join(&bytes)].into_iter().flatten() {
                prop_assert!(found.len() * 4 <= bytes.len());
            }
        }

        #[test]
        fn a_cut_assignment_is_not_taken_for_a_smaller_one(partitions in proptest::collection::vec(0..100, 1..9), cut in 1_usize..9) {
            let whole = encode(&[("topic", &partitions)]);
            prop_assert_eq!(assigned_by(&whole), Some(partitions.iter().map(|p| ("topic", *p)).collect::<Vec<_>>()));
            prop_assert_eq!(assigned_by(&whole[..whole.len() - 4 - cut]), None);
        }
    }
}
