//! What every [`Tier`] must do: one suite for all implementations.
//!
//! Call [`suite`] from a test with something that makes empty tiers. Everything is asserted; a failure panics and says which rule was
//! broken.

use super::{Applied, Batch, Change, Guard, Held, Lookup, Progress, Tier};

const TOPIC: &str = "app-profiles-changelog";

/// A batch of partition 3 in generation 1, from one offset to another.
#[must_use]
pub fn batch<'a>(from: u64, to: u64, changes: &[Change<'a>]) -> Batch<'a> {
    Batch { topic: TOPIC, partition: 3, generation: 1, from, to, first: from == 0, changes: changes.to_vec() }
}

/// A user's new value.
#[must_use]
pub fn change<'a>(user: &'a str, offset: u64, value: &'a [u8]) -> Change<'a> {
    Change { user, offset, at_ms: 1_700_000_000_000 + offset as i64, value: Some(value), json: "{\"count\":1}" }
}

/// A user's tombstone.
#[must_use]
pub fn tombstone(user: &str, offset: u64) -> Change<'_> {
    Change { user, offset, at_ms: 1_700_000_000_000 + offset as i64, value: None, json: "" }
}

fn found(generation: u64, offset: u64, value: &[u8]) -> Lookup {
    let guard = Guard { generation, offset };
    Lookup::Found(Held { guard, partition: 3, at_ms: 1_700_000_000_000 + offset as i64, value: value.to_vec() })
}

/// All rules. `make` gives an empty tier at each call.
pub async fn suite<T: Tier, F: Future<Output = T>>(mut make: impl FnMut() -> F) {
    what_is_written_is_read(&make().await).await;
    the_greater_guard_wins_in_any_order(make().await, make().await).await;
    tombstones_leave_their_guard(&make().await).await;
    a_batch_after_a_gap_is_refused(&make().await).await;
    a_new_generation_begins_anew(&make().await).await;
    batches_stand_for_themselves(&make().await).await;
    any_user_and_any_bytes_are_kept(&make().await).await;
    large_batches_are_whole(&make().await).await;
}

async fn write<T: Tier>(tier: &T, batch: Batch<'_>) -> Applied {
    let applied = tier.write(&[batch]).await.expect("reachable");
    assert_eq!(applied.len(), 1, "an answer for each batch");
    applied[0]
}

async fn read<T: Tier>(tier: &T, users: &[&str]) -> Vec<Lookup> {
    tier.read(users).await.expect("reachable")
}

async fn progress<T: Tier>(tier: &T) -> Option<Progress> {
    tier.progress(&[(TOPIC, 3)]).await.expect("reachable")[0]
}

async fn what_is_written_is_read<T: Tier>(tier: &T) {
    assert_eq!(read(tier, &["a", "b"]).await, [Lookup::NotFound, Lookup::NotFound]);
    assert_eq!(read(tier, &[]).await, []);
    assert_eq!(progress(tier).await, None);
    assert_eq!(tier.write(&[]).await.expect("reachable"), []);
    assert_eq!(write(tier, batch(0, 5, &[change("a", 2, b"A"), change("b", 4, b"B")])).await, Applied::Taken);
    let answers = read(tier, &["b", "nobody", "a", "b"]).await;
    assert_eq!(answers, [found(1, 4, b"B"), Lookup::NotFound, found(1, 2, b"A"), found(1, 4, b"B")], "in the order asked");
    assert_eq!(progress(tier).await, Some(Progress { generation: 1, next: 5 }));
    let of = [("other", 3), (TOPIC, 3), (TOPIC, 4)];
    let all = tier.progress(&of).await.expect("reachable");
    assert_eq!(all, [None, Some(Progress { generation: 1, next: 5 }), None]);
}

async fn the_greater_guard_wins_in_any_order<T: Tier>(forth: T, back: T) {
    let steps = [change("a", 1, b"one"), tombstone("a", 4), change("a", 7, b"seven"), change("a", 9, b"nine")];
    for tier in [&forth, &back] {
        assert_eq!(write(tier, batch(0, 10, &[])).await, Applied::Taken);
    }
    for step in steps {
        write(&forth, batch(step.offset, 10, &[step])).await;
    }
    for step in steps.iter().rev().chain(&steps) {
        assert_eq!(write(&back, batch(step.offset, step.offset + 1, &[*step])).await, Applied::Taken, "a replay is taken");
    }
    for tier in [&forth, &back] {
        assert_eq!(read(tier, &["a"]).await, [found(1, 9, b"nine")]);
        assert_eq!(progress(tier).await, Some(Progress { generation: 1, next: 10 }), "progress never goes back");
    }
}

async fn tombstones_leave_their_guard<T: Tier>(tier: &T) {
    write(tier, batch(0, 3, &[change("a", 0, b"A"), tombstone("never seen", 2)])).await;
    write(tier, batch(3, 6, &[tombstone("a", 5)])).await;
    let deleted = |offset| Lookup::Deleted(Guard { generation: 1, offset });
    assert_eq!(read(tier, &["a", "never seen"]).await, [deleted(5), deleted(2)]);
    write(tier, batch(4, 5, &[change("a", 4, b"late")])).await;
    assert_eq!(read(tier, &["a"]).await, [deleted(5)], "what is older than the tombstone does not come back");
    write(tier, batch(6, 7, &[change("a", 6, b"again")])).await;
    assert_eq!(read(tier, &["a"]).await, [found(1, 6, b"again")], "what is newer does");
}

async fn a_batch_after_a_gap_is_refused<T: Tier>(tier: &T) {
    assert_eq!(write(tier, batch(5, 6, &[change("a", 5, b"A")])).await, Applied::Refused, "it has nothing of what came before");
    assert_eq!(progress(tier).await, None);
    assert_eq!(write(tier, batch(0, 5, &[])).await, Applied::Taken);
    assert_eq!(write(tier, batch(6, 7, &[change("a", 6, b"A")])).await, Applied::Refused, "offset 5 is missing");
    assert_eq!(read(tier, &["a"]).await, [Lookup::NotFound], "nothing of a refused batch is written");
    assert_eq!(write(tier, batch(5, 7, &[change("a", 6, b"A")])).await, Applied::Taken);
    assert_eq!(progress(tier).await, Some(Progress { generation: 1, next: 7 }));
}

async fn a_new_generation_begins_anew<T: Tier>(tier: &T) {
    write(tier, batch(0, 10, &[change("a", 8, b"old"), change("b", 9, b"old")])).await;
    let of = |generation, first, from, to, changes: &[Change<'static>]| Batch {
        topic: TOPIC,
        partition: 3,
        generation,
        from,
        to,
        first,
        changes: changes.to_vec(),
    };
    assert_eq!(write(tier, of(2, false, 1, 2, &[])).await, Applied::Refused, "its beginning is missing");
    assert_eq!(write(tier, of(2, true, 0, 2, &[change("a", 1, b"new")])).await, Applied::Taken);
    assert_eq!(read(tier, &["a", "b"]).await, [found(2, 1, b"new"), found(1, 9, b"old")]);
    assert_eq!(progress(tier).await, Some(Progress { generation: 2, next: 2 }));
    assert_eq!(write(tier, of(1, true, 0, 99, &[change("a", 98, b"zombie")])).await, Applied::Refused, "that life is over");
    assert_eq!(read(tier, &["a"]).await, [found(2, 1, b"new")]);
}

async fn batches_stand_for_themselves<T: Tier>(tier: &T) {
    let mut other = batch(0, 1, &[change("there", 0, b"T")]);
    other.partition = 4;
    let applied = tier.write(&[batch(7, 8, &[change("here", 7, b"H")]), other]).await.expect("reachable");
    assert_eq!(applied, [Applied::Refused, Applied::Taken], "one that is refused does not keep the others");
    let answers = read(tier, &["here", "there"]).await;
    assert_eq!(answers[0], Lookup::NotFound);
    assert!(matches!(&answers[1], Lookup::Found(held) if held.partition == 4 && held.value == b"T"));
}

async fn any_user_and_any_bytes_are_kept<T: Tier>(tier: &T) {
    let long = "u".repeat(256);
    let all: Vec<u8> = (0..=255).collect();
    let users = ["a b", "ü\u{1f980}", "'; --", "a:b{c}", "\r\n", "\\N", "nul\0inside", long.as_str()];
    let changes: Vec<Change<'_>> = users.iter().enumerate().map(|(at, user)| change(user, at as u64, &all)).collect();
    assert_eq!(write(tier, batch(0, 8, &changes)).await, Applied::Taken);
    let expected: Vec<Lookup> = (0..users.len()).map(|at| found(1, at as u64, &all)).collect();
    assert_eq!(read(tier, &users).await, expected);
    assert_eq!(write(tier, batch(8, 9, &[change("empty", 8, b"")])).await, Applied::Taken);
    assert_eq!(read(tier, &["empty"]).await, [found(1, 8, b"")], "an empty value is no tombstone");
}

async fn large_batches_are_whole<T: Tier>(tier: &T) {
    let users: Vec<String> = (0..5_000).map(|number| format!("user {number}")).collect();
    let changes: Vec<Change<'_>> = users.iter().zip(0..).map(|(user, offset)| change(user, offset, b"some bytes")).collect();
    assert_eq!(write(tier, batch(0, 5_000, &changes)).await, Applied::Taken);
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    let answers = read(tier, &names).await;
    let wrong = (0..).zip(&answers).find(|(offset, answer)| **answer != found(1, *offset, b"some bytes"));
    assert_eq!(wrong, None);
    assert_eq!(answers.len(), users.len());
}
