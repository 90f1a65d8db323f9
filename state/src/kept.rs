//! A value as it is kept, on disk and in the changelog: with its [`Marks`], by input of the task the next offset after the last one that
//! it includes.
//!
//! Format: codec version byte, then bincode of (marks as a sequence, value).

use std::fmt;

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec;

/// How many co-partitioned inputs a task may have.
pub const MAX_INPUTS: usize = 4;

/// By input of the task: the next offset after the last one a value includes; 0 where it includes none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(pub [u64; MAX_INPUTS]);

impl Marks {
    /// True where the value includes the record at this offset of this input already.
    #[must_use]
    pub fn include(&self, at: Mark) -> bool {
        at.offset < self.0[usize::from(at.input)]
    }

    /// Includes this record, and all before it.
    pub(crate) fn advance(&mut self, at: Mark) {
        let next = &mut self.0[usize::from(at.input)];
        *next = (*next).max(at.offset + 1);
    }
}

impl Serialize for Marks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let used = MAX_INPUTS - self.0.iter().rev().take_while(|&&next| next == 0).count();
        let mut seq = serializer.serialize_seq(Some(used))?;
        for next in &self.0[..used] {
            seq.serialize_element(next)?;
        }
        seq.end()
    }
}

impl<'de> Deserialize<'de> for Marks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Marks;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_INPUTS} offsets")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Marks, A::Error> {
                let mut marks = Marks::default();
                let mut at = 0;
                while let Some(next) = seq.next_element()? {
                    *marks.0.get_mut(at).ok_or_else(|| serde::de::Error::invalid_length(at + 1, &self))? = next;
                    at += 1;
                }
                Ok(marks)
            }
        }
        deserializer.deserialize_seq(InOrder)
    }
}

/// One record of one input of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The input's number within its task; the lead topic is 0.
    pub input: u8,
    /// The record's offset.
    pub offset: u64,
}

/// Encodes a value as it is kept, with its marks.
pub fn encode_kept<V: Serialize>(marks: &Marks, value: &V, into: &mut Vec<u8>) {
    codec::encode(&(marks, value), into);
}

/// Decodes a kept value.
///
/// # Errors
/// What [`codec::decode`] says of bytes that are none.
pub fn decode_kept<V: DeserializeOwned>(bytes: &[u8]) -> Result<(Marks, V), codec::CodecError> {
    codec::decode(bytes)
}

/// Decodes only the marks of a kept value.
///
/// # Errors
/// What [`codec::decode_prefix`] says of bytes that are none.
pub fn decode_marks(bytes: &[u8]) -> Result<Marks, codec::CodecError> {
    codec::decode_prefix(bytes)
}

/// A kept value's marks, and the encoded value behind them: [`keep_encoded`] puts other marks before it.
///
/// # Errors
/// As [`decode_marks`].
pub fn split_kept(bytes: &[u8]) -> Result<(Marks, &[u8]), codec::CodecError> {
    codec::split_prefix(bytes)
}

/// A kept value from marks and what [`split_kept`] left.
pub fn keep_encoded(marks: &Marks, value: &[u8], into: &mut Vec<u8>) {
    codec::encode(marks, into);
    into.extend_from_slice(value);
}
