//! The scoring topology: names of topics, and how they hang together.

use std::sync::Arc;

use topology::topology::{InvalidTopology, StoreId, Topology};

use super::UserProfile;
use super::fx::FxTable;
use super::processor::Scoring;
use super::slot::ModelSlot;

/// The profiles store's number in its sub-topology.
pub const PROFILES: StoreId = StoreId(0);

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
}

impl Default for TopicNames {
    fn default() -> Self {
        Self {
            transactions: "transactions".into(),
            commands: "commands".into(),
            verdicts: "verdicts".into(),
            anomalies: "anomalies".into(),
            dead_letters: "dead-letters".into(),
        }
    }
}

/// How input records came to their partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitioning {
    /// By murmur2 of the user's id, as every Java client does it: checked for each record.
    #[default]
    Murmur2,
    /// Anyhow: the topology first sends each record to its user's partition of a repartition topic.
    Any,
}

/// What scoring depends on besides records and state.
#[derive(Clone, Debug)]
pub struct ScoringParams {
    /// A score from here up is an anomaly.
    pub threshold: f64,
    /// Reasons in every verdict, not only in anomalies.
    pub reasons_for_all: bool,
    /// How far an event may lie after its record's own time, in milliseconds.
    pub max_future_ms: i64,
    /// Fixes column 9's bound, with or without a model.
    pub global_amount_p99: Option<f64>,
    /// Rates of exchange, where amounts are converted.
    pub fx: Option<Arc<FxTable>>,
    /// How input records came to their partitions.
    pub partitioning: Partitioning,
}

impl Default for ScoringParams {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            reasons_for_all: false,
            max_future_ms: 3_600_000,
            global_amount_p99: None,
            fx: None,
            partitioning: Partitioning::default(),
        }
    }
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
    let mut builder = Topology::builder(application).dead_letters(&names.dead_letters);
    let lead = match params.partitioning {
        Partitioning::Murmur2 => &names.transactions,
        Partitioning::Any => {
            let limits = super::processor::limits(&params);
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
        .build()
}
