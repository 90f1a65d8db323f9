//! The policy alone, under a time that the tests make up.

use super::*;
use crate::notify::entry::Key;
use crate::notify::message::Kind;
use models::Severity;
use models::features::FEATURES;
use proptest::prelude::*;

const WINDOW_MS: i64 = 60_000;
const START_MS: i64 = 1_700_000_000_000;

fn rule(rate_per_minute: u32) -> Rule {
    Rule { min_severity: Severity::Medium, include_user: false, rate_per_minute, address: "a".into() }
}

fn rules(window_ms: i64, rate: u32) -> Rules {
    Rules { window_ms, targets: [("ops".to_owned(), rule(rate))].into(), memory_bytes: usize::MAX }
}

pub(in crate::notify) fn verdict(number: u64, user: &str, severity: Severity) -> Verdict {
    let score = match severity {
        Severity::Critical => 0.95,
        Severity::High => 0.85,
        Severity::Medium => 0.7,
        _ => 0.55,
    };
    Verdict {
        tx_id: format!("t{number}"),
        id: format!("transactions:0:{number}"),
        user_id: user.into(),
        event_time: START_MS + number as i64,
        amount: number as f64,
        currency: Some("EUR".into()),
        merchant: "m".into(),
        score: Some(score),
        raw_score: Some(score),
        is_anomaly: true,
        severity,
        explanation: "because".into(),
        reasons: Vec::new(),
        features: [0.0; FEATURES],
        model_id: None,
        fx: None,
    }
}

/// What is due, once all that changed is said to be durable.
fn due(policy: &mut Policy, now_ms: i64) -> Vec<Delivery> {
    policy.tick(now_ms);
    policy.saved();
    policy.due(now_ms, usize::MAX)
}

/// Everything that arrives from now on until nothing moves any more.
fn drain(policy: &mut Policy, mut now_ms: i64) -> Vec<Delivery> {
    let mut all = Vec::new();
    for _ in 0..2_000 {
        for delivery in due(policy, now_ms) {
            policy.outcome(&delivery.id, Outcome::Arrived, now_ms);
            all.push(delivery);
        }
        now_ms += 1_000;
    }
    all
}

/// The records that the policy has, as the topic would.
fn records(policy: &Policy, into: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    for (key, value) in policy.changes() {
        match value {
            Some(value) => drop(into.insert(key.encode(), value)),
            None => drop(into.remove(&key.encode())),
        }
    }
}

fn fail(why: &str) -> Outcome {
    Outcome::Failed { why: why.into(), pause_ms: None }
}

/// What the one target's parts take, counted anew.
fn recounted(policy: &Policy) -> Held {
    let mut held = Held::default();
    for window in policy.windows.values() {
        held.windows += window.message.bytes() + BESIDE_BYTES;
    }
    for delivery in policy.deliveries.values() {
        *held.of(delivery.state) += delivery.message.bytes() + BESIDE_BYTES;
    }
    held
}

#[test]
fn windows_that_fill_their_memory_become_a_flood() {
    const MEMORY: usize = 200_000;
    let mut policy = Policy::new(Rules { memory_bytes: MEMORY, ..rules(WINDOW_MS, 1_000) });
    let mut most = 0;
    for number in 0..10_000 {
        policy.observe(&verdict(number, &format!("u{number}"), Severity::High), false, START_MS + number as i64);
        most = most.max(policy.held["ops"].windows + policy.held["ops"].pending);
    }
    assert!(most > MEMORY / 4 && most < MEMORY + 4_000, "{most} bytes: one message beyond each half");
    assert_eq!(policy.held["ops"], recounted(&policy));
    assert!(policy.windows.len() > 50 && policy.windows.len() < 1_000, "{} windows", policy.windows.len());
    let told = drain(&mut policy, START_MS + 10_000);
    assert_eq!(told.iter().map(|delivery| delivery.message.count).sum::<u64>(), 10_000, "none is lost");
    assert_eq!(policy.held["ops"], Held::default());
}

#[test]
fn what_was_given_up_makes_room_for_what_waits() {
    const MEMORY: usize = 100_000;
    let mut policy = Policy::new(Rules { memory_bytes: MEMORY, ..rules(0, 1_000) });
    let pay = |policy: &mut Policy, numbers: std::ops::Range<u64>, now_ms| {
        numbers.for_each(|number| policy.observe(&verdict(number, "u", Severity::High), false, now_ms));
    };
    pay(&mut policy, 0..1_000, START_MS);
    let waiting = policy.deliveries().len();
    assert!(waiting > 20 && policy.held["ops"].pending < MEMORY / 2 + 2_000, "{waiting} wait");
    let gone = due(&mut policy, START_MS).remove(0);
    policy.outcome(&gone.id, Outcome::Gone { why: "gone".into() }, START_MS);
    assert_eq!(policy.held["ops"].pending, 0, "all are given up");
    assert!(policy.deliveries().len() + 1 >= waiting, "and kept, but for the one that was beyond the bound");
    // Taken up again, the old ones still stand; what is new needs their place.
    let standing = policy.standing("ops");
    (standing.disabled, standing.flood) = (None, None);
    pay(&mut policy, 5_000..5_020, START_MS + MINUTE_MS);
    let states = |state| policy.deliveries().values().filter(|delivery| delivery.state == state).count();
    assert_eq!(states(State::Pending), 20);
    assert!(states(State::Dead) < waiting, "the oldest made room");
    let held = policy.held["ops"];
    assert!(held.pending + held.dead <= MEMORY / 2, "{held:?}");
    assert_eq!(held, recounted(&policy));
}

#[test]
fn one_message_tells_of_a_user_and_window_with_the_count() {
    let mut policy = Policy::new(rules(WINDOW_MS, 20));
    for number in 0..5 {
        let severity = if number == 3 { Severity::Critical } else { Severity::High };
        policy.observe(&verdict(number, "u1", severity), false, START_MS + number as i64 * 1_000);
    }
    policy.observe(&verdict(9, "u2", Severity::Medium), false, START_MS + 5_000);
    policy.observe(&verdict(10, "u3", Severity::Low), false, START_MS + 5_000);
    assert_eq!(due(&mut policy, START_MS + WINDOW_MS - 1), vec![], "the window is open");
    let told = due(&mut policy, START_MS + WINDOW_MS);
    assert_eq!(told.len(), 1, "{told:?}");
    let message = &told[0].message;
    assert_eq!((message.count, message.severity, message.verdict_id.as_str()), (5, Severity::Critical, "transactions:0:0"));
    assert_eq!((message.by_severity.high, message.by_severity.critical), (4, 1));
    assert_eq!(message.worst.as_ref().map(|worst| worst.verdict_id.as_str()), Some("transactions:0:3"));
    assert_eq!(message.user_id, None, "nobody asked for the user's id");
    let other = due(&mut policy, START_MS + WINDOW_MS + 5_000);
    assert_eq!(other.iter().map(|delivery| delivery.message.count).collect::<Vec<_>>(), [1], "u2; u3's is not severe enough");
}

#[test]
fn a_verdict_that_comes_twice_is_counted_once_and_has_one_id() {
    let mut policy = Policy::new(rules(WINDOW_MS, 20));
    for _ in 0..3 {
        policy.observe(&verdict(1, "u1", Severity::High), false, START_MS);
    }
    let first = due(&mut policy, START_MS + WINDOW_MS);
    assert_eq!(first[0].message.count, 1);
    policy.outcome(&first[0].id, Outcome::Arrived, START_MS + WINDOW_MS);
    // Long after: a new window, and the very same id for the receiver to know it by.
    policy.observe(&verdict(1, "u1", Severity::High), false, START_MS + 10 * WINDOW_MS);
    assert_eq!(due(&mut policy, START_MS + 11 * WINDOW_MS)[0].id, first[0].id);
}

#[test]
fn what_is_snoozed_is_not_told() {
    let mut policy = Policy::new(rules(0, 20));
    policy.observe(&verdict(1, "u1", Severity::Critical), true, START_MS);
    assert_eq!(due(&mut policy, START_MS), vec![]);
    assert_eq!(policy.counts()["ops"].snoozed, 1);
}

#[test]
fn a_flood_of_10_000_is_a_few_messages_with_the_right_counts() {
    let mut policy = Policy::new(rules(WINDOW_MS, 20));
    for number in 0..10_000 {
        policy.observe(&verdict(number, &format!("u{}", number % 3_000), Severity::High), false, START_MS + number as i64);
    }
    let told = drain(&mut policy, START_MS + 10_000);
    assert!(told.len() <= 21, "{} messages", told.len());
    assert_eq!(told.iter().map(|delivery| delivery.message.count).sum::<u64>(), 10_000);
    let flood = told.iter().find(|delivery| delivery.message.kind == Kind::Flood).expect("a flood's message");
    assert_eq!(flood.message.folded, 3_000 - 20);
    assert_eq!(policy.counts()["ops"].folded, flood.message.count);
    assert_eq!(flood.message.by_severity.high, flood.message.count);
}

#[test]
fn windows_are_bounded_and_the_rest_is_counted_all_the_same() {
    let mut policy = Policy::new(rules(WINDOW_MS, 5));
    let users = WINDOWS_MAX as u64 + 500;
    for number in 0..users {
        policy.observe(&verdict(number, &format!("u{number}"), Severity::High), false, START_MS);
    }
    assert_eq!(policy.windows.len(), WINDOWS_MAX);
    let told = drain(&mut policy, START_MS);
    assert_eq!(told.iter().map(|delivery| delivery.message.count).sum::<u64>(), users);
    assert!(told.len() <= 3 * 5, "{} messages", told.len());
}

#[test]
fn a_failed_delivery_comes_again_by_the_schedule_and_is_kept_in_the_end() {
    let mut policy = Policy::new(rules(0, 20));
    policy.observe(&verdict(1, "u1", Severity::High), false, START_MS);
    let id = due(&mut policy, START_MS)[0].id.clone();
    let mut now_ms = START_MS;
    for attempt in 1..=10_u32 {
        policy.outcome(&id, fail("it answered 500"), now_ms);
        policy.saved();
        let delivery = policy.deliveries()[&id].clone();
        assert_eq!(delivery.attempts, attempt);
        if attempt == 10 {
            assert_eq!((delivery.state, delivery.trouble.as_deref()), (State::Dead, Some("it answered 500")));
            break;
        }
        assert_eq!(policy.due(delivery.next_ms - 1, 9), vec![], "before its time");
        now_ms = delivery.next_ms;
        assert_eq!(policy.due(now_ms, 9).len(), 1, "at its time");
        assert_eq!(policy.due(now_ms, 9), vec![], "it is under way");
    }
    let days = (now_ms - START_MS) as f64 / 86_400_000.0;
    assert!((3.0..4.0).contains(&days), "given up after {days} days");
    assert_eq!(policy.counts()["ops"], Counts { failed: 1, retried: 9, ..Counts::default() });

    let order = Order::Resend { delivery: id.clone() };
    policy.carry_out(order.key(), Some(order), now_ms);
    let again = due(&mut policy, now_ms);
    assert_eq!(again.iter().map(|delivery| &delivery.id).collect::<Vec<_>>(), [&id], "the same id");
    policy.outcome(&id, Outcome::Arrived, now_ms);
    assert!(policy.deliveries().is_empty());
}

#[test]
fn a_target_that_asks_for_a_pause_gets_one_for_all_its_messages() {
    let mut policy = Policy::new(rules(0, 20));
    policy.observe(&verdict(1, "u1", Severity::High), false, START_MS);
    let id = due(&mut policy, START_MS)[0].id.clone();
    policy.outcome(&id, Outcome::Failed { why: "429".into(), pause_ms: Some(90_000) }, START_MS);
    policy.observe(&verdict(2, "u2", Severity::High), false, START_MS);
    assert_eq!(due(&mut policy, START_MS + 89_999), vec![]);
    assert_eq!(due(&mut policy, START_MS + 90_000).len(), 2);
}

#[test]
fn a_target_that_is_gone_is_disabled_until_it_is_enabled_or_has_another_address() {
    let mut policy = Policy::new(rules(0, 20));
    for number in 1..=3 {
        policy.observe(&verdict(number, "u", Severity::High), false, START_MS);
    }
    for delivery in due(&mut policy, START_MS) {
        policy.outcome(&delivery.id, Outcome::Gone { why: "it answered 410".into() }, START_MS);
    }
    assert!(policy.is_disabled("ops"));
    assert!(policy.deliveries().values().all(|delivery| delivery.state == State::Dead));
    assert_eq!(policy.deliveries().len(), 3, "kept");
    policy.observe(&verdict(4, "u", Severity::High), false, START_MS);
    assert_eq!(policy.counts()["ops"].dropped, 1);
    let mut topic = BTreeMap::new();
    policy.changed.extend([Key::Target("ops".into())]);
    policy.changed.extend(policy.deliveries.keys().cloned().map(Key::Delivery).collect::<Vec<_>>());
    records(&policy, &mut topic);

    assert!(Policy::restore(rules(0, 20), &topic, START_MS).is_disabled("ops"), "a restart changes nothing");
    let mut elsewhere = rules(0, 20);
    elsewhere.targets.get_mut("ops").expect("it").address = "b".into();
    assert!(!Policy::restore(elsewhere, &topic, START_MS).is_disabled("ops"), "another address is another chance");

    let order = Order::Enable { target: "ops".into() };
    policy.carry_out(order.key(), Some(order), START_MS);
    assert_eq!(due(&mut policy, START_MS + 1).len(), 3, "all that was given up");
}

#[test]
fn what_is_of_a_target_that_is_gone_from_the_settings_is_kept_or_dropped() {
    let mut policy = Policy::new(rules(0, 20));
    policy.observe(&verdict(1, "u", Severity::High), false, START_MS);
    policy.rules.window_ms = WINDOW_MS;
    policy.observe(&verdict(2, "u", Severity::High), false, START_MS);
    let mut topic = BTreeMap::new();
    records(&policy, &mut topic);
    let mut policy = Policy::restore(Rules { memory_bytes: usize::MAX, ..Rules::default() }, &topic, START_MS);
    assert!(policy.deliveries().values().all(|delivery| delivery.state == State::Dead));
    assert_eq!(due(&mut policy, START_MS + 2 * WINDOW_MS), vec![]);
    records(&policy, &mut topic);
    assert_eq!(policy.deliveries().len(), 1);
}

#[test]
fn nothing_leaves_before_it_is_durable() {
    let mut policy = Policy::new(rules(0, 20));
    policy.observe(&verdict(1, "u", Severity::High), false, START_MS);
    policy.tick(START_MS);
    assert_eq!(policy.due(START_MS, 9), vec![]);
    policy.saved();
    assert_eq!(policy.due(START_MS, 9).len(), 1);
}

#[test]
fn a_quiet_policy_has_nothing_to_save() {
    let mut policy = Policy::new(rules(WINDOW_MS, 1));
    for user in ["u", "v", "w"] {
        policy.observe(&verdict(1, user, Severity::High), false, START_MS);
    }
    let told = due(&mut policy, START_MS + WINDOW_MS);
    policy.outcome(&told[0].id, Outcome::Arrived, START_MS + WINDOW_MS);
    policy.saved();
    // The flood waits for its minute.
    policy.tick(START_MS + WINDOW_MS + 1_000);
    assert!(!policy.is_changed(), "{:?}", policy.changed);
}

#[derive(Clone, Debug)]
enum Move {
    See {
        user: u8,
        severity: u8,
    },
    Pass {
        ms: i64,
    },
    /// Every delivery due arrives, or fails.
    Send {
        fails: bool,
    },
    /// A crash: what is in the topic is all there is.
    Restart,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        6 => (0..6_u8, 0..5_u8).prop_map(|(user, severity)| Move::See { user, severity }),
        3 => (0..50_000_i64).prop_map(|ms| Move::Pass { ms }),
        2 => any::<bool>().prop_map(|fails| Move::Send { fails }),
        1 => Just(Move::Restart),
    ]
}

proptest! {
    /// Each anomaly that is severe enough is told of exactly once, whatever fails and whenever it restarts; no minute has more new
    /// messages than the rate.
    #[test]
    fn each_anomaly_is_told_once(
        moves in proptest::collection::vec(moves(), 1..120),
        rate in 1..4_u32,
        window_s in 0..90_i64,
        memory_bytes in prop_oneof![Just(usize::MAX), 2_000..20_000_usize],
    ) {
        let rules = Rules { memory_bytes, ..rules(window_s * 1_000, rate) };
        let mut policy = Policy::new(rules.clone());
        let (mut topic, mut told, mut made) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (mut now_ms, mut number, mut wanted) = (START_MS, 0, 0_u64);
        let mut save = |policy: &mut Policy| {
            records(policy, &mut topic);
            policy.saved();
            made.extend(policy.deliveries().values().map(|delivery| (delivery.id.clone(), delivery.made_ms)));
            topic.clone()
        };
        for step in moves {
            match step {
                Move::See { user, severity } => {
                    number += 1;
                    let severity = [Severity::Low, Severity::Low, Severity::Medium, Severity::High, Severity::Critical][usize::from(severity)];
                    wanted += u64::from(severity >= Severity::Medium);
                    policy.observe(&verdict(number, &format!("u{user}"), severity), false, now_ms);
                    save(&mut policy);
                }
                Move::Pass { ms } => now_ms += ms,
                Move::Send { fails } => {
                    policy.tick(now_ms);
                    save(&mut policy);
                    for delivery in policy.due(now_ms, 9) {
                        let outcome = if fails { fail("no") } else { Outcome::Arrived };
                        if !fails {
                            prop_assert_eq!(told.insert(delivery.id.clone(), delivery.message.count), None);
                        }
                        policy.outcome(&delivery.id, outcome, now_ms);
                    }
                    save(&mut policy);
                }
                Move::Restart => policy = Policy::restore(rules.clone(), &save(&mut policy), now_ms),
            }
            prop_assert_eq!(policy.held.get("ops").copied().unwrap_or_default(), recounted(&policy));
        }
        for _ in 0..400 {
            now_ms += 30_000;
            policy.tick(now_ms);
            save(&mut policy);
            for delivery in policy.due(now_ms, 9) {
                told.insert(delivery.id.clone(), delivery.message.count);
                policy.outcome(&delivery.id, Outcome::Arrived, now_ms);
            }
        }
        prop_assert_eq!(told.values().sum::<u64>(), wanted);
        let mut minutes: Vec<i64> = made.values().copied().collect();
        minutes.sort_unstable();
        // A minute begins with its first message.
        while let Some(&begins) = minutes.first() {
            let within = minutes.iter().take_while(|at| **at - begins < MINUTE_MS).count();
            prop_assert!(within <= 2 * rate as usize, "{} messages within a minute", within);
            minutes.drain(..within);
        }
    }
}
