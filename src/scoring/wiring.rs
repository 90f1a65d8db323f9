//! The scoring topology: names of topics, and how they hang together.

use topology::topology::{InvalidTopology, Topology};

use super::UserProfile;
use super::params::{Partitioning, ScoringParams};
use super::processor::Scoring;
use super::slot::ModelSlot;

/// The topics' names, in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicNames {
    /// Payments in.
    pub transactions: String,
    /// Resets and erasures in.
    pub commands: String,
    /// Every verdict out.
    pub verdicts: String,
    /// Verdicts from the threshold up.
    pub anomalies: String,
    /// What could not be processed.
    pub dead_letters: String,
    /// Which model is active.
    pub models: String,
    /// What people found out.
    pub labels: String,
}

impl Default for TopicNames {
    fn default() -> Self {
        Self {
            transactions: "transactions".into(),
            commands: "commands".into(),
            verdicts: "verdicts".into(),
            anomalies: "anomalies".into(),
            dead_letters: "dead-letters".into(),
            models: "models".into(),
            labels: "labels".into(),
        }
    }
}

/// The topic of an application's snoozes.
#[must_use]
pub fn snoozes_topic(application: &str) -> String {
    format!("{application}-snoozes")
}

/// Where an application keeps what it is to tell people.
#[must_use]
pub fn notifications_topic(application: &str) -> String {
    format!("{application}-notifications")
}

/// Where an application's instances write down who changed what over HTTP: one record of JSON for each request, see `api::trail`.
#[must_use]
pub fn audit_topic(application: &str) -> String {
    format!("{application}-audit")
}

/// The scoring topology of an application.
///
/// # Errors
/// Where names collide.
pub fn scoring_topology(
    application: &str,
    names: &TopicNames,
    params: &ScoringParams,
    model: &ModelSlot,
) -> Result<Topology, InvalidTopology> {
    let (params, model) = (params.clone(), model.clone());
    let by_user = format!("{application}-by-user-repartition");
    let (snoozes, notifications) = (snoozes_topic(application), notifications_topic(application));
    let builder = Topology::builder(application).dead_letters(&names.dead_letters).global(&names.models);
    let mut builder = builder.global(&snoozes).global(&notifications).beside(&names.labels).beside(&audit_topic(application));
    let lead = match params.partitioning {
        Partitioning::Murmur2 => &names.transactions,
        Partitioning::Any => {
            let limits = params.limits();
            builder = builder.sub(
                "by-user",
                move |_| super::repartition::ByUser::new(limits),
                |wiring| wiring.input(&names.transactions).output(&by_user),
            );
            &by_user
        }
    };
    builder
        .sub(
            "score",
            move |_| Scoring::new(params.clone(), model.clone()),
            |wiring| {
                wiring
                    .input(lead)
                    .input(&names.commands)
                    .store::<UserProfile>("profiles")
                    .decisions()
                    .output(&names.verdicts)
                    .output(&names.anomalies)
            },
        )
        .members()
        .build()
}
