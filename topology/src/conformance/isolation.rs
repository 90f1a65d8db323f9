//! What readers see of transactions: all of a committed one, nothing of any other.

use super::stage::{
    MAX_RECORDS, OUTPUT, Stage, at, commit, good, patiently, poll_reader, read_to_end, record, texts, transact, until, written,
};
use super::{Case, Harness};
use crate::broker::{Member, Reader};

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    vec![
        Case::new("only_committed_records_are_seen", only_committed_records_are_seen),
        Case::new("an_open_transaction_hides_what_follows_until_committed", |harness| open_transaction(harness, true)),
        Case::new("an_open_transaction_hides_what_follows_until_aborted", |harness| open_transaction(harness, false)),
        Case::new("a_transaction_spans_partitions", a_transaction_spans_partitions),
        Case::new("positions_pass_control_records_at_the_end", positions_pass_control_records_at_the_end),
        Case::new("an_empty_transaction_is_nothing", an_empty_transaction_is_nothing),
        Case::new("reopening_ends_what_was_open", reopening_ends_what_was_open),
    ]
}

fn only_committed_records_are_seen<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let mut member = stage.join_alone(harness, "a", 1);
    let out = at(OUTPUT, 0);
    transact(harness, &mut member, out, &["one"]);
    good("begin", member.begin());
    good("send", member.send(&record(out, "key", "aborted")));
    written(harness, &mut member, out, 2);
    patiently(harness, "abort", || member.abort());
    transact(harness, &mut member, out, &["two", "three"]);
    good("begin", member.begin());
    good("send", member.send(&record(out, "key", "aborted before it was sent")));
    patiently(harness, "abort", || member.abort());
    stage.publish(harness, out, &["four"]);
    assert_eq!(texts(&stage.read_all(harness, out)), ["one", "two", "three", "four"]);
}

fn open_transaction<H: Harness>(harness: &mut H, commits: bool) {
    let stage = Stage::new(harness, 2);
    let mut member = stage.join_alone(harness, "a", 2);
    let (out, other) = (at(OUTPUT, 0), at(OUTPUT, 1));
    stage.publish(harness, out, &["before"]);
    let before = patiently(harness, "bounds", || member.bounds(out)).end;
    good("begin", member.begin());
    good("send", member.send(&record(out, "key", "open")));
    // Brokers that write nothing before the commit hide an open transaction by having nothing of it.
    let shown = member.markers_per_commit() > 0;
    if shown {
        written(harness, &mut member, out, before + 1);
    }
    stage.publish(harness, out, &["after"]);
    stage.publish(harness, other, &["elsewhere"]);
    let mut reader = stage.reader(harness);
    good("assign", reader.assign(out, 0));
    good("assign", reader.assign(other, 0));
    let mut seen = Vec::new();
    until(harness, "the other partition is read", |harness| {
        poll_reader::<H>(harness, &mut reader, &mut seen);
        seen.iter().any(|record| record.from == other).then_some(())
    });
    for _ in 0..harness.polls_to_be_sure() {
        poll_reader::<H>(harness, &mut reader, &mut seen);
        if shown {
            assert!(reader.position(out).is_none_or(|position| position <= before), "the position passed an open transaction");
        }
    }
    seen.retain(|record| record.from == out);
    let visible: &[&str] = if shown { &["before"] } else { &["before", "after"] };
    assert_eq!(texts(&seen), visible, "what is seen while a transaction is open");
    if commits {
        commit(harness, &mut member, &[]);
    } else {
        patiently(harness, "abort", || member.abort());
    }
    read_to_end::<H>(harness, &mut reader, out, &mut seen);
    seen.retain(|record| record.from == out);
    let mut all = texts(&seen);
    if !shown {
        all[1..].sort_unstable();
    }
    let expected: &[&str] = match (commits, shown) {
        (true, true) => &["before", "open", "after"],
        (true, false) => &["before", "after", "open"],
        (false, _) => &["before", "after"],
    };
    assert_eq!(all, expected, "what is seen once it is decided");
}

fn a_transaction_spans_partitions<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 3);
    let mut member = stage.join_alone(harness, "a", 3);
    for round in ["one", "lost", "two"] {
        good("begin", member.begin());
        for partition in 0..3 {
            good("send", member.send(&record(at(OUTPUT, partition), "key", round)));
        }
        if round == "lost" {
            patiently(harness, "abort", || member.abort());
        } else {
            commit(harness, &mut member, &[]);
        }
    }
    for partition in 0..3 {
        assert_eq!(texts(&stage.read_all(harness, at(OUTPUT, partition))), ["one", "two"], "partition {partition}");
    }
}

fn positions_pass_control_records_at_the_end<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let mut member = stage.join_alone(harness, "a", 1);
    let out = at(OUTPUT, 0);
    transact(harness, &mut member, out, &["one", "two"]);
    let markers = member.markers_per_commit();
    until(harness, "a commit takes the offsets it says it takes", |_| {
        let end = member.bounds(out).ok()?.end;
        assert!(end <= 2 + markers, "a commit of two records ends at {end}, with {markers} markers");
        (end == 2 + markers).then_some(())
    });
    let mut reader = stage.reader(harness);
    good("assign", reader.assign(out, 0));
    let mut seen = Vec::new();
    read_to_end::<H>(harness, &mut reader, out, &mut seen);
    assert_eq!(texts(&seen), ["one", "two"]);
    assert_eq!(reader.position(out), Some(2 + markers), "the position is past the marker");
    // A reader that begins at the marker, where nothing comes any more, gets to the end as well.
    let mut late = stage.reader(harness);
    good("assign", late.assign(out, 2));
    assert_eq!(late.position(out), None, "no position before the first answer");
    let mut nothing = Vec::new();
    read_to_end::<H>(harness, &mut late, out, &mut nothing);
    assert_eq!(nothing, [], "nothing lies behind the marker");
    // So does one behind an aborted record.
    good("begin", member.begin());
    good("send", member.send(&record(out, "key", "aborted")));
    if markers > 0 {
        written(harness, &mut member, out, 3 + markers);
    }
    patiently(harness, "abort", || member.abort());
    read_to_end::<H>(harness, &mut late, out, &mut nothing);
    assert_eq!(nothing, [], "nothing of an aborted transaction");
}

fn an_empty_transaction_is_nothing<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let mut member = stage.join_alone(harness, "a", 1);
    let out = at(OUTPUT, 0);
    good("begin", member.begin());
    commit(harness, &mut member, &[]);
    good("begin", member.begin());
    patiently(harness, "abort an empty transaction", || member.abort());
    transact(harness, &mut member, out, &["one"]);
    let mut reader = stage.reader(harness);
    good("assign", reader.assign(out, 0));
    let mut fetched = crate::record::Fetched::default();
    let wait = harness.poll_wait();
    until(harness, "the record comes", |_| {
        good("poll", reader.poll(&mut fetched, MAX_RECORDS, wait));
        (!fetched.is_empty()).then_some(())
    });
    assert_eq!(fetched.get(0).offset, 0, "empty transactions leave no trace");
}

fn reopening_ends_what_was_open<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let mut member = stage.join_alone(harness, "a", 1);
    let out = at(OUTPUT, 0);
    good("begin", member.begin());
    good("send", member.send(&record(out, "key", "of the old epoch")));
    if member.markers_per_commit() > 0 {
        written(harness, &mut member, out, 1);
    }
    patiently(harness, "reopen", || member.reopen());
    transact(harness, &mut member, out, &["of the new epoch"]);
    assert_eq!(texts(&stage.read_all(harness, out)), ["of the new epoch"]);
}
