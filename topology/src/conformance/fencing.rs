//! Who may no longer write: zombies, crashed and hung producers, members and generations of the past.

use super::stage::{
    INPUT, MemberOf, OUTPUT, Stage, assert_reaction, at, commit, committed, good, listen, patiently, poll, read_to_end, record,
    refused, take_all, texts, transact, until, written,
};
use super::{Capability, Case, Harness};
use crate::broker::{Broker, BrokerError, Event, Member, Reaction, Reader};
use crate::record::TopicPartition;

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    vec![
        Case::new("a_newer_producer_fences_a_zombie", |harness| fences_a_zombie(harness, false)),
        Case::new("one_prepared_for_another_identity_fences_all_the_same", |harness| fences_a_zombie(harness, true)),
        Case::new("a_successor_ends_a_crashed_producers_transaction", |harness| ends_what_crashed(harness, false)),
        Case::new("a_prepared_successor_ends_a_crashed_producers_transaction", |harness| ends_what_crashed(harness, true)),
        Case::new("anyone_can_end_what_a_dead_owner_left_open", anyone_can_end_what_a_dead_owner_left_open),
        Case::needing("a_hung_transaction_times_out", &[Capability::TransactionTimeout], a_hung_transaction_times_out),
        Case::needing("a_late_commit_ends_no_other_transaction", &[Capability::LoseEnd], a_late_commit_ends_no_other_transaction),
        Case::new("a_token_of_an_earlier_generation_is_refused", |harness| earlier_generation(harness, true)),
        Case::new("offsets_of_an_earlier_generation_are_refused", |harness| earlier_generation(harness, false)),
        Case::needing("a_member_that_was_dropped_is_refused", &[Capability::SessionTimeout], a_dropped_member_is_refused),
        Case::new("a_replaced_member_is_told", a_replaced_member_is_told),
    ]
}

/// What a producer that lost its identity may be told. The first answer depends on which request met the newer epoch first.
const SHUT_OUT: [Reaction; 2] = [Reaction::Fenced, Reaction::Abort];

/// Tries to commit what is open, which must be refused.
fn commit_refused<H: Harness>(
    harness: &mut H,
    what: &str,
    member: &mut MemberOf<H>,
    offsets: &[(TopicPartition, u64)],
) -> BrokerError {
    refused(harness, what, || {
        let token = member.token()?;
        member.commit(offsets, token)
    })
}

/// `prepared`: the newer one was prepared under another transactional id than the one that it joins with.
fn fences_a_zombie<H: Harness>(harness: &mut H, prepared: bool) {
    let stage = Stage::new(harness, 1);
    let (input, out) = (at(INPUT, 0), at(OUTPUT, 0));
    let mut zombie = stage.join_alone(harness, "a", 1);
    transact(harness, &mut zombie, out, &["before"]);
    good("begin", zombie.begin());
    good("send", zombie.send(&record(out, "key", "of the zombie")));
    if zombie.markers_per_commit() > 0 {
        written(harness, &mut zombie, out, 3);
    }
    let mut config = stage.config("b", true);
    if prepared {
        stage.broker.prepare(&config);
    }
    config.transactional_id = stage.config("a", true).transactional_id;
    let mut newer = stage.join_as(harness, &config);
    let error = commit_refused(harness, "a commit of a fenced producer", &mut zombie, &[(input, 9)]);
    assert_reaction("a commit of a fenced producer", &error, &SHUT_OUT);
    // Nor does it get anywhere after an abort: only a new epoch helps, and that it has to ask for.
    let again = zombie.abort().and_then(|()| zombie.begin()).and_then(|()| zombie.send(&record(out, "key", "again")));
    if again.is_ok() {
        let error = commit_refused(harness, "a fenced producer's next commit", &mut zombie, &[]);
        assert_reaction("a fenced producer's next commit", &error, &SHUT_OUT);
    }
    transact(harness, &mut newer, out, &["of the newer"]);
    assert_eq!(texts(&stage.read_all(harness, out)), ["before", "of the newer"]);
    assert_eq!(committed(harness, &mut newer, input), None, "the zombie's offsets went with its transaction");
}

/// `prepared`: the successor was prepared before it joins.
fn ends_what_crashed<H: Harness>(harness: &mut H, prepared: bool) {
    let stage = Stage::new(harness, 1);
    let out = at(OUTPUT, 0);
    let mut crashed = stage.join_alone(harness, "a", 1);
    good("begin", crashed.begin());
    good("send", crashed.send(&record(out, "key", "never committed")));
    if crashed.markers_per_commit() > 0 {
        written(harness, &mut crashed, out, 1);
    }
    drop(crashed);
    stage.publish(harness, out, &["after"]);
    let mut reader = stage.reader(harness);
    good("assign", reader.assign(out, 0));
    if prepared {
        stage.broker.prepare(&stage.config("a", true));
    }
    let mut successor = stage.join(harness, "a");
    let mut seen = Vec::new();
    // Long before the transaction would time out.
    read_to_end::<H>(harness, &mut reader, out, &mut seen);
    assert_eq!(texts(&seen), ["after"]);
    take_all(harness, &mut successor, 1);
    transact(harness, &mut successor, out, &["of the successor"]);
    read_to_end::<H>(harness, &mut reader, out, &mut seen);
    assert_eq!(texts(&seen), ["after", "of the successor"]);
}

/// Long before it would time out, and without a place in the group; what its end was decided for already stays decided.
fn anyone_can_end_what_a_dead_owner_left_open<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let (input, out) = (at(INPUT, 0), at(OUTPUT, 0));
    let mut dead = stage.join_alone(harness, "a", 1);
    transact(harness, &mut dead, out, &["committed"]);
    good("begin", dead.begin());
    good("send", dead.send(&record(out, "key", "left open")));
    if dead.markers_per_commit() > 0 {
        written(harness, &mut dead, out, 3);
    }
    stage.publish(harness, out, &["after"]);
    let id = stage.config("a", true).transactional_id.expect("exactly-once");
    patiently(harness, "end the transactions of another", || stage.broker.end_transactions_of(&id));
    assert_eq!(texts(&stage.read_all(harness, out)), ["committed", "after"]);
    let error = commit_refused(harness, "a commit of one whose transaction was ended", &mut dead, &[(input, 9)]);
    assert_reaction("a commit of one whose transaction was ended", &error, &SHUT_OUT);
    // It lives after all: with a new epoch it goes on.
    patiently(harness, "reopen", || dead.reopen());
    assert_eq!(committed(harness, &mut dead, input), None, "its offsets went with its transaction");
    transact(harness, &mut dead, out, &["again"]);
    assert_eq!(texts(&stage.read_all(harness, out)), ["committed", "after", "again"]);
    // One that nobody ever used has nothing open.
    let nobody = format!("{id}-nobody");
    patiently(harness, "end the transactions of nobody", || stage.broker.end_transactions_of(&nobody));
}

fn a_hung_transaction_times_out<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let out = at(OUTPUT, 0);
    let mut config = stage.config("a", true);
    config.transaction_timeout_ms = harness.short_transaction_timeout_ms();
    let mut hung = stage.join_as(harness, &config);
    take_all(harness, &mut hung, 1);
    let began_ms = harness.now_ms();
    good("begin", hung.begin());
    good("send", hung.send(&record(out, "key", "hung")));
    if hung.markers_per_commit() > 0 {
        written(harness, &mut hung, out, 1);
    }
    stage.publish(harness, out, &["after"]);
    let mut reader = stage.reader(harness);
    good("assign", reader.assign(out, 0));
    let mut seen = Vec::new();
    until(harness, "the hung transaction is ended by its timeout", |harness| {
        listen(harness, &mut hung);
        super::stage::poll_reader::<H>(harness, &mut reader, &mut seen);
        // A broker that hides open transactions by having nothing of them shows the end of one to its producer only.
        let over = hung.markers_per_commit() > 0 || harness.now_ms() > began_ms + 2 * config.transaction_timeout_ms as i64;
        (over && !seen.is_empty()).then_some(())
    });
    assert_eq!(texts(&seen), ["after"]);
    let error = commit_refused(harness, "a commit after the timeout", &mut hung, &[]);
    assert_reaction("a commit after the timeout", &error, &SHUT_OUT);
    patiently(harness, "reopen", || hung.reopen());
    transact(harness, &mut hung, out, &["again"]);
    read_to_end::<H>(harness, &mut reader, out, &mut seen);
    assert_eq!(texts(&seen), ["after", "again"]);
}

/// Kafka's protocol does not say which transaction a request is to end (KIP-890): only the epoch keeps a late one from ending the next.
fn a_late_commit_ends_no_other_transaction<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let (input, out) = (at(INPUT, 0), at(OUTPUT, 0));
    let mut member = stage.join_alone(harness, "a", 1);
    good("begin", member.begin());
    good("send", member.send(&record(out, "key", "in doubt")));
    harness.lose_next_end(&stage.broker);
    let error = commit_refused(harness, "a commit whose request is lost", &mut member, &[(input, 1)]);
    assert_reaction("a commit whose request is lost", &error, &[Reaction::Unknown]);
    patiently(harness, "reopen", || member.reopen());
    let end = patiently(harness, "bounds", || member.bounds(out)).end;
    good("begin", member.begin());
    good("send", member.send(&record(out, "key", "open")));
    written(harness, &mut member, out, end + 1);
    harness.deliver_lost_end(&stage.broker);
    patiently(harness, "abort", || member.abort());
    transact(harness, &mut member, out, &["after"]);
    assert_eq!(texts(&stage.read_all(harness, out)), ["after"], "what was aborted is not seen");
    assert_eq!(committed(harness, &mut member, input), None, "the lost commit's offsets are not there");
}

/// A token taken before a rebalance proves nothing after it.
fn earlier_generation<H: Harness>(harness: &mut H, exactly_once: bool) {
    let stage = Stage::new(harness, 2);
    let (input, out) = (at(INPUT, 0), at(OUTPUT, 0));
    stage.publish(harness, input, &["a", "b", "c"]);
    let mut first = stage.join_as(harness, &stage.config("a", exactly_once));
    take_all(harness, &mut first, 2);
    let stale = patiently(harness, "token", || first.token());
    let mut second = stage.join_as(harness, &stage.config("b", exactly_once));
    until(harness, "the second member gets its share", |harness| {
        for member in [&mut first, &mut second] {
            if let Some(event) = listen(harness, member) {
                good("acknowledge", member.acknowledge(&event));
                if matches!(event, Event::Assigned(_)) {
                    return Some(());
                }
            }
        }
        None
    });
    let commit_with = |first: &mut MemberOf<H>, stale| {
        if exactly_once {
            good("begin", first.begin());
            good("send", first.send(&record(out, "key", "stale")));
            first.commit(&[(input, 2)], stale)
        } else {
            first.commit_offsets(&[(input, 2)], stale)
        }
    };
    let error = commit_with(&mut first, stale).expect_err("a token of an earlier generation was taken");
    assert_reaction("a token of an earlier generation", &error, &[Reaction::Abort]);
    if exactly_once {
        patiently(harness, "abort", || first.abort());
    }
    assert_eq!(committed(harness, &mut first, input), None, "the refused offsets are not there");
    // The same again with a token of now.
    if exactly_once {
        good("begin", first.begin());
        good("send", first.send(&record(out, "key", "fresh")));
        commit(harness, &mut first, &[(input, 3)]);
        assert_eq!(texts(&stage.read_all(harness, out)), ["fresh"]);
    } else {
        patiently(harness, "commit offsets", || {
            let token = first.token()?;
            first.commit_offsets(&[(input, 3)], token)
        });
    }
    assert_eq!(committed(harness, &mut first, input), Some(3));
}

fn a_dropped_member_is_refused<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 2);
    let (input, out) = (at(INPUT, 0), at(OUTPUT, 0));
    let mut zombie = stage.join_alone(harness, "a", 2);
    good("begin", zombie.begin());
    good("send", zombie.send(&record(out, "key", "of the zombie")));
    let mut second = stage.join(harness, "b");
    // The zombie is not polled, so the group drops it and the second gets everything.
    let owned = take_all(harness, &mut second, 2);
    assert_eq!(owned, [at(INPUT, 0), at(INPUT, 1)]);
    let error = commit_refused(harness, "a commit of a member that was dropped", &mut zombie, &[(input, 9)]);
    assert_reaction("a commit of a member that was dropped", &error, &SHUT_OUT);
    if error.reaction == Reaction::Abort {
        patiently(harness, "abort", || zombie.abort());
    }
    transact(harness, &mut second, out, &["of the second"]);
    let lost = until(harness, "the dropped member hears of it", |harness| poll(harness, &mut zombie, &mut Vec::new()));
    assert_eq!(lost, Event::Lost(vec![at(INPUT, 0), at(INPUT, 1)]), "what a dropped member is told");
    good("acknowledge", zombie.acknowledge(&lost));
    assert_eq!(committed(harness, &mut second, input), None, "the zombie's offsets are not there");
    assert_eq!(texts(&stage.read_all(harness, out)), ["of the second"]);
    // It is a member again, and gets a share.
    until(harness, "the zombie is a member again", |harness| {
        if let Some(event) = listen(harness, &mut second) {
            good("acknowledge", second.acknowledge(&event));
        }
        let event = listen(harness, &mut zombie)?;
        good("acknowledge", zombie.acknowledge(&event));
        matches!(event, Event::Assigned(_)).then_some(())
    });
}

/// A second incarnation of a static identity takes the place of the first, which must hear so rather than read on.
fn a_replaced_member_is_told<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let mut old = stage.join_alone(harness, "a", 1);
    let mut new = stage.join_alone(harness, "a", 1);
    let wait = harness.poll_wait();
    let error = until(harness, "the replaced member is told", |harness| {
        listen(harness, &mut new);
        match old.poll(&mut crate::record::Fetched::default(), 1, wait) {
            Err(error) if error.reaction != Reaction::Retry => Some(error),
            _ => None,
        }
    });
    assert_reaction("a replaced member's poll", &error, &[Reaction::Fenced]);
    transact(harness, &mut new, at(OUTPUT, 0), &["of the new one"]);
    assert_eq!(texts(&stage.read_all(harness, at(OUTPUT, 0))), ["of the new one"]);
}
