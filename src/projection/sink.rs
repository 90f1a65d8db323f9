//! Records of a poll into rows of a tier.

use std::collections::HashMap;

use models::Profile;
use state::store::decode_kept;
use state::tier::{Applied, Batch, Change, Progress, Tier as _, Unreachable};
use topology::record::{Batch as Records, Record, TopicId};
use topology::topology::Topology;

use super::place::Place;
use super::records;
use crate::portrait::Portrait;
use crate::scoring::{UserProfile, audit_topic, notifications_topic};
use crate::tiers::{Erasure, LabelRow, Part, VerdictRow, Warm, Writer};

/// What a topic holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Profiles,
    Decisions,
    Verdicts,
    Labels,
    Models,
    Notifications,
    Audit,
}

/// The topics that are projected.
#[derive(Clone, Debug)]
pub struct Sources {
    all: Vec<(Kind, TopicId, String)>,
    /// The payments' topic, as verdicts' ids name it.
    lead: String,
}

impl Sources {
    /// The topics of a scoring topology, by the names of its verdicts, labels and models.
    ///
    /// # Panics
    /// Where the topology keeps no profiles or decisions, as no scoring topology does.
    #[must_use]
    pub fn of(topology: &Topology, verdicts: &str, labels: &str, models: &str) -> Self {
        let sub = topology.subs().last().expect("invariant: a topology has a sub-topology");
        let changelog = topology.changelogs().last().expect("invariant: scoring keeps profiles");
        let decisions = sub.decisions.expect("invariant: scoring writes decisions");
        let find = |name: &str| topology.topics().find(name);
        let kinds = [
            (Kind::Profiles, Some(changelog)),
            (Kind::Decisions, Some(decisions)),
            (Kind::Verdicts, find(verdicts)),
            (Kind::Labels, find(labels)),
            (Kind::Models, find(models)),
            (Kind::Notifications, find(&notifications_topic(topology.application()))),
            (Kind::Audit, find(&audit_topic(topology.application()))),
        ];
        let name = |topic| topology.topics().name(topic).to_owned();
        let all = kinds.into_iter().filter_map(|(kind, topic)| topic.map(|topic| (kind, topic, name(topic)))).collect();
        Self { all, lead: name(sub.lead()) }
    }

    fn profiles(&self) -> TopicId {
        self.all[0].1
    }

    fn get(&self, topic: TopicId) -> (Kind, &str) {
        let found = self.all.iter().find(|(_, of, _)| *of == topic);
        let (kind, _, name) = found.expect("invariant: only these topics are followed");
        (*kind, name)
    }

    fn named(&self, of: &[(TopicId, u32)]) -> Vec<(&str, u32)> {
        of.iter().map(|&(topic, partition)| (self.get(topic).1, partition)).collect()
    }
}

/// Records of one partition and the place they continue from.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    /// Where the tier stands.
    pub place: Place,
    /// The records, in offset order; at least one.
    pub records: Records<'a>,
}

impl Stretch<'_> {
    /// One past the last record.
    #[must_use]
    pub fn to(&self) -> u64 {
        self.records.get(self.records.len() - 1).offset + 1
    }
}

/// What came of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// By stretch.
    pub applied: Vec<Applied>,
    /// Records that are none of their topic's shape.
    pub unreadable: u64,
    /// Verdicts older than the history that is kept.
    pub expired: u64,
}

/// Where records go.
pub trait Sink: Send + 'static {
    /// The topics it takes.
    fn topics(&self) -> Vec<TopicId>;

    /// How far these partitions have come.
    fn progress(&mut self, of: &[(TopicId, u32)]) -> impl Future<Output = Result<Vec<Option<Progress>>, Unreachable>>;

    /// Writes each stretch as a whole or not at all.
    fn apply(&mut self, stretches: &[Stretch<'_>], now_ms: i64) -> impl Future<Output = Result<Done, Unreachable>>;

    /// Housekeeping, called now and then.
    fn tidy(&mut self, now_ms: i64) -> impl Future<Output = Result<(), Unreachable>>;
}

/// The last change of each user in a stretch of the changelog, with the profile as people read it.
struct Changes<'a> {
    last: Vec<(&'a str, Record<'a>)>,
    jsons: Vec<String>,
    unreadable: u64,
}

impl<'a> Changes<'a> {
    fn of(records: Records<'a>, currency: Option<&String>) -> Self {
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(records.len());
        let mut last: Vec<(&str, Record<'_>)> = Vec::with_capacity(records.len());
        let mut unreadable = 0;
        for record in records.iter() {
            let Some(user) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else {
                unreadable += 1;
                continue;
            };
            match places.get(user) {
                Some(&at) => last[at].1 = record,
                None => {
                    places.insert(user, last.len());
                    last.push((user, record));
                }
            }
        }
        let mut jsons = Vec::with_capacity(last.len());
        last.retain(|(user, record)| {
            let json = match record.value {
                None => Some(String::new()),
                Some(value) => json(user, value, currency),
            };
            let readable = json.is_some();
            unreadable += u64::from(!readable);
            jsons.extend(json);
            readable
        });
        Self { last, jsons, unreadable }
    }

    fn batch<'b>(&'b self, topic: &'b str, stretch: &Stretch<'_>, partition: u32) -> Batch<'b> {
        let changes = self.last.iter().zip(&self.jsons);
        let change = |((user, record), json): (&'b (&'a str, Record<'a>), &'b String)| Change {
            user,
            offset: record.offset,
            at_ms: record.timestamp,
            value: record.value,
            json,
        };
        Batch { changes: changes.map(change).collect(), ..frame(topic, stretch, partition) }
    }
}

/// A batch without its rows.
fn frame<'b>(topic: &'b str, stretch: &Stretch<'_>, partition: u32) -> Batch<'b> {
    let Place { generation, next, first } = stretch.place;
    Batch { topic, partition, generation, from: next, to: stretch.to(), first, changes: Vec::new() }
}

/// None where the bytes are no profile of a version that is known.
fn json(user: &str, value: &[u8], currency: Option<&String>) -> Option<String> {
    let (_, profile) = decode_kept::<UserProfile>(value).ok()?;
    let profile: &Profile = &profile.0;
    Some(Portrait::of(user, profile, currency.cloned()).json())
}

/// Redis.
#[derive(Debug)]
pub struct WarmSink {
    warm: Warm,
    sources: Sources,
    currency: Option<String>,
}

impl WarmSink {
    /// Amounts in the profiles' JSON are in that currency; none where they are taken as they are.
    #[must_use]
    pub fn new(warm: Warm, sources: Sources, currency: Option<String>) -> Self {
        Self { warm, sources, currency }
    }
}

impl Sink for WarmSink {
    fn topics(&self) -> Vec<TopicId> {
        vec![self.sources.profiles()]
    }

    async fn progress(&mut self, of: &[(TopicId, u32)]) -> Result<Vec<Option<Progress>>, Unreachable> {
        self.warm.ping().await?;
        self.warm.progress(&self.sources.named(of)).await
    }

    async fn apply(&mut self, stretches: &[Stretch<'_>], _now_ms: i64) -> Result<Done, Unreachable> {
        let changes: Vec<Changes<'_>> =
            stretches.iter().map(|stretch| Changes::of(stretch.records, self.currency.as_ref())).collect();
        let (_, topic) = self.sources.get(self.sources.profiles());
        let pairs = stretches.iter().zip(&changes);
        let batches: Vec<Batch<'_>> =
            pairs.map(|(stretch, changes)| changes.batch(topic, stretch, stretch.records.get(0).from.partition)).collect();
        let applied = self.warm.write(&batches).await?;
        Ok(Done { applied, unreadable: changes.iter().map(|changes| changes.unreadable).sum(), expired: 0 })
    }

    async fn tidy(&mut self, _now_ms: i64) -> Result<(), Unreachable> {
        Ok(())
    }
}

/// Postgres.
#[derive(Debug)]
pub struct ColdSink {
    writer: Writer,
    sources: Sources,
    currency: Option<String>,
}

impl ColdSink {
    /// As [`WarmSink::new`].
    #[must_use]
    pub fn new(writer: Writer, sources: Sources, currency: Option<String>) -> Self {
        Self { writer, sources, currency }
    }
}

impl Sink for ColdSink {
    fn topics(&self) -> Vec<TopicId> {
        self.sources.all.iter().map(|(_, topic, _)| *topic).collect()
    }

    async fn progress(&mut self, of: &[(TopicId, u32)]) -> Result<Vec<Option<Progress>>, Unreachable> {
        self.writer.cold().progress(&self.sources.named(of)).await
    }

    async fn apply(&mut self, stretches: &[Stretch<'_>], now_ms: i64) -> Result<Done, Unreachable> {
        let profiles = self.sources.profiles();
        let changes: Vec<Option<Changes<'_>>> = stretches
            .iter()
            .map(|stretch| {
                let is = stretch.records.get(0).from.topic == profiles;
                is.then(|| Changes::of(stretch.records, self.currency.as_ref()))
            })
            .collect();
        let mut unreadable: u64 = changes.iter().flatten().map(|changes| changes.unreadable).sum();
        let mut parts = Vec::with_capacity(stretches.len());
        for (stretch, changes) in stretches.iter().zip(&changes) {
            parts.push(match changes {
                Some(changes) => {
                    let from = stretch.records.get(0).from;
                    Part::new(changes.batch(self.sources.get(from.topic).1, stretch, from.partition))
                }
                None => part(&self.sources, stretch, &mut unreadable),
            });
        }
        let outcome = self.writer.apply(&parts, now_ms).await?;
        Ok(Done { applied: outcome.applied, unreadable, expired: outcome.expired })
    }

    async fn tidy(&mut self, now_ms: i64) -> Result<(), Unreachable> {
        self.writer.tidy(now_ms).await
    }
}

/// The rows of a stretch that holds no profiles; what is no row is counted.
fn part<'a>(sources: &'a Sources, stretch: &Stretch<'a>, unreadable: &mut u64) -> Part<'a> {
    let from = stretch.records.get(0).from;
    let (kind, topic) = sources.get(from.topic);
    let mut part = Part::new(frame(topic, stretch, from.partition));
    for record in stretch.records.iter() {
        *unreadable += u64::from(!take(sources, kind, topic, record, &mut part));
    }
    part
}

/// False where the record is none of its topic's.
fn take<'a>(sources: &'a Sources, kind: Kind, topic: &str, record: Record<'a>, part: &mut Part<'a>) -> bool {
    let id = || format!("{topic}:{}:{}", record.from.partition, record.offset);
    let Record { key, value, timestamp, .. } = record;
    // A record may be right and have no row.
    let taken = match kind {
        Kind::Profiles => None, // Those have `Changes`.
        Kind::Decisions => value
            .and_then(|value| Erasure::decode(&sources.lead, key, value, timestamp))
            .map(|erasure| part.erasures.extend(erasure)),
        Kind::Verdicts => value.and_then(VerdictRow::decode).map(|row| part.verdicts.push(row)),
        Kind::Labels => value.and_then(|value| LabelRow::decode(value, id(), key, timestamp)).map(|row| part.labels.push(row)),
        Kind::Models => records::model(&record).map(|row| part.models.extend(row)),
        Kind::Notifications => records::notification(&record).map(|row| part.notifications.extend(row)),
        Kind::Audit => records::audit(&record, id()).map(|row| part.audit.push(row)),
    };
    taken.is_some()
}
