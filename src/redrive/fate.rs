//! What becomes of one dead letter, from its headers alone.

use serde::Serialize;
use topology::dead_letter::{PREFIX, TRUNCATED};
use topology::partitioner::partition_of;
use topology::record::{Header, Record, TopicId, TopicPartition};

use super::Options;

/// The header that counts how often a record was redriven.
pub const REDRIVES: &str = "mangrove.redrives";

/// Why a letter stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// It was redriven before.
    Already,
    /// The filter does not mean it.
    Filtered,
    /// It was cut to fit its topic: what is left is not the record.
    Truncated,
    /// It was redriven as often as is allowed.
    TooOften,
    /// It does not say where it came from, or that is no topic this application reads.
    Foreign,
}

/// A letter on its way back.
#[derive(Clone, Debug)]
pub(super) struct Letter<'a> {
    pub to: TopicPartition,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp: i64,
    /// The producer's own.
    pub headers: Vec<Header<'a>>,
    /// This time included.
    pub redrives: u32,
    pub cause: &'a str,
    pub topic: &'a str,
    /// Of the topic, where the record was.
    pub partition: u32,
}

impl Letter<'_> {
    /// Bytes of key, value and headers.
    pub fn bytes(&self) -> u64 {
        let headers: usize = self.headers.iter().map(|header| header.name.len() + header.value.map_or(0, <[u8]>::len)).sum();
        (headers + self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)) as u64
    }
}

#[derive(Clone, Debug)]
pub(super) enum Fate<'a> {
    Going(Letter<'a>),
    Skipped(Skip),
}

/// Judges a letter; `input` finds a topic that the application reads, and how many partitions it has.
pub(super) fn judge<'a>(record: &Record<'a>, options: &Options, input: &dyn Fn(&str) -> Option<(TopicId, u32)>) -> Fate<'a> {
    let text = |name: &str| {
        let header = record.headers().filter(|header| header.name.strip_prefix(PREFIX) == Some(name)).last()?;
        std::str::from_utf8(header.value?).ok()
    };
    let number = |name: &str| text(name)?.parse::<u64>().ok();
    let origin = (text("exception"), text("topic"), number("partition").and_then(|p| u32::try_from(p).ok()), number("offset"));
    let (Some(cause), Some(topic), Some(partition), Some(offset)) = origin else {
        return Fate::Skipped(Skip::Foreign);
    };
    if !options.filter.takes(cause, topic, partition, offset, record.timestamp) {
        return Fate::Skipped(Skip::Filtered);
    }
    let Some((to, count)) = input(topic) else { return Fate::Skipped(Skip::Foreign) };
    if record.header(TRUNCATED).is_some() {
        return Fate::Skipped(Skip::Truncated);
    }
    let before = record.header(REDRIVES).and_then(|header| std::str::from_utf8(header.value?).ok()?.parse().ok()).unwrap_or(0);
    if before >= options.max_redrives {
        return Fate::Skipped(Skip::TooOften);
    }
    let ours = |name: &str| name.starts_with(PREFIX) || name == REDRIVES;
    Fate::Going(Letter {
        to: TopicPartition { topic: to, partition: record.key.map_or(partition % count, |key| partition_of(key, count)) },
        key: record.key,
        value: record.value,
        timestamp: record.timestamp,
        headers: record.headers().filter(|header| !ours(header.name)).collect(),
        redrives: before + 1,
        cause,
        topic,
        partition,
    })
}
