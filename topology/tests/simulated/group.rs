//! Random lives of a group: joins, restarts, crashes, silences, hand-overs in any order.

use std::collections::BTreeSet;

use topology::broker::{Broker, Event, Member, MemberConfig};
use topology::record::TopicPartition;
use topology::simulated::{SimBroker, SimMember};

use crate::scene::{GROUP, INPUT, Random, at, config, empty, poll};

const PARTITIONS: u32 = 7;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A live member and what it acknowledged.
struct Live {
    member: SimMember,
    owned: BTreeSet<TopicPartition>,
    pending: Option<Event>,
    /// The group dropped it, and it has not heard so: it may believe what it likes.
    dropped: bool,
}

struct Lives {
    sim: SimBroker,
    live: [Option<Live>; NAMES.len()],
    session_timeout_ms: u64,
}

impl Lives {
    fn new() -> Self {
        let sim = empty();
        sim.create_topic("input", PARTITIONS);
        sim.set_session_timeout(1000);
        Self { sim, live: [const { None }; NAMES.len()], session_timeout_ms: 1000 }
    }

    fn join(&mut self, who: usize) {
        let config = MemberConfig { transactional_id: None, ..config(NAMES[who]) };
        let member = self.sim.join(&config).unwrap();
        self.live[who] = Some(Live { member, owned: BTreeSet::new(), pending: None, dropped: false });
    }

    /// Polls; an event is acknowledged at once or kept for later.
    fn poll(&mut self, who: usize, acknowledge: bool) {
        let Some(live) = &mut self.live[who] else { return };
        // With nothing to lose there is nothing to hear: it joins anew.
        live.dropped &= live.pending.is_some() || !live.owned.is_empty();
        if let Some(event) = poll(&mut live.member, &mut Vec::new()).unwrap() {
            live.pending = Some(event.clone());
            if let Event::Assigned(partitions) = event {
                self.assert_free(who, &partitions);
            }
        }
        if acknowledge {
            self.acknowledge(who);
        }
    }

    fn acknowledge(&mut self, who: usize) {
        let Some(live) = &mut self.live[who] else { return };
        let Some(event) = live.pending.take() else { return };
        live.member.acknowledge(&event).unwrap();
        live.dropped &= !matches!(event, Event::Lost(_));
        match event {
            Event::Assigned(partitions) => live.owned.extend(partitions),
            Event::Revoked(gone) | Event::Lost(gone) => gone.iter().for_each(|partition| {
                live.owned.remove(partition);
            }),
        }
    }

    fn advance(&mut self, ms: u64) {
        self.sim.advance(ms);
        let members = self.sim.group_assignments(GROUP);
        for (name, live) in NAMES.iter().zip(&mut self.live) {
            if let Some(live) = live {
                live.dropped |= !members.contains_key(*name);
            }
        }
    }

    fn assert_free(&self, who: usize, partitions: &[TopicPartition]) {
        for (other, live) in self.live.iter().enumerate() {
            let Some(live) = live.as_ref().filter(|live| other != who && !live.dropped) else { continue };
            let twice = partitions.iter().find(|partition| live.owned.contains(partition));
            assert_eq!(twice, None, "{} is offered what {} still owns", NAMES[who], NAMES[other]);
        }
    }

    fn step(&mut self, random: &mut Random) {
        let who = random.below(NAMES.len() as u64) as usize;
        match random.below(40) {
            0 => self.join(who), // a restart, where it was there
            1 => self.live[who] = None,
            2 => self.advance(self.session_timeout_ms),
            3 => {
                if let Some(mut gone) = self.live[who].take() {
                    gone.member.leave(true).unwrap();
                }
            }
            4..=7 => self.poll(who, false),
            8..=11 => self.acknowledge(who),
            12 => {
                if let Some(live) = &mut self.live[who] {
                    let _ = live.member.token();
                }
            }
            13..=20 => self.advance(random.below(200)),
            _ => self.poll(who, true),
        }
    }

    /// Left in peace, the live share everything evenly.
    fn settle(&mut self) {
        self.advance(self.session_timeout_ms);
        if self.live.iter().all(Option::is_none) {
            self.join(0);
        }
        for _ in 0..30 {
            for who in 0..NAMES.len() {
                self.acknowledge(who);
                self.poll(who, true);
            }
        }
        let live: Vec<&Live> = self.live.iter().flatten().collect();
        let mut all: Vec<TopicPartition> = live.iter().flat_map(|live| live.owned.iter().copied()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..PARTITIONS).map(|partition| at(INPUT, partition)).collect::<Vec<_>>());
        let sizes = || live.iter().map(|live| live.owned.len());
        assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1, "uneven shares");
        let given = self.sim.group_assignments(GROUP);
        assert_eq!(given.values().map(Vec::len).sum::<usize>(), PARTITIONS as usize);
    }
}

#[test]
fn whatever_happens_nothing_has_two_owners_and_all_have_one_in_the_end() {
    for seed in 0..500 {
        let mut random = Random(seed);
        let mut lives = Lives::new();
        for _ in 0..3 {
            (0..150).for_each(|_| lives.step(&mut random));
            lives.settle();
        }
    }
}
