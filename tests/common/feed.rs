//! Payments, sent at the pace at which verdicts come: there is always more to do, so whatever happens to an instance happens while
//! it is busy, on every machine.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::ledger::{Payment, id_of};
use super::records::{Tail, Writer};
use super::scene::Scene;

/// Payments on their way, at most: several polls of an instance.
const WINDOW: usize = 6_000;

pub struct Feed<'a> {
    payments: &'a [Payment],
    topic: String,
    writer: Writer,
    tail: Tail,
    sent: usize,
    seen: HashSet<String>,
    /// Committed verdicts beyond the first one of an id.
    pub doubled: usize,
}

impl<'a> Feed<'a> {
    /// The topic of verdicts must exist.
    pub fn new(scene: &Scene, payments: &'a [Payment]) -> Self {
        let tail = Tail::new(&scene.address, &scene.topic("verdicts"));
        let (topic, writer) = (scene.topic("transactions"), scene.writer());
        Self { payments, topic, writer, tail, sent: 0, seen: HashSet::new(), doubled: 0 }
    }

    /// Sends and reads until so many payments have verdicts, and sends no more than the window beyond them.
    pub fn reach(&mut self, count: usize) {
        let mut progressed = Instant::now();
        while self.seen.len() < count {
            self.send(self.seen.len() + WINDOW);
            self.writer.serve();
            if self.read(Duration::from_millis(10)) {
                progressed = Instant::now();
            }
            let (seen, sent) = (self.seen.len(), self.sent);
            assert!(progressed.elapsed() < PATIENCE, "no verdict for {PATIENCE:?}: {seen} are there for {sent} payments");
        }
    }

    /// How many payments have verdicts.
    pub fn seen(&self) -> usize {
        self.seen.len()
    }

    /// How many were sent.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Reads what has come, for a moment.
    pub fn look(&mut self) {
        self.read(Duration::from_millis(10));
    }

    /// Sends payments up to a number, whether or not there are verdicts.
    pub fn send(&mut self, upto: usize) {
        let upto = upto.clamp(self.sent, self.payments.len());
        for payment in &self.payments[self.sent..upto] {
            self.writer.keyed(&self.topic, payment.user.as_bytes(), &payment.json, payment.at_ms);
        }
        self.sent = upto;
        self.writer.serve();
    }

    /// Waits until the broker has all that was sent.
    pub fn flush(&self) {
        self.writer.flush();
    }

    /// Sends and reads until all payments up to the count have verdicts, and nothing beyond is sent.
    pub fn finish(&mut self, count: usize) {
        assert!(self.sent <= count, "{} payments were sent already", self.sent);
        let all = self.payments;
        self.payments = &all[..count];
        self.reach(count);
        self.payments = all;
    }

    /// Reads what is there, after waiting for the first record; true where something was.
    fn read(&mut self, wait: Duration) -> bool {
        let mut next = self.tail.next(wait);
        let any = next.is_some();
        while let Some(seen) = next {
            if !self.seen.insert(id_of(seen.value.as_deref().unwrap_or_default())) {
                self.doubled += 1;
            }
            next = self.tail.next(Duration::ZERO);
        }
        any
    }
}
