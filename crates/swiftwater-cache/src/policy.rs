//! How long entries live, in what condition they may still be served, and what is done about it.

use std::time::Duration;

use swiftwater_core::{BuildError, Tick};

use crate::{
    entry::{Entry, Extra, Times},
    review::{Facts, Judgement, Review},
    scope::{Declared, NEVER},
    usage::{Uses, next_window},
};

/// What the builder was told about entries and their loads.
pub(crate) struct Policy<K, V> {
    pub(crate) ttl: Option<Duration>,
    /// By what share of its lifetime, at most, an entry expires earlier.
    pub(crate) jitter: f64,
    pub(crate) idle: Option<Duration>,
    /// After what share of its lifetime an entry that is asked for is loaded anew.
    pub(crate) refresh_after: Option<f64>,
    /// How long an expired entry may be served while it is loaded anew.
    pub(crate) stale_for: Duration,
    pub(crate) fail_safe: Option<FailSafe>,
    pub(crate) negative: Option<(IsNegative<V>, Duration)>,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) timeouts: Timeouts,
    /// The half-life of the count of uses, where they are counted.
    pub(crate) usage: Option<Duration>,
    pub(crate) review: Option<Review<V>>,
}

pub(crate) type IsNegative<V> = Box<dyn Fn(&V) -> bool + Send + Sync>;
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

/// Expired entries in the place of failed loads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailSafe {
    /// For how long after an entry has expired.
    pub(crate) max_stale: Duration,
    /// How long after a failed load no other is tried.
    pub(crate) throttle: Duration,
}

/// How long a load may take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timeouts {
    /// Until a caller is served the expired entry instead, where there is one; the load goes on.
    pub(crate) soft: Option<Duration>,
    /// Until it is given up.
    pub(crate) hard: Option<Duration>,
}

/// What an entry takes over from the one in whose place it comes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Past {
    uses: Uses,
    /// If nobody has asked for it: when somebody last did shows from this end of its idle time.
    unasked: Option<Tick>,
}

/// Where an entry is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Fresh,
    /// Fresh, and to be loaded anew.
    Due,
    /// May be served while it is loaded anew.
    Stale,
    /// May be served, and no load is to be tried now: one has just failed.
    Throttled,
    /// May be served if the load fails or takes too long.
    Fallback,
    Over,
}

impl<K, V> Default for Policy<K, V> {
    fn default() -> Self {
        Self {
            ttl: None,
            jitter: 0.0,
            idle: None,
            refresh_after: None,
            stale_for: Duration::ZERO,
            fail_safe: None,
            negative: None,
            weigher: None,
            timeouts: Timeouts::default(),
            usage: None,
            review: None,
        }
    }
}

impl<K, V> Policy<K, V> {
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let Timeouts { soft, hard } = self.timeouts;
        let times = [
            ("ttl", self.ttl),
            ("idle", self.idle),
            ("negative", self.negative.as_ref().map(|(_, ttl)| *ttl)),
            ("fail_safe", self.fail_safe.map(|fail_safe| fail_safe.max_stale)),
            ("soft_timeout", soft),
            ("load_timeout", hard),
            ("usage", self.usage),
            ("invalidation_policy", self.review.as_ref().map(|review| review.every)),
        ];
        if let Some((option, _)) = times.into_iter().find(|(_, time)| *time == Some(Duration::ZERO)) {
            return Err(BuildError::new(option, "0s", "must be longer than zero"));
        }
        let shares = [("jitter", Some(self.jitter)), ("refresh_after", self.refresh_after)];
        for (option, share) in shares {
            if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
                return Err(BuildError::new(option, share, "must be from 0 to 1"));
            }
        }
        if let Some(soft) = soft {
            if self.fail_safe.is_none() {
                let what = "needs `fail_safe`: without it there is nothing to serve when it is over";
                return Err(BuildError::new("soft_timeout", format_args!("{soft:?}"), what));
            }
            if hard.is_some_and(|hard| soft >= hard) {
                let what = "must be shorter than `load_timeout`";
                return Err(BuildError::new("soft_timeout", format_args!("{soft:?}"), what));
            }
        }
        Ok(())
    }

    /// The lifetime of an entry of this value, unless its load declares another.
    pub(crate) fn ttl(&self, value: &V) -> Option<Duration> {
        let negative = self.negative.as_ref().filter(|(is_negative, _)| is_negative(value));
        negative.map(|(_, ttl)| *ttl).or(self.ttl)
    }

    /// When an entry is what, whose load started then and declared that; else it has this lifetime. `chance`, from 0 to 1, differs from load to load.
    pub(crate) fn times(
        &self,
        declared: &Declared,
        ttl: Option<Duration>,
        start: Tick,
        chance: f64,
        past: Past,
    ) -> Times {
        let ttl = declared.ttl.or(ttl);
        let own = ttl.map_or(NEVER, |ttl| start + share_of(ttl, 1.0 - self.jitter * chance));
        self.times_of(own.min(declared.expires), start, past)
    }

    /// The same for one that is known to expire then.
    pub(crate) fn times_of(&self, expires: Tick, start: Tick, past: Past) -> Times {
        let is_rich = self.idle.is_some()
            || self.refresh_after.is_some()
            || self.fail_safe.is_some()
            || self.usage.is_some()
            || self.review.is_some();
        let extra = is_rich.then(|| {
            let refresh = self.refresh_after.filter(|_| expires != NEVER);
            let refresh = refresh.map_or(NEVER, |share| start + share_of(expires - start, share));
            let uses = match self.usage {
                Some(half_life) if past.unasked.is_none() => past.uses.used(start, half_life),
                _ => past.uses,
            };
            Extra::new(start, past.unasked.unwrap_or_else(|| self.idle_end(start)), refresh, uses)
        });
        Times { expires, extra }
    }

    /// What is to be remembered of the entry by the one that takes its place.
    pub(crate) fn past(old: Option<&Entry<V>>) -> Past {
        Past { uses: old.and_then(Entry::extra).map_or_else(Uses::default, Extra::uses), unasked: None }
    }

    /// The same where nobody has asked.
    pub(crate) fn past_unasked(&self, old: Option<&Entry<V>>, now: Tick) -> Past {
        let idle_end = old.and_then(Entry::extra).map_or_else(|| self.idle_end(now), Extra::idle_end);
        Past { unasked: Some(idle_end), ..Self::past(old) }
    }

    /// How much the entry was used.
    pub(crate) fn uses(&self, entry: &Entry<V>, now: Tick) -> Option<f64> {
        Some(entry.extra()?.uses().at(now, self.usage?))
    }

    /// Where the entry is in its life, by the clock. Notes that it was asked for.
    pub(crate) fn phase(&self, entry: &Entry<V>, now: Tick) -> Phase {
        let phase = self.phase_untouched(entry, now);
        let Some(extra) = entry.extra() else { return phase };
        match phase {
            Phase::Stale | Phase::Fallback if now < extra.retry_at() => Phase::Throttled,
            Phase::Fresh | Phase::Due => {
                extra.touch(self.idle_end(now));
                let idle = self.idle.map_or(NEVER, |idle| now + idle / TOUCHES);
                let window = self.usage.map_or(NEVER, |half_life| {
                    extra.set_uses(extra.uses().used(now, half_life));
                    next_window(now, half_life)
                });
                let review = self.review.as_ref().map_or(NEVER, |review| now + review.every);
                // Once it is due it stays so until somebody begins to load it, which not everybody can.
                let refresh = extra.refresh_at();
                let is_due = refresh <= now;
                let next = [idle, window, review, refresh].into_iter().fold(entry.expires(), Tick::min);
                entry.set_due(next);
                if is_due { Phase::Due } else { phase }
            }
            other => other,
        }
    }

    /// The same without noting anything.
    pub(crate) fn phase_untouched(&self, entry: &Entry<V>, now: Tick) -> Phase {
        if entry.extra().is_some_and(|extra| extra.idle_end() <= now) {
            Phase::Over
        } else if now < entry.expires() {
            match self.judgement(entry, now) {
                Judgement::Drop => Phase::Over,
                Judgement::Keep => Phase::Fresh,
                Judgement::Refresh => Phase::Due,
            }
        } else {
            self.expired(entry, now)
        }
    }

    /// What the user's policy says of the entry.
    pub(crate) fn judgement(&self, entry: &Entry<V>, now: Tick) -> Judgement {
        let Some((review, extra)) = self.review.as_ref().zip(entry.extra()) else { return Judgement::Keep };
        let born = extra.born();
        let facts = Facts { value: &entry.value, age: now - born.min(now), uses: self.uses(entry, now) };
        (review.judge)(&facts)
    }

    fn expired(&self, entry: &Entry<V>, now: Tick) -> Phase {
        let over = now - entry.expires();
        if over < self.stale_for {
            Phase::Stale
        } else if self.fail_safe.is_some_and(|fail_safe| over < fail_safe.max_stale) {
            Phase::Fallback
        } else {
            Phase::Over
        }
    }

    fn idle_end(&self, now: Tick) -> Tick {
        self.idle_after().map_or(NEVER, |idle| now + idle)
    }

    /// After how long an entry that nobody has asked for is idle.
    pub(crate) fn idle_after(&self) -> Option<Duration> {
        // A sixteenth more, because so late a use may be noted.
        self.idle.map(|idle| idle.saturating_add(idle / TOUCHES))
    }
}

/// Not more than the whole, whatever rounding does.
pub(crate) fn share_of(duration: Duration, share: f64) -> Duration {
    if share >= 1.0 { duration } else { Duration::from_nanos((duration.as_nanos() as f64 * share) as u64) }
}

/// How often a use is noted within the time after which an entry is idle.
const TOUCHES: u32 = 16;
