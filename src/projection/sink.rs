//! Records of a poll into rows of a tier.

use std::collections::HashMap;

use models::Profile;
use state::store::decode_kept;
use state::tier::{Applied, Batch, Change, Progress, Tier as _, Unreachable};
use topology::record::{Batch as Records, Record, TopicId};
use topology::topology::Topology;

use super::place::Place;
use crate::labels::Label;
use crate::portrait::Portrait;
use crate::scoring::UserProfile;
use crate::tiers::{Part, VerdictRow, Warm, Writer};

/// The topics that are projected, by number and name.
#[derive(Clone, Debug)]
pub struct Sources {
    changelog: (TopicId, String),
    verdicts: Option<(TopicId, String)>,
    labels: Option<(TopicId, String)>,
}

impl Sources {
    /// The topics of a scoring topology.
    ///
    /// # Panics
    /// Where the topology keeps no profiles, which no scoring topology does.
    #[must_use]
    pub fn of(topology: &Topology, verdicts: &str, labels: &str) -> Self {
        let named = |name: &str| topology.topics().find(name).map(|topic| (topic, name.to_owned()));
        let changelog = topology.changelogs().last().expect("invariant: scoring keeps profiles");
        Self {
            changelog: (changelog, topology.topics().name(changelog).to_owned()),
            verdicts: named(verdicts),
            labels: named(labels),
        }
    }

    fn all(&self) -> impl Iterator<Item = &(TopicId, String)> {
        [Some(&self.changelog), self.verdicts.as_ref(), self.labels.as_ref()].into_iter().flatten()
    }

    fn name(&self, topic: TopicId) -> &str {
        self.all().find(|(of, _)| *of == topic).map_or("", |(_, name)| name)
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
        vec![self.sources.changelog.0]
    }

    async fn progress(&mut self, of: &[(TopicId, u32)]) -> Result<Vec<Option<Progress>>, Unreachable> {
        self.warm.ping().await?;
        let named: Vec<(&str, u32)> = of.iter().map(|&(topic, partition)| (self.sources.name(topic), partition)).collect();
        self.warm.progress(&named).await
    }

    async fn apply(&mut self, stretches: &[Stretch<'_>], _now_ms: i64) -> Result<Done, Unreachable> {
        let changes: Vec<Changes<'_>> =
            stretches.iter().map(|stretch| Changes::of(stretch.records, self.currency.as_ref())).collect();
        let topic = &self.sources.changelog.1;
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
        self.sources.all().map(|(topic, _)| *topic).collect()
    }

    async fn progress(&mut self, of: &[(TopicId, u32)]) -> Result<Vec<Option<Progress>>, Unreachable> {
        let named: Vec<(&str, u32)> = of.iter().map(|&(topic, partition)| (self.sources.name(topic), partition)).collect();
        self.writer.cold().progress(&named).await
    }

    async fn apply(&mut self, stretches: &[Stretch<'_>], now_ms: i64) -> Result<Done, Unreachable> {
        let is = |stretch: &Stretch<'_>, of: Option<&(TopicId, String)>| {
            of.is_some_and(|(topic, _)| *topic == stretch.records.get(0).from.topic)
        };
        let changes: Vec<Option<Changes<'_>>> = stretches
            .iter()
            .map(|stretch| {
                is(stretch, Some(&self.sources.changelog)).then(|| Changes::of(stretch.records, self.currency.as_ref()))
            })
            .collect();
        let mut unreadable: u64 = changes.iter().flatten().map(|changes| changes.unreadable).sum();
        let mut parts = Vec::with_capacity(stretches.len());
        for (stretch, changes) in stretches.iter().zip(&changes) {
            let from = stretch.records.get(0).from;
            let topic = self.sources.name(from.topic);
            let batch = match changes {
                Some(changes) => changes.batch(topic, stretch, from.partition),
                None => frame(topic, stretch, from.partition),
            };
            let mut part = Part { batch, verdicts: Vec::new(), labels: Vec::new() };
            if is(stretch, self.sources.verdicts.as_ref()) {
                part.verdicts.extend(stretch.records.iter().filter_map(|record| VerdictRow::decode(record.value?)));
                unreadable += (stretch.records.len() - part.verdicts.len()) as u64;
            } else if is(stretch, self.sources.labels.as_ref()) {
                let label = |record: Record<'_>| {
                    let label = Label::decode(record.value?, record.timestamp).ok()?;
                    Some((format!("{topic}:{}:{}", from.partition, record.offset), label))
                };
                part.labels.extend(stretch.records.iter().filter_map(label));
                unreadable += (stretch.records.len() - part.labels.len()) as u64;
            }
            parts.push(part);
        }
        let outcome = self.writer.apply(&parts, now_ms).await?;
        Ok(Done { applied: outcome.applied, unreadable, expired: outcome.expired })
    }

    async fn tidy(&mut self, now_ms: i64) -> Result<(), Unreachable> {
        self.writer.tidy(now_ms).await
    }
}
