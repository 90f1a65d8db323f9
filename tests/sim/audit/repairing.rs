//! A repair replaces what differs, and nothing else.

use std::time::Duration;

use mangrove::audit::Naming;
use topology::broker::{Broker as _, Publisher as _};
use topology::record::Outgoing;

use super::{audit_of, busy, difference, differences, last, one_more_payment, topic};
use crate::scoring_world::{T, World};

/// Ends the driver's worker, and lets the group notice.
fn stop(world: &mut World) {
    world.driver.crash(false);
    world.driver.sim.advance(600_000);
}

fn plant(world: &World, user: &str) {
    let victim = last(world, "test-profiles-changelog", |record| record.key.as_deref() == Some(user.as_bytes()));
    let value = one_more_payment(victim.value.as_deref().unwrap());
    let mut publisher = world.driver.sim.publisher().unwrap();
    let key = Some(user.as_bytes());
    publisher.send(&Outgoing { to: victim.partition, key, value: Some(&value), timestamp: 0, headers: &[] }).unwrap();
    publisher.flush().unwrap();
}

#[test]
fn a_repair_replaces_what_differs_and_only_when_told_to_and_only_alone() {
    let mut world = busy(2);
    plant(&world, "user-9");
    let audit = audit_of(&world.driver.sim);
    let repair = |write: bool, patience: Duration| {
        audit.repair(&[0, 1], write, "test-rebuild", patience, 0, &Naming::Id, &mut |_, _, _| {})
    };
    let refused = repair(true, Duration::from_millis(300)).unwrap_err();
    assert!(refused.to_string().contains("Stop all instances"), "{refused}");
    stop(&mut world);
    let end = || world.driver.sim.committed_records(topic("test-profiles-changelog")).len();
    let before = end();
    let planned: Vec<u64> = repair(false, Duration::from_secs(20)).unwrap().iter().map(|repair| repair.replaced).collect();
    assert_eq!((planned.iter().sum::<u64>(), end()), (1, before), "a dry run writes nothing");
    assert_eq!(difference(&world.driver.sim).user.as_deref(), Some("user-9"));
    let done = repair(true, Duration::from_secs(20)).unwrap();
    assert_eq!(done.iter().map(|repair| repair.replaced).sum::<u64>(), 1);
    assert_eq!(end(), before + 1);
    assert_eq!(differences(&world.driver.sim), []);
    // The application goes on behind it.
    world.driver.crash(true);
    world.pay("user-9", 5.0, "shop-1", T + 90_000_000);
    world.driver.run().unwrap();
    assert_eq!(differences(&world.driver.sim), []);
}
