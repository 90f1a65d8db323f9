//! One owner at a time, whatever happens in whatever order; and balance.

use proptest::prelude::*;

use super::*;

const LEAD: TopicId = TopicId(3);
const PATIENCE: Patience = Patience { silent_ms: 1000, away_ms: 100 };

fn partitions(count: u32) -> Vec<TopicPartition> {
    (0..count).map(|partition| TopicPartition { topic: LEAD, partition }).collect()
}

/// Members as their threads see it: what they were told and have acknowledged.
#[derive(Default)]
struct World {
    group: Group,
    count: u32,
    now_ms: i64,
    members: BTreeMap<MemberId, Believed>,
}

struct Believed {
    instance: String,
    owned: BTreeSet<TopicPartition>,
    pending: Option<Event>,
}

impl World {
    fn join(&mut self, instance: u8) -> MemberId {
        let instance = format!("worker-{instance}");
        let id = self.group.join(&instance, &[LEAD], &partitions(self.count), self.now_ms);
        // The predecessor is fenced: whatever it still believes, its commits are refused.
        self.members.retain(|_, member| member.instance != instance);
        self.members.insert(id, Believed { instance, owned: BTreeSet::new(), pending: None });
        id
    }

    fn poll(&mut self, id: MemberId) {
        if self.members[&id].pending.is_none() {
            let event = self.group.offer(id);
            self.members.get_mut(&id).unwrap().pending = event;
        }
    }

    fn acknowledge(&mut self, id: MemberId) {
        let member = self.members.get_mut(&id).unwrap();
        match member.pending.take() {
            Some(Event::Assigned(gained)) => member.owned.extend(gained),
            Some(Event::Revoked(gone)) => {
                member.owned.retain(|partition| !gone.contains(partition));
                self.group.release(id, &gone);
            }
            Some(Event::Lost(_)) | None => {}
        }
    }

    fn tick(&mut self, alive: Option<MemberId>, patience: Patience) -> bool {
        let dropped = self.group.tick(alive, self.now_ms, patience);
        if dropped {
            self.group.rebalance(&partitions(self.count));
        }
        dropped
    }

    fn nth(&self, at: u8) -> Option<MemberId> {
        self.members.keys().nth(at as usize % self.members.len().max(1)).copied()
    }

    fn check_one_owner(&self) {
        let mut seen = BTreeSet::new();
        for member in self.members.values() {
            for partition in &member.owned {
                assert!(seen.insert(*partition), "{partition:?} has two owners");
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..4 * self.members.len() + 4 {
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                self.poll(id);
                self.acknowledge(id);
                self.check_one_owner();
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join(u8),
    Leave(u8),
    GoAway(u8),
    Poll(u8),
    Acknowledge(u8),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..5_u8).prop_map(Step::Join),
        1 => any::<u8>().prop_map(Step::Leave),
        1 => any::<u8>().prop_map(Step::GoAway),
        5 => any::<u8>().prop_map(Step::Poll),
        5 => any::<u8>().prop_map(Step::Acknowledge),
        1 => (0..400_i64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn a_partition_has_one_owner_and_all_get_one(count in 1..9_u32, steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World { count, ..World::default() };
        for step in steps {
            match step {
                Step::Join(instance) => _ = world.join(instance),
                Step::Leave(at) => if let Some(id) = world.nth(at) {
                    world.members.remove(&id);
                    world.group.leave(id, &partitions(count));
                },
                Step::GoAway(at) => if let Some(id) = world.nth(at) {
                    world.members.remove(&id);
                    world.group.step_away(id, world.now_ms);
                },
                Step::Poll(at) => if let Some(id) = world.nth(at) { world.poll(id) },
                Step::Acknowledge(at) => if let Some(id) = world.nth(at) { world.acknowledge(id) },
                Step::Wait(ms) => {
                    world.now_ms += ms;
                    for id in world.members.keys().copied().collect::<Vec<_>>() {
                        world.tick(Some(id), Patience { silent_ms: i64::MAX, ..PATIENCE });
                    }
                }
            }
            world.check_one_owner();
        }
        world.now_ms += PATIENCE.away_ms;
        let alive = Patience { silent_ms: i64::MAX, ..PATIENCE };
        world.tick(None, alive);
        world.settle();
        if !world.members.is_empty() {
            let loads: Vec<usize> = world.members.values().map(|member| member.owned.len()).collect();
            prop_assert_eq!(loads.iter().sum::<usize>(), count as usize);
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{:?}", loads);
        }
    }
}

#[test]
fn a_newcomer_takes_only_its_share() {
    let mut world = World { count: 6, ..World::default() };
    let (a, b) = (world.join(0), world.join(1));
    world.settle();
    let before = (world.members[&a].owned.clone(), world.members[&b].owned.clone());
    let c = world.join(2);
    world.settle();
    assert_eq!(world.members[&c].owned.len(), 2);
    assert!(world.members[&a].owned.is_subset(&before.0) && world.members[&b].owned.is_subset(&before.1));
}

#[test]
fn a_restart_gets_its_partitions_back_without_a_generation() {
    let mut world = World { count: 4, ..World::default() };
    let (a, b) = (world.join(0), world.join(1));
    world.settle();
    let (before, generation) = (world.members[&a].owned.clone(), world.group.generation());
    world.group.step_away(a, world.now_ms);
    world.members.remove(&a);
    world.settle();
    assert_eq!(world.members[&b].owned.len(), 2, "its place is kept");
    let again = world.join(0);
    world.settle();
    assert_eq!((&world.members[&again].owned, world.group.generation()), (&before, generation));
    assert_eq!(world.group.standing(a, "worker-0"), Err(Gone::Replaced));
}

#[test]
fn the_silent_are_dropped() {
    let mut world = World { count: 4, ..World::default() };
    let (a, b) = (world.join(0), world.join(1));
    world.settle();
    world.now_ms = 999;
    assert!(!world.tick(Some(b), PATIENCE));
    world.now_ms = 1000;
    assert!(world.tick(Some(b), PATIENCE));
    assert_eq!(world.group.standing(a, "worker-0"), Err(Gone::Dropped));
    world.members.remove(&a);
    world.settle();
    assert_eq!(world.members[&b].owned.len(), 4);
}
