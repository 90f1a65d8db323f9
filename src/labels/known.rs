//! The labels topic, folded: the latest label of each payment.

use std::collections::HashMap;

use topology::broker::{Broker, Result};
use topology::record::TopicId;

use super::record::{Finding, Label};
use crate::broker::scan;

/// When a label was given, and where it lies: the greater one counts.
type Moment = (i64, u64);

/// See the module's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    by_verdict: HashMap<String, (Moment, bool)>,
    /// By user, then by the sender's id of the payment.
    by_payment: HashMap<String, HashMap<String, (Moment, bool)>>,
}

fn later(slot: &mut (Moment, bool), found: (Moment, bool)) {
    if found.0 >= slot.0 {
        *slot = found;
    }
}

impl Known {
    /// Every label that is in the topic.
    ///
    /// # Errors
    /// The broker's.
    pub fn read<B: Broker>(broker: &B, labels: TopicId, stopped: &dyn Fn() -> bool) -> Result<Self> {
        let mut known = Self::default();
        let tell = &mut |record: &topology::record::Record<'_>| {
            // What is no label is nothing to us; the projection counts such records.
            if let Some(Ok(label)) = record.value.map(|value| Label::decode(value, record.timestamp)) {
                known.take(&label, record.offset);
            }
        };
        scan(broker, labels, 1, tell, &mut || Ok(()), stopped)?;
        Ok(known)
    }

    /// Takes one in, with its offset.
    pub fn take(&mut self, label: &Label, offset: u64) {
        let found = ((label.at, offset), label.label == Finding::Fraud);
        if let Some(id) = &label.verdict_id {
            later(self.by_verdict.entry(id.clone()).or_insert(found), found);
        } else if let (Some(user), Some(payment)) = (&label.user_id, &label.tx_id) {
            let of_user = self.by_payment.entry(user.clone()).or_default();
            later(of_user.entry(payment.clone()).or_insert(found), found);
        }
    }

    /// Whether a payment was a fraud; none where nobody has said.
    #[must_use]
    pub fn of(&self, verdict_id: &str, user_id: &str, tx_id: &str) -> Option<bool> {
        let by_payment = self.by_payment.get(user_id).and_then(|of_user| of_user.get(tx_id));
        [self.by_verdict.get(verdict_id), by_payment]
            .into_iter()
            .flatten()
            .max_by_key(|(moment, _)| *moment)
            .map(|(_, fraud)| *fraud)
    }

    /// True where nobody has said anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_verdict.is_empty() && self.by_payment.is_empty()
    }
}
