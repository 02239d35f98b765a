//! How long a batch takes, learned; and when a request that comes now would be answered.

use std::time::Duration;

/// An exponentially weighted average of batch times; the algorithm is the one that TCP smooths round trips with
/// (RFC 6298, section 2), with a larger weight, since there are fewer samples.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    batch: Option<Duration>,
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self { batch: None }
    }

    pub(crate) fn learn(&mut self, took: Duration) {
        self.batch = Some(match self.batch {
            None => took,
            Some(known) if took > known => known + (took - known) / WEIGHT,
            Some(known) => known - (known - took) / WEIGHT,
        });
    }

    /// After how long the answer is expected, for a request whose batch comes after `queued` others that wait and the
    /// `running` ones, of which the oldest began `since` ago, `slots` at a time. `None` if nothing was learned yet, or if
    /// there is a slot for its batch at once: then no estimate stands in its way, so that a wrong one can be unlearned.
    pub(crate) fn answer(
        &self,
        queued: usize,
        running: usize,
        slots: usize,
        since: Duration,
    ) -> Option<Duration> {
        let batch = self.batch?;
        // Batches begin `slots` at a time, each round one batch time after the last; the running ones are the first.
        let round = queued.saturating_add(running) / slots.max(1);
        if round == 0 {
            return None;
        }
        let rounds = u32::try_from(round).unwrap_or(u32::MAX).saturating_add(1);
        // The oldest one's head start is everybody's: for one slot exact, for more never too late by more than a batch.
        Some(batch.saturating_mul(rounds).saturating_sub(since.min(batch)))
    }
}

/// Whether an answer that is expected then may well come after `limit`.
///
/// Under overload the queue grows until the next request is refused, so all that are let in stand at this edge. An
/// estimate that is right on average would have half of them expire in the handler's hands, and one that is a little too
/// low all of them, with all the work that went into them: hence a margin.
pub(crate) fn is_late(expected: Duration, limit: Duration) -> bool {
    expected.saturating_add(expected / MARGIN) > limit
}

/// One part in so many is new.
const WEIGHT: u32 = 4;
/// One part in so many is added: twice the deviation of the mean of four batch times that vary by a tenth, and a bit.
const MARGIN: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn learned(batch: u64) -> Pace {
        let mut pace = Pace::new();
        pace.learn(ms(batch));
        pace
    }

    #[test]
    fn nothing_is_foretold_before_something_was_learned() {
        assert_eq!(Pace::new().answer(100, 1, 1, ms(0)), None);
    }

    #[test]
    fn nothing_stands_in_the_way_of_a_request_with_a_free_slot() {
        assert_eq!(learned(1000).answer(0, 0, 1, ms(0)), None);
        assert_eq!(learned(1000).answer(1, 2, 4, ms(0)), None);
        assert!(learned(1000).answer(2, 2, 4, ms(0)).is_some());
    }

    #[test]
    fn one_slot_is_foretold_exactly() {
        let pace = learned(10);
        assert_eq!(pace.answer(0, 1, 1, ms(0)), Some(ms(20)));
        assert_eq!(pace.answer(0, 1, 1, ms(4)), Some(ms(16)));
        assert_eq!(pace.answer(0, 1, 1, ms(50)), Some(ms(10)), "overdue: it may end at any moment");
        assert_eq!(pace.answer(3, 1, 1, ms(4)), Some(ms(46)));
    }

    #[test]
    fn more_slots_share_the_rounds() {
        let pace = learned(10);
        assert_eq!(pace.answer(4, 4, 4, ms(0)), Some(ms(30)));
        assert_eq!(pace.answer(3, 4, 4, ms(0)), Some(ms(20)));
    }

    #[test]
    fn a_change_is_learned_within_a_few_batches() {
        let mut pace = learned(10);
        for _ in 0..10 {
            pace.learn(ms(100));
        }
        assert!(pace.batch.is_some_and(|batch| batch > ms(90) && batch <= ms(100)), "{pace:?}");
        for _ in 0..20 {
            pace.learn(ms(10));
        }
        assert!(pace.batch.is_some_and(|batch| batch < ms(11) && batch >= ms(10)), "{pace:?}");
    }

    #[test]
    fn who_would_just_make_it_is_late() {
        assert!(is_late(ms(80), ms(89)));
        assert!(!is_late(ms(80), ms(90)));
        assert!(!is_late(Duration::MAX, Duration::MAX));
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let mut pace = Pace::new();
        pace.learn(Duration::MAX);
        pace.learn(Duration::MAX);
        assert_eq!(pace.answer(usize::MAX, 1, 1, ms(0)), Some(Duration::MAX));
        assert_eq!(pace.answer(5, 1, 0, ms(0)), Some(Duration::MAX));
    }
}
