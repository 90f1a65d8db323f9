//! The wire, the roster's judgement, and instances that hear of each other through the simulated broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use topology::clock::{Clock, MockClock};
use topology::record::{TopicId, Topics};
use topology::simulated::SimBroker;
use topology::status::Tasks;
use topology::topology::TaskId;

use super::herald::{Introduction, Rounds};
use super::*;

const BEAT_MS: u64 = 1_000;
const USERS: u16 = 1;

fn task(partition: u32) -> (u16, u32) {
    (USERS, partition)
}

/// One worker, `NAME-0`.
fn said(instance: &str, partitions: &[u32]) -> Announcement {
    let tasks = partitions.iter().map(|&partition| task(partition)).collect();
    Announcement {
        instance: instance.to_owned(),
        started_ms: 1,
        endpoint: Some(format!("{instance}:8000")),
        beat: 1,
        beat_ms: BEAT_MS,
        at_ms: 1,
        software: "0.1.0".to_owned(),
        codec: 1,
        workers: vec![Claims { worker: 0, transactional_id: Some(format!("{instance}-0")), tasks }],
        standbys: Vec::new(),
    }
}

fn claims(roster: &Roster, partition: u32, mine: &str, now_ms: i64) -> Vec<(String, bool)> {
    roster.claims(TaskId { sub: USERS, partition }, mine, now_ms)
}

fn owner(roster: &Roster, partition: u32, now_ms: i64) -> Option<String> {
    roster.owner(partition, now_ms).map(|peer| peer.instance)
}

#[test]
fn who_has_no_workers_keeps_no_copies() {
    let tasks: Vec<TaskId> = (0..40).map(|partition| TaskId { sub: USERS, partition }).collect();
    let mut roster = Roster::new("b", USERS);
    roster.hear(said("a", &[]), 0);
    roster.hear(said("b", &[]), 0);
    let alone = roster.copies_to_keep(&tasks, 1, 0).expect("known");
    roster.hear(Announcement { workers: Vec::new(), ..said("c", &[]) }, 0);
    assert_eq!(roster.copies_to_keep(&tasks, 1, 0), Some(alone), "one that only serves HTTP takes no share");
    roster.hear(said("c", &[]), 0);
    assert!(roster.copies_to_keep(&tasks, 1, 0).expect("known").len() < 20, "one that streams does");
}

#[test]
fn the_last_live_claimant_owns_a_partition() {
    let mut roster = Roster::new("a", USERS);
    roster.hear(said("a", &[0, 1]), 0);
    roster.hear(said("b", &[2]), 0);
    assert_eq!((owner(&roster, 1, 0), owner(&roster, 2, 0), owner(&roster, 3, 0)), (Some("a".into()), Some("b".into()), None));
    // The new owner may be heard of before the old one has said that it gave the partition up.
    roster.hear(said("b", &[1, 2]), 10);
    assert_eq!(owner(&roster, 1, 10), Some("b".into()));
    roster.hear(said("a", &[0, 1]), 20);
    assert_eq!(owner(&roster, 1, 20), Some("b".into()), "repeating an old claim is no new one");
    roster.hear(said("b", &[2]), 30);
    assert_eq!(owner(&roster, 1, 30), Some("a".into()), "who still holds it when the other gave it up");
}

#[test]
fn an_instance_that_misses_three_beats_is_gone_for_queries() {
    let mut roster = Roster::new("a", USERS);
    roster.hear(said("b", &[2]), 0);
    for now_ms in [0, 1_500, 3_000] {
        roster.hear(said("a", &[]), now_ms);
        assert_eq!(owner(&roster, 2, now_ms), Some("b".into()), "at {now_ms}");
        assert_eq!(roster.members(now_ms).len(), 2, "at {now_ms}");
    }
    assert_eq!(roster.owner(2, 3_000).map(|peer| peer.heard_ms), Some(3_000));
    roster.hear(said("a", &[]), 3_001);
    assert_eq!((owner(&roster, 2, 3_001), roster.members(3_001).len()), (None, 1));
    roster.hear(said("b", &[2]), 4_000);
    assert_eq!(owner(&roster, 2, 4_000), Some("b".into()), "it was away for a while");
}

#[test]
fn who_hears_nothing_at_all_does_not_take_the_others_for_dead() {
    let mut roster = Roster::new("a", USERS);
    roster.hear(said("a", &[0]), 0);
    roster.hear(said("b", &[2]), 0);
    assert_eq!(owner(&roster, 2, 60_000), Some("b".into()));
    assert_eq!(claims(&roster, 2, "a-0", 60_000), [("b-0".to_owned(), false)]);
    roster.sweep(10_000_000);
    assert_eq!(owner(&roster, 2, 10_000_000), Some("b".into()));
}

#[test]
fn claims_last_until_they_are_given_up_or_ended() {
    let mut roster = Roster::new("c", USERS);
    roster.hear(said("a", &[0, 1]), 0);
    assert_eq!(claims(&roster, 0, "c-0", 0), [("a-0".to_owned(), false)]);
    assert_eq!(claims(&roster, 0, "a-0", 0), [], "one's own is none");
    roster.hear(said("c", &[0]), 10_000);
    assert_eq!(claims(&roster, 0, "c-0", 10_000), [("a-0".to_owned(), true)], "a new claim does not hide an old one");
    roster.settle("a-0");
    assert_eq!(claims(&roster, 0, "c-0", 10_000), []);
    // What was ended stays so while the claim is only repeated: a zombie that woke up does not know better.
    roster.hear(said("a", &[0]), 10_001);
    assert_eq!((claims(&roster, 0, "c-0", 10_001), owner(&roster, 0, 10_001)), (vec![], Some("c".into())));
    roster.hear(said("a", &[]), 10_002);
    roster.hear(said("a", &[0]), 10_003);
    assert_eq!(claims(&roster, 0, "c-0", 10_003), [("a-0".to_owned(), false)], "it had it anew");
    // A worker that is gone from its instance has given nothing up.
    roster.hear(Announcement { workers: Vec::new(), ..said("a", &[]) }, 10_004);
    assert_eq!(claims(&roster, 0, "c-0", 10_004), [("a-0".to_owned(), false)]);
    roster.forget("a");
    assert_eq!(claims(&roster, 0, "c-0", 10_004), []);
}

#[test]
fn copies_are_listed_by_how_far_they_are() {
    let mut roster = Roster::new("a", USERS);
    for (instance, position) in [("a", 5), ("b", 9), ("c", 9)] {
        let note = |partition, position| StandbyNote { task: task(partition), position, lag: 0 };
        let other = StandbyNote { task: (0, 3), position: 99, lag: 0 };
        roster.hear(Announcement { standbys: vec![other, note(3, position), note(1, 1)], ..said(instance, &[]) }, 0);
    }
    let found: Vec<_> = roster.standbys(3, 0).into_iter().map(|peer| (peer.instance, peer.standby)).collect();
    let expected = [("b", 9), ("c", 9), ("a", 5)].map(|(name, at)| (name.to_owned(), vec![(1, 1), (3, at)]));
    assert_eq!(found, expected);
    assert_eq!(roster.standbys(2, 0), []);
}

fn announcements() -> impl Strategy<Value = Announcement> {
    let tasks = || proptest::collection::vec((any::<u16>(), any::<u32>()), 0..6);
    let worker = (any::<u32>(), proptest::option::of("[a-z\"\\\\é]{1,9}"), tasks());
    let worker = worker.prop_map(|(worker, transactional_id, tasks)| Claims { worker, transactional_id, tasks });
    let note = ((any::<u16>(), any::<u32>()), any::<u64>(), any::<u64>());
    let note = note.prop_map(|(task, position, lag)| StandbyNote { task, position, lag });
    let lists = (proptest::collection::vec(worker, 0..4), proptest::collection::vec(note, 0..4));
    let numbers = (any::<i64>(), any::<u64>(), any::<u64>(), any::<i64>(), any::<u8>());
    let texts = ("[a-zA-Z0-9é\" -]{1,20}", proptest::option::of("[a-z0-9.-]{1,20}:[1-9][0-9]{0,3}"), ".{0,9}");
    (texts, numbers, lists).prop_map(|((instance, endpoint, software), (started_ms, beat, beat_ms, at_ms, codec), lists)| {
        let (workers, standbys) = lists;
        Announcement { instance, started_ms, endpoint, beat, beat_ms, at_ms, software, codec, workers, standbys }
    })
}

proptest! {
    #[test]
    fn what_is_announced_is_read(said in announcements()) {
        prop_assert_eq!(Announcement::decode(said.instance.as_bytes(), &said.encode()), Ok(said));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), key in "[a-z]{0,3}") {
        let _ = Announcement::decode(key.as_bytes(), &bytes);
    }

    #[test]
    fn damage_is_read_or_refused(said in announcements(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = said.encode();
        let at = at.index(bytes.len());
        prop_assert!(Announcement::decode(said.instance.as_bytes(), &bytes[..at]).is_err());
        bytes[at] = byte;
        if let Ok(read) = Announcement::decode(said.instance.as_bytes(), &bytes) {
            prop_assert_eq!(read.instance, said.instance);
        }
    }

    #[test]
    fn any_order_of_words_leaves_one_judgement(words in proptest::collection::vec((0..3_usize, 0..8_u32, 0..4_000_i64), 0..30)) {
        // Whatever was said: an owner is a live instance whose last word has the partition, and every such partition has an owner.
        let mut roster = Roster::new("me", USERS);
        let (mut last, mut now_ms) = ([const { (0_u32, i64::MIN / 2) }; 3], 0);
        for (who, partitions, later_ms) in words {
            now_ms += later_ms;
            let held: Vec<u32> = (0..3).filter(|bit| partitions >> bit & 1 == 1).collect();
            roster.hear(said(["a", "b", "c"][who], &held), now_ms);
            last[who] = (partitions, now_ms);
        }
        for partition in 0..3 {
            let holds = |&(held, at): &(u32, i64)| held >> partition & 1 == 1 && now_ms - at <= 3 * BEAT_MS as i64;
            let holders: BTreeSet<&str> = ["a", "b", "c"].into_iter().zip(&last).filter(|(_, l)| holds(l)).map(|(name, _)| name).collect();
            let owner = owner(&roster, partition, now_ms);
            prop_assert_eq!(owner.is_none(), holders.is_empty());
            prop_assert!(owner.is_none_or(|owner| holders.contains(owner.as_str())));
        }
    }
}

#[test]
fn other_versions_and_foreign_records_are_told_apart() {
    let newer = br#"{"v":2,"instance":7}"#;
    assert_eq!(Announcement::decode(b"a", newer), Err(Malformed::UnknownVersion(2)));
    let with_more = String::from_utf8(said("a", &[1]).encode()).expect("JSON").replacen('{', r#"{"new":[1],"#, 1);
    assert_eq!(Announcement::decode(b"a", with_more.as_bytes()), Ok(said("a", &[1])), "what is not known is left alone");
    let damaged =
        |key: &[u8], said: &Announcement| matches!(Announcement::decode(key, &said.encode()), Err(Malformed::Damaged(_)));
    assert!(damaged(b"b", &said("a", &[])), "under another's name");
    assert!(damaged(b"", &said("", &[])));
    for endpoint in ["a", "a:0", "user@a:80", "a/x:80", "a:80/x", "[a]:80", ""] {
        assert!(damaged(b"a", &Announcement { endpoint: Some(endpoint.to_owned()), ..said("a", &[]) }), "{endpoint}");
    }
    assert!(damaged(b"a", &Announcement { software: "x".repeat(announcement::MAX_BYTES), ..said("a", &[]) }));
}

/// Instances with a herald each, moved by hand.
struct Place {
    sim: SimBroker,
    clock: MockClock,
}

impl Place {
    fn new() -> Self {
        let sim = SimBroker::new(Topics::new(vec!["members".into()]));
        sim.create_topic("members", 1);
        Self { sim, clock: MockClock::at(1_000_000) }
    }

    fn herald(&self, instance: &str) -> (Rounds<SimBroker>, Arc<dyn Directory>) {
        let introduction = Introduction {
            instance: instance.to_owned(),
            workers: vec![Some(format!("{instance}-0"))],
            beat_ms: BEAT_MS,
            topic: TopicId(0),
            users: USERS,
        };
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let rounds = Rounds::new(&Arc::new(self.sim.named(instance)), introduction, &Arc::<Tasks>::default(), &clock);
        let directory = rounds.directory();
        (rounds, directory)
    }
}

fn names(directory: &dyn Directory) -> Vec<String> {
    directory.members().into_iter().map(|peer| peer.instance).collect()
}

#[test]
fn instances_hear_of_each_other_and_notice_silence_and_goodbyes() {
    let place = Place::new();
    let (mut a, directory) = place.herald("a");
    let (mut b, of_b) = place.herald("b");
    let round = |herald: &mut Rounds<SimBroker>| herald.round(Duration::ZERO).expect("the broker answers");
    round(&mut a);
    round(&mut b);
    round(&mut a);
    assert_eq!((names(&*directory), names(&*of_b)), (vec!["a".to_owned(), "b".to_owned()], vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((directory.me(), of_b.me()), ("a".to_owned(), "b".to_owned()));
    // One round in each beat is enough to stay; without any it is gone after three.
    for _ in 0..4 {
        place.clock.advance(BEAT_MS as i64);
        round(&mut a);
        round(&mut a);
    }
    assert_eq!(names(&*directory), ["a"], "b said nothing for four beats");
    // One that starts now reads what was said before it; what is as old is not taken for news.
    let (mut c, of_c) = place.herald("c");
    round(&mut c);
    round(&mut c);
    assert_eq!(names(&*of_c), ["a", "c"]);
    round(&mut b);
    round(&mut c);
    assert_eq!(names(&*of_c), ["a", "b", "c"], "it is back");
    a.leave(false).expect("announced");
    round(&mut c);
    assert_eq!(names(&*of_c), ["a", "b", "c"], "for a while");
    b.leave(true).expect("announced");
    round(&mut c);
    assert_eq!(names(&*of_c), ["a", "c"]);
}

#[test]
fn nothing_is_announced_before_it_is_due() {
    let place = Place::new();
    let (mut a, _) = place.herald("a");
    let said = || place.sim.committed_records(TopicId(0)).len();
    for _ in 0..5 {
        a.round(Duration::ZERO).expect("the broker answers");
    }
    assert_eq!(said(), 1);
    place.clock.advance(BEAT_MS as i64);
    a.round(Duration::ZERO).expect("the broker answers");
    assert_eq!(said(), 2);
}
