//! Asks the broker about once a second where the inputs of this instance's tasks end: lag is made of it. Beside the workers, so
//! that a broker that is slow to answer costs them nothing.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use topology::broker::{Broker, Reader, Result};
use topology::record::TopicPartition;
use topology::status::Tasks;
use tracing::{debug, warn};

use crate::api::Health;
use crate::clock::{monotonic, since};
use crate::stop::Stop;
use crate::threads::{ended_by, spawn};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(1);
/// Between two looks at the flag.
const LOOK: Duration = Duration::from_millis(50);

/// The running thread; it ends some time after [`Ends::tell`].
pub(super) struct Ends {
    thread: JoinHandle<()>,
    stop: Stop,
}

impl Ends {
    pub(super) fn follow<B: Broker>(broker: &Arc<B>, tasks: &Arc<Tasks>, health: &Arc<Health>) -> Self {
        let stop = Stop::default();
        let (broker, tasks, health, flag) = (Arc::clone(broker), Arc::clone(tasks), Arc::clone(health), stop.clone());
        let work = move || {
            let mut reader: Option<B::Reader> = None;
            while !flag.raised() {
                let all = tasks.all();
                let inputs = all.values().flat_map(|task| task.inputs.iter().map(|(of, _)| *of));
                if let Err(why) = round(&*broker, &mut reader, inputs, &health) {
                    debug!(%why, "the inputs' ends are not known");
                    reader = None;
                }
                let began = monotonic();
                while !flag.raised() && since(began) < ROUND {
                    std::thread::park_timeout(LOOK);
                }
            }
        };
        Self { thread: spawn("input-ends", work), stop }
    }

    /// Tells it to end.
    pub(super) fn tell(&self) {
        self.stop.raise();
    }

    /// Waits for its end, as long as given: a call to a broker that is gone may take longer.
    pub(super) fn wait(self, within: Duration) {
        if ended_by(&self.thread, monotonic() + within) && self.thread.join().is_err() {
            warn!("the thread that follows the inputs' ends panicked");
        }
    }
}

/// Asks once for each input; with none there is no reader yet either.
fn round<B: Broker>(
    broker: &B,
    reader: &mut Option<B::Reader>,
    inputs: impl Iterator<Item = TopicPartition>,
    health: &Health,
) -> Result<()> {
    for input in inputs {
        let reader = match reader {
            Some(reader) => reader,
            None => reader.insert(broker.reader()?),
        };
        health.input_ends(&[(input, reader.bounds(input)?.end)]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use topology::broker::{Cleanup, Publisher, TopicSpec};
    use topology::record::{Outgoing, TopicId, Topics};
    use topology::simulated::SimBroker;

    use super::*;

    #[test]
    fn ends_are_those_of_the_broker() {
        let broker = SimBroker::new(Topics::new(vec!["in".to_owned()]));
        let cleanup = Cleanup::Delete { retention_ms: None };
        broker.create(&TopicSpec { name: "in".to_owned(), partitions: 2, cleanup, max_message_bytes: None }).expect("created");
        let at = |partition| TopicPartition { topic: TopicId(0), partition };
        let mut publisher = broker.publisher().expect("a publisher");
        let health = Health::new(0, 0, 1);
        let mut reader = None;
        for sent in 1..4 {
            let record = Outgoing { to: at(1), key: None, value: Some(b"x"), timestamp: 0, headers: &[] };
            publisher.send(&record).and_then(|()| publisher.flush()).expect("sent");
            round(&broker, &mut reader, [at(0), at(1)].into_iter(), &health).expect("an answer");
            assert_eq!((health.input_end(at(0)), health.input_end(at(1))), (Some(0), Some(sent)));
        }
    }
}
