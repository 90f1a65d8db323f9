//! What a member's polls deliver: from where it was started, in order, and nothing that was taken back.

use super::stage::{INPUT, OUTPUT, Seen, Stage, at, good, listen, patiently, poll, poll_some, record, texts, transact, until};
use super::{Case, Harness};
use crate::broker::{Bounds, Member};

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    vec![
        Case::new("nothing_is_fetched_before_the_start", nothing_is_fetched_before_the_start),
        Case::new("starting_again_is_a_seek", starting_again_is_a_seek),
        Case::new("paused_partitions_wait", paused_partitions_wait),
        Case::new("stopped_partitions_are_forgotten", stopped_partitions_are_forgotten),
        Case::new("co_partitions_are_read_along", co_partitions_are_read_along),
        Case::new("members_read_committed_records_only", members_read_committed_records_only),
    ]
}

/// Values "0", "1" ... as many as asked for.
fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn publish_numbers<H: Harness>(harness: &mut H, stage: &Stage<H>, partition: u32, count: usize) {
    let numbers = numbers(count);
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    stage.publish(harness, at(INPUT, partition), &numbers);
}

/// Polls until so many records have come, and then a few times more, for those that must not come.
fn poll_until<H: Harness>(harness: &mut H, member: &mut super::stage::MemberOf<H>, seen: &mut Vec<Seen>, count: usize) {
    until(harness, "records come", |harness| {
        poll(harness, member, seen);
        (seen.len() >= count).then_some(())
    });
    for _ in 0..harness.polls_to_be_sure() {
        poll(harness, member, seen);
    }
}

fn nothing_is_fetched_before_the_start<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let mut member = stage.join_alone(harness, "a", 1);
    let input = at(INPUT, 0);
    assert_eq!(patiently(harness, "bounds", || member.bounds(input)), Bounds { start: 0, end: 0 });
    publish_numbers(harness, &stage, 0, 5);
    assert_eq!(patiently(harness, "bounds", || member.bounds(input)), Bounds { start: 0, end: 5 });
    for _ in 0..harness.polls_to_be_sure() {
        // Panics where a record comes.
        assert_eq!(listen(harness, &mut member), None);
    }
    good("start", member.start(&[(input, 2)]));
    let mut seen = Vec::new();
    poll_until(harness, &mut member, &mut seen, 3);
    assert_eq!(texts(&seen), ["2", "3", "4"], "from the offset that it was started at");
    assert_eq!(seen.iter().map(|record| record.offset).collect::<Vec<_>>(), [2, 3, 4]);
    publish_numbers(harness, &stage, 0, 1);
    poll_until(harness, &mut member, &mut seen, 4);
    assert_eq!(seen.len(), 4, "what is published later comes as well, once");
}

fn starting_again_is_a_seek<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let mut member = stage.join_alone(harness, "a", 1);
    let input = at(INPUT, 0);
    publish_numbers(harness, &stage, 0, 50);
    good("start", member.start(&[(input, 0)]));
    let mut seen = Vec::new();
    until(harness, "some records come", |harness| {
        poll_some(harness, &mut member, &mut seen, 3);
        (seen.len() >= 3).then_some(())
    });
    let all = numbers(50);
    assert_eq!(texts(&seen), all[..seen.len()], "in offset order");
    assert!(seen.len() < 50, "a poll for three records brought all fifty");
    // Backward, as after an abort: what was fetched and not delivered must not come in between.
    good("start", member.start(&[(input, 1)]));
    seen.clear();
    poll_until(harness, &mut member, &mut seen, 49);
    assert_eq!(texts(&seen), all[1..], "from the new place on, each record once");
    // Forward.
    good("start", member.start(&[(input, 47)]));
    seen.clear();
    poll_until(harness, &mut member, &mut seen, 3);
    assert_eq!(texts(&seen), all[47..]);
}

fn paused_partitions_wait<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 2);
    let mut member = stage.join_alone(harness, "a", 2);
    let (zero, one) = (at(INPUT, 0), at(INPUT, 1));
    publish_numbers(harness, &stage, 0, 20);
    good("start", member.start(&[(zero, 0), (one, 0)]));
    let mut seen = Vec::new();
    until(harness, "some records come", |harness| {
        poll_some(harness, &mut member, &mut seen, 4);
        (seen.len() >= 4).then_some(())
    });
    assert!(seen.len() < 20, "a poll for four records brought all twenty");
    good("pause", member.pause(&[zero]));
    let before = seen.len();
    publish_numbers(harness, &stage, 1, 5);
    poll_until(harness, &mut member, &mut seen, before + 5);
    let paused = seen[before..].iter().find(|record| record.from == zero);
    assert_eq!(paused, None, "a record of a paused partition");
    good("resume", member.resume(&[zero]));
    poll_until(harness, &mut member, &mut seen, 25);
    seen.retain(|record| record.from == zero);
    assert_eq!(texts(&seen), numbers(20), "it goes on where it was paused, each record once");
}

fn stopped_partitions_are_forgotten<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 2);
    let mut member = stage.join_alone(harness, "a", 2);
    let (zero, one) = (at(INPUT, 0), at(INPUT, 1));
    publish_numbers(harness, &stage, 0, 20);
    good("start", member.start(&[(zero, 0), (one, 0)]));
    let mut seen = Vec::new();
    until(harness, "some records come", |harness| {
        poll_some(harness, &mut member, &mut seen, 4);
        (!seen.is_empty()).then_some(())
    });
    good("stop", member.stop(&[zero]));
    seen.clear();
    publish_numbers(harness, &stage, 1, 5);
    poll_until(harness, &mut member, &mut seen, 5);
    assert_eq!(seen.iter().find(|record| record.from == zero), None, "a record of a stopped partition");
    good("start", member.start(&[(zero, 15)]));
    seen.clear();
    poll_until(harness, &mut member, &mut seen, 5);
    assert_eq!(texts(&seen), numbers(20)[15..], "it is started like a new one");
}

fn co_partitions_are_read_along<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 2);
    let mut member = stage.join_alone(harness, "a", 2);
    publish_numbers(harness, &stage, 1, 3);
    stage.publish(harness, at(OUTPUT, 1), &["x", "y"]);
    good("start", member.start(&[(at(INPUT, 1), 0), (at(OUTPUT, 1), 1)]));
    let mut seen = Vec::new();
    poll_until(harness, &mut member, &mut seen, 4);
    seen.sort_by_key(|record| (record.from, record.offset));
    assert_eq!(texts(&seen), ["0", "1", "2", "y"]);
}

fn members_read_committed_records_only<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let mut member = stage.join_alone(harness, "a", 1);
    let input = at(INPUT, 0);
    good("start", member.start(&[(input, 0)]));
    transact(harness, &mut member, input, &["one"]);
    good("begin", member.begin());
    good("send", member.send(&record(input, "key", "aborted")));
    patiently(harness, "abort", || member.abort());
    transact(harness, &mut member, input, &["two"]);
    let mut seen = Vec::new();
    poll_until(harness, &mut member, &mut seen, 2);
    assert_eq!(texts(&seen), ["one", "two"]);
}
