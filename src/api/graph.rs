//! `GET /v1/topology`: the graph, and every task of the application with its owner and its lag, whichever instance is asked.
//!
//! Each instance is asked for its own tasks. One that does not answer is listed as such, and what it may have as `unassigned`: nobody
//! is known to run it. For a moment during a move two instances may both list a task; nothing is hidden.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use topology::topology::{TaskId, Topology};

use super::call::{Call, Coming};
use super::declare::{Declared, gives};
use super::reply::Reply;
use super::site::Site;
use super::tasks;
use crate::membership::Peer;
use crate::query::Asked;

/// For the other instances to answer.
const ASK_MAX: Duration = Duration::from_secs(2);

/// What an instance says of itself to another one.
#[derive(Default, Deserialize, Serialize)]
struct Own {
    tasks: Vec<Value>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "instance")]
struct Instance {
    instance: String,
    /// Where it is called; null where it is not known.
    endpoint: Option<String>,
    reachable: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// How many tasks it has.
    tasks: usize,
}

#[derive(Serialize, JsonSchema)]
struct Lag {
    /// Records of lead inputs, over all tasks whose lag is known.
    records: u64,
    /// The most seconds of event time of any task; null where none is known.
    seconds: Option<f64>,
    /// Tasks whose lag in records is not known.
    unknown: usize,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "topology")]
struct Whole<'s> {
    application: &'s str,
    graph: Value,
    instances: Vec<Instance>,
    lag: Lag,
    tasks: Vec<Value>,
}

/// What the route says of itself.
pub(crate) const TOPOLOGY: Declared = Declared::new(
    "Operations",
    "The graph, and every task of the application with its owner and its lag",
    &[gives::<Whole<'_>>(200, "As far as the instances answer: `instances` says which did not, and why.")],
);

/// Answers the route.
pub(crate) fn topology(call: Call) -> Coming {
    Box::pin(async move {
        let own = own(&call.site);
        if call.hop {
            return Ok(Reply::json(StatusCode::OK, &own));
        }
        Ok(whole(&call, own).await)
    })
}

fn own(site: &Site) -> Own {
    let shown = |(task, status)| serde_json::to_value(tasks::shown(site, task, &status));
    Own { tasks: site.api.tasks.all().into_iter().filter_map(|at| shown(at).ok()).collect() }
}

async fn whole(call: &Call, own: Own) -> Reply {
    let (site, api) = (&call.site, &call.site.api);
    let members = api.directory.members();
    let endpoint = members.iter().find(|peer| peer.instance == api.instance).map(|peer| peer.endpoint.clone());
    let mut instances =
        vec![Instance { instance: api.instance.clone(), endpoint, reachable: true, why: None, tasks: own.tasks.len() }];
    let mut all = own.tasks;
    let mut asking = JoinSet::new();
    for peer in members.into_iter().filter(|peer| peer.instance != api.instance) {
        let (peers, asked) = (site.peers.clone(), asked(call));
        asking.spawn(async move {
            let got = peers.ask(&peer, &asked, ASK_MAX).await;
            (peer, got)
        });
    }
    while let Some(answered) = asking.join_next().await {
        let Ok((Peer { instance, endpoint, .. }, got)) = answered else { continue };
        let said = got.map_err(|why| why.to_string()).and_then(|got| match got.status {
            StatusCode::OK => serde_json::from_slice::<Own>(&got.body).map_err(|_| "its answer cannot be read".to_owned()),
            status => Err(format!("it answers with status {}", status.as_u16())),
        });
        let why = said.as_ref().err().cloned();
        let tasks = said.unwrap_or_default().tasks;
        instances.push(Instance { instance, endpoint: Some(endpoint), reachable: why.is_none(), why, tasks: tasks.len() });
        all.extend(tasks);
    }
    instances[1..].sort_by(|one, other| one.instance.cmp(&other.instance));
    add_unassigned(site, &mut all);
    let place = |task: &Value| (task["task"].as_str().and_then(number), task["instance"].as_str().map(str::to_owned));
    all.sort_by_cached_key(place);
    let (application, graph) = (api.topology.application(), graph(&api.topology));
    Reply::json(StatusCode::OK, &Whole { application, graph, instances, lag: lag(&all), tasks: all })
}

fn asked(call: &Call) -> Asked {
    Asked {
        method: Method::GET,
        target: call.path.clone(),
        id: call.request.clone(),
        authorization: call.authorization.clone(),
        body: call.body.clone(),
    }
}

/// A task's number, so that partition 10 comes behind 9.
fn number(task: &str) -> Option<(u16, u32)> {
    let (sub, partition) = task.split_once('_')?;
    Some((sub.parse().ok()?, partition.parse().ok()?))
}

/// Adds the tasks that nobody is known to have.
fn add_unassigned(site: &Site, all: &mut Vec<Value>) {
    let known: BTreeSet<_> = all.iter().filter_map(|task| number(task["task"].as_str()?)).collect();
    for (sub, spec) in site.api.topology.subs().iter().enumerate() {
        let count = site.api.partitions.get(usize::from(spec.lead().0)).copied().unwrap_or_default();
        let tasks = (0..count).map(|partition| TaskId { sub: sub as u16, partition });
        all.extend(tasks.filter(|task| !known.contains(&(task.sub, task.partition))).map(|task| {
            json!({
                "task": task.to_string(), "sub_topology": spec.name, "partition": task.partition,
                "phase": "unassigned", "instance": null,
            })
        }));
    }
}

fn lag(tasks: &[Value]) -> Lag {
    let records: Vec<u64> = tasks.iter().filter_map(|task| task["inputs"][0]["lag_records"].as_u64()).collect();
    let seconds = tasks.iter().filter_map(|task| task["lag_seconds"].as_f64());
    Lag { records: records.iter().sum(), seconds: seconds.reduce(f64::max), unknown: tasks.len() - records.len() }
}

/// The graph: topics and processors, and what flows between them.
fn graph(topology: &Topology) -> Value {
    let processors = topology.subs().iter().map(|sub| json!({"name": sub.name, "kind": "processor"}));
    let topics = topology.topics().iter().map(|(_, name)| json!({"name": name, "kind": "topic"}));
    let edges = topology.edges().into_iter().map(|(from, to)| json!({"from": from, "to": to}));
    json!({"nodes": processors.chain(topics).collect::<Vec<_>>(), "edges": edges.collect::<Vec<_>>()})
}
