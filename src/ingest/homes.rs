//! Which instance remembers the transaction ids of a partition: rendezvous hashing over the instances that serve HTTP.
//!
//! Every instance finds the same home from the same members by itself; one that comes or goes moves only its own share. Who owns the
//! partition's state does not matter here: a home needs the topic only, and is known again sooner than a lost owner is replaced.

use xxhash_rust::xxh3::xxh3_64;

use crate::membership::Peer;

/// Where a partition's ids are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// Here, and they are complete.
    Here,
    /// Here, and they are still being read.
    Reading,
    /// At another instance.
    There(Peer),
    /// Nobody is known to serve HTTP, not even this instance.
    Nowhere,
}

/// The home of a partition among members.
pub(super) fn home_of(partition: u32, members: &[Peer]) -> Option<&Peer> {
    let weight = |peer: &Peer| {
        let mut bytes = partition.to_le_bytes().to_vec();
        bytes.extend_from_slice(peer.instance.as_bytes());
        xxh3_64(&bytes)
    };
    members.iter().filter(|peer| !peer.endpoint.is_empty()).max_by_key(|peer| (weight(peer), peer.instance.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(instance: &str, endpoint: &str) -> Peer {
        Peer { instance: instance.into(), endpoint: endpoint.into(), active: Vec::new(), standby: Vec::new(), heard_ms: 0 }
    }

    #[test]
    fn homes_are_spread_and_only_those_of_who_goes_move() {
        let all: Vec<Peer> = ["a", "b", "c"].into_iter().map(|name| peer(name, "h:1")).collect();
        let mut shares = [0; 3];
        for partition in 0..300 {
            let home = home_of(partition, &all).expect("one");
            shares[all.iter().position(|peer| peer == home).expect("one of them")] += 1;
            let left: Vec<Peer> = all.iter().filter(|peer| peer.instance != "c").cloned().collect();
            if home.instance != "c" {
                assert_eq!(home_of(partition, &left), Some(home));
            }
        }
        assert!(shares.iter().all(|share| (60..=140).contains(share)), "{shares:?}");
    }

    #[test]
    fn who_serves_no_http_is_no_home() {
        assert_eq!(home_of(0, &[peer("a", "")]), None);
        assert_eq!(home_of(0, &[peer("a", ""), peer("b", "h:1")]).map(|peer| peer.instance.as_str()), Some("b"));
    }
}
