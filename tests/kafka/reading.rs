//! The reader's position stays below what is not decided.

use std::time::{Duration, Instant};

use topology::broker::{Broker, Member, Reader};
use topology::record::Fetched;

use crate::world::{OUTPUT, World, at, record, until};

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn the_position_stays_below_an_open_transaction() {
    for commit in [true, false] {
        let Some(world) = World::new("open") else { return };
        let mut member = world.owner("a");
        let mut reader = world.broker.reader().expect("a reader");
        let place = at(OUTPUT, 0);
        world.publish(place, 3);
        member.begin().expect("begun");
        member.send(&record(place, b"undecided")).expect("sent");
        member.flush().expect("delivered");
        reader.assign(place, 0).expect("assigned");
        assert_eq!(reader.bounds(place).expect("bounds").end, 4, "the end is the high watermark");
        let mut fetched = Fetched::default();
        until("the last stable offset", || {
            reader.poll(&mut fetched, 1000, SHORT).expect("polled");
            (reader.position(place) == Some(3)).then_some(())
        });
        let quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(500) {
            reader.poll(&mut fetched, 1000, SHORT).expect("polled");
            assert_eq!(reader.position(place), Some(3));
        }
        if commit {
            let token = member.token().expect("a member");
            member.commit(&[], token).expect("committed");
        } else {
            member.abort().expect("aborted");
        }
        until("the end", || {
            reader.poll(&mut fetched, 1000, SHORT).expect("polled");
            (reader.position(place) == Some(5)).then_some(())
        });
        assert_eq!(fetched.len(), if commit { 4 } else { 3 });
    }
}
