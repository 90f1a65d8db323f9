//! Without transactions: acknowledged writes, and offsets committed under the group's generation.

use std::collections::BTreeSet;

use topology::broker::{Broker, Member, Reaction};

use crate::world::{INPUT, OUTPUT, PARTITIONS, PATIENCE, World, at, own, record};

#[test]
fn what_is_flushed_is_there_and_offsets_are_committed() {
    let Some(world) = World::new("flush") else { return };
    let mut identity = world.identity("a");
    identity.transactional_id = None;
    let mut member = world.broker.join(&identity).expect("joined");
    own(&mut [&mut member], &mut [BTreeSet::new()], PARTITIONS as usize);
    for number in 0..1000 {
        member.send(&record(at(OUTPUT, 0), number.to_string().as_bytes())).expect("sent");
    }
    member.flush().expect("acknowledged");
    assert_eq!(world.values(at(OUTPUT, 0)).len(), 1000);
    let token = member.token().expect("a member");
    member.commit_offsets(&[(at(INPUT, 0), 10), (at(INPUT, 3), 30)], token).expect("committed");
    let asked = [at(INPUT, 0), at(INPUT, 1), at(INPUT, 3)];
    assert_eq!(member.committed(&asked, PATIENCE), Ok(vec![Some(10), None, Some(30)]));
    member.reopen().expect("reopened");
    member.send(&record(at(OUTPUT, 1), b"after")).expect("sent");
    member.flush().expect("acknowledged");
    assert_eq!(world.values(at(OUTPUT, 1)), ["after"]);
    let error = member.send(&record(at(crate::world::NARROW, 0), &vec![0; 200_000])).unwrap_err();
    assert_eq!(error.reaction, Reaction::TooLarge);
}
