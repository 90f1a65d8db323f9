//! Questions to the cold tier, where there is none; with one: tests/tiers.

use super::world::World;
use crate::scoring::ScoringParams;

#[test]
fn without_a_cold_tier_questions_say_so() {
    let world = World::idle(ScoringParams::default(), Vec::new());
    for path in
        ["/v1/verdicts", "/v1/anomalies?severity=HIGH", "/v1/users/u/verdicts?format=csv", "/v1/verdicts/transactions:0:0"]
    {
        world.get(path).problem(409, "no-cold-tier");
    }
}

#[test]
fn wrong_questions_are_refused_before_anything_is_asked() {
    let world = World::idle(ScoringParams::default(), Vec::new());
    for wrong in [
        "severity=high",
        "severity=HIGH,",
        "from=yesterday",
        "from=-1",
        "limit=0",
        "limit=1001",
        "after=zz",
        "after=00",
        "user_id=",
        "from=2&to=1",
        "format=xml",
        "other=1",
    ] {
        world.get(&format!("/v1/verdicts?{wrong}")).problem(400, "invalid-parameter");
    }
    world.get("/v1/users/u/verdicts?user_id=v").problem(400, "invalid-parameter");
    let user = "u".repeat(257);
    world.get(&format!("/v1/users/{user}/verdicts")).problem(400, "invalid-user-id");
}
