//! The schema: made once, whoever comes first, and its indexes are used.

use mangrove::history::{self, Place, Question};
use mangrove::tiers::{Cold, ColdOptions, LabelRow, Outcome, Part, SCHEMA_VERSION, VerdictRow, Writer};
use models::Severity;
use state::tier::Batch;

use crate::place;

#[tokio::test]
async fn instances_that_start_together_migrate_once() {
    let Some(url) = place::postgres("instances_that_start_together_migrate_once") else { return };
    let application = place::application();
    let starting: Vec<_> = (0..8)
        .map(|_| {
            let cold = Cold::open(&url, &application, &ColdOptions { connections: 1, ..place::cold_options() }).unwrap();
            tokio::spawn(async move { cold.get().await.map(drop) })
        })
        .collect();
    for started in starting {
        started.await.unwrap().unwrap();
    }
    let cold = Cold::open(&url, &application, &place::cold_options()).unwrap();
    let client = cold.get().await.unwrap();
    let rows = client.query("SELECT version FROM schema_history", &[]).await.unwrap();
    let versions: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "each once: {versions:?}");
    assert_eq!(versions.last(), Some(&SCHEMA_VERSION));
}

/// Who may only read works on a schema that is there, on a server that takes no writes.
#[tokio::test]
async fn a_schema_that_is_current_needs_no_right_to_write() {
    let Some(url) = place::postgres("a_schema_that_is_current_needs_no_right_to_write") else { return };
    let application = place::application();
    let first = Cold::open(&url, &application, &place::cold_options()).unwrap();
    drop(first.get().await.unwrap());
    let read_only = format!("{}?options=-c%20default_transaction_read_only%3Don", url.expose());
    let reader = Cold::open(&mangrove::tiers::ServerUrl::new(read_only.clone()), &application, &place::cold_options()).unwrap();
    let client = reader.get().await.unwrap();
    assert!(client.execute("DELETE FROM verdicts", &[]).await.is_err(), "it is read-only indeed");
    let other = Cold::open(&mangrove::tiers::ServerUrl::new(read_only), &place::application(), &place::cold_options()).unwrap();
    assert!(other.get().await.is_err(), "a schema that is missing cannot be made there");
}

#[tokio::test]
async fn applications_of_one_database_are_apart() {
    let Some(url) = place::postgres("applications_of_one_database_are_apart") else { return };
    let (one, other) = (place::cold(&url), place::cold(&url));
    let insert = "INSERT INTO labels (id, verdict_id, label, labelled_at) VALUES ('labels:0:0', 'v', 'fraud', now())";
    assert_eq!(one.get().await.unwrap().execute(insert, &[]).await.unwrap(), 1);
    assert!(other.get().await.unwrap().query("SELECT 1 FROM labels", &[]).await.unwrap().is_empty());
}

const DAY_MS: i64 = 24 * 3_600_000;
/// 2026-11-23.
pub const TODAY_MS: i64 = 20_780 * DAY_MS;

/// A verdict as the topic has it: of user `number % 997`, under the offset `number`.
pub fn verdict(number: u64, event_time: i64) -> Vec<u8> {
    let score = (number % 100) as f64 / 100.0;
    let (anomaly, severity) = if score >= 0.97 { (true, "HIGH") } else { (false, "NONE") };
    let verdict = serde_json::json!({
        "tx_id": format!("tx {number}"), "id": format!("transactions:{}:{number}", number % 4), "user_id": format!("user {}", number % 997),
        "event_time": event_time, "amount": 12.5, "currency": "EUR", "merchant": format!("shop {}", number % 501), "score": score,
        "raw_score": score, "is_anomaly": anomaly, "severity": severity, "explanation": "", "reasons": [],
        "features": [1.0, 0.1, 2.5, 0.0, 0.0, 3.0, 4.0, 5.0, 6.0, 7.25], "model_id": if number % 500 == 1 { "candidate" } else { "champion" },
    });
    serde_json::to_vec(&verdict).unwrap()
}

/// Writes verdicts as one stretch of a partition of the topic.
async fn write(writer: &mut Writer, partition: u32, values: &[Vec<u8>], now_ms: i64) -> Outcome {
    let to = values.len() as u64;
    let batch = Batch { topic: "verdicts", partition, generation: 1, from: 0, to, first: true, changes: Vec::new() };
    let verdicts = values.iter().map(|value| VerdictRow::decode(value).expect("a verdict")).collect();
    writer.apply(&[Part { verdicts, ..Part::new(batch) }], now_ms).await.unwrap()
}

/// The questions of the API, each answered by its index and not by reading a day through.
#[tokio::test]
async fn the_questions_of_the_api_use_their_indexes() {
    let Some(url) = place::postgres("the_questions_of_the_api_use_their_indexes") else { return };
    let cold = place::cold(&url);
    let mut writer = Writer::new(cold.clone(), 90);
    let values: Vec<_> =
        (0..40_000).map(|number| verdict(number, TODAY_MS - (number % 4) as i64 * DAY_MS + number as i64)).collect();
    write(&mut writer, 0, &values, TODAY_MS).await;
    cold.get().await.unwrap().batch_execute("ANALYZE verdicts").await.unwrap();
    let all = || Question { from_ms: TODAY_MS - 2 * DAY_MS, to_ms: TODAY_MS, ..Question::default() };
    let high = || vec![Severity::High];
    let questions = [
        ("event_time", all()),
        ("user_id_event_time", Question { user: Some("user 5".into()), ..all() }),
        ("merchant_event_time", Question { merchant: Some("shop 5".into()), ..all() }),
        ("model_id_event_time", Question { model: Some("candidate".into()), ..all() }),
        ("event_time_idx1", Question { anomalies: true, ..all() }),
        ("event_time_idx1", Question { severities: high(), ..all() }),
        ("event_time_idx1", Question { anomalies: true, severities: high(), ..all() }),
    ];
    for (index, question) in questions {
        let first = history::verdicts(&cold, &question, 10).await.unwrap();
        assert_eq!(first.len(), 10, "{question:?}");
        let next = Question { after: first.last().map(Place::of), ..question.clone() };
        for question in [question, next] {
            let plan = history::plan(&cold, &question, 100).await.unwrap();
            assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{question:?}\n{plan}");
            let days = ["20261120", "20261121", "20261122", "20261123"].map(|day| plan.contains(day));
            assert_eq!(days, [false, true, true, false], "only the window's days are looked at: {question:?}\n{plan}");
        }
    }
    let one = "EXPLAIN SELECT * FROM verdicts WHERE id = 'transactions:1:4001'";
    let plan = cold.get().await.unwrap().query(one, &[]).await.unwrap();
    let plan = plan.iter().map(|row| row.get(0)).collect::<Vec<String>>().join("\n");
    assert!(plan.contains("pkey") && !plan.contains("Seq Scan"), "{plan}");
    assert!(history::one(&cold, "transactions:1:4001").await.unwrap().is_some());
}

/// Days come and go as `HISTORY_DAYS` says, by event time; what is too old is left out and counted, in whatever order it comes.
#[tokio::test]
async fn history_is_kept_by_day() {
    let Some(url) = place::postgres("history_is_kept_by_day") else { return };
    let cold = place::cold(&url);
    let mut writer = Writer::new(cold.clone(), 3);
    let at = |number: u64, days: i64| verdict(number, TODAY_MS + days * DAY_MS + 5);
    let days = async || -> Vec<String> {
        let list = "SELECT DISTINCT to_char(event_time, 'MM-DD') FROM verdicts ORDER BY 1";
        cold.get().await.unwrap().query(list, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    // A stream of the past is kept as one of today.
    assert_eq!(write(&mut writer, 0, &[at(0, -400), at(1, -401)], TODAY_MS).await.expired, 0);
    assert_eq!(days().await, ["10-18", "10-19"]);
    let outcome = write(&mut writer, 1, &[at(2, 0), at(3, -1), at(4, -2), at(5, -3), at(6, 1), at(7, 2)], TODAY_MS).await;
    assert_eq!(outcome.expired, 2, "the day before the first one that is kept, and one that cannot be");
    assert_eq!(days().await, ["11-21", "11-22", "11-23", "11-24"]);
    assert_eq!(write(&mut writer, 2, &[at(8, -400)], TODAY_MS).await.expired, 1);
    writer.tidy(TODAY_MS + DAY_MS).await.unwrap();
    assert_eq!(days().await, ["11-22", "11-23", "11-24"], "a day later the first one is gone, without any verdict coming");
    let tables = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'verdicts'::regclass";
    assert_eq!(cold.get().await.unwrap().query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 3, "and so is its table");
}

/// What anyone may write into a topic must not stop what comes behind it.
#[tokio::test]
async fn odd_values_are_kept_and_impossible_ones_left_out() {
    let Some(url) = place::postgres("odd_values_are_kept") else { return };
    let cold = place::cold(&url);
    let mut value: serde_json::Value = serde_json::from_slice(&verdict(1, TODAY_MS)).unwrap();
    for (name, odd) in [("merchant", "nul\0 '\"\\N\t\u{1f980}"), ("tx_id", ""), ("explanation", "a\0b")] {
        value[name] = odd.into();
    }
    value["reasons"] = serde_json::json!([{"feature": "amount", "value": 1e300, "contribution": -0.0, "text": "\0"}]);
    value["amount"] = 1e308.into();
    let odd = serde_json::to_vec(&value).unwrap();
    let mut writer = Writer::new(cold.clone(), 90);
    write(&mut writer, 0, &[odd, verdict(2, i64::MAX), verdict(3, i64::MIN), verdict(4, TODAY_MS)], TODAY_MS).await;
    let client = cold.get().await.unwrap();
    let rows = client.query("SELECT merchant, tx_id, amount FROM verdicts ORDER BY id", &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1].get::<_, String>(0), "nul\u{2400} '\"\\N\t\u{1f980}");
    let in_the_end = br#"{"verdict_id":"v","label":"fraud","at":253402300799999}"#;
    let label = LabelRow::decode(in_the_end, "labels:0:0".into(), Some(b"nul\0"), i64::MAX).expect("a label");
    let batch = Batch { topic: "labels", partition: 0, generation: 1, from: 0, to: 1, first: true, changes: Vec::new() };
    writer.apply(&[Part { labels: vec![label], ..Part::new(batch) }], TODAY_MS).await.unwrap();
    assert_eq!(client.query("SELECT 1 FROM labels WHERE user_id = 'nul\u{2400}'", &[]).await.unwrap().len(), 1);
    value["merchant"] = "m".repeat(5_000).into();
    assert!(VerdictRow::decode(&serde_json::to_vec(&value).unwrap()).is_none(), "no index takes it");
}
