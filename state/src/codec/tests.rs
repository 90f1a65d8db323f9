//! Round trips, damage, and the same bytes from another crate (the way out of bincode).

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use wincode::{SchemaRead, SchemaWrite};

use super::*;

/// Everything that values in the state may be made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, SchemaRead, SchemaWrite)]
struct Sample {
    count: u64,
    small: u8,
    medium: u16,
    id: u32,
    at_ms: i64,
    change: i32,
    mean: f64,
    feature: f32,
    known: bool,
    name: String,
    last: Option<Kind>,
    recent: Vec<(u32, f64)>,
    inputs: Vec<(String, u64)>,
    totals: [u64; 3],
    raw: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, SchemaRead, SchemaWrite)]
enum Kind {
    Empty,
    Amount(i64),
    Pair { left: u32, right: Option<u64> },
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Empty),
        any::<i64>().prop_map(Kind::Amount),
        (any::<u32>(), any::<Option<u64>>()).prop_map(|(left, right)| Kind::Pair { left, right }),
    ]
}

/// Integers near the edges of each encoded width as often as any other.
fn edgy() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..300_u64,
        65_500..65_600_u64,
        u64::from(u32::MAX) - 9..u64::from(u32::MAX) + 9,
        u64::MAX - 9..u64::MAX,
        any::<u64>()
    ]
}

prop_compose! {
    fn sample()(
        (count, small, medium, id) in (edgy(), any::<u8>(), any::<u16>(), any::<u32>()),
        (at_ms, change) in (any::<i64>(), any::<i32>()),
        (mean, feature) in (-1e12..1e12_f64, -1e6..1e6_f32),
        known in any::<bool>(),
        name in ".{0,20}",
        last in prop::option::of(kind()),
        recent in prop::collection::vec((any::<u32>(), -1e9..1e9_f64), 0..300),
        inputs in prop::collection::vec((".{0,9}", edgy()), 0..4),
        totals in [edgy(), edgy(), edgy()],
        raw in prop::collection::vec(any::<u8>(), 0..40),
    ) -> Sample {
        Sample { count, small, medium, id, at_ms, change, mean, feature, known, name, last, recent, inputs, totals, raw }
    }
}

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes);
    bytes
}

/// The other crate under the configuration that matches bincode's standard one.
fn other() -> impl wincode::config::Config {
    wincode::config::Configuration::default().with_varint_encoding()
}

proptest! {
    #[test]
    fn what_was_encoded_decodes(value in sample()) {
        prop_assert_eq!(decode::<Sample>(&bytes(&value)), Ok(value));
    }

    /// The exit from bincode stays open: wincode writes the same bytes and reads ours.
    #[test]
    fn wincode_writes_and_reads_the_same_bytes(value in sample()) {
        let ours = bytes(&value);
        let theirs = wincode::config::serialize(&value, other()).unwrap();
        prop_assert_eq!(&ours[1..], &theirs[..]);
        let read: Sample = wincode::config::deserialize(&ours[1..], other()).unwrap();
        prop_assert_eq!(read, value);
    }

    #[test]
    fn any_bytes_decode_or_are_refused(garbage in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut garbage = garbage;
        let _ = decode::<Sample>(&garbage);
        if let Some(first) = garbage.first_mut() {
            *first = VERSION;
        }
        let _ = decode::<Sample>(&garbage);
        let _ = decode::<Vec<Vec<String>>>(&garbage);
    }

    #[test]
    fn a_value_cut_short_is_refused(value in sample(), at in any::<prop::sample::Index>()) {
        let whole = bytes(&value);
        prop_assert!(decode::<Sample>(&whole[..at.index(whole.len())]).is_err());
    }

    #[test]
    fn trailing_bytes_are_refused(value in sample(), more in 1..9_usize) {
        let mut long = bytes(&value);
        long.extend(std::iter::repeat_n(0, more));
        prop_assert_eq!(decode::<Sample>(&long), Err(CodecError::Trailing(more)));
    }
}

#[test]
fn a_length_of_many_gigabytes_allocates_nothing() {
    // Version, then the length 2^63 before the string's bytes; and one that would fit the limit of larger values only.
    for length in [1_u64 << 63, 1 << 30] {
        let mut bytes = vec![VERSION, 253];
        bytes.extend_from_slice(&length.to_le_bytes());
        assert!(matches!(decode::<String>(&bytes), Err(CodecError::Damaged(_))));
        assert!(matches!(decode::<Vec<u64>>(&bytes), Err(CodecError::Damaged(_))));
    }
}

#[test]
fn other_versions_have_their_own_error() {
    let mut bytes = bytes(&7_u64);
    bytes[0] = 2;
    assert_eq!(decode::<u64>(&bytes), Err(CodecError::UnknownVersion(2)));
    assert_eq!(decode::<u64>(&[]), Err(CodecError::Empty));
}

#[test]
fn a_prefix_decodes_alone() {
    let whole = bytes(&(vec![1_u64, 2], "the rest", 3_u8));
    assert_eq!(decode_prefix::<Vec<u64>>(&whole), Ok(vec![1, 2]));
    assert!(matches!(decode::<Vec<u64>>(&whole), Err(CodecError::Trailing(_))));
}

#[test]
fn large_values_decode() {
    let zeros = vec![0_u128; 3 << 20];
    assert_eq!(decode::<Vec<u128>>(&bytes(&zeros)).as_deref(), Ok(&zeros[..]));
}

/// The format is written on disks and in topics: these bytes may never change.
#[test]
fn the_format_stays() {
    let value = (250_u64, 251_u64, 65_536_u64, -1_i64, 1.5_f64, "ab", Some(true), [1_u8, 2].as_slice());
    let mut expected = vec![VERSION, 250, 251, 251, 0, 252, 0, 0, 1, 0, 1];
    expected.extend_from_slice(&1.5_f64.to_le_bytes());
    expected.extend_from_slice(&[2, b'a', b'b', 1, 1, 2, 1, 2]);
    assert_eq!(bytes(&value), expected);
}
