//! Where a region's writes go, and when they go there.

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use swiftwater_core::BuildError;

use crate::{below::Waits, entry::Hit, error::AsError};

/// Where [`Region::store`](crate::Region::store) writes to: a database, an API. What mode a region writes in says
/// [`Writes`].
///
/// # Laws
///
/// 1. `Ok` means that all of the writes have been applied, in any order, and that whoever reads the source from then on
///    finds them. The keys of one call differ.
/// 2. `Err`, a panic and a future dropped half-way mean that any part of them may have been applied, or may not.
/// 3. It may be called again with the same writes after any of these, and then they are applied as if it were once.
/// 4. It does not load from the region: behind, that load may wait for the write, or for its turn behind one that does.
///
/// In return, a region that writes *behind* has one call on its way at a time, so that no two of them have the same
/// key. *Around* and *through* every `store` is a call with one write; of two that overlap and have the same key the source decides which is the later.
///
/// A deletion is a write as well, of a value that says so: an `Option<Row>` that is `None`, say.
///
/// With feature `testing`, `conformance::a_sink_keeps_its_laws` tests the first three.
pub trait Sink<K, V>: Send + Sync + 'static {
    /// What goes wrong. It has to convert into the error of the region.
    type Error;

    /// Applies the writes.
    fn store(&self, writes: Vec<(K, Hit<V>)>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl<K, V, S: Sink<K, V>> Sink<K, V> for Arc<S> {
    type Error = S::Error;

    fn store(&self, writes: Vec<(K, Hit<V>)>) -> impl Future<Output = Result<(), Self::Error>> + Send {
        S::store(self, writes)
    }
}

/// How [`Region::store`](crate::Region::store) writes. Given to [`RegionBuilder::writes`](crate::RegionBuilder::writes).
///
/// | | around | through | behind |
/// |---|---|---|---|
/// | `store` returns | when the source has the value | when the source has the value | at once |
/// | until it returns, readers get | the old value | the old value | |
/// | from then on they get | what they load | the value, from memory | the value, from memory |
/// | the cache keeps | nothing | the value, unless something else moved meanwhile | the value |
/// | if the sink fails | the caller learns it; the key is invalidated | the same | it is tried again until it succeeds |
/// | lost when the process dies | nothing that was acknowledged | nothing that was acknowledged | what is pending |
///
/// **Around** suits what is written far more often than it is read. **Through** suits what is read after it was written. Both
/// invalidate the key on every way out, being dropped half-way included, as [`Cache::writing`](crate::Cache::writing)
/// does: nobody knows then whether the source has changed. *Through* keeps the value only if the sink succeeded, no
/// other `store`, `insert` or `invalidate` of the key overlapped, and nothing that the value depends on has been invalidated since
/// before the sink was called. Two stores of one key may reach the source in the other order than they return, so of
/// overlapping ones none is believed.
///
/// **Behind** suits what is written so often that the source could not follow, and can be lost. See [`Behind`] for what is
/// lost when, and for its traps.
#[must_use = "it is for `RegionBuilder::writes`"]
pub struct Writes<S> {
    pub(crate) sink: S,
    pub(crate) mode: Mode,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Around,
    Behind(Limits),
    Through,
}

/// What is told of writing behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_pending: usize,
    pub(crate) max_batch: usize,
    pub(crate) delay: Duration,
}

impl<S> Writes<S> {
    /// `store` writes to the source and invalidates the key.
    pub fn around(sink: S) -> Self {
        Self { sink, mode: Mode::Around }
    }

    /// `store` writes to the source and then stores the value here.
    pub fn through(sink: S) -> Self {
        Self { sink, mode: Mode::Through }
    }

    /// `store` stores the value here and returns; the source gets it later.
    pub fn behind(sink: S) -> Behind<S> {
        let limits =
            Limits { max_pending: DEFAULT_MAX_PENDING, max_batch: DEFAULT_MAX_BATCH, delay: DEFAULT_DELAY };
        Behind { sink, limits }
    }
}

/// Writing behind. Made by [`Writes::behind`].
///
/// A write waits for at most [`delay`](Self::delay), in which a later one of its key takes its place, and then goes to the
/// sink with others, first come, first served, one call at a time. A call that fails or panics is made again, for ever: its
/// writes one by one, and each that fails alone after a pause of its own, 100 ms to 30 s, so that a write which the
/// source refuses holds up nothing but itself. While nothing succeeds at all, the next try of anything is up to 5 s away. No write is dropped.
///
/// A load of a key whose write is pending does not ask the source, which would answer from the past: it lets the write
/// go first, at once, and fails with [`LoadError::Unwritten`](crate::LoadError::Unwritten) if that fails.
/// [`Region::get`](crate::Region::get) looks in memory only; what has been evicted is not there, pending or not.
///
/// All of it is done by a task of the tokio runtime that `store` was called in, which is there only while something is
/// pending, and keeps the region alive.
///
/// # What is lost when the process dies
///
/// The writes that are pending, and nothing else: at most [`max_pending`](Self::max_pending), as a rule those of the last
/// `delay` plus the time of a call, and while the sink fails all since it began to fail. If the runtime ends but the process
/// does not, they wait for the next `store`, load or flush in another one; they are lost if no handle of the region is left
/// then. What
/// [`Region::flush`](crate::Region::flush) or [`Cache::close`](crate::Cache::close) has said to have arrived is not lost.
///
/// # Traps
///
/// - Others who write to the source between `store` and the arrival of the write are overwritten by it. Write
///   behind only what this process alone writes.
/// - Others who read the source get the old value meanwhile. In this process, read it through this region. A loader that
///   reads it otherwise and depends on [`Region::dep`](crate::Region::dep) of the key is invalidated once more when the write has
///   arrived; one that depends on a name of your own is not.
/// - Writes of different keys arrive in any order, and one at a time after a failure: what must change together is one
///   value.
#[must_use = "it is for `RegionBuilder::writes`"]
pub struct Behind<S> {
    sink: S,
    limits: Limits,
}

impl<S> Behind<S> {
    /// How many writes may be pending, those on their way included; one per key and one more for a key whose write is
    /// on its way. Default: 10,000. One more is refused with [`StoreError::Full`]. More costs memory, and so much may be
    /// lost.
    pub fn max_pending(mut self, writes: usize) -> Self {
        self.limits.max_pending = writes;
        self
    }

    /// How many writes a call of the sink may have. Default: 256. As many go without waiting for the `delay`.
    pub fn max_batch(mut self, writes: usize) -> Self {
        self.limits.max_batch = writes;
        self
    }

    /// How long a write waits for company, and for a later one of its key that takes its place. Default: 100 ms. Zero: it
    /// goes as soon as the call before it has ended. More saves calls, and may lose more.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.limits.delay = delay;
        self
    }
}

impl<S> From<Behind<S>> for Writes<S> {
    fn from(behind: Behind<S>) -> Self {
        Self { sink: behind.sink, mode: Mode::Behind(behind.limits) }
    }
}

impl Mode {
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let Self::Behind(Limits { max_pending, max_batch, delay }) = *self else { return Ok(()) };
        if !(1..=MOST_PENDING).contains(&max_pending) {
            return Err(BuildError::new("max_pending", max_pending, "must be 1 to 2^24"));
        }
        if max_batch == 0 {
            return Err(BuildError::new("max_batch", 0, "must be at least 1"));
        }
        if delay > LONGEST_DELAY {
            return Err(BuildError::new("delay", format_args!("{delay:?}"), "must be a day at most"));
        }
        Ok(())
    }
}

/// Why [`Region::store`](crate::Region::store) has not stored. Where the value was not even tried it comes back.
#[non_exhaustive]
pub enum StoreError<V, E> {
    /// The cache has been [closed](crate::Cache::close).
    Closed(V),
    /// As many writes as [`max_pending`](Behind::max_pending) allows are pending.
    Full(V),
    /// To write behind takes a tokio runtime with timers, and `store` was not called from within one.
    NoRuntime(V),
    /// The region was built without [`writes`](crate::RegionBuilder::writes).
    NoSink(V),
    /// The sink panicked. The source may have the value or not; the cache has neither it nor the old one.
    Panicked,
    /// The sink returned this error. The source may have the value or not; the cache has neither it nor the old one.
    Sink(Arc<E>),
}

impl<V, E> StoreError<V, E> {
    /// The value, where it was not tried.
    #[must_use]
    pub fn into_value(self) -> Option<V> {
        match self {
            Self::Closed(value) | Self::Full(value) | Self::NoRuntime(value) | Self::NoSink(value) => {
                Some(value)
            }
            Self::Panicked | Self::Sink(_) => None,
        }
    }

    /// The sink's own error, if it is one.
    #[must_use]
    pub fn sink(&self) -> Option<&E> {
        match self {
            Self::Sink(error) => Some(error),
            _ => None,
        }
    }
}

impl<V, E: fmt::Debug> fmt::Debug for StoreError<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(_) => f.write_str("Closed(..)"),
            Self::Full(_) => f.write_str("Full(..)"),
            Self::NoRuntime(_) => f.write_str("NoRuntime(..)"),
            Self::NoSink(_) => f.write_str("NoSink(..)"),
            Self::Panicked => f.write_str("Panicked"),
            Self::Sink(error) => f.debug_tuple("Sink").field(error).finish(),
        }
    }
}

impl<V, E> fmt::Display for StoreError<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "the cache is closed",
            Self::Full(_) => "too many writes of the region are pending",
            Self::NoRuntime(_) => "to write behind takes a tokio runtime with timers, and there is none here",
            Self::NoSink(_) => "the region was built without `writes`",
            Self::Panicked => "the sink panicked",
            Self::Sink(_) => "the sink failed",
        })
    }
}

impl<V, E: AsError> Error for StoreError<V, E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.sink().map(AsError::as_error)
    }
}

/// Some writes have not arrived at the sink. They are pending still, and are tried again.
pub struct FlushError<E> {
    pub(crate) writes: usize,
    pub(crate) error: Option<Arc<E>>,
}

impl<E> FlushError<E> {
    /// How many have not arrived.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// The sink's own error, the first of several; `None` if it panicked, or there was no tokio runtime with timers to call it in.
    #[must_use]
    pub fn sink(&self) -> Option<&E> {
        self.error.as_deref()
    }
}

impl<E: fmt::Debug> fmt::Debug for FlushError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushError").field("writes", &self.writes).field("error", &self.error).finish()
    }
}

impl<E> fmt::Display for FlushError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} writes have not arrived at the sink", self.writes)
    }
}

impl<E: AsError> Error for FlushError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.sink().map(AsError::as_error)
    }
}

/// A sink without its type.
pub(crate) trait AnySink<K, V, E>: Send + Sync {
    fn store(&self, writes: Vec<(K, Hit<V>)>) -> Waits<'_, Result<(), E>>;
}

/// What the builder was told.
pub(crate) type Chosen<K, V, E> = (Box<dyn AnySink<K, V, E>>, Mode);

/// One whose errors are converted.
pub(crate) struct Converting<S, E>(pub(crate) S, pub(crate) PhantomData<fn() -> E>);

impl<K, V, E, S> AnySink<K, V, E> for Converting<S, E>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: From<S::Error>,
    S: Sink<K, V>,
{
    fn store(&self, writes: Vec<(K, Hit<V>)>) -> Waits<'_, Result<(), E>> {
        let storing = self.0.store(writes);
        Box::pin(async { storing.await.map_err(E::from) })
    }
}

/// How a call of a sink went wrong.
pub(crate) enum Failure<E> {
    Panicked,
    Sink(Arc<E>),
}

impl<E> Clone for Failure<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Panicked => Self::Panicked,
            Self::Sink(error) => Self::Sink(error.clone()),
        }
    }
}

/// Calls the sink. Its panic, in the call, in a poll or in a destructor, is an error like any other.
pub(crate) async fn call<K, V, E>(
    sink: &dyn AnySink<K, V, E>,
    writes: Vec<(K, Hit<V>)>,
) -> Result<(), Failure<E>> {
    let storing = catch_unwind(AssertUnwindSafe(|| sink.store(writes)));
    let mut storing = storing.map_err(|_| Failure::Panicked)?;
    let stored = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| storing.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(stored)) => Poll::Ready(stored.map_err(|error| Failure::Sink(Arc::new(error)))),
        Err(_) => Poll::Ready(Err(Failure::Panicked)),
    });
    let stored = stored.await;
    // It may do its last in its destructor.
    catch_unwind(AssertUnwindSafe(|| drop(storing))).map_err(|_| Failure::Panicked)?;
    stored
}

impl<S> fmt::Debug for Writes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writes").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Behind<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behind").field("limits", &self.limits).finish_non_exhaustive()
    }
}

const DEFAULT_MAX_PENDING: usize = 10_000;
const DEFAULT_MAX_BATCH: usize = 256;
const DEFAULT_DELAY: Duration = Duration::from_millis(100);
pub(crate) const MOST_PENDING: usize = 1 << 24;
/// So that times can be added to it.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 60 * 60);
