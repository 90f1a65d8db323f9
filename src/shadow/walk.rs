//! One model's way through the log of verdicts.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use models::features::{GLOBAL_AMOUNT_FLAG, global_amount_flag};
use models::verdict::Fx;
use models::{FEATURES, Model};
use serde::Deserialize;
use topology::broker::{Broker, BrokerError, Reader as _};
use topology::clock::Clock;
use topology::record::{Fetched, TopicId, TopicPartition};

use crate::broker::partitions;
use crate::registry::{Cost, Shadowing, Tally};

/// Verdicts of one poll, and rows of one batch.
const CHUNK: usize = 2_000;
/// Bytes of the arena that are kept between polls.
const ARENA: usize = 4 << 20;
/// Of so many batches, one is scored by the active model as well, for its time.
const ACTIVE_TIMED: u64 = 8;

/// What of a verdict is compared.
#[derive(Deserialize)]
struct Scored<'v> {
    #[serde(borrow)]
    id: Cow<'v, str>,
    amount: f64,
    score: Option<f64>,
    is_anomaly: bool,
    features: [f32; FEATURES],
    #[serde(borrow)]
    model_id: Option<Cow<'v, str>>,
    #[serde(default)]
    fx: Option<Fx>,
}

/// See the module's header.
pub(super) struct Walk<B: Broker> {
    pub(super) shadow: Shadowing,
    pub(super) tally: Tally,
    /// True where the tally has news that are not written down.
    pub(super) changed: bool,
    /// When it was last written down, by the monotonic clock in microseconds.
    pub(super) written_us: u64,
    /// The ends of the partitions when the shadow was due to be judged.
    goal: Option<Vec<(u32, u64)>>,
    model: Model,
    topic: TopicId,
    reader: B::Reader,
    fetched: Fetched,
    batches: u64,
}

impl<B: Broker> Walk<B> {
    /// Goes on where the tally ends, or begins.
    pub(super) fn begin(
        broker: &B,
        topic: TopicId,
        model: Model,
        shadow: Shadowing,
        known: Option<&Tally>,
    ) -> Result<Self, BrokerError> {
        let partitions = partitions(broker, topic)?.unwrap_or(0);
        let mut reader = broker.reader()?;
        let fresh = || Tally { model: shadow.model.clone(), began_ms: shadow.began_ms, ..Tally::default() };
        let mut tally = known.cloned().unwrap_or_else(fresh);
        for partition in 0..partitions {
            let at = TopicPartition { topic, partition };
            let bounds = reader.bounds(at)?;
            let first = if shadow.whole_log { bounds.start } else { bounds.end };
            let position = tally.positions.entry(partition).or_insert(first);
            // What retention took is not compared.
            *position = (*position).clamp(bounds.start, bounds.end);
            reader.assign(at, *position)?;
        }
        let (changed, goal, fetched) = (known.is_none(), None, Fetched::default());
        Ok(Self { shadow, tally, changed, written_us: 0, goal, model, topic, reader, fetched, batches: 0 })
    }

    /// Compares what is new, waiting for it at most so long. True where something was.
    pub(super) fn step(
        &mut self,
        wait: Duration,
        threshold: f64,
        active: Option<&Arc<Model>>,
        clock: &dyn Clock,
    ) -> Result<bool, BrokerError> {
        self.fetched.clear(ARENA);
        self.reader.poll(&mut self.fetched, CHUNK, wait)?;
        let mut verdicts = Vec::with_capacity(self.fetched.len());
        let mut rows = Vec::with_capacity(self.fetched.len() * FEATURES);
        for record in self.fetched.iter() {
            let Ok(verdict) = serde_json::from_slice::<Scored<'_>>(record.value.unwrap_or_default()) else { continue };
            // Without a score there is nothing to compare with, and its own are no comparison.
            let Some(score) = verdict.score.filter(|_| verdict.model_id.as_deref() != Some(&self.shadow.model)) else { continue };
            rows.extend_from_slice(&row_for(&verdict, &self.model));
            verdicts.push((score, verdict));
        }
        let scores = timed(&self.model, &rows, &mut self.tally.cost, clock);
        if let Some(active) = active.filter(|_| !rows.is_empty() && self.batches.is_multiple_of(ACTIVE_TIMED)) {
            timed(active, &rows, &mut self.tally.active_cost, clock);
        }
        self.batches += u64::from(!rows.is_empty());
        for ((score, verdict), raw) in verdicts.iter().zip(scores) {
            self.tally.comparison.add(&verdict.id, verdict.is_anomaly, *score, self.model.score(raw), threshold);
        }
        let mut moved = false;
        for (&partition, position) in &mut self.tally.positions {
            let now = self.reader.position(TopicPartition { topic: self.topic, partition }).unwrap_or(*position);
            moved |= now > *position;
            *position = now.max(*position);
        }
        self.changed |= moved;
        Ok(moved)
    }

    /// True once everything is compared that was in the log when this was first asked.
    pub(super) fn has_reached_its_goal(&mut self) -> Result<bool, BrokerError> {
        let goal = match self.goal.take() {
            Some(goal) => goal,
            None => {
                let (topic, reader) = (self.topic, &mut self.reader);
                let end = |&partition: &u32| Ok((partition, reader.bounds(TopicPartition { topic, partition })?.end));
                self.tally.positions.keys().map(end).collect::<Result<_, BrokerError>>()?
            }
        };
        let reached = goal.iter().all(|(partition, end)| self.tally.positions.get(partition).is_some_and(|at| at >= end));
        self.goal = Some(goal);
        Ok(reached)
    }
}

/// The features as the shadow's own task would have had them: with its own bound in column 9.
fn row_for(verdict: &Scored<'_>, model: &Model) -> [f32; FEATURES] {
    let amount = verdict.fx.as_ref().map_or(verdict.amount, |fx| fx.amount);
    let mut row = verdict.features;
    row[GLOBAL_AMOUNT_FLAG] = global_amount_flag(amount, Some(model.global_amount_p99));
    row
}

fn timed(model: &Model, rows: &[f32], cost: &mut Cost, clock: &dyn Clock) -> Vec<f64> {
    let mut scores = Vec::new();
    let began_us = clock.monotonic_us();
    model.forest.raw_scores(rows, &mut scores);
    cost.micros += clock.monotonic_us() - began_us;
    cost.rows += scores.len() as u64;
    scores
}
