//! Models, notifications and the audit trail in Postgres: as their topics say, whatever comes twice or late.

use mangrove::notify::entry::{Delivery, Key, State};
use mangrove::notify::message::Message;
use mangrove::tiers::{AuditRow, ModelRow, NotificationRow, Part, Told, Writer};
use models::{FEATURES, Severity, Verdict};
use serde_json::json;
use state::tier::{Applied, Batch};

use crate::place;
use crate::site::Site;
use crate::stage::{Stage, until};

const MODEL: &str = "0123456789abcdef";

fn version(rows: u64) -> String {
    json!({
        "id": MODEL, "digest": format!("{MODEL}00"), "bytes": 7, "created_ms": 1_700_000_000_000_i64, "from_ms": 1, "to_ms": 2, "rows": rows,
        "trees": 100, "samples": 256, "seed": 7, "contamination": 0.01, "source": "csv",
    })
    .to_string()
}

fn delivery(id: &str, state: State, attempts: u32) -> String {
    let verdict = Verdict {
        tx_id: "t".into(),
        id: "transactions:0:5".into(),
        user_id: "very-private".into(),
        event_time: 1,
        amount: 4_711.0,
        currency: None,
        merchant: "secret shop".into(),
        score: Some(0.9),
        raw_score: Some(0.9),
        is_anomaly: true,
        severity: Severity::Critical,
        explanation: "very-private paid".into(),
        reasons: Vec::new(),
        features: [0.0; FEATURES],
        model_id: None,
        fx: None,
    };
    let message = Message::new(&verdict, true);
    let delivery = Delivery {
        id: id.into(),
        target: "ops".into(),
        state,
        made_ms: 1_700_000_000_000,
        next_ms: 5,
        attempts,
        trouble: None,
        message,
    };
    serde_json::to_string(&delivery).unwrap()
}

/// All rows of a question, as text.
fn rows(stage: &Stage, question: &str) -> Vec<String> {
    let cold = stage.cold();
    stage.wait(async {
        let rows =
            cold.get().await.unwrap().query(&format!("SELECT t::text FROM ({question}) AS t ORDER BY 1"), &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    })
}

#[test]
fn models_notifications_and_the_trail_are_there_as_their_topics_say() {
    let Some(postgres) = place::postgres("models_notifications_and_the_trail") else { return };
    let mut stage = Stage::new(None, Some(&postgres));
    let notifications = format!("{}-notifications", stage.application);
    let key = |id: &str| String::from_utf8(Key::Delivery(id.to_owned()).encode()).unwrap();

    stage.put("models", &format!("model/{MODEL}"), Some(&version(10)));
    stage.put("models", &format!("model/{MODEL}"), Some(&version(20)));
    stage.put("models", "active", Some(&json!({"model": MODEL, "at_ms": 5, "why": "promoted", "instance": "i"}).to_string()));
    stage.put("models", "model/fedcba9876543210", Some("no version"));
    let model = "SELECT model_id, created_at, document->>'rows', removed_at FROM models";
    let expected = format!("({MODEL},\"2023-11-14 22:13:20+00\",20,)");
    until("the model is there", || (rows(&stage, model) == [expected.clone()]).then_some(()));
    until("what is none was counted", || (stage.tier("postgres").unreadable == 1).then_some(()));

    for (id, state) in [("msg_a", State::Pending), ("msg_b", State::Pending), ("msg_c", State::Pending)] {
        stage.put(&notifications, &key(id), Some(&delivery(id, state, 0)));
    }
    stage.put(&notifications, &key("msg_a"), None);
    stage.put(&notifications, &key("msg_b"), Some(&delivery("msg_b", State::Dead, 9)));
    stage.put(&notifications, &key("msg_b"), None);
    let told = "SELECT id, channel, outcome, ended_at IS NOT NULL FROM notifications";
    let expected = ["(msg_a,ops,arrived,t)", "(msg_b,ops,\"given up\",t)", "(msg_c,ops,pending,f)"];
    until("each notification is where it stands", || (rows(&stage, told) == expected).then_some(()));
    let documents = rows(&stage, "SELECT document FROM notifications").concat();
    assert!(documents.contains("transactions:0:5"), "it names the verdict: {documents}");
    for secret in ["very-private", "4711", "secret shop"] {
        assert!(!documents.contains(secret), "{secret} is in no row that an erasure does not reach: {documents}");
    }

    let site = Site::of(stage.api());
    let snooze = json!({"user_id": "very-private", "reason": "r", "hours": 5}).to_string();
    assert_eq!(site.post("/v1/snoozes", &snooze).0, 201);
    assert_eq!(site.post("/v1/users/very-private/erase", "").0, 202);
    let trail = "SELECT actor, action, subject IS NULL, outcome, document->>'route' FROM audit";
    let expected = ["(,\"POST /v1/snoozes\",t,201,/v1/snoozes)", "(,\"POST /v1/users/{}/erase\",f,202,/v1/users/{}/erase)"];
    until("the trail is there", || (rows(&stage, trail) == expected).then_some(()));
    assert!(!rows(&stage, "SELECT * FROM audit").concat().contains("very-private"), "the trail knows users by their hash");
    until("the erasure was decided", || stage.erased().contains_key(b"very-private".as_slice()).then_some(()));
    stage.projected();

    // Again from the topics' start: the same rows.
    let before = stage.dump();
    drop(site);
    stage.stop();
    stage.sql("TRUNCATE projection, models, notifications, audit");
    stage.start();
    until("all is there again", || (stage.dump() == before).then_some(()));
}

/// A projector that fell behind writes nothing over what is newer.
#[tokio::test]
async fn what_is_older_does_not_take_the_place_of_what_is_newer() {
    let Some(url) = place::postgres("what_is_older_does_not_take_the_place") else { return };
    let cold = place::cold(&url);
    let mut writer = Writer::new(cold.clone(), 90);
    let mut write = async |from: u64, to: u64, model: ModelRow, notification: NotificationRow| {
        let batch = Batch { topic: "both", partition: 0, generation: 1, from, to, first: from == 0, changes: Vec::new() };
        let audit = AuditRow {
            id: "audit:0:0".into(),
            at_ms: i64::MIN,
            actor: None,
            action: "nul\0".into(),
            subject: None,
            outcome: "200".into(),
            document: "{}".into(),
        };
        let part = Part { models: vec![model], notifications: vec![notification], audit: vec![audit], ..Part::new(batch) };
        writer.apply(&[part], 0).await.unwrap().applied
    };
    let model =
        |offset, document: Option<&str>| ModelRow { id: MODEL.into(), offset, at_ms: 1, document: document.map(str::to_owned) };
    let told = |outcome| Told { channel: "ops".into(), outcome, document: "{}".into() };
    let notification = |offset, told| NotificationRow { id: "msg".into(), offset, at_ms: i64::MAX, told };
    write(0, 1, model(0, Some("1")), notification(0, Some(told("pending")))).await;
    write(1, 9, model(8, Some("2")), notification(8, None)).await;
    // The same stretch again, by one who has not heard of the rest.
    let late = write(0, 1, model(0, Some("1")), notification(0, Some(told("pending")))).await;
    assert_eq!(late, [Applied::Taken], "it continues where somebody stood");
    let client = cold.get().await.unwrap();
    let row = client.query_one("SELECT document::text, record_offset FROM models", &[]).await.unwrap();
    assert_eq!((row.get::<_, String>(0), row.get::<_, i64>(1)), ("2".to_owned(), 8));
    let row = client.query_one("SELECT outcome, ended_at IS NULL FROM notifications", &[]).await.unwrap();
    assert_eq!((row.get::<_, String>(0), row.get::<_, bool>(1)), ("arrived".to_owned(), false));
    assert_eq!(client.query_one("SELECT count(*) FROM audit", &[]).await.unwrap().get::<_, i64>(0), 1);
}
