//! A processor whose every output depends on all that came before, and the oracle that says what it must have written.
//!
//! Input `events`: key = account, value = a number; output `balances`: `offset count sum` as they were BEFORE the event, so a lost, doubled
//! or misplaced record shows at once. Input `orders`: key = account, value = `reset` or `erase`, decided. `poison` is a dead letter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use state::store::Value;
use topology::decision::Decision;
use topology::driver::{DriverOptions, TestDriver};
use topology::partitioner::partition_of;
use topology::processor::{Context, Processor, Result};
use topology::record::{Batch, TopicId};
use topology::simulated::StoredRecord;
use topology::topology::{StoreId, Topology};

/// What an account has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    pub count: u64,
    pub sum: u64,
}

impl Value for Balance {
    fn heap_bytes(&self) -> usize {
        0
    }
}

const BALANCES: StoreId = StoreId(0);

struct Ledger;

impl Processor for Ledger {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        let keys = batch.iter().filter_map(|record| record.key);
        context.store::<Balance>(BALANCES).prefetch(keys)?;
        for record in batch.iter() {
            let (key, value) = (record.key.expect("events have keys"), record.value.unwrap_or_default());
            let mark = context.mark(&record);
            let text = std::str::from_utf8(value).expect("events are text");
            if context.input() == 1 {
                if context.store::<Balance>(BALANCES).includes(key, mark) {
                    continue;
                }
                context.decide(text, None, Some(&record), Some(key), record.timestamp)?;
                let store = context.store::<Balance>(BALANCES);
                if text == "erase" {
                    store.remove(key, mark);
                } else if let Some(balance) = store.update(key, mark) {
                    *balance = Balance::default();
                }
                continue;
            }
            let Ok(number) = text.parse::<u64>() else {
                context.dead_letter(&record, "poison", "this is no number")?;
                continue;
            };
            let Some(balance) = context.store::<Balance>(BALANCES).update(key, mark) else { continue };
            let seen = format!("{} {} {}", record.offset, balance.count, balance.sum);
            balance.count += 1;
            balance.sum = balance.sum.wrapping_mul(31).wrapping_add(number);
            context.emit_here(0, key, seen.as_bytes(), record.timestamp)?;
        }
        Ok(())
    }
}

pub fn topology() -> Topology {
    Topology::builder("ledger")
        .dead_letters("dead")
        .sub(
            "count",
            |_| Ledger,
            |w| w.input("events").input("orders").store::<Balance>("balances").decisions().output("balances"),
        )
        .build()
        .expect("a valid topology")
}

pub fn driver(options: DriverOptions) -> TestDriver {
    TestDriver::new(topology(), options)
}

pub fn topic(name: &str) -> TopicId {
    topology().topics().find(name).expect("a topic of the ledger")
}

pub fn pipe(driver: &mut TestDriver, topic: &str, key: &str, value: &str) {
    driver.pipe(topic, Some(key.as_bytes()), Some(value.as_bytes()), 0);
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.expect("a value").to_vec()).expect("text")
}

fn committed(driver: &TestDriver, name: &str, partition: u32) -> Vec<StoredRecord> {
    let mut records = driver.sim.committed_records(topic(name));
    records.retain(|record| record.partition.partition == partition);
    records
}

/// What a reader of one partition sees in the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Event offset -> what was said of it; each once, or the check has failed already.
    pub outcomes: BTreeMap<u64, String>,
    pub state: BTreeMap<String, Balance>,
}

/// Orders in the order of their effect: (after, offset of the order, key, kind). Repeats of a decision must agree.
fn decided(driver: &TestDriver, partition: u32, exactly_once: bool) -> Vec<(u64, u64, String, String)> {
    let orders = committed(driver, "orders", partition);
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    for record in committed(driver, "ledger-decisions", partition) {
        let decision = Decision::decode(record.value.as_deref().expect("a decision")).expect("a decision");
        let offset = decision.offset.expect("an order's offset");
        let before = found.insert(offset, decision.after);
        assert!(before.is_none() || !exactly_once, "order {offset} of partition {partition} was decided twice");
        assert!(before.is_none_or(|after| after == decision.after), "order {offset} took effect at two places");
    }
    assert_eq!(found.len(), orders.len(), "partition {partition}: orders without a decision");
    let mut all: Vec<_> = orders
        .iter()
        .map(|order| (found[&order.offset], order.offset, text(order.key.as_deref()), text(order.value.as_deref())))
        .collect();
    all.sort();
    all
}

/// Folds the inputs as decided: what one run without any fault, in that order of orders, would have said.
fn oracle(driver: &TestDriver, partition: u32, exactly_once: bool) -> Seen {
    let mut seen = Seen::default();
    let mut orders = decided(driver, partition, exactly_once).into_iter().peekable();
    let mut obey = |upto: u64, state: &mut BTreeMap<String, Balance>| {
        while let Some((_, _, key, kind)) = orders.next_if(|(after, ..)| *after <= upto) {
            if kind == "erase" {
                state.remove(&key)
            } else {
                state.insert(key, Balance::default())
            };
        }
    };
    for event in committed(driver, "events", partition) {
        obey(event.offset, &mut seen.state);
        let Ok(number) = text(event.value.as_deref()).parse::<u64>() else {
            seen.outcomes.insert(event.offset, "dead".to_owned());
            continue;
        };
        let balance = seen.state.entry(text(event.key.as_deref())).or_default();
        seen.outcomes.insert(event.offset, format!("{} {} {}", event.offset, balance.count, balance.sum));
        balance.count += 1;
        balance.sum = balance.sum.wrapping_mul(31).wrapping_add(number);
    }
    obey(u64::MAX, &mut seen.state);
    seen
}

/// What is in the logs and in the store. Under exactly-once a second outcome of a record fails; under at-least-once one that differs.
fn observed(driver: &TestDriver, partition: u32, exactly_once: bool) -> Seen {
    let mut seen = Seen::default();
    let mut add = |offset: u64, what: String| {
        let before = seen.outcomes.insert(offset, what.clone());
        assert!(before.is_none() || !exactly_once, "record {partition}:{offset} has two outcomes");
        assert!(before.as_ref().is_none_or(|b| *b == what), "record {partition}:{offset} has two outcomes: {before:?}, {what:?}");
    };
    for record in committed(driver, "balances", partition) {
        let what = text(record.value.as_deref());
        add(what.split(' ').next().and_then(|n| n.parse().ok()).expect("an offset"), what);
    }
    for record in committed(driver, "dead", partition) {
        let header = record.headers.iter().find(|h| h.name == "__streams.errors.offset").expect("the header");
        add(text(header.value.as_deref()).parse().expect("an offset"), "dead".to_owned());
    }
    let keys = |name| committed(driver, name, partition).into_iter().map(|record| text(record.key.as_deref()));
    let keys: Vec<String> = keys("events").chain(keys("orders")).collect();
    for key in keys {
        if let Some((_, balance)) = driver.value::<Balance>("balances", key.as_bytes()) {
            seen.state.insert(key, balance);
        }
    }
    seen
}

/// The state as the changelog tells it: its last value by key (I4; at-least-once: the one that includes the most).
fn folded(driver: &TestDriver, partition: u32) -> BTreeMap<String, Balance> {
    let mut state = BTreeMap::new();
    for record in committed(driver, "ledger-balances-changelog", partition) {
        let key = text(record.key.as_deref());
        match record.value.as_deref() {
            None => state.remove(&key),
            Some(bytes) => {
                let (_, balance): (_, Balance) = state::store::decode_kept(bytes).expect("a kept value");
                state.insert(key, balance)
            }
        };
    }
    state
}

/// Compares everything with the oracle. The driver is at rest.
pub fn check(driver: &TestDriver, partitions: u32, exactly_once: bool) {
    for partition in 0..partitions {
        let (want, got) = (oracle(driver, partition, exactly_once), observed(driver, partition, exactly_once));
        assert_eq!(got, want, "partition {partition}");
        if exactly_once {
            assert_eq!(folded(driver, partition), want.state, "partition {partition}: the changelog tells another state");
        }
    }
}

/// An account of each partition, so that tests reach all of them.
pub fn accounts(partitions: u32, each: usize) -> Vec<String> {
    let mut by_partition = vec![0; partitions as usize];
    let mut chosen = Vec::new();
    for name in (0..).map(|n| format!("a{n}")) {
        let room = &mut by_partition[partition_of(name.as_bytes(), partitions) as usize];
        if *room < each {
            *room += 1;
            chosen.push(name);
        }
        if chosen.len() == each * partitions as usize {
            return chosen;
        }
    }
    unreachable!("every partition gets its accounts")
}
