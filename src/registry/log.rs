//! The models topic on a broker.

use std::sync::Arc;
use std::time::Duration;

use topology::broker::{Bounds, Broker, BrokerError, Reader as _};
use topology::record::{Fetched, TopicId, TopicPartition};

use crate::broker::Scribe;

/// Records of one poll.
const POLL: usize = 1_000;

/// Takes a record's offset, key and value.
pub type Tell<'a> = dyn FnMut(u64, &[u8], Option<&[u8]>) + 'a;

/// A log of one partition that is read from its beginning and written to.
pub trait ModelsLog: Send {
    /// Waits up to `wait` for records and tells each. Returns the offset below which everything was told.
    ///
    /// # Errors
    /// The broker's; the next call goes on where this one ended.
    fn read(&mut self, wait: Duration, tell: &mut Tell<'_>) -> Result<u64, BrokerError>;

    /// The end of what is written.
    ///
    /// # Errors
    /// The broker's.
    fn end(&mut self) -> Result<u64, BrokerError>;
}

/// The topic on a broker.
pub struct BrokerLog<B: Broker> {
    broker: Arc<B>,
    at: TopicPartition,
    reader: Option<B::Reader>,
    next: u64,
    fetched: Fetched,
}

impl<B: Broker> BrokerLog<B> {
    /// From the topic's first record on; nothing is asked of the broker yet.
    #[must_use]
    pub fn new(broker: Arc<B>, topic: TopicId) -> Self {
        Self { broker, at: TopicPartition { topic, partition: 0 }, reader: None, next: 0, fetched: Fetched::default() }
    }

    fn reader(&mut self) -> Result<&mut B::Reader, BrokerError> {
        if self.reader.is_none() {
            let mut reader = self.broker.reader()?;
            let Bounds { start, .. } = reader.bounds(self.at)?;
            reader.assign(self.at, self.next.max(start))?;
            self.reader = Some(reader);
        }
        Ok(self.reader.as_mut().expect("invariant: made above"))
    }

    fn try_read(&mut self, wait: Duration) -> Result<(), BrokerError> {
        let mut fetched = std::mem::take(&mut self.fetched);
        fetched.clear(1 << 20);
        let polled = self.reader().and_then(|reader| reader.poll(&mut fetched, POLL, wait));
        self.fetched = fetched;
        polled
    }
}

impl<B: Broker> ModelsLog for BrokerLog<B> {
    fn read(&mut self, wait: Duration, tell: &mut Tell<'_>) -> Result<u64, BrokerError> {
        if let Err(why) = self.try_read(wait) {
            // A fresh reader begins where the last record was told.
            self.reader = None;
            return Err(why);
        }
        for record in self.fetched.iter() {
            tell(record.offset, record.key.unwrap_or_default(), record.value);
            self.next = self.next.max(record.offset + 1);
        }
        let position = self.reader.as_ref().and_then(|reader| reader.position(self.at));
        self.next = self.next.max(position.unwrap_or(0));
        Ok(self.next)
    }

    fn end(&mut self) -> Result<u64, BrokerError> {
        let at = self.at;
        Ok(self.reader()?.bounds(at)?.end)
    }
}

/// Writes one record to the topic; returns its offset.
pub type Write = dyn FnMut(&[u8], Option<&[u8]>, i64) -> Result<u64, BrokerError> + Send;

/// A writer to the topic.
pub(crate) fn writer<B: Broker>(broker: &Arc<B>, topic: TopicId) -> Box<Write> {
    let to = TopicPartition { topic, partition: 0 };
    let mut scribe = Scribe::new(broker);
    Box::new(move |key, value, now_ms| scribe.write(to, key, value, now_ms))
}
