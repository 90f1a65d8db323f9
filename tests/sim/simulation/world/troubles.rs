//! What goes wrong: whether, at each call, and what then happens.

use std::sync::atomic::Ordering;

use state::backend::StorePartition;
use topology::broker::{Broker as _, Reaction};
use topology::simulated::{Fault, OpContext};

use super::super::disk::Mishap;
use super::super::random::Random;
use super::super::steps::{Step, Trouble, impossible};
use super::super::trace::{At, What};
use super::{INSTANCES, World};

impl World {
    /// Whether something goes wrong now, by the aims and by chance.
    pub(super) fn decide(&self, at: At, step: Step) -> Option<Trouble> {
        let now_ms = self.sim.now();
        let mut state = self.state();
        let state = &mut *state;
        let trouble = if state.frozen || state.peace {
            None
        } else if let Some(found) = state.aims.iter().position(|aim| aim.step == step && aim.from_tick <= state.tick) {
            match &mut state.aims[found].skip {
                0 => Some(state.aims.remove(found).trouble),
                skip => {
                    *skip -= 1;
                    None
                }
            }
        } else if state.random.one_in(500) {
            let trouble = state.random.pick(&Trouble::ALL);
            self.allowed(step, trouble).then_some(trouble)
        } else {
            None
        };
        state.trace.note(now_ms, at, What::Call(step, trouble));
        if let Some(trouble) = trouble {
            state.tally.count(step, trouble);
        }
        trouble
    }

    /// Whether a trouble is to be had at a step in this world.
    pub fn allowed(&self, step: Step, trouble: Trouble) -> bool {
        let unfenced = trouble == Trouble::Zombie || (step.is_sending() && trouble == Trouble::Late);
        impossible(step, trouble).is_none() && step.happens(self.choices.exactly_once) && (self.choices.wild || !unfenced)
    }

    pub(super) fn before_call(&self, call: &OpContext<'_>) -> Fault {
        let Some(at) = At::parse(call.instance) else { return Fault::None };
        let topics = self.sim.topics();
        let Some(step) = Step::of(call.op, call.to.map(|to| topics.name(to.topic))) else { return Fault::None };
        self.state().watch.called(&self.sim, at, step);
        let Some(trouble) = self.decide(at, step) else { return Fault::None };
        let mut state = self.state();
        let wait_ms = 1 + state.random.below(2_000);
        let coin = state.random.one_in(2);
        let reaction = state.random.pick(&[Reaction::Retry, Reaction::Abort, Reaction::Fenced]);
        if step.is_end() && matches!(trouble, Trouble::LostRequest | Trouble::LostAnswer | Trouble::Late) {
            state.watch.unanswered(&self.sim, at);
        }
        state.power_lost[at.instance] |= trouble == Trouble::PowerLoss;
        drop(state);
        match trouble {
            Trouble::CrashBefore => Fault::Crash { done: false },
            Trouble::CrashAfter => Fault::Crash { done: true },
            Trouble::PowerLoss => Fault::Crash { done: coin && impossible(step, Trouble::CrashAfter).is_none() },
            Trouble::Error => Fault::Error(reaction),
            Trouble::LostRequest => Fault::LostRequest,
            Trouble::LostAnswer => Fault::LostAnswer,
            Trouble::Late => Fault::Late(wait_ms),
            Trouble::SlowMarkers => Fault::SlowMarkers(wait_ms),
            Trouble::Rebalance | Trouble::Zombie | Trouble::ClockJump => {
                self.interfere(at, trouble);
                Fault::None
            }
            Trouble::DiskFull | Trouble::Damage | Trouble::Refused | Trouble::TierOutage => unreachable!("impossible at a call"),
        }
    }

    pub(super) fn before_disk(&self, instance: usize, step: Step, partition: &StorePartition) -> Option<Mishap> {
        let at = At { instance, worker: None, partition: Some(partition.partition) };
        let mut trouble = self.decide(at, step);
        let now_ms = self.sim.now();
        let mut state = self.state();
        if now_ms < state.full_until_ms[instance] && impossible(step, Trouble::DiskFull).is_none() {
            trouble = Some(Trouble::DiskFull);
        }
        let coin = state.random.one_in(2);
        match trouble? {
            Trouble::CrashBefore => Some(Mishap::Crash { done: false }),
            Trouble::CrashAfter => Some(Mishap::Crash { done: true }),
            Trouble::PowerLoss => {
                state.power_lost[instance] = true;
                Some(Mishap::Crash { done: coin && impossible(step, Trouble::CrashAfter).is_none() })
            }
            Trouble::DiskFull => {
                let until = now_ms + 1 + state.random.below(3_000);
                state.full_until_ms[instance] = state.full_until_ms[instance].max(until);
                state.watch.write_failed(instance);
                Some(Mishap::Full)
            }
            // The engine takes a second damage before anything is committed for one of the changelog.
            Trouble::Damage => state.damaged.insert((instance, partition.partition)).then_some(Mishap::Damage),
            Trouble::Refused => Some(Mishap::Refused),
            trouble => {
                drop(state);
                self.interfere(at, trouble);
                None
            }
        }
    }

    /// What happens around an instance in the middle of its step, rather than to its call.
    pub(super) fn interfere(&self, at: At, trouble: Trouble) {
        match trouble {
            Trouble::ClockJump => {
                let mut state = self.state();
                // An hour back or forth, or past the changelog's tombstone retention.
                let jump_ms = state.random.pick(&[-3_600_000, 3_600_000, 90_000_000]);
                self.instances[at.instance].jumped_ms.fetch_add(jump_ms, Ordering::Relaxed);
            }
            Trouble::Rebalance => {
                self.state().frozen = true;
                self.move_someone(at.instance);
                self.others_go_on(at, 6, 15);
                self.state().frozen = false;
            }
            _ => {
                self.state().frozen = true;
                self.others_go_on(at, 20, self.choices.session_ms / 12);
                self.state().frozen = false;
            }
        }
    }

    /// Starts an instance that is down, or lets one leave.
    fn move_someone(&self, but: usize) {
        let state = &mut *self.state();
        let up = state.up;
        let down: Vec<usize> = (0..INSTANCES).filter(|&other| other != but && !up[other]).collect();
        let others: Vec<usize> = (0..INSTANCES).filter(|&other| other != but && up[other]).collect();
        let pick = |random: &mut Random, from: &[usize]| (!from.is_empty()).then(|| random.pick(from));
        let (start, stop) = (pick(&mut state.random, &down), pick(&mut state.random, &others));
        let now_ms = self.sim.now();
        match (start, stop) {
            (Some(start), _) => state.start_at_ms[start] = now_ms,
            (None, Some(stop)) if others.len() > 1 => state.start_at_ms[stop] = u64::MAX,
            _ => {}
        }
        // Done by the rounds that follow: an instance that is up and is to start at the end of time leaves.
    }

    fn others_go_on(&self, at: At, rounds: u64, round_ms: u64) {
        for _ in 0..rounds {
            self.sim.advance(round_ms);
            self.supervise();
            // A whole process freezes, as by SIGSTOP or with its virtual machine.
            self.step_all(|other| other.instance != at.instance);
        }
    }
}
