//! As much of Kafka's protocol as the proxy needs.
//!
//! A request and an answer are a length of four bytes and a body. A request's body begins with its kind (two bytes), version (two), number
//! (four) and the client's id; an answer's body begins with the number. The requests of a transactional producer that matter here go on
//! with its id, behind tags where their version has such.

use std::io::Read;

const PRODUCE: u16 = 0;
const INIT_PRODUCER: u16 = 22;
const END: u16 = 26;
const OFFSETS: u16 = 28;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Produce,
    InitProducer,
    Commit,
    Offsets,
    Other,
}

/// A request.
pub struct Request {
    pub frame: Vec<u8>,
    pub kind: Kind,
    pub number: [u8; 4],
    pub client: String,
    /// The transactional id; empty where there is none.
    pub producer: String,
}

impl Request {
    /// The next request; none where the connection ended.
    pub fn read(from: &mut impl Read) -> Option<Self> {
        let frame = read_frame(from)?;
        let mut rest = &frame[4..];
        let (key, version) = (u16_of(&mut rest)?, u16_of(&mut rest)?);
        let number = take(&mut rest, 4)?.try_into().expect("four bytes");
        let client = string(&mut rest)?;
        let (kind, tagged_from) = match key {
            PRODUCE => (Kind::Produce, 9),
            INIT_PRODUCER => (Kind::InitProducer, 2),
            // An end, in the versions that librdkafka has, ends with one byte: 1 to commit.
            END if frame.last() == Some(&1) => (Kind::Commit, 3),
            OFFSETS => (Kind::Offsets, 3),
            _ => (Kind::Other, 0),
        };
        let producer = match kind {
            Kind::Other => String::new(),
            _ if version >= tagged_from => compact_string(&mut rest)?,
            _ => string(&mut rest)?,
        };
        Some(Self { kind, number, client, producer, frame })
    }
}

/// A whole request or answer with its length; none where the connection ended.
pub fn read_frame(from: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut frame = vec![0; 4 + u32::from_be_bytes(length) as usize];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn u16_of(rest: &mut &[u8]) -> Option<u16> {
    take(rest, 2).map(|bytes| u16::from_be_bytes(bytes.try_into().expect("two bytes")))
}

/// A length of two bytes (all ones for none) and text.
fn string(rest: &mut &[u8]) -> Option<String> {
    let length = u16_of(rest)?;
    let text = if length == u16::MAX { &[] } else { take(rest, usize::from(length))? };
    Some(String::from_utf8_lossy(text).into_owned())
}

/// No tags, one more than the length in one byte (ids are short; 0 for none), and text.
fn compact_string(rest: &mut &[u8]) -> Option<String> {
    let [_, length] = take(rest, 2)? else { unreachable!("two were taken") };
    let text = take(rest, usize::from(length.saturating_sub(1)))?;
    Some(String::from_utf8_lossy(text).into_owned())
}
