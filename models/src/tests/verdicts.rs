//! Verdicts and explanations.

use super::model;
use crate::explain::{REASONS_MAX, explain, explanation};
use crate::features::{FEATURES, Normal, Observation};
use crate::forest::TrainParams;
use crate::profile::Profile;
use crate::verdict::{Fx, Severity, Verdict, VerdictRef};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use proptest::prelude::*;

fn verdict<'a>(user: &'a str, features: &'a [f32; FEATURES]) -> VerdictRef<'a> {
    VerdictRef {
        tx_id: "t1",
        id: "transactions:3:42",
        user_id: user,
        event_time: 1_700_000_000_000,
        amount: 40.0,
        currency: None,
        merchant: "m \"quoted\"",
        score: Some(0.75),
        raw_score: Some(0.1 + 0.2),
        is_anomaly: true,
        severity: Severity::Medium,
        explanation: "Amount 37x above",
        reasons: &[],
        features,
        model_id: Some("0123456789abcdef"),
        fx: None,
    }
}

fn text(verdict: &VerdictRef<'_>) -> String {
    let mut out = Vec::new();
    verdict.write_json(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_wire_form_is_pinned() {
    let features = [0.1, 1.0, -2.5, 1e10, 0.0, 1e-7, 3.0, 0.33333334, 1.0, 0.0];
    assert_eq!(
        text(&verdict("u", &features)),
        concat!(
            r#"{"tx_id":"t1","id":"transactions:3:42","user_id":"u","event_time":1700000000000,"amount":40.0,"#,
            r#""currency":null,"merchant":"m \"quoted\"","score":0.75,"raw_score":0.30000000000000004,"is_anomaly":true,"#,
            r#""severity":"MEDIUM","explanation":"Amount 37x above","reasons":[],"#,
            r#""features":[0.1,1.0,-2.5,10000000000.0,0.0,1e-7,3.0,0.33333334,1.0,0.0],"model_id":"0123456789abcdef"}"#
        )
    );
}

#[test]
fn with_no_model_scores_are_null() {
    let features = [0.0; FEATURES];
    let fx = Fx { base: "USD".to_string(), rate: 1.1, amount: 44.0 };
    let bare = VerdictRef { score: None, raw_score: None, model_id: None, fx: Some(&fx), ..verdict("u", &features) };
    let read: Verdict = serde_json::from_str(&text(&bare)).unwrap();
    assert_eq!((read.score, read.raw_score, read.model_id, read.fx), (None, None, None, Some(fx)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back(
        user in any::<String>(), merchant in "\\PC*[\u{0}-\u{1f}\"\\\\]*", amount in 0.0..=1e12f64, raw in 0.0..=1.0f64,
        features in prop::array::uniform10(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO),
    ) {
        let written = VerdictRef { merchant: &merchant, amount, raw_score: Some(raw), ..verdict(&user, &features) };
        let json = text(&written);
        let read: Verdict = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&read.user_id, &user);
        prop_assert_eq!(&read.merchant, &merchant);
        prop_assert_eq!(read.amount.to_bits(), amount.to_bits());
        prop_assert_eq!(read.raw_score.unwrap().to_bits(), raw.to_bits());
        prop_assert_eq!(read.features.map(f32::to_bits), features.map(f32::to_bits));
        // The owned form through serde_json is the same value again.
        let again: Verdict = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        prop_assert_eq!(again, read);
    }
}

#[test]
fn reasons_are_positive_sorted_and_name_the_users_normal() {
    let (_, model) = model(500, TrainParams::default());
    let mut profile = Profile::default();
    for i in 0..30 {
        profile.update(20.0 + (i % 5) as f64, 1_700_000_000_000 + i * 86_400_000, "bakery");
    }
    let t = 1_700_000_000_000 + 30 * 86_400_000 + 5 * 3_600_000;
    let observation = profile.observe(800.0, t, "casino", Some(model.global_amount_p99));
    let reasons = explain(&model, &observation, 800.0);
    assert!(!reasons.is_empty() && reasons.len() <= REASONS_MAX);
    assert!(reasons.iter().all(|reason| reason.contribution > 0.0 && !reason.text.is_empty()));
    assert!(reasons.windows(2).all(|pair| pair[0].contribution >= pair[1].contribution));
    let line = explanation(&reasons);
    let told: Vec<&str> = line.split("; ").collect();
    assert_eq!(told.len(), 3, "{line}");
    assert!(told.iter().all(|text| reasons.iter().any(|reason| reason.text == *text)), "{line}");
    let deviates = reasons.iter().any(|reason| reason.feature == "amount_zscore");
    assert!(!deviates || !told.iter().any(|text| text.contains(", this user's average is")), "{line}");
    assert!(!line.contains("casino") && !line.contains("bakery"));
}

fn every_text(observation: &Observation, amount: f64) -> Vec<String> {
    (0..FEATURES).map(|i| crate::explain::text_of(i, observation, amount)).collect()
}

#[test]
fn texts_read_well() {
    let mut profile = Profile::default();
    let first = every_text(&profile.observe(12.0, 1_700_000_000_000, "m", None), 12.0);
    assert_eq!(first[8], "First payment of this user");
    assert_eq!(first[7], "First time at this merchant");
    for i in 0..40 {
        profile.update(20.0, 1_700_000_000_000 + i * 43_200_000, "m");
    }
    let t = 1_700_000_000_000 + 39 * 43_200_000 + 5 * 3_600_000;
    let observation = profile.observe(740.0, t, "other", Some(500.0));
    let texts = every_text(&observation, 740.0);
    assert_eq!(texts[1], "Amount 37x above this user's average of 20.00");
    assert_eq!(texts[2], "Amount higher than all of this user's payments");
    assert_eq!(texts[3], "1 payment in the last hour (usually 0.1)");
    assert_eq!(texts[4], "At 15:00 UTC, usually around 10:00");
    assert_eq!(texts[6], "5 hours since the last payment (on average 12 hours)");
    assert_eq!(texts[7], "First time at this merchant (1 merchant known)");
    assert_eq!(texts[9], "Amount above 500.00, the 99% mark of all users' payments");
    let Normal { usual_hour, .. } = observation.normal;
    assert_eq!(usual_hour, Some(10));
}
