//! What every [`Backend`] must do: one suite for all implementations.
//!
//! Call [`suite`] from a test with something that makes empty backends, and [`reopening`] where content outlives the value. Everything
//! is asserted; a failure panics and says which rule was broken.

use std::fmt::Debug;

use crate::backend::{Backend, BackendError, Peeked, Positions, StorePartition, WriteSet};

/// Partition `number` of the suite's store.
#[must_use]
pub fn partition(number: u32) -> StorePartition {
    StorePartition { store: "profiles".into(), partition: number }
}

/// Positions that say `changelog` of everything.
#[must_use]
pub fn positions(changelog: u64) -> Positions {
    Positions { changelog, inputs: vec![("transactions".to_owned(), changelog * 2)], current_at_ms: changelog * 1000 }
}

/// A write set of one partition.
#[must_use]
pub fn set_of(partition: &StorePartition, changes: &[(&[u8], Option<&[u8]>)], changelog: Option<u64>) -> WriteSet {
    let mut set = WriteSet::default();
    set.begin(partition.clone());
    for (key, value) in changes {
        set.change(key, *value);
    }
    if let Some(changelog) = changelog {
        set.positions(positions(changelog));
    }
    set
}

/// All rules that need one life of a backend. `make` gives an empty one at each call.
pub fn suite<B: Backend>(mut make: impl FnMut() -> B) {
    opening_tells_positions(&make());
    the_last_change_of_a_key_wins(&make());
    partitions_are_apart(&make());
    multi_get_answers_each_key_once(&make());
    writes_are_whole(&make());
    scans_are_complete_and_resume(&make());
    load_is_a_write(&make(), 10);
    load_is_a_write(&make(), 100_000);
    dropping_forgets(&make());
    unopened_partitions_are_refused(&make());
    odd_keys_are_kept(&make());
    what_was_just_read_is_at_hand(&make());
    compaction_gives_room_back(&make());
    what_there_is_no_cause_for_changes_nothing(&make());
}

/// Rules on what a second life finds. `open` opens the same content again; the backend given to `end` ends in whatever way is under
/// test (dropped, killed).
pub fn reopening<B: Backend>(mut open: impl FnMut() -> B, mut end: impl FnMut(B)) {
    let (here, there) = (partition(0), partition(1));
    let backend = open();
    good(backend.open(&here));
    good(backend.open(&there));
    for round in 1..=100 {
        let mut set = set_of(&here, &[(b"a", Some(&round_bytes(round))), (b"b", None)], Some(round));
        set.begin(there.clone());
        set.change(format!("key {round}").as_bytes(), Some(b"there"));
        set.positions(positions(round));
        good(backend.write(&set));
    }
    end(backend);

    let backend = open();
    assert_eq!(good(backend.partitions()), vec![here.clone(), there.clone()]);
    assert_eq!(good(backend.open(&here)), Some(positions(100)), "a write that returned survives the process");
    assert_eq!(good(backend.get(&here, b"a")), Some(round_bytes(100).to_vec()));
    assert_eq!(all(&backend, &there).len(), 100);
    good(backend.drop_partition(&there));
    end(backend);

    let backend = open();
    assert_eq!(good(backend.partitions()), vec![here.clone()]);
    assert_eq!(good(backend.positions(&there)), None, "a dropped partition's positions do not come back");
    assert_eq!(good(backend.open(&there)), None);
    assert!(all(&backend, &there).is_empty(), "nor do its keys");
    end(backend);
}

/// The value that a round of a test writes.
#[must_use]
pub fn round_bytes(round: u64) -> [u8; 8] {
    round.to_be_bytes()
}

/// Every key and value of a partition, in scan order.
pub fn all<B: Backend>(backend: &B, partition: &StorePartition) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    good(backend.scan(partition, None, usize::MAX, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        true
    }));
    rows
}

#[track_caller]
fn good<T, E: Debug>(result: std::result::Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("the backend refused: {error:?}"))
}

fn opening_tells_positions<B: Backend>(backend: &B) {
    let here = partition(0);
    assert_eq!(good(backend.positions(&here)), None, "there is no such partition yet");
    assert_eq!(good(backend.open(&here)), None, "a new partition has no positions");
    good(backend.write(&set_of(&here, &[(b"a", Some(b"1"))], None)));
    assert_eq!(good(backend.positions(&here)), None, "a write without positions sets none");
    good(backend.write(&set_of(&here, &[], Some(7))));
    assert_eq!(good(backend.open(&here)), Some(positions(7)));
    good(backend.write(&set_of(&here, &[(b"a", Some(b"2"))], None)));
    assert_eq!(good(backend.positions(&here)), Some(positions(7)), "a write without positions keeps them");
    good(backend.write(&WriteSet::default()));
}

fn the_last_change_of_a_key_wins<B: Backend>(backend: &B) {
    let here = partition(0);
    good(backend.open(&here));
    let changes: [(&[u8], Option<&[u8]>); 5] =
        [(b"a", Some(b"1")), (b"b", Some(b"1")), (b"a", None), (b"b", None), (b"b", Some(b"2"))];
    good(backend.write(&set_of(&here, &changes, Some(1))));
    assert_eq!(good(backend.get(&here, b"a")), None);
    assert_eq!(good(backend.get(&here, b"b")).as_deref(), Some(&b"2"[..]));
    good(backend.write(&set_of(&here, &[(b"b", None), (b"never there", None)], Some(2))));
    assert!(all(backend, &here).is_empty());
}

fn partitions_are_apart<B: Backend>(backend: &B) {
    let other_store = StorePartition { store: "profiles-by-card".into(), partition: 0 };
    let places = [partition(0), partition(1), partition(10), other_store];
    for (at, place) in places.iter().enumerate() {
        good(backend.open(place));
        good(backend.write(&set_of(place, &[(b"same", Some(&[at as u8]))], Some(at as u64))));
    }
    for (at, place) in places.iter().enumerate() {
        assert_eq!(good(backend.get(place, b"same")), Some(vec![at as u8]));
        assert_eq!(good(backend.positions(place)), Some(positions(at as u64)));
        assert_eq!(all(backend, place).len(), 1);
    }
    let mut listed = good(backend.partitions());
    listed.sort();
    assert_eq!(listed, places);
}

fn multi_get_answers_each_key_once<B: Backend>(backend: &B) {
    let here = partition(0);
    good(backend.open(&here));
    let mut set = WriteSet::default();
    set.begin(here.clone());
    for number in 0..500_u32 {
        set.change(&number.to_le_bytes(), Some(&[number as u8; 40]));
    }
    good(backend.write(&set));
    // Every third is missing, one comes twice, one is empty.
    let asked: Vec<[u8; 4]> = (0..1500_u32).rev().map(|number| (number / 3 + number % 3 * 400).to_le_bytes()).collect();
    let mut keys: Vec<&[u8]> = asked.iter().map(<[u8; 4]>::as_slice).collect();
    keys.push(b"");
    let mut answers = vec![None; keys.len()];
    good(backend.multi_get(&here, &keys, &mut |at, value| {
        assert!(answers[at].is_none(), "place {at} was answered twice");
        answers[at] = Some(value.map(<[u8]>::to_vec));
    }));
    for (key, answer) in keys.iter().zip(answers) {
        assert_eq!(answer, Some(good(backend.get(&here, key))), "multi_get and get agree");
    }
    good(backend.multi_get(&here, &[], &mut |_, _| panic!("no key, no answer")));
}

fn writes_are_whole<B: Backend>(backend: &B) {
    let here = partition(0);
    good(backend.open(&here));
    let mut set = set_of(&here, &[(b"a", Some(b"1"))], Some(1));
    set.begin(partition(9));
    set.change(b"b", Some(b"1"));
    assert!(matches!(backend.write(&set), Err(BackendError::Unusable(_))), "partition 9 was not opened");
    assert_eq!(good(backend.get(&here, b"a")), None, "nothing of a refused set is visible");
    assert_eq!(good(backend.positions(&here)), None);
}

fn scans_are_complete_and_resume<B: Backend>(backend: &B) {
    let here = partition(0);
    good(backend.open(&here));
    for round in 0..10_u8 {
        let mut set = WriteSet::default();
        set.begin(here.clone());
        for number in 0..100_u8 {
            set.change(&[number, round], Some(&[round]));
        }
        good(backend.write(&set));
    }
    let whole = all(backend, &here);
    assert_eq!(whole, all(backend, &here), "the order of a scan is stable");
    let mut keys: Vec<&[u8]> = whole.iter().map(|(key, _)| key.as_slice()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 1000, "each key comes once");
    let mut pages: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    loop {
        let before = pages.len();
        let after = pages.last().map(|(key, _)| key.clone());
        good(backend.scan(&here, after.as_deref(), 64, &mut |key, value| {
            pages.push((key.to_vec(), value.to_vec()));
            true
        }));
        assert!(pages.len() - before <= 64, "a scan stops at its limit");
        if pages.len() == before {
            break;
        }
    }
    assert_eq!(pages, whole, "pages are the whole, in its order");
    let mut seen = 0;
    good(backend.scan(&here, None, usize::MAX, &mut |_, _| {
        seen += 1;
        seen < 3
    }));
    assert_eq!(seen, 3, "a scan stops where it is told to");
}

fn load_is_a_write<B: Backend>(backend: &B, count: u32) {
    let here = partition(0);
    good(backend.open(&here));
    let value = [7_u8; 100];
    good(backend.write(&set_of(&here, &[(&0_u32.to_be_bytes(), Some(b"old")), (b"stays", Some(b"old"))], Some(1))));
    let mut set = WriteSet::default();
    set.begin(here.clone());
    for number in 0..count {
        set.change(&number.to_be_bytes(), if number == 1 { None } else { Some(&value) });
    }
    set.positions(positions(2));
    good(backend.load(&set));
    assert_eq!(good(backend.positions(&here)), Some(positions(2)));
    assert_eq!(good(backend.get(&here, &0_u32.to_be_bytes())).as_deref(), Some(&value[..]), "newer than what was there");
    assert_eq!(good(backend.get(&here, &1_u32.to_be_bytes())), None);
    assert_eq!(good(backend.get(&here, b"stays")).as_deref(), Some(&b"old"[..]));
    assert_eq!(all(backend, &here).len(), count as usize);
    good(backend.write(&set_of(&here, &[(&0_u32.to_be_bytes(), Some(b"newest"))], Some(3))));
    assert_eq!(good(backend.get(&here, &0_u32.to_be_bytes())).as_deref(), Some(&b"newest"[..]), "writes go over loads");
    let size = good(backend.size(&here));
    assert!(size.keys > 0 && size.bytes > 0, "{size:?}");
}

fn dropping_forgets<B: Backend>(backend: &B) {
    let (here, there) = (partition(0), partition(1));
    for place in [&here, &there] {
        good(backend.open(place));
        good(backend.write(&set_of(place, &[(b"a", Some(b"1"))], Some(1))));
    }
    good(backend.drop_partition(&here));
    assert_eq!(good(backend.positions(&here)), None);
    assert_eq!(good(backend.partitions()), vec![there.clone()]);
    assert_eq!(good(backend.open(&here)), None, "dropped, it is new again");
    assert!(all(backend, &here).is_empty());
    assert_eq!(good(backend.get(&there, b"a")).as_deref(), Some(&b"1"[..]), "others keep what they have");
    good(backend.drop_partition(&partition(77)));
}

fn unopened_partitions_are_refused<B: Backend>(backend: &B) {
    let nowhere = partition(5);
    assert!(matches!(backend.get(&nowhere, b"a"), Err(BackendError::Unusable(_))), "not open is not the same as not found");
    assert!(backend.multi_get(&nowhere, &[b"a"], &mut |_, _| panic!("no answer")).is_err());
    assert!(backend.scan(&nowhere, None, 1, &mut |_, _| true).is_err());
    assert!(backend.size(&nowhere).is_err());
}

fn odd_keys_are_kept<B: Backend>(backend: &B) {
    let here = partition(0);
    good(backend.open(&here));
    let long = vec![0xff_u8; 10_000];
    let rows: [(&[u8], &[u8]); 5] = [(b"", b"empty key"), (b"\0", b""), (b"\0\0", b"zeros"), (&long, b"long"), (b"\xff", &long)];
    let changes: Vec<(&[u8], Option<&[u8]>)> = rows.iter().map(|(key, value)| (*key, Some(*value))).collect();
    good(backend.write(&set_of(&here, &changes, Some(1))));
    for (key, value) in rows {
        assert_eq!(good(backend.get(&here, key)).as_deref(), Some(value));
    }
    assert_eq!(all(backend, &here).len(), rows.len());
}

fn what_was_just_read_is_at_hand<B: Backend>(backend: &B) {
    let here = partition(0);
    assert!(!matches!(backend.peek(&partition(5), b"a"), Ok(Peeked::Here(_))), "what was not opened has no answer");
    good(backend.open(&here));
    let mut set = WriteSet::default();
    set.begin(here.clone());
    for number in 0..10_000_u32 {
        set.change(&number.to_be_bytes(), Some(&[number as u8; 100]));
    }
    good(backend.load(&set));
    good(backend.write(&set_of(&here, &[(b"written", Some(b"1")), (&7_u32.to_be_bytes(), None)], Some(1))));
    for key in [&5_u32.to_be_bytes()[..], &7_u32.to_be_bytes(), b"written", b"never there"] {
        if let Peeked::Here(value) = good(backend.peek(&here, key)) {
            assert_eq!(value, good(backend.get(&here, key)), "peek and get agree");
        }
        let read = good(backend.get_from(&here, key));
        assert!(read.as_ref().is_none_or(|(_, tier)| tier.is_none()), "nothing was evicted");
        assert_eq!(good(backend.peek(&here, key)), Peeked::Here(read.map(|(value, _)| value)));
    }
}

fn compaction_gives_room_back<B: Backend>(backend: &B) {
    const KEYS: u32 = 256;
    let here = partition(0);
    good(backend.open(&here));
    for round in 0..3_u64 {
        let mut set = WriteSet::default();
        set.begin(here.clone());
        for number in 0..KEYS {
            // Neither alike nor compressible.
            let value: Vec<u8> = (0..512_u64)
                .flat_map(|at| (at ^ u64::from(number) << 20 ^ round << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
                .collect();
            set.change(&number.to_be_bytes(), Some(&value));
        }
        good(backend.write(&set));
    }
    let before = all(backend, &here);
    let content: usize = before.iter().map(|(key, value)| key.len() + value.len()).sum();
    good(backend.compact(&here));
    assert_eq!(all(backend, &here), before, "nothing else changes");
    let size = good(backend.size(&here));
    assert!(size.bytes < 2 * content as u64, "{size:?} for {content} bytes of content");
    assert!(backend.compact(&partition(5)).is_err(), "it was not opened");
}

fn what_there_is_no_cause_for_changes_nothing<B: Backend>(backend: &B) {
    let here = partition(0);
    good(backend.open(&here));
    good(backend.write(&set_of(&here, &[(b"a", Some(b"1"))], Some(1))));
    good(backend.revive());
    assert_eq!(good(backend.evict_staged(&here)), 0, "nothing was staged");
    assert_eq!(all(backend, &here), [(b"a".to_vec(), b"1".to_vec())]);
    assert_eq!(good(backend.positions(&here)), Some(positions(1)));
    good(backend.write(&set_of(&here, &[(b"a", Some(b"2"))], Some(2))));
}
