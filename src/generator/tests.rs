//! The same seed gives the same bytes, times never go back, and anomalies are as many and as odd as asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn params(users: u32) -> GeneratorParams {
    GeneratorParams { users, seed: 7, ..GeneratorParams::default() }
}

fn generate(params: &GeneratorParams, count: usize) -> Vec<Payment> {
    Generator::new(params).unwrap().take(count).collect()
}

/// FNV-1a, 64 bits.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn lines(payments: &[Payment]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for payment in payments {
        payment.write_json(&mut bytes);
        bytes.extend(payment.label.map_or("", Anomaly::name).as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// Pinned: another machine, another version of a dependency or a change here that draws in another order is noticed.
#[test]
fn a_seed_gives_the_same_bytes_for_ever() {
    let bytes = lines(&generate(&params(500), 20_000));
    assert_eq!(digest(&bytes), 4_316_504_284_863_239_431);
}

#[test]
fn another_stream_is_other_payments_of_the_same_people() {
    let first = generate(&params(50), 5_000);
    let second = generate(&GeneratorParams { stream: 1, ..params(50) }, 5_000);
    let ids: BTreeSet<&str> = first.iter().chain(&second).map(|payment| payment.tx_id.as_str()).collect();
    assert_eq!(ids.len(), 10_000, "ids are never given twice");
    let dearest = |payments: &[Payment]| {
        let mut counts: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>> = BTreeMap::new();
        for payment in payments {
            *counts.entry(payment.user_id.clone()).or_default().entry(payment.merchant.clone()).or_default() += 1;
        }
        let dearest = |merchants: BTreeMap<_, u32>| merchants.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name);
        counts.into_iter().map(|(user, merchants)| (user, dearest(merchants))).collect::<BTreeMap<_, _>>()
    };
    let (first, second) = (dearest(&first), dearest(&second));
    let same = first.iter().filter(|(user, merchant)| second.get(*user) == Some(merchant)).count();
    assert!(same * 10 > first.len() * 8, "{same} of {} have the same dearest merchant", first.len());
}

#[test]
fn times_never_go_back_and_the_rate_is_kept() {
    let params = params(300);
    let payments = generate(&params, 60_000);
    assert!(payments.is_sorted_by_key(|payment| payment.timestamp_ms));
    assert!(payments[0].timestamp_ms >= params.start_ms);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let days = (payments.last().unwrap().timestamp_ms - params.start_ms) as f64 / 86_400_000.0;
    let rate = 60_000.0 / 300.0 / days;
    assert!((2.8..3.3).contains(&rate), "{rate} payments per user and day");
}

#[test]
fn each_anomaly_has_its_share() {
    let params = params(2_000);
    let payments = generate(&params, 400_000);
    let share = |anomaly| {
        let count = payments.iter().filter(|payment| payment.label == Some(anomaly)).count();
        f64::from(u32::try_from(count).unwrap()) / 400_000.0
    };
    let expected = [0.004, 0.0025, 0.0015, 0.002, 0.0, 0.0];
    for (anomaly, expected) in Anomaly::ALL.into_iter().zip(expected) {
        let share = share(anomaly);
        assert!((share - expected).abs() <= expected * 0.2, "{anomaly}: {share}, expected {expected}");
    }
    let none = generate(&GeneratorParams { anomaly_share: 0.0, ..params }, 50_000);
    assert!(none.iter().all(|payment| payment.label.is_none()));
}

#[test]
fn anomalies_are_what_their_names_say() {
    let payments = generate(&params(200), 200_000);
    let mut hours: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    let mut amounts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let hour = |payment: &Payment| payment.timestamp_ms.div_euclid(3_600_000).rem_euclid(24);
    for payment in payments.iter().filter(|payment| payment.label.is_none()) {
        hours.entry(&payment.user_id).or_default().insert(hour(payment));
        amounts.entry(&payment.user_id).or_default().push(payment.amount);
    }
    let mut last_takeover: BTreeMap<&str, i64> = BTreeMap::new();
    let mut quick = 0;
    let mut takeovers = 0;
    for payment in &payments {
        let user: &str = &payment.user_id;
        match payment.label {
            Some(Anomaly::OddHour) => assert!(!hours[user].contains(&hour(payment)), "{payment:?}"),
            Some(Anomaly::AmountSpike) => {
                let mut usual = amounts[user].clone();
                usual.sort_by(f64::total_cmp);
                let factor = payment.amount / usual[usual.len() / 2];
                assert!((4.0..200.0).contains(&factor), "{factor} of the median: {payment:?}");
            }
            Some(Anomaly::AccountTakeover) => {
                takeovers += 1;
                let before = last_takeover.insert(user, payment.timestamp_ms);
                quick += u32::from(before.is_some_and(|before| payment.timestamp_ms - before <= 60_000));
            }
            _ => {}
        }
    }
    assert!(quick * 100 > takeovers * 85, "{quick} of {takeovers} come within a minute of the one before");
}

#[test]
fn few_pay_often_and_habits_hold() {
    let payments = generate(&params(1_000), 100_000);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for payment in &payments {
        *counts.entry(&payment.user_id).or_default() += 1;
        assert!(payment.amount >= 0.01 && (payment.amount * 100.0).round() / 100.0 == payment.amount);
    }
    let mut counts: Vec<u32> = counts.into_values().collect();
    counts.sort_unstable();
    let top: u32 = counts.iter().rev().take(100).sum();
    assert!((25_000..60_000).contains(&top), "a tenth of the users makes {top} of 100,000 payments");
    assert!(counts.len() > 990, "nearly everyone pays: {}", counts.len());
}

#[test]
fn parameters_out_of_bounds_are_named() {
    let wrong = [
        GeneratorParams { users: 0, ..params(1) },
        GeneratorParams { merchants: 15, ..params(1) },
        GeneratorParams { start_ms: -1, ..params(1) },
        GeneratorParams { payments_per_user_day: f64::NAN, ..params(1) },
        GeneratorParams { payments_per_user_day: 0.0, ..params(1) },
        GeneratorParams { anomaly_share: 0.6, ..params(1) },
        GeneratorParams { anomaly_mix: AnomalyMix([1.0, 1.0, -1.0, 1.0, 1.0, 1.0]), ..params(1) },
        GeneratorParams { skew: Some(-0.1), ..params(1) },
        GeneratorParams { account_days: Some(1.0), ..params(1) },
    ];
    let names = wrong.map(|params| Generator::new(&params).err().map(|error| error.parameter));
    let expected = [
        "users",
        "merchants",
        "start_ms",
        "payments_per_user_day",
        "payments_per_user_day",
        "anomaly_share",
        "anomaly_mix",
        "skew",
        "account_days",
    ];
    assert_eq!(names, expected.map(Some));
}

/// Everything there is, over three years.
fn everything(users: u32) -> GeneratorParams {
    GeneratorParams { anomaly_mix: AnomalyMix::EVERY_KIND, account_days: Some(300.0), anomaly_share: 0.02, ..params(users) }
}

#[test]
fn incidents_of_several_payments_have_their_share_and_their_shape() {
    let payments = generate(&everything(2_000), 300_000);
    let mut tests: BTreeMap<&str, Vec<&Payment>> = BTreeMap::new();
    let mut counts: BTreeMap<Anomaly, f64> = BTreeMap::new();
    let mut strangers = 0;
    let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for payment in &payments {
        let user: &str = &payment.user_id;
        match payment.label {
            None => drop(known.entry(user).or_default().insert(&payment.merchant)),
            Some(Anomaly::CardTest) => tests.entry(user).or_default().push(payment),
            Some(Anomaly::MerchantCompromise) => {
                strangers += i32::from(known.get(user).is_none_or(|known| !known.contains(&*payment.merchant)));
            }
            Some(_) => {}
        }
        if let Some(label) = payment.label {
            *counts.entry(label).or_default() += 1.0;
        }
    }
    for (anomaly, weight) in Anomaly::ALL.into_iter().zip(AnomalyMix::EVERY_KIND.0) {
        let (count, expected) = (counts[&anomaly], weight * 0.02 * 300_000.0);
        assert!((count / expected - 1.0).abs() < 0.35, "{anomaly}: {count}, expected {expected}");
    }
    assert!(f64::from(strangers) > counts[&Anomaly::MerchantCompromise] * 0.8, "{strangers} at merchants they do not know");
    let (mut small, mut large) = (0, 0);
    for payments in tests.values() {
        for pair in payments.windows(2).filter(|pair| pair[1].timestamp_ms - pair[0].timestamp_ms < 700_000) {
            small += u32::from(pair[0].amount <= 2.5);
            large += u32::from(pair[0].amount <= 2.5 && pair[1].amount > 20.0);
        }
    }
    assert!(large > 100 && small > 3 * large, "{small} small payments, {large} times a large one behind them");
}

#[test]
fn accounts_come_and_go_where_that_is_asked_for() {
    let payments = generate(&everything(300), 300_000);
    let mut lives: BTreeMap<&str, (i64, i64, u32)> = BTreeMap::new();
    for payment in &payments {
        let life = lives.entry(&payment.user_id).or_insert((payment.timestamp_ms, 0, 0));
        (life.1, life.2) = (payment.timestamp_ms, life.2 + 1);
    }
    assert!(lives.len() > 500, "{} accounts of 300 people in most of a year", lives.len());
    let span_days = (payments[299_999].timestamp_ms - payments[0].timestamp_ms) / 86_400_000;
    let longest = lives.values().map(|(first, last, _)| (last - first) / 86_400_000).max().unwrap();
    assert!(longest <= 451 && longest < span_days + 1, "{longest} of {span_days} days");
    let forever = generate(&GeneratorParams { account_days: None, ..everything(300) }, 50_000);
    assert!(forever.iter().all(|payment| !payment.user_id.contains('.')));
}

#[test]
fn skew_is_zipfs() {
    let share_of_first = |skew: f64| {
        let payments = generate(&GeneratorParams { skew: Some(skew), anomaly_share: 0.0, ..params(200) }, 100_000);
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for payment in &payments {
            *counts.entry(&payment.user_id).or_default() += 1.0;
        }
        counts.get("user-000000").copied().unwrap_or(0.0) / 100_000.0
    };
    let harmonic = |skew: f64| (1..=200).map(|rank| f64::from(rank).powf(-skew)).sum::<f64>();
    for skew in [0.0, 0.5, 1.0, 1.5] {
        let (share, expected) = (share_of_first(skew), 1.0 / harmonic(skew));
        assert!((share / expected - 1.0).abs() < 0.15, "{skew}: the first user makes {share}, by Zipf {expected}");
    }
}

#[test]
fn one_user_alone_works() {
    let payments = generate(&params(1), 2_000);
    assert!(payments.iter().all(|payment| &*payment.user_id == "user-000000"));
}

#[test]
fn weights_are_drawn_by_their_weight() {
    let weights = [1.0, 2.0, 3.0, 4.0];
    let weighted = sample::Weighted::new(&weights);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut counts = [0u32; 4];
    for _ in 0..100_000 {
        counts[weighted.draw(&mut rng) as usize] += 1;
    }
    for (count, weight) in counts.iter().zip(weights) {
        assert!((f64::from(*count) / (weight * 10_000.0) - 1.0).abs() < 0.05, "{counts:?}");
    }
}

#[test]
fn the_json_is_a_transaction() {
    let payment = &generate(&params(10), 1)[0];
    let mut json = Vec::new();
    payment.write_json(&mut json);
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let expected = serde_json::json!({
        "user_id": &*payment.user_id,
        "amount": payment.amount,
        "merchant": &*payment.merchant,
        "tx_id": payment.tx_id,
        "currency": "USD",
        "timestamp": payment.timestamp_ms,
    });
    assert_eq!(value, expected, "the label is never on the wire");
    let decoded = models::Transaction::from_json(&json, payment.timestamp_ms, &models::Limits::default()).unwrap();
    assert_eq!((&*decoded.user_id, &*decoded.merchant), (&*payment.user_id, &*payment.merchant));
    assert_eq!((decoded.amount.to_bits(), decoded.event_time), (payment.amount.to_bits(), payment.timestamp_ms));
}
