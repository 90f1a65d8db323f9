//! Reads back what becomes of the payments: committed verdicts and dead letters, by readers outside of any group.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use topology::broker::{Broker, BrokerError, Reaction, Reader as _, Result};
use topology::record::{Fetched, Record, TopicId, TopicPartition};

use super::ledger::Fate;
use super::places::{ID_HEADER, Places};
use super::session::Shared;
use crate::clock::{monotonic, since};

/// Records of one read.
const CHUNK: usize = 4_000;
/// How soon a change of phase is noticed.
const WAIT: Duration = Duration::from_millis(50);

/// The part of a verdict, or of a payment put aside, that is looked at.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    tx_id: Cow<'a, str>,
    #[serde(default)]
    is_anomaly: bool,
}

/// See the module's header.
pub(super) struct Watch<B: Broker> {
    reader: B::Reader,
    verdicts: TopicId,
    from: Vec<(TopicPartition, u64)>,
    patience: Duration,
}

impl<B: Broker> Watch<B> {
    /// Everything that is committed from now on.
    pub(super) fn begin(broker: &B, places: &Places, patience: Duration) -> Result<Self> {
        let topics = [places.verdicts, places.dead_letters];
        let mut reader = broker.reader()?;
        let mut from = Vec::new();
        for (topic, info) in topics.into_iter().zip(broker.describe(&topics)?) {
            let Some(info) = info else {
                let what = format!("topic {} does not exist: start an instance first", broker.topics().name(topic));
                return Err(BrokerError::new(Reaction::Stop, what));
            };
            for partition in 0..info.partitions {
                let at = TopicPartition { topic, partition };
                let end = reader.bounds(at)?.end;
                reader.assign(at, end)?;
                from.push((at, end));
            }
        }
        Ok(Self { reader, verdicts: places.verdicts, from, patience })
    }

    /// Until everything sent has come back and everything committed by then was seen, or nothing comes any more.
    pub(super) fn run(mut self, shared: &Shared) -> Result<()> {
        let mut fetched = Fetched::default();
        let mut progress = monotonic();
        let mut ends: Option<Vec<u64>> = None;
        loop {
            fetched.clear(1 << 20);
            match self.reader.poll(&mut fetched, CHUNK, WAIT) {
                Err(BrokerError { reaction: Reaction::Retry, .. }) => {}
                polled => polled?,
            }
            let now = monotonic();
            if !fetched.is_empty() {
                progress = now;
                self.tell(&fetched, shared, now);
            }
            if shared.has_failed() {
                return Ok(());
            }
            if !shared.is_over() {
                progress = now;
                continue;
            }
            if shared.ledger().pending() == 0 {
                match &ends {
                    None => ends = self.ends().ok(),
                    Some(ends) if self.has_passed(ends) => return Ok(()),
                    Some(_) => {}
                }
            }
            if since(progress) >= self.patience {
                return Ok(());
            }
        }
    }

    fn tell(&self, fetched: &Fetched, shared: &Shared, now: Duration) {
        let mut known = Vec::with_capacity(fetched.len());
        for record in fetched.iter() {
            if record.from.topic == self.verdicts {
                if let Ok(said) = serde_json::from_slice::<Said<'_>>(record.value.unwrap_or_default()) {
                    known.push((said.tx_id, Fate::Verdict(said.is_anomaly)));
                }
            } else if let Some(id) = id_of(&record) {
                known.push((id, Fate::DeadLetter));
            }
        }
        let mut ledger = shared.ledger();
        for (id, fate) in known {
            ledger.returned(&id, fate, now);
        }
    }

    fn ends(&mut self) -> Result<Vec<u64>> {
        self.from.iter().map(|(at, _)| Ok(self.reader.bounds(*at)?.end)).collect()
    }

    fn has_passed(&self, ends: &[u64]) -> bool {
        self.from.iter().zip(ends).all(|((at, from), end)| self.reader.position(*at).unwrap_or(*from) >= *end)
    }
}

/// Which payment was put aside: what is broken says so in a header, all else in itself.
fn id_of<'r>(record: &Record<'r>) -> Option<Cow<'r, str>> {
    if let Some(id) = record.header(ID_HEADER).and_then(|header| header.value) {
        return std::str::from_utf8(id).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<Said<'_>>(record.value?).ok().map(|said| said.tx_id)
}
