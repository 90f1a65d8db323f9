//! The notifications topic as any instance or command sees it, and orders to whoever notifies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use topology::broker::{Broker, BrokerError};
use topology::clock::Clock;
use topology::record::TopicId;
use tracing::warn;

use super::entry::{Delivery, Disabled, Key, Order, Standing, decode, encode};
use crate::registry::{BrokerLog, ModelsLog, Write, writer};
use crate::trouble::Trouble;

/// The longest that one look at the topic waits for news.
const LOOK: Duration = Duration::from_millis(100);
/// After a failure.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Default)]
struct View {
    deliveries: BTreeMap<String, Delivery>,
    disabled: BTreeMap<String, Disabled>,
}

impl View {
    fn apply(&mut self, key: &[u8], value: Option<&[u8]>) {
        match Key::decode(key) {
            Some(Key::Delivery(id)) => match value.and_then(decode::<Delivery>) {
                Some(delivery) => drop(self.deliveries.insert(id, delivery)),
                None => drop(self.deliveries.remove(&id)),
            },
            Some(Key::Target(name)) => match value.and_then(decode::<Standing>).and_then(|standing| standing.disabled) {
                Some(disabled) => drop(self.disabled.insert(name, disabled)),
                None => drop(self.disabled.remove(&name)),
            },
            _ => {}
        }
    }
}

struct Inner {
    view: Mutex<View>,
    log: Mutex<Box<dyn ModelsLog>>,
    write: Mutex<Box<Write>>,
    clock: Arc<dyn Clock>,
}

/// See the module's header. Clones share it.
#[derive(Clone)]
pub struct Book(Arc<Inner>);

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    /// One that has read nothing yet.
    #[must_use]
    pub fn new<B: Broker>(broker: &Arc<B>, topic: TopicId, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            view: Mutex::default(),
            log: Mutex::new(Box::new(BrokerLog::new(Arc::clone(broker), topic))),
            write: Mutex::new(writer(broker, topic)),
            clock,
        }))
    }

    /// Reads the topic to the end that it has now.
    ///
    /// # Errors
    /// The broker's.
    pub fn catch_up(&self) -> Result<(), BrokerError> {
        let end = lock(&self.0.log).end()?;
        while self.look()? < end {}
        Ok(())
    }

    /// Follows the topic until `stopped`.
    pub fn run(&self, stopped: &dyn Fn() -> bool) {
        let mut trouble = Trouble::default();
        while !stopped() {
            match self.look() {
                Ok(_) => trouble.is_over(),
                Err(why) => {
                    if trouble.is_news(&why) {
                        warn!(%why, "the notifications topic cannot be read; trying again");
                    }
                    std::thread::park_timeout(AGAIN);
                }
            }
        }
    }

    fn look(&self) -> Result<u64, BrokerError> {
        let mut news = Vec::new();
        let position = lock(&self.0.log).read(LOOK, &mut |_, key, value| news.push((key.to_vec(), value.map(<[u8]>::to_vec))))?;
        let mut view = lock(&self.0.view);
        for (key, value) in news {
            view.apply(&key, value.as_deref());
        }
        Ok(position)
    }

    /// Deliveries that wait or were given up, the latest first.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        let mut all: Vec<Delivery> = lock(&self.0.view).deliveries.values().cloned().collect();
        all.sort_by(|a, b| (b.made_ms, &b.id).cmp(&(a.made_ms, &a.id)));
        all
    }

    /// One of them.
    #[must_use]
    pub fn delivery(&self, id: &str) -> Option<Delivery> {
        lock(&self.0.view).deliveries.get(id).cloned()
    }

    /// Targets that asked for nothing more, and why.
    #[must_use]
    pub fn disabled(&self) -> BTreeMap<String, Disabled> {
        lock(&self.0.view).disabled.clone()
    }

    /// Tells whoever notifies what to do. It is done once the order is gone from the topic.
    ///
    /// # Errors
    /// The broker's.
    pub fn order(&self, order: &Order) -> Result<(), BrokerError> {
        let now_ms = self.0.clock.now_ms();
        (lock(&self.0.write))(&order.key().encode(), Some(&encode(order)), now_ms).map(drop)
    }
}
