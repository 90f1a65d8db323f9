//! What a producer hears of its records, and how it listens.

use std::time::Duration;

use rdkafka::ClientConfig;

/// What a producer hears of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reports {
    /// Of those that failed: a member, which asks after its records only when it commits.
    Failures,
    /// Of each: a publisher, which learns offsets. Until its report is served nothing counts as delivered.
    Each,
}

impl Reports {
    /// As a producer of these settings hears.
    pub(super) fn of(config: &ClientConfig) -> Self {
        if config.get("delivery.report.only.error") == Some("true") { Self::Failures } else { Self::Each }
    }

    /// How long one wait for deliveries lasts before failures are looked at. While reports wait to be served, waiting is in vain.
    pub(super) fn slice(self) -> Duration {
        match self {
            Self::Failures => Duration::from_millis(20),
            Self::Each => Duration::from_millis(1),
        }
    }

    /// Serves what waits and never waits for more. One `poll` serves one event, the reports of one batch, and small batches make many. Who
    /// hears of failures only has nothing to catch up with: what is in flight falls by itself then, and to poll for as long as it does would be to
    /// poll all the time.
    pub(super) fn serve(self, in_flight: impl Fn() -> i32, poll: impl Fn()) {
        loop {
            let before = in_flight();
            poll();
            if self == Self::Failures || in_flight() >= before {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::broker::kafka::config::KafkaConfig;
    use crate::broker::kafka::config::tests::{LIMITS, member};

    /// How often is polled where each look finds one record less in flight, as while a broker acknowledges.
    fn polls(reports: Reports) -> u32 {
        let (in_flight, polls) = (Cell::new(1_000), Cell::new(0));
        let look = || {
            in_flight.set((in_flight.get() - 1).max(0));
            in_flight.get()
        };
        reports.serve(look, || polls.set(polls.get() + 1));
        polls.get()
    }

    #[test]
    fn a_member_polls_once_however_fast_its_records_are_acknowledged() {
        assert_eq!(polls(Reports::Failures), 1);
    }

    #[test]
    fn a_publisher_polls_until_no_report_waits() {
        // Two looks a round, a thousand records: until a round finds nothing less.
        assert_eq!(polls(Reports::Each), 501);
    }

    #[test]
    fn members_hear_of_failures_and_publishers_of_each_record() {
        let config = KafkaConfig::default();
        for transactional_id in [None, Some("app-0")] {
            let member = member(transactional_id);
            assert_eq!(Reports::of(&config.writing(&member, LIMITS)), Reports::Failures, "{member:?}");
        }
        assert_eq!(Reports::of(&config.publishing(LIMITS)), Reports::Each);
    }
}
