//! Round trips, damage, and the same bytes from another crate (the way out of bincode).

use proptest::prelude::*;
use serde::Serialize;

use super::*;

/// Everything that values in the state may be made of. Tuples have the bytes of structs of the same fields, and need no derive: wincode's
/// would turn on features of syn that RocksDB's build shares, and make it compile twice.
type Sample = (
    (u64, u8, u16, u32, i64, i32),
    (f64, f32, bool, String),
    Option<Option<i64>>,
    Vec<(u32, f64)>,
    Vec<(String, u64)>,
    [u64; 3],
    Vec<u8>,
);

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
        integers in (edgy(), any::<u8>(), any::<u16>(), any::<u32>(), any::<i64>(), any::<i32>()),
        others in (-1e12..1e12_f64, -1e6..1e6_f32, any::<bool>(), ".{0,20}"),
        last in prop::option::of(any::<Option<i64>>()),
        recent in prop::collection::vec((any::<u32>(), -1e9..1e9_f64), 0..300),
        inputs in prop::collection::vec((".{0,9}", edgy()), 0..4),
        totals in [edgy(), edgy(), edgy()],
        raw in prop::collection::vec(any::<u8>(), 0..40),
    ) -> Sample {
        (integers, others, last, recent, inputs, totals, raw)
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
fn a_prefix_and_what_follows_it_make_the_value_again() {
    let whole = bytes(&(vec![1_u64, 2], "the rest", 3_u8));
    let (prefix, rest) = split_prefix::<Vec<u64>>(&whole).expect("decodes");
    let mut again = bytes(&prefix);
    again.extend_from_slice(rest);
    assert_eq!(again, whole);
    assert!(split_prefix::<Vec<u64>>(&[]).is_err());
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
