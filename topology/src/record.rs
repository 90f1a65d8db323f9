//! Records on their way in and out, without an allocation per record.
//!
//! Topics are numbered by a [`Topics`] table that an application makes once, so that nothing on the hot path compares
//! names. What a poll fetched lies in one arena, [`Fetched`]; a [`Record`] borrows from it. What goes out is an
//! [`Outgoing`], borrowed from whoever made it: the broker copies it into its own buffer.

use std::ops::Range;
use std::sync::Arc;

/// A topic's number in its application's [`Topics`] table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u16);

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// Its partition, from 0.
    pub partition: u32,
}

/// The topics an application knows, by number. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics(Arc<[String]>);

impl Topics {
    /// Numbers the names in the order given.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        assert!(names.len() <= usize::from(u16::MAX), "more topics than a topic number can name");
        Self(names.into())
    }

    /// The name of a topic of this table.
    #[must_use]
    pub fn name(&self, topic: TopicId) -> &str {
        &self.0[usize::from(topic.0)]
    }

    /// The number of a name, if the table has it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<TopicId> {
        self.0.iter().position(|n| n == name).map(|at| TopicId(at as u16))
    }

    /// All topics in order.
    pub fn iter(&self) -> impl Iterator<Item = (TopicId, &str)> {
        self.0.iter().enumerate().map(|(at, name)| (TopicId(at as u16), name.as_str()))
    }
}

/// A header of a record: a name and bytes (none where the producer gave a null).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The header's name.
    pub name: &'a str,
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// A record to be written. The partition is explicit: see [`crate::partitioner`].
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where to.
    pub to: TopicPartition,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Its headers, in order.
    pub headers: &'a [Header<'a>],
}

/// A record that was read; borrows from the [`Fetched`] that holds it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it was read from.
    pub from: TopicPartition,
    /// Its offset there.
    pub offset: u64,
    /// Milliseconds since the epoch, as stored with the record.
    pub timestamp: i64,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    at: u32,
    fetched: &'a Fetched,
}

impl<'a> Record<'a> {
    /// The record's headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let fetched = self.fetched;
        fetched.meta[self.at as usize].headers.clone().map(move |at| fetched.header(at as usize))
    }

    /// The last header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Header<'a>> {
        self.headers().filter(|header| header.name == name).last()
    }
}

#[derive(Clone, Debug)]
struct Meta {
    from: TopicPartition,
    offset: u64,
    timestamp: i64,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Range<u32>,
}

#[derive(Clone, Debug)]
struct HeaderMeta {
    name: Range<u32>,
    value: Option<Range<u32>>,
}

/// What polls fetched: one arena of bytes and a table of records, kept and refilled. At most 4 GiB.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    bytes: Vec<u8>,
    meta: Vec<Meta>,
    headers: Vec<HeaderMeta>,
}

impl Fetched {
    /// Empties it and keeps its memory, up to `keep_bytes` of arena (one huge record must not stay for ever).
    pub fn clear(&mut self, keep_bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep_bytes);
        self.meta.clear();
        self.headers.clear();
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.meta.len()
    }

    /// True where it holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }

    /// Bytes of keys, values and headers held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a record; what a broker does in its poll.
    pub fn push<'h>(
        &mut self,
        from: TopicPartition,
        offset: u64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = Header<'h>>,
    ) {
        let key = key.map(|bytes| self.keep(bytes));
        let value = value.map(|bytes| self.keep(bytes));
        let first = self.headers.len() as u32;
        for header in headers {
            let name = self.keep(header.name.as_bytes());
            let value = header.value.map(|bytes| self.keep(bytes));
            self.headers.push(HeaderMeta { name, value });
        }
        let headers = first..self.headers.len() as u32;
        self.meta.push(Meta { from, offset, timestamp, key, value, headers });
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = u32::try_from(self.bytes.len()).expect("invariant: polls are bounded far below 4 GiB");
        self.bytes.extend_from_slice(bytes);
        start..u32::try_from(self.bytes.len()).expect("invariant: polls are bounded far below 4 GiB")
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn header(&self, at: usize) -> Header<'_> {
        let meta = &self.headers[at];
        let name = std::str::from_utf8(self.slice(&meta.name)).expect("invariant: kept from a str");
        Header { name, value: meta.value.as_ref().map(|range| self.slice(range)) }
    }

    /// The record at a place, counted in the order of arrival.
    #[must_use]
    pub fn get(&self, at: usize) -> Record<'_> {
        let meta = &self.meta[at];
        Record {
            from: meta.from,
            offset: meta.offset,
            timestamp: meta.timestamp,
            key: meta.key.as_ref().map(|range| self.slice(range)),
            value: meta.value.as_ref().map(|range| self.slice(range)),
            at: at as u32,
            fetched: self,
        }
    }

    /// All records in the order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// Fills `order` with the places of all records, grouped by topic and partition, in offset order within each.
    pub fn order_by_partition(&self, order: &mut Vec<u32>) {
        order.clear();
        order.extend(0..self.len() as u32);
        order.sort_by_key(|&at| {
            let meta = &self.meta[at as usize];
            (meta.from, meta.offset)
        });
    }

    /// The part of an `order` that is this partition's.
    #[must_use]
    pub fn places<'o>(&self, order: &'o [u32], of: TopicPartition) -> &'o [u32] {
        let start = order.partition_point(|&at| self.origin(at as usize) < of);
        let end = order.partition_point(|&at| self.origin(at as usize) <= of);
        &order[start..end]
    }

    /// Where a record was read from, without its bytes.
    #[must_use]
    pub fn origin(&self, at: usize) -> TopicPartition {
        self.meta[at].from
    }
}

/// Records of one partition in offset order: what a processor gets.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    fetched: &'a Fetched,
    order: &'a [u32],
}

impl<'a> Batch<'a> {
    /// The records of `fetched` at `order`, all of one partition and in offset order.
    #[must_use]
    pub fn new(fetched: &'a Fetched, order: &'a [u32]) -> Self {
        debug_assert!(order.windows(2).all(|w| {
            let (a, b) = (&fetched.meta[w[0] as usize], &fetched.meta[w[1] as usize]);
            a.from == b.from && a.offset < b.offset
        }));
        Self { fetched, order }
    }

    /// The record at a place, as a batch.
    #[must_use]
    pub fn only(&self, at: usize) -> Self {
        Self { fetched: self.fetched, order: &self.order[at..=at] }
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The record at a place.
    #[must_use]
    pub fn get(&self, at: usize) -> Record<'a> {
        self.fetched.get(self.order[at] as usize)
    }

    /// The records in offset order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let this = *self;
        (0..this.len()).map(move |at| this.get(at))
    }
}
