//! Erasures: what Redis and Postgres hold of a user goes, does not come back, and the receipt says so as the servers do.

use std::time::Duration;

use mangrove::tiers::{Cold, Erasure, Part, VerdictRow, Writer};
use serde_json::{Value, json};
use state::tier::{Applied, Batch};
use tokio::task::JoinHandle;

use crate::place;
use crate::schema::{TODAY_MS, verdict};
use crate::servers::Server;
use crate::site::Site;
use crate::stage::{Stage, until};

const USER: &str = "user 7";

fn place<'r>(receipt: &'r Value, name: &str) -> &'r Value {
    let mut places = receipt["places"].as_array().unwrap().iter();
    places.find(|place| place["place"] == name).unwrap_or_else(|| panic!("{name} in {receipt}"))
}

/// Orders an erasure; where its receipt is.
fn erase(site: &Site, user: &str) -> String {
    let (status, ordered) = site.post(&format!("/v1/users/{}/erase", user.replace(' ', "%20")), "");
    assert_eq!(status, 202, "{ordered}");
    ordered["receipt"].as_str().unwrap().to_owned()
}

/// Waits until a place of the receipt is found like this.
fn found(site: &Site, receipt: &str, name: &str, how: &str) -> Value {
    let mut last = Value::Null;
    until(&format!("{name} is {how}"), || {
        let got = site.ask(receipt, "");
        last = serde_json::from_str(&got.body).unwrap();
        (last["status"] == "done" && place(&last, name)["found"] == how).then(|| last.clone())
    })
}

/// Rows that name a user, in tables that hold what was said of payments.
fn rows(stage: &Stage, user: &str) -> Vec<i64> {
    let cold = stage.cold();
    stage.wait(async {
        let client = cold.get().await.unwrap();
        let mut counts = Vec::new();
        for table in ["verdicts", "labels", "profiles"] {
            let more = if table == "profiles" { "AND value IS NOT NULL" } else { "" };
            let count = format!("SELECT count(*) FROM {table} WHERE user_id = $1 {more}");
            counts.push(client.query_one(&count, &[&user]).await.unwrap().get(0));
        }
        counts
    })
}

fn label(stage: &Stage, user: &str, verdict: &str) {
    stage.say("labels", &[(user, &json!({"verdict_id": verdict, "label": "fraud"}).to_string())]);
}

/// The ids of a user's verdicts in the topic, the earliest first.
fn verdicts(stage: &Stage, user: &str) -> Vec<String> {
    let of_user = |(_, _, key, value): crate::stage::Seen| (key == user.as_bytes()).then_some(value?);
    let values = stage.records(stage.topic("verdicts")).into_iter().filter_map(of_user);
    values.map(|value| serde_json::from_slice::<models::Verdict>(&value).unwrap().id).collect()
}

#[test]
fn an_erased_user_is_gone_from_both_tiers_and_stays_gone() {
    let test = "an_erased_user_is_gone_from_both_tiers_and_stays_gone";
    let (Some(redis), Some(postgres)) = (place::redis(test), place::postgres(test)) else { return };
    let mut stage = Stage::new(Some(&redis), Some(&postgres));
    stage.pay(600, 20);
    stage.scored();
    let (mine, others) = (verdicts(&stage, USER), verdicts(&stage, "user 8"));
    label(&stage, USER, &mine[3]);
    label(&stage, USER, "elsewhere:0:1");
    label(&stage, "user 8", &others[3]);
    stage.redis_is_right();
    stage.postgres_is_right();
    until("labels are there", || (rows(&stage, USER) == [30, 2, 1] && rows(&stage, "user 8") == [30, 1, 1]).then_some(()));
    let site = Site::of(stage.api());
    let snooze = json!({"user_id": USER, "reason": "on holiday", "hours": 5}).to_string();
    assert_eq!(site.post("/v1/snoozes", &snooze).0, 201);

    let at = erase(&site, USER);
    found(&site, &at, "redis", "deleted");
    let receipt = found(&site, &at, "postgres", "deleted");
    assert_eq!(rows(&stage, USER), [0, 0, 0], "whatever the receipt says: {receipt}");
    assert_eq!(rows(&stage, "user 8"), [30, 1, 1], "nobody else is touched");
    assert_eq!(site.get("/v1/snoozes")["snoozes"], json!([]), "who is gone is not snoozed");
    let application = &stage.application;
    assert_eq!(
        place(&receipt, &format!("{application}-snoozes"))["found"],
        "expiring",
        "until the tombstone's topic is compacted"
    );
    assert_eq!(place(&receipt, &format!("{application}-notifications"))["found"], "deleted", "nobody was told of the user");
    for topic in ["labels", &format!("{application}-audit")] {
        assert_eq!(place(&receipt, topic)["found"], "kept", "{topic}: made to keep all");
    }

    // A label about a payment of before comes late; a new payment is a new life.
    label(&stage, USER, &mine[4]);
    stage.pay(20, 20);
    stage.scored();
    let back = verdicts(&stage, USER).pop().unwrap();
    label(&stage, USER, &back);
    until("the new life is there", || (rows(&stage, USER) == [1, 1, 1]).then_some(()));
    found(&site, &at, "redis", "present");
    found(&site, &at, "postgres", "present");

    drop(site); // It holds the store of the instance that ends now.

    // The topics are projected again: by a server that knows of the erasure, and by one that knows of nothing.
    for forget in ["DELETE FROM projection", "TRUNCATE projection, erasures, verdicts, labels, profiles"] {
        stage.stop();
        stage.sql(forget);
        stage.start();
        stage.projected();
        assert_eq!(rows(&stage, "user 8"), [31, 1, 1], "all is there again");
        assert_eq!(rows(&stage, USER), [1, 1, 1], "and of the erased user nothing of before");
    }
}

/// What cannot be asked is not called deleted; and the erasure waits for nobody.
#[test]
fn a_server_that_does_not_answer_has_not_deleted() {
    let test = "a_server_that_does_not_answer_has_not_deleted";
    if place::redis(test).is_none() || place::postgres(test).is_none() {
        return;
    }
    let (redis, postgres) = (Server::redis(), Server::postgres());
    let mut stage = Stage::new(Some(&redis.url), Some(&postgres.url));
    stage.pay(200, 20);
    stage.scored();
    stage.redis_is_right();
    stage.postgres_is_right();
    let site = Site::of(stage.api());
    redis.kill();
    postgres.kill();
    let at = erase(&site, USER);
    found(&site, &at, "redis", "unreachable");
    let receipt = found(&site, &at, "postgres", "unreachable");
    assert_eq!(place(&receipt, "state")["found"], "deleted", "the erasure itself waits for no tier: {receipt}");
    redis.start();
    postgres.start();
    found(&site, &at, "redis", "deleted");
    found(&site, &at, "postgres", "deleted");
    assert_eq!(rows(&stage, USER), [0, 0, 0]);
}

/// One record of a topic's partition.
fn batch(topic: &str, partition: u32) -> Batch<'_> {
    Batch { topic, partition, generation: 1, from: 0, to: 1, first: true, changes: Vec::new() }
}

async fn write_verdicts(mut writer: Writer, partition: u32, values: Vec<Vec<u8>>) -> Vec<Applied> {
    let verdicts = values.iter().map(|value| VerdictRow::decode(value).expect("a verdict")).collect();
    writer.apply(&[Part { verdicts, ..Part::new(batch("verdicts", partition)) }], TODAY_MS).await.unwrap().applied
}

async fn write_erasure(mut writer: Writer, user: &str, after: u64) -> Vec<Applied> {
    let value = json!({"after": after, "kind": "erase"}).to_string();
    let erasure =
        Erasure::decode("transactions", Some(user.as_bytes()), value.as_bytes(), TODAY_MS).unwrap().expect("an erasure");
    writer.apply(&[Part { erasures: vec![erasure], ..Part::new(batch("decisions", 0)) }], TODAY_MS).await.unwrap().applied
}

/// Two processes on one Postgres: one is in the middle of writing verdicts of the user while the other one is erasing. Whoever is first is held
/// between its rows and its commit, until the other one waits for it, or has not waited: then what neither saw of the other would stay.
#[tokio::test]
async fn verdicts_on_their_way_in_do_not_outlive_the_erasure() {
    let Some(url) = place::postgres("verdicts_on_their_way_in_do_not_outlive_the_erasure") else { return };
    for (held_after, verdicts_first) in [("INSERT", true), ("DELETE", false)] {
        let application = place::application();
        let cold = || Cold::open(&url, &application, &place::cold_options()).unwrap();
        let writer = || Writer::new(cold(), 90);
        // The schema and the day are there: nobody waits for them to be made.
        assert_eq!(write_verdicts(writer(), 1, vec![verdict(5, TODAY_MS)]).await, [Applied::Taken]);
        let door = cold().get().await.unwrap();
        let hold = format!(
            "CREATE FUNCTION at_the_door() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared('verdicts'::regclass::oid::bigint); RETURN NULL; END $$;
             CREATE TRIGGER door AFTER {held_after} ON verdicts FOR EACH STATEMENT EXECUTE FUNCTION at_the_door();
             SELECT pg_advisory_lock('verdicts'::regclass::oid::bigint)"
        );
        door.batch_execute(&hold).await.unwrap();
        let waits = async |of: &str| {
            let ask = format!(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = '{of}'::regclass::oid
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
            );
            door.query_one(&ask, &[]).await.unwrap().get::<_, bool>(0)
        };
        // Of the user's verdicts one is of before the erasure, and one of a new life.
        let verdicts = || tokio::spawn(write_verdicts(writer(), 0, vec![verdict(4, TODAY_MS), verdict(4 + 997, TODAY_MS)]));
        let erasure = || tokio::spawn(write_erasure(writer(), "user 4", 100));
        let first: JoinHandle<_> = if verdicts_first { verdicts() } else { erasure() };
        patiently("the first is held before its commit", async || waits("verdicts").await).await;
        let second = if verdicts_first { erasure() } else { verdicts() };
        patiently("the second waits or is done", async || second.is_finished() || waits("erasures").await).await;
        door.batch_execute("SELECT pg_advisory_unlock('verdicts'::regclass::oid::bigint)").await.unwrap();
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (vec![Applied::Taken], vec![Applied::Taken]));
        let rows = door.query("SELECT id FROM verdicts ORDER BY id", &[]).await.unwrap();
        let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(ids, ["transactions:1:1001", "transactions:1:5"], "held after its {held_after}");
    }
}

/// Looks until it is so.
async fn patiently(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.unwrap_or_else(|_| panic!("not within a minute: {what}"));
}
