//! One array as numpy writes it (`.npy`, format 1 to 3): a magic, a header that is a Python dictionary of three keys, the values.
//!
//! Source: numpy's `lib/format.py`. The header is read strictly in the form in which numpy writes it, and is at most
//! [`HEADER_BYTES_MAX`]; values come one by one as f64, so that nothing announced is believed before it is there.

use std::io::{ErrorKind, Read};

/// numpy itself refuses longer ones.
const HEADER_BYTES_MAX: usize = 10_000;

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// numpy's name of the type: byte order, kind, bytes of a value.
    descr: String,
    /// Columns first.
    pub(super) fortran: bool,
    /// Sides, the outermost first.
    pub(super) shape: Vec<u64>,
}

impl Header {
    /// Reads up to the first value. The message says what is wrong.
    pub(super) fn read(from: &mut impl Read) -> Result<Self, String> {
        let mut head = [0; 8];
        exactly(from, &mut head)?;
        if &head[..6] != b"\x93NUMPY" {
            return Err("is no numpy array".to_owned());
        }
        let mut length = [0; 4];
        let digits = match head[6] {
            1 => &mut length[..2],
            2 | 3 => &mut length[..],
            version => return Err(format!("is of numpy's format {version}; 1 to 3 are expected")),
        };
        exactly(from, digits)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > HEADER_BYTES_MAX {
            return Err(format!("has a header of {length} bytes, {HEADER_BYTES_MAX} at most"));
        }
        let mut text = vec![0; length];
        exactly(from, &mut text)?;
        let text = std::str::from_utf8(&text).map_err(|_| "has a header that is no text".to_owned())?;
        parse(text).ok_or_else(|| "has a header that numpy does not write".to_owned())
    }

    /// How a value is read; the message names the type where it is none of real numbers.
    pub(super) fn kind(&self) -> Result<Kind, String> {
        let unknown = || {
            format!(
                "holds values of numpy's type {}; real numbers of 32 or 64 bits, integers or booleans are expected",
                self.descr.escape_debug()
            )
        };
        let (order, kind) = self.descr.split_at_checked(1).ok_or_else(unknown)?;
        let (decode, bytes): (fn([u8; 8]) -> f64, usize) = match kind {
            "f8" => (f64::from_le_bytes, 8),
            "f4" => (|b| f64::from(f32::from_le_bytes(first(b))), 4),
            "i8" => (|b| i64::from_le_bytes(b) as f64, 8),
            "i4" => (|b| f64::from(i32::from_le_bytes(first(b))), 4),
            "i2" => (|b| f64::from(i16::from_le_bytes(first(b))), 2),
            "i1" => (|b| f64::from(i8::from_le_bytes(first(b))), 1),
            "u8" => (|b| u64::from_le_bytes(b) as f64, 8),
            "u4" => (|b| f64::from(u32::from_le_bytes(first(b))), 4),
            "u2" => (|b| f64::from(u16::from_le_bytes(first(b))), 2),
            "u1" => (|b| f64::from(b[0]), 1),
            "b1" => (|b| f64::from(u8::from(b[0] != 0)), 1),
            _ => return Err(unknown()),
        };
        let big = match order {
            "<" | "=" => false,
            ">" => true,
            "|" if bytes == 1 => false,
            _ => return Err(unknown()),
        };
        Ok(Kind { decode, bytes, big })
    }
}

/// How a value is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// From its bytes, the least significant first.
    decode: fn([u8; 8]) -> f64,
    bytes: usize,
    /// The most significant byte comes first.
    big: bool,
}

impl Kind {
    /// The next value.
    pub(super) fn read(self, from: &mut impl Read) -> Result<f64, String> {
        let mut value = [0; 8];
        exactly(from, &mut value[..self.bytes])?;
        if self.big {
            value[..self.bytes].reverse();
        }
        Ok((self.decode)(value))
    }
}

fn first<const N: usize>(bytes: [u8; 8]) -> [u8; N] {
    *bytes.first_chunk().expect("invariant: no value has more than 8 bytes")
}

fn exactly(from: &mut impl Read, into: &mut [u8]) -> Result<(), String> {
    from.read_exact(into).map_err(|why| match why.kind() {
        ErrorKind::UnexpectedEof => "breaks off".to_owned(),
        _ => format!("breaks off: {why}"),
    })
}

/// `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }`, its keys in any order.
fn parse(text: &str) -> Option<Header> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim_start();
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix('\'')?.split_once('\'')?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" => {
                let (name, after) = value.strip_prefix('\'')?.split_once('\'')?;
                descr = Some(name.to_owned());
                after
            }
            "fortran_order" => {
                let after = value.strip_prefix("True").or_else(|| value.strip_prefix("False"))?;
                fortran = Some(value.starts_with('T'));
                after
            }
            "shape" => {
                let (sides, after) = value.strip_prefix('(')?.split_once(')')?;
                let sides = sides.split(',').map(str::trim).filter(|side| !side.is_empty());
                shape = Some(sides.map(|side| side.parse().ok()).collect::<Option<Vec<u64>>>()?);
                after
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some(Header { descr: descr?, fortran: fortran?, shape: shape? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_read_in_any_order_of_its_keys_and_in_no_other_form() {
        let expected = Header { descr: "<f8".into(), fortran: true, shape: vec![3, 2] };
        for text in [
            "{'descr': '<f8', 'fortran_order': True, 'shape': (3, 2), }  \n",
            "{'shape':(3,2),'descr':'<f8','fortran_order':True}",
        ] {
            assert_eq!(parse(text), Some(expected.clone()), "{text}");
        }
        assert_eq!(parse("{'descr': '<f8', 'fortran_order': False, 'shape': (), }").unwrap().shape, [0_u64; 0]);
        for text in [
            "",
            "{}",
            "{'descr': '<f8', 'fortran_order': True}",
            "{'descr': [('a', '<f8')], 'fortran_order': True, 'shape': (3,)}",
            "{'descr': '<f8', 'fortran_order': 1, 'shape': (3,)}",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (-3,)}",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (99999999999999999999,)}",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (3,), 'more': 1}",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(head in "\\PC{0,80}", tail in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend_from_slice(&(head.len() as u16).to_le_bytes());
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(&tail);
            let mut from = &bytes[..];
            if let Ok(header) = Header::read(&mut from) {
                prop_assert_eq!(parse(&head), Some(header));
                prop_assert_eq!(from, &tail[..], "the values begin where the header ends");
            }
            let _any_bytes = Header::read(&mut &tail[..]);
        }
    }
}
