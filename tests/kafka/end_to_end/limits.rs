//! Full disks, damaged stores, and memory: the program keeps to what it was given, and loses nothing where it gets less.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mangrove::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use topology::broker::{Broker as _, Reader as _};
use topology::record::{TopicId, TopicPartition, Topics};

use super::feed::Feed;
use super::ledger::{Ledger, faults, model};
use super::records::{Raw, Seen};
use super::scene::{PARTITIONS, Scene, program};
use super::service::Service;
use super::small_disk::SmallDisk;
use super::until;

const PAYMENTS: usize = 20_000;
const TASKS: usize = PARTITIONS as usize;
/// Begins the keys of users who only make a changelog longer.
const MADE_UP: &str = "made-up-";

/// A scene with a model, its payments, and the verdicts they must get.
fn scored(scene: Scene) -> (Scene, Ledger, std::collections::HashMap<String, Vec<u8>>) {
    let scene = scene.with("MODEL_PATH", model().to_str().expect("a plain path")).with("COMMIT_INTERVAL_MS", "20");
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    (scene, ledger, expected)
}

/// Waits until the instance has said that its store takes no writes.
fn pauses(service: &mut Service) {
    service.says("that the store takes no writes", |line| {
        let found = line["message"].as_str()?.contains("takes no writes") && line["what"].as_str()?.contains("the disk is full");
        found.then_some(())
    });
}

#[test]
fn a_full_disk_stops_it_cleanly_and_it_goes_on_when_there_is_room() {
    const TEST: &str = "a_full_disk_stops_it_cleanly_and_it_goes_on_when_there_is_room";
    let Some(scene) = Scene::new("disk-full") else { return };
    let Some(disk) = SmallDisk::mount(TEST, scene.path("small"), 64) else { return };
    let (scene, ledger, expected) = scored(scene.with("INSTANCE_ID", "small"));
    // So little that RocksDB cannot reserve any ahead for its log.
    disk.fill_but(4 << 20);
    let mut service = scene.start("small/state");
    service.restored(TASKS);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(300);
    let (mut sent, paused) = (feed.sent(), |service: &mut Service| service.metric("mangrove_store_pauses_total") > 0);
    while !paused(&mut service) {
        // In each round: flushes and old files give room back.
        disk.fill();
        sent += 300;
        assert!(sent < PAYMENTS, "the disk is never full");
        feed.send(sent);
        feed.flush();
        until("they are processed, or the disk is full", || {
            let processed = service.metric("mangrove_records_total") >= sent as u64;
            (processed || paused(&mut service)).then_some(())
        });
    }
    pauses(&mut service);
    until("it is not ready, and says why", || {
        let (status, body) = service.get("/readyz");
        (status == 503 && body.contains("is the disk full?")).then_some(())
    });
    assert_eq!(service.get("/livez").0, 200, "a restart makes no room");
    disk.empty();
    feed.reach(sent);
    until("it is ready again", || (service.get("/readyz").0 == 200).then_some(()));
    assert_eq!(service.metric("mangrove_stores_rebuilt_total"), 0);
    service.stop();

    // The same at the start.
    disk.fill();
    let mut service = scene.start("small/state");
    service.says("that it waits", |line| line["message"].as_str()?.contains("cannot be opened for now").then_some(()));
    disk.empty();
    service.restored(TASKS);
    feed.finish(PAYMENTS);
    assert_eq!(service.metric("mangrove_stores_rebuilt_total"), 0, "nothing was wrong with the store");
    service.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(ledger.profiles(), scene.profiles());
}

#[test]
fn a_disk_that_fills_during_a_restore_is_waited_for() {
    const TEST: &str = "a_disk_that_fills_during_a_restore_is_waited_for";
    let Some(scene) = Scene::new("restore-full") else { return };
    let Some(disk) = SmallDisk::mount(TEST, scene.path("small"), 128) else { return };
    let (scene, ledger, expected) = scored(scene);
    let mut service = scene.start("roomy");
    service.restored(TASKS);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(PAYMENTS / 2);
    service.stop();
    // Another instance takes over, with an empty folder and a disk that cannot hold a third of what it must restore.
    const ROOM: usize = 4 << 20;
    let (writer, changelog, mut bytes) = (scene.writer(), scene.changelog(), 0);
    let copied: Vec<Seen> = scene.read(&changelog).into_iter().filter(|record| record.value.is_some()).collect();
    for (number, Seen { partition, value, .. }) in copied.iter().cycle().enumerate() {
        let (partition, key, value) = (*partition, Some(format!("{MADE_UP}{number}").into_bytes()), value.clone());
        bytes += value.as_ref().map_or(0, Vec::len);
        writer.raw(&changelog, &Raw { partition, key, value, ..Raw::default() });
        if bytes > 3 * ROOM {
            break;
        }
    }
    writer.flush();
    disk.fill_but(ROOM as u64);
    let mut service = scene.start_with("small/state", &[("INSTANCE_ID", "small")]);
    pauses(&mut service);
    let restored = restored_from_something(&service);
    assert!(restored.len() < TASKS, "it was full during the restore: {restored:?}");
    disk.empty();
    feed.finish(PAYMENTS);
    assert_eq!(service.metric("mangrove_stores_rebuilt_total"), 0, "what was restored before is kept");
    service.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    let mut profiles = scene.profiles();
    profiles.retain(|user, _| !user.starts_with(MADE_UP.as_bytes()));
    assert_eq!(ledger.profiles(), profiles);
}

/// A partition, and its table files in the store: their properties name its column family. (The name alone would not do: the
/// positions' table has it as a key.)
fn tables_of_one(store: &Path) -> (String, Vec<PathBuf>) {
    let all: Vec<PathBuf> = std::fs::read_dir(store).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    let names = |path: &Path, family: &str| {
        let (bytes, named) = (std::fs::read(path).expect("read"), format!("name{family}"));
        bytes.windows(named.len()).any(|window| window == named.as_bytes())
    };
    let tables = || all.iter().filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    let families = (0..PARTITIONS).map(|partition| format!("profiles-{partition}"));
    let mut found =
        families.map(|family| (family.clone(), tables().filter(|path| names(path, &family)).cloned().collect::<Vec<_>>()));
    found.find(|(_, files)| !files.is_empty()).unwrap_or_else(|| panic!("no table names its family: {all:?}"))
}

fn flip(file: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = std::fs::read(file).expect("read");
    let at = at(bytes.len());
    bytes[at] ^= 0x55;
    std::fs::write(file, bytes).expect("written");
}

/// Tasks that were restored from more than nothing, by the log.
fn restored_from_something(service: &Service) -> BTreeSet<String> {
    let lines = service.text();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let restored = lines.filter(|line| line["message"] == "task restored and running" && line["records"].as_u64() > Some(0));
    restored.filter_map(|line| line["task"].as_str().map(str::to_owned)).collect()
}

#[test]
fn damage_costs_what_it_hit_and_is_reported() {
    let Some(scene) = Scene::new("damage") else { return };
    let (scene, ledger, expected) = scored(scene);
    let store = scene.path("a").join("rocksdb");
    let mut service = scene.start("a");
    service.restored(TASKS);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.finish(PAYMENTS / 5);
    service.stop();
    let life = |damage: &dyn Fn(), feed: &mut Feed<'_>, upto: usize, check: &dyn Fn(&mut Service)| {
        damage();
        let mut service = scene.start("a");
        service.restored(TASKS);
        feed.reach(upto);
        check(&mut service);
        service.stop();
    };
    let rebuilt = |service: &mut Service| service.metric("mangrove_stores_rebuilt_total");
    // Opening it turns its log into files. Nothing is processed: newer values would hide what is to be damaged.
    life(&|| {}, &mut feed, PAYMENTS / 5, &|service| assert_eq!(rebuilt(service), 0));

    // A block of one partition.
    let (family, tables) = tables_of_one(&store);
    let damage = || tables.iter().for_each(|file| flip(file, |_| 100));
    life(&damage, &mut feed, PAYMENTS / 5 * 2, &|service| {
        service.says("which store", |line| (line["store"] == family.as_str() && line["level"] == "ERROR").then_some(()));
        let restored = until("it is restored", || Some(restored_from_something(service)).filter(|tasks| !tasks.is_empty()));
        assert_eq!(restored, BTreeSet::from([family.replace("profiles-", "0_")]), "the others were left alone");
        assert_eq!(rebuilt(service), 1);
    });

    // The middle of the log: what lies behind it is read from the changelogs again.
    let damage = || {
        let logs = std::fs::read_dir(&store).expect("a folder").map(|entry| entry.expect("an entry").path());
        let log = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().expect("a log");
        flip(&log, |length| length / 2);
    };
    life(&damage, &mut feed, PAYMENTS / 5 * 3, &|service| {
        assert_eq!(rebuilt(service), 0);
        assert!(!restored_from_something(service).is_empty(), "something was lost, and read again");
    });

    // What RocksDB cannot do without.
    let damage = || std::fs::write(store.join("CURRENT"), "MANIFEST-999999\n").expect("written");
    life(&damage, &mut feed, PAYMENTS, &|service| {
        assert_eq!(rebuilt(service), 1);
        service.says("that the store was dropped", |line| line["message"].as_str()?.contains("cannot be opened").then_some(()));
        assert_eq!(restored_from_something(service).len(), TASKS);
    });
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(ledger.profiles(), scene.profiles());
}

#[test]
fn memory_stays_within_its_limit_under_load_and_restore() {
    const USERS: u64 = 100_000;
    const MANY: u64 = 250_000;
    const LIMIT_MIB: u64 = 256;
    let Some(scene) = Scene::new("memory") else { return };
    let limit = format!("{LIMIT_MIB}MiB");
    let scene = scene.with("MODEL_PATH", model().to_str().expect("a plain path")).with("MEMORY_LIMIT", &limit);
    scene.create("transactions", PARTITIONS, &[]);
    let (writer, input) = (scene.writer(), scene.topic("transactions"));
    for number in 0..MANY {
        // Every user comes twice or more, far apart.
        let (user, at) = (number * 7919 % USERS, 1_704_067_200_000 + number * 300);
        let json = format!(
            r#"{{"user_id":"user-{user:06}","amount":{}.5,"timestamp":{at},"merchant":"shop-{}"}}"#,
            user % 90 + 1,
            number % 900
        );
        writer.keyed(&input, format!("user-{user:06}").as_bytes(), json.as_bytes(), at as i64);
    }
    writer.flush();
    let mut service = scene.start("a");
    service.counts("mangrove_records_total", MANY);
    let loaded = service.peak_rss_mib();
    service.stop();
    // The same values over and over: a longer changelog of the same state.
    let (changelog, records) = (scene.changelog(), scene.read(&scene.changelog()));
    let users: BTreeSet<_> = records.iter().map(|record| record.key.clone()).collect();
    assert_eq!(users.len() as u64, USERS);
    for Seen { partition, key, value, .. } in &records {
        writer.raw(&changelog, &Raw { partition: *partition, key: key.clone(), value: value.clone(), ..Raw::default() });
    }
    writer.flush();
    scene.forget("a");
    let mut service = scene.start("a");
    let restored = service.restored(TASKS);
    let at_restore = service.peak_rss_mib();
    service.stop();
    println!("peak RSS under load {loaded} MiB, at a restore of {restored} records {at_restore} MiB, of {LIMIT_MIB} MiB");
    // The broker may have compacted some of it meanwhile.
    assert!(restored >= USERS && restored <= 2 * records.len() as u64, "{restored} of {}", 2 * records.len());
    assert!(loaded <= LIMIT_MIB && at_restore <= LIMIT_MIB, "{loaded} and {at_restore} MiB are more than {LIMIT_MIB}");
}

#[test]
fn a_memory_limit_that_cannot_hold_the_workers_is_refused_with_the_number_that_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = program(folder.path());
    let output = command.args(["config"]).env("MEMORY_LIMIT", "64MiB").env("WORKERS", "8").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("MEMORY_LIMIT") && text.contains("8 workers") && text.contains("174MiB or more"), "{text}");
}

/// The end of a topic in the demo's folder.
fn demo_end(folder: &Path, topic: &str) -> u64 {
    let topics = Topics::new(vec![topic.to_owned()]);
    let now = std::sync::Arc::new(|| 0);
    let broker = EmbeddedBroker::open(&folder.join("broker"), topics, EmbeddedOptions::default(), now);
    let mut reader = broker.expect("opens").reader().expect("a reader");
    let end = |partition| reader.bounds(TopicPartition { topic: TopicId(0), partition }).expect("told").end;
    (0..PARTITIONS).map(end).sum()
}

#[test]
fn a_demo_on_a_full_disk_ends_with_a_reason_and_goes_on_later() {
    const TEST: &str = "a_demo_on_a_full_disk_ends_with_a_reason_and_goes_on_later";
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(TEST, folder.path().join("small"), 48) else { return };
    let demo = |records: &str| {
        let mut command = program(folder.path());
        command.args(["demo", "--records", records, "--dir"]).arg(disk.path());
        command.env("HTTP_ADDR", "127.0.0.1:0").env("LOG_FORMAT", "json").env("MEMORY_LIMIT", "256MiB").env("WORKERS", "1");
        command.output().expect("it runs")
    };
    // 48 MiB are full long before a million payments.
    let output = demo("1000000");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("No space left on device") || text.contains("the disk is full"), "{text}");
    let size =
        |mib: u32| std::process::Command::new("mount").args(["-o", &format!("remount,size={mib}m")]).arg(disk.path()).status();
    assert!(size(256).expect("mount runs").success());
    let output = demo("3000");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    // It ends with its own records' number of verdicts; what the first run left is scored by whoever runs next.
    let ends = || (demo_end(disk.path(), "transactions"), demo_end(disk.path(), "verdicts"));
    let (payments, verdicts) = ends();
    let mut command = program(folder.path());
    command.args(["run", "--broker", "embedded", "--auto-train", "off"]);
    for (name, place) in [("STATE_DIR", "state"), ("EMBEDDED_DIR", "broker"), ("MODEL_PATH", "current.forest")] {
        command.env(name, disk.path().join(place));
    }
    command.env("HTTP_ADDR", "127.0.0.1:0").env("LOG_FORMAT", "json").env("MEMORY_LIMIT", "256MiB").env("WORKERS", "1");
    let mut service = Service::spawn(&mut command, folder.path().join("log"));
    service.counts("mangrove_records_total", payments - verdicts);
    service.stop();
    let (payments, verdicts) = ends();
    assert_eq!(verdicts, payments, "one verdict a payment, from before as well");
    assert!(payments > 3_000, "{payments}: the first run left some");
}
