//! Values that lie outside of this machine and are not to be had: whoever reads before it acts waits, whoever does not is voided, and
//! nothing is counted twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use state::backend::{Backend, StorePartition};
use state::tier::Unreachable;
use state::tiered::{Recall, Recalled, Stub, Tiered};
use topology::driver::{DriverOptions, TestDriver};
use topology::processor::{Context, Processor, Result};
use topology::record::Batch;
use topology::topology::{StoreId, Topology};

/// Counts words, each with a look-up of its own where `hasty`: after it has counted others.
struct CountWords {
    hasty: bool,
}

impl Processor for CountWords {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        let words = batch.iter().filter_map(|record| record.value);
        if !self.hasty {
            context.store::<u64>(StoreId(0)).prefetch(words)?;
        }
        for record in batch.iter() {
            let (mark, word) = (context.mark(&record), record.value.unwrap_or_default());
            let store = context.store::<u64>(StoreId(0));
            if self.hasty {
                store.prefetch(std::iter::once(word))?;
            }
            let Some(count) = store.update(word, mark) else { continue };
            *count += 1;
            let count = count.to_string();
            context.emit(0, word, count.as_bytes(), record.timestamp)?;
        }
        Ok(())
    }
}

/// One value outside of this machine.
#[derive(Debug)]
struct Outside {
    value: Vec<u8>,
    down: AtomicBool,
}

impl Recall for Outside {
    fn recall(&self, wanted: &[(&[u8], Stub)]) -> std::result::Result<Vec<Recalled>, Unreachable> {
        if self.down.load(Ordering::Relaxed) {
            return Err(Unreachable("it is down".to_owned()));
        }
        Ok(wanted.iter().map(|_| Recalled { value: self.value.clone(), from: "outside" }).collect())
    }
}

fn driver(hasty: bool) -> TestDriver {
    let topology = Topology::builder("wordcount")
        .sub("count", move |_| CountWords { hasty }, |wiring| wiring.input("words").store::<u64>("counts").output("counts"))
        .build()
        .unwrap();
    TestDriver::new(topology, DriverOptions { partitions: 1, cache_bytes: 0, ..DriverOptions::default() })
}

fn pipe(driver: &mut TestDriver, words: &[&str]) {
    for word in words {
        driver.pipe("words", Some(word.as_bytes()), Some(word.as_bytes()), 0);
    }
}

#[test]
fn a_batch_whose_values_are_away_comes_again_and_counts_once() {
    for hasty in [false, true] {
        let mut driver = driver(hasty);
        pipe(&mut driver, &["tea", "tea"]);
        driver.run().unwrap();
        let partition = StorePartition { store: "counts".into(), partition: 0 };
        let value = driver.disk().get(&partition, b"tea").unwrap().unwrap();
        let outside = Arc::new(Outside { value: value.clone(), down: AtomicBool::new(true) });
        let recall = Arc::clone(&outside) as Arc<dyn Recall>;
        let disk: Arc<dyn Backend> = Arc::new(driver.disk().clone());
        let evictor = Tiered::new(disk, Arc::clone(&recall));
        evictor.stage(&partition, vec![(Box::from(&b"tea"[..]), Stub::of(&value))]);
        assert_eq!(evictor.evict_staged(&partition), Ok(1));
        driver = driver.seen_through(move |disk| Arc::new(Tiered::new(disk, Arc::clone(&recall))) as Arc<dyn Backend>);

        driver.read("counts");
        pipe(&mut driver, &["milk", "tea", "milk"]);
        for _ in 0..200 {
            driver.step().unwrap();
            driver.sim.advance(10);
        }
        assert!(driver.read("counts").is_empty(), "nothing of the batch is done");
        let aborts = driver.metrics.aborts_total.load(Ordering::Relaxed);
        assert_eq!(aborts > 0, hasty, "{aborts} aborts");
        outside.down.store(false, Ordering::Relaxed);
        driver.run().unwrap();
        let text = |bytes: Option<Arc<[u8]>>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        let counts: Vec<_> = driver.read("counts").into_iter().map(|out| (text(out.key), text(out.value))).collect();
        assert_eq!(counts, [("milk", "1"), ("tea", "3"), ("milk", "2")].map(|(word, n)| (word.to_owned(), n.to_owned())));
    }
}
