//! Each fault does what it says, and nothing else.

use std::time::Duration;

use topology::broker::{Broker, Event, Member, Publisher, Reaction, Reader};
use topology::record::Fetched;
use topology::simulated::{Fault, FaultKind, Op, StoredEntry};

use crate::scene::{
    GROUP, INPUT, OUTPUT, TRANSACTION_TIMEOUT_MS, alone, at, begin, commit, config, follow, next, poll, publish, reaction,
    record, scene, visible,
};

#[test]
fn a_late_commit_ends_the_next_transaction_of_the_same_epoch() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    begin(&mut member, &["first"]);
    next(&sim, Op::EndTxnCommit, Fault::Late(1000));
    assert_eq!(reaction(commit(&mut member, &[(at(INPUT, 0), 1)])), Reaction::Unknown);
    // A client that goes on as if nothing had happened: aborts, and begins anew.
    member.abort().unwrap();
    begin(&mut member, &["half of "]);
    assert!(visible(&sim).is_empty());
    sim.advance(1000);
    assert_eq!(visible(&sim), ["half of "], "the late commit took what was open");
    assert!(sim.open_transactions().is_empty());
}

#[test]
fn a_transaction_that_was_taken_away_takes_no_more_records() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    begin(&mut member, &["first"]);
    next(&sim, Op::EndTxnCommit, Fault::Late(1000));
    assert_eq!(reaction(commit(&mut member, &[])), Reaction::Unknown);
    member.abort().unwrap();
    begin(&mut member, &["half of "]);
    sim.advance(1000);
    // Another partition is added and opens a transaction anew; the first one is not, as the client believes it to be part of it.
    member.send(&record(at(OUTPUT, 1), "elsewhere")).unwrap();
    member.send(&record(at(OUTPUT, 0), "the second")).unwrap();
    assert_eq!(reaction(commit(&mut member, &[])), Reaction::Abort);
    member.abort().unwrap();
    assert_eq!(visible(&sim), ["half of "]);
}

#[test]
fn a_late_commit_finds_nothing_after_a_reopen() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    begin(&mut member, &["first"]);
    next(&sim, Op::EndTxnCommit, Fault::Late(1000));
    assert_eq!(reaction(commit(&mut member, &[(at(INPUT, 0), 1)])), Reaction::Unknown);
    member.reopen().unwrap();
    begin(&mut member, &["second"]);
    sim.advance(1000);
    assert!(visible(&sim).is_empty(), "the bumped epoch refuses it");
    assert_eq!(sim.open_transactions().len(), 1);
    commit(&mut member, &[(at(INPUT, 0), 2)]).unwrap();
    assert_eq!(visible(&sim), ["second"]);
    assert_eq!(sim.group_offsets(GROUP)[&at(INPUT, 0)], 2);
}

#[test]
fn a_late_abort_ends_the_next_transaction_of_the_same_epoch() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    begin(&mut member, &["first"]);
    next(&sim, Op::EndTxnAbort, Fault::Late(1000));
    assert_eq!(reaction(member.abort()), Reaction::Unknown);
    begin(&mut member, &["second"]);
    sim.advance(1000);
    assert!(sim.open_transactions().is_empty());
    assert_eq!(reaction(commit(&mut member, &[])), Reaction::Fenced, "nothing is left to commit");
    assert!(visible(&sim).is_empty());
}

#[test]
fn a_lost_commit_is_not_done_and_a_lost_answer_is() {
    for (fault, done) in [(Fault::LostRequest, false), (Fault::LostAnswer, true)] {
        let sim = scene();
        let mut member = alone(&sim, "a");
        begin(&mut member, &["one"]);
        next(&sim, Op::EndTxnCommit, fault);
        assert_eq!(reaction(commit(&mut member, &[(at(INPUT, 0), 1)])), Reaction::Unknown);
        let offsets = member.committed(&[at(INPUT, 0)], Duration::ZERO);
        if done {
            assert_eq!(offsets, Ok(vec![Some(1)]));
        } else {
            assert_eq!(reaction(offsets), Reaction::Retry, "pending offsets are not answered");
        }
        member.reopen().unwrap();
        assert_eq!(visible(&sim).len(), usize::from(done));
        assert_eq!(member.committed(&[at(INPUT, 0)], Duration::ZERO), Ok(vec![done.then_some(1)]));
    }
}

#[test]
fn slow_markers_decide_at_once_and_show_later() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    begin(&mut member, &["one"]);
    next(&sim, Op::EndTxnCommit, Fault::SlowMarkers(50));
    commit(&mut member, &[(at(INPUT, 0), 1)]).unwrap();
    assert!(visible(&sim).is_empty());
    assert_eq!(reaction(member.committed(&[at(INPUT, 0)], Duration::ZERO)), Reaction::Retry);
    sim.advance(49);
    assert!(visible(&sim).is_empty());
    sim.advance(1);
    assert_eq!(visible(&sim), ["one"]);
    assert_eq!(member.committed(&[at(INPUT, 0)], Duration::ZERO), Ok(vec![Some(1)]));
    // The producer's next transaction, and its successor, wait for them.
    for successor in [false, true] {
        begin(&mut member, &["next"]);
        next(&sim, Op::EndTxnCommit, Fault::SlowMarkers(50));
        commit(&mut member, &[]).unwrap();
        let before = visible(&sim).len();
        if successor {
            member.reopen().unwrap();
        } else {
            begin(&mut member, &["open"]);
        }
        assert_eq!(visible(&sim).len(), before + 1);
        if !successor {
            member.abort().unwrap();
        }
    }
}

#[test]
fn errors_of_sends_surface_at_the_commit() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    next(&sim, Op::Send, Fault::Error(Reaction::Abort));
    begin(&mut member, &["failed", "sent"]);
    assert_eq!(reaction(commit(&mut member, &[])), Reaction::Abort);
    member.abort().unwrap();
    assert!(visible(&sim).is_empty());
    begin(&mut member, &["again"]);
    commit(&mut member, &[]).unwrap();
    assert_eq!(visible(&sim), ["again"]);
}

#[test]
fn each_step_of_a_commit_can_fail_with_the_transaction_left_open() {
    for (op, asked) in [(Op::Flush, Reaction::Retry), (Op::AddOffsets, Reaction::Abort), (Op::EndTxnCommit, Reaction::Fenced)] {
        let sim = scene();
        let mut member = alone(&sim, "a");
        begin(&mut member, &["one"]);
        next(&sim, op, Fault::Error(asked));
        assert_eq!(reaction(commit(&mut member, &[(at(INPUT, 0), 1)])), asked, "{op:?}");
        assert_eq!(sim.open_transactions().len(), 1);
        member.abort().unwrap();
        assert!(sim.open_transactions().is_empty() && visible(&sim).is_empty());
        assert!(sim.group_offsets(GROUP).is_empty());
    }
}

#[test]
fn held_back_records_keep_their_order() {
    for fault in [Fault::LostRequest, Fault::Late(10), Fault::LostAnswer] {
        let sim = scene();
        let mut member = alone(&sim, "a");
        next(&sim, Op::Send, fault);
        begin(&mut member, &["one", "two", "three"]);
        commit(&mut member, &[]).unwrap();
        assert_eq!(visible(&sim), ["one", "two", "three"], "{fault:?}");
    }
}

#[test]
fn a_late_record_of_the_dead_arrives_unless_its_epoch_is_over() {
    // Under at-least-once nothing refuses it.
    let sim = scene();
    let mut plain = sim.join(&topology::broker::MemberConfig { transactional_id: None, ..config("a") }).unwrap();
    next(&sim, Op::Send, Fault::Late(10));
    plain.send(&record(at(OUTPUT, 0), "late")).unwrap();
    drop(plain);
    assert!(visible(&sim).is_empty());
    sim.advance(10);
    assert_eq!(visible(&sim), ["late"]);
    // A transaction's record finds its transaction open, or is refused.
    for successor in [false, true] {
        let sim = scene();
        let mut member = alone(&sim, "a");
        begin(&mut member, &["first"]);
        next(&sim, Op::Send, Fault::Late(10));
        member.send(&record(at(OUTPUT, 0), "late")).unwrap();
        drop(member);
        let successor = successor.then(|| sim.join(&config("a")).unwrap());
        sim.advance(10);
        let records = sim.entries(at(OUTPUT, 0)).into_iter().filter(|entry| matches!(entry, StoredEntry::Record(..))).count();
        assert_eq!(records, if successor.is_some() { 1 } else { 2 });
    }
}

#[test]
fn a_late_record_arrives_once_and_not_in_the_next_transaction() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    next(&sim, Op::Send, Fault::Late(10));
    begin(&mut member, &["late"]);
    sim.advance(10);
    commit(&mut member, &[]).unwrap();
    assert_eq!(visible(&sim), ["late"]);
    next(&sim, Op::Send, Fault::Late(10));
    begin(&mut member, &["aborted"]);
    member.abort().unwrap();
    begin(&mut member, &["next"]);
    sim.advance(10);
    commit(&mut member, &[]).unwrap();
    assert_eq!(visible(&sim), ["late", "next"]);
}

#[test]
fn a_crash_silences_the_instance_before_or_after_the_deed() {
    for done in [false, true] {
        let sim = scene();
        let mut member = alone(&sim, "a");
        begin(&mut member, &["one"]);
        next(&sim, Op::EndTxnCommit, Fault::Crash { done });
        assert_eq!(reaction(commit(&mut member, &[(at(INPUT, 0), 1)])), Reaction::Stop);
        assert_eq!(reaction(poll(&mut member, &mut Vec::new())), Reaction::Stop);
        assert_eq!(reaction(member.abort()), Reaction::Stop);
        assert_eq!(reaction(member.reopen()), Reaction::Stop);
        assert_eq!(sim.open_transactions().len(), usize::from(!done), "nobody ends what the dead left open");
        drop(member);
        let mut successor = sim.join(&config("a")).unwrap();
        assert_eq!(visible(&sim).len(), usize::from(done));
        assert_eq!(follow(&mut successor), Some(Event::Assigned(vec![at(INPUT, 0), at(INPUT, 1)])));
        assert_eq!(successor.committed(&[at(INPUT, 0)], Duration::ZERO), Ok(vec![done.then_some(1)]));
    }
}

#[test]
fn an_acknowledgement_may_fail_and_be_made_again_or_be_the_last() {
    let sim = scene();
    let mut first = alone(&sim, "a");
    let mut second = sim.join(&config("b")).unwrap();
    let revoked = poll(&mut first, &mut Vec::new()).unwrap().unwrap();
    next(&sim, Op::Acknowledge, Fault::Error(Reaction::Retry));
    assert_eq!(reaction(first.acknowledge(&revoked)), Reaction::Retry);
    assert_eq!((poll(&mut first, &mut Vec::new()), follow(&mut second)), (Ok(None), None), "given once, and not handed over");
    next(&sim, Op::Acknowledge, Fault::Crash { done: true });
    assert_eq!(reaction(first.acknowledge(&revoked)), Reaction::Stop);
    assert_eq!(follow(&mut second), Some(Event::Assigned(vec![at(INPUT, 1)])), "what it did last was to hand over");
}

#[test]
fn one_whose_heartbeats_are_lost_reads_on_and_is_dropped() {
    let sim = scene();
    publish(&sim, at(INPUT, 0), &["x"]);
    let mut zombie = alone(&sim, "a");
    zombie.start(&[(at(INPUT, 0), 0)]).unwrap();
    let mut other = sim.join(&config("b")).unwrap();
    sim.set_faults(|call| match call.op {
        Op::Heartbeat if call.instance == "a" => Fault::LostRequest,
        _ => Fault::None,
    });
    sim.advance(9000);
    assert_eq!(follow(&mut other), None);
    sim.advance(1000);
    assert_eq!(follow(&mut other), Some(Event::Assigned(vec![at(INPUT, 0), at(INPUT, 1)])));
    let mut seen = Vec::new();
    assert_eq!(poll(&mut zombie, &mut seen), Ok(None));
    assert_eq!(seen, ["x"], "a zombie reads what is another's by now");
    begin(&mut zombie, &["of the zombie"]);
    assert_eq!(reaction(commit(&mut zombie, &[(at(INPUT, 0), 1)])), Reaction::Abort);
    zombie.abort().unwrap();
    sim.clear_faults();
    assert_eq!(follow(&mut zombie), Some(Event::Lost(vec![at(INPUT, 0), at(INPUT, 1)])));
}

#[test]
fn a_token_asked_for_in_vain_is_an_old_one() {
    let sim = scene();
    let mut first = alone(&sim, "a");
    let mut second = sim.join(&config("b")).unwrap();
    assert_eq!(follow(&mut second), None);
    let revoked = poll(&mut first, &mut Vec::new()).unwrap().unwrap();
    assert_eq!(follow(&mut second), None);
    first.acknowledge(&revoked).unwrap();
    assert!(follow(&mut second).is_some(), "the next generation, which the first has not heard of");
    begin(&mut first, &["one"]);
    next(&sim, Op::Token, Fault::LostRequest);
    assert_eq!(reaction(commit(&mut first, &[(at(INPUT, 0), 1)])), Reaction::Abort);
    first.abort().unwrap();
    begin(&mut first, &["one"]);
    commit(&mut first, &[(at(INPUT, 0), 1)]).unwrap();
}

#[test]
fn a_late_initialisation_fences_the_successor() {
    let sim = scene();
    next(&sim, Op::InitProducer, Fault::Late(100));
    assert_eq!(reaction(sim.join(&config("a")).map(drop)), Reaction::Retry);
    let mut member = alone(&sim, "a");
    begin(&mut member, &["one"]);
    sim.advance(100);
    assert_eq!(reaction(commit(&mut member, &[])), Reaction::Fenced);
    member.reopen().unwrap();
    begin(&mut member, &["two"]);
    commit(&mut member, &[]).unwrap();
    assert_eq!(visible(&sim), ["two"]);
}

#[test]
fn late_offsets_are_refused_once_their_transaction_is_over() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    begin(&mut member, &["one"]);
    next(&sim, Op::AddOffsets, Fault::Late(100));
    assert_eq!(reaction(commit(&mut member, &[(at(INPUT, 0), 1)])), Reaction::Retry);
    member.abort().unwrap();
    sim.advance(100);
    assert!(sim.open_transactions().is_empty(), "they open nothing");
    begin(&mut member, &["two"]);
    commit(&mut member, &[(at(INPUT, 0), 2)]).unwrap();
    assert_eq!(sim.group_offsets(GROUP)[&at(INPUT, 0)], 2);
}

#[test]
fn late_offsets_without_a_transaction_are_admitted_by_generation_alone() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    next(&sim, Op::CommitOffsets, Fault::Late(100));
    let token = member.token().unwrap();
    assert_eq!(reaction(member.commit_offsets(&[(at(INPUT, 0), 1)], token)), Reaction::Retry);
    sim.advance(100);
    assert_eq!(sim.group_offsets(GROUP)[&at(INPUT, 0)], 1);
    next(&sim, Op::CommitOffsets, Fault::Late(100));
    let token = member.token().unwrap();
    assert_eq!(reaction(member.commit_offsets(&[(at(INPUT, 0), 7)], token)), Reaction::Retry);
    member.leave(true).unwrap();
    sim.advance(100);
    assert_eq!(sim.group_offsets(GROUP)[&at(INPUT, 0)], 1, "the generation is over");
}

#[test]
fn lost_fetches_only_take_time() {
    let sim = scene();
    publish(&sim, at(INPUT, 0), &["x"]);
    let mut reader = sim.named("audit").reader().unwrap();
    reader.assign(at(INPUT, 0), 0).unwrap();
    let mut fetched = Fetched::default();
    next(&sim, Op::ReaderPoll, Fault::LostAnswer);
    reader.poll(&mut fetched, 10, Duration::ZERO).unwrap();
    assert!(fetched.is_empty() && reader.position(at(INPUT, 0)).is_none());
    reader.poll(&mut fetched, 10, Duration::ZERO).unwrap();
    assert_eq!((fetched.len(), reader.position(at(INPUT, 0))), (1, Some(1)));
}

#[test]
fn publishers_retry_what_was_lost_and_tell_what_failed() {
    let sim = scene();
    let mut publisher = sim.publisher().unwrap();
    let mut positions = Vec::new();
    for fault in [Fault::LostRequest, Fault::LostAnswer, Fault::Late(5)] {
        next(&sim, Op::Publish, fault);
        publisher.send(&record(at(OUTPUT, 0), "x")).unwrap();
        publisher.send(&record(at(OUTPUT, 0), "y")).unwrap();
        publisher.flush_positions(&mut positions).unwrap();
    }
    assert_eq!(visible(&sim), ["x", "y", "x", "y", "x", "y"]);
    assert_eq!(positions.iter().map(|(_, offset)| *offset).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    next(&sim, Op::Publish, Fault::Error(Reaction::Stop));
    publisher.send(&record(at(OUTPUT, 0), "failed")).unwrap();
    assert_eq!(reaction(publisher.flush_positions(&mut positions)), Reaction::Stop);
    publisher.send(&record(at(OUTPUT, 0), "z")).unwrap();
    publisher.flush_positions(&mut positions).unwrap();
    assert_eq!(positions.len(), 7);
    assert_eq!(visible(&sim).len(), 7);
}

#[test]
fn the_hook_is_told_who_and_when_and_is_counted() {
    let sim = scene();
    let mut member = alone(&sim, "a");
    sim.advance(7);
    let probe = sim.clone();
    sim.set_faults(move |call| {
        // It may look at the broker, and even let time pass.
        assert_eq!(probe.now(), call.now_ms);
        if call.op == Op::Flush {
            probe.advance(TRANSACTION_TIMEOUT_MS);
        }
        if call.op == Op::Bounds && call.nth % 2 == 0 && call.instance == "a" {
            Fault::Error(Reaction::Retry)
        } else {
            Fault::None
        }
    });
    begin(&mut member, &["one"]);
    assert_eq!(reaction(commit(&mut member, &[])), Reaction::Fenced, "time passed in the middle of the commit");
    for _ in 0..4 {
        let _ = member.bounds(at(INPUT, 0));
    }
    let counts = sim.faults_injected();
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [((Op::Bounds, FaultKind::Error), 2)]);
    assert_eq!((sim.calls(Op::Bounds), sim.calls(Op::Send)), (4, 1));
}
