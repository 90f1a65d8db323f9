//! One past payment is scored again, and what cannot be is said.

use mangrove::audit::{Outcome, Place};
use topology::broker::{Broker as _, Publisher as _};
use topology::record::Outgoing;

use super::{at, audit_of, busy, last, topic};
use crate::scoring_world::{T, model, origin};

#[test]
fn every_payment_is_explained_by_the_very_answer_that_it_got() {
    let world = busy(2);
    let audit = audit_of(&world.driver.sim);
    let (first, second) = (model(150), model(400));
    let models = |id: &str| [&first, &second].into_iter().find(|model| model.id == id).map(|model| models::Model::clone(model));
    let (mut scored_again, mut without, mut with_reasons) = (0, 0, 0);
    for record in world.driver.sim.committed_records(topic("verdicts")).iter().step_by(7) {
        let id: Place = crate::scoring_world::json(record)["id"].as_str().unwrap().parse().unwrap();
        let explained = audit.explain(&id, &models, &mut |_, _, _| {}).unwrap();
        assert!(explained.same(), "{explained:?}");
        let Outcome::Verdict { at, scored, state, .. } = &explained.outcome else { panic!("{explained:?}") };
        assert_eq!((at.partition, at.offset), (record.partition.partition, record.offset));
        assert!(state.as_ref().is_some_and(|state| state.same));
        // The very reasons that the verdict gave.
        let verdict: models::Verdict = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        if !verdict.reasons.is_empty() {
            let texts: Vec<String> = verdict.reasons.iter().map(|reason| reason.text.clone()).collect();
            assert_eq!(state.as_ref().map(|state| &state.reasons), Some(&texts));
            let shares = &scored.as_ref().unwrap().contributions;
            for (reason, share) in verdict.reasons.iter().zip(shares) {
                assert_eq!((reason.feature.as_str(), reason.contribution), (share.feature, share.contribution));
            }
            with_reasons += 1;
        }
        match scored {
            Some(scored) => {
                assert_eq!(scored.contributions.len(), 10);
                scored_again += 1;
            }
            None => without += 1,
        }
    }
    assert!(scored_again > 30 && without > 10 && with_reasons > 0, "{scored_again} {without} {with_reasons}");
}

#[test]
fn an_explanation_says_what_it_could_not_rebuild() {
    let mut world = busy(1);
    let audit = audit_of(&world.driver.sim);
    let explain = |place: &str| audit.explain(&place.parse().unwrap(), &|_| None, &mut |_, _, _| {});
    let missing = explain("transactions:0:599").unwrap();
    assert!(missing.not_rebuilt[0].contains("is not at hand"), "{missing:?}");
    assert!(matches!(&missing.outcome, Outcome::Verdict { state: Some(state), .. } if state.same), "the state needs no model");
    let letter = last(&world, "dead-letters", |_| true);
    for place in [origin(&letter).0, format!("dead-letters:0:{}", letter.offset)] {
        let put_aside = explain(&place).unwrap();
        assert_eq!(put_aside.record.to_string(), origin(&letter).0);
        assert!(matches!(&put_aside.outcome, Outcome::DeadLetter { cause, .. } if *cause == origin(&letter).1), "{put_aside:?}");
    }
    let mut publisher = world.driver.sim.publisher().unwrap();
    let payment = crate::scoring_world::payment("ann", 1.0, "shop", T);
    let (to, value) = (at("transactions", 0), Some(payment.as_bytes()));
    publisher.send(&Outgoing { to, key: Some(b"ann"), value, timestamp: T, headers: &[] }).unwrap();
    publisher.flush().unwrap();
    let end = world.driver.sim.bounds_of(at("transactions", 0)).unwrap().end;
    let waiting = explain(&format!("transactions:0:{}", end - 1)).unwrap();
    assert!(matches!(&waiting.outcome, Outcome::Nothing { why } if why.contains("not processed yet")), "{waiting:?}");
    for (place, why) in [
        (format!("transactions:0:{end}"), "does not exist yet"),
        ("transactions:1:0".to_owned(), "has the partitions 0 to 0"),
        ("nothing:0:0".to_owned(), "none of the topics"),
    ] {
        assert!(explain(&place).unwrap_err().to_string().contains(why), "{place}");
    }
    world.driver.run().unwrap();
    world.driver.sim.truncate_before(at("transactions", 0), 590);
    let gone = explain("transactions:0:580").unwrap();
    assert!(gone.not_rebuilt.iter().any(|what| what.contains("the payment itself")), "{gone:?}");
    let short = explain("transactions:0:600").unwrap();
    assert!(short.not_rebuilt.iter().any(|what| what.contains("began before")), "{short:?}");
}
