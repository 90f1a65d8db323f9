//! `GET /v1/state/users?after=&limit=`: the users that have a profile on this instance, page by page.
//!
//! Partitions come in order, and users within them in the store's own order, which is a hash's: a user who is there from the first page
//! to the last is listed exactly once, whatever comes, goes or changes meanwhile. The cursor names its place and no count, and is hex
//! only so that nobody takes it for anything: who may list users may see who it names.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use state::backend::StorePartition;
use topology::status::Phase;
use tracing::error;

use super::call::{Answer, Call};
use super::declare::{Declared, Takes, gives, parameter};
use super::parameters;
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::site::Site;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "page_of_users")]
struct Page<'s> {
    instance: &'s str,
    /// The partitions that this instance answers for: users of others are not listed.
    partitions: Vec<u32>,
    users: Vec<User>,
    /// Give it as `after` to go on; null at the end.
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct User {
    user_id: String,
    partition: u32,
}

/// Behind which user of which partition to go on.
#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    partition: u32,
    key: Vec<u8>,
}

impl Cursor {
    fn text(&self) -> String {
        let bytes = self.partition.to_be_bytes().into_iter().chain(self.key.iter().copied());
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    fn read(text: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let (partition, key) = bytes.split_first_chunk()?;
        (!key.is_empty()).then(|| Self { partition: u32::from_be_bytes(*partition), key: key.to_vec() })
    }
}

/// What the route says of itself.
pub(crate) const LIST: Declared = Declared::new(
    "Users",
    "The users that have a profile on this instance, page by page",
    &[gives::<Page<'_>>(200, "A page; `next` leads to the next one.")],
)
.query(&[
    parameter("after", Takes::Pattern("^([0-9a-f]{2}){5,}$"), "`next` of the page before; absent, the list begins."),
    parameter("limit", Takes::Number(1, LIMIT_MAX as i64), "Users of one page; 100 unless given."),
])
.problems(&[Kind::CursorGone, Kind::StateUnavailable]);

/// Answers the route.
pub(crate) fn list(call: &Call) -> Answer {
    let site = &*call.site;
    let (mut after, mut limit) = (None, LIMIT_DEFAULT);
    for (name, value) in parameters::read(&call.query, &["after", "limit"])? {
        match name {
            "after" => {
                after = Some(Cursor::read(&value).ok_or_else(|| parameters::invalid("`after`: expected `next` of a page"))?)
            }
            _ => {
                let number = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                limit = number.ok_or_else(|| parameters::invalid(format!("`limit`: expected 1 to {LIMIT_MAX}")))?;
            }
        }
    }
    let partitions = running(site);
    if let Some(cursor) = &after
        && !partitions.contains(&cursor.partition)
    {
        return Err(Problem::new(Kind::CursorGone, format!("partition {} is not answerable here", cursor.partition)));
    }
    let from = after.as_ref().map_or(0, |cursor| cursor.partition);
    let mut users = Vec::new();
    for &partition in partitions.iter().filter(|partition| **partition >= from) {
        let behind = after.as_ref().filter(|cursor| cursor.partition == partition).map(|cursor| cursor.key.as_slice());
        // One more than the page holds: then there is a next one.
        page(site, partition, behind, limit + 1 - users.len(), &mut users).map_err(|why| {
            error!(request = call.request, partition, %why, "users could not be listed");
            Problem::new(Kind::StateUnavailable, format!("partition {partition} could not be read"))
        })?;
        if users.len() > limit {
            break;
        }
    }
    let more = users.len() > limit;
    users.truncate(limit);
    let last = users.last().filter(|_| more);
    let next = last.map(|user| Cursor { partition: user.partition, key: user.user_id.clone().into_bytes() }.text());
    Ok(Reply::json(StatusCode::OK, &Page { instance: &site.api.instance, partitions, users, next }))
}

/// The partitions of users whose tasks run here.
fn running(site: &Site) -> Vec<u32> {
    let tasks = site.api.tasks.all().into_iter();
    let here = tasks.filter(|(task, status)| task.sub == site.profiles.sub && status.phase == Phase::Running);
    here.map(|(task, _)| task.partition).collect()
}

fn page(site: &Site, partition: u32, after: Option<&[u8]>, limit: usize, into: &mut Vec<User>) -> state::backend::Result<()> {
    let of = StorePartition { store: site.profiles.store.clone(), partition };
    site.api.backend.scan(&of, after, limit, &mut |key, _| {
        // Ids are UTF-8: the reader of payments refuses others.
        into.push(User { user_id: String::from_utf8_lossy(key).into_owned(), partition });
        true
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_are_read_back(partition in any::<u32>(), key in prop::collection::vec(any::<u8>(), 1..40)) {
            let cursor = Cursor { partition, key };
            prop_assert_eq!(Cursor::read(&cursor.text()), Some(cursor));
        }

        #[test]
        fn other_texts_are_none(text in "\\PC{0,9}|[0-9a-f]{0,8}|([0-9a-f]{2}){0,9}[0-9a-f]") {
            prop_assert_eq!(Cursor::read(&text), None);
        }
    }
}
