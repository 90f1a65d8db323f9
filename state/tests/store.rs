//! The typed store seen from outside: marks, overlay, eviction, damage; and against a plain map.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use state::backend::{Backend, BackendError, Result, StorePartition, WriteSet};
use state::memory::MemoryBackend;
use state::store::{AnyStore, Mark, Marks, Store, StoreOptions, decode_kept, decode_marks, encode_kept};

fn partition() -> StorePartition {
    StorePartition { store: "words".into(), partition: 0 }
}

/// The memory backend, and how many keys were asked of it.
#[derive(Debug)]
struct Counting {
    inner: MemoryBackend,
    asked: AtomicU64,
    calls: AtomicU64,
}

impl Counting {
    fn open() -> Arc<Self> {
        let inner = MemoryBackend::new();
        inner.open(&partition()).expect("opens");
        Arc::new(Self { inner, asked: AtomicU64::new(0), calls: AtomicU64::new(0) })
    }

    fn inner<R>(&self, call: impl FnOnce(&MemoryBackend) -> Result<R>) -> Result<R> {
        call(&self.inner)
    }

    fn put(&self, key: &[u8], bytes: &[u8]) {
        let mut set = WriteSet::default();
        set.begin(partition());
        set.change(key, Some(bytes));
        self.write(&set).expect("writes");
    }
}

impl Backend for Counting {
    state::pass_on!(
        inner: open, positions, get_from, peek, write, load, revive, drop_partition, scan, partitions, size, compact, evict_staged
    );

    fn multi_get(&self, partition: &StorePartition, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.asked.fetch_add(keys.len() as u64, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inner.multi_get(partition, keys, found)
    }
}

fn store(backend: &Arc<Counting>, cache_bytes: usize, exactly_once: bool) -> Store<String> {
    let options = StoreOptions { cache_bytes, exactly_once, hash_seed: 7 };
    Store::new(partition(), Arc::clone(backend) as Arc<dyn Backend>, options)
}

fn at(input: u8, offset: u64) -> Mark {
    Mark { input, offset }
}

fn set(store: &mut Store<String>, key: &str, mark: Mark, value: &str) -> bool {
    store.prefetch(std::iter::once(key.as_bytes())).expect("prefetches");
    store.update(key.as_bytes(), mark).map(|kept| *kept = value.to_owned()).is_some()
}

fn get(store: &mut Store<String>, key: &str) -> Option<String> {
    store.prefetch(std::iter::once(key.as_bytes())).expect("prefetches");
    store.get(key.as_bytes()).cloned()
}

/// What a commit does: encode, write, settle. Returns the changes in their order.
fn commit(store: &mut Store<String>, backend: &Counting) -> Vec<(String, bool)> {
    let (mut write, mut changes) = (WriteSet::default(), Vec::new());
    write.begin(partition());
    store.encode_changes(&mut |key, value| {
        changes.push((String::from_utf8_lossy(key).into_owned(), value.is_some()));
        write.change(key, value);
    });
    backend.write(&write).expect("writes");
    store.settle();
    changes
}

#[test]
fn a_value_carries_the_marks_of_what_it_includes() {
    let backend = Counting::open();
    let mut words = store(&backend, 1 << 20, false);
    assert!(set(&mut words, "a", at(0, 4), "x"));
    assert!(set(&mut words, "a", at(1, 9), "y"));
    assert!(words.includes(b"a", at(0, 4)) && words.includes(b"a", at(0, 0)) && words.includes(b"a", at(1, 9)));
    assert!(!words.includes(b"a", at(0, 5)) && !words.includes(b"a", at(1, 10)) && !words.includes(b"a", at(2, 0)));
    commit(&mut words, &backend);
    let bytes = backend.get(&partition(), b"a").expect("reads").expect("kept");
    let (marks, value): (Marks, String) = decode_kept(&bytes).expect("decodes");
    assert_eq!((marks, value.as_str()), (Marks([5, 10, 0, 0]), "y"));
    assert_eq!(decode_marks(&bytes), Ok(marks));
}

#[test]
fn a_replayed_record_changes_nothing_and_is_counted() {
    let backend = Counting::open();
    let mut words = store(&backend, 0, false);
    set(&mut words, "a", at(0, 4), "x");
    commit(&mut words, &backend);
    assert!(!set(&mut words, "a", at(0, 4), "again"));
    assert!(!words.remove(b"a", at(0, 3)));
    assert_eq!(words.changed(), 0);
    assert_eq!(get(&mut words, "a").as_deref(), Some("x"));
    assert!(set(&mut words, "a", at(0, 5), "new"));
    assert_eq!(words.take_counters().replayed, 2);
}

#[test]
#[should_panic(expected = "I2 is broken")]
fn under_exactly_once_a_value_ahead_of_its_input_is_a_fault() {
    let backend = Counting::open();
    let mut words = store(&backend, 1 << 20, true);
    set(&mut words, "a", at(0, 4), "x");
    set(&mut words, "a", at(0, 4), "x");
}

#[test]
#[should_panic(expected = "must be prefetched")]
fn a_key_that_was_not_prefetched_is_a_fault() {
    let _ = store(&Counting::open(), 1 << 20, true).get(b"a");
}

#[test]
fn a_rollback_shows_what_is_committed_again() {
    let backend = Counting::open();
    let mut words = store(&backend, 1 << 20, true);
    set(&mut words, "old", at(0, 0), "committed");
    commit(&mut words, &backend);
    set(&mut words, "old", at(0, 1), "void");
    set(&mut words, "new", at(0, 2), "void");
    words.remove(b"old", at(0, 3));
    assert_eq!((words.changed(), get(&mut words, "old")), (2, None));
    words.rollback();
    assert_eq!((words.changed(), get(&mut words, "old").as_deref()), (0, Some("committed")));
    assert_eq!(get(&mut words, "new"), None);
    // The void records come again.
    assert!(set(&mut words, "old", at(0, 1), "redone"));
}

#[test]
fn changes_are_encoded_once_each_in_the_order_of_their_first_change() {
    let backend = Counting::open();
    let mut words = store(&backend, 1 << 20, true);
    for (offset, key) in ["c", "a", "c", "b", "a", "c"].iter().enumerate() {
        set(&mut words, key, at(0, offset as u64), "x");
    }
    words.remove(b"b", at(0, 9));
    let changed = |key: &str, kept| (key.to_owned(), kept);
    assert_eq!(commit(&mut words, &backend), [changed("c", true), changed("a", true), changed("b", false)]);
    assert_eq!(commit(&mut words, &backend), []);
    assert_eq!(backend.get(&partition(), b"b"), Ok(None));
}

#[test]
fn a_tombstone_forgets_its_marks_whether_it_is_cached_or_not() {
    for cache_bytes in [0, 1 << 20] {
        let backend = Counting::open();
        let mut words = store(&backend, cache_bytes, false);
        set(&mut words, "a", at(0, 7), "x");
        words.remove(b"a", at(1, 3));
        commit(&mut words, &backend);
        words.prefetch(std::iter::once(&b"a"[..])).expect("prefetches");
        assert!(!words.includes(b"a", at(0, 7)) && !words.includes(b"a", at(1, 3)), "cache of {cache_bytes}");
    }
}

#[test]
fn what_follows_a_tombstone_has_the_same_bytes_whether_a_commit_came_in_between() {
    let bytes = [false, true].map(|between| {
        let backend = Counting::open();
        let mut words = store(&backend, 1 << 20, true);
        set(&mut words, "a", at(0, 7), "x");
        words.remove(b"a", at(1, 3));
        if between {
            commit(&mut words, &backend);
        }
        set(&mut words, "a", at(0, 8), "y");
        commit(&mut words, &backend);
        backend.get(&partition(), b"a").expect("readable").expect("there")
    });
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn a_key_that_a_replayed_change_clears_counts_as_included_up_to_there() {
    let backend = Counting::open();
    let mut words = store(&backend, 1 << 20, false);
    words.cleared(b"gone", 5);
    words.prefetch([&b"gone"[..], b"new"].into_iter()).expect("prefetches");
    assert!(words.update(b"gone", at(0, 4)).is_none(), "said in an earlier life, then erased");
    assert!(words.remove(b"gone", at(1, 0)), "the erasure itself is done again");
    assert!(words.update(b"gone", at(0, 5)).is_some(), "what comes behind it is new");
    assert!(words.update(b"new", at(0, 4)).is_some());
}

#[test]
fn a_batch_asks_the_backend_once_and_for_each_key_once() {
    let backend = Counting::open();
    let mut words = store(&backend, 1 << 20, true);
    let keys: [&[u8]; 6] = [b"a", b"b", b"a", b"c", b"b", b"a"];
    words.prefetch(keys.into_iter()).expect("prefetches");
    assert_eq!((backend.calls.load(Ordering::Relaxed), backend.asked.load(Ordering::Relaxed)), (1, 3));
    words.prefetch(keys.into_iter()).expect("prefetches");
    assert_eq!(backend.calls.load(Ordering::Relaxed), 1, "absent keys are known to be absent");
    let counters = words.take_counters();
    assert_eq!((counters.misses, counters.hits), (3, 6));
    assert_eq!(words.take_counters(), Default::default());
}

#[test]
fn memory_stays_within_the_bound_and_changes_stay_in_memory() {
    let backend = Counting::open();
    let bound = 20_000;
    let mut words = store(&backend, bound, true);
    let mut offset = 0;
    for round in 0..5 {
        for key in 0..300 {
            set(&mut words, &format!("key-{key}"), at(0, offset), &"v".repeat(100 + round));
            offset += 1;
        }
        assert_eq!(words.changed(), 300);
        assert!(words.bytes() > bound, "uncommitted changes are kept whatever the bound");
        assert_eq!(commit(&mut words, &backend).len(), 300);
        assert!(words.bytes() <= bound, "{} bytes after a commit", words.bytes());
    }
    assert!(words.take_counters().evicted > 500);
    assert_eq!(get(&mut words, "key-7").map(|value| value.len()), Some(104));
    words.reset();
    assert_eq!((words.bytes(), words.changed()), (0, 0));
    assert_eq!(get(&mut words, "key-7").map(|value| value.len()), Some(104));
}

#[test]
fn growth_of_a_value_counts_at_its_commit() {
    let backend = Counting::open();
    let mut words = store(&backend, 1 << 20, true);
    set(&mut words, "a", at(0, 0), "x");
    commit(&mut words, &backend);
    let small = words.bytes();
    set(&mut words, "a", at(0, 1), &"x".repeat(5_000));
    commit(&mut words, &backend);
    assert!(words.bytes() >= small + 4_900, "{small}, then {}", words.bytes());
}

#[test]
fn what_does_not_decode_is_damage_and_another_version_is_not() {
    let backend = Counting::open();
    let mut kept = Vec::new();
    encode_kept(&Marks([1, 0, 0, 0]), &"text".to_owned(), &mut kept);
    let mut newer = kept.clone();
    newer[0] += 1;
    for (key, bytes) in [("cut", &kept[..3]), ("empty", &[][..]), ("more", &[&kept[..], b"x"].concat())] {
        backend.put(key.as_bytes(), bytes);
        let why = store(&backend, 0, true).prefetch(std::iter::once(key.as_bytes()));
        assert!(matches!(&why, Err(BackendError::Corrupt { partition: of, .. }) if *of == partition()), "{key}: {why:?}");
    }
    backend.put(b"newer", &newer);
    let why = store(&backend, 0, true).prefetch(std::iter::once(&b"newer"[..]));
    assert!(matches!(&why, Err(BackendError::Unusable(what)) if what.contains("version")), "{why:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u16),
    Remove(u8),
    Read(Vec<u8>),
    Commit,
    Rollback,
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..12u8;
    let step = prop_oneof![
        8 => (key.clone(), any::<u16>()).prop_map(|(key, value)| Step::Set(key, value)),
        2 => key.clone().prop_map(Step::Remove),
        4 => prop::collection::vec(key, 1..6).prop_map(Step::Read),
        3 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 1..120)
}

fn name(key: u8) -> String {
    format!("k{key}")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_map_with_a_committed_view_below(steps in steps(), cache_bytes in prop_oneof![Just(0usize), Just(700), Just(1 << 20)]) {
        let backend = Counting::open();
        let mut words = store(&backend, cache_bytes, true);
        let (mut now, mut below): (BTreeMap<u8, String>, BTreeMap<u8, String>) = Default::default();
        for (offset, step) in steps.into_iter().enumerate() {
            let mark = at(0, offset as u64);
            match step {
                Step::Set(key, value) => {
                    prop_assert!(set(&mut words, &name(key), mark, &value.to_string()));
                    now.insert(key, value.to_string());
                }
                Step::Remove(key) => {
                    words.prefetch(std::iter::once(name(key).as_bytes())).expect("prefetches");
                    prop_assert!(words.remove(name(key).as_bytes(), mark));
                    now.remove(&key);
                }
                Step::Read(keys) => {
                    let names: Vec<String> = keys.iter().map(|&key| name(key)).collect();
                    words.prefetch(names.iter().map(String::as_bytes)).expect("prefetches");
                    for (key, name) in keys.iter().zip(&names) {
                        prop_assert_eq!(words.get(name.as_bytes()), now.get(key));
                    }
                }
                Step::Commit => {
                    commit(&mut words, &backend);
                    below.clone_from(&now);
                    prop_assert!(words.bytes() <= cache_bytes);
                }
                Step::Rollback => {
                    words.rollback();
                    now.clone_from(&below);
                }
                Step::Reset => {
                    // As after a restore: nothing uncommitted is left.
                    words.reset();
                    now.clone_from(&below);
                }
            }
            prop_assert!(backend_is(&backend, &below), "the backend shows something uncommitted");
        }
        commit(&mut words, &backend);
        prop_assert!(backend_is(&backend, &now));
    }
}

/// The backend holds exactly this.
fn backend_is(backend: &Counting, want: &BTreeMap<u8, String>) -> bool {
    let mut found = BTreeMap::new();
    let scanned = backend.scan(&partition(), None, usize::MAX, &mut |key, bytes| {
        let (_, value): (Marks, String) = decode_kept(bytes).expect("decodes");
        found.insert(String::from_utf8_lossy(key).into_owned(), value);
        true
    });
    scanned.expect("scans");
    found == want.iter().map(|(&key, value)| (name(key), value.clone())).collect()
}
