//! Closures as handlers.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::{BuildHasher, Hash},
    marker::PhantomData,
    sync::Arc,
};

use crate::{Batch, CallError, Handler, Missing, OpenBatch, Reply};

/// What [`Batcher::builder`](crate::Batcher::builder) accepts: a [`Handler`], or a closure in one of three forms.
///
/// | `Fn(Vec<Req>) -> Future<Output = ..>` | A call yields | |
/// |---|---|---|
/// | `Vec<Result<Out, E>>` | `Out` or `E` | in the order of the requests |
/// | `Result<Vec<Out>, E>` | `Out` or `Arc<E>` | the error is everybody's |
/// | `HashMap<Req, Out>` | `Out` or [`Missing`] | the closure gets each distinct key once |
///
/// With another number of results than requests nobody could tell whose they are, so all calls of that batch end with
/// [`CallError::WrongCount`]. A batch that everybody has left does not reach the closure.
///
/// An `async` block has to own what it uses: `move |ids| { let db = db.clone(); async move { .. } }`.
///
/// `Via` says which form it is, and is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot handle batches",
    note = "implement `swiftwater_batch::Handler`, or pass a closure `Fn(Vec<Req>) -> Fut` whose future is `Send` and yields `Vec<Result<Out, E>>`, `Result<Vec<Out>, E>` or `HashMap<Req, Out>`"
)]
pub trait IntoHandler<Via> {
    /// What runs the batches.
    type Handler: Handler;

    /// Turns `self` into it.
    fn into_handler(self) -> Self::Handler;
}

/// Markers for [`IntoHandler`]; inferred, never written.
pub mod via {
    use std::marker::PhantomData;

    /// A closure with one error for all.
    #[derive(Debug)]
    pub struct All<R, O, E>(PhantomData<(R, O, E)>);

    /// A closure with a result for each.
    #[derive(Debug)]
    pub struct Each<R, O, E>(PhantomData<(R, O, E)>);

    /// The type implements [`Handler`](crate::Handler).
    #[derive(Debug)]
    #[non_exhaustive]
    pub struct Itself;

    /// A closure that looks keys up.
    #[derive(Debug)]
    pub struct Map<K, O, S>(PhantomData<(K, O, S)>);
}

#[diagnostic::do_not_recommend]
impl<H: Handler> IntoHandler<via::Itself> for H {
    type Handler = H;

    fn into_handler(self) -> H {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<F, Fut, R, O, E> IntoHandler<via::Each<R, O, E>> for F
where
    F: Fn(Vec<R>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Vec<Result<O, E>>> + Send,
    R: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    type Handler = Closure<F, via::Each<R, O, E>>;

    fn into_handler(self) -> Self::Handler {
        Closure::new(self)
    }
}

#[diagnostic::do_not_recommend]
impl<F, Fut, R, O, E> IntoHandler<via::All<R, O, E>> for F
where
    F: Fn(Vec<R>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<O>, E>> + Send,
    R: Send + 'static,
    O: Send + 'static,
    E: Send + Sync + 'static,
{
    type Handler = Closure<F, via::All<R, O, E>>;

    fn into_handler(self) -> Self::Handler {
        Closure::new(self)
    }
}

#[diagnostic::do_not_recommend]
impl<F, Fut, K, O, S> IntoHandler<via::Map<K, O, S>> for F
where
    F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HashMap<K, O, S>> + Send,
    K: Hash + Eq + Clone + Send + 'static,
    O: Clone + Send + 'static,
    S: BuildHasher + Send + 'static,
{
    type Handler = Closure<F, via::Map<K, O, S>>;

    fn into_handler(self) -> Self::Handler {
        Closure::new(self)
    }
}

/// What a closure becomes.
pub struct Closure<F, Via> {
    run: F,
    via: PhantomData<fn() -> Via>,
}

impl<F, Via> Closure<F, Via> {
    fn new(run: F) -> Self {
        Self { run, via: PhantomData }
    }
}

impl<F, Via> fmt::Debug for Closure<F, Via> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closure").finish_non_exhaustive()
    }
}

impl<F, Fut, R, O, E> Handler for Closure<F, via::Each<R, O, E>>
where
    F: Fn(Vec<R>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Vec<Result<O, E>>> + Send,
    R: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    type Request = R;
    type Output = O;
    type Error = E;

    async fn run(&self, batch: Batch<Self>) {
        let Some((requests, replies)) = taken(batch) else { return };
        let results = (self.run)(requests).await;
        send_each(replies, results);
    }
}

impl<F, Fut, R, O, E> Handler for Closure<F, via::All<R, O, E>>
where
    F: Fn(Vec<R>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<O>, E>> + Send,
    R: Send + 'static,
    O: Send + 'static,
    E: Send + Sync + 'static,
{
    type Request = R;
    type Output = O;
    type Error = Arc<E>;

    async fn run(&self, batch: Batch<Self>) {
        let Some((requests, replies)) = taken(batch) else { return };
        match (self.run)(requests).await {
            Ok(outputs) => send_each(replies, outputs.into_iter().map(Ok)),
            Err(error) => {
                let error = Arc::new(error);
                for reply in replies {
                    reply.send(Err(error.clone()));
                }
            }
        }
    }
}

impl<F, Fut, K, O, S> Handler for Closure<F, via::Map<K, O, S>>
where
    F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HashMap<K, O, S>> + Send,
    K: Hash + Eq + Clone + Send + 'static,
    O: Clone + Send + 'static,
    S: BuildHasher + Send + 'static,
{
    type Request = K;
    type Output = O;
    type Error = Missing;

    async fn run(&self, batch: Batch<Self>) {
        let Some((keys, replies)) = taken(batch) else { return };
        // Each distinct key once, in the order in which they came, beside those who asked for it.
        let mut places = HashMap::new();
        let mut distinct: Vec<K> = Vec::new();
        let mut asking: Vec<Vec<Reply<O, Missing>>> = Vec::new();
        for (key, reply) in keys.into_iter().zip(replies) {
            let place = *places.entry(key.clone()).or_insert_with(|| {
                distinct.push(key);
                asking.push(Vec::new());
                asking.len() - 1
            });
            asking[place].push(reply);
        }
        let mut found = (self.run)(distinct).await;
        for (key, place) in places {
            let mut replies = std::mem::take(&mut asking[place]);
            let output = found.remove(&key).ok_or(Missing);
            let last = replies.pop();
            for reply in replies {
                reply.send(output.clone());
            }
            if let Some(last) = last {
                last.send(output);
            }
        }
    }
}

type Taken<R, O, E> = (Vec<R>, Vec<Reply<O, E>>);

/// The requests and the replies, or `None` if everybody has left.
fn taken<R, O, E>(batch: OpenBatch<R, O, E>) -> Option<Taken<R, O, E>>
where
    R: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    let items = batch.seal();
    (!items.is_empty()).then(|| items.into_iter().map(|item| (item.request, item.reply)).unzip())
}

/// Answers in order, or, if there are too many or too few results, with an error.
fn send_each<O, E>(
    replies: Vec<Reply<O, E>>,
    results: impl IntoIterator<Item = Result<O, E>, IntoIter: ExactSizeIterator>,
) {
    let results = results.into_iter();
    let (expected, got) = (replies.len(), results.len());
    if expected == got {
        for (reply, result) in replies.into_iter().zip(results) {
            reply.send(result);
        }
    } else {
        for reply in replies {
            reply.end(Err(CallError::WrongCount { expected, got }));
        }
    }
}
