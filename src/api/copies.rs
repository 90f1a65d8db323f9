//! What Redis and Postgres hold of a user who was erased: a part of the receipt, asked of the servers themselves.

use state::tier::{Lookup, Tier, Unreachable};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::receipt::{Found, Place, place};
use crate::tiers::{Cold, READ_TIMEOUT, Remains, Tiers};

const BEHIND: &str = "the projection has not come to the erasure yet";
const BACK: &str = "payments came since; of what was before them nothing is left";

/// An erasure, as tiers can be asked about it.
#[derive(Clone, Copy)]
pub(super) struct Erased<'e> {
    pub(super) user: &'e str,
    /// The changelog's topic and partition.
    pub(super) changelog: &'e str,
    pub(super) partition: u32,
    /// The tombstone's offset there; none where there is none, or the topic no longer keeps it.
    pub(super) tombstone: Option<u64>,
    /// Where the changelog ended before the erasure was ordered.
    pub(super) from: u64,
    /// The payments' next offset when it took effect.
    pub(super) after: u64,
}

/// The profile in a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// None, and none to come of what was before.
    Gone,
    /// None, but for the place of its deletion.
    Deleted,
    /// That of before, or it may still come.
    Behind,
    /// A new one.
    Back,
}

/// The tiers that there are, each asked for as long as a read may take. Not to be called on the event loop.
pub(super) fn places(tiers: &Tiers, erased: &Erased<'_>) -> Vec<Place> {
    let Tiers { warm, cold } = tiers;
    let redis = async { Some(answered("redis", timeout(READ_TIMEOUT, in_redis(warm.as_ref()?, erased)).await)) };
    let postgres = async { Some(answered("postgres", timeout(READ_TIMEOUT, in_postgres(cold.as_ref()?, erased)).await)) };
    let (redis, postgres) = Handle::current().block_on(async { tokio::join!(redis, postgres) });
    redis.into_iter().chain(postgres).collect()
}

type Answer = Result<(Found, String), Unreachable>;

fn answered(name: &str, answer: Result<Answer, tokio::time::error::Elapsed>) -> Place {
    match answer {
        Ok(Ok((found, why))) => place(name, found, why),
        Ok(Err(_)) | Err(_) => place(name, Found::Unreachable, "the server did not answer, or not in time: ask again"),
    }
}

async fn in_redis(warm: &impl Tier, erased: &Erased<'_>) -> Answer {
    Ok(said(profile(warm, erased).await?, "no profile"))
}

async fn in_postgres(cold: &Cold, erased: &Erased<'_>) -> Answer {
    let profile = profile(cold, erased).await?;
    Ok(match cold.remains(erased.user, erased.after).await? {
        Remains { known: false, .. } => (Found::Present, BEHIND.to_owned()),
        Remains { known: true, rows: 0 } => said(profile, "no profile, and no verdict or label of before"),
        Remains { known: true, rows } => (Found::Present, format!("{rows} rows of payments before the erasure are there")),
    })
}

fn said(profile: Profile, none: &str) -> (Found, String) {
    match profile {
        Profile::Gone => (Found::Deleted, none.to_owned()),
        Profile::Deleted => {
            let why =
                "; the id stays as a key for 30 days, with the place of the deletion, so that no older record brings it back";
            (Found::Deleted, format!("{none}{why}"))
        }
        Profile::Behind => (Found::Present, BEHIND.to_owned()),
        Profile::Back => (Found::Present, BACK.to_owned()),
    }
}

async fn profile(tier: &impl Tier, erased: &Erased<'_>) -> Result<Profile, Unreachable> {
    // The progress first: what it includes is in what is read then.
    let progress = tier.progress(&[(erased.changelog, erased.partition)]).await?.pop().flatten();
    let lookup = tier.read(&[erased.user]).await?.pop().unwrap_or(Lookup::NotFound);
    let next = progress.map_or(0, |progress| progress.next);
    Ok(standing(&lookup, next, erased))
}

fn standing(lookup: &Lookup, next: u64, erased: &Erased<'_>) -> Profile {
    let came = erased.tombstone.is_none_or(|tombstone| next > tombstone);
    match lookup {
        Lookup::Found(held) if held.guard.offset > erased.tombstone.unwrap_or(erased.from) => Profile::Back,
        Lookup::Found(_) => Profile::Behind,
        _ if !came => Profile::Behind,
        Lookup::Deleted(_) => Profile::Deleted,
        Lookup::NotFound => Profile::Gone,
    }
}

#[cfg(test)]
mod tests {
    use state::tier::{Guard, Held};

    use super::*;

    #[test]
    fn what_a_tier_holds_is_told_by_where_it_stands() {
        let erased = |tombstone| Erased { user: "u", changelog: "c", partition: 0, tombstone, from: 5, after: 9 };
        let found = |offset| {
            let guard = Guard { generation: 1, offset };
            Lookup::Found(Held { guard, partition: 0, at_ms: 0, value: Vec::new() })
        };
        let deleted = Lookup::Deleted(Guard { generation: 1, offset: 7 });
        let of = |lookup: &Lookup, next, tombstone| standing(lookup, next, &erased(tombstone));
        assert_eq!(of(&found(6), 7, Some(7)), Profile::Behind, "that of before is still there");
        assert_eq!(of(&found(8), 9, Some(7)), Profile::Back);
        assert_eq!(of(&deleted, 8, Some(7)), Profile::Deleted);
        assert_eq!(of(&Lookup::NotFound, 8, Some(7)), Profile::Gone);
        assert_eq!(of(&Lookup::NotFound, 7, Some(7)), Profile::Behind, "nothing is there yet, and what comes first is of before");
        assert_eq!(of(&Lookup::NotFound, 0, None), Profile::Gone, "the topic itself has nothing of before any more");
        assert_eq!(of(&found(4), 9, None), Profile::Behind);
        assert_eq!(of(&found(6), 9, None), Profile::Back);
    }
}
