//! Time as a concrete handle.
//!
//! # The coarse clock's word
//!
//! `nanoseconds << 2 | RUNNING | USED`, changed by compare-exchange only, so that the nanoseconds never decrease.
//!
//! - `USED`: somebody has read since the last tick, and the next readers may take the word as it stands. Its first reader
//!   sets it with the real time; the ticker clears it at every tick. A tick that finds it clear counts as idle.
//! - `RUNNING`: a ticker will look at the word again. Set and cleared under the ticker's lock alone.
//!
//! `USED` is only ever set together with or after `RUNNING`, and the ticker clears `RUNNING` in one exchange that fails
//! if the word says `USED`. So a word that says `USED` always has a ticker, and no reader takes a lock while one ticks.
//! Under the lock, the state is `Ticking` exactly if the word says `RUNNING`; a reader that finds neither bit takes the
//! lock and wakes the ticker, or starts it.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::{Arc, LazyLock, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::sync::{
    AtomicU64, Condvar, Mutex, MutexGuard,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Where every component takes the time from: a handle, cloned freely, neither generic nor dyn.
///
/// | Kind | Lag behind the real clock | One read |
/// |---|---|---|
/// | [`system`](Self::system) | none | about what `Instant::now` costs |
/// | [`coarse`](Self::coarse) | 1 ms and what the scheduler adds | a load |
/// | [`manual`](Self::manual) | moves only by its [`Hand`] | a load |
/// | [`custom`](Self::custom) | as the function given | a call through a pointer |
///
/// # Guarantees
///
/// 1. [`now`](Self::now) never goes back, for all threads together: a read that starts after another one has ended is not
///    earlier than that one. (For a custom clock this is up to its function.)
/// 2. Clones are one clock. All system and coarse clocks of a process share an origin, too.
/// 3. No kind follows the wall clock. Where the system's monotonic clock stands still while the machine is suspended, so
///    do the first two.
/// 4. `now` never waits: not for a lock, save the first coarse read after a pause, and not for another reader.
///
/// # The coarse clock
///
/// One per process. A thread named `swiftwater-clock` ticks once a millisecond while somebody reads, parks after 20 ms
/// without a reader and ends 200 ms later. The first read after each tick looks at the real time, the others take what
/// it saw, so **a read lags by the time since the last tick**: up to 1 ms plus the delay with which the system wakes the
/// ticker, which has no bound on an overloaded machine. It is never ahead. If the thread cannot be started, every read
/// takes the real time: slower, never wrong. After `fork` without `exec` the child has no such thread and the clock may
/// stand still there, so whatever must fail safe, and prefork servers, take [`system`](Self::system).
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
    Coarse(&'static Word),
    Custom(Arc<dyn Fn() -> Duration + Send + Sync>),
    Manual(Arc<AtomicU64>),
    System,
}

impl Clock {
    /// The process's coarse clock: for hot paths that can live with its lag.
    #[must_use]
    pub fn coarse() -> Self {
        static WORD: LazyLock<Word> = LazyLock::new(Word::new);
        Self(Repr::Coarse(&WORD))
    }

    /// Calls `elapsed` on every read: the time since an origin of its own choosing. It must never decrease and should not
    /// block; a panic in it is the reader's.
    #[must_use]
    pub fn custom(elapsed: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Repr::Custom(Arc::new(elapsed)))
    }

    /// A clock that stands still, at zero, until its [`Hand`] moves it: for tests.
    #[must_use]
    pub fn manual() -> (Self, Hand) {
        let time = Arc::new(AtomicU64::new(0));
        (Self(Repr::Manual(time.clone())), Hand(time))
    }

    /// The system's monotonic clock, read anew each time: what `Default` gives.
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

    /// The time now, if it costs no more than a load; `None` if the clock has to be asked: a system or custom one always, the
    /// coarse one once a tick. For hot paths that would rather leave the asking to others.
    ///
    /// ```
    /// use swiftwater_core::Clock;
    ///
    /// assert_eq!(Clock::system().try_now(), None);
    /// let (clock, _hand) = Clock::manual();
    /// assert_eq!(clock.try_now(), Some(clock.now()));
    /// ```
    #[inline]
    #[must_use]
    pub fn try_now(&self) -> Option<Tick> {
        // One comparison for the kind that hot paths have, where a match would jump through a table.
        if let Repr::Coarse(word) = &self.0 {
            return word.try_now().map(Tick);
        }
        if let Repr::Manual(time) = &self.0 { Some(Tick(time.load(Acquire))) } else { None }
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
    /// Moves the clock on, for every clone of it at once; it stops at the end of time, 584 years after its origin.
    pub fn advance(&self, by: Duration) {
        let on = |time: u64| Some(time.saturating_add(nanos(by)));
        // Never an error: `on` always has an answer. Release: what was done before the move is seen by who reads it.
        let _ = self.0.fetch_update(AcqRel, Acquire, on);
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
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    #[must_use]
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

/// Saturates at the end of time, 584 years after the origin.
impl Add<Duration> for Tick {
    type Output = Self;

    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// The time from the right one to the left one; zero if that would be negative.
impl Sub for Tick {
    type Output = Duration;

    #[inline]
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// 584 years and more are `u64::MAX`.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    // Not `as_nanos`, which computes with 128 bits.
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.subsec_nanos().into())
}

#[expect(clippy::disallowed_methods, reason = "the one place of the workspace that reads the clock")]
fn real() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    nanos(ORIGIN.get_or_init(Instant::now).elapsed())
}

/// The coarse clock: the protocol at the head of this file. What it needs of the world (the real time, a thread, sleep)
/// comes in as arguments, so that tests and the model checker can play the world.
struct Word {
    time: AtomicU64,
    ticker: Mutex<Ticker>,
    wake: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ticker {
    Absent,
    Parked,
    Ticking,
}

// Relaxed throughout: the word is a value in itself, nothing else is published through it. Its exchanges are totally
// ordered, and what must agree with the ticker's state changes under the ticker's lock.
impl Word {
    fn new() -> Self {
        Self { time: AtomicU64::new(0), ticker: Mutex::new(Ticker::Absent), wake: Condvar::new() }
    }

    #[inline]
    fn now(&'static self) -> u64 {
        let word = self.time.load(Relaxed);
        if word & USED != 0 { word >> FLAGS } else { self.first_read(word) }
    }

    #[inline]
    fn try_now(&self) -> Option<u64> {
        let word = self.time.load(Relaxed);
        (word & USED != 0).then_some(word >> FLAGS)
    }

    /// At most once per tick and racing thread.
    #[cold]
    #[inline(never)]
    fn first_read(&'static self, word: u64) -> u64 {
        self.read_real(word, real(), || {
            let ticker = thread::Builder::new().name("swiftwater-clock".into());
            ticker.spawn(|| self.run(sleep, real, wait)).is_ok()
        })
    }

    /// `word` did not say `USED`, and `now` was read after that.
    fn read_real(&self, mut word: u64, now: u64, start: impl FnOnce() -> bool) -> u64 {
        while word & RUNNING != 0 {
            if word & USED != 0 {
                return word >> FLAGS; // another reader was first
            }
            // The later of the two, as a reader may have been delayed since it took `now`.
            let time = now.max(word >> FLAGS);
            let used = time << FLAGS | RUNNING | USED;
            match self.time.compare_exchange_weak(word, used, Relaxed, Relaxed) {
                Ok(_) => return time,
                Err(other) => word = other,
            }
        }
        self.wake_ticker(now, start)
    }

    /// The first read after a pause.
    fn wake_ticker(&self, now: u64, start: impl FnOnce() -> bool) -> u64 {
        let mut ticker = self.lock();
        let flags = match *ticker {
            Ticker::Absent if !start() => 0, // every read is a real one
            Ticker::Parked => {
                self.wake.notify_one();
                RUNNING | USED
            }
            Ticker::Absent | Ticker::Ticking => RUNNING | USED,
        };
        if flags != 0 {
            *ticker = Ticker::Ticking;
        }
        let mut time = now;
        // Never an error: there is always an answer. Even without a ticker the time goes into the word, so that a reader
        // that took the real time earlier and starts one later does not bring it back.
        let _ = self.time.fetch_update(Relaxed, Relaxed, |word| {
            time = now.max(word >> FLAGS);
            Some(time << FLAGS | flags)
        });
        time
    }

    /// What the ticker does until nobody has read for long: then it has said so under the lock, and ends.
    fn run(&self, mut sleep: impl FnMut(), real: impl Fn() -> u64, mut wait: impl Wait) {
        let mut idle = 0;
        loop {
            sleep();
            idle = if self.tick(real()) { 0 } else { idle + 1 };
            if idle == IDLE_TICKS {
                idle = 0;
                if !self.park(&mut wait) {
                    return;
                }
            }
        }
    }

    /// Makes the next reader look at the real time. False if nobody has read since the last tick; the word then stands as
    /// it is, since the next reader will look anyway.
    fn tick(&self, now: u64) -> bool {
        let unused = |word| (word & USED != 0).then_some(now.max(word >> FLAGS) << FLAGS | RUNNING);
        self.time.fetch_update(Relaxed, Relaxed, unused).is_ok()
    }

    /// Waits for a reader. False if none came in time: the ticker is gone then, and must not touch the word again.
    fn park(&self, wait: &mut impl Wait) -> bool {
        let mut ticker = self.lock();
        let stopped = |word| (word & USED == 0).then_some(word & !RUNNING);
        if self.time.fetch_update(Relaxed, Relaxed, stopped).is_err() {
            return true; // somebody has read since the last tick
        }
        *ticker = Ticker::Parked;
        loop {
            let timed_out;
            (ticker, timed_out) = wait(self, ticker);
            // The state decides: a reader may have come after the time was out.
            match *ticker {
                Ticker::Ticking => return true,
                Ticker::Parked if timed_out => {
                    *ticker = Ticker::Absent;
                    return false;
                }
                Ticker::Absent | Ticker::Parked => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ticker> {
        // The state is one word, so a panic cannot leave it half-changed.
        self.ticker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Word").field("time", &self.time).finish_non_exhaustive()
    }
}

/// Lets go of the lock until woken or until the time is out, which the answer tells.
trait Wait: for<'a> FnMut(&'a Word, MutexGuard<'a, Ticker>) -> (MutexGuard<'a, Ticker>, bool) {}

impl<F> Wait for F where F: for<'a> FnMut(&'a Word, MutexGuard<'a, Ticker>) -> (MutexGuard<'a, Ticker>, bool) {}

fn wait<'a>(word: &'a Word, ticker: MutexGuard<'a, Ticker>) -> (MutexGuard<'a, Ticker>, bool) {
    let waited = word.wake.wait_timeout(ticker, PARK);
    let (ticker, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
    (ticker, timeout.timed_out())
}

fn sleep() {
    #[expect(clippy::disallowed_methods, reason = "the ticker does nothing but tick")]
    thread::sleep(PERIOD);
}

const USED: u64 = 0b01;
const RUNNING: u64 = 0b10;
const FLAGS: u32 = 2;
/// How often the coarse clock ticks while it is read.
const PERIOD: Duration = Duration::from_millis(1);
/// Ticks without a reader before the ticker parks.
const IDLE_TICKS: u32 = 20;
/// How long it stays parked before it ends.
const PARK: Duration = Duration::from_millis(200);

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A ticker that is played by the test's own thread: `world` is what happens while it sleeps, and tells the time.
    fn play(word: &Word, mut world: impl FnMut(u64), wait: impl Wait) -> u64 {
        let slept = Cell::new(0);
        let sleep = || {
            slept.set(slept.get() + 1);
            world(slept.get());
        };
        word.run(sleep, || slept.get() * 1_000_000, wait);
        slept.get()
    }

    fn read(word: &Word, now: u64) -> u64 {
        let seen = word.time.load(Relaxed);
        if seen & USED != 0 {
            return seen >> FLAGS;
        }
        word.read_real(seen, now, || true)
    }

    /// A closure with its type left out is taken for one lifetime only, unless it is written into such a call.
    fn for_all_lifetimes<F: Wait>(wait: F) -> F {
        wait
    }

    fn nobody_comes<'a>(_: &'a Word, ticker: MutexGuard<'a, Ticker>) -> (MutexGuard<'a, Ticker>, bool) {
        (ticker, true)
    }

    #[test]
    fn the_ticker_parks_and_ends_when_nobody_reads() {
        let word = Word::new();
        read(&word, 1);
        let ticks = play(&word, |_| {}, nobody_comes);
        assert_eq!(ticks, 1 + u64::from(IDLE_TICKS), "one used tick, then the idle ones");
        assert_eq!(*word.lock(), Ticker::Absent);
        assert_eq!(word.time.load(Relaxed) & (RUNNING | USED), 0);
    }

    #[test]
    fn the_ticker_goes_on_while_somebody_reads() {
        let word = Word::new();
        read(&word, 1);
        let reader = |ms: u64| {
            // Rarely, but more often than it takes to park.
            if ms <= 1000 && ms.is_multiple_of(u64::from(IDLE_TICKS)) {
                read(&word, ms * 1_000_000);
            }
        };
        let ticks = play(&word, reader, nobody_comes);
        assert_eq!(ticks, 1000 + u64::from(IDLE_TICKS));
    }

    #[test]
    fn a_read_starts_the_ticker_once_and_again_after_its_end() {
        let word = Word::new();
        let started = Cell::new(0);
        let start = || {
            started.set(started.get() + 1);
            true
        };
        assert_eq!(word.read_real(0, 10, start), 10);
        assert_eq!(word.read_real(0, 11, start), 11);
        assert_eq!(started.get(), 1);
        play(&word, |_| {}, nobody_comes);
        word.read_real(word.time.load(Relaxed), 12, start);
        assert_eq!(started.get(), 2);
    }

    #[test]
    fn a_reader_wakes_the_parked_ticker_even_as_its_time_runs_out() {
        let word = Word::new();
        read(&word, 1);
        let mut parked = 0;
        let reader_at_the_last_moment = for_all_lifetimes(|word, ticker| {
            parked += 1;
            drop(ticker);
            if parked == 1 {
                read(word, 50_000_000);
                assert_eq!(*word.lock(), Ticker::Ticking);
            }
            (word.lock(), true)
        });
        let ticks = play(&word, |_| {}, reader_at_the_last_moment);
        assert_eq!(parked, 2);
        assert_eq!(ticks, 2 * (1 + u64::from(IDLE_TICKS)));
    }

    #[test]
    fn a_wake_up_without_a_cause_ends_nothing() {
        let word = Word::new();
        read(&word, 1);
        let waits = Cell::new(0);
        let spurious = for_all_lifetimes(|_, ticker| {
            waits.set(waits.get() + 1);
            (ticker, waits.get() == 3)
        });
        play(&word, |_| {}, spurious);
        assert_eq!(waits.get(), 3);
    }

    #[test]
    fn reads_between_two_ticks_lag_and_the_first_after_a_tick_does_not() {
        let word = Word::new();
        assert_eq!(read(&word, 100), 100);
        assert_eq!(read(&word, 200), 100, "within one tick the word stands");
        assert!(word.tick(300));
        assert_eq!(read(&word, 350), 350);
        assert_eq!(read(&word, 400), 350);
    }

    #[test]
    fn a_delayed_reader_brings_nothing_back() {
        let word = Word::new();
        read(&word, 100);
        assert!(word.tick(300));
        let seen = word.time.load(Relaxed);
        assert_eq!(read(&word, 250), 300, "took the real time before the tick");
        assert_eq!(word.read_real(seen, 200, || true), 300);
    }

    #[test]
    fn without_a_thread_every_read_is_real_and_none_goes_back() {
        let word = Word::new();
        assert_eq!(word.read_real(0, 100, || false), 100);
        assert_eq!(word.time.load(Relaxed) & (RUNNING | USED), 0);
        assert_eq!(word.read_real(0, 200, || false), 200);
        // One that was delayed since 150, and now gets its thread.
        assert_eq!(word.read_real(0, 150, || true), 200);
        assert_eq!(read(&word, 300), 200, "the word is ticked now");
    }

    #[test]
    fn the_real_ticker_moves_the_word_and_ends_by_itself() {
        let word: &'static Word = Box::leak(Box::new(Word::new()));
        let start = word.now();
        let late = || real() > start + 60_000_000_000;
        while word.now() == start {
            assert!(!late(), "the word stands still");
            thread::yield_now();
        }
        while *word.lock() != Ticker::Absent {
            assert!(!late(), "the ticker does not end");
            thread::yield_now();
        }
        assert_eq!(word.time.load(Relaxed) & (RUNNING | USED), 0);
        assert!(word.now() > start, "and starts again");
    }

    #[test]
    fn nanoseconds_stop_at_the_end() {
        assert_eq!(nanos(Duration::new(1, 5)), 1_000_000_005);
        assert_eq!(nanos(Duration::from_nanos(u64::MAX)), u64::MAX);
        assert_eq!(nanos(Duration::from_nanos(u64::MAX) + Duration::from_nanos(1)), u64::MAX);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }
}

#[cfg(all(test, swiftwater_loom))]
mod models {
    use std::sync::atomic::{AtomicU64 as Plain, Ordering::SeqCst};

    use loom::{sync::Arc, thread};

    use super::*;

    /// A word, a real time that moves whenever it is read, and how many tickers there should be.
    struct World {
        word: Word,
        real: Plain,
        started: Plain,
    }

    impl World {
        fn new() -> Arc<Self> {
            Arc::new(Self { word: Word::new(), real: Plain::new(0), started: Plain::new(0) })
        }

        /// With a ticker that nobody has used since its last tick.
        fn ticking() -> Arc<Self> {
            let world = Self::new();
            world.read();
            assert!(world.word.tick(world.real()));
            world
        }

        fn real(&self) -> u64 {
            self.real.fetch_add(1, SeqCst) + 1
        }

        fn read(&self) -> u64 {
            let word = self.word.time.load(Relaxed);
            if word & USED != 0 {
                return word >> FLAGS;
            }
            self.word.read_real(word, self.real(), || {
                self.started.fetch_add(1, SeqCst);
                true
            })
        }
    }

    fn time_is_out<'a>(word: &'a Word, ticker: MutexGuard<'a, Ticker>) -> (MutexGuard<'a, Ticker>, bool) {
        drop(ticker);
        thread::yield_now();
        (word.lock(), true)
    }

    fn until_woken<'a>(word: &'a Word, ticker: MutexGuard<'a, Ticker>) -> (MutexGuard<'a, Ticker>, bool) {
        (word.wake.wait(ticker).unwrap(), false)
    }

    fn check(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    /// Reads that follow one another, in one thread or in two, while the ticker ticks, parks and ends.
    #[test]
    fn it_never_goes_back() {
        check(|| {
            let world = World::ticking();
            let latest = Arc::new(Mutex::new(0));
            let reader = {
                let (world, latest) = (world.clone(), latest.clone());
                thread::spawn(move || {
                    let first = world.read();
                    let second = world.read();
                    assert!(second >= first, "{first} then {second}");
                    *latest.lock().unwrap() = second;
                })
            };
            let ticker = {
                let world = world.clone();
                thread::spawn(move || {
                    world.word.tick(world.real());
                    world.word.park(&mut time_is_out);
                })
            };
            let told = *latest.lock().unwrap();
            let read = world.read();
            assert!(read >= told, "told {told}, read {read}");
            reader.join().unwrap();
            ticker.join().unwrap();
        });
    }

    /// Two readers race with a ticker that is about to end: afterwards there is a ticker, the old or a new one, exactly if
    /// the word relies on one.
    #[test]
    fn a_word_that_says_used_has_a_ticker() {
        check(|| {
            let world = World::ticking();
            let reader = {
                let world = world.clone();
                thread::spawn(move || world.read())
            };
            let ticker = {
                let world = world.clone();
                thread::spawn(move || world.word.park(&mut time_is_out))
            };
            world.read();
            reader.join().unwrap();
            let ended = u64::from(!ticker.join().unwrap());
            let alive = world.started.load(SeqCst) - ended;
            let word = world.word.time.load(Relaxed);
            assert_eq!(alive, u64::from(word & RUNNING != 0), "tickers for {word:#b}");
            assert!(word & USED == 0 || word & RUNNING != 0);
            assert_eq!(*world.word.lock() == Ticker::Ticking, word & RUNNING != 0);
            assert_ne!(word & USED, 0, "it was read after the last tick");
        });
    }

    /// The checker calls it a deadlock if the ticker sleeps on although somebody reads.
    #[test]
    fn no_wake_up_is_lost() {
        check(|| {
            let world = World::ticking();
            let ticker = {
                let world = world.clone();
                thread::spawn(move || {
                    assert!(world.word.park(&mut until_woken));
                    assert!(world.word.tick(world.real()), "who woke it has read");
                })
            };
            world.read();
            ticker.join().unwrap();
            assert_eq!(world.started.load(SeqCst), 1, "nobody starts a second one");
        });
    }
}
