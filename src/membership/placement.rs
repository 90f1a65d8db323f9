//! Which instances keep the copies of a task: rendezvous hashing (Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous",
//! 1996). Each instance finds the same answer from the same members by itself, and one that comes or goes moves only its own share.

use xxhash_rust::xxh3::xxh3_64;

use topology::topology::TaskId;

/// The `replicas` instances of `members`, each at most once, that keep a task's copies, the first choice first; the owner keeps none.
pub(super) fn copies_of<'m>(
    members: impl Iterator<Item = &'m str>,
    owner: Option<&str>,
    task: TaskId,
    replicas: usize,
) -> Vec<&'m str> {
    let weight = |name: &str| {
        let mut bytes = Vec::with_capacity(name.len() + 7);
        bytes.extend_from_slice(&task.sub.to_le_bytes());
        bytes.extend_from_slice(&task.partition.to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        xxh3_64(&bytes)
    };
    let mut ranked: Vec<(u64, &str)> = members.filter(|name| Some(*name) != owner).map(|name| (weight(name), name)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.dedup();
    ranked.into_iter().take(replicas).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn tasks() -> impl Iterator<Item = TaskId> {
        (0..400).map(|partition| TaskId { sub: 0, partition })
    }

    #[test]
    fn copies_are_spread_and_never_with_the_owner() {
        let mut kept = [0; NAMES.len()];
        for task in tasks() {
            let owner = NAMES[task.partition as usize % NAMES.len()];
            let copies = copies_of(NAMES.into_iter(), Some(owner), task, 2);
            assert_eq!(copies.len(), 2);
            assert!(!copies.contains(&owner) && copies[0] != copies[1]);
            for name in copies {
                kept[NAMES.iter().position(|other| *other == name).expect("one of them")] += 1;
            }
        }
        assert!(kept.iter().all(|&kept| (120..=200).contains(&kept)), "400 tasks, 2 copies, 5 instances: {kept:?}");
        assert_eq!(copies_of(["a"].into_iter(), Some("a"), TaskId { sub: 0, partition: 0 }, 3), [""; 0]);
    }

    #[test]
    fn one_that_goes_moves_only_what_it_kept() {
        for task in tasks() {
            let before = copies_of(NAMES.into_iter(), None, task, 2);
            let after = copies_of(NAMES.into_iter().filter(|name| *name != "c"), None, task, 2);
            let stays = before.iter().filter(|name| **name != "c").all(|name| after.contains(name));
            assert!(stays && (before.contains(&"c") || before == after), "{task}: {before:?} then {after:?}");
        }
    }
}
