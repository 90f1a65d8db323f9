//! What brokers forget: old values, old records, whole topics; and what those hear who ask for it.

use std::collections::BTreeMap;

use super::stage::{
    INPUT, OUTPUT, Seen, Stage, assert_reaction, at, good, patiently, read_to_end, record, texts, transact, try_poll_reader,
    until,
};
use super::{Capability, Case, FILLER_KEY, Harness};
use crate::broker::{Broker, BrokerError, Cleanup, Member, Publisher, Reaction, Reader};
use crate::record::{Fetched, Outgoing, TopicPartition};

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    use Capability::{Compact, Recreate, Retain};
    vec![
        Case::needing("compaction_keeps_the_last_value_of_each_key", &[Compact], compaction_keeps_the_last_value),
        Case::needing("tombstones_go_when_their_time_is_over", &[Compact], tombstones_go_when_their_time_is_over),
        Case::needing("compaction_drops_aborted_records_only", &[Compact], compaction_and_transactions),
        Case::needing("retention_moves_the_log_start", &[Retain], retention_moves_the_log_start),
        Case::needing("reading_from_below_the_log_start_stops", &[Retain], reading_from_below_the_log_start_stops),
        Case::new("reading_from_beyond_the_end_stops", reading_from_beyond_the_end_stops),
        Case::needing("a_topic_made_anew_is_noticed", &[Recreate], a_topic_made_anew_is_noticed),
    ]
}

fn publish_pairs<H: Harness>(harness: &mut H, stage: &Stage<H>, to: TopicPartition, pairs: &[(&str, Option<&str>)]) {
    let mut publisher = good("open a publisher", stage.broker.publisher());
    let timestamp = harness.now_ms();
    for (key, value) in pairs {
        let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
        good("publish", publisher.send(&Outgoing { to, key, value, timestamp, headers: &[] }));
    }
    patiently(harness, "flush", || publisher.flush());
}

/// Has a topic compacted until its records look as they should.
fn compact_until<H: Harness>(harness: &mut H, stage: &Stage<H>, what: &str, mut done: impl FnMut(&[Seen]) -> bool) -> Vec<Seen> {
    // Reading to the end waits as well, and so has patience of its own: this loop's is counted here.
    for _ in 0..600 {
        harness.compact(&stage.broker, OUTPUT);
        let seen = stage.read_all(harness, at(OUTPUT, 0));
        if done(&seen) {
            return seen;
        }
        harness.keep_waiting();
    }
    panic!("waited in vain for this: {what}");
}

fn compaction_keeps_the_last_value<H: Harness>(harness: &mut H) {
    let day_ms = 86_400_000;
    let stage = Stage::with_cleanup(harness, 1, Cleanup::Compact { tombstone_retention_ms: day_ms });
    let out = at(OUTPUT, 0);
    let pairs = [
        ("a", Some("a1")),
        ("b", Some("b1")),
        ("a", Some("a2")),
        ("gone", Some("g1")),
        ("c", Some("c1")),
        ("b", Some("b2")),
        ("gone", None),
    ];
    let written_ms = harness.now_ms();
    publish_pairs(harness, &stage, out, &pairs);
    let seen = compact_until(harness, &stage, "compaction leaves one record of each key", |seen| seen.len() <= 4);
    assert_eq!(texts(&seen), ["a2", "c1", "b2", "-"], "the last value of each key, in order; the tombstone stays for its time");
    let offsets: Vec<u64> = seen.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [2, 4, 5, 6], "offsets never change: there are gaps now");
    let times: Vec<i64> = seen.iter().map(|record| record.timestamp).collect();
    let kept = times.iter().all(|time| *time == times[3]) && (written_ms..=harness.now_ms()).contains(&times[3]);
    assert!(kept, "the tombstone and the others keep their times: {times:?}, written from {written_ms} on");
    // Whoever begins in a gap is led to the next record.
    let mut reader = stage.reader(harness);
    good("assign", reader.assign(out, 3));
    let mut from_gap = Vec::new();
    read_to_end::<H>(harness, &mut reader, out, &mut from_gap);
    assert_eq!(texts(&from_gap), ["c1", "b2", "-"]);
    publish_pairs(harness, &stage, out, &[("a", Some("a3"))]);
    let seen = compact_until(harness, &stage, "a later value replaces a kept one", |seen| seen.len() <= 4);
    assert_eq!(texts(&seen), ["c1", "b2", "-", "a3"]);
}

fn tombstones_go_when_their_time_is_over<H: Harness>(harness: &mut H) {
    let stage = Stage::with_cleanup(harness, 1, Cleanup::Compact { tombstone_retention_ms: 200 });
    let out = at(OUTPUT, 0);
    publish_pairs(harness, &stage, out, &[("gone", Some("g1")), ("a", Some("a1")), ("gone", None), ("b", Some("b1"))]);
    let seen = compact_until(harness, &stage, "the tombstone goes", |seen| seen.len() <= 2);
    assert_eq!(texts(&seen), ["a1", "b1"]);
}

fn compaction_and_transactions<H: Harness>(harness: &mut H) {
    let stage = Stage::with_cleanup(harness, 1, Cleanup::Compact { tombstone_retention_ms: 86_400_000 });
    let out = at(OUTPUT, 0);
    let mut member = stage.join_alone(harness, "a", 1);
    let mut kept: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, value, commits) in
        [("a", "a1", true), ("b", "b1", true), ("a", "a2", false), ("a", "a3", true), ("b", "b2", false), ("c", "c1", true)]
    {
        good("begin", member.begin());
        good("send", member.send(&record(out, key, value)));
        if commits {
            super::stage::commit(harness, &mut member, &[]);
            kept.insert(key, value);
        } else {
            patiently(harness, "abort", || member.abort());
        }
    }
    let seen = compact_until(harness, &stage, "one record of each key stays", |seen| seen.len() <= kept.len());
    let found: BTreeMap<&str, &str> = seen
        .iter()
        .map(|seen| {
            let text = |bytes: &'_ Option<Vec<u8>>| bytes.clone().and_then(|bytes| String::from_utf8(bytes).ok());
            let (key, value) = (text(&seen.key), text(&seen.value));
            let known = kept.iter().find(|(k, v)| key.as_deref() == Some(**k) && value.as_deref() == Some(**v));
            known.map(|(key, value)| (*key, *value)).unwrap_or_else(|| panic!("{seen:?} is no last committed value"))
        })
        .collect();
    assert_eq!(found, kept, "an aborted value replaces nothing");
    transact(harness, &mut member, out, &["after"]);
    assert_eq!(texts(&stage.read_all(harness, out)).last().map(String::as_str), Some("after"));
}

/// Ten records of which the first eight are older than the retention; returns once they are gone.
fn retained<H: Harness>(harness: &mut H) -> (Stage<H>, u64) {
    let hour_ms = 3_600_000;
    let stage = Stage::with_cleanup(harness, 1, Cleanup::Delete { retention_ms: Some(hour_ms) });
    let out = at(OUTPUT, 0);
    let mut publisher = good("open a publisher", stage.broker.publisher());
    let now_ms = harness.now_ms();
    for number in 0..10 {
        let timestamp = if number < 8 { now_ms - 2 * hour_ms as i64 } else { now_ms };
        let value = number.to_string();
        let old = Outgoing { timestamp, ..record(out, "key", &value) };
        good("publish", publisher.send(&old));
        if number == 7 {
            // Kafka forgets whole segments: the harness rolls one here.
            patiently(harness, "flush", || publisher.flush());
            harness.retain(&stage.broker, OUTPUT);
        }
    }
    patiently(harness, "flush", || publisher.flush());
    let mut reader = stage.reader(harness);
    let start = until(harness, "the log start moves", |harness| {
        harness.retain(&stage.broker, OUTPUT);
        let start = reader.bounds(out).ok()?.start;
        (start >= 8).then_some(start)
    });
    (stage, start)
}

fn retention_moves_the_log_start<H: Harness>(harness: &mut H) {
    let (stage, _) = retained(harness);
    let seen = stage.read_all(harness, at(OUTPUT, 0));
    assert_eq!(texts(&seen), ["8", "9"], "what is young enough stays");
}

fn reading_from_below_the_log_start_stops<H: Harness>(harness: &mut H) {
    let (stage, start) = retained(harness);
    let out = at(OUTPUT, 0);
    let what = "an offset below the log start";
    let error = assign_and_poll(harness, &stage, out, 3);
    assert_reaction(what, &error, &[Reaction::Stop]);
    assert!(error.what.contains('3'), "names the offset asked for: {error}");
    let named = error.what.contains(&start.to_string());
    assert!(named, "names the log start {start}: {error}");
    // A member that begins there hears it from its poll.
    let mut member = stage.join_alone(harness, "a", 1);
    let error = match member.start(&[(out, 3)]) {
        Err(error) => error,
        Ok(()) => member_poll_error(harness, &mut member),
    };
    assert_reaction(what, &error, &[Reaction::Stop]);
}

/// The error that a reader hears which begins at an offset: from the assignment or from a poll.
fn assign_and_poll<H: Harness>(harness: &mut H, stage: &Stage<H>, partition: TopicPartition, from: u64) -> BrokerError {
    let mut reader = stage.reader(harness);
    if let Err(error) = reader.assign(partition, from) {
        return error;
    }
    let mut seen = Vec::new();
    let error = until(harness, "the reader is told", |harness| {
        try_poll_reader::<H>(harness, &mut reader, &mut seen).err().filter(|error| error.reaction != Reaction::Retry)
    });
    assert_eq!(seen, [], "records from elsewhere");
    error
}

fn member_poll_error<H: Harness>(harness: &mut H, member: &mut super::stage::MemberOf<H>) -> BrokerError {
    let wait = harness.poll_wait();
    until(harness, "the member is told", |_| {
        let mut fetched = Fetched::default();
        let error = member.poll(&mut fetched, 100, wait).err();
        let foreign = fetched.iter().find(|record| record.key != Some(FILLER_KEY));
        assert!(foreign.is_none(), "records from elsewhere");
        error.filter(|error| error.reaction != Reaction::Retry)
    })
}

fn reading_from_beyond_the_end_stops<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    stage.publish(harness, at(INPUT, 0), &["a", "b", "c"]);
    let error = assign_and_poll(harness, &stage, at(INPUT, 0), 7);
    assert_reaction("a reader beyond the end", &error, &[Reaction::Stop]);
    let mut member = stage.join_alone(harness, "a", 1);
    let error = match member.start(&[(at(INPUT, 0), 7)]) {
        Err(error) => error,
        Ok(()) => member_poll_error(harness, &mut member),
    };
    assert_reaction("a member beyond the end", &error, &[Reaction::Stop]);
}

fn a_topic_made_anew_is_noticed<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let out = at(OUTPUT, 0);
    stage.publish(harness, out, &["a", "b", "c", "d"]);
    let mut reader = stage.reader(harness);
    good("assign", reader.assign(out, 0));
    let mut seen = Vec::new();
    read_to_end::<H>(harness, &mut reader, out, &mut seen);
    assert_eq!(reader.position(out), Some(4));
    harness.recreate(&stage.broker, OUTPUT);
    stage.publish(harness, out, &["new"]);
    seen.clear();
    // One that begins where it once was is stopped; one that begins at the start sees the new topic.
    let error = assign_and_poll(harness, &stage, out, 4);
    assert_reaction("a position of the old topic", &error, &[Reaction::Stop]);
    assert_eq!(texts(&stage.read_all(harness, out)), ["new"]);
    // One that was reading all along is stopped as well, or reads the new topic from its start: never on from the middle.
    until(harness, "a reader of the old topic notices", |harness| match try_poll_reader::<H>(harness, &mut reader, &mut seen) {
        Err(error) if error.reaction == Reaction::Retry => None,
        Err(error) => {
            assert_reaction("a reader of the old topic", &error, &[Reaction::Stop]);
            Some(())
        }
        Ok(()) => (texts(&seen) == ["new"]).then_some(()),
    });
}
