//! Where verdicts are read: a topic of a broker, from its end on or back from it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use models::Verdict;
use serde_json::value::RawValue;
use topology::broker::{Broker, Result};
use topology::record::TopicId;

use super::{KEPT, Places, Seen};
use crate::clock::{monotonic, since};
use crate::tap::{Follower, Tapped};

/// Records of all partitions together that one look reads.
const LOOK_RECORDS: u64 = 20_000;
/// For a look.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// For one poll.
const WAIT: Duration = Duration::from_millis(100);

/// What a look into a topic found.
#[derive(Debug, Default)]
pub struct Look {
    /// The newest that were wanted, in the order of each partition, oldest first.
    pub found: VecDeque<Arc<Seen>>,
    /// Offsets looked through.
    pub looked: u64,
    /// True where older (or, of what was missed, other) ones were left unread.
    pub more: bool,
}

/// Gives each verdict as it comes; false ends it.
pub(super) type Each<'e> = &'e mut dyn FnMut(Told) -> bool;

/// What the follower is told.
pub(super) enum Told {
    /// An anomaly of before.
    Earlier(Seen),
    /// Where each partition begins to be read.
    Begins(Vec<u64>),
    /// A verdict.
    Verdict(Seen),
    /// All that was there before was given.
    Warm,
    /// Nothing new for now.
    Idle,
}

/// The verdicts, wherever they are.
pub(super) trait Source: Send + Sync {
    /// Gives the last ones and then those that come, until `each` says false.
    fn follow(&self, each: Each<'_>) -> Result<()>;

    /// Looks back from the end of the partitions that are wanted (of so many), for the newest `most` that are `wanted`.
    fn look_back(&self, partitions: &dyn Fn(u32, u32) -> bool, wanted: &dyn Fn(&Verdict) -> bool, most: usize) -> Result<Look>;

    /// Looks from these places to those.
    fn between(&self, from: &[u64], to: &[u64], wanted: &dyn Fn(&Verdict) -> bool) -> Result<Look>;
}

/// Verdicts of a broker's topics.
pub(super) struct OnBroker<B: Broker> {
    pub(super) broker: Arc<B>,
    pub(super) places: Places,
}

impl<B: Broker> OnBroker<B> {
    fn follower(&self, topic: TopicId) -> Result<Follower<B>> {
        Follower::new(&*self.broker, topic)
    }

    /// Reads spans, given by partition.
    fn read(
        &self,
        mut follower: Follower<B>,
        spans: &[(u32, u64, u64)],
        wanted: &dyn Fn(&Verdict) -> bool,
        most: usize,
    ) -> Result<Look> {
        let mut look = Look { looked: spans.iter().map(|(_, from, to)| to - from).sum(), ..Look::default() };
        for &(partition, from, _) in spans.iter().filter(|(_, from, to)| from < to) {
            follower.begin(partition, from)?;
        }
        let end_of = |partition: u32| spans.iter().find(|span| span.0 == partition).map_or(0, |span| span.2);
        let began = monotonic();
        while spans.iter().any(|&(partition, from, to)| from < to && follower.passed(partition).is_none_or(|at| at < to)) {
            if since(began) > LOOK_MAX {
                look.more = true;
                break;
            }
            follower.poll(WAIT, &mut |tapped| {
                let wanted = tapped.offset < end_of(tapped.partition) && wanted(&tapped.verdict);
                if let Some(seen) = wanted.then(|| seen(tapped)).flatten() {
                    if look.found.len() == most {
                        look.found.pop_front();
                        look.more = true;
                    }
                    look.found.push_back(Arc::new(seen));
                }
                true
            })?;
        }
        Ok(look)
    }
}

/// None for bytes that are no text: no verdict that was read has such.
fn seen(tapped: Tapped<'_>) -> Option<Seen> {
    let Tapped { verdict, bytes, partition, offset } = tapped;
    let json = serde_json::from_slice::<Box<RawValue>>(bytes).ok()?;
    Some(Seen { partition, offset, verdict, json })
}

impl<B: Broker> Source for OnBroker<B> {
    fn follow(&self, each: Each<'_>) -> Result<()> {
        let anomalies = self.follower(self.places.anomalies)?;
        let spans = last(&anomalies, &|_, _| true, KEPT as u64);
        for earlier in self.read(anomalies, &spans, &|_| true, KEPT)?.found {
            let Some(earlier) = Arc::into_inner(earlier) else { continue };
            if !each(Told::Earlier(earlier)) {
                return Ok(());
            }
        }
        let mut follower = self.follower(self.places.verdicts)?;
        let spans = last(&follower, &|_, _| true, KEPT as u64);
        for &(partition, from, _) in &spans {
            follower.begin(partition, from)?;
        }
        if !each(Told::Begins(spans.iter().map(|span| span.1).collect())) {
            return Ok(());
        }
        let began = monotonic();
        let mut warm = false;
        loop {
            let mut some = false;
            let go_on = follower.poll(WAIT, &mut |tapped| {
                some = true;
                seen(tapped).is_none_or(|seen| each(Told::Verdict(seen)))
            })?;
            // Someone's open transaction may hide the end for longer than people want to wait.
            let at_end = |&(partition, from, to): &(u32, u64, u64)| from == to || follower.passed(partition) >= Some(to);
            if go_on && !warm && (spans.iter().all(at_end) || since(began) > WAIT * 10) {
                warm = true;
                each(Told::Warm);
            }
            if !go_on || !each(Told::Idle) {
                return Ok(());
            }
            if !some {
                // A broker that does not wait must not make this spin.
                std::thread::park_timeout(WAIT / 10);
            }
        }
    }

    fn look_back(&self, partitions: &dyn Fn(u32, u32) -> bool, wanted: &dyn Fn(&Verdict) -> bool, most: usize) -> Result<Look> {
        let follower = self.follower(self.places.verdicts)?;
        let spans = last(&follower, partitions, LOOK_RECORDS);
        let older = spans.iter().any(|&(partition, from, _)| from > follower.bounds()[partition as usize].start);
        let look = self.read(follower, &spans, wanted, most)?;
        Ok(Look { more: look.more || older, ..look })
    }

    fn between(&self, from: &[u64], to: &[u64], wanted: &dyn Fn(&Verdict) -> bool) -> Result<Look> {
        let follower = self.follower(self.places.verdicts)?;
        let share = (LOOK_RECORDS / to.len().max(1) as u64).max(1);
        let mut more = false;
        let mut spans = Vec::with_capacity(to.len());
        for ((partition, &to), bounds) in (0..).zip(to).zip(follower.bounds()) {
            // A place of before a partition was added, or one that nobody gave: nothing was missed there.
            let to = to.min(bounds.end);
            let wish = from.get(partition as usize).copied().unwrap_or(to).min(to);
            let begin = wish.max(bounds.start.min(to)).max(to.saturating_sub(share));
            more |= begin > wish;
            spans.push((partition, begin, to));
        }
        let look = self.read(follower, &spans, wanted, KEPT)?;
        Ok(Look { more: look.more || more, ..look })
    }
}

/// The last records of the wanted partitions, so many of all together: partition, from, to.
fn last<B: Broker>(follower: &Follower<B>, wanted: &dyn Fn(u32, u32) -> bool, records: u64) -> Vec<(u32, u64, u64)> {
    let count = follower.bounds().len() as u32;
    let partitions = (0..count).filter(|&partition| wanted(partition, count)).count() as u64;
    let share = records.div_ceil(partitions.max(1));
    let spans = (0..count).zip(follower.bounds()).filter(|(partition, _)| wanted(*partition, count));
    spans.map(|(partition, bounds)| (partition, bounds.end.saturating_sub(share).max(bounds.start), bounds.end)).collect()
}
