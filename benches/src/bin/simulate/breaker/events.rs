//! Virtual time: what is due, in order.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use swiftwater_core::{Clock, Hand};

/// Since the beginning of the simulation, or a span of it.
pub type Nanos = u64;

pub const MILLISECOND: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MILLISECOND;

/// The time of one simulation, and a clock that shows it to whoever takes it from one.
pub struct Time {
    now: Nanos,
    clock: Clock,
    hand: Hand,
}

impl Time {
    pub fn new() -> Self {
        let (clock, hand) = Clock::manual();
        Self { now: 0, clock, hand }
    }

    pub fn now(&self) -> Nanos {
        self.now
    }

    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Never back.
    pub fn move_to(&mut self, now: Nanos) {
        self.hand.advance(Duration::from_nanos(now - self.now));
        self.now = now;
    }
}

/// Events at one time come in the order in which they were planned.
pub struct Events<E> {
    time: Time,
    due: BinaryHeap<Due<E>>,
    /// What was planned with [`plan_as_ever`](Self::plan_as_ever), in order.
    as_ever: VecDeque<Due<E>>,
    planned: u64,
}

struct Due<E> {
    at: Nanos,
    number: u64,
    event: E,
}

impl<E> Events<E> {
    pub fn new(time: Time) -> Self {
        Self { time, due: BinaryHeap::new(), as_ever: VecDeque::new(), planned: 0 }
    }

    pub fn now(&self) -> Nanos {
        self.time.now()
    }

    pub fn plan(&mut self, after: Nanos, event: E) {
        let due = self.number(after, event);
        self.due.push(due);
    }

    /// For events that always come `after` the same time, as time-outs do: they need no heap, and there are thousands of
    /// them. With time-outs in the heap half of all computing went into it.
    pub fn plan_as_ever(&mut self, after: Nanos, event: E) {
        let due = self.number(after, event);
        assert!(self.as_ever.back().is_none_or(|last| last.at <= due.at), "not after the same time as ever");
        self.as_ever.push_back(due);
    }

    fn number(&mut self, after: Nanos, event: E) -> Due<E> {
        self.planned += 1;
        Due { at: self.now() + after, number: self.planned, event }
    }

    /// The next event before `end`; the time is its time then.
    pub fn next(&mut self, end: Nanos) -> Option<E> {
        // None is less than anything that is due.
        let heap = self.due.peek() > self.as_ever.front();
        let next = if heap { self.due.peek() } else { self.as_ever.front() };
        next.filter(|next| next.at < end)?;
        let Due { at, event, .. } = if heap { self.due.pop() } else { self.as_ever.pop_front() }?;
        self.time.move_to(at);
        Some(event)
    }
}

/// The earliest is the greatest: the heap keeps that one on top.
impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Due<E> {}

/// A span drawn from the exponential distribution: between the arrivals of a Poisson process, or of work.
pub fn exponential(random: &mut fastrand::Rng, mean: f64) -> Nanos {
    // 1 - u is never zero.
    (-(1.0 - random.f64()).ln() * mean) as Nanos
}

pub fn seconds(span: Nanos) -> f64 {
    span as f64 / SECOND as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_planned() {
        let mut events = Events::new(Time::new());
        for (after, event) in [(3, 'c'), (1, 'a'), (3, 'd'), (2, 'b'), (9, 'z')] {
            events.plan(after, event);
        }
        events.plan_as_ever(3, 'e');
        let clock = events.time.clock();
        let order: String = std::iter::from_fn(|| events.next(9)).collect();
        assert_eq!((order.as_str(), events.now(), clock.now().as_nanos()), ("abcde", 3, 3));
    }

    #[test]
    fn spans_have_their_mean() {
        let mut random = fastrand::Rng::with_seed(1);
        let sum: u64 = (0..100_000).map(|_| exponential(&mut random, 1e6)).sum();
        assert!((0.99e11..1.01e11).contains(&(sum as f64)), "{sum}");
    }
}
