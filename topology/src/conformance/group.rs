//! Who owns which partition: shares, hand-overs, restarts and departures.

use super::stage::{
    INPUT, MemberOf, OUTPUT, Stage, at, commit, committed, good, listen, poll, record, take_all, texts, transact, until,
};
use super::{Capability, Case, Harness};
use crate::broker::{Broker, Event, Member};
use crate::record::TopicPartition;

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    vec![
        Case::new("partitions_are_handed_over_after_the_acknowledgement", handed_over_after_the_acknowledgement),
        Case::new("a_revoked_partition_is_committed_before_it_goes", a_revoked_partition_is_committed_before_it_goes),
        Case::new("a_restarted_static_member_gets_its_partitions_back", |harness| restarted(harness, false)),
        Case::new("one_that_left_for_a_while_gets_its_partitions_back", |harness| restarted(harness, true)),
        Case::new("leaving_for_good_hands_over", leaving_for_good_hands_over),
        Case::needing("a_crashed_members_partitions_go_to_others", &[Capability::SessionTimeout], crashed_for_good),
        Case::new("preparing_changes_nothing_for_the_group", preparing_changes_nothing),
        Case::new("three_members_share_evenly_and_nothing_is_shared_twice", three_members_share),
    ]
}

/// A member and what it owns.
type Owner<H> = (MemberOf<H>, Vec<TopicPartition>);

/// Polls all members, acknowledging whatever they are told, until `done`. Keeps what each owns, and asserts that no partition ever
/// has two owners.
fn rebalance<H: Harness>(
    harness: &mut H,
    what: &str,
    members: &mut [(&mut MemberOf<H>, &mut Vec<TopicPartition>)],
    mut done: impl FnMut(&[&Vec<TopicPartition>]) -> bool,
) {
    until(harness, what, |harness| {
        for at in 0..members.len() {
            let Some(event) = poll(harness, members[at].0, &mut Vec::new()) else { continue };
            if let Event::Assigned(partitions) = &event {
                for (other, (_, owned)) in members.iter().enumerate() {
                    let twice = partitions.iter().find(|partition| owned.contains(partition));
                    assert_eq!(twice, None, "member {at} was given what member {other} still owns");
                }
            }
            let (member, owned) = &mut members[at];
            good("acknowledge", member.acknowledge(&event));
            match event {
                Event::Assigned(partitions) => owned.extend(partitions),
                Event::Revoked(gone) | Event::Lost(gone) => owned.retain(|partition| !gone.contains(partition)),
            }
            owned.sort_unstable();
        }
        let owned: Vec<&Vec<TopicPartition>> = members.iter().map(|(_, owned)| &**owned).collect();
        done(&owned).then_some(())
    });
}

/// Two members that share four partitions.
fn two<H: Harness>(harness: &mut H, stage: &Stage<H>) -> (Owner<H>, Owner<H>) {
    let mut first = stage.join(harness, "a");
    let mut first_owns = take_all(harness, &mut first, 4);
    let mut second = stage.join(harness, "b");
    let mut second_owns = Vec::new();
    let members = &mut [(&mut first, &mut first_owns), (&mut second, &mut second_owns)];
    rebalance(harness, "two members share", members, |owned| owned[0].len() == 2 && owned[1].len() == 2);
    ((first, first_owns), (second, second_owns))
}

fn handed_over_after_the_acknowledgement<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 4);
    let mut first = stage.join_alone(harness, "a", 4);
    let mut second = stage.join(harness, "b");
    let revoked = until(harness, "the first member is to give something up", |harness| {
        assert_eq!(listen(harness, &mut second), None, "nothing is free yet");
        listen(harness, &mut first)
    });
    let Event::Revoked(given_up) = &revoked else { panic!("the first member was told {revoked:?}") };
    assert_eq!(given_up.len(), 2, "half of four partitions");
    for _ in 0..harness.polls_to_be_sure() {
        assert_eq!(listen(harness, &mut second), None, "handed over before the acknowledgement");
        assert_eq!(listen(harness, &mut first), None, "another event before the acknowledgement");
    }
    good("acknowledge", first.acknowledge(&revoked));
    let assigned = until(harness, "the second member gets what was given up", |harness| {
        assert_eq!(listen(harness, &mut first), None, "the first member keeps the rest");
        listen(harness, &mut second)
    });
    assert_eq!(assigned, Event::Assigned(given_up.clone()), "what was given up, and nothing else");
}

/// Nor is the group's work held up; who was prepared joins as any other does.
fn preparing_changes_nothing<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 4);
    let out = at(OUTPUT, 0);
    let mut first = stage.join(harness, "a");
    let mut first_owns = take_all(harness, &mut first, 4);
    good("begin", first.begin());
    good("send", first.send(&record(out, "key", "while another one prepares")));
    let config = stage.config("b", true);
    stage.broker.prepare(&config);
    for _ in 0..harness.polls_to_be_sure() {
        assert_eq!(listen(harness, &mut first), None, "nobody has joined");
    }
    commit(harness, &mut first, &[(at(INPUT, 0), 7)]);
    let mut second = stage.join_as(harness, &config);
    let mut second_owns = Vec::new();
    let members = &mut [(&mut first, &mut first_owns), (&mut second, &mut second_owns)];
    rebalance(harness, "the prepared one gets its share", members, |owned| owned[0].len() == 2 && owned[1].len() == 2);
    transact(harness, &mut second, out, &["of the prepared one"]);
    transact(harness, &mut first, out, &["of the other one"]);
    assert_eq!(committed(harness, &mut second, at(INPUT, 0)), Some(7));
    let all = ["while another one prepares", "of the prepared one", "of the other one"];
    assert_eq!(texts(&stage.read_all(harness, out)), all);
}

fn a_revoked_partition_is_committed_before_it_goes<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 2);
    let out = at(OUTPUT, 0);
    for partition in [at(INPUT, 0), at(INPUT, 1)] {
        stage.publish(harness, partition, &["a", "b", "c"]);
    }
    let mut first = stage.join_alone(harness, "a", 2);
    good("begin", first.begin());
    good("send", first.send(&record(out, "key", "before the rebalance")));
    let mut second = stage.join(harness, "b");
    let revoked = until(harness, "the first member is to give something up", |harness| {
        listen(harness, &mut second);
        listen(harness, &mut first)
    });
    let Event::Revoked(given_up) = &revoked else { panic!("the first member was told {revoked:?}") };
    let [going] = given_up[..] else { panic!("one of two partitions goes, not {given_up:?}") };
    good("send", first.send(&record(out, "key", "while it is revoked")));
    commit(harness, &mut first, &[(going, 2)]);
    good("acknowledge", first.acknowledge(&revoked));
    let assigned = until(harness, "the second member gets it", |harness| {
        listen(harness, &mut first);
        listen(harness, &mut second)
    });
    assert_eq!(assigned, Event::Assigned(vec![going]));
    good("acknowledge", second.acknowledge(&assigned));
    assert_eq!(committed(harness, &mut second, going), Some(2), "the new owner finds the old one's last commit");
    assert_eq!(texts(&stage.read_all(harness, out)), ["before the rebalance", "while it is revoked"]);
    good("start", second.start(&[(going, 2)]));
    let mut seen = Vec::new();
    until(harness, "the new owner reads on", |harness| {
        poll(harness, &mut second, &mut seen);
        (!seen.is_empty()).then_some(())
    });
    assert_eq!((texts(&seen), seen[0].from, seen[0].offset), (vec!["c".to_owned()], going, 2));
}

fn restarted<H: Harness>(harness: &mut H, leaves: bool) {
    let stage = Stage::new(harness, 4);
    let ((mut first, first_owns), (mut second, second_owns)) = two(harness, &stage);
    if leaves {
        good("leave for a while", second.leave(false));
    }
    drop(second);
    for _ in 0..harness.polls_to_be_sure() {
        assert_eq!(listen(harness, &mut first), None, "the others don't notice that it is away");
    }
    let mut again = stage.join(harness, "b");
    let assigned = until(harness, "the restarted member gets its partitions", |harness| {
        assert_eq!(listen(harness, &mut first), None, "the others don't notice that it is back");
        listen(harness, &mut again)
    });
    let Event::Assigned(mut back) = assigned.clone() else { panic!("the restarted member was told {assigned:?}") };
    back.sort_unstable();
    assert_eq!(back, second_owns, "the very partitions that it had");
    good("acknowledge", again.acknowledge(&assigned));
    good("begin", first.begin());
    commit(harness, &mut first, &[(first_owns[0], 0)]);
    good("begin", again.begin());
    commit(harness, &mut again, &[(second_owns[0], 0)]);
}

fn leaving_for_good_hands_over<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 4);
    let ((mut first, mut first_owns), (mut second, _)) = two(harness, &stage);
    good("leave for good", second.leave(true));
    drop(second);
    rebalance(harness, "the rest goes to the first member", &mut [(&mut first, &mut first_owns)], |owned| owned[0].len() == 4);
    assert_eq!(first_owns, [at(INPUT, 0), at(INPUT, 1), at(INPUT, 2), at(INPUT, 3)]);
}

fn crashed_for_good<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 4);
    let ((mut first, mut first_owns), (second, _)) = two(harness, &stage);
    drop(second);
    rebalance(harness, "the rest goes to the first member", &mut [(&mut first, &mut first_owns)], |owned| owned[0].len() == 4);
    assert_eq!(first_owns, [at(INPUT, 0), at(INPUT, 1), at(INPUT, 2), at(INPUT, 3)]);
}

fn three_members_share<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 6);
    let mut members = [stage.join(harness, "a"), stage.join(harness, "b"), stage.join(harness, "c")];
    let mut owns = [Vec::new(), Vec::new(), Vec::new()];
    let mut both: Vec<_> = members.iter_mut().zip(&mut owns).collect();
    rebalance(harness, "three members share", &mut both, |owned| owned.iter().all(|owned| owned.len() == 2));
    drop(both);
    let mut all = owns.concat();
    all.sort_unstable();
    assert_eq!(all, (0..6).map(|partition| at(INPUT, partition)).collect::<Vec<_>>(), "every partition has one owner");
}
