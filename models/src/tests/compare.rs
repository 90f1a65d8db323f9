//! A comparison of two models: the same whatever the order, and what it lets pass.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proptest::prelude::*;

use crate::compare::{BINS, COMPARED_MIN, Comparison, EXAMPLES_MAX};

const THRESHOLD: f64 = 0.5;

type Payment = (String, f64, f64);

fn fold<'a>(payments: impl IntoIterator<Item = &'a Payment>) -> Comparison {
    let mut all = Comparison::default();
    for (id, active, shadow) in payments {
        all.add(id, *active >= THRESHOLD, *active, *shadow, THRESHOLD);
    }
    all
}

fn payments() -> impl Strategy<Value = Vec<Payment>> {
    // Few distinct scores: ties are where an order could show.
    let score = || (0..=20u8).prop_map(|score| f64::from(score) / 20.0);
    proptest::collection::vec((score(), score()), 0..200).prop_map(|scores| {
        scores.into_iter().enumerate().map(|(at, (active, shadow))| (format!("t:0:{at}"), active, shadow)).collect()
    })
}

proptest! {
    #[test]
    fn any_order_gives_the_same_and_every_payment_is_counted_once(all in payments(), seed in any::<u64>()) {
        let expected = fold(&all);
        let mut shuffled = all.clone();
        shuffled.sort_by_key(|(id, ..)| id.bytes().fold(seed, |hash, byte| hash.rotate_left(7).wrapping_mul(31) ^ u64::from(byte)));
        prop_assert_eq!(&fold(&shuffled), &expected);
        prop_assert_eq!(expected.active_scores.iter().sum::<u64>(), expected.compared);
        prop_assert_eq!(expected.shadow_scores.iter().sum::<u64>(), expected.compared);
        let alerted = |of: fn(&Payment) -> f64| all.iter().filter(|payment| of(payment) >= THRESHOLD).count() as u64;
        prop_assert_eq!(expected.active_alerts(), alerted(|payment| payment.1));
        prop_assert_eq!(expected.shadow_alerts(), alerted(|payment| payment.2));
        prop_assert_eq!(expected.more_examples.len() as u64, expected.more.min(EXAMPLES_MAX as u64));
        // Written down and read back it is what it was, and goes on from there.
        let text = serde_json::to_string(&expected).unwrap();
        prop_assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), expected);
    }
}

#[test]
fn the_widest_differences_are_kept_as_examples() {
    let all: Vec<Payment> = (0..100).map(|at| (format!("t:0:{at:02}"), 0.1, 0.5 + f64::from(at) / 200.0)).collect();
    let compared = fold(&all);
    assert_eq!((compared.more, compared.fewer, compared.more_examples.len()), (100, 0, EXAMPLES_MAX));
    assert_eq!(compared.more_examples[0].verdict_id, "t:0:99");
    assert_eq!(compared.more_examples[EXAMPLES_MAX - 1].verdict_id, "t:0:80");
    assert_eq!((compared.active_scores[2], compared.shadow_scores[BINS - 1]), (100, 10));
}

/// So many payments, with so many alerts of both, of the shadow alone, and of the active model alone.
fn made(compared: u64, both: u64, more: u64, fewer: u64) -> Comparison {
    Comparison { compared, both, more, fewer, ..Comparison::default() }
}

#[test]
fn a_flood_a_silence_and_other_alerts_are_named() {
    for (comparison, failed) in [
        (made(10_000, 80, 20, 20), Vec::new()),
        (made(10_000, 80, 90, 0), Vec::from(["shadow_alerts"])),
        (made(10_000, 40, 0, 60), Vec::from(["shadow_alerts"])),
        (made(10_000, 10, 90, 90), Vec::from(["shadow_overlap"])),
        (made(10_000, 5, 400, 95), Vec::from(["shadow_alerts", "shadow_overlap"])),
        // Few alerts: one more or less is chance.
        (made(COMPARED_MIN, 1, 4, 0), Vec::new()),
        (made(COMPARED_MIN, 0, 0, 0), Vec::new()),
        // The active model is silent, and the shadow is not.
        (made(10_000, 0, 8, 0), Vec::new()),
        (made(10_000, 0, 300, 0), Vec::from(["shadow_alerts", "shadow_overlap"])),
    ] {
        assert_eq!(comparison.verdict().failed().collect::<Vec<_>>(), failed, "{comparison:?}");
    }
    let compared = made(1_000, 8, 1, 1);
    assert_eq!((compared.agreement(), compared.alert_overlap()), (Some(0.998), Some(0.8)));
    assert_eq!((made(0, 0, 0, 0).agreement(), made(9, 0, 0, 0).alert_overlap()), (None, None));
}
