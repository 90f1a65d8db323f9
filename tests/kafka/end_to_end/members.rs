//! The members topic: what instances say of themselves, and what is left of them when they go.

use std::collections::BTreeMap;

use mangrove::membership::Announcement;

use super::scene::{PARTITIONS, Scene};
use super::service::Service;
use super::until;

/// The last word of each instance that has not left for good.
pub fn announced(scene: &Scene) -> BTreeMap<String, Announcement> {
    let mut last = BTreeMap::new();
    for record in scene.read(&scene.topic("app-members")) {
        let key = record.key.expect("a key");
        let name = String::from_utf8(key.clone()).expect("text");
        match record.value {
            Some(value) => drop(last.insert(name, Announcement::decode(&key, &value).expect("ours"))),
            None => drop(last.remove(&name)),
        }
    }
    last
}

/// Partitions of the only sub-topology, by instance.
fn active(scene: &Scene) -> BTreeMap<String, Vec<u32>> {
    let tasks = |said: &Announcement| {
        let mut held: Vec<u32> = said.workers.iter().flat_map(|worker| &worker.tasks).map(|&(_, partition)| partition).collect();
        held.sort_unstable();
        held
    };
    announced(scene).iter().map(|(name, said)| (name.clone(), tasks(said))).collect()
}

fn holds_all(scene: &Scene, instance: &str) -> bool {
    active(scene).get(instance) == Some(&(0..PARTITIONS).collect())
}

fn start(scene: &Scene, name: &str) -> Service {
    scene.start_with(name, &[("INSTANCE_ID", name), ("MEMBER_BEAT_MS", "500")])
}

#[test]
fn instances_announce_what_they_have_and_where_they_are() {
    let Some(scene) = Scene::new("announced") else { return };
    let mut a = start(&scene, "a");
    a.restored(PARTITIONS as usize);
    until("a announces all partitions", || holds_all(&scene, "a").then_some(()));
    let mut b = scene.start_with("b", &[("INSTANCE_ID", "b"), ("HTTP_ADVERTISED_ADDR", "scorer-b:8123")]);
    b.restored(PARTITIONS as usize / 2);
    let half = PARTITIONS as usize / 2;
    until("both announce their halves", || {
        let active = active(&scene);
        (active.len() == 2 && active.values().all(|held| held.len() == half)).then_some(())
    });
    let mut all: Vec<u32> = active(&scene).into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (0..PARTITIONS).collect::<Vec<_>>());
    let said = announced(&scene);
    assert_eq!(said["a"].endpoint, Some(a.address()));
    assert_eq!(said["b"].endpoint.as_deref(), Some("scorer-b:8123"));
    assert_eq!(said["a"].software, env!("CARGO_PKG_VERSION"));
    let ids: Vec<_> = said["a"].workers.iter().map(|worker| worker.transactional_id.clone().expect("exactly-once")).collect();
    assert_eq!(ids, [format!("{}-a-0", scene.group()), format!("{}-a-1", scene.group())]);
    let beat = said["a"].beat;
    until("beats go on without any change", || (announced(&scene)["a"].beat > beat + 2).then_some(()));
    a.stop();
    until("one that comes back says that it has nothing meanwhile", || active(&scene)["a"].is_empty().then_some(()));
    b.stop();
}

/// With LEAVE_ON_STOP nobody waits for the session to end, which would last longer than this test's patience.
#[test]
fn one_that_leaves_for_good_is_replaced_at_once_and_leaves_a_tombstone() {
    let Some(scene) = Scene::new("leaves") else { return };
    let scene = scene.with("KAFKA_SESSION_TIMEOUT_MS", "120000").with("LEAVE_ON_STOP", "true");
    let mut a = start(&scene, "a");
    a.restored(PARTITIONS as usize);
    let mut b = start(&scene, "b");
    b.restored(PARTITIONS as usize / 2);
    a.stop();
    b.restored(PARTITIONS as usize);
    until("b announces all partitions, and a is gone", || {
        (holds_all(&scene, "b") && !announced(&scene).contains_key("a")).then_some(())
    });
    b.stop();
}
