//! `mangrove migrate`: an input of four partitions grows to seven with payments waiting in it; killed again and again, nothing is lost,
//! doubled or out of order, and features are those of a run over all payments in one go.

use std::collections::{BTreeMap, HashMap};
use std::process::{Child, Stdio};

use mangrove::scoring::UserProfile;
use serde_json::Value;
use state::store::decode_kept;
use topology::partitioner::partition_of;

use super::ledger::{Ledger, Payment, model};
use super::records::{Raw, Seen};
use super::scene::Scene;
use super::{until, until_count};

const OLD: u32 = 4;
const NEW: u32 = 7;
const PAYMENTS: usize = 30_000;
const KILLS: u32 = 4;
const MIGRATE: [&str; 6] = ["migrate", "--to", "7", "--application", "app7", "--execute"];

/// Writes payments as a producer that knows so many partitions.
fn write(scene: &Scene, payments: &[Payment], partitions: u32) {
    let (topic, writer) = (scene.topic("transactions"), scene.writer());
    for payment in payments {
        let key = payment.user.clone().into_bytes();
        let (value, timestamp) = (Some(payment.json.clone()), Some(payment.at_ms));
        let partition = partition_of(&key, partitions);
        writer.raw(&topic, &Raw { partition, key: Some(key), value, timestamp, ..Raw::default() });
    }
    writer.flush();
}

/// What was said of each payment, ids left out: they name records, which are others after a move.
fn said(verdicts: impl Iterator<Item = Value>) -> BTreeMap<String, Vec<Value>> {
    let mut said: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for mut verdict in verdicts {
        let payment = ["user_id", "event_time", "merchant", "amount"].map(|field| verdict[field].to_string()).join(" ");
        let fields = verdict.as_object_mut().expect("an object");
        fields.remove("id");
        fields.remove("tx_id");
        said.entry(payment).or_default().push(verdict);
    }
    said
}

fn verdicts(scene: &Scene, count: usize) -> Vec<Seen> {
    let topic = scene.topic("verdicts");
    until_count("verdicts", count as u64, || scene.ends(&topic).iter().sum());
    until(&format!("{count} verdicts"), || Some(scene.read(&topic)).filter(|seen| seen.len() >= count))
}

fn spawn(scene: &Scene, arguments: &[&str]) -> Child {
    scene.command("none", arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

fn profiles(records: Vec<Seen>) -> BTreeMap<Vec<u8>, UserProfile> {
    let mut profiles = BTreeMap::new();
    for Seen { partition, key, value, .. } in records {
        let key = key.expect("a key");
        assert_eq!(partition_of(&key, NEW), partition, "each key is where it lives");
        profiles.insert(key, decode_kept::<UserProfile>(&value.expect("a value")).expect("a kept profile").1);
    }
    profiles
}

/// Kills the migration whenever some more of the work is done.
fn kill_on_its_way(scene: &Scene) {
    let journal = scene.topic("app7-migration");
    let mut reached = 0;
    for kill in 0..KILLS {
        let mut child = spawn(scene, &MIGRATE);
        let (mut ended, mut now) = (None, 0);
        until("the migration goes on", || {
            ended = child.try_wait().expect("its status");
            now = if kill == 0 && !scene.exists(&journal) { 0 } else { scene.ends(&journal).iter().sum() };
            (ended.is_some() || now > reached + 2).then_some(())
        });
        // On a fast machine it may be done by then.
        if ended.is_some() {
            assert!(kill > 1, "it was not killed on its way");
            return;
        }
        child.kill().expect("killed");
        child.wait().expect("it ends");
        reached = now;
        // Half of a state serves nobody.
        if kill == 1 {
            let mut early = scene.start_with("b", &[("APPLICATION_ID", "app7")]);
            let (status, _) = early.end();
            assert!(status.code() == Some(1) && early.text().contains("run the same command again"), "{}", early.text());
        }
    }
}

/// One verdict a payment, as in one run over all of them, and the same profiles.
fn check(scene: &Scene, ledger: &Ledger, expected: &HashMap<String, Vec<u8>>, seen: &[Seen]) {
    let found = said(seen.iter().map(Seen::json));
    let wanted = said(expected.values().map(|bytes| serde_json::from_slice(bytes).expect("JSON")));
    let differing: Vec<_> = wanted.iter().filter(|(payment, said)| found.get(*payment) != Some(*said)).take(2).collect();
    assert!(differing.is_empty(), "{differing:?}\nfound {:?}", found.get(differing[0].0));
    assert_eq!((found.len(), seen.len()), (wanted.len(), PAYMENTS), "one verdict a payment");
    assert_eq!(scene.read(&scene.topic("dead-letters")), [], "no payment is misplaced");
    assert_eq!(profiles(scene.read(&scene.topic("app7-profiles-changelog"))), ledger.profiles());
}

#[test]
fn an_input_that_grew_is_migrated_and_every_payment_scored_once_and_in_order() {
    let Some(scene) = Scene::new("migrate") else { return };
    let scene = scene.with("MODEL_PATH", model().to_str().expect("a plain path")).with("LEAVE_ON_STOP", "true");
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    let [first, waiting, grown, after] =
        [0..4_000, 4_000..20_000, 20_000..26_000, 26_000..PAYMENTS].map(|range| &ledger.payments[range]);
    scene.create("transactions", OLD, &[]);
    let mut service = scene.start("a");
    service.restored(OLD as usize);
    write(&scene, first, OLD);
    verdicts(&scene, first.len());
    // While it runs nothing is touched.
    let refused = scene.call(&MIGRATE);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && text.contains("members") && text.contains("stop all instances"), "{text}");
    service.stop();
    // Payments that the old application never saw: by the old rule, and by the new one once the topics have grown.
    write(&scene, waiting, OLD);
    scene.grow(&["transactions", "commands"], NEW as usize);
    write(&scene, grown, NEW);
    let mut service = scene.start("a");
    service.end();
    let advice = "mangrove migrate --to 7 --application";
    assert!(service.text().contains(advice), "{}", service.text());
    // The plan writes nothing.
    let plan = scene.call(&["migrate", "--to", "7", "--application", "app7"]);
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.status.success() && text.contains("22000 records not processed yet"), "{text}");
    kill_on_its_way(&scene);
    let done = scene.call(&MIGRATE);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    assert!(text.contains("read back and equal on both sides") && text.contains("22000 records"), "{text}");
    let again = scene.call(&MIGRATE);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("done before"));
    // The old state folder is another application's: it must not mix into the new state.
    let mut service = scene.start_with("a", &[("APPLICATION_ID", "app7")]);
    service.restored(NEW as usize);
    write(&scene, after, NEW);
    let seen = verdicts(&scene, PAYMENTS);
    service.stop();
    check(&scene, &ledger, &expected, &seen);
}

#[test]
fn an_application_whose_state_moved_does_not_start_again() {
    let Some(scene) = Scene::new("moved") else { return };
    let scene = scene.with("LEAVE_ON_STOP", "true");
    let ledger = Ledger::made(&scene.path("payments.csv"), 500);
    scene.create("transactions", OLD, &[]);
    let mut service = scene.start("a");
    service.restored(OLD as usize);
    write(&scene, &ledger.payments[..300], OLD);
    verdicts(&scene, 300);
    service.stop();
    write(&scene, &ledger.payments[300..], OLD);
    let (payments, commands) = (scene.topic("payments"), scene.topic("payment-commands"));
    let to = ["--new-transactions", &payments, "--new-commands", &commands];
    let done = scene.call(&[&MIGRATE[..], &to[..]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut old = scene.start("a");
    let (status, _) = old.end();
    assert!(status.code() == Some(1) && old.text().contains("was moved to another one"), "{}", old.text());
    let new = [("APPLICATION_ID", "app7"), ("TRANSACTIONS_TOPIC", &payments), ("COMMANDS_TOPIC", &commands)];
    let mut service = scene.start_with("b", &new);
    service.restored(NEW as usize);
    assert_eq!(verdicts(&scene, 500).len(), 500);
    service.stop();
    assert_eq!(profiles(scene.read(&scene.topic("app7-profiles-changelog"))), ledger.profiles());
}
