//! What the virtual clock does, to the millisecond, and what checkers are shown.

use topology::broker::{Bounds, Broker, Cleanup, Event, Member, Reaction, TopicSpec};
use topology::record::{Outgoing, Topics};
use topology::simulated::{Fate, Fault, Op, SimBroker, StoredEntry};

use crate::scene::{
    GROUP, INPUT, OUTPUT, Random, TRANSACTION_TIMEOUT_MS, alone, at, begin, commit, config, follow, poll, publish, reaction,
    record, scene, visible,
};

#[test]
fn a_transaction_times_out_at_its_time() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    sim.advance(100);
    begin(&mut member, &["one"]);
    let open = &sim.open_transactions()[0];
    assert_eq!((open.transactional_id.as_str(), open.since_ms, &open.partitions[..]), ("a", 100, &[at(OUTPUT, 0)][..]));
    sim.advance(TRANSACTION_TIMEOUT_MS - 1);
    assert_eq!((sim.open_transactions().len(), sim.stable_end_of(at(OUTPUT, 0))), (1, Some(0)));
    let epoch = sim.producer_epoch("a");
    sim.advance(1);
    assert_eq!((sim.open_transactions().len(), sim.stable_end_of(at(OUTPUT, 0))), (0, Some(2)));
    assert!(sim.producer_epoch("a") > epoch, "a timeout takes the epoch away");
    assert_eq!(reaction(commit(&mut member, &[])), Reaction::Fenced);
}

#[test]
fn a_silent_member_is_dropped_at_its_time() {
    let sim = scene();
    sim.set_session_timeout(500);
    let mut member = alone(&sim, "a");
    let mut other = sim.join(&config("b")).unwrap();
    sim.advance(499);
    assert_eq!(follow(&mut other), None);
    assert_eq!(sim.group_assignments(GROUP)["a"].len(), 2);
    sim.advance(1);
    assert_eq!(sim.group_assignments(GROUP).len(), 1);
    assert_eq!(follow(&mut other), Some(Event::Assigned(vec![at(INPUT, 0), at(INPUT, 1)])));
    assert_eq!(follow(&mut member), Some(Event::Lost(vec![at(INPUT, 0), at(INPUT, 1)])));
}

#[test]
fn a_tombstone_goes_at_its_time() {
    let sim = SimBroker::new(Topics::new(vec!["t".to_owned()]));
    let cleanup = Cleanup::Compact { tombstone_retention_ms: 100 };
    sim.create(&TopicSpec { name: "t".to_owned(), partitions: 1, cleanup, max_message_bytes: None }).unwrap();
    publish(&sim, at(INPUT, 0), &["one"]);
    let mut publisher = sim.publisher().unwrap();
    let tombstone = Outgoing { value: None, ..record(at(INPUT, 0), "") };
    topology::broker::Publisher::send(&mut publisher, &tombstone).unwrap();
    sim.advance(1000);
    let left = |sim: &SimBroker| {
        sim.compact(INPUT);
        sim.committed_records(INPUT).len()
    };
    assert_eq!(left(&sim), 1, "its time begins with the first compaction");
    sim.advance(99);
    assert_eq!(left(&sim), 1);
    sim.advance(1);
    assert_eq!(left(&sim), 0);
    assert_eq!(sim.bounds_of(at(INPUT, 0)), Some(Bounds { start: 0, end: 2 }), "offsets never go back");
}

#[test]
fn compaction_leaves_open_transactions_alone_and_takes_their_markers_last() {
    let sim = SimBroker::new(Topics::new(vec!["input".to_owned(), "output".to_owned()]));
    sim.create_topic("input", 2);
    let cleanup = Cleanup::Compact { tombstone_retention_ms: 100 };
    sim.create(&TopicSpec { name: "output".to_owned(), partitions: 1, cleanup, max_message_bytes: None }).unwrap();
    let mut member = alone(&sim, "a");
    for value in ["one", "two"] {
        begin(&mut member, &[value]);
        commit(&mut member, &[]).unwrap();
    }
    begin(&mut member, &["aborted"]);
    member.abort().unwrap();
    begin(&mut member, &["open"]);
    sim.compact(OUTPUT);
    assert_eq!(visible(&sim), ["two"], "an open value replaces nothing");
    let kinds = |sim: &SimBroker| {
        let kind = |entry: &StoredEntry| match entry {
            StoredEntry::Record(record, fate) => (record.offset, Some(*fate)),
            StoredEntry::Marker { offset, .. } => (*offset, None),
        };
        sim.entries(at(OUTPUT, 0)).iter().map(kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&sim), [(1, None), (2, Some(Fate::Committed)), (3, None), (5, None), (6, Some(Fate::Open))]);
    sim.advance(100);
    sim.compact(OUTPUT);
    assert_eq!(kinds(&sim), [(2, Some(Fate::Committed)), (3, None), (6, Some(Fate::Open))]);
    commit(&mut member, &[]).unwrap();
    sim.compact(OUTPUT);
    assert_eq!(visible(&sim), ["open"]);
}

#[test]
fn topics_can_grow_shrink_and_be_made_anew() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    publish(&sim, at(INPUT, 0), &["a", "b", "c"]);
    begin(&mut member, &["one"]);
    commit(&mut member, &[(at(INPUT, 0), 3)]).unwrap();
    sim.truncate_before(at(INPUT, 0), 2);
    assert_eq!(sim.bounds_of(at(INPUT, 0)), Some(Bounds { start: 2, end: 3 }));
    sim.grow_topic(INPUT, 3);
    assert_eq!(follow(&mut member), Some(Event::Assigned(vec![at(INPUT, 2)])));
    sim.recreate_topic(INPUT, 3);
    assert_eq!(sim.bounds_of(at(INPUT, 0)), Some(Bounds { start: 0, end: 0 }));
    assert!(sim.group_offsets(GROUP).is_empty(), "the offsets of a deleted topic go with it");
    begin(&mut member, &["two"]);
    commit(&mut member, &[(at(INPUT, 0), 1)]).unwrap();
    sim.forget_offsets(GROUP);
    assert!(sim.group_offsets(GROUP).is_empty());
}

#[test]
fn a_static_restart_frees_what_was_being_given_up() {
    let sim = scene();
    let mut first = alone(&sim, "a");
    let mut second = sim.join(&config("b")).unwrap();
    let mut fetched = topology::record::Fetched::default();
    let revoked = first.poll(&mut fetched, 1, std::time::Duration::ZERO).unwrap();
    assert!(matches!(revoked, Some(Event::Revoked(_))));
    drop(first);
    let mut first = sim.join(&config("a")).unwrap();
    let mut owned = Vec::new();
    for _ in 0..6 {
        for member in [&mut first, &mut second] {
            match follow(member) {
                Some(Event::Assigned(partitions)) => owned.extend(partitions),
                Some(Event::Revoked(partitions)) => owned.retain(|partition| !partitions.contains(partition)),
                Some(Event::Lost(_)) | None => {}
            }
        }
    }
    owned.sort_unstable();
    assert_eq!(owned, [at(INPUT, 0), at(INPUT, 1)], "nobody's partition would be nobody's for ever");
}

#[test]
fn refusals_name_what_is_wrong() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    assert_eq!(reaction(member.acknowledge(&Event::Assigned(vec![at(INPUT, 0)]))), Reaction::Stop, "no event waits");
    assert_eq!(reaction(member.send(&record(at(OUTPUT, 0), "no transaction"))), Reaction::Stop);
    assert_eq!(reaction(member.abort()), Reaction::Stop);
    begin(&mut member, &[]);
    assert_eq!(reaction(member.begin()), Reaction::Stop);
    let huge = "x".repeat(2_000_000);
    member.send(&record(at(OUTPUT, 0), &huge)).unwrap();
    let error = commit(&mut member, &[]).unwrap_err();
    assert_eq!(error.reaction, Reaction::Stop);
    assert!(error.what.contains("max.message.bytes of output") && !error.what.contains("xxx"), "{error}");
    member.abort().unwrap();
    begin(&mut member, &[]);
    member.send(&record(at(OUTPUT, 9), "nowhere")).unwrap();
    assert!(commit(&mut member, &[]).unwrap_err().what.contains("output:9"));
    assert_eq!(reaction(sim.join(&config("b")).unwrap().start(&[(at(INPUT, 0), 0)])), Reaction::Stop);
}

/// The same calls, clock and answers give the same log, byte for byte.
#[test]
fn a_run_can_be_repeated() {
    let run = |seed: u64| {
        let sim = scene();
        let (mut random, mut hook) = (Random(seed), Random(!seed));
        sim.set_faults(move |call| match hook.below(12) {
            0 => Fault::LostAnswer,
            1 if call.op != Op::InitProducer => Fault::Late(hook.below(50)),
            2 => Fault::LostRequest,
            3 => Fault::SlowMarkers(hook.below(30)),
            _ => Fault::None,
        });
        let mut members = Vec::new();
        for step in 0..2000 {
            let name = ["a", "b", "c"][random.below(3) as usize];
            if let Some(at) = members.iter().position(|(of, _)| *of == name) {
                let (_, member) = &mut members[at];
                if step_of(member, random.below(3), step).is_err() && random.below(3) == 0 {
                    members.remove(at);
                }
            } else if let Ok(member) = sim.join(&config(name)) {
                members.push((name, member));
            }
            sim.advance(random.below(60));
        }
        (sim.entries(at(OUTPUT, 0)), sim.group_offsets(GROUP), sim.group_generation(GROUP), sim.faults_injected())
    };
    let (entries, ..) = run(7);
    assert!(entries.len() > 200, "{} entries", entries.len());
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
}

fn step_of(member: &mut topology::simulated::SimMember, choice: u64, step: u64) -> topology::broker::Result<()> {
    let mut fetched = topology::record::Fetched::default();
    match choice {
        0 => {
            if let Some(event) = member.poll(&mut fetched, 10, std::time::Duration::ZERO)? {
                member.acknowledge(&event)?;
            }
            Ok(())
        }
        1 => {
            member.begin()?;
            member.send(&record(at(OUTPUT, 0), &step.to_string()))
        }
        _ => commit(member, &[(at(INPUT, 0), step)]).or_else(|error| match error.reaction {
            Reaction::Abort => member.abort(),
            Reaction::Unknown | Reaction::Fenced => member.reopen(),
            _ => Err(error),
        }),
    }
}

#[test]
fn no_partition_starves_another() {
    let sim = scene();
    publish(&sim, at(INPUT, 0), &["a"; 20]);
    publish(&sim, at(INPUT, 1), &["b"; 5]);
    let mut member = alone(&sim, "a");
    member.start(&[(at(INPUT, 0), 0), (at(INPUT, 1), 0)]).unwrap();
    let mut seen = topology::record::Fetched::default();
    (0..10).for_each(|_| assert_eq!(member.poll(&mut seen, 1, std::time::Duration::ZERO), Ok(None)));
    assert_eq!(seen.iter().filter(|record| record.from == at(INPUT, 1)).count(), 5);
}

#[test]
fn a_seek_leaves_a_pause_and_a_revocation_ends_the_fetching() {
    let sim = scene();
    publish(&sim, at(INPUT, 0), &["a"]);
    publish(&sim, at(INPUT, 1), &["b"]);
    let mut member = alone(&sim, "a");
    member.start(&[(at(INPUT, 0), 0), (at(INPUT, 1), 0)]).unwrap();
    member.pause(&[at(INPUT, 0), at(INPUT, 1)]).unwrap();
    member.start(&[(at(INPUT, 0), 0)]).unwrap();
    let mut seen = Vec::new();
    assert_eq!(poll(&mut member, &mut seen), Ok(None));
    assert!(seen.is_empty());
    let _second = sim.join(&config("b")).unwrap();
    assert_eq!(poll(&mut member, &mut seen), Ok(Some(Event::Revoked(vec![at(INPUT, 1)]))));
    member.resume(&[at(INPUT, 0), at(INPUT, 1)]).unwrap();
    assert_eq!(poll(&mut member, &mut seen), Ok(None));
    assert_eq!(seen, ["a"], "nothing more of what is being given up");
}
