//! Load straight into the transactions topic.

use std::time::Duration;

use topology::broker::{Broker, BrokerError, Publisher, Reaction};
use topology::partitioner::partition_of;
use topology::record::{Header, Outgoing, TopicId, TopicPartition};

use super::drive::{LoadParams, Sink, drive, report};
use super::places::{ID_HEADER, Places};
use super::report::Report;
use super::session::Shared;
use super::traffic::Event;
use super::watch::Watch;
use crate::clock::{monotonic, since};
use crate::failure::Failure;

/// Records between two flushes: the producer remembers each until then.
const UNFLUSHED: u64 = 100_000;
/// Time between two flushes: what was not delivered is noticed then.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

struct TopicSink<P: Publisher> {
    publisher: P,
    topic: TopicId,
    partitions: u32,
    unflushed: u64,
    flushed: Duration,
    /// The producer sends nothing by itself.
    gathers: bool,
}

impl<P: Publisher> TopicSink<P> {
    fn flush(&mut self) -> Result<(), Failure> {
        (self.unflushed, self.flushed) = (0, monotonic());
        self.publisher.flush().map_err(failed)
    }
}

impl<P: Publisher> Sink for TopicSink<P> {
    fn send(&mut self, event: &Event, value: &[u8], timestamp: i64) -> Result<(), Failure> {
        let key = event.payment.user_id.as_bytes();
        let to = TopicPartition { topic: self.topic, partition: partition_of(key, self.partitions) };
        let id = [Header { name: ID_HEADER, value: Some(event.payment.tx_id.as_bytes()) }];
        let headers: &[Header<'_>] = if event.poison.is_some() { &id } else { &[] };
        let record = Outgoing { to, key: Some(key), value: Some(value), timestamp, headers };
        loop {
            match self.publisher.send(&record) {
                Err(BrokerError { reaction: Reaction::Retry, .. }) => std::thread::park_timeout(Duration::from_millis(10)),
                sent => break sent.map_err(failed)?,
            }
        }
        self.unflushed += 1;
        if self.unflushed >= UNFLUSHED { self.flush() } else { Ok(()) }
    }

    fn pause(&mut self) -> Result<(), Failure> {
        let long_ago = since(self.flushed) >= FLUSH_EVERY;
        if self.unflushed > 0 && (self.gathers || long_ago) { self.flush() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.flush()
    }
}

fn failed(why: BrokerError) -> Failure {
    let hint = "is the broker there, and does the application run? `mangrove check --connect` tells";
    Failure::new("the load ended early").caused_by(why).hint(hint)
}

/// Sends to the topic, and reads back what becomes of it. `gathers`: the broker's producer sends nothing before it is flushed.
///
/// # Errors
/// The broker's; where a topic does not exist.
pub fn to_topic<B: Broker>(
    broker: &B,
    places: &Places,
    gathers: bool,
    params: &LoadParams,
    shared: &Shared,
) -> Result<Report, Failure> {
    let name = broker.topics().name(places.transactions).to_owned();
    let info = broker.describe(&[places.transactions]).map_err(failed)?.pop().flatten();
    let info = info.ok_or_else(|| {
        Failure::new(format!("topic {name} does not exist")).hint("start an instance first: `mangrove run` creates it")
    })?;
    let publisher = broker.publisher().map_err(failed)?;
    let mut sink = TopicSink {
        publisher,
        topic: places.transactions,
        partitions: info.partitions,
        unflushed: 0,
        flushed: monotonic(),
        gathers,
    };
    watched(broker, places, format!("topic {name}"), params, &mut sink, shared)
}

/// Drives a sink, and reads verdicts and dead letters back beside it.
pub(super) fn watched<B: Broker>(
    broker: &B,
    places: &Places,
    target: String,
    params: &LoadParams,
    sink: &mut dyn Sink,
    shared: &Shared,
) -> Result<Report, Failure> {
    let watch = params.read_back.then(|| Watch::begin(broker, places, params.patience)).transpose().map_err(failed)?;
    std::thread::scope(|scope| {
        let watching = watch.map(|watch| scope.spawn(move || watch.run(shared).inspect_err(|_| shared.fail())));
        let driven = drive(params, sink, shared).inspect_err(|_| shared.fail());
        shared.end();
        if let Some(watching) = watching {
            let watched = watching.join().map_err(|_| Failure::new("the thread that reads verdicts panicked"))?;
            watched.map_err(failed)?;
        }
        Ok(report(params, target, driven?, shared))
    })
}
