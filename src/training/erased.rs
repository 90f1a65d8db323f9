//! Who was erased, and up to which payment: what training leaves out.

use std::collections::HashMap;

use models::Verdict;
use topology::broker::{Broker, BrokerError};
use topology::decision::Decision;
use topology::record::{Record, TopicId};

use crate::broker::scan;

/// By partition and user: the payments' next offset at the last erasure. Looked up, never walked through.
#[derive(Debug, Default)]
pub(super) struct Erased(HashMap<(u32, Box<[u8]>), u64>);

impl Erased {
    /// Reads the decisions.
    pub(super) fn read<B: Broker>(broker: &B, decisions: TopicId, stopped: &dyn Fn() -> bool) -> Result<Self, BrokerError> {
        let mut erased = Self::default();
        let tell = &mut |record: &Record<'_>| {
            let decision = record.value.and_then(|value| Decision::decode(value).ok());
            if let (Some(user), Some(decision)) = (record.key, decision.filter(|decision| decision.kind == "erase")) {
                let after = erased.0.entry((record.from.partition, user.into())).or_default();
                *after = decision.after.max(*after);
            }
        };
        scan(broker, decisions, 1, tell, &mut || Ok(()), stopped)?;
        Ok(erased)
    }

    /// True where the verdict is of a payment before its user's erasure. An id that names a record of another topic than `lead` tells no
    /// order: then whatever was logged of the user counts as before.
    pub(super) fn covers(&self, partition: u32, lead: &str, verdict: &Verdict) -> bool {
        let Some(&after) = self.0.get(&(partition, verdict.user_id.as_bytes().into())) else { return false };
        let mut parts = verdict.id.rsplitn(3, ':');
        let (offset, _, topic) = (parts.next(), parts.next(), parts.next());
        topic != Some(lead) || offset.and_then(|offset| offset.parse::<u64>().ok()).is_none_or(|offset| offset < after)
    }
}

#[cfg(test)]
mod tests {
    use models::{FEATURES, Severity};
    use topology::broker::{Cleanup, Publisher as _, TopicSpec};
    use topology::record::{Outgoing, TopicPartition};
    use topology::simulated::SimBroker;

    use super::super::{Logs, Span, from_verdicts};
    use super::*;
    use crate::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};

    fn verdict(user: &str, topic: &str, offset: u64) -> Vec<u8> {
        let verdict = Verdict {
            tx_id: "t".into(),
            id: format!("{topic}:0:{offset}"),
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
        let said = [("ann", "transactions", 0), ("bob", "transactions", 1), ("ann", "transactions", 2), ("ann", "elsewhere", 9)];
        for (user, topic, offset) in said {
            write(logs.verdicts, user, &verdict(user, topic, offset));
        }
        let rows = || {
            let rows = from_verdicts(&broker, logs, Span::All, 0, &|_| (), &|| false).expect("rows");
            rows.features().chunks(FEATURES).map(|row| row[0]).collect::<Vec<f32>>()
        };
        assert_eq!(rows(), [0.0, 1.0, 2.0, 9.0]);
        write(logs.decisions, "ann", br#"{"after":1,"kind":"reset"}"#);
        assert_eq!(rows(), [0.0, 1.0, 2.0, 9.0], "a reset is none");
        write(logs.decisions, "ann", br#"{"after":2,"kind":"erase"}"#);
        assert_eq!(rows(), [1.0, 2.0], "what has no order to the erasure is left out, too");
    }
}
