//! Verdicts by id, for requests that wait for theirs.
//!
//! One reader at the end of the verdicts topic, of those partitions only that somebody waits in, and for a while after. Who will wait enters
//! before the payment is written, so the reader is in place before the verdict can be; a verdict that is there before its offset is
//! known to whoever waits is kept for a moment ([`RECENT_BYTES`]).
//! Limits: so many at once ([`WAITING_MAX`]); a verdict that was written before anybody entered is not found.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::timeout;
use topology::broker::{Bounds, Broker, BrokerError, Reader};
use topology::record::{Fetched, TopicId, TopicPartition};
use tracing::debug;

use super::Full;
use crate::clock::{monotonic, since};
use crate::threads::spawn;

/// Requests that wait at once.
const WAITING_MAX: usize = 10_000;
/// Bytes of verdicts kept for those who do not know their offset yet.
const RECENT_BYTES: usize = 8 << 20;
/// Between two looks at who waits where.
const LOOK: Duration = Duration::from_millis(10);
/// A partition that nobody waits in any more is read for so long.
const LINGER: Duration = Duration::from_secs(10);
/// Before a broker in trouble is asked again.
const BACKOFF: Duration = Duration::from_millis(200);
const CHUNK: usize = 1_000;

/// A payment's partition and offset: what its verdict is known by.
type Id = (u32, u64);

/// A partition that is read, or to be.
#[derive(Debug, Default)]
struct Place {
    /// Requests that wait in it, or are about to.
    entered: usize,
    /// The reader is in place.
    read: bool,
    /// Who waits for that.
    entering: Vec<oneshot::Sender<()>>,
    /// When the last request left.
    left_at: Duration,
}

#[derive(Debug, Default)]
struct State {
    places: BTreeMap<u32, Place>,
    waiting: HashMap<Id, Vec<oneshot::Sender<Bytes>>>,
    recent: HashMap<Id, Bytes>,
    order: VecDeque<(Id, usize)>,
    recent_bytes: usize,
    entered: usize,
    over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the thread.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_all();
    }
}

/// See the module's header. Clones are handles on the same reader.
#[derive(Clone, Debug)]
pub struct Verdicts(Arc<Handle>);

/// A request's right to wait in one partition.
#[derive(Debug)]
pub struct Ticket {
    verdicts: Verdicts,
    partition: u32,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.verdicts.0.0.lock();
        state.entered -= 1;
        if let Some(place) = state.places.get_mut(&self.partition) {
            place.entered -= 1;
            place.left_at = monotonic();
        }
    }
}

impl Verdicts {
    pub(super) fn start<B: Broker>(broker: &Arc<B>, topic: TopicId) -> Self {
        let shared = Arc::<Shared>::default();
        let (broker, theirs) = (Arc::clone(broker), Arc::clone(&shared));
        spawn("ingest-verdicts", move || follow(&*broker, topic, &theirs));
        Self(Arc::new(Handle(shared)))
    }

    /// Begins to wait for verdicts of a partition's users: from the end of this call on none is missed. None where the reader is not in
    /// place in time.
    ///
    /// # Errors
    /// [`Full`] where too many wait already.
    pub async fn enter(&self, partition: u32, limit: Duration) -> Result<Option<Ticket>, Full> {
        let in_place = {
            let mut state = self.0.0.lock();
            if state.entered >= WAITING_MAX {
                return Err(Full);
            }
            state.entered += 1;
            let place = state.places.entry(partition).or_default();
            place.entered += 1;
            if place.read {
                None
            } else {
                let (tell, told) = oneshot::channel();
                place.entering.push(tell);
                Some(told)
            }
        };
        let ticket = Ticket { verdicts: self.clone(), partition };
        self.0.0.changed.notify_all();
        match in_place {
            None => Ok(Some(ticket)),
            Some(told) => Ok(matches!(timeout(limit, told).await, Ok(Ok(()))).then_some(ticket)),
        }
    }
}

impl Ticket {
    /// The verdict's bytes as they are in the topic; none where it does not come in time.
    pub async fn wait(&self, partition: u32, offset: u64, limit: Duration) -> Option<Bytes> {
        let id = (partition, offset);
        let told = {
            let mut state = self.verdicts.0.0.lock();
            if let Some(verdict) = state.recent.get(&id) {
                return Some(verdict.clone());
            }
            let (tell, told) = oneshot::channel();
            state.waiting.entry(id).or_default().push(tell);
            told
        };
        if let Ok(verdict) = timeout(limit, told).await {
            return verdict.ok();
        }
        let mut state = self.verdicts.0.0.lock();
        if let Some(waiting) = state.waiting.get_mut(&id) {
            waiting.retain(|tell| !tell.is_closed());
            if waiting.is_empty() {
                state.waiting.remove(&id);
            }
        }
        None
    }
}

impl State {
    fn deliver(&mut self, id: Id, verdict: &[u8]) {
        let verdict = Bytes::copy_from_slice(verdict);
        for tell in self.waiting.remove(&id).unwrap_or_default() {
            // Who gave up waiting is told nothing.
            let _gone = tell.send(verdict.clone());
        }
        self.order.push_back((id, verdict.len()));
        self.recent_bytes += verdict.len();
        self.recent.insert(id, verdict);
        while self.recent_bytes > RECENT_BYTES
            && let Some((id, bytes)) = self.order.pop_front()
        {
            self.recent.remove(&id);
            self.recent_bytes -= bytes;
        }
    }

    fn forget(&mut self) {
        self.recent.clear();
        self.order.clear();
        self.recent_bytes = 0;
        // Their senders go: who waits learns that nothing comes.
        self.waiting.retain(|_, tell| tell.iter().any(|tell| !tell.is_closed()));
    }
}

/// The payment that a verdict is about.
fn id_of(verdict: &[u8]) -> Option<Id> {
    #[derive(Deserialize)]
    struct Known<'v> {
        #[serde(borrow)]
        id: Cow<'v, str>,
    }
    let Known { id } = serde_json::from_slice(verdict).ok()?;
    let (rest, offset) = id.rsplit_once(':')?;
    let (_, partition) = rest.rsplit_once(':')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

/// The thread: reads for as long as somebody waits.
fn follow<B: Broker>(broker: &B, topic: TopicId, shared: &Shared) {
    let mut reader: Option<B::Reader> = None;
    let mut fetched = Fetched::default();
    while let Some((wanted, dropped)) = wait_for_work(shared, reader.is_some()) {
        if wanted.is_empty() && dropped.is_empty() && reader.is_none() {
            continue;
        }
        let read = step(broker, topic, shared, &mut reader, &wanted, &dropped, &mut fetched);
        if let Err(why) = read {
            debug!(%why, "verdicts cannot be read for those who wait for them");
            reader = None;
            let mut state = shared.lock();
            state.places.values_mut().for_each(|place| place.read = false);
            drop(shared.changed.wait_timeout(state, BACKOFF).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Partitions to begin with and to leave; none once nobody can wait any more.
fn wait_for_work(shared: &Shared, reads: bool) -> Option<(Vec<u32>, Vec<u32>)> {
    let mut state = shared.lock();
    if !reads && state.places.is_empty() && !state.over {
        state = shared.changed.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner).0;
    }
    if state.over {
        return None;
    }
    let wanted = state.places.iter().filter(|(_, place)| !place.read && place.entered > 0).map(|(of, _)| *of).collect();
    let stale = |place: &Place| place.entered == 0 && since(place.left_at) > LINGER;
    let dropped: Vec<u32> = state.places.iter().filter(|(_, place)| stale(place)).map(|(of, _)| *of).collect();
    state.places.retain(|_, place| !stale(place));
    if state.places.is_empty() {
        state.forget();
    }
    Some((wanted, dropped))
}

fn step<B: Broker>(
    broker: &B,
    topic: TopicId,
    shared: &Shared,
    reader: &mut Option<B::Reader>,
    wanted: &[u32],
    dropped: &[u32],
    fetched: &mut Fetched,
) -> Result<(), BrokerError> {
    let reading = match &mut *reader {
        Some(reader) => reader,
        none => none.insert(broker.reader()?),
    };
    for &partition in dropped {
        reading.unassign(TopicPartition { topic, partition })?;
    }
    for &partition in wanted {
        let at = TopicPartition { topic, partition };
        let Bounds { end, .. } = reading.bounds(at)?;
        reading.assign(at, end)?;
        let mut state = shared.lock();
        if let Some(place) = state.places.get_mut(&partition) {
            place.read = true;
            for tell in place.entering.drain(..) {
                let _gone = tell.send(());
            }
        }
    }
    if shared.lock().places.is_empty() {
        *reader = None;
        return Ok(());
    }
    fetched.clear(1 << 20);
    reading.poll(fetched, CHUNK, LOOK)?;
    let ids: Vec<Option<Id>> = fetched.iter().map(|record| id_of(record.value.unwrap_or_default())).collect();
    let mut state = shared.lock();
    if fetched.is_empty() {
        // A broker in memory answers at once.
        drop(shared.changed.wait_timeout(state, Duration::from_millis(1)).unwrap_or_else(PoisonError::into_inner));
        return Ok(());
    }
    for (record, id) in fetched.iter().zip(ids) {
        if let Some(id) = id {
            state.deliver(id, record.value.unwrap_or_default());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_names_its_payment() {
        assert_eq!(id_of(br#"{"tx_id":"t","id":"a.transactions:3:120","score":null}"#), Some((3, 120)));
        for other in [&b"{}"[..], b"x", br#"{"id":"inference:1"}"#, br#"{"id":"t:a:1"}"#] {
            assert_eq!(id_of(other), None);
        }
    }

    #[test]
    fn verdicts_that_came_early_are_kept_within_bounds() {
        let mut state = State::default();
        let verdict = vec![b'x'; RECENT_BYTES / 4];
        for offset in 0..6 {
            state.deliver((0, offset), &verdict);
        }
        assert_eq!(
            (0..6).map(|offset| state.recent.contains_key(&(0, offset))).collect::<Vec<_>>(),
            [false, false, true, true, true, true]
        );
        assert_eq!(state.recent_bytes, RECENT_BYTES);
    }
}
