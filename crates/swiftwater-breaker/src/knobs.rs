//! What automation may turn: one list for a breaker and for a registry of many.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use swiftwater_core::{Desc, Knob, Unit};

use crate::{
    state::Options,
    trip::{Kind, LONGEST, Limit, MAX_COUNT, MIN_SHARE, MIN_WINDOW, SHORTEST, Span, Watch},
};

/// Has options that may be changed while it runs.
pub(crate) trait Tuned: Send + Sync + Sized + 'static {
    fn options(&self) -> Arc<Options>;

    fn change(&self, change: &dyn Fn(&mut Options));
}

/// Every knob that the options of `target` have.
pub(crate) fn offer<T: Tuned>(target: &Arc<T>, each: &mut dyn FnMut(Knob)) {
    let options = target.options();
    // A knob takes functions that hold nothing, so each dial gets its own.
    offer_one::<0, T>(target, &options, each);
    offer_one::<1, T>(target, &options, each);
    offer_one::<2, T>(target, &options, each);
    offer_one::<3, T>(target, &options, each);
    offer_one::<4, T>(target, &options, each);
    offer_one::<5, T>(target, &options, each);
    offer_one::<6, T>(target, &options, each);
    offer_one::<7, T>(target, &options, each);
    offer_one::<8, T>(target, &options, each);
    offer_one::<9, T>(target, &options, each);
    offer_one::<10, T>(target, &options, each);
}

fn offer_one<const N: usize, T: Tuned>(target: &Arc<T>, options: &Options, each: &mut dyn FnMut(Knob)) {
    let dial = &DIALS[N];
    if let Some(bounds) = (dial.bounds)(options) {
        each(Knob::new(
            &dial.desc,
            bounds,
            dial.step,
            target,
            |target| (DIALS[N].read)(&target.options()),
            |target, value| target.change(&|options| (DIALS[N].write)(options, value)),
        ));
    }
}

struct Dial {
    desc: Desc,
    /// `None`: these options have no such thing.
    bounds: fn(&Options) -> Option<RangeInclusive<f64>>,
    step: f64,
    read: fn(&Options) -> f64,
    write: fn(&mut Options, f64),
}

static DIALS: [Dial; 11] = [
    Dial {
        desc: Desc::new("failure_threshold", Unit::Count, "failures in a row that open the breaker"),
        bounds: |options| options.trip.consecutive.map(|_| COUNT),
        step: 1.0,
        read: |options| options.trip.consecutive.map_or(0.0, f64::from),
        write: |options, value| options.trip.consecutive = Some(value as u32),
    },
    Dial {
        desc: Desc::new("failure_rate", Unit::Ratio, "share of failures that opens the breaker"),
        bounds: |options| only(options, is_failure_rate).map(|_| SHARE),
        step: 0.0, // no steps: a rounded 0.06 may lie just above the 6 of 100 that should reach it
        read: |options| only(options, is_failure_rate).map_or(0.0, share),
        write: |options, value| only_mut(options, is_failure_rate, |watch| set_share(watch, value)),
    },
    Dial {
        desc: Desc::new("failure_window", Unit::Seconds, "how far back the share of failures is counted"),
        bounds: |options| only(options, is_failure_rate).filter(|watch| is_timed(watch)).map(|_| WINDOW),
        step: 0.0,
        read: |options| only(options, is_failure_rate).map_or(0.0, window),
        write: |options, value| only_mut(options, is_failure_rate, |watch| set_window(watch, value)),
    },
    Dial {
        desc: Desc::new("failure_calls", Unit::Count, "over how many calls the share of failures is counted"),
        bounds: |options| only(options, is_failure_rate).and_then(calls_bounds),
        step: 1.0,
        read: |options| only(options, is_failure_rate).map_or(0.0, window),
        write: |options, value| only_mut(options, is_failure_rate, |watch| set_window(watch, value)),
    },
    Dial {
        desc: Desc::new("slow_rate", Unit::Ratio, "share of slow calls that opens the breaker"),
        bounds: |options| only(options, is_slow_rate).map(|_| SHARE),
        step: 0.0,
        read: |options| only(options, is_slow_rate).map_or(0.0, share),
        write: |options, value| only_mut(options, is_slow_rate, |watch| set_share(watch, value)),
    },
    Dial {
        desc: Desc::new("slow_threshold", Unit::Seconds, "from how long on a call is slow"),
        bounds: |options| only(options, is_slow_rate).map(|_| SHORTEST.as_secs_f64()..=LONGEST.as_secs_f64()),
        step: 0.0,
        read: |options| only(options, is_slow_rate).map_or(0.0, threshold),
        write: |options, value| {
            only_mut(options, is_slow_rate, |watch| watch.kind = Kind::Slow(Duration::from_secs_f64(value)));
        },
    },
    Dial {
        desc: Desc::new("slow_window", Unit::Seconds, "how far back the share of slow calls is counted"),
        bounds: |options| only(options, is_slow_rate).filter(|watch| is_timed(watch)).map(|_| WINDOW),
        step: 0.0,
        read: |options| only(options, is_slow_rate).map_or(0.0, window),
        write: |options, value| only_mut(options, is_slow_rate, |watch| set_window(watch, value)),
    },
    Dial {
        desc: Desc::new("slow_calls", Unit::Count, "over how many calls the share of slow calls is counted"),
        bounds: |options| only(options, is_slow_rate).and_then(calls_bounds),
        step: 1.0,
        read: |options| only(options, is_slow_rate).map_or(0.0, window),
        write: |options, value| only_mut(options, is_slow_rate, |watch| set_window(watch, value)),
    },
    Dial {
        desc: Desc::new("failure_count", Unit::Count, "failures in their window that open the breaker"),
        bounds: |options| only(options, is_failure_count).map(|_| COUNT),
        step: 1.0,
        read: |options| only(options, is_failure_count).map_or(0.0, count),
        write: |options, value| {
            only_mut(options, is_failure_count, |watch| watch.limit = Limit::Count(value as u32));
        },
    },
    Dial {
        desc: Desc::new("throttle_k", Unit::Ratio, "how much more than it answers the remote gets"),
        bounds: |options| options.throttle.as_ref().map(|_| 1.0..=100.0),
        step: 0.0,
        read: |options| options.throttle.as_ref().map_or(0.0, |throttle| throttle.k),
        write: |options, value| {
            if let Some(throttle) = &mut options.throttle {
                throttle.k = value;
            }
        },
    },
    Dial {
        desc: Desc::new("open_base", Unit::Seconds, "open time after the first trip"),
        bounds: |options| Some(SHORTEST.as_secs_f64()..=options.open_cap.as_secs_f64()),
        step: 0.0,
        read: |options| options.open_base,
        write: |options, value| options.open_base = value,
    },
];

/// The one window of its kind; of several nobody could tell which one is meant.
fn only(options: &Options, is: fn(&Watch) -> bool) -> Option<&Watch> {
    let mut those = options.trip.windows.iter().filter(|watch| is(watch));
    those.next().filter(|_| those.next().is_none())
}

fn only_mut(options: &mut Options, is: fn(&Watch) -> bool, change: impl FnOnce(&mut Watch)) {
    if let Some(watch) = options.trip.windows.iter_mut().find(|watch| is(watch)) {
        change(watch);
    }
}

fn is_failure_rate(watch: &Watch) -> bool {
    matches!(watch, Watch { kind: Kind::Failures, limit: Limit::Share { .. }, .. })
}

fn is_failure_count(watch: &Watch) -> bool {
    matches!(watch, Watch { kind: Kind::Failures, limit: Limit::Count(_), .. })
}

fn is_slow_rate(watch: &Watch) -> bool {
    matches!(watch.kind, Kind::Slow(_))
}

fn is_timed(watch: &Watch) -> bool {
    matches!(watch.span, Span::Time(_))
}

fn calls_bounds(watch: &Watch) -> Option<RangeInclusive<f64>> {
    match (watch.span, watch.limit) {
        (Span::Calls(_), Limit::Share { min_calls, .. }) => Some(min_calls as f64..=f64::from(MAX_COUNT)),
        _ => None,
    }
}

fn share(watch: &Watch) -> f64 {
    match watch.limit {
        Limit::Share { share, .. } => share,
        Limit::Count(_) | Limit::None => 0.0,
    }
}

fn set_share(watch: &mut Watch, value: f64) {
    if let Limit::Share { share, .. } = &mut watch.limit {
        *share = value;
    }
}

fn threshold(watch: &Watch) -> f64 {
    match watch.kind {
        Kind::Failures => 0.0,
        Kind::Slow(threshold) => threshold.as_secs_f64(),
    }
}

fn count(watch: &Watch) -> f64 {
    match watch.limit {
        Limit::Count(count) => count.into(),
        Limit::None | Limit::Share { .. } => 0.0,
    }
}

fn window(watch: &Watch) -> f64 {
    match watch.span {
        Span::Calls(calls) => calls as f64,
        Span::Time(window) => window.as_secs_f64(),
    }
}

fn set_window(watch: &mut Watch, value: f64) {
    watch.span = match watch.span {
        Span::Calls(_) => Span::Calls(value as u64),
        Span::Time(_) => Span::Time(Duration::from_secs_f64(value)),
    };
}

const COUNT: RangeInclusive<f64> = 1.0..=MAX_COUNT as f64;
const SHARE: RangeInclusive<f64> = MIN_SHARE..=1.0;
const WINDOW: RangeInclusive<f64> = MIN_WINDOW.as_millis() as f64 / 1e3..=LONGEST.as_secs() as f64;
