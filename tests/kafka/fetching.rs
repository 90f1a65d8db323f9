//! What a member reads: from where it was started, and nothing else.

use std::time::{Duration, Instant};

use topology::broker::Member;
use topology::record::Fetched;

use crate::world::{INPUT, PARTITIONS, World, at, record, records, until};

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_new_start_drops_everything_fetched_before() {
    let Some(world) = World::new("seek") else { return };
    const COUNT: u64 = 20_000;
    for partition in 0..PARTITIONS {
        world.publish(at(INPUT, partition), COUNT as u32);
    }
    let mut member = world.owner("a");
    let mut fetched = Fetched::default();
    // Back and forth while fetches are under way: the next record of a partition is always the one asked for.
    let mut seed = 7_u64;
    let mut next = [0_u64; PARTITIONS as usize];
    let mut starts = Vec::new();
    for round in 0..200 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let partition = (seed >> 33) as u32 % PARTITIONS;
        let offset = if round < PARTITIONS { 0 } else { (seed >> 40) % (COUNT - 5_000) };
        let partition = if round < PARTITIONS { round } else { partition };
        let begun = Instant::now();
        member.start(&[(at(INPUT, partition), offset)]).expect("started");
        starts.push(begun.elapsed());
        next[partition as usize] = offset;
        for _ in 0..(seed >> 50) % 4 {
            fetched.clear(0);
            member.poll(&mut fetched, 1 + (seed >> 20) as usize % 3000, Duration::from_millis(2)).expect("polled");
            for r in fetched.iter() {
                let expected = &mut next[r.from.partition as usize];
                assert_eq!(r.offset, *expected, "partition {} in round {round}", r.from.partition);
                *expected += 1;
            }
        }
    }
    // One may fall into a busy moment of the machine; waiting for a fetch would show in most of them.
    starts.sort_unstable();
    assert!(starts[100] < Duration::from_millis(500), "half of the starts took {:?} or more", starts[100]);
    // And all is read to the end afterwards.
    until("the rest", || {
        fetched.clear(0);
        member.poll(&mut fetched, 10_000, SHORT).expect("polled");
        for r in fetched.iter() {
            let expected = &mut next[r.from.partition as usize];
            assert_eq!(r.offset, *expected);
            *expected += 1;
        }
        next.iter().all(|&n| n == COUNT).then_some(())
    });
}

#[test]
fn a_paused_partition_goes_on_where_it_was() {
    let Some(world) = World::new("pause") else { return };
    world.publish(at(INPUT, 0), 5_000);
    let mut member = world.owner("a");
    member.start(&[(at(INPUT, 0), 1_000)]).expect("started");
    let (mut fetched, mut next) = (Fetched::default(), 1_000);
    while next < 5_000 {
        fetched.clear(0);
        let polled = until("records", || {
            member.poll(&mut fetched, 300, SHORT).expect("polled");
            (!fetched.is_empty()).then(|| fetched.len())
        });
        for r in fetched.iter() {
            assert_eq!(r.offset, next);
            next += 1;
        }
        assert!(polled <= 300);
        member.pause(&[at(INPUT, 0)]).expect("paused");
        fetched.clear(0);
        member.poll(&mut fetched, 300, SHORT).expect("polled");
        assert!(fetched.is_empty());
        member.resume(&[at(INPUT, 0)]).expect("resumed");
    }
    // A start ends a pause.
    member.pause(&[at(INPUT, 0)]).expect("paused");
    member.start(&[(at(INPUT, 0), 2_000)]).expect("started");
    assert_eq!(records(&mut member).get(0).offset, 2_000);
}

#[test]
fn a_record_is_delivered_at_once() {
    let Some(world) = World::new("latency") else { return };
    let mut member = world.owner("a");
    let starts: Vec<_> = (0..PARTITIONS).map(|p| (at(INPUT, p), 0)).collect();
    member.start(&starts).expect("started");
    let mut fetched = Fetched::default();
    let mut times = Vec::new();
    for round in 0..50_u32 {
        let begun = Instant::now();
        member.begin().expect("begun");
        member.send(&record(at(INPUT, round % PARTITIONS), b"x")).expect("sent");
        let token = member.token().expect("a member");
        member.commit(&[(at(INPUT, 0), 0)], token).expect("committed");
        let committed = begun.elapsed();
        fetched.clear(0);
        until("the record", || {
            member.poll(&mut fetched, 10, Duration::from_secs(1)).expect("polled");
            (!fetched.is_empty()).then_some(())
        });
        times.push((begun.elapsed(), committed));
    }
    times.sort_unstable();
    println!("committed and read back: p50 {:?}, worst {:?}", times[25], times[49]);
    assert!(times[25].0 < Duration::from_millis(500), "{:?}", times[25]);
}
