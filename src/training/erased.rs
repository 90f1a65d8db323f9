//! Who was erased, and up to which payment: what training leaves out.

use std::collections::HashMap;

use topology::broker::{Broker, BrokerError};
use topology::decision::Decision;
use topology::record::{Record, TopicId};

use crate::audit::Place;
use crate::broker::scan;
use crate::tiers::postgres_text;

/// By user, as Postgres writes ids: the partition and the payments' next offset at the last erasure. Looked up, never walked through.
#[derive(Debug, Default)]
pub(super) struct Erased(HashMap<String, (u32, u64)>);

impl Erased {
    /// Reads the decisions.
    pub(super) fn read<B: Broker>(broker: &B, decisions: TopicId, stopped: &dyn Fn() -> bool) -> Result<Self, BrokerError> {
        let mut erased = Self::default();
        let tell = &mut |record: &Record<'_>| {
            let decision = record.value.and_then(|value| Decision::decode(value).ok());
            let user = record.key.and_then(|key| std::str::from_utf8(key).ok());
            if let (Some(user), Some(decision)) = (user, decision.filter(|decision| decision.kind == "erase")) {
                let here = (record.from.partition, decision.after);
                let last = erased.0.entry(postgres_text(user).into_owned()).or_insert(here);
                *last = here.max(*last);
            }
        };
        scan(broker, decisions, 1, tell, &mut || Ok(()), stopped)?;
        Ok(erased)
    }

    /// True where the verdict is of a payment before its user's erasure. An id that names a record of another topic than `lead`, or of
    /// another partition, tells no order: then whatever was logged of the user counts as before.
    pub(super) fn covers(&self, lead: &str, user_id: &str, id: &str) -> bool {
        let Some(&(partition, after)) = self.0.get(postgres_text(user_id).as_ref()) else { return false };
        !id.parse::<Place>().is_ok_and(|place| place.topic == lead && place.partition == partition && place.offset >= after)
    }
}

#[cfg(test)]
mod tests {
    use models::{FEATURES, Severity, Verdict};
    use topology::broker::{Cleanup, Publisher as _, TopicSpec};
    use topology::record::{Outgoing, TopicPartition};
    use topology::simulated::SimBroker;

    use super::super::{Logs, Span, from_verdicts};
    use super::*;
    use crate::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};

    fn verdict(user: &str, place: &str, offset: u64) -> Vec<u8> {
        let verdict = Verdict {
            tx_id: "t".into(),
            id: format!("{place}:{offset}"),
            user_id: user.into(),
            event_time: 1,
            amount: offset as f64,
            currency: None,
            merchant: "m".into(),
            score: None,
            raw_score: None,
            is_anomaly: false,
            severity: Severity::None,
            explanation: String::new(),
            reasons: Vec::new(),
            features: [offset as f32; FEATURES],
            model_id: None,
            fx: None,
        };
        serde_json::to_vec(&verdict).expect("a verdict")
    }

    #[test]
    fn training_leaves_out_what_was_said_of_a_user_before_the_erasure() {
        let topology = scoring_topology("t", &TopicNames::default(), &ScoringParams::default(), &ModelSlot::default());
        let topology = topology.expect("a topology");
        let logs = Logs::of(&topology, "verdicts", "labels");
        let broker = SimBroker::new(topology.topics().clone());
        for (_, name) in topology.topics().iter() {
            let cleanup = Cleanup::Delete { retention_ms: None };
            let spec = TopicSpec { name: name.to_owned(), partitions: 1, cleanup, max_message_bytes: None };
            broker.create(&spec).expect("a topic");
        }
        let mut publisher = broker.publisher().expect("a publisher");
        let mut write = |topic, key: &str, value: &[u8]| {
            let to = TopicPartition { topic, partition: 0 };
            let record = Outgoing { to, key: Some(key.as_bytes()), value: Some(value), timestamp: 1, headers: &[] };
            publisher.send(&record).expect("taken");
            publisher.flush().expect("durable");
        };
        let said = [
            ("ann", "transactions:0", 0),
            ("bob", "transactions:0", 1),
            ("ann", "transactions:0", 2),
            ("ann", "elsewhere:0", 9),
            // As it was before the topics grew.
            ("ann", "transactions:1", 8),
            // Written again after a failure.
            ("bob", "transactions:0", 1),
        ];
        for (user, place, offset) in said {
            write(logs.verdicts, user, &verdict(user, place, offset));
        }
        let rows = || {
            let rows = from_verdicts(&broker, logs, Span::All, 0, &|_| (), &|| false).expect("rows");
            rows.features().chunks(FEATURES).map(|row| row[0]).collect::<Vec<f32>>()
        };
        assert_eq!(rows(), [0.0, 1.0, 2.0, 8.0, 9.0]);
        write(logs.decisions, "ann", br#"{"after":1,"kind":"reset"}"#);
        assert_eq!(rows(), [0.0, 1.0, 2.0, 8.0, 9.0], "a reset is none");
        write(logs.decisions, "ann", br#"{"after":2,"kind":"erase"}"#);
        assert_eq!(rows(), [1.0, 2.0], "what has no order to the erasure is left out, too");
    }
}
