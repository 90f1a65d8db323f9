//! The group's offsets: with their transaction or not at all, and never an answer that is about to change.

use super::stage::{
    INPUT, OUTPUT, Stage, assert_reaction, at, commit, committed, good, patiently, record, refused, take_all, texts, transact,
};
use super::{Capability, Case, Harness};
use crate::broker::{Member, Reaction};

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    vec![
        Case::new("offsets_come_with_their_transaction", offsets_come_with_their_transaction),
        Case::needing("undecided_offsets_are_not_answered", &[Capability::LoseEnd], undecided_offsets_are_not_answered),
        Case::new("at_least_once_commits_offsets_alone", at_least_once_commits_offsets_alone),
    ]
}

fn offsets_come_with_their_transaction<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 2);
    let mut member = stage.join_alone(harness, "a", 2);
    let (zero, one) = (at(INPUT, 0), at(INPUT, 1));
    stage.publish(harness, zero, &["a", "b", "c", "d", "e"]);
    assert_eq!(committed(harness, &mut member, zero), None, "nothing was committed yet");
    good("begin", member.begin());
    good("send", member.send(&record(at(OUTPUT, 0), "key", "one")));
    assert_eq!(committed(harness, &mut member, zero), None, "an open transaction commits nothing");
    commit(harness, &mut member, &[(zero, 3)]);
    assert_eq!(committed(harness, &mut member, zero), Some(3), "the offset came with its transaction");
    assert_eq!(committed(harness, &mut member, one), None, "another partition has none");
    good("begin", member.begin());
    good("send", member.send(&record(at(OUTPUT, 0), "key", "aborted")));
    patiently(harness, "abort", || member.abort());
    assert_eq!(committed(harness, &mut member, zero), Some(3), "an abort leaves the offset");
    // Offsets alone, and partitions of a topic that the group does not hand out: a co-partition.
    good("begin", member.begin());
    commit(harness, &mut member, &[(zero, 5), (at(OUTPUT, 0), 7)]);
    assert_eq!(committed(harness, &mut member, zero), Some(5));
    assert_eq!(committed(harness, &mut member, at(OUTPUT, 0)), Some(7));
    let wait = harness.poll_wait();
    let order = patiently(harness, "committed", || member.committed(&[one, at(OUTPUT, 0), zero], wait));
    assert_eq!(order, [None, Some(7), Some(5)], "answers in the order of the question");
}

fn undecided_offsets_are_not_answered<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let mut member = stage.join_alone(harness, "a", 1);
    let (input, out) = (at(INPUT, 0), at(OUTPUT, 0));
    stage.publish(harness, input, &["a", "b", "c", "d", "e"]);
    good("begin", member.begin());
    good("send", member.send(&record(out, "key", "first")));
    commit(harness, &mut member, &[(input, 1)]);
    good("begin", member.begin());
    good("send", member.send(&record(out, "key", "in doubt")));
    harness.lose_next_end(&stage.broker);
    let lost = refused(harness, "a commit whose request is lost", || {
        let token = member.token()?;
        member.commit(&[(input, 4)], token)
    });
    assert_reaction("a commit whose request is lost", &lost, &[Reaction::Unknown]);
    let mut second = stage.join(harness, "b");
    for _ in 0..harness.polls_to_be_sure().min(3) {
        let wait = harness.poll_wait();
        let answer = second.committed(&[input], wait);
        let error = answer.expect_err("committed offsets were answered while a transaction that holds newer ones was undecided");
        assert_reaction("offsets in doubt", &error, &[Reaction::Retry]);
    }
    patiently(harness, "reopen", || member.reopen());
    assert_eq!(committed(harness, &mut second, input), Some(1), "the new epoch ended the transaction and its offsets");
    harness.deliver_lost_end(&stage.broker);
    assert_eq!(committed(harness, &mut second, input), Some(1), "the lost commit comes too late");
    transact(harness, &mut member, out, &["second"]);
    assert_eq!(texts(&stage.read_all(harness, out)), ["first", "second"]);
}

fn at_least_once_commits_offsets_alone<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let config = stage.config("a", false);
    let mut member = stage.join_as(harness, &config);
    take_all(harness, &mut member, 1);
    let (input, out) = (at(INPUT, 0), at(OUTPUT, 0));
    stage.publish(harness, input, &["a", "b", "c"]);
    good("send", member.send(&record(out, "key", "one")));
    good("send", member.send(&record(out, "key", "two")));
    patiently(harness, "flush", || member.flush());
    assert_eq!(texts(&stage.read_all(harness, out)), ["one", "two"], "what is flushed is seen, with no commit");
    assert_eq!(committed(harness, &mut member, input), None, "a flush commits no offsets");
    patiently(harness, "commit offsets", || {
        let token = member.token()?;
        member.commit_offsets(&[(input, 2)], token)
    });
    assert_eq!(committed(harness, &mut member, input), Some(2));
    drop(member);
    let mut successor = stage.join_as(harness, &config);
    assert_eq!(committed(harness, &mut successor, input), Some(2), "a successor finds them");
}
