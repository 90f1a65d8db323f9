//! Redis: the newest profile of each user, for reads of about a millisecond from any instance and any other service.
//!
//! | key | type | content |
//! |---|---|---|
//! | `{APP}:profile:USER` | hash | `g` generation and `o` changelog offset (the guard), `p` partition, `t` the record's time in ms, `v` the kept value as in the changelog, `j` the profile as JSON; a tombstone has no `v` and no `j` |
//! | `{APP}:progress` | hash | by `topic:partition`: `generation:next offset` |
//!
//! The braces are part of the keys: they keep an application's keys in one slot of a cluster. One script writes a batch and its progress
//! atomically (`warm.lua`), so a server that lost its memory has lost its progress too, and is filled anew.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ErrorKind, RedisError, ServerErrorKind};
use state::tier::{Applied, Batch, Guard, Held, Lookup, Progress, Tier, Unreachable};
use tokio::sync::OnceCell;

use super::{READ_TIMEOUT, ServerUrl, TOMBSTONES_KEPT};

/// What a connection does by default.
#[derive(Clone, Copy, Debug)]
pub struct WarmOptions {
    /// The longest that one answer may take.
    pub timeout: Duration,
    /// How long a profile is kept after its last change; none keeps it.
    pub time_to_live: Option<Duration>,
}

impl Default for WarmOptions {
    fn default() -> Self {
        Self { timeout: READ_TIMEOUT, time_to_live: None }
    }
}

/// A connection to Redis that mends itself. Cheap to clone; connects when it is first used.
#[derive(Clone)]
pub struct Warm(Arc<Inner>);

struct Inner {
    client: Client,
    address: String,
    prefix: String,
    options: WarmOptions,
    connection: OnceCell<ConnectionManager>,
    script: redis::Script,
}

impl std::fmt::Debug for Warm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warm").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Warm {
    /// A tier of this application. Opens no connection.
    ///
    /// # Errors
    /// A URL that the client cannot use.
    pub fn open(url: &ServerUrl, application: &str, options: WarmOptions) -> Result<Self, Unreachable> {
        super::use_tls();
        let client = Client::open(url.expose()).map_err(|_| Unreachable(format!("REDIS_URL {url} cannot be used")))?;
        Ok(Self(Arc::new(Inner {
            client,
            address: url.to_string(),
            prefix: format!("{{{application}}}"),
            options,
            connection: OnceCell::new(),
            script: redis::Script::new(include_str!("warm.lua")),
        })))
    }

    /// Where it is, without a password.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Asks whether it answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> Result<(), Unreachable> {
        let mut connection = self.connection().await?;
        let pong: Result<String, RedisError> = self.within(redis::cmd("PING").query_async(&mut connection)).await?;
        pong.map(drop).map_err(|why| self.unreachable(&why))
    }

    fn key(&self, user: &str) -> String {
        format!("{}:profile:{user}", self.0.prefix)
    }

    fn progress_key(&self) -> String {
        format!("{}:progress", self.0.prefix)
    }

    async fn connection(&self) -> Result<ConnectionManager, Unreachable> {
        let timeout = self.0.options.timeout;
        // One retry, at once: who waits for an answer does not wait for a server to come back.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_connection_timeout(Some(timeout.min(READ_TIMEOUT)))
            .set_response_timeout(Some(timeout));
        let make = || async { ConnectionManager::new_lazy_with_config(self.0.client.clone(), config) };
        self.0.connection.get_or_try_init(make).await.cloned().map_err(|why| self.unreachable(&why))
    }

    /// Beside the client's own time-outs: connecting and asking together.
    async fn within<T>(&self, asking: impl Future<Output = T>) -> Result<T, Unreachable> {
        let timeout = self.0.options.timeout;
        let late = |_| Unreachable(format!("Redis at {} gave no answer within {} ms", self.0.address, timeout.as_millis()));
        tokio::time::timeout(timeout, asking).await.map_err(late)
    }

    /// The error's code, never its text: that may repeat what was sent.
    fn unreachable(&self, why: &RedisError) -> Unreachable {
        let what = match why.kind() {
            ErrorKind::Io => match why.is_timeout() {
                true => "no answer in time".to_owned(),
                false => "the connection failed".to_owned(),
            },
            kind => why.code().map_or_else(|| format!("{kind:?}"), str::to_owned),
        };
        Unreachable(format!("Redis at {}: {what}", self.0.address))
    }

    async fn run(&self, batches: &[Batch<'_>]) -> Result<Vec<Applied>, Unreachable> {
        let mut connection = self.connection().await?;
        let (progress, hash) = (self.progress_key(), self.0.script.get_hash());
        let ttl = self.0.options.time_to_live.map_or(0, |ttl| ttl.as_millis() as u64);
        let mut pipe = redis::pipe();
        for batch in batches {
            let call = pipe.cmd("EVALSHA").arg(hash).arg(1 + batch.changes.len()).arg(&progress);
            for change in &batch.changes {
                call.arg(self.key(change.user));
            }
            call.arg(format!("{}:{}", batch.topic, batch.partition))
                .arg(batch.generation)
                .arg(batch.from)
                .arg(batch.to)
                .arg(u8::from(batch.first))
                .arg(batch.partition)
                .arg(ttl)
                .arg(TOMBSTONES_KEPT.as_millis() as u64);
            for change in &batch.changes {
                call.arg(change.offset)
                    .arg(change.at_ms)
                    .arg(u8::from(change.value.is_none()))
                    .arg(change.value.unwrap_or_default())
                    .arg(change.json);
            }
        }
        let mut answer: Result<Vec<u8>, RedisError> = pipe.query_async(&mut connection).await;
        if matches!(&answer, Err(why) if why.kind() == ErrorKind::Server(ServerErrorKind::NoScript)) {
            let loaded = self.0.script.load_async(&mut connection).await;
            loaded.map_err(|why| self.unreachable(&why))?;
            answer = pipe.query_async(&mut connection).await;
        }
        let taken = answer.map_err(|why| self.unreachable(&why))?;
        Ok(taken.into_iter().map(|taken| if taken == 1 { Applied::Taken } else { Applied::Refused }).collect())
    }
}

/// `g`, `o`, `p`, `t`, `v` of a profile's hash.
type Fields = (Option<u64>, Option<u64>, Option<u32>, Option<i64>, Option<Vec<u8>>);

fn lookup(fields: Fields) -> Lookup {
    match fields {
        (Some(generation), Some(offset), Some(partition), Some(at_ms), value) => {
            let guard = Guard { generation, offset };
            value.map_or(Lookup::Deleted(guard), |value| Lookup::Found(Held { guard, partition, at_ms, value }))
        }
        // Not written by us, or in part evicted: as good as nothing.
        _ => Lookup::NotFound,
    }
}

fn progress_of(text: Option<String>) -> Option<Progress> {
    let text = text?;
    let (generation, next) = text.split_once(':')?;
    Some(Progress { generation: generation.parse().ok()?, next: next.parse().ok()? })
}

impl Tier for Warm {
    async fn read(&self, users: &[&str]) -> Result<Vec<Lookup>, Unreachable> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for user in users {
            pipe.cmd("HMGET").arg(self.key(user)).arg(&["g", "o", "p", "t", "v"]);
        }
        let asking = async {
            let mut connection = self.connection().await?;
            pipe.query_async::<Vec<Fields>>(&mut connection).await.map_err(|why| self.unreachable(&why))
        };
        Ok(self.within(asking).await??.into_iter().map(lookup).collect())
    }

    async fn write(&self, batches: &[Batch<'_>]) -> Result<Vec<Applied>, Unreachable> {
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        self.within(self.run(batches)).await?
    }

    async fn progress(&self, of: &[(&str, u32)]) -> Result<Vec<Option<Progress>>, Unreachable> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = redis::cmd("HMGET");
        ask.arg(self.progress_key());
        for (topic, partition) in of {
            ask.arg(format!("{topic}:{partition}"));
        }
        let asking = async {
            let mut connection = self.connection().await?;
            ask.query_async::<Vec<Option<String>>>(&mut connection).await.map_err(|why| self.unreachable(&why))
        };
        Ok(self.within(asking).await??.into_iter().map(progress_of).collect())
    }
}
