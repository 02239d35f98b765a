//! What a pool needs to know of a backend: how to open, check and close a connection.

use std::{fmt, future::Future, sync::Arc};

/// Opens, checks and closes connections. Implement it for your own backend; every `bb8::ManageConnection` works without
/// (see [`Bb8`]).
///
/// # Laws
///
/// 1. `connect` returns a connection that is ready for use, or an error. Its future may be dropped at any await (the
///    pool does so when `connect_timeout` has passed, and when it is closed) and leaves nothing behind.
/// 2. `check` makes one round trip: `Ok` means that the peer has just answered on this connection. If its future is
///    dropped half-way, the pool never uses the connection again.
/// 3. `is_broken` returns at once: no I/O that waits, no blocking. `true` means that the connection is useless; `false`
///    promises nothing.
/// 4. `close` is a courtesy: it may be cut off after five seconds, and where no runtime is left the connection is just
///    dropped.
/// 5. All methods may run at the same time for different connections, on the runtime that the pool was built on;
///    `is_broken`, and `close` up to its first await, on any thread.
///
/// A panic in any of them costs at most the connection in question.
///
/// # Examples
///
/// ```
/// use swiftwater_pool::{Connect, Pool};
///
/// struct Dialer;
/// impl Connect for Dialer {
///     type Connection = Vec<u8>;
///     type Error = std::io::Error;
///     async fn connect(&self) -> Result<Vec<u8>, std::io::Error> {
///         Ok(Vec::new())
///     }
///     async fn check(&self, _: &mut Vec<u8>) -> Result<(), std::io::Error> {
///         Ok(())
///     }
///     fn is_broken(&self, _: &mut Vec<u8>) -> bool {
///         false
///     }
/// }
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// let pool = Pool::builder().build(Dialer)?;
/// assert!(pool.get().await?.is_empty());
/// # Ok::<_, Box<dyn std::error::Error>>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub trait Connect: Send + Sync + 'static {
    /// What is pooled.
    type Connection: Send + 'static;
    /// Why opening or checking failed. It need not implement [`std::error::Error`], but users of the pool get more out
    /// of it if it does.
    type Error: fmt::Debug + Send + 'static;

    /// Opens a connection.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Asks the peer whether the connection still works: one round trip, such as `SELECT 1` or `PING`.
    fn check(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether the connection is known to be useless, as far as that can be told for free. Asked once
    /// when it has been opened, and at every checkout and every return.
    fn is_broken(&self, connection: &mut Self::Connection) -> bool;

    /// Says goodbye. Default: drops the connection.
    fn close(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send {
        async move { drop(connection) }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<C: Connect> Connect for Arc<C> {
    type Connection = C::Connection;
    type Error = C::Error;

    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send {
        (**self).connect()
    }

    fn check(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        (**self).check(connection)
    }

    fn is_broken(&self, connection: &mut Self::Connection) -> bool {
        (**self).is_broken(connection)
    }

    fn close(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send {
        (**self).close(connection)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<C: Connect> Connect for Box<C> {
    type Connection = C::Connection;
    type Error = C::Error;

    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send {
        (**self).connect()
    }

    fn check(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        (**self).check(connection)
    }

    fn is_broken(&self, connection: &mut Self::Connection) -> bool {
        (**self).is_broken(connection)
    }

    fn close(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send {
        (**self).close(connection)
    }
}

/// What [`Builder::build`](crate::Builder::build) accepts: anything that implements [`Connect`], and any
/// `bb8::ManageConnection` as it is.
///
/// `Via` says which of the two it is, and is inferred. A type that implements both is ambiguous: wrap it in [`Bb8`] to
/// take its bb8 side. (One blanket `Connect` for every manager would be simpler, but would forbid `Connect` for `Arc`,
/// `Box` and everything else.)
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot open connections for a pool",
    note = "implement `swiftwater_pool::Connect`, or pass a `bb8::ManageConnection` of bb8 0.9"
)]
pub trait IntoConnect<Via> {
    /// What the pool will use.
    type Connect: Connect;

    /// Turns `self` into it.
    fn into_connect(self) -> Self::Connect;
}

#[diagnostic::do_not_recommend]
impl<C: Connect> IntoConnect<via::Native> for C {
    type Connect = C;

    fn into_connect(self) -> C {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<M: ::bb8::ManageConnection> IntoConnect<via::Bb8V09> for M {
    type Connect = Bb8<M>;

    fn into_connect(self) -> Bb8<M> {
        Bb8(self)
    }
}

/// Markers for [`IntoConnect`]; inferred, never written.
pub mod via {
    /// The type implements [`Connect`](crate::Connect).
    #[derive(Debug)]
    #[non_exhaustive]
    pub struct Native;

    /// The type is a manager of bb8 0.9.
    #[derive(Debug)]
    #[non_exhaustive]
    pub struct Bb8V09;
}

/// Any manager of bb8 0.9, seen as a [`Connect`].
///
/// [`Builder::build`](crate::Builder::build) wraps by itself; the type is needed to name a pool (`Pool<Bb8<M>>`), or to
/// put a [`Connect`] of your own around a manager. bb8's trait has no way to close, so connections are dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bb8<M>(pub M);

impl<M: ::bb8::ManageConnection> Connect for Bb8<M> {
    type Connection = M::Connection;
    type Error = M::Error;

    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send {
        self.0.connect()
    }

    fn check(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.0.is_valid(connection)
    }

    fn is_broken(&self, connection: &mut Self::Connection) -> bool {
        self.0.has_broken(connection)
    }
}
