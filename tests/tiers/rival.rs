//! Another projector of the same topics into the same tiers, in a group of its own: what a zombie is.

use mangrove::projection::{ColdSink, FollowerConfig, Projection, Sources, Status, WarmSink};
use mangrove::tiers::{Cold, ColdOptions, ServerUrl, Warm, WarmOptions, Writer};
use std::time::Duration;

use crate::stage::Stage;

/// How a projector of that name follows a tier's topics.
pub fn config(name: &str, tier: &str) -> FollowerConfig {
    let mut config = FollowerConfig::default();
    config.member.group = format!("{name}-{tier}");
    config.member.instance = format!("{name}-{tier}");
    config
}

pub struct Rival(Projection);

impl Rival {
    pub fn start(stage: &Stage, redis: &ServerUrl, postgres: &ServerUrl, name: &str) -> Self {
        let sources = Sources::of(&stage.api().topology, "verdicts", "labels", "models");
        let status = Status::default();
        let mut projection = Projection::none();
        let warm = Warm::open(redis, &stage.application, WarmOptions::default()).unwrap();
        projection.spawn(&stage.broker, WarmSink::new(warm, sources.clone(), None), config(name, "redis"), status.tier("redis"));
        let cold = Cold::open(postgres, &stage.application, &ColdOptions::default()).unwrap();
        let sink = ColdSink::new(Writer::new(cold, 90), sources, None);
        projection.spawn(&stage.broker, sink, config(name, "postgres"), status.tier("postgres"));
        Self(projection)
    }

    pub fn stop(self) {
        self.0.tell();
        self.0.wait(Duration::from_secs(20));
    }
}
