//! The loop of one tier: group, places, records, rows.
//!
//! ```text
//!  join (once the tier answers) -> poll -> events: places come and go
//!        ^                          |  -> places without progress: asked of the tier, then started there
//!        |                          '- -> records: written, places move on
//!   broker's trouble                      the tier's trouble: all places are forgotten, and asked for anew after a while
//! ```
//!
//! While the tier is down the group is polled as ever, so that the partitions stay; nothing is fetched meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use state::tier::{Applied, Unreachable};
use tokio::runtime::Runtime;
use topology::broker::{Broker, BrokerError, Event, Member as _, MemberConfig};
use topology::record::{Batch, Fetched, TopicPartition};
use tracing::{debug, info, warn};

use super::place::{Place, Remark, choose};
use super::sink::{Sink, Stretch};
use super::status::{Lag, TierState};
use crate::clock::{monotonic, now_ms, since};
use crate::random;
use crate::stop::Stop;

/// How a follower works.
#[derive(Clone, Debug)]
pub struct FollowerConfig {
    /// Its place in the group; the sink says which topics.
    pub member: MemberConfig,
    /// Records of one poll.
    pub max_records: usize,
    /// Between two attempts to reach what is down: at first, and at most.
    pub backoff: (Duration, Duration),
    /// How often the ends of topics are asked for, and offsets are committed for people's tools.
    pub look: Duration,
    /// How often the tier is asked whether it still has what it had.
    pub check: Duration,
    /// How often housekeeping is done.
    pub tidy: Duration,
}

impl Default for FollowerConfig {
    fn default() -> Self {
        let (group, instance) = (String::new(), String::new());
        Self {
            member: MemberConfig { group, instance, transactional_id: None, transaction_timeout_ms: 60_000, leads: Vec::new() },
            max_records: 10_000,
            backoff: (Duration::from_millis(100), Duration::from_secs(10)),
            look: Duration::from_secs(1),
            check: Duration::from_secs(5),
            tidy: Duration::from_secs(3_600),
        }
    }
}

/// The longest wait for records, so that a stop is noticed.
const WAIT: Duration = Duration::from_millis(100);
/// Arena memory that stays between polls.
const KEEP_ARENA_BYTES: usize = 8 << 20;

/// What went wrong.
enum Trouble {
    Tier(Unreachable),
    Broker(BrokerError),
}

impl From<Unreachable> for Trouble {
    fn from(why: Unreachable) -> Self {
        Self::Tier(why)
    }
}

impl From<BrokerError> for Trouble {
    fn from(why: BrokerError) -> Self {
        Self::Broker(why)
    }
}

/// See the module's header.
pub(super) struct Follower<B: Broker, S: Sink> {
    broker: Arc<B>,
    sink: S,
    config: FollowerConfig,
    state: Arc<TierState>,
    runtime: Runtime,
    member: Option<B::Member>,
    /// Partitions that the group gave us; without a place until the tier was asked.
    places: BTreeMap<TopicPartition, Option<Place>>,
    fetched: Fetched,
    order: Vec<u32>,
    /// Attempts that failed in a row, and when to try again.
    failed: u32,
    retry_at: Duration,
    looked: Duration,
    /// Where partitions ended at the last look, of those that were started before it.
    ends: BTreeMap<TopicPartition, u64>,
    checked: Option<Duration>,
    tidied: Option<Duration>,
}

impl<B: Broker, S: Sink> Follower<B, S> {
    pub(super) fn new(broker: Arc<B>, sink: S, mut config: FollowerConfig, state: Arc<TierState>) -> Self {
        config.member.leads = sink.topics();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            broker,
            sink,
            config,
            state,
            runtime: runtime.expect("invariant: the system has what a runtime needs at start"),
            member: None,
            places: BTreeMap::new(),
            fetched: Fetched::default(),
            order: Vec::new(),
            failed: 0,
            retry_at: Duration::ZERO,
            looked: Duration::ZERO,
            ends: BTreeMap::new(),
            checked: None,
            tidied: None,
        }
    }

    /// Goes on until told to stop.
    pub(super) fn run(mut self, stop: &Stop) {
        while !stop.raised() {
            if let Err(trouble) = self.step() {
                self.suffer(trouble);
            }
        }
        if let Some(mut member) = self.member.take() {
            // It may come back; if it does not, the group will notice.
            let _late = member.leave(true);
        }
    }

    fn step(&mut self) -> Result<(), Trouble> {
        let resting = monotonic() < self.retry_at;
        if self.member.is_none() {
            if resting {
                std::thread::park_timeout(WAIT.min(self.retry_at.saturating_sub(monotonic())));
                return Ok(());
            }
            // Without a tier there is nothing to do in the group; others may do it.
            self.runtime.block_on(self.sink.progress(&[]))?;
            self.member = Some(self.broker.join(&self.config.member)?);
        }
        self.listen()?;
        if monotonic() < self.retry_at {
            return Ok(());
        }
        self.take_places()?;
        self.write()?;
        self.look_after()
    }

    /// Polls; what the group decided takes effect.
    fn listen(&mut self) -> Result<(), Trouble> {
        let member = self.member.as_mut().expect("invariant: the caller joined");
        self.fetched.clear(KEEP_ARENA_BYTES);
        let event = member.poll(&mut self.fetched, self.config.max_records, WAIT)?;
        let Some(event) = event else { return Ok(()) };
        match &event {
            Event::Assigned(partitions) => self.places.extend(partitions.iter().map(|&of| (of, None))),
            Event::Revoked(partitions) | Event::Lost(partitions) => {
                // What was fetched of them is left to the next owner: nothing of it was written.
                let mut lags = self.state.lags();
                for of in partitions {
                    self.places.remove(of);
                    lags.remove(of);
                }
            }
        }
        Ok(member.acknowledge(&event)?)
    }

    /// Asks the tier where partitions stand that have no place yet, and starts them there.
    fn take_places(&mut self) -> Result<(), Trouble> {
        let missing: Vec<TopicPartition> = self.places.iter().filter(|(_, place)| place.is_none()).map(|(of, _)| *of).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let asked: Vec<_> = missing.iter().map(|of| (of.topic, of.partition)).collect();
        let stored = self.runtime.block_on(self.sink.progress(&asked))?;
        let member = self.member.as_mut().expect("invariant: the caller joined");
        let mut starts = Vec::with_capacity(missing.len());
        for (of, stored) in missing.into_iter().zip(stored) {
            let bounds = member.bounds(of)?;
            let (place, at, remark) = choose(stored, bounds);
            let (tier, topic) = (self.state.name(), self.broker.topics().name(of.topic));
            match remark {
                Remark::Continues | Remark::Begins => debug!(tier, topic, of.partition, at, "projecting"),
                Remark::Recreated => {
                    warn!(tier, topic, of.partition, "the topic was created anew: it is projected from its start")
                }
                Remark::Skips(count) => warn!(tier, topic, of.partition, count, "the topic no longer has what the tier lacks"),
            }
            self.places.insert(of, Some(place));
            self.ends.remove(&of);
            let lag = Lag { next: at, end: bounds.end, complete: at >= bounds.end, at_ms: None };
            self.state.lags().insert(of, lag);
            starts.push((of, at));
        }
        Ok(member.start(&starts)?)
    }

    fn write(&mut self) -> Result<(), Trouble> {
        self.fetched.order_by_partition(&mut self.order);
        let mut stretches = Vec::new();
        for (&of, place) in &self.places {
            let records = Batch::new(&self.fetched, self.fetched.places(&self.order, of));
            if let Some(place) = *place
                && !records.is_empty()
            {
                stretches.push(Stretch { place, records });
            }
        }
        if stretches.is_empty() {
            return Ok(());
        }
        let done = self.runtime.block_on(self.sink.apply(&stretches, now_ms()))?;
        let (mut written, mut refused) = (0, Vec::new());
        let mut lags = self.state.lags();
        for (stretch, applied) in stretches.iter().zip(&done.applied) {
            let of = stretch.records.get(0).from;
            if *applied == Applied::Refused {
                refused.push(of);
                continue;
            }
            written += stretch.records.len() as u64;
            let next = stretch.to();
            self.places.insert(of, Some(Place { next, first: false, ..stretch.place }));
            let lag = lags.entry(of).or_default();
            let newest = stretch.records.iter().map(|record| record.timestamp).max();
            *lag = Lag { next, complete: false, at_ms: lag.at_ms.max(newest), ..*lag };
        }
        drop(lags);
        self.state.count(written, done.unreadable, done.expired);
        self.works();
        self.begin_anew(&refused)
    }

    /// The tier does not stand where we thought.
    fn begin_anew(&mut self, partitions: &[TopicPartition]) -> Result<(), Trouble> {
        if partitions.is_empty() {
            return Ok(());
        }
        let tier = self.state.name();
        info!(tier, partitions = partitions.len(), "the tier does not stand where it was left: it is asked again");
        for of in partitions {
            self.places.insert(*of, None);
        }
        let member = self.member.as_mut().expect("invariant: the caller joined");
        Ok(member.stop(partitions)?)
    }

    /// What is done now and then.
    fn look_after(&mut self) -> Result<(), Trouble> {
        if since(self.looked) >= self.config.look {
            self.looked = monotonic();
            self.ask_ends()?;
            self.commit();
        }
        if self.checked.is_none_or(|checked| since(checked) >= self.config.check) {
            self.checked = Some(monotonic());
            self.check()?;
        }
        if self.tidied.is_none_or(|tidied| since(tidied) >= self.config.tidy) {
            self.tidied = Some(monotonic());
            self.runtime.block_on(self.sink.tidy(now_ms()))?;
        }
        Ok(())
    }

    fn ask_ends(&mut self) -> Result<(), Trouble> {
        let member = self.member.as_mut().expect("invariant: the caller joined");
        for (&of, _) in self.places.iter().filter(|(_, place)| place.is_some()) {
            let end = member.bounds(of)?.end;
            let mut lags = self.state.lags();
            let lag = lags.entry(of).or_default();
            // The end is where it was a round ago, and what comes before it has been fetched meanwhile, if there is a record.
            let same = self.ends.insert(of, end) == Some(end);
            let quiet = same && !self.fetched.iter().any(|record| record.from == of);
            *lag = Lag { complete: lag.next >= end || (quiet && self.fetched.is_empty()), end, ..*lag };
        }
        Ok(())
    }

    /// For people's tools: what fails here is tried again soon.
    fn commit(&mut self) {
        let offsets: Vec<_> = self.places.iter().filter_map(|(&of, place)| Some((of, (*place)?.next))).collect();
        let member = self.member.as_mut().expect("invariant: the caller joined");
        if offsets.is_empty() {
            return;
        }
        if let Err(why) = member.token().and_then(|token| member.commit_offsets(&offsets, token)) {
            debug!(tier = self.state.name(), %why, "offsets were not committed");
        }
    }

    /// A tier that lost its memory says so itself where there is something to write; here where there is not.
    fn check(&mut self) -> Result<(), Trouble> {
        let placed: Vec<(TopicPartition, Place)> =
            self.places.iter().filter_map(|(&of, place)| Some((of, (*place)?))).filter(|(_, place)| !place.first).collect();
        let asked: Vec<_> = placed.iter().map(|(of, _)| (of.topic, of.partition)).collect();
        let stored = self.runtime.block_on(self.sink.progress(&asked))?;
        // One that answers and refuses what there is to write does not work.
        if self.failed == 0 || self.state.lags().values().all(|lag| lag.records() == 0) {
            self.works();
        }
        let lost = placed.iter().zip(stored).filter(|((_, place), stored)| {
            stored.is_none_or(|stored| (stored.generation, stored.next) < (place.generation, place.next))
        });
        let lost: Vec<TopicPartition> = lost.map(|((of, _), _)| *of).collect();
        self.begin_anew(&lost)
    }

    fn works(&mut self) {
        self.failed = 0;
        if self.state.answers() {
            info!(tier = self.state.name(), "the tier answers");
        }
    }

    /// Says so once, forgets all places and rests; longer each time, and not all instances at once.
    fn suffer(&mut self, trouble: Trouble) {
        let tier = self.state.name();
        let (is_tier, why) = match &trouble {
            Trouble::Tier(why) => (true, why.to_string()),
            Trouble::Broker(why) => (false, why.to_string()),
        };
        if self.state.fails(is_tier, &why) {
            warn!(tier, why, "the projection rests; scoring goes on, and what is missing is written later");
        }
        let (least, most) = self.config.backoff;
        let rest = least.saturating_mul(1 << self.failed.min(16)).min(most);
        self.failed += 1;
        // From half of it to all of it.
        let jitter = 0.5 + (random::number() % 1_000) as f64 / 2_000.0;
        self.retry_at = monotonic() + rest.mul_f64(jitter);
        let placed: Vec<TopicPartition> = self.places.iter().filter(|(_, place)| place.is_some()).map(|(of, _)| *of).collect();
        for place in self.places.values_mut() {
            *place = None;
        }
        let stopped = match &mut self.member {
            Some(member) if is_tier => member.stop(&placed).is_ok(),
            _ => false,
        };
        if !stopped {
            // The broker's trouble, whatever it asks for, ends with a new membership.
            self.member = None;
            self.places.clear();
            self.state.lags().clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use state::tier::Progress;
    use topology::broker::{Cleanup, Publisher as _, TopicSpec};
    use topology::record::{Outgoing, TopicId, Topics};

    use super::super::sink::Done;
    use super::super::status::Status;
    use super::*;
    use crate::broker::embedded::{Durability, EmbeddedBroker, EmbeddedOptions};

    const TOPIC: TopicId = TopicId(0);

    /// A tier that has nothing, and takes everything.
    struct Takes;

    impl Sink for Takes {
        fn topics(&self) -> Vec<TopicId> {
            vec![TOPIC]
        }

        async fn progress(&mut self, of: &[(TopicId, u32)]) -> Result<Vec<Option<Progress>>, Unreachable> {
            Ok(vec![None; of.len()])
        }

        async fn apply(&mut self, stretches: &[Stretch<'_>], _: i64) -> Result<Done, Unreachable> {
            Ok(Done { applied: vec![Applied::Taken; stretches.len()], ..Done::default() })
        }

        async fn tidy(&mut self, _: i64) -> Result<(), Unreachable> {
            Ok(())
        }
    }

    /// It looks at the ends at each step, also between the start of a partition and its first records.
    #[test]
    fn nothing_is_called_complete_before_it_was_read() {
        const RECORDS: u64 = 10;
        let folder = tempfile::tempdir().expect("a folder");
        let options = EmbeddedOptions { durability: Durability::Os, ..EmbeddedOptions::default() };
        let topics = Topics::new(vec!["verdicts".to_owned()]);
        let broker = EmbeddedBroker::open(folder.path(), topics, options, Arc::new(|| 0)).expect("a broker");
        let cleanup = Cleanup::Delete { retention_ms: None };
        broker.create(&TopicSpec { name: "verdicts".into(), partitions: 1, cleanup, max_message_bytes: None }).expect("a topic");
        let mut publisher = broker.publisher().expect("a publisher");
        let to = TopicPartition { topic: TOPIC, partition: 0 };
        for _ in 0..RECORDS {
            publisher.send(&Outgoing { to, key: Some(b"u"), value: Some(b"v"), timestamp: 0, headers: &[] }).expect("sent");
        }
        publisher.flush().expect("durable");
        let mut config = FollowerConfig { look: Duration::ZERO, check: Duration::MAX, ..FollowerConfig::default() };
        (config.member.group, config.member.instance) = ("g".into(), "i".into());
        let state = Status::default().tier("postgres");
        let mut follower = Follower::new(Arc::new(broker), Takes, config, Arc::clone(&state));
        let begun = monotonic();
        while state.view().written < RECORDS {
            assert!(follower.step().is_ok());
            let view = state.view();
            assert!(view.lags.is_empty() || view.written + view.lag_records() >= RECORDS, "{view:?}");
            assert!(since(begun) < Duration::from_secs(60), "nothing is written");
        }
        assert!(follower.step().is_ok());
        assert_eq!(state.view().lag_records(), 0);
    }
}
