//! Answers about one user, wherever the user's partition is: here, at its owner, at a standby, in Redis or Postgres. `query::next` decides; this takes the
//! steps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::header::{LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Deserialize;
use state::backend::StorePartition;
use state::tier::{Held, Lookup, Tier as _};
use tokio::time::{sleep, timeout};
use topology::partitioner::partition_of;
use topology::status::Phase;
use topology::topology::TaskId;
use tracing::{debug, warn};

use super::call::{Answer, Call, READ_MAX, run_aside};
use super::committed::{self, Committed, Reading};
use super::parameters;
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::site::Site;
use crate::clock::{monotonic, since};
use crate::membership::Peer;
use crate::query::{Asked, Consistency, Facts, Failed, Gave, Got, Here, Refusal, Step, TierName, Wish, next};
use crate::tiers::Tiers;

/// Between two looks at a position that is about to be reached: about a commit's time under little load.
const LOOK: Duration = Duration::from_millis(5);
/// Of the time given to another instance, what is kept for the way there and back: a quarter, and at most this.
const WAY_MAX: Duration = Duration::from_millis(500);
/// What a reading gets of time, however short the caller's.
const READ_MIN: Duration = Duration::from_millis(100);
/// When to come again during a move, in seconds.
const RETRY_MOVING_S: u16 = 1;

/// What a route about one user is made of.
#[derive(Clone, Copy)]
pub(crate) struct Handler {
    /// The user that a request is about, or why it is about none.
    pub(crate) user: fn(&Call) -> Result<String, Problem>,
    /// Answers from what is committed of the user: on the event loop where that is in memory, else beside it.
    pub(crate) answer: fn(&Call, Committed) -> Answer,
}

/// What a route about one partition of users is made of: it answers as its owner does, wherever it is asked.
#[derive(Clone, Copy)]
pub(crate) struct OfPartition {
    /// The partition that a request is about, or why it is about none.
    pub(crate) partition: fn(&Call) -> Result<u32, Problem>,
    /// Reads and answers here, beside the event loop; the reading names no user.
    pub(crate) read: fn(&Call, &Reading) -> Answer,
}

/// A request on its way to an answer.
struct Search {
    call: Call,
    wish: Wish,
    partition: u32,
    began: Duration,
    owner_gave: Option<Gave>,
    /// What the owner said when it refused.
    owner_said: Option<Got>,
    tried: BTreeSet<String>,
    /// The tiers not asked yet.
    tiers: Vec<TierName>,
}

/// Answers a route about one partition.
pub(crate) async fn answer_of_partition(call: Call, OfPartition { partition, read }: OfPartition) -> Answer {
    let wish = wish(&call)?;
    let partition = partition(&call)?;
    Search::new(call, wish, partition).run(String::new(), Read::OfPartition(read)).await
}

fn wish(call: &Call) -> Result<Wish, Problem> {
    let mut wish = Wish::default();
    for (name, value) in parameters::read(&call.query, &Wish::PARAMETERS)? {
        wish.set(name, &value).map_err(|why| parameters::invalid(format!("`{}`: expected {}", why.parameter, why.expected)))?;
    }
    Ok(wish)
}

/// Answers a route about one user.
pub(crate) async fn answer(call: Call, handler: Handler) -> Answer {
    let wish = wish(&call)?;
    let user = (handler.user)(&call)?;
    let user = committed::checked(user)?;
    let partition = partition_of(user.as_bytes(), call.site.profiles.partitions);
    if tracing::enabled!(tracing::Level::DEBUG) {
        debug!(request = call.request, user = call.site.hash_of(&user), partition, hop = call.hop, "asks for a user");
    }
    let Tiers { warm, cold } = &call.site.api.tiers;
    let tiers =
        [warm.as_ref().map(|_| TierName::Redis), cold.as_ref().map(|_| TierName::Postgres)].into_iter().flatten().collect();
    Search { tiers, ..Search::new(call, wish, partition) }.run(user, Read::OfUser(handler.answer)).await
}

/// How a reading becomes an answer.
#[derive(Clone, Copy)]
enum Read {
    OfUser(fn(&Call, Committed) -> Answer),
    OfPartition(fn(&Call, &Reading) -> Answer),
}

impl Read {
    /// Takes whatever time the store does.
    fn run(self, call: &Call, reading: &Reading) -> Answer {
        match self {
            Self::OfUser(answer) => answer(call, committed::read(call, reading)?),
            Self::OfPartition(read) => read(call, reading),
        }
    }
}

impl Search {
    fn new(call: Call, wish: Wish, partition: u32) -> Self {
        let (began, tried) = (monotonic(), BTreeSet::new());
        Self { call, wish, partition, began, owner_gave: None, owner_said: None, tried, tiers: Vec::new() }
    }

    async fn run(mut self, user: String, read: Read) -> Answer {
        let user: Arc<str> = user.into();
        let me = self.call.site.api.directory.me();
        loop {
            match self.step(&me).await? {
                Step::Read => {
                    match self.read(read, self.of_task(&user)).await {
                        // It left or fell back in between: what is known has changed.
                        Err(problem) if self.left().is_some() && problem.kind().is_passing() => sleep(LOOK).await,
                        answer => return answer,
                    }
                }
                Step::ReadCopy => match self.read(read, self.of_copy(&user)).await {
                    Err(problem) if problem.kind().status().is_server_error() && !self.call.hop => {
                        self.tried.insert(me.clone());
                    }
                    answer => return answer,
                },
                Step::Wait => sleep(LOOK.min(self.left().unwrap_or_default())).await,
                Step::AskOwner(owner) => {
                    // Where a copy will do, half of the time is left for it.
                    let any = self.wish.consistency == Consistency::Any;
                    let share = if any { 2 } else { 1 };
                    let got = self.ask(&owner, Consistency::Owner, share).await;
                    self.owner_gave = Some(match got {
                        Ok(got) if !got.status.is_server_error() => return Ok(relay(got)),
                        Ok(got) if says_not_here(&got) => Gave::NotThere,
                        Ok(got) => {
                            self.owner_said = Some(got);
                            Gave::Refused
                        }
                        Err(Failed::Busy) => return Err(busy()),
                        Err(_) => Gave::Nothing,
                    });
                }
                Step::AskStandby(standby) => {
                    match self.ask(&standby, Consistency::Any, 1).await {
                        Ok(got) if !got.status.is_server_error() => return Ok(relay(got)),
                        Err(Failed::Busy) => return Err(busy()),
                        Ok(_) | Err(_) => self.tried.insert(standby.instance),
                    };
                }
                Step::ReadTier(tier) => {
                    self.tiers.remove(0);
                    if let Some(held) = self.ask_tier(tier, &user).await {
                        let reading =
                            Reading { user: Arc::clone(&user), source: tier.as_str(), min: self.min(), held: Some(held) };
                        match self.read(read, reading).await {
                            Err(problem) if problem.kind().status().is_server_error() => {}
                            answer => return answer,
                        }
                    }
                }
                Step::Refuse(Refusal::Behind { .. }) => {
                    // The reading says where it stands, or has got there by now.
                    let runs = matches!(in_tasks(&self.call.site, self.partition), Here::Running { .. });
                    let reading = if runs { self.of_task(&user) } else { self.of_copy(&user) };
                    return self.read(read, reading).await;
                }
                Step::Refuse(refusal) => return self.refuse(refusal),
            }
        }
    }

    fn min(&self) -> u64 {
        self.wish.min_of(self.partition)
    }

    fn of_task(&self, user: &Arc<str>) -> Reading {
        let source = if self.call.hop { "owner" } else { "local" };
        Reading { user: Arc::clone(user), source, min: self.min(), held: None }
    }

    fn of_copy(&self, user: &Arc<str>) -> Reading {
        Reading { user: Arc::clone(user), source: committed::STANDBY, min: self.min(), held: None }
    }

    /// The time that is left; none once it is over.
    fn left(&self) -> Option<Duration> {
        let left = self.wish.timeout.saturating_sub(since(self.began));
        (!left.is_zero()).then_some(left)
    }

    /// Looks at what is known, and decides.
    async fn step(&self, me: &str) -> Result<Step, Problem> {
        let directory = &self.call.site.api.directory;
        let mut here = in_tasks(&self.call.site, self.partition);
        // Most of all questions, and what runs here is not asked of others.
        let runs = matches!(here, Here::Running { .. });
        let any = self.wish.consistency == Consistency::Any;
        let standbys = if any && !runs { directory.standbys(self.partition) } else { Vec::new() };
        if here == Here::Nothing && standbys.iter().any(|peer| peer.instance == me) {
            let partition = self.partition;
            here = run_aside(self.call.clone(), READ_MAX, move |call| Ok(copy(&call.site, partition))).await?;
        }
        let owner = if runs { None } else { directory.owner(self.partition) };
        Ok(next(&Facts {
            consistency: self.wish.consistency,
            min: self.min(),
            hop: self.call.hop,
            time_left: self.left().is_some(),
            me,
            here,
            owner: owner.as_ref(),
            standbys: &standbys,
            owner_gave: self.owner_gave,
            tried: &self.tried,
            tiers: &self.tiers,
        }))
    }

    /// A wake-up of another thread takes longer than most readings: what needs no waiting is done at once.
    async fn read(&self, read: Read, reading: Reading) -> Answer {
        if let Read::OfUser(answer) = read
            && let Some(committed) = committed::at_hand(&self.call, &reading)
        {
            return answer(&self.call, committed);
        }
        let limit = self.left().unwrap_or_default().clamp(READ_MIN, READ_MAX);
        run_aside(self.call.clone(), limit, move |call| read.run(call, &reading)).await
    }

    /// What a tier has of the user. That it has nothing, or a deletion, says nothing of now: only the partition's owner knows (I5).
    async fn ask_tier(&self, tier: TierName, user: &Arc<str>) -> Option<Held> {
        let Tiers { warm, cold } = &self.call.site.api.tiers;
        let users = [&**user];
        let asking = async {
            match (tier, warm, cold) {
                (TierName::Redis, Some(warm), _) => warm.read(&users).await,
                (TierName::Postgres, _, Some(cold)) => cold.read(&users).await,
                _ => Ok(Vec::new()),
            }
        };
        match timeout(self.left().unwrap_or_default(), asking).await {
            Ok(Ok(mut lookups)) => match lookups.pop() {
                Some(Lookup::Found(held)) => Some(held),
                _ => None,
            },
            Ok(Err(why)) => {
                debug!(request = self.call.request, tier = tier.as_str(), %why, "a tier was asked in vain");
                None
            }
            Err(_) => None,
        }
    }

    async fn ask(&self, peer: &Peer, consistency: Consistency, share: u32) -> Result<Got, Failed> {
        let limit = self.left().unwrap_or_default() / share;
        // Who is asked may use up its time: its answer is to arrive within ours.
        let query = self.wish.onward(consistency, self.partition, limit - (limit / 4).min(WAY_MAX));
        let asked = Asked {
            // The answer to HEAD is that to GET: our server cuts its body off.
            method: if self.call.method == Method::HEAD { Method::GET } else { self.call.method.clone() },
            target: format!("{}?{query}", self.call.path),
            id: self.call.request.clone(),
            authorization: self.call.authorization.clone(),
            body: self.call.body.clone(),
        };
        let got = self.call.site.peers.ask(peer, &asked, limit).await;
        if let Err(why) = &got {
            // Counted; a line for each would fill the log for as long as an owner is gone.
            debug!(request = self.call.request, instance = peer.instance, endpoint = peer.endpoint, %why, "an instance was asked in vain");
        }
        got
    }

    fn refuse(self, refusal: Refusal) -> Answer {
        let partition = self.partition;
        let moving = |kind, detail: String| Err(Problem::new(kind, detail).retry_after(RETRY_MOVING_S));
        match refusal {
            Refusal::NotHere => moving(Kind::NotHere, format!("partition {partition} is not on this instance")),
            Refusal::Restoring { remaining } => Err(committed::restoring(partition, remaining)),
            // Behind is answered by a reading, see above; as a refusal it would be one of a partition that moves.
            Refusal::Moving | Refusal::Behind { .. } => {
                moving(Kind::Moving, format!("no instance is known to have partition {partition}"))
            }
            Refusal::Unreachable => moving(Kind::OwnerUnreachable, format!("the owner of partition {partition} gives no answer")),
            Refusal::AsOwnerSaid => {
                let got = self.owner_said.expect("invariant: what a refusing owner said is kept");
                let named = got.headers.contains_key(RETRY_AFTER);
                let reply = relay(got);
                Ok(if named { reply } else { reply.with(RETRY_AFTER, RETRY_MOVING_S.into()) })
            }
        }
    }
}

/// The task of the partition, where this instance has it.
fn in_tasks(site: &Site, partition: u32) -> Here {
    let Some(status) = site.api.tasks.get(TaskId { sub: site.profiles.sub, partition }) else { return Here::Nothing };
    if site.api.health.since_step_ms(status.worker, site.monotonic_ms()) > site.api.session_ms {
        // It slept, or hangs: for all that is known here the group has dropped it, and others go on with the partition.
        return Here::Nothing;
    }
    match status.phase {
        Phase::Running => Here::Running { next: status.inputs.first().map_or(0, |(_, next)| *next) },
        Phase::Restoring | Phase::Suspended => Here::Restoring { remaining: status.remaining },
    }
}

/// The copy of the partition, where the store has one that it can tell the position of.
fn copy(site: &Site, partition: u32) -> Here {
    let of = StorePartition { store: Arc::clone(&site.profiles.store), partition };
    match site.api.backend.positions(&of) {
        Ok(Some(positions)) => Here::Copy { next: committed::lead_position(site, &positions) },
        Ok(None) => Here::Nothing,
        Err(why) => {
            warn!(store = %of, %why, "a copy cannot be read");
            Here::Nothing
        }
    }
}

fn busy() -> Problem {
    Problem::new(Kind::TooManyRequests, "too many requests are being passed on to other instances").retry_after(RETRY_MOVING_S)
}

pub(crate) fn says_not_here(got: &Got) -> bool {
    #[derive(Deserialize)]
    struct Said {
        #[serde(rename = "type")]
        uri: String,
    }
    serde_json::from_slice(&got.body).is_ok_and(|Said { uri }| uri == Kind::NotHere.uri())
}

/// Another instance's answer, as ours.
pub(crate) fn relay(got: Got) -> Reply {
    let content_type = if got.status.is_success() { "application/json" } else { "application/problem+json" };
    let mut reply = Reply::new(got.status, content_type, got.body);
    for name in [LOCATION, RETRY_AFTER, WWW_AUTHENTICATE] {
        if let Some(value) = got.headers.get(&name) {
            reply = reply.with(name, value.clone());
        }
    }
    reply
}
