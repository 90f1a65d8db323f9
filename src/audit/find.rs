//! Finds what became of one input record, without reading whole topics.
//!
//! Verdicts and dead letters of one input partition lie in its own order in whatever partition they are in, so their place is found by
//! halving the range of offsets. Where that fails (at-least-once repeats, aborted stretches) the partition is read as a whole.

use std::borrow::Cow;

use serde::Deserialize;
use topology::broker::Broker;
use topology::record::{Record, TopicPartition};

use super::cursor::Cursor;
use super::{Audit, Place, Result, Told};

/// Below this many offsets a range is read instead of halved.
const SMALL: u64 = 2_000;

/// Headers of a dead letter (KIP-1034).
pub(super) const DEAD: [&str; 5] = [
    "__streams.errors.topic",
    "__streams.errors.partition",
    "__streams.errors.offset",
    "__streams.errors.exception",
    "__streams.errors.message",
];

/// A header's text.
pub(super) fn text<'r>(record: &Record<'r>, name: &str) -> Option<&'r str> {
    std::str::from_utf8(record.header(name)?.value?).ok()
}

/// A verdict's id.
pub(super) fn id_of(verdict: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Id<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    serde_json::from_slice::<Id<'_>>(verdict).ok().map(|verdict| verdict.id)
}

/// The input record that a verdict is about.
pub(super) fn of_verdict(record: &Record<'_>) -> Option<Place> {
    id_of(record.value?)?.parse().ok()
}

/// The record that a dead letter is about.
pub(super) fn of_dead_letter(record: &Record<'_>) -> Option<Place> {
    let [topic, partition, offset, ..] = DEAD.map(|name| text(record, name));
    Some(Place { topic: topic?.to_owned(), partition: partition?.parse().ok()?, offset: offset?.parse().ok()? })
}

/// A record kept for itself.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, String)>,
}

impl<B: Broker> Audit<B> {
    /// The record at an offset; none where there is no committed one.
    pub(super) fn record(&self, at: TopicPartition, offset: u64) -> Result<Option<(i64, Found)>> {
        let mut cursor = Cursor::open(self.broker.reader()?, at, offset, offset + 1)?;
        let found = cursor.peek()?;
        Ok(found.map(|record| (record.timestamp, self.keep(&record))))
    }

    fn keep(&self, record: &Record<'_>) -> Found {
        let headers = record.headers().filter_map(|h| Some((h.name.to_owned(), std::str::from_utf8(h.value?).ok()?.to_owned())));
        let place = self.place(record.from, record.offset);
        Found { place, value: record.value.map(Into::into), headers: headers.collect() }
    }

    /// The record of `within` that is about the wanted place, by what `about` reads from a record.
    pub(super) fn search(
        &self,
        within: TopicPartition,
        wanted: &Place,
        about: fn(&Record<'_>) -> Option<Place>,
        told: &mut Told<'_>,
    ) -> Result<Option<Found>> {
        let bounds = self.bounds(within)?;
        let (mut low, mut high) = (bounds.start, bounds.end);
        let mut reader = self.broker.reader()?;
        while high - low > SMALL {
            let middle = low + (high - low) / 2;
            let found;
            (found, reader) = self.first_about(reader, within, (middle, high), wanted, about)?;
            match found {
                Some((at, found)) if found <= wanted.offset => low = at,
                _ => high = middle,
            }
        }
        match self.scan(within, low, high.max((low + SMALL).min(bounds.end)), wanted, about, told)? {
            Some(found) => Ok(Some(found)),
            None if high - low < bounds.end - bounds.start => self.scan(within, bounds.start, bounds.end, wanted, about, told),
            None => Ok(None),
        }
    }

    /// The first record of a range that is about the wanted partition: where it is, and which offset it is about.
    #[expect(clippy::type_complexity, reason = "the reader goes in and out")]
    fn first_about(
        &self,
        reader: B::Reader,
        within: TopicPartition,
        (from, until): (u64, u64),
        wanted: &Place,
        about: fn(&Record<'_>) -> Option<Place>,
    ) -> Result<(Option<(u64, u64)>, B::Reader)> {
        let mut cursor = Cursor::open(reader, within, from, until)?;
        let mut first = None;
        while let Some(record) = cursor.peek()? {
            let found = about(&record).filter(|place| place.topic == wanted.topic && place.partition == wanted.partition);
            first = found.map(|place| (record.offset, place.offset));
            if first.is_some() {
                break;
            }
            cursor.step();
        }
        Ok((first, cursor.close()?))
    }

    fn scan(
        &self,
        within: TopicPartition,
        from: u64,
        until: u64,
        wanted: &Place,
        about: fn(&Record<'_>) -> Option<Place>,
        told: &mut Told<'_>,
    ) -> Result<Option<Found>> {
        let mut cursor = Cursor::open(self.broker.reader()?, within, from, until)?;
        while cursor.fill()? {
            let (fetched, order) = cursor.batch();
            for &at in order {
                let record = fetched.get(at as usize);
                if about(&record).as_ref() == Some(wanted) {
                    return Ok(Some(self.keep(&record)));
                }
            }
            told("searching", order.last().map_or(0, |&at| fetched.get(at as usize).offset - from), until - from);
            cursor.pass();
        }
        Ok(None)
    }
}
