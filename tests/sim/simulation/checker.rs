//! Compares a world at rest with the oracle.

use std::collections::BTreeMap;

use mangrove::scoring::UserProfile;
use models::Profile;
use serde_json::Value;
use state::backend::{Backend, StorePartition};
use state::store::decode_kept;
use topology::record::{TopicId, TopicPartition};
use topology::simulated::StoredRecord;

use super::feed::scorers;
use super::oracle::{Expected, Logs, Story, kept, tell, value, verdict_of};
use super::trace::At;
use super::world::{APPLICATION, PARTITIONS, World};

pub type Check = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(format!($($what)*));
        }
    };
}

/// Everything that must hold of a world at rest. `settled`: nothing can be late any more, so offsets are at their ends.
pub fn check(world: &World, settled: bool) -> Check {
    let violations = std::mem::take(&mut world.state().watch.violations);
    ensure!(violations.is_empty(), "{}", violations.join("\n"));
    ensure!(world.sim.open_transactions().is_empty(), "transactions are still open: {:?}", world.sim.open_transactions());
    let read = Read::new(world);
    for partition in 0..PARTITIONS {
        check_partition(world, &read, partition, settled).map_err(|what| format!("partition {partition}: {what}"))?;
    }
    Ok(())
}

/// The committed records of every topic, read once.
struct Read<'w> {
    world: &'w World,
    topics: BTreeMap<TopicId, Vec<StoredRecord>>,
}

impl<'w> Read<'w> {
    fn new(world: &'w World) -> Self {
        let topics = world.topology().topics().iter().map(|(topic, _)| (topic, world.sim.committed_records(topic)));
        Self { world, topics: topics.collect() }
    }

    fn topic(&self, name: &str) -> TopicId {
        self.world.topology().topics().find(name).expect("a topic of the application")
    }

    fn of(&self, name: &str, partition: u32) -> impl Iterator<Item = &StoredRecord> {
        self.topics[&self.topic(name)].iter().filter(move |record| record.partition.partition == partition)
    }
}

fn check_partition(world: &World, read: &Read<'_>, partition: u32, settled: bool) -> Check {
    let exactly_once = world.choices.exactly_once;
    let all = |name: &str| read.of(name, partition).cloned().collect::<Vec<_>>();
    let logs = Logs {
        transactions: all("transactions"),
        commands: all("commands"),
        decisions: all(&format!("{APPLICATION}-decisions")),
    };
    let outcomes = Outcomes::of(read, partition)?;
    positions(world, read, partition, settled)?;
    if !world.choices.wild {
        return calm(world, &logs, &outcomes, partition);
    }
    if !exactly_once {
        return outcomes.every_record_has_one(&logs);
    }
    let story = tell(partition, &logs, true, true)?;
    outcomes.are_exactly(&story, &logs)?;
    state(world, read, &story, partition)?;
    world.state().watch.read_on(&world.sim, partition);
    let state = world.state();
    for (key, kept) in &state.watch.grown[partition as usize].records {
        let known = story.history.contains(&(key.to_vec(), kept.as_deref().map(<[u8]>::to_vec)));
        ensure!(known, "the changelog has a value of {} that no run would have kept", name(key));
    }
    Ok(())
}

/// At-least-once without zombies: nothing is lost, what is doubled is the same, and state is the oracle's.
fn calm(world: &World, logs: &Logs, outcomes: &Outcomes, partition: u32) -> Check {
    let story = tell(partition, logs, false, false)?;
    outcomes.every_record_has_one(logs)?;
    outcomes.agree_with(&story, logs)?;
    let want: BTreeMap<Vec<u8>, Profile> = story.state.into_iter().map(|(key, (_, profile))| (key, profile)).collect();
    let got = store_of(world, partition)?.into_iter().map(|(key, bytes)| {
        let (_, UserProfile(profile)) = decode_kept(&bytes).expect("a kept profile");
        (key, profile)
    });
    same_keys(&got.collect(), &want, "the store")
}

fn name(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// What was said of each record.
struct Outcomes {
    verdicts: BTreeMap<u64, Vec<Vec<u8>>>,
    anomalies: BTreeMap<u64, Vec<Vec<u8>>>,
    /// By topic and offset: causes.
    dead: BTreeMap<(String, u64), Vec<String>>,
}

impl Outcomes {
    fn of(read: &Read<'_>, partition: u32) -> Result<Self, String> {
        let by_offset = |topic: &str| -> Result<BTreeMap<u64, Vec<Vec<u8>>>, String> {
            let mut found: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
            for record in read.of(topic, partition) {
                found.entry(offset_of(record, partition)?).or_default().push(value(record).to_vec());
            }
            Ok(found)
        };
        let mut dead: BTreeMap<(String, u64), Vec<String>> = BTreeMap::new();
        for record in read.of("dead-letters", partition) {
            let header = |name: &str| {
                let found = record.headers.iter().find(|header| header.name == format!("__streams.errors.{name}"));
                let bytes = found.and_then(|header| header.value.as_deref()).unwrap_or_default();
                String::from_utf8_lossy(bytes).into_owned()
            };
            let offset = header("offset").parse().map_err(|_| "a dead letter without an offset".to_owned())?;
            dead.entry((header("topic"), offset)).or_default().push(header("exception"));
        }
        Ok(Self { verdicts: by_offset("verdicts")?, anomalies: by_offset("anomalies")?, dead })
    }

    fn dead_payment(&self, offset: u64) -> &[String] {
        self.dead.get(&("transactions".to_owned(), offset)).map_or(&[], Vec::as_slice)
    }

    fn verdicts(&self, offset: u64) -> &[Vec<u8>] {
        self.verdicts.get(&offset).map_or(&[], Vec::as_slice)
    }

    /// I3 under at-least-once: at least one, and never of both kinds; and none of a record that is not there.
    fn every_record_has_one(&self, logs: &Logs) -> Check {
        for record in &logs.transactions {
            let offset = record.offset;
            let (verdicts, dead) = (self.verdicts(offset).len(), self.dead_payment(offset).len());
            ensure!(verdicts + dead > 0, "record {offset} is lost: neither verdict nor dead letter");
            ensure!(verdicts == 0 || dead == 0, "record {offset} has {verdicts} verdicts and {dead} dead letters");
        }
        let end = logs.transactions.len() as u64;
        ensure!(self.verdicts.keys().all(|&offset| offset < end), "a verdict of a record that does not exist");
        Ok(())
    }

    /// Duplicates say the same; the model is that of a decision, and says which by its id.
    fn agree_with(&self, story: &Story, logs: &Logs) -> Check {
        for record in &logs.transactions {
            let offset = record.offset;
            match &story.payments[&offset] {
                Expected::DeadLetter(cause) => {
                    ensure!(
                        self.dead_payment(offset).iter().all(|said| said == cause),
                        "dead letter {offset} is not for {cause}"
                    );
                    ensure!(self.verdicts(offset).is_empty(), "record {offset} ({cause}) has a verdict");
                }
                Expected::Verdict(before) => {
                    for said in self.verdicts(offset) {
                        let parsed: Value = serde_json::from_slice(said).map_err(|why| format!("verdict {offset}: {why}"))?;
                        let model = scorers().iter().find(|model| parsed["model_id"] == model.id.as_str());
                        let (want, _) = verdict_of(record, before, model.map(AsRef::as_ref));
                        same_text(said, &want, offset)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// I3 under exactly-once: each once, and as the oracle says.
    fn are_exactly(&self, story: &Story, logs: &Logs) -> Check {
        let (mut verdicts, mut anomalies, mut dead) = (0, 0, story.no_commands.len());
        for record in &logs.transactions {
            let offset = record.offset;
            match &story.payments[&offset] {
                Expected::DeadLetter(cause) => {
                    let said = self.dead_payment(offset);
                    ensure!(
                        said.len() == 1 && said[0] == *cause,
                        "record {offset} must be one dead letter for {cause}, there is {said:?}"
                    );
                    dead += 1;
                }
                Expected::Verdict(before) => {
                    let said = self.verdicts(offset);
                    ensure!(said.len() == 1, "record {offset} has {} verdicts", said.len());
                    let (want, is_anomaly) = verdict_of(record, before, story.models[&offset].as_deref());
                    same_text(&said[0], &want, offset)?;
                    let flagged = self.anomalies.get(&offset).map_or(&[][..], Vec::as_slice);
                    ensure!(flagged == if is_anomaly { said } else { &[] }, "record {offset} has {} anomalies", flagged.len());
                    verdicts += 1;
                    anomalies += usize::from(is_anomaly);
                }
            }
        }
        for offset in &story.no_commands {
            let said = self.dead.get(&("commands".to_owned(), *offset)).map_or(0, Vec::len);
            ensure!(said == 1, "command {offset} has {said} dead letters");
        }
        let found = (self.verdicts.len(), self.anomalies.len(), self.dead.len());
        ensure!(
            found == (verdicts, anomalies, dead),
            "outcomes of records that do not exist: {found:?}, {:?}",
            (verdicts, anomalies, dead)
        );
        Ok(())
    }
}

fn offset_of(record: &StoredRecord, partition: u32) -> Result<u64, String> {
    let parsed: Value = serde_json::from_slice(value(record)).map_err(|why| format!("a verdict that is no JSON: {why}"))?;
    let id = parsed["id"].as_str().unwrap_or_default();
    let offset = id.strip_prefix(&format!("transactions:{partition}:")).and_then(|offset| offset.parse().ok());
    offset.ok_or_else(|| format!("verdict {id} is not of this partition"))
}

fn same_text(got: &[u8], want: &[u8], offset: u64) -> Check {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(got == want, "verdict {offset} differs\n  said   {}\n  oracle {}", text(got), text(want));
    Ok(())
}

/// The rows of a partition on its owner's disk.
fn store_of(world: &World, partition: u32) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
    let lead = world.topology().subs()[0].lead();
    let assignments = world.sim.group_assignments(APPLICATION);
    let owners: Vec<&String> = assignments
        .iter()
        .filter(|(_, owned)| owned.contains(&TopicPartition { topic: lead, partition }))
        .map(|(who, _)| who)
        .collect();
    ensure!(owners.len() == 1, "it has the owners {owners:?}");
    let at = At::parse(owners[0]).expect("owners are workers");
    let mut rows = BTreeMap::new();
    let store = StorePartition { store: "profiles".into(), partition };
    let scanned = world.instances[at.instance].disk.scan(&store, None, usize::MAX, &mut |key, bytes| {
        rows.insert(key.to_vec(), bytes.to_vec());
        true
    });
    scanned.map_err(|why| format!("its owner {at} cannot read its store: {why}"))?;
    Ok(rows)
}

fn same_keys<V: PartialEq>(got: &BTreeMap<Vec<u8>, V>, want: &BTreeMap<Vec<u8>, V>, what: &str) -> Check {
    for key in got.keys().chain(want.keys()) {
        match (got.get(key), want.get(key)) {
            (None, _) => return Err(format!("{what} lacks {}", name(key))),
            (_, None) => return Err(format!("{what} has {}, which the oracle does not", name(key))),
            (Some(got), Some(want)) => ensure!(got == want, "{what} has another {} than the oracle", name(key)),
        }
    }
    Ok(())
}

/// I4: the owner's store, the fold of the changelog and the oracle are the same bytes.
fn state(world: &World, read: &Read<'_>, story: &Story, partition: u32) -> Check {
    let want: BTreeMap<Vec<u8>, Vec<u8>> =
        story.state.iter().map(|(key, (marks, profile))| (key.clone(), kept(marks, profile))).collect();
    let mut folded = BTreeMap::new();
    for record in read.of(&format!("{APPLICATION}-profiles-changelog"), partition) {
        let key = record.key.as_deref().expect("a changelog's records have keys").to_vec();
        match &record.value {
            Some(bytes) => folded.insert(key, bytes.to_vec()),
            None => folded.remove(&key),
        };
    }
    same_keys(&folded, &want, "the changelog")?;
    same_keys(&store_of(world, partition)?, &want, "the store")
}

/// The group's offsets are where the inputs end.
fn positions(world: &World, read: &Read<'_>, partition: u32, settled: bool) -> Check {
    let offsets = world.sim.group_offsets(APPLICATION);
    for name in ["transactions", "commands"] {
        let at = TopicPartition { topic: read.topic(name), partition };
        let end = world.sim.bounds_of(at).expect("it exists").end;
        let committed = offsets.get(&at).copied().unwrap_or(0);
        ensure!(committed <= end, "the group stands at {committed} of {name}, which ends at {end}");
        ensure!(committed == end || !settled, "the group stands at {committed} of {name}, not at its end {end}");
    }
    Ok(())
}
