//! What is to be done, and what stands in the way: facts first, before anything is written.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use topology::broker::{Cleanup, Reaction, Reader, TopicInfo, TopicSpec};
use topology::record::{TopicId, TopicPartition};
use topology::restore::{STATE_INCOMPLETE, STATE_MOVED};

use super::journal::Journal;
use super::{Migration, Report, Result, refused};
use crate::broker::Groups;
use crate::clock::{monotonic, since};
use crate::instance::TOMBSTONE_RETENTION_MS;

/// How long members of the old group may take to be gone: a stopped instance keeps its place until its session ends.
const LEAVING: Duration = Duration::from_secs(20);
/// How long a look at the journal waits for what is not decided.
const GLANCE: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// One input of both applications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputPlan {
    /// The old application's topic.
    pub from: String,
    /// The new one's.
    pub to: String,
    /// Both are the same topic, which grew.
    pub in_place: bool,
    /// How many partitions the old application knew.
    pub from_partitions: u32,
    /// By partition of the old topic: the first record that the old application did not process.
    pub committed: Vec<u64>,
    /// By partition of the old topic: its end.
    pub ends: Vec<u64>,
    /// By partition of the new topic: where the new application begins.
    pub starts: Vec<u64>,
}

impl InputPlan {
    fn records(&self) -> u64 {
        let waiting: u64 = self.ends.iter().zip(&self.committed).map(|(end, next)| end - next).sum();
        if self.in_place { 2 * waiting } else { waiting }
    }
}

/// The facts that a migration rests on, taken once and kept in its journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The old application.
    pub old: String,
    /// The new one.
    pub new: String,
    /// The new number of partitions.
    pub partitions: u32,
    /// Its inputs; the first is the lead.
    pub inputs: Vec<InputPlan>,
    /// By changelog and old partition: the log's start.
    pub changelog_starts: Vec<Vec<u64>>,
    /// Its end.
    pub changelog_ends: Vec<Vec<u64>>,
}

impl Plan {
    /// How many records are to be read.
    #[must_use]
    pub fn records(&self) -> u64 {
        let both = self.changelog_ends.iter().flatten().zip(self.changelog_starts.iter().flatten());
        both.map(|(end, start)| end - start).sum::<u64>() + self.inputs.iter().map(InputPlan::records).sum::<u64>()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { old, new, partitions, .. } = self;
        writeln!(f, "The state of {old} goes to {new}, in {partitions} partitions.")?;
        let changelog: u64 =
            self.changelog_ends.iter().flatten().sum::<u64>() - self.changelog_starts.iter().flatten().sum::<u64>();
        writeln!(f, "  state   {changelog} changelog records to be read; the last value of each key is copied")?;
        for input in &self.inputs {
            let waiting: u64 = input.ends.iter().zip(&input.committed).map(|(end, next)| end - next).sum();
            let InputPlan { from, to, from_partitions, .. } = input;
            let place = if input.in_place { format!("written again to {to}, which grew") } else { format!("moved to {to}") };
            writeln!(
                f,
                "  input   {from} ({from_partitions} partitions known): {waiting} records not processed yet are {place}"
            )?;
        }
        write!(f, "  then    {new} begins in front of them; {old} does not start any more")
    }
}

/// What a migration would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prospect {
    /// The plan; the journal's where it was begun before.
    pub plan: Plan,
    /// It was begun before and interrupted.
    pub begun: bool,
    /// It was finished before.
    pub done: Option<Report>,
}

pub(super) fn prospect<B: Groups>(migration: &Migration<'_, B>, reader: &mut B::Reader) -> Result<Prospect> {
    let Migration { broker, places, partitions, .. } = *migration;
    let journal_at = places.journal_at();
    let journal = match broker.describe(&[journal_at.topic])?.pop().flatten() {
        Some(_) => Journal::read(reader, journal_at, GLANCE)?,
        None => Journal::default(),
    };
    if let Some(plan) = journal.plan {
        let same = plan.old == places.old && plan.partitions == partitions;
        if !same || plan.inputs.iter().zip(&places.new_inputs).any(|(input, &to)| input.to != places.name(to)) {
            let Plan { old, partitions, inputs, .. } = &plan;
            let to: Vec<&str> = inputs.iter().map(|input| input.to.as_str()).collect();
            return refused(format!(
                "a migration to {} was begun from {old}, to {partitions} partitions of {}: finish that one, or take another --application",
                places.new,
                to.join(" and ")
            ));
        }
        if journal.done.is_none() {
            nobody_in(broker, &places.old)?;
        }
        return Ok(Prospect { plan, begun: true, done: journal.done });
    }
    nobody_in(broker, &places.old)?;
    nobody_in(broker, &places.new)?;
    let plan = make(migration, reader)?;
    Ok(Prospect { plan, begun: false, done: None })
}

/// The group's committed offsets, once no transaction of a dead owner is about to change them.
fn committed<B: Groups>(broker: &B, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<u64>>> {
    let began = monotonic();
    loop {
        match broker.committed(group, partitions) {
            Err(why) if why.reaction == Reaction::Retry && since(began) < LEAVING => std::thread::park_timeout(LOOK),
            answer => return Ok(answer?),
        }
    }
}

/// Waits for stopped members to be forgotten; refuses where somebody stays. An earlier run's own place does not count.
fn nobody_in<B: Groups>(broker: &B, group: &str) -> Result<()> {
    let began = monotonic();
    let ours = super::instance(group);
    loop {
        let mut members = broker.members(group)?;
        members.retain(|member| !member.starts_with(&ours));
        let Some(first) = members.first() else { return Ok(()) };
        if since(began) > LEAVING {
            return refused(format!(
                "group {group} has {} members ({first}, ...): stop all instances of the application first. One that was stopped keeps its \
                 place until its session ends",
                members.len()
            ));
        }
        if since(began) < LOOK {
            tracing::info!(group, members = members.len(), "waiting for the group's members to be gone");
        }
        std::thread::park_timeout(LOOK);
    }
}

fn make<B: Groups>(migration: &Migration<'_, B>, reader: &mut B::Reader) -> Result<Plan> {
    let Migration { broker, places, partitions, .. } = *migration;
    let olds = broker.describe(&places.old_changelogs)?;
    let mut changelogs = Vec::new();
    for (&topic, info) in places.old_changelogs.iter().zip(&olds) {
        let Some(info) = info else {
            return refused(format!("{} does not exist: there is no state of {} to move", places.name(topic), places.old));
        };
        changelogs.push((topic, info.partitions));
    }
    let from_partitions = changelogs[0].1;
    empty(migration, reader)?;
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for &(topic, count) in &changelogs {
        let (start, end) = bounds(reader, topic, count)?;
        starts.push(start);
        ends.push(end);
    }
    let stateful: Vec<bool> = (0..from_partitions as usize).map(|p| ends.iter().zip(&starts).any(|(e, s)| e[p] > s[p])).collect();
    let mut inputs = Vec::new();
    for at in 0..places.old_inputs.len() {
        inputs.push(input(migration, reader, at, from_partitions, &stateful)?);
    }
    let (old, new) = (places.old.clone(), places.new.clone());
    Ok(Plan { old, new, partitions, inputs, changelog_starts: starts, changelog_ends: ends })
}

/// The new application must not have any state or offsets.
fn empty<B: Groups>(migration: &Migration<'_, B>, reader: &mut B::Reader) -> Result<()> {
    let Migration { broker, places, partitions, .. } = *migration;
    for (&topic, info) in places.new_changelogs.iter().zip(broker.describe(&places.new_changelogs)?) {
        let Some(info) = info else { continue };
        let name = places.name(topic);
        if info.partitions != partitions {
            return refused(format!("{name} exists with {} partitions, not {partitions}: delete it", info.partitions));
        }
        let (start, end) = bounds(reader, topic, partitions)?;
        if start != end {
            return refused(format!("{name} is not empty: {} has state of its own. Take another --application", places.new));
        }
    }
    let infos = broker.describe(&places.new_inputs)?;
    for (&topic, info) in places.new_inputs.iter().zip(infos) {
        let Some(info) = info else { continue };
        let all: Vec<TopicPartition> = (0..info.partitions).map(|partition| TopicPartition { topic, partition }).collect();
        if committed(broker, &places.new, &all)?.iter().any(Option::is_some) {
            return refused(format!("{} has processed input already. Take another --application", places.new));
        }
    }
    Ok(())
}

fn input<B: Groups>(
    migration: &Migration<'_, B>,
    reader: &mut B::Reader,
    at: usize,
    from_partitions: u32,
    stateful: &[bool],
) -> Result<InputPlan> {
    let Migration { broker, places, partitions, .. } = *migration;
    let (from, to) = (places.old_inputs[at], places.new_inputs[at]);
    let (from_name, to_name) = (places.name(from).to_owned(), places.name(to).to_owned());
    let infos: Vec<Option<TopicInfo>> = broker.describe(&[from, to])?;
    let Some(old) = &infos[0] else { return refused(format!("{from_name} does not exist")) };
    let in_place = from == to;
    if let Some(new) = infos[1].as_ref().filter(|new| new.partitions != partitions) {
        let how = if in_place {
            format!("grow it to {partitions} (kafka-topics.sh --alter --partitions {partitions}), or name another topic")
        } else {
            "give its number by --to".to_owned()
        };
        return refused(format!("{to_name} has {} partitions, not {partitions}: {how}", new.partitions));
    }
    let (retained, ends) = bounds(reader, from, old.partitions)?;
    let all: Vec<TopicPartition> = (0..old.partitions).map(|partition| TopicPartition { topic: from, partition }).collect();
    let mut begins = Vec::new();
    for (p, next) in committed(broker, &places.old, &all)?.into_iter().enumerate() {
        begins.push(match next {
            Some(STATE_MOVED) => return refused(format!("the state of {} was moved to another application before", places.old)),
            Some(STATE_INCOMPLETE) => return refused(format!("a migration to {} was not finished: finish it first", places.old)),
            Some(next) if next < retained[p] || next > ends[p] => {
                return refused(format!(
                    "group {} committed offset {next} of {from_name}:{p}, which has {} to {}: records were lost",
                    places.old, retained[p], ends[p]
                ));
            }
            None if at == 0 && stateful.get(p) == Some(&true) => {
                return refused(format!(
                    "there is state for {from_name}:{p}, but group {} has no committed offset: start {} once with START_FROM=changelog",
                    places.old, places.old
                ));
            }
            next => next.unwrap_or(retained[p]),
        });
    }
    let starts = if in_place {
        ends.clone()
    } else if infos[1].is_some() {
        let (start, end) = bounds(reader, to, partitions)?;
        if start != end {
            return refused(format!(
                "{to_name} is not empty: what waits in {from_name} must come before. Let producers write to {to_name} only once the \
                 migration is done"
            ));
        }
        end
    } else {
        vec![0; partitions as usize]
    };
    Ok(InputPlan { from: from_name, to: to_name, in_place, from_partitions, committed: begins, ends, starts })
}

pub(super) fn bounds<R: Reader>(reader: &mut R, topic: TopicId, partitions: u32) -> Result<(Vec<u64>, Vec<u64>)> {
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for partition in 0..partitions {
        let bounds = reader.bounds(TopicPartition { topic, partition })?;
        starts.push(bounds.start);
        ends.push(bounds.end);
    }
    Ok((starts, ends))
}

/// Creates what is missing; what exists is left as it is.
pub(super) fn create_topics<B: Groups>(migration: &Migration<'_, B>, plan: &Plan) -> Result<()> {
    let Migration { broker, places, .. } = *migration;
    let keep = Cleanup::Delete { retention_ms: None };
    let create = |topic: TopicId, partitions, cleanup, max_message_bytes| {
        broker.create(&TopicSpec { name: places.name(topic).to_owned(), partitions, cleanup, max_message_bytes })
    };
    let infos = broker.describe(&places.old_inputs)?;
    for (&topic, info) in places.new_inputs.iter().zip(infos) {
        create(topic, plan.partitions, keep, info.and_then(|info| info.max_message_bytes))?;
    }
    for &topic in &places.new_changelogs {
        create(topic, plan.partitions, Cleanup::Compact { tombstone_retention_ms: TOMBSTONE_RETENTION_MS }, None)?;
    }
    if let Some((_, topic)) = places.carried {
        create(topic, 1, Cleanup::Compact { tombstone_retention_ms: TOMBSTONE_RETENTION_MS }, None)?;
    }
    create(places.journal_at().topic, 1, keep, None)?;
    Ok(())
}
