//! Dead letters as KIP-1034 has them: the original bytes and headers, and beside them `__streams.errors.*` headers that say why.
//!
//! Each of our headers is capped at 500 characters, so that a dead letter is never refused for its explanation. One that is larger
//! than its topic takes is cut to fit and marked with its original size: a mark beats a stream that cannot go on. Error headers
//! of an earlier life are stripped, so redriven records don't pile them up.

use crate::broker::BrokerError;
use crate::record::{Header, Outgoing, Record, TopicPartition};
use crate::sink::Sink;

/// The prefix of the headers that say why.
pub const PREFIX: &str = "__streams.errors.";
/// The header that holds the original size, in bytes, of a value that was cut.
pub const TRUNCATED: &str = "__mangrove.truncated";
/// The longest value of a header of ours, in bytes.
const HEADER_CAP: usize = 500;
/// Room for a record's framing beside key, value and headers: batch header, lengths, timestamps.
const FRAMING: usize = 512;

/// Cuts at a character boundary.
fn cap(text: &str) -> &str {
    &text[..text.floor_char_boundary(HEADER_CAP)]
}

pub(crate) fn send(
    sink: &mut dyn Sink,
    to: TopicPartition,
    max_bytes: usize,
    record: &Record<'_>,
    origin: &str,
    exception: &str,
    message: &str,
) -> Result<(), BrokerError> {
    let (partition, offset) = (record.from.partition.to_string(), record.offset.to_string());
    let size = record.value.map_or(0, <[u8]>::len);
    let size_text = size.to_string();
    let mut headers: Vec<Header<'_>> =
        record.headers().filter(|header| !header.name.starts_with(PREFIX) && header.name != TRUNCATED).collect();
    for (name, value) in [
        ("__streams.errors.exception", cap(exception)),
        ("__streams.errors.message", cap(message)),
        ("__streams.errors.stacktrace", ""),
        ("__streams.errors.topic", cap(origin)),
        ("__streams.errors.partition", partition.as_str()),
        ("__streams.errors.offset", offset.as_str()),
    ] {
        headers.push(Header { name, value: Some(value.as_bytes()) });
    }
    let mut key = record.key;
    let mut value = record.value;
    let weight = |headers: &[Header<'_>]| -> usize {
        headers.iter().map(|h| h.name.len() + h.value.map_or(0, <[u8]>::len) + 10).sum::<usize>() + FRAMING
    };
    let fixed = weight(&headers) + key.map_or(0, <[u8]>::len);
    if fixed + size > max_bytes {
        headers.push(Header { name: TRUNCATED, value: Some(size_text.as_bytes()) });
        if weight(&headers) + key.map_or(0, <[u8]>::len) > max_bytes {
            // Not even the key and headers fit: keep the cause alone.
            key = None;
            headers.retain(|header| header.name.starts_with(PREFIX) || header.name == TRUNCATED);
        }
        let room = max_bytes.saturating_sub(weight(&headers) + key.map_or(0, <[u8]>::len));
        value = value.map(|bytes| &bytes[..room.min(bytes.len())]);
    }
    sink.send(&Outgoing { to, key, value, timestamp: record.timestamp, headers: &headers })
}
