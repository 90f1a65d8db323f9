//! One seed: a life with troubles, then peace, then a life from what is left; each compared with the oracle.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::checker::check;
use super::feed::{Feed, scorers};
use super::random::Random;
use super::steps::{Step, Tally, Trouble};
use super::trace::{At, Trace};
use super::world::{APPLICATION, Aim, INSTANCES, PARTITIONS, World};

/// The least that every seed has seen.
const RECORDS: u64 = 300;
const COMMITS: u64 = 20;
const TROUBLES: u64 = 5;
/// Troubles that a seed aims for, besides those by chance.
const AIMS: u64 = 10;
/// Ticks between one aim and the next.
const SPACING: u64 = 8;
const TICKS_MAX: u64 = 1_500;

/// What a seed came to.
pub struct Life {
    pub seed: u64,
    pub tally: Tally,
    pub trace: Trace,
    pub exactly_once: bool,
    pub wild: bool,
    pub records: u64,
    pub commits: u64,
    pub failure: Option<String>,
}

pub fn live(seed: u64) -> Life {
    let world = World::new(seed);
    let mut feed = Feed::new(&world.sim);
    let lived = catch_unwind(AssertUnwindSafe(|| life(&world, &mut feed)));
    let failure = match lived {
        Ok(outcome) => outcome.err(),
        Err(panic) => Some(said(&*panic)),
    };
    let commits = world.commits();
    let mut state = world.state();
    let (tally, trace) = (std::mem::take(&mut state.tally), std::mem::take(&mut state.trace));
    let choices = &world.choices;
    let (exactly_once, wild) = (choices.exactly_once, choices.wild);
    drop(state);
    Life { seed, tally, trace, exactly_once, wild, records: feed.payments, commits, failure }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a text"))
}

fn life(world: &Arc<World>, feed: &mut Feed) -> Result<(), String> {
    let mut random = Random::new(world.state().random.next());
    aim(world, &mut random);
    for instance in 0..INSTANCES - 1 {
        world.start(instance);
    }
    world.state().start_at_ms[INSTANCES - 1] = u64::MAX;
    for tick in 1..=TICKS_MAX {
        world.state().tick = tick;
        happen(world, feed, &mut random, tick);
        let (aims, troubles) = {
            let state = world.state();
            (state.aims.len(), state.tally.total())
        };
        let enough = feed.payments >= RECORDS && world.commits() >= COMMITS && troubles >= TROUBLES;
        if enough && (aims == 0 || tick > 2 * AIMS * SPACING) {
            break;
        }
    }
    let (commits, troubles) = (world.commits(), world.state().tally.total());
    assert!(commits >= COMMITS && troubles >= TROUBLES && feed.payments >= RECORDS, "a life too quiet: {commits}, {troubles}");
    world.make_peace();
    rest(world)?;
    check(world, false).map_err(|what| format!("in its first life: {what}"))?;
    // A new life from the topics and whatever disks are left.
    for instance in 0..INSTANCES {
        world.kill(instance, 0);
        if random.one_in(2) {
            world.wipe(instance);
        }
    }
    rest(world)?;
    check(world, true).map_err(|what| format!("in its second life: {what}"))
}

/// Chooses what is to go wrong.
fn aim(world: &World, random: &mut Random) {
    let possible: Vec<(Step, Trouble)> = Step::ALL
        .into_iter()
        .flat_map(|step| Trouble::ALL.map(|trouble| (step, trouble)))
        .filter(|&(step, trouble)| world.allowed(step, trouble))
        .collect();
    let aims = (0..AIMS).map(|n| {
        let (step, trouble) = random.pick(&possible);
        let skip = if random.one_in(2) { 0 } else { random.below(6) };
        Aim { step, trouble, skip, from_tick: 2 + n * SPACING }
    });
    world.state().aims = aims.collect();
}

/// One tick: records come in, somebody goes on, time passes, and now and then something else happens.
fn happen(world: &World, feed: &mut Feed, random: &mut Random, tick: u64) {
    if feed.payments < RECORDS || tick > AIMS * SPACING {
        for _ in 0..random.below(9) {
            feed.pay(random);
        }
    }
    if random.one_in(5) {
        feed.command(random);
    }
    if random.one_in(12) {
        let instance = random.index(INSTANCES);
        world.instances[instance].slot.set(Some(Arc::clone(&scorers()[random.index(3)])));
        world.note(At::instance(instance), "goes over to another model");
    }
    if random.one_in(25) {
        let changelog = world.topology().changelogs().next().expect("it has a store");
        let mut state = world.state();
        for partition in 0..PARTITIONS {
            state.watch.read_on(&world.sim, partition);
        }
        world.sim.compact(changelog);
    }
    if random.one_in(4) {
        world.instances[random.index(INSTANCES)].disk.sync();
    }
    if tick.is_multiple_of(3) {
        provoke(world, feed, random);
    }
    world.supervise();
    let skip = random.below(4);
    world.step_all(|at| (at.instance as u64 + tick) % 4 != skip || at.worker == Some(1));
    world.sim.advance(random.pick(&[0, 0, 1, 5, 20, 60]));
}

/// Makes happen what a waiting aim needs, where it would not come by itself.
fn provoke(world: &World, feed: &mut Feed, random: &mut Random) {
    let tick = world.state().tick;
    let waiting = world.state().aims.iter().find(|aim| aim.from_tick + 3 < tick).copied();
    let Some(aim) = waiting else { return };
    let also = |step, trouble| {
        let mut state = world.state();
        if !state.aims.iter().any(|aim| aim.step == step && aim.trouble == trouble) {
            state.aims.push(Aim { step, trouble, skip: 0, from_tick: tick });
        }
    };
    let now_ms = world.sim.now();
    let up: Vec<usize> = (0..INSTANCES).filter(|&instance| world.state().up[instance]).collect();
    match aim.step {
        Step::StoreDrop => also(Step::Prefetch, Trouble::Damage),
        Step::EndTxnAbort => also(Step::EndTxnCommit, Trouble::Error),
        Step::SendDecision => feed.command(random),
        Step::SendDeadLetter => feed.poison(random),
        Step::SendAnomaly => {
            for slot in world.instances.iter().map(|instance| &instance.slot).filter(|slot| slot.get().is_none()) {
                slot.set(Some(Arc::clone(&scorers()[0])));
            }
            feed.pay_amount(random, 100_000_000);
        }
        Step::Leave => {
            if up.len() > 1 {
                world.stop(random.pick(&up), now_ms + 100);
            }
        }
        Step::InitProducer
        | Step::Join
        | Step::Acknowledge
        | Step::Committed
        | Step::StoreOpen
        | Step::ChangelogBounds
        | Step::RestoreRead
        | Step::RestoreWrite
        | Step::InputBounds
        | Step::RestoreFinish => {
            if let Some(&instance) = up.get(random.index(up.len().max(1))) {
                world.kill(instance, now_ms);
                world.wipe(instance);
            }
        }
        _ => feed.pay(random),
    }
}

/// Lets everything come to its end: late requests arrive, transactions time out, every partition has a running owner with nothing to do.
fn rest(world: &World) -> Result<(), String> {
    for _ in 0..50 {
        world.sim.advance(200);
        world.supervise();
        world.step_all(|_| true);
    }
    let mut quiet = 0;
    for _ in 0..5_000 {
        world.supervise();
        let idle = world.step_all(|_| true);
        let tasks: usize = world.state().tasks.iter().map(|tasks| tasks.all().len()).sum();
        quiet = if idle && tasks == PARTITIONS as usize { quiet + 1 } else { 0 };
        if quiet == 3 {
            return Ok(());
        }
        world.sim.advance(if idle { 20 } else { 1 });
    }
    let tasks: Vec<Vec<String>> = world
        .state()
        .tasks
        .iter()
        .map(|tasks| tasks.all().iter().map(|(id, it)| format!("{id} {}", it.phase.as_str())).collect())
        .collect();
    let groups = world.sim.group_assignments(APPLICATION);
    Err(format!("it does not come to rest: tasks {tasks:?}, the group gave {groups:?}"))
}
