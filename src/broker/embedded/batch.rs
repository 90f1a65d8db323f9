//! The bytes of one batch: consecutive records of one partition, written by one append. One batch is one value in RocksDB.
//!
//! ```text
//! version u8 = 1 | newest timestamp i64 | appended at i64 | first timestamp i64 | span u32        (little endian)
//! then each record: offset - base | timestamp - first (zigzag) | key length + 1 or 0 | value length + 1 or 0 | headers
//!                   | key | value | each header: name length | name | value length + 1 or 0 | value  (numbers are LEB128)
//! ```
//!
//! The batch's first offset is its key in RocksDB, so that a batch is built before anyone knows where it goes. It covers `span` offsets;
//! compaction takes records out and leaves the span. RocksDB's block checksum guards the bytes; what still does not parse is refused.

use topology::record::{Header, Outgoing};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 29;

/// A batch ends with the record that brings it above this: small enough to be read piece by piece, large enough that RocksDB's cost per
/// value vanishes.
pub(super) const TARGET_BYTES: usize = 256 << 10;

/// A batch being filled.
#[derive(Debug)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    span: u32,
    first_timestamp: i64,
    newest_timestamp: i64,
}

impl Builder {
    pub fn new() -> Self {
        Self { bytes: vec![0; HEAD_BYTES], span: 0, first_timestamp: 0, newest_timestamp: i64::MIN }
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= TARGET_BYTES
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many offsets it covers.
    pub fn span(&self) -> u32 {
        self.span
    }

    /// Appends a record at the next offset.
    pub fn push(&mut self, record: &Outgoing<'_>) {
        let headers = record.headers;
        self.put(self.span, record.timestamp, record.key, record.value, headers.len(), headers.iter().copied());
        self.span += 1;
    }

    /// Appends a record that another batch with the same base had at this distance from it.
    pub fn keep(&mut self, delta: u32, record: &Stored<'_>) {
        self.put(delta, record.timestamp, record.key, record.value, record.headers().count(), record.headers());
    }

    fn put<'h>(
        &mut self,
        delta: u32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        count: usize,
        headers: impl Iterator<Item = Header<'h>>,
    ) {
        if self.newest_timestamp == i64::MIN {
            self.first_timestamp = timestamp;
        }
        self.newest_timestamp = self.newest_timestamp.max(timestamp);
        let into = &mut self.bytes;
        put_number(u64::from(delta), into);
        let since = timestamp.wrapping_sub(self.first_timestamp);
        put_number(((since << 1) ^ (since >> 63)) as u64, into);
        put_number(key.map_or(0, |key| key.len() as u64 + 1), into);
        put_number(value.map_or(0, |value| value.len() as u64 + 1), into);
        put_number(count as u64, into);
        into.extend_from_slice(key.unwrap_or_default());
        into.extend_from_slice(value.unwrap_or_default());
        for header in headers {
            put_number(header.name.len() as u64, into);
            into.extend_from_slice(header.name.as_bytes());
            put_number(header.value.map_or(0, |value| value.len() as u64 + 1), into);
            into.extend_from_slice(header.value.unwrap_or_default());
        }
    }

    /// The batch's bytes. `span` is what it covers, where that is more than what it holds.
    pub fn finish(&mut self, appended_ms: i64, span: u32) -> &[u8] {
        self.bytes[0] = VERSION;
        self.bytes[1..9].copy_from_slice(&self.newest_timestamp.to_le_bytes());
        self.bytes[9..17].copy_from_slice(&appended_ms.to_le_bytes());
        self.bytes[17..25].copy_from_slice(&self.first_timestamp.to_le_bytes());
        self.bytes[25..29].copy_from_slice(&span.to_le_bytes());
        &self.bytes
    }
}

fn put_number(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// A batch as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    /// The offset of its first record when it was written.
    pub base: u64,
    /// How many offsets it covers.
    pub span: u32,
    /// The newest of its records' timestamps.
    pub newest_timestamp: i64,
    /// When the broker took it.
    pub appended_ms: i64,
    first_timestamp: i64,
    body: &'a [u8],
}

impl<'a> Batch<'a> {
    /// None where the bytes are not a batch of this version.
    pub fn parse(base: u64, bytes: &'a [u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(HEAD_BYTES)?;
        let long = |at: usize| Some(i64::from_le_bytes(head[at..at + 8].try_into().ok()?));
        if head[0] != VERSION {
            return None;
        }
        Some(Self {
            base,
            span: u32::from_le_bytes(head[25..29].try_into().ok()?),
            newest_timestamp: long(1)?,
            appended_ms: long(9)?,
            first_timestamp: long(17)?,
            body,
        })
    }

    /// One past the last offset it covers.
    pub fn end(&self) -> u64 {
        self.base + u64::from(self.span)
    }

    /// Its records; an item that is none says that the bytes are damaged from there on.
    pub fn records(&self) -> Records<'a> {
        Records { base: self.base, span: self.span, first_timestamp: self.first_timestamp, rest: self.body }
    }
}

/// The records of a batch in offset order.
#[derive(Clone, Debug)]
pub(super) struct Records<'a> {
    base: u64,
    span: u32,
    first_timestamp: i64,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Option<Stored<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.take();
        if record.is_none() {
            self.rest = &[];
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn take(&mut self) -> Option<Stored<'a>> {
        let rest = &mut self.rest;
        let delta = take_number(rest).filter(|&delta| delta < u64::from(self.span))?;
        let zigzag = take_number(rest)?;
        let since = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let (key, value, count) = (take_number(rest)?, take_number(rest)?, take_number(rest)?);
        let key = take_optional(rest, key)?;
        let value = take_optional(rest, value)?;
        let headers = *rest;
        for _ in 0..count {
            take_header(rest)?;
        }
        let headers = &headers[..headers.len() - rest.len()];
        Some(Stored { offset: self.base + delta, timestamp: self.first_timestamp.wrapping_add(since), key, value, headers })
    }
}

/// A record in a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'a> {
    pub offset: u64,
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl<'a> Stored<'a> {
    /// Its headers in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut rest = self.headers;
        std::iter::from_fn(move || if rest.is_empty() { None } else { take_header(&mut rest) })
    }
}

fn take_header<'a>(rest: &mut &'a [u8]) -> Option<Header<'a>> {
    let length = take_number(rest)?;
    let name = std::str::from_utf8(take(rest, length)?).ok()?;
    let length = take_number(rest)?;
    Some(Header { name, value: take_optional(rest, length)? })
}

/// The outer none is damage, the inner one a null.
#[expect(clippy::option_option, reason = "a null is a value of its own")]
fn take_optional<'a>(rest: &mut &'a [u8], length_and_one: u64) -> Option<Option<&'a [u8]>> {
    match length_and_one {
        0 => Some(None),
        length => take(rest, length - 1).map(Some),
    }
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(taken)
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use topology::record::{TopicId, TopicPartition};

    use super::*;

    type Bytes = Option<Vec<u8>>;
    type Sample = (Bytes, Bytes, i64, Vec<(String, Bytes)>);

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..200))
    }

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        let headers = prop::collection::vec((".{0,9}", bytes()), 0..3);
        prop::collection::vec((bytes(), bytes(), any::<i64>(), headers), 1..40)
    }

    fn build(samples: &[Sample]) -> Vec<u8> {
        let mut builder = Builder::new();
        for (key, value, timestamp, headers) in samples {
            let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| Header { name, value: value.as_deref() }).collect();
            builder.push(&Outgoing {
                to: TopicPartition { topic: TopicId(0), partition: 0 },
                key: key.as_deref(),
                value: value.as_deref(),
                timestamp: *timestamp,
                headers: &headers,
            });
        }
        let span = builder.span();
        builder.finish(77, span).to_vec()
    }

    fn read(record: &Stored<'_>) -> Sample {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let headers = record.headers().map(|header| (header.name.to_owned(), owned(header.value))).collect();
        (owned(record.key), owned(record.value), record.timestamp, headers)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(samples in samples()) {
            let bytes = build(&samples);
            let batch = Batch::parse(100, &bytes).unwrap();
            prop_assert_eq!((batch.end(), batch.appended_ms), (100 + samples.len() as u64, 77));
            prop_assert_eq!(batch.newest_timestamp, samples.iter().map(|sample| sample.2).max().unwrap());
            let records: Vec<Stored<'_>> = batch.records().map(Option::unwrap).collect();
            prop_assert!(records.iter().enumerate().all(|(at, record)| record.offset == 100 + at as u64));
            prop_assert_eq!(records.iter().map(read).collect::<Vec<_>>(), samples);
        }

        #[test]
        fn what_compaction_keeps_is_read(samples in samples(), keep in any::<u64>()) {
            let bytes = build(&samples);
            let batch = Batch::parse(5, &bytes).unwrap();
            let mut kept = Builder::new();
            let chosen: Vec<Stored<'_>> = batch.records().flatten().filter(|record| keep >> (record.offset % 64) & 1 == 1).collect();
            chosen.iter().for_each(|record| kept.keep((record.offset - 5) as u32, record));
            let bytes = kept.finish(batch.appended_ms, batch.span).to_vec();
            let again = Batch::parse(5, &bytes).unwrap();
            prop_assert_eq!(again.end(), batch.end());
            let offsets = |records: &[Stored<'_>]| records.iter().map(|record| (record.offset, read(record))).collect::<Vec<_>>();
            let records: Vec<Stored<'_>> = again.records().map(Option::unwrap).collect();
            prop_assert_eq!(offsets(&records), offsets(&chosen));
        }

        #[test]
        fn damage_is_refused_without_a_panic(samples in samples(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let mut bytes = build(&samples);
            let cut = at.index(bytes.len());
            for end in [cut, bytes.len()] {
                if let Some(batch) = Batch::parse(0, &bytes[..end]) {
                    batch.records().for_each(drop);
                }
            }
            bytes[cut] ^= flip;
            if let Some(batch) = Batch::parse(0, &bytes) {
                batch.records().for_each(drop);
            }
        }
    }
}
