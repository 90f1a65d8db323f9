//! Dead letters go back to the topics they came from, once each.
//!
//! ```text
//! dead-letters -> [filter] -> [ledger: not yet redriven] -> the topic of __streams.errors.topic, at murmur2(key)
//!                                        ^------ in the same transaction ------'
//! ```
//!
//! Invariant: a dead letter is redriven at most once, whatever filters and crashes there were: each transaction holds the records, what
//! the ledger (`<application>-redriven`) says of them, and the offsets of group `<application>-redrive`, whose generation and producer
//! identity end an earlier run. The group's offset is where the first letter lies that could still be redriven: its lag is the work left.
//! Key, value, time and the producer's own headers are kept; error headers go; [`REDRIVES`] counts, so that a record that fails again and
//! again is seen, and left aside from [`Options::max_redrives`] on.
//! A redriven record is a new input record: its verdict has a new id (topic:partition:offset) and the payment's own tx_id.
//! Limits: a record without a key goes to the partition it came from. Letters that were cut to fit cannot be redriven.

mod desk;
mod fate;
mod filter;
mod ledger;
mod report;

use std::time::Duration;

use topology::broker::{Broker, BrokerError, Cleanup, Reaction, Reader, Result, TopicSpec};
use topology::record::{Fetched, Header, Outgoing, TopicId, TopicPartition, Topics};
use topology::topology::Topology;

use crate::clock::{monotonic, since};
use crate::exclusive::{self, Exclusive, below};

pub use desk::{Desk, Done};
pub use fate::{REDRIVES, Skip};
pub use filter::{Filter, Span};
pub use report::{Group, Report};

use fate::{Fate, Letter};
use ledger::Ledger;

/// Records of one transaction, at most.
const TRANSACTION_RECORDS: usize = 500;
/// Slices of a second into which a rate is cut.
const SLICES: usize = 10;

/// What to redrive, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Which letters.
    pub filter: Filter,
    /// A letter that was redriven this often already is left aside.
    pub max_redrives: u32,
    /// Records a second, at most.
    pub rate: u32,
    /// Do it; otherwise only count.
    pub execute: bool,
}

/// The topics of an application that redriving needs.
#[derive(Clone, Debug)]
pub struct Places {
    group: String,
    dead: TopicId,
    ledger: TopicId,
    inputs: Vec<TopicId>,
    topics: Topics,
}

impl Places {
    /// Of a topology; none where it has no dead letters.
    #[must_use]
    pub fn of(topology: &Topology) -> Option<Self> {
        let dead = topology.dead_letters()?;
        let mut names: Vec<String> = topology.topics().iter().map(|(_, name)| name.to_owned()).collect();
        let ledger = TopicId(names.len() as u16);
        names.push(format!("{}-redriven", topology.application()));
        let inputs = topology.subs().iter().flat_map(|sub| sub.inputs.iter().copied()).collect();
        Some(Self { group: format!("{}-redrive", topology.application()), dead, ledger, inputs, topics: Topics::new(names) })
    }

    /// The table of topics that the broker needs.
    #[must_use]
    pub fn topics(&self) -> Topics {
        self.topics.clone()
    }
}

/// Redrives, or only counts what would be; calls `progress` with letters read and letters there are.
///
/// # Errors
/// The broker's. What was committed before stays, and the same call again goes on behind it.
pub fn redrive<B: Broker>(broker: &B, places: &Places, options: &Options, progress: &dyn Fn(u64, u64)) -> Result<Report> {
    let counts = broker.describe(&exclusive_topics(places))?;
    let mut inputs = Vec::new();
    for (&topic, info) in places.inputs.iter().zip(&counts[2..]) {
        inputs.extend(info.as_ref().map(|info| (topic, info.partitions)));
    }
    let Some(dead) = &counts[0] else {
        let what = format!("topic {} does not exist: there are no dead letters", places.topics.name(places.dead));
        return Err(BrokerError::new(Reaction::Stop, what));
    };
    let letters = exclusive::partitions(&[(places.dead, dead.partitions)]);
    let mut hand = None;
    if options.execute {
        let name = places.topics.name(places.ledger).to_owned();
        let cleanup = Cleanup::Delete { retention_ms: None };
        broker.create(&TopicSpec { name, partitions: 1, cleanup, max_message_bytes: None })?;
        // Joining comes before reading the ledger: it ends what an earlier run left open.
        let config = exclusive::identity(&places.group, &places.group, vec![places.dead]);
        hand = Some(Exclusive::join(broker, &config, &letters)?);
    }
    let mut reader = broker.reader()?;
    let ledger = if options.execute || counts[1].is_some() {
        Ledger::read(&mut reader, TopicPartition { topic: places.ledger, partition: 0 })?
    } else {
        Ledger::default()
    };
    let mut bounds = Vec::new();
    for &at in &letters {
        let found = reader.bounds(at)?;
        bounds.push((at, found.start, found.end));
    }
    let total = bounds.iter().map(|&(_, start, end)| end - start).sum();
    let report = Report::new(options.execute);
    let mut run: Run<'_, B> = Run { places, options, inputs, ledger, hand, report, began: monotonic() };
    let mut passed = 0;
    for (at, start, end) in bounds {
        let mut done = start;
        let mut first_left = None;
        exclusive::read(&mut reader, at, start, end, |fetched, position| {
            run.chunk(at, fetched, end, &mut first_left)?;
            done = position.min(end);
            progress(passed + done - start, total);
            Ok::<(), BrokerError>(())
        })?;
        passed += end - start;
    }
    if let Some(hand) = run.hand {
        hand.leave()?;
    }
    Ok(run.report)
}

/// Dead letters, ledger, inputs.
fn exclusive_topics(places: &Places) -> Vec<TopicId> {
    [places.dead, places.ledger].into_iter().chain(places.inputs.iter().copied()).collect()
}

struct Run<'a, B: Broker> {
    places: &'a Places,
    options: &'a Options,
    inputs: Vec<(TopicId, u32)>,
    ledger: Ledger,
    hand: Option<Exclusive<B>>,
    report: Report,
    began: Duration,
}

impl<B: Broker> Run<'_, B> {
    /// Judges what was fetched and redrives what is to be. `first_left`: the partition's first letter that is left for another time.
    fn chunk(&mut self, at: TopicPartition, fetched: &Fetched, end: u64, first_left: &mut Option<u64>) -> Result<()> {
        let mut going: Vec<(u64, Letter<'_>)> = Vec::new();
        for record in below(fetched, end) {
            let fate = if self.ledger.has(at.partition, record.offset) {
                Fate::Skipped(Skip::Already)
            } else {
                fate::judge(&record, self.options, &|name| {
                    let topic = self.places.topics.find(name)?;
                    self.inputs.iter().find(|(input, _)| *input == topic).copied()
                })
            };
            self.report.count(&fate);
            match fate {
                Fate::Going(letter) => going.push((record.offset, letter)),
                Fate::Skipped(Skip::Already | Skip::Truncated) => {}
                Fate::Skipped(_) => *first_left = first_left.or(Some(record.offset)),
            }
        }
        let step = (self.options.rate as usize / SLICES).clamp(1, TRANSACTION_RECORDS);
        for batch in going.chunks(step) {
            let Some(hand) = &mut self.hand else { break };
            self.report.redriven += send(hand, self.places, at, batch, first_left)?;
            let due = Duration::from_secs_f64(self.report.redriven as f64 / f64::from(self.options.rate));
            loop {
                let early = due.saturating_sub(since(self.began));
                if early.is_zero() {
                    break;
                }
                hand.follow(early.min(Duration::from_millis(100)))?;
            }
        }
        Ok(())
    }
}

/// One transaction: the records, the ledger's word on them, the group's offset. Tells how many went.
fn send<B: Broker>(
    hand: &mut Exclusive<B>,
    places: &Places,
    at: TopicPartition,
    batch: &[(u64, Letter<'_>)],
    first_left: &mut Option<u64>,
) -> Result<u64> {
    let (mut gone, mut left) = (Vec::new(), *first_left);
    hand.transact(|send| {
        for (offset, letter) in batch {
            let count = letter.redrives.to_string();
            let mut headers = letter.headers.clone();
            headers.push(Header { name: REDRIVES, value: Some(count.as_bytes()) });
            let Letter { to, key, value, timestamp, .. } = *letter;
            match send(&Outgoing { to, key, value, timestamp, headers: &headers }) {
                Err(BrokerError { reaction: Reaction::TooLarge, .. }) => left = left.or(Some(*offset)),
                sent => {
                    sent?;
                    gone.push(*offset);
                }
            }
        }
        let entry = Ledger::entry(at.partition, &gone);
        let to = TopicPartition { topic: places.ledger, partition: 0 };
        send(&Outgoing { to, key: None, value: Some(&entry), timestamp: crate::clock::now_ms(), headers: &[] })?;
        let behind = batch.last().map_or(0, |(offset, _)| offset + 1);
        Ok(vec![(at, left.map_or(behind, |left| left.min(behind)))])
    })?;
    *first_left = left;
    Ok(gone.len() as u64)
}
