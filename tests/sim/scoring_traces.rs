//! A payment's trace goes on to its verdict and its anomaly, through repartitioning too, and changes no byte of either.

use mangrove::scoring::{Partitioning, ScoringParams};
use topology::broker::{Broker, Publisher};
use topology::record::{Header, Outgoing, TopicPartition};
use topology::simulated::StoredRecord;

use super::scoring_world::{T, World, header, model, one_partition, payment};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const STATE: &str = "rojo=00f067aa0ba902b7";

/// Four payments of one user: traced, without a trace, with a broken one, traced and broken themselves; all verdicts are anomalies.
fn run(partitioning: Partitioning, traced: bool) -> World {
    let params = ScoringParams { threshold: 0.0, partitioning, ..ScoringParams::default() };
    let mut world = World::new(&params, one_partition());
    world.slot.set(Some(model(1)));
    let topic = world.driver.sim.topics().find("transactions").unwrap();
    let mut publisher = world.driver.sim.publisher().unwrap();
    let parent = Header { name: "traceparent", value: Some(PARENT.as_bytes()) };
    let state = Header { name: "tracestate", value: Some(STATE.as_bytes()) };
    let broken = Header { name: "traceparent", value: Some(b"00-trace-span-01") };
    let other = Header { name: "secret", value: Some(b"stays") };
    let value = payment("ann", 5.0, "m", T);
    for (headers, value) in [
        (&[parent, state, other][..], value.as_str()),
        (&[other][..], value.as_str()),
        (&[broken, state][..], value.as_str()),
        (&[parent, state][..], "no payment"),
    ] {
        let to = TopicPartition { topic, partition: 0 };
        let headers = if traced { headers } else { &[] };
        publisher.send(&Outgoing { to, key: Some(b"ann"), value: Some(value.as_bytes()), timestamp: T, headers }).unwrap();
    }
    publisher.flush().unwrap();
    world.driver.run().unwrap();
    world
}

fn values(records: &[StoredRecord]) -> Vec<Option<Vec<u8>>> {
    records.iter().map(|record| record.value.as_deref().map(<[u8]>::to_vec)).collect()
}

#[test]
fn traces_are_carried_and_nothing_else_is() {
    for partitioning in [Partitioning::Murmur2, Partitioning::Any] {
        let mut world = run(partitioning, true);
        let mut plain = run(partitioning, false);
        for topic in ["verdicts", "anomalies"] {
            let records = world.driver.read(topic);
            let names: Vec<Vec<&str>> =
                records.iter().map(|record| record.headers.iter().map(|header| header.name.as_str()).collect()).collect();
            assert_eq!(names, [vec!["traceparent", "tracestate"], vec![], vec![]], "{topic}");
            assert_eq!((header(&records[0], "traceparent"), header(&records[0], "tracestate")), (Some(PARENT), Some(STATE)));
            assert_eq!(values(&records), values(&plain.driver.read(topic)), "the bytes are the same without");
        }
        let dead = world.driver.read("dead-letters");
        assert_eq!((header(&dead[0], "traceparent"), header(&dead[0], "tracestate")), (Some(PARENT), Some(STATE)));
    }
}
