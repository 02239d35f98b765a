//! Where a region's values come from, where it knows by itself.

use std::{future::Future, sync::Arc};

use crate::{below::Waits, many::ManyCx, scope::LoadCx};

/// Where the values of a region come from, such as a table of a database: for regions that load by themselves
/// ([`fetch`](crate::Region::fetch)), in good time ([`refresh_every`](crate::RegionBuilder::refresh_every)) or before anybody
/// asks ([`warm`](crate::Region::warm)).
///
/// Implemented for closures from a [`LoadCx`] to a future.
///
/// # Laws
///
/// 1. `load_many` gives of each key what `load` would give, and leaves out the keys of which that is `None`. Pairs that nobody
///    asked for are dropped.
/// 2. What is read is read after the call: a value that was kept from before may be older than an invalidation.
/// 3. Both may be called at any time from any task, and dropped at any await.
///
/// The feature `testing` has the first as a function to call on a source of your own.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{collections::HashMap, convert::Infallible};
/// use swiftwater_cache::{Cache, LoadCx, ManyCx, Region, Source, dep};
///
/// struct Prices(HashMap<u64, u32>); // a database, say
///
/// impl Source<u64, u32> for Prices {
///     type Error = Infallible;
///
///     async fn load(&self, cx: LoadCx<u64>) -> Result<Option<u32>, Infallible> {
///         cx.depends_on(dep!("product", cx.key()));
///         Ok(self.0.get(cx.key()).copied()) // SELECT .. WHERE id = $1
///     }
///
///     async fn load_many(&self, cx: ManyCx<u64>) -> Result<Vec<(u64, u32)>, Infallible> {
///         let mut found = Vec::new(); // SELECT .. WHERE id = ANY($1)
///         for (place, key) in cx.keys().iter().enumerate() {
///             cx.of(place).depends_on(dep!("product", key));
///             found.extend(self.0.get(key).map(|price| (*key, *price)));
///         }
///         Ok(found)
///     }
/// }
///
/// let cache = Cache::builder().build()?;
/// let source = Prices(HashMap::from([(1, 995), (2, 250)]));
/// let prices: Region<u64, u32, Infallible> = cache.region("prices").error().source(source).build()?;
/// assert_eq!(prices.fetch(&1).await?.as_deref(), Some(&995));
/// assert_eq!(prices.fetch_many(&[2, 3]).await?[1].as_deref(), None);
/// # Ok(())
/// # }
/// ```
pub trait Source<K, V>: Send + Sync + 'static {
    /// What a load fails with: the region's error type. Not converted into it, so that closures need not say which it is.
    type Error;

    /// The value of `cx.key()`, or `None` if there is no such thing.
    fn load(&self, cx: LoadCx<K>) -> impl Future<Output = Result<Option<V>, Self::Error>> + Send;

    /// The values of `cx.keys()`, as far as there are any. One trip where the source can; by default one
    /// [`load`](Self::load) after the other.
    fn load_many(&self, cx: ManyCx<K>) -> impl Future<Output = Result<Vec<(K, V)>, Self::Error>> + Send
    where
        K: Clone + Send + Sync,
        V: Send,
    {
        async move {
            let mut found = Vec::with_capacity(cx.keys().len());
            for (place, key) in cx.keys().iter().enumerate() {
                let value = self.load(LoadCx::new(key.clone(), cx.of(place).clone())).await?;
                found.extend(value.map(|value| (key.clone(), value)));
            }
            Ok(found)
        }
    }
}

impl<K, V, E, F, Fut> Source<K, V> for F
where
    F: Fn(LoadCx<K>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<V>, E>> + Send,
{
    type Error = E;

    fn load(&self, cx: LoadCx<K>) -> impl Future<Output = Result<Option<V>, E>> + Send {
        self(cx)
    }
}

/// What a load of many keys ends with.
pub(crate) type Pairs<K, V, E> = Result<Vec<(K, V)>, E>;

/// A source as the region sees it: without its type, and with futures that own it.
pub(crate) trait AnySource<K, V, E>: Send + Sync {
    fn load(self: Arc<Self>, cx: LoadCx<K>) -> Waits<'static, Result<Option<V>, E>>;
    fn load_many(self: Arc<Self>, cx: ManyCx<K>) -> Waits<'static, Pairs<K, V, E>>;
}

impl<K, V, S> AnySource<K, V, S::Error> for S
where
    K: Clone + Send + Sync + 'static,
    V: Send + 'static,
    S: Source<K, V>,
{
    fn load(self: Arc<Self>, cx: LoadCx<K>) -> Waits<'static, Result<Option<V>, S::Error>> {
        Box::pin(async move { S::load(&self, cx).await })
    }

    fn load_many(self: Arc<Self>, cx: ManyCx<K>) -> Waits<'static, Pairs<K, V, S::Error>> {
        Box::pin(async move { S::load_many(&self, cx).await })
    }
}
