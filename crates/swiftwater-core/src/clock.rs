//! Time as a concrete handle.
//!
//! # The coarse clock's word
//!
//! `nanoseconds << 1 | USED`. `USED` clear means that nobody has read since the last tick, or that the ticker sleeps:
//! the next reader then takes the real time itself. Only under the ticker's lock, and only while a ticker runs, may the
//! bit be set; so a word that says `USED` is always a word that somebody will advance. A ticker that finds the bit clear
//! for [`IDLE_TICKS`] periods parks, and ends after [`PARK`] of that.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use crate::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Where every component takes the time from: a handle, cloned freely, neither generic nor dyn.
///
/// | Kind | Lag behind the real clock | One read |
/// |---|---|---|
/// | [`system`](Self::system) | none | about what `Instant::now` costs |
/// | [`coarse`](Self::coarse) | about 1 ms on a machine that is not overloaded; a scheduling delay of the ticker adds to it | a load |
/// | [`manual`](Self::manual) | moves only by its [`Hand`] | a load |
/// | [`custom`](Self::custom) | as the function given | a call through a pointer |
///
/// None of them ever goes back, and none follows the wall clock. On systems where the monotonic clock stands still
/// during suspension, so do the first two.
///
/// # The coarse clock
///
/// One per process. A thread named `swiftwater-clock` ticks once a millisecond while somebody reads, parks after 20 ms
/// without a reader and ends 200 ms later. If the thread cannot be started, every read takes the real time: slower, never
/// wrong. After `fork` without `exec` the child has no such thread and the clock may stand still there, so whatever
/// must fail safe, and prefork servers, take [`system`](Self::system).
///
/// ```
/// use std::time::Duration;
/// use swiftwater_core::Clock;
///
/// let clock = Clock::coarse();
/// let start = clock.now();
/// assert!(clock.now() >= start);
/// assert!(clock.now() - start < Duration::from_secs(60));
/// ```
#[derive(Clone)]
pub struct Clock(Repr);

#[derive(Clone)]
enum Repr {
    Coarse(Arc<Word>),
    Custom(Arc<dyn Fn() -> Duration + Send + Sync>),
    Manual(Arc<AtomicU64>),
    System,
}

impl Clock {
    /// The process's coarse clock: for hot paths that can live with its lag.
    #[must_use]
    pub fn coarse() -> Self {
        static WORD: OnceLock<Arc<Word>> = OnceLock::new();
        Self(Repr::Coarse(
            WORD.get_or_init(|| Arc::new(Word::new(PERIOD))).clone(),
        ))
    }

    /// Calls `elapsed` on every read: the time since an origin of its own choosing. It must never decrease.
    #[must_use]
    pub fn custom(elapsed: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Repr::Custom(Arc::new(elapsed)))
    }

    /// A clock that stands still until its [`Hand`] moves it: for tests.
    #[must_use]
    pub fn manual() -> (Self, Hand) {
        let time = Arc::new(AtomicU64::new(0));
        (Self(Repr::Manual(time.clone())), Hand(time))
    }

    /// The system's monotonic clock, read anew each time. The default.
    #[must_use]
    pub const fn system() -> Self {
        Self(Repr::System)
    }

    /// The time now, within the kind's lag.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick(match &self.0 {
            Repr::Coarse(word) => word.now(),
            Repr::Custom(elapsed) => nanos(elapsed()),
            // Acquire pairs with the hand's release: what was done before the move is seen after it.
            Repr::Manual(time) => time.load(Acquire),
            Repr::System => real(),
        })
    }

    /// The time now without lag, where the kind has one: a coarse clock looks at the real one.
    #[must_use]
    pub fn now_exact(&self) -> Tick {
        match &self.0 {
            Repr::Coarse(_) => Tick(real()),
            _ => self.now(),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Repr::Coarse(_) => "Clock::coarse",
            Repr::Custom(_) => "Clock::custom",
            Repr::Manual(_) => "Clock::manual",
            Repr::System => "Clock::system",
        })
    }
}

/// Moves a manual [`Clock`], only ever forward.
#[derive(Clone, Debug)]
pub struct Hand(Arc<AtomicU64>);

impl Hand {
    /// Moves the clock on, for every clone of it at once.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(nanos(by), AcqRel);
    }
}

/// A point in time of one [`Clock`]: nanoseconds since its origin, in 8 bytes.
///
/// All system and coarse clocks of a process share an origin; ticks of manual and custom clocks mean nothing elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// From [`as_nanos`](Self::as_nanos).
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

/// Saturates at the end of time, 584 years after the origin.
impl Add<Duration> for Tick {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// The time from the right one to the left one; zero if that would be negative.
impl Sub for Tick {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the workspace that reads the clock"
)]
fn real() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    nanos(ORIGIN.get_or_init(Instant::now).elapsed())
}

struct Word {
    time: AtomicU64,
    period: Duration,
    ticker: Mutex<Ticker>,
    wake: Condvar,
}

#[derive(Clone, Copy, PartialEq)]
enum Ticker {
    Absent,
    Parked,
    Ticking,
}

impl Word {
    fn new(period: Duration) -> Self {
        Self {
            time: AtomicU64::new(real() << 1),
            period,
            ticker: Mutex::new(Ticker::Absent),
            wake: Condvar::new(),
        }
    }

    #[inline]
    fn now(self: &Arc<Self>) -> u64 {
        // Relaxed: the word is a value in itself, nothing else is published through it.
        let word = self.time.load(Relaxed);
        if word & USED != 0 {
            word >> 1
        } else {
            self.first_read()
        }
    }

    /// The first read after a tick: at most once per tick and racing thread.
    #[cold]
    #[inline(never)]
    fn first_read(self: &Arc<Self>) -> u64 {
        let now = real();
        let mut ticker = self.lock();
        match *ticker {
            Ticker::Ticking => {}
            Ticker::Parked => {
                *ticker = Ticker::Ticking;
                self.wake.notify_one();
            }
            Ticker::Absent => {
                let (word, period) = (Arc::downgrade(self), self.period);
                let started = thread::Builder::new()
                    .name("swiftwater-clock".into())
                    .spawn(move || tick(&word, period));
                if started.is_err() {
                    return now; // the word stays "unused": every read is a real one
                }
                *ticker = Ticker::Ticking;
            }
        }
        // A maximum, so that a reader that was delayed since it took `now` moves nothing back; under the lock, so that
        // only a word that somebody ticks says "used".
        let before = self.time.fetch_max(now << 1 | USED, AcqRel) >> 1;
        before.max(now)
    }

    fn lock(&self) -> MutexGuard<'_, Ticker> {
        // Nothing under this lock panics half-way: the state is one word.
        self.ticker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ticker: ends when the word is gone or nobody has read for long.
fn tick(word: &Weak<Word>, period: Duration) {
    let mut idle = 0;
    loop {
        #[expect(clippy::disallowed_methods, reason = "this thread does nothing but tick")]
        thread::sleep(period);
        let Some(word) = word.upgrade() else { return };
        let old = word.time.load(Relaxed);
        if old & USED != 0 {
            idle = 0;
            // Clears the bit, so that the next reader marks again. If a reader moved the word meanwhile, it is fresh.
            let now = real().max(old >> 1);
            let _ = word.time.compare_exchange(old, now << 1, Release, Relaxed);
            continue;
        }
        idle += 1;
        if idle < IDLE_TICKS {
            continue;
        }
        idle = 0;
        let mut ticker = word.lock();
        *ticker = Ticker::Parked;
        // A reader that came between the load above and the lock has set the bit.
        if word.time.load(Acquire) & USED == 0 {
            let parked = |ticker: &mut Ticker| *ticker == Ticker::Parked;
            let waited = word.wake.wait_timeout_while(ticker, PARK, parked);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            ticker = guard;
            if timeout.timed_out() && *ticker == Ticker::Parked {
                *ticker = Ticker::Absent;
                return;
            }
        }
        *ticker = Ticker::Ticking;
    }
}

const USED: u64 = 1;
/// How often the coarse clock ticks while it is read.
const PERIOD: Duration = Duration::from_millis(1);
/// Ticks without a reader before the ticker parks.
const IDLE_TICKS: u32 = 20;
/// How long it stays parked before it ends.
const PARK: Duration = Duration::from_millis(200);
