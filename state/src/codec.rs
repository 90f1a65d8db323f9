//! How a value becomes bytes: one version byte, then bincode.
//!
//! Format: `0x01`, then bincode 2's standard configuration through serde: little endian, integers up to 250 in one byte and
//! larger ones after a width byte (zigzag where signed), floats in full, a length before each sequence. The bytes of equal values are equal.
//! Limits: decoding refuses more than [`MAX_BYTES`], and what it allocates is bounded by sixteen times the bytes given (16 KiB at
//! least), whatever lengths damaged bytes pretend to hold. It never panics.
//! Why bincode though nobody maintains it, and the way out: `docs/decisions/0002-bincode.md`.

use bincode::config;
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version this program writes, and the only one it reads.
pub const VERSION: u8 = 1;

/// The most bytes of one encoded value.
pub const MAX_BYTES: usize = 64 << 20;

/// Steps of the bound on what decoding allocates.
const SMALL: usize = 16 << 10;
const MEDIUM: usize = 1 << 20;

/// Why bytes are not a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Another program's format, most likely a newer one: stop the task and keep the data.
    #[error("the value has format version {0}; this program reads version {VERSION} only (was the instance downgraded?)")]
    UnknownVersion(u8),
    /// There is not even a version byte.
    #[error("the value is empty")]
    Empty,
    /// They are not what the version byte says, or not of this type.
    #[error("the value does not decode: {0}")]
    Damaged(String),
    /// A whole value, and more behind it: damage, or another type's value.
    #[error("the value has {0} bytes too many")]
    Trailing(usize),
    /// Longer than any value that this program writes.
    #[error("the value has {0} bytes, more than {MAX_BYTES}")]
    TooLong(usize),
}

/// Appends the value's bytes.
///
/// # Panics
/// Where the type's `Serialize` itself fails, or asks for what bincode lacks (a sequence that doesn't know its length): that is a
/// bug in the type, and its first test finds it.
pub fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) {
    into.push(VERSION);
    bincode::serde::encode_into_writer(value, Append(into), config::standard())
        .expect("invariant: a type kept as state serialises");
}

/// Reads a value that [`encode`] wrote, the whole of it.
///
/// # Errors
/// [`CodecError::UnknownVersion`] stops the task and keeps the data; every other one is damage.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = decode_start(bytes)?;
    match bytes.len() - used {
        0 => Ok(value),
        more => Err(CodecError::Trailing(more)),
    }
}

/// Reads the first field of an encoded tuple or struct, or the first few as a tuple, and leaves the rest undecoded.
///
/// # Errors
/// As [`decode`], but nothing is said of the rest.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_start(bytes).map(|(value, _)| value)
}

/// As [`decode_prefix`], with the bytes that follow: encoding what was read and appending them gives the same bytes again.
///
/// # Errors
/// As [`decode_prefix`].
pub fn split_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    decode_start(bytes).map(|(value, used)| (value, &bytes[used..]))
}

/// A value and how many bytes it took, the version byte included.
fn decode_start<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::UnknownVersion(version));
    }
    // bincode counts what is decoded, not what is read (up to 16 bytes for a one-byte u128), and its limits are constants.
    let config = config::standard();
    let decoded = match body.len() {
        length if length <= SMALL => bincode::serde::decode_from_slice(body, config.with_limit::<{ 16 * SMALL }>()),
        length if length <= MEDIUM => bincode::serde::decode_from_slice(body, config.with_limit::<{ 16 * MEDIUM }>()),
        length if length < MAX_BYTES => bincode::serde::decode_from_slice(body, config.with_limit::<{ 16 * MAX_BYTES }>()),
        _ => return Err(CodecError::TooLong(bytes.len())),
    };
    let (value, used) = decoded.map_err(|error: DecodeError| CodecError::Damaged(error.to_string()))?;
    Ok((value, 1 + used))
}

struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
