//! The engine's behaviour, seen from outside through the TestDriver: a processor that has nothing to do with payments.

use topology::driver::{DriverOptions, TestDriver};
use topology::processor::{Context, Processor, Punctuation, Result, Schedule};
use topology::record::Batch;
use topology::topology::{StoreId, Topology};

/// Counts words; the word `poison` cannot be counted, `tick` is emitted each hour of stream time.
struct CountWords;

impl Processor for CountWords {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        let words = batch.iter().filter_map(|record| record.value);
        context.store::<u64>(StoreId(0)).prefetch(words)?;
        for record in batch.iter() {
            let Some(word) = record.value.filter(|&word| word != b"poison") else {
                context.dead_letter(&record, "poison", "this cannot be counted")?;
                continue;
            };
            let mark = context.mark(&record);
            let Some(count) = context.store::<u64>(StoreId(0)).update(word, mark) else { continue };
            *count += 1;
            let count = count.to_string();
            context.emit(0, word, count.as_bytes(), record.timestamp)?;
        }
        Ok(())
    }

    fn schedules(&self) -> Vec<Schedule> {
        vec![Schedule { kind: Punctuation::StreamTime, every_ms: 3_600_000 }]
    }

    fn punctuate(&mut self, _: Punctuation, now_ms: i64, context: &mut Context<'_>) -> Result {
        context.emit(1, b"tick", b"", now_ms)
    }
}

fn word_count() -> Topology {
    Topology::builder("wordcount")
        .dead_letters("dead")
        .sub("count", |_| CountWords, |w| w.input("words").store::<u64>("counts").output("counts").output("ticks"))
        .build()
        .expect("a valid topology")
}

fn driver(options: DriverOptions) -> TestDriver {
    TestDriver::new(word_count(), options)
}

fn pipe(driver: &mut TestDriver, words: &[&str], timestamp: i64) {
    for word in words {
        driver.pipe("words", Some(word.as_bytes()), Some(word.as_bytes()), timestamp);
    }
}

fn count(driver: &TestDriver, word: &str) -> Option<u64> {
    driver.value::<u64>("counts", word.as_bytes()).map(|(_, count)| count)
}

#[test]
fn counts_words_and_puts_aside_what_cannot_be_counted() {
    let mut driver = driver(DriverOptions::default());
    pipe(&mut driver, &["tea", "poison", "milk", "tea"], 7);
    driver.run().expect("runs");
    assert_eq!((count(&driver, "tea"), count(&driver, "milk"), count(&driver, "poison")), (Some(2), Some(1), None));
    assert_eq!(driver.read("counts").len(), 3);
    let dead = driver.read("dead");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].value.as_deref(), Some(&b"poison"[..]));
    assert_eq!(dead[0].timestamp, 7);
    let header = |name: &str| {
        let of = |h: &&topology::simulated::StoredHeader| h.name == name;
        dead[0].headers.iter().find(of).and_then(|h| h.value.as_deref()).map(|v| String::from_utf8_lossy(v).into_owned())
    };
    assert_eq!(header("__streams.errors.exception").as_deref(), Some("poison"));
    assert_eq!(header("__streams.errors.topic").as_deref(), Some("words"));
    assert_eq!(header("__streams.errors.offset").as_deref(), Some("0"));
}

#[test]
fn one_changelog_record_for_each_key_and_commit() {
    let mut driver = driver(DriverOptions { partitions: 1, ..DriverOptions::default() });
    pipe(&mut driver, &["tea"; 100], 0);
    driver.run().expect("runs");
    assert_eq!(driver.read("counts").len(), 100);
    assert_eq!(driver.read("wordcount-counts-changelog").len(), 1, "repeats of a key within a commit are folded");
}

#[test]
fn a_crash_loses_nothing_and_doubles_nothing_with_and_without_the_disk() {
    for exactly_once in [true, false] {
        for wipe in [false, true] {
            let mut driver = driver(DriverOptions { exactly_once, ..DriverOptions::default() });
            pipe(&mut driver, &["tea", "milk", "tea"], 0);
            driver.run().expect("runs");
            driver.crash(wipe);
            pipe(&mut driver, &["tea"], 0);
            driver.run().expect("runs again");
            assert_eq!(count(&driver, "tea"), Some(3), "exactly_once {exactly_once}, wipe {wipe}");
            assert_eq!(count(&driver, "milk"), Some(1));
            assert_eq!(driver.read("counts").len(), 4);
        }
    }
}

#[test]
fn a_kept_store_restores_only_what_it_lacks() {
    let mut driver = driver(DriverOptions { partitions: 1, ..DriverOptions::default() });
    pipe(&mut driver, &["tea", "milk"], 0);
    driver.run().expect("runs");
    driver.crash(false);
    driver.run().expect("runs again");
    let restored = || {
        let mut all = 0;
        driver.metrics.each(|name, _, value| all += if name == "restored_records_total" { value } else { 0 });
        all
    };
    assert_eq!(restored(), 0, "the position beside the data counts control records too");
    driver.crash(true);
    driver.run().expect("runs again");
    let mut all = 0;
    driver.metrics.each(|name, _, value| all += if name == "restored_records_total" { value } else { 0 });
    assert_eq!(all, 2);
}

#[test]
fn a_small_cache_changes_nothing_but_the_work() {
    let words: Vec<String> = (0..500).map(|n| format!("word-{}", n * n % 83)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let run = |cache_bytes| {
        let mut driver = driver(DriverOptions { cache_bytes, max_poll_records: 20, partitions: 2, ..DriverOptions::default() });
        for chunk in words.chunks(50) {
            pipe(&mut driver, chunk, 0);
            driver.run().expect("runs");
        }
        let outputs: Vec<_> = driver.read("counts").into_iter().map(|out| (out.key, out.value)).collect();
        outputs
    };
    assert_eq!(run(64 << 20), run(2_000));
}

#[test]
fn stream_time_punctuation_follows_records_not_clocks() {
    let mut driver = driver(DriverOptions { partitions: 1, ..DriverOptions::default() });
    pipe(&mut driver, &["tea"], 0);
    driver.run().expect("runs");
    driver.advance(5_000).expect("runs");
    assert_eq!(driver.read("ticks").len(), 0);
    pipe(&mut driver, &["tea"], 3_600_000);
    driver.run().expect("runs");
    let ticks = driver.read("ticks");
    assert_eq!(ticks.iter().map(|tick| tick.timestamp).collect::<Vec<_>>(), [3_600_000]);
}

#[test]
fn a_topology_with_faults_names_all_of_them() {
    let faults = Topology::builder("bad")
        .sub("one", |_| CountWords, |w| w.input("a").output("a").store::<u64>("s"))
        .sub("two", |_| CountWords, |w| w.input("a").store::<u64>("s"))
        .build()
        .expect_err("it is not valid")
        .to_string();
    for fault in ["writes `a`, which it reads", "`a` is read twice", "two stores are named `s`"] {
        assert!(faults.contains(fault), "{fault} is missing in: {faults}");
    }
}
