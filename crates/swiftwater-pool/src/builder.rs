//! How a pool is set up.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use swiftwater_core::{Backoff, BuildError, Clock, Gate};
use tokio::runtime::Handle;

use crate::{Connect, IntoConnect, Pool, engine::Options, shared::Shared};

/// When a round trip ([`Connect::check`]) stands before a checkout. The free [`Connect::is_broken`] always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// Before every `get` that takes an idle connection: a round trip each time.
    Always,
    /// If the connection was idle for at least so long.
    IdleFor(Duration),
    /// Never: a connection that died unseen is handed out.
    Never,
}

/// Sets up a [`Pool`]: [`Pool::builder()`], setters, [`build`](Self::build).
#[must_use = "nothing is built before `build`"]
pub struct Builder<C: Connect> {
    options: Options,
    clock: Clock,
    gate: Option<Arc<dyn Gate>>,
    connector: PhantomData<fn(C)>,
}

impl<C: Connect> Builder<C> {
    pub(crate) fn new() -> Self {
        Self {
            options: Options {
                max_size: DEFAULT_MAX_SIZE,
                min_idle: 0,
                max_connecting: DEFAULT_MAX_CONNECTING,
                max_waiters: None,
                max_lifetime: Some(DEFAULT_MAX_LIFETIME),
                idle_timeout: Some(DEFAULT_IDLE_TIMEOUT),
                acquire_timeout: DEFAULT_ACQUIRE_TIMEOUT,
                connect_timeout: DEFAULT_CONNECT_TIMEOUT,
                check_timeout: DEFAULT_CHECK_TIMEOUT,
                check: Check::IdleFor(DEFAULT_CHECK_IDLE_FOR),
                retry: true,
                backoff: Backoff::new(DEFAULT_BACKOFF_BASE, DEFAULT_BACKOFF_CAP),
                enabled: true,
            },
            clock: Clock::coarse(),
            gate: None,
            connector: PhantomData,
        }
    }

    /// The most connections there may be: being opened, idle and in use together. Default:
    /// 10. Between 1 and 65,535.
    ///
    /// More costs the backend memory and lets more queries fight for its processors; fewer lets callers wait. A few times
    /// the processors of the backend, over all clients, is usually plenty. Can be turned later, as a knob.
    pub fn max_size(mut self, max_size: u32) -> Self {
        self.options.max_size = max_size;
        self
    }

    /// So many idle connections are kept ready, opened in the background, and not closed for being idle. Default: none.
    ///
    /// More spares callers the wait for a connect when load rises; each occupies the backend. They still end with their
    /// lifetime, and are replaced.
    pub fn min_idle(mut self, min_idle: impl Into<Option<u32>>) -> Self {
        self.options.min_idle = min_idle.into().unwrap_or(0);
        self
    }

    /// No connection is handed out after so long. Each draws its own end once, at birth, up to a tenth sooner or later, so
    /// that those who were opened together are not replaced together. Default: 30 min.
    ///
    /// At least a millisecond. Longer means fewer connects, and later notice of changed credentials, addresses and leaking sessions.
    pub fn max_lifetime(mut self, max_lifetime: impl Into<Option<Duration>>) -> Self {
        self.options.max_lifetime = max_lifetime.into();
        self
    }

    /// A connection that was idle for so long is closed, down to `min_idle`. Default: 10 min.
    ///
    /// At least a millisecond. Longer keeps more of a past peak; shorter opens again more often. Below what firewalls on the way allow.
    pub fn idle_timeout(mut self, idle_timeout: impl Into<Option<Duration>>) -> Self {
        self.options.idle_timeout = idle_timeout.into();
        self
    }

    /// How long a `get` waits in all. Default: 5 s. Kept by the runtime that the pool is built on, which has to be driven.
    ///
    /// Longer hides short outages and lets callers pile up in long ones; shorter fails sooner.
    pub fn acquire_timeout(mut self, acquire_timeout: Duration) -> Self {
        self.options.acquire_timeout = acquire_timeout;
        self
    }

    /// How long one attempt to connect may take. Default: 2 s, so that a caller with the default patience survives an
    /// attempt that hangs.
    ///
    /// Longer tolerates a slow backend; shorter gives a lost packet or a frozen server less of the room that other attempts
    /// need. Half of `acquire_timeout` or more, and a caller may see nothing but one hanging attempt.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.options.connect_timeout = connect_timeout;
        self
    }

    /// How long a [`Connect::check`] may take. Default: 1 s.
    ///
    /// Longer tolerates a slow backend; shorter notices a dead peer sooner.
    pub fn check_timeout(mut self, check_timeout: Duration) -> Self {
        self.options.check_timeout = check_timeout;
        self
    }

    /// When a round trip stands before a checkout. Default: [`Check::IdleFor`] 1 s.
    pub fn check(mut self, check: Check) -> Self {
        self.options.check = check;
        self
    }

    /// How many connections may be opened at the same time. Default: 2.
    ///
    /// More fills an empty pool faster; fewer is kinder to a backend that has just come back.
    pub fn max_connecting(mut self, max_connecting: u32) -> Self {
        self.options.max_connecting = max_connecting;
        self
    }

    /// How many callers may wait for somebody to give a connection back; the next `get` fails with
    /// [`GetError::Full`](crate::GetError::Full) at once. Those for whom there is a place that is not in use, so that they only
    /// wait for a connect or a check, do not count. Default: none, the queue is unbounded.
    ///
    /// More hides longer bursts, at the price of longer waits for all; 0 means to wait for no user.
    pub fn max_waiters(mut self, max_waiters: impl Into<Option<u32>>) -> Self {
        self.options.max_waiters = max_waiters.into();
        self
    }

    /// What a failed attempt to connect means (a connection that is broken from the start is one). Default: `true`.
    ///
    /// With `true`, callers wait on, while one attempt after the other is made as [`backoff`](Self::backoff) says, until
    /// one succeeds or `acquire_timeout` has passed. With `false`, the caller who has waited longest gets the error at
    /// once, and every `get` that finds room makes an attempt of its own: then nothing keeps callers from connecting again and again while the backend is down but
    /// `max_connecting` and the [`gate`](Self::gate).
    pub fn retry_connection(mut self, retry_connection: bool) -> Self {
        self.options.retry = retry_connection;
        self
    }

    /// How long attempts to connect rest after a failure (with `retry_connection(false)`: only those for `min_idle`).
    /// Default: full jitter from 50 ms to 1 s.
    ///
    /// Never less than a millisecond. Once the backend is back, a caller is served within the cap plus the time of a connect.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.options.backoff = backoff;
        self
    }

    /// Asked before every attempt to connect, and told how it went; usually a breaker. Default: none.
    ///
    /// If it refuses, the caller for whom the attempt was to be made gets
    /// [`GetError::Rejected`](crate::GetError::Rejected) at once; those for whom a connection is on its way already wait on.
    /// Connections that are open are handed out without asking.
    pub fn gate(mut self, gate: Arc<dyn Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Where the ages of connections are read. Default: [`Clock::coarse`]. Time-outs are the runtime's business, so a clock
    /// that stands still never makes a caller wait for ever.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// `false`: the pool is transparent. Every `get` opens a connection of its own, and returning closes it; `max_size`,
    /// `max_connecting` and the time-outs still protect the backend. Default: `true`. Can be turned later with
    /// [`Pool::set_enabled`].
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.options.enabled = enabled;
        self
    }

    /// Builds the pool over a [`Connect`] or a bb8 manager. Opens nothing yet, save `min_idle` in the background. All
    /// connecting, checking, closing and watching of deadlines will be done by the runtime that this is called on, so it has
    /// to be driven for as long as the pool is used.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option: one that is out of range, or `runtime` if there is none, or none with timers.
    pub fn build<Via, I: IntoConnect<Via, Connect = C>>(self, connector: I) -> Result<Pool<C>, BuildError> {
        let Options {
            max_size,
            min_idle,
            max_connecting,
            max_lifetime,
            idle_timeout,
            acquire_timeout,
            connect_timeout,
            check_timeout,
            ..
        } = self.options;
        if !(1..=MAX_SIZE_LIMIT).contains(&max_size) {
            return Err(BuildError::new("max_size", max_size, "must be from 1 to 65535"));
        }
        if min_idle > max_size {
            return Err(BuildError::new("min_idle", min_idle, "must not exceed max_size"));
        }
        if max_connecting == 0 {
            return Err(BuildError::new("max_connecting", 0, "must be at least 1"));
        }
        for (option, duration) in [
            ("acquire_timeout", acquire_timeout),
            ("connect_timeout", connect_timeout),
            ("check_timeout", check_timeout),
        ] {
            if duration.is_zero() {
                return Err(BuildError::new(option, "0s", "must be longer than zero"));
            }
        }
        for (option, duration) in [("max_lifetime", max_lifetime), ("idle_timeout", idle_timeout)] {
            if let Some(duration) = duration.filter(|duration| *duration < LEAST_AGE) {
                return Err(BuildError::new(option, format_args!("{duration:?}"), "must be at least 1 ms"));
            }
        }
        let runtime = runtime()?;
        let shared = Shared::start(connector.into_connect(), self.options, self.clock, self.gate, runtime);
        Ok(Pool::new(shared))
    }
}

impl<C: Connect> std::fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("options", &self.options)
            .field("clock", &self.clock)
            .field("gate", &self.gate.is_some())
            .finish()
    }
}

/// The runtime that this runs on, if it has timers.
fn runtime() -> Result<Handle, BuildError> {
    let Ok(runtime) = Handle::try_current() else {
        let expected = "build must be called on a tokio runtime";
        return Err(BuildError::new("runtime", "none", expected));
    };
    // There is no question to ask, only a panic; better here, once, than in every task.
    let timers = std::panic::catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO)));
    if timers.is_err() {
        let expected = "the tokio runtime must have time enabled";
        return Err(BuildError::new("runtime", "without timers", expected));
    }
    Ok(runtime)
}

const DEFAULT_MAX_SIZE: u32 = 10;
/// The highest `max_size`, of the knob too: beyond it, it is a mistake.
pub(crate) const MAX_SIZE_LIMIT: u32 = 65_535;
/// Below it, connections would be opened and closed without end.
const LEAST_AGE: Duration = Duration::from_millis(1);
const DEFAULT_MAX_CONNECTING: u32 = 2;
const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const DEFAULT_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_CHECK_IDLE_FOR: Duration = Duration::from_secs(1);
const DEFAULT_BACKOFF_BASE: Duration = Duration::from_millis(50);
const DEFAULT_BACKOFF_CAP: Duration = Duration::from_secs(1);
