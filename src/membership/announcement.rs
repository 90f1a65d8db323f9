//! One instance's record on the members topic: JSON under the instance's name, a tombstone once it has left for good.
//!
//! Format: an object with `v` = 1; fields that a reader does not know are ignored, another `v` is another program's. Tasks are pairs
//! `[sub-topology, partition]`. Decoding takes [`MAX_BYTES`] at most and checks what others will act on: names and the endpoint, which
//! instances send requests to.

use serde::{Deserialize, Serialize};
use topology::topology::TaskId;

/// The version that this program writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// The most bytes of one record: below every broker's default limit.
pub const MAX_BYTES: usize = 900_000;
/// The most bytes of a name.
const NAME_BYTES_MAX: usize = 512;
/// The most bytes of a host's name and port.
const ENDPOINT_BYTES_MAX: usize = 260;

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Its name.
    pub instance: String,
    /// When it started, by its clock, in milliseconds since the epoch.
    pub started_ms: i64,
    /// Where it serves HTTP, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Counts its announcements, from 1.
    pub beat: u64,
    /// Milliseconds until its next one, at most.
    pub beat_ms: u64,
    /// When this one was made, by its clock, in milliseconds since the epoch.
    pub at_ms: i64,
    /// The program's version.
    pub software: String,
    /// The version of state values that it writes.
    pub codec: u8,
    /// Its workers.
    pub workers: Vec<Claims>,
    /// The copies that it keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standbys: Vec<StandbyNote>,
}

/// What a worker has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Its number within the instance.
    pub worker: u32,
    /// Its producer's identity; none under at-least-once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transactional_id: Option<String>,
    /// Its tasks.
    pub tasks: Vec<(u16, u32)>,
}

/// A copy of a task's stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyNote {
    /// Of which task.
    pub task: (u16, u32),
    /// The changelog offset that it stands at.
    pub position: u64,
    /// How many changelog offsets it is behind.
    pub lag: u64,
}

/// A task as a pair.
pub(super) fn pair(task: TaskId) -> (u16, u32) {
    (task.sub, task.partition)
}

/// Why a record of the members topic says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another program's format, most likely a newer one.
    #[error("it has version {0}; this program reads version {VERSION} only")]
    UnknownVersion(u32),
    /// Not a record of ours.
    #[error("it does not decode: {0}")]
    Damaged(String),
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Serialize)]
struct Wire<'a> {
    v: u32,
    #[serde(flatten)]
    announcement: &'a Announcement,
}

impl Announcement {
    /// The record's value.
    ///
    /// # Panics
    /// Never: strings, numbers and lists are JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&Wire { v: VERSION, announcement: self }).expect("invariant: strings, numbers and lists are JSON")
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// [`Malformed`]; nobody acts on such a record.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let damaged = |what: &dyn std::fmt::Display| Malformed::Damaged(what.to_string());
        if value.len() > MAX_BYTES {
            return Err(damaged(&format!("{} bytes, {MAX_BYTES} at most", value.len())));
        }
        let Version { v } = serde_json::from_slice(value).map_err(|why| damaged(&why))?;
        if v != VERSION {
            return Err(Malformed::UnknownVersion(v));
        }
        let read: Self = serde_json::from_slice(value).map_err(|why| damaged(&why))?;
        let names = read.workers.iter().filter_map(|worker| worker.transactional_id.as_ref()).chain([&read.instance]);
        if names.into_iter().any(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
            return Err(damaged(&"a name that is empty or too long"));
        }
        if read.instance.as_bytes() != key {
            return Err(damaged(&"the key is not the instance's name"));
        }
        match &read.endpoint {
            Some(endpoint) if !is_endpoint(endpoint) => Err(damaged(&"an endpoint that is not `host:port`")),
            _ => Ok(read),
        }
    }
}

/// `host:port` with nothing in it that could be more than a host and a port in a URL.
pub(crate) fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_right = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(plain),
    };
    text.len() <= ENDPOINT_BYTES_MAX && host_is_right && !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port > 0)
}
