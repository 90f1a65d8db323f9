//! Profiles: the features against the slow reference, and the encoded form.

use super::Numbers;
use super::reference::SlowProfile;
use crate::profile::{MERCHANTS_MAX, Profile, RECENT_MAX};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

type Payment = (f64, i64, String);

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 || (a - b).abs() <= 1e-5 * b.abs()
}

/// Streams that jump, stall, run late, tie, burst beyond 256 an hour and meet more than 64 merchants.
fn stream(length: usize) -> impl Strategy<Value = Vec<Payment>> {
    let step = prop_oneof![
        4 => 0i64..600_000,
        2 => Just(0i64),
        2 => 0i64..200_000_000,
        1 => -20_000_000i64..0,
        1 => Just(3_600_000i64),
        6 => 0i64..2_000,
    ];
    let amount = prop_oneof![
        1 => Just(0.0),
        1 => Just(0.01),
        1 => 0.0..0.02,
        6 => (1u32..50_000).prop_map(|cents| f64::from(cents) / 100.0),
        1 => Just(1e12),
        2 => Just(20.0),
    ];
    let merchant = prop_oneof![2 => 0u32..5, 2 => 0u32..200];
    prop::collection::vec((amount, step, merchant), 0..length).prop_map(|steps| {
        let mut t = 1_700_000_000_000;
        steps
            .into_iter()
            .map(|(amount, step, merchant)| {
                t = (t + step).max(0);
                (amount, t, format!("m{merchant}"))
            })
            .collect()
    })
}

fn fold(payments: &[Payment]) -> Profile {
    let mut profile = Profile::default();
    for (amount, t, merchant) in payments {
        profile.update(*amount, *t, merchant);
    }
    profile
}

fn encode(profile: &Profile) -> Vec<u8> {
    bincode::serde::encode_to_vec(profile, bincode::config::standard()).unwrap()
}

fn decode(bytes: &[u8]) -> Option<Profile> {
    bincode::serde::decode_from_slice(bytes, bincode::config::standard()).ok().map(|(profile, _)| profile)
}

fn check_against_reference(payments: &[Payment]) -> Result<(), TestCaseError> {
    let (mut fast, mut slow, mut both) = (Profile::default(), SlowProfile::default(), Profile::default());
    for (amount, t, merchant) in payments {
        let observed = fast.observe(*amount, *t, merchant, Some(300.0));
        let expected = slow.features(*amount, *t, merchant, Some(300.0));
        for (i, (got, want)) in observed.features.iter().zip(&expected).enumerate() {
            // Welford and the two-pass variance part where 1e12 meets cents: the difference there is not the formula's.
            let tolerant = i == 1 && payments.iter().any(|p| p.0 > 1e9);
            let fits = close(f64::from(*got), *want) || (tolerant && (f64::from(*got) - want).abs() < 1e-3);
            prop_assert!(fits, "feature {i}: {got}, reference {want}");
        }
        fast.update(*amount, *t, merchant);
        slow.update(*amount, *t, merchant);
        prop_assert_eq!(both.score_then_update(*amount, *t, merchant, Some(300.0)), observed);
    }
    prop_assert_eq!(&fast, &both);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn features_agree_with_the_reference(payments in stream(400)) {
        check_against_reference(&payments)?;
    }

    #[test]
    fn encoded_and_read_back_is_the_same(payments in stream(400), more in stream(20)) {
        let mut profile = fold(&payments);
        let mut read = decode(&encode(&profile)).unwrap();
        prop_assert_eq!(&read, &profile);
        for (amount, t, merchant) in &more {
            profile.update(*amount, *t, merchant);
            read.update(*amount, *t, merchant);
        }
        prop_assert_eq!(encode(&read), encode(&profile));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_as_a_sound_profile(
        payments in stream(60), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(&fold(&payments));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(mut profile) = decode(&bytes) {
            // What is accepted must be usable and encode to what it was read from, whatever varint it came as.
            prop_assert_eq!(decode(&encode(&profile)), Some(profile.clone()));
            let t = profile.last_seen_ms().unwrap_or(0);
            let _ = profile.score_then_update(1.0, t, "any", None);
            let _ = (profile.amount_quantile(0.5), profile.top_merchants(3));
        }
    }
}

#[test]
fn long_bursts_agree_with_the_reference() {
    let mut numbers = Numbers(3);
    let mut t = 1_700_000_000_000;
    let payments: Vec<Payment> = (0..1500)
        .map(|i| {
            t += (numbers.unit() * 4_000.0) as i64;
            let late = if i % 17 == 0 { 3_000_000 } else { 0 };
            (numbers.unit() * 90.0, t - late, format!("m{}", numbers.word() % 90))
        })
        .collect();
    check_against_reference(&payments).unwrap();
    let profile = fold(&payments);
    assert_eq!(profile.merchants(), MERCHANTS_MAX);
    assert_eq!(profile.payments_last_hour(profile.last_seen_ms().unwrap()) as usize, RECENT_MAX);
}

/// Twenty payments at sixteen merchants over three weeks: the profile that sizes are quoted for.
fn typical() -> Profile {
    let mut numbers = Numbers(5);
    let payments: Vec<Payment> = (0..20)
        .map(|i| {
            let t = 1_700_000_000_000 + i * 90_000_000 + (numbers.word() % 3_600_000) as i64;
            (5.0 + 60.0 * numbers.unit(), t, format!("m{:04}", i % 16 * 37))
        })
        .collect();
    fold(&payments)
}

#[test]
fn a_typical_profile_is_small() {
    let profile = typical();
    let memory = size_of::<Profile>() + profile.heap_bytes();
    let encoded = encode(&profile).len();
    std::println!("typical profile: {memory} bytes in memory, {encoded} encoded");
    assert!(encoded <= 250, "{encoded} bytes encoded");
    assert!(memory <= 1024, "{memory} bytes in memory");
}

#[test]
fn views_say_what_was_paid() {
    let mut profile = Profile::default();
    assert_eq!((profile.first_seen_ms(), profile.amount_quantile(0.5)), (None, None));
    for (i, merchant) in ["b", "a", "a", "c"].into_iter().enumerate() {
        profile.update(100.0, 1_700_000_000_000 - i as i64 * 1000, merchant);
    }
    assert_eq!(profile.top_merchants(2), [("a", 2), ("c", 1)]);
    assert_eq!(profile.first_seen_ms(), Some(1_699_999_997_000));
    assert_eq!(profile.last_seen_ms(), Some(1_700_000_000_000));
    assert_eq!((profile.mean(), profile.deviation()), (100.0, 0.0));
    assert!((profile.amount_quantile(0.5).unwrap() / 100.0 - 1.0).abs() < 0.1);
    assert_eq!(profile.hour_counts()[22], 4);
    assert_eq!(profile.day_counts()[1], 4, "2023-11-14 was a Tuesday");
    assert_eq!(profile.payments_last_hour(1_700_000_000_000), 4);
}

#[test]
fn announced_lengths_are_not_believed() {
    // A profile whose list of amount buckets claims 2^63 entries.
    let mut bytes = Vec::from([1u8]);
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&[1, 0, 253]);
    bytes.extend_from_slice(&(1u64 << 63).to_le_bytes());
    bytes.extend_from_slice(&[0; 64]);
    assert_eq!(decode(&bytes), None);
}

#[test]
fn a_stream_gives_the_same_bits_forever() {
    let mut numbers = Numbers(21);
    let mut profile = Profile::default();
    let mut t = 1_700_000_000_000;
    let mut digest = Sha256::new();
    for _ in 0..500 {
        t += (numbers.unit() * 20_000_000.0) as i64 - 1_000_000;
        let merchant = format!("m{}", numbers.word() % 80);
        let observation = profile.score_then_update(numbers.unit() * 200.0, t, &merchant, Some(190.0));
        observation.features.iter().for_each(|feature| digest.update(feature.to_bits().to_le_bytes()));
    }
    digest.update(encode(&profile));
    let hex: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "18f0b019974301c3", "stored profiles and replays depend on every bit");
}
