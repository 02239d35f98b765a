//! Foreign code may ask the pool anything: no lock is held while it runs.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Wake, Waker},
    thread,
    time::Duration,
};

use swiftwater_core::{Clock, Gate, Outcome, Rejected, Token};
use swiftwater_pool::{Check, Connect, Pool};

/// Asks the pool how it stands, from wherever it is called; would never come back under the lock.
#[derive(Clone, Default)]
struct Asker(Arc<Asking>);

#[derive(Default)]
struct Asking {
    pool: OnceLock<Weak<Pool<Asker>>>,
    asked: [AtomicU32; 8],
}

const CLOCK: usize = 0;
const GATE: usize = 1;
const WAKE: usize = 2;
const WAKER_DROP: usize = 3;
const IS_BROKEN: usize = 4;
const CONNECTOR: usize = 5;
const CONNECTION_DROP: usize = 6;
const ERROR_DROP: usize = 7;

impl Asker {
    fn ask(&self, from: usize) {
        if let Some(pool) = self.0.pool.get().and_then(Weak::upgrade) {
            let _ = pool.state();
            self.0.asked[from].fetch_add(1, SeqCst);
        }
    }
}

struct Asks<const FROM: usize>(Asker);

impl<const FROM: usize> Drop for Asks<FROM> {
    fn drop(&mut self) {
        self.0.ask(FROM);
    }
}

impl std::fmt::Debug for Asks<ERROR_DROP> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asks")
    }
}

impl Connect for Asker {
    type Connection = Asks<CONNECTION_DROP>;
    type Error = Asks<ERROR_DROP>;

    async fn connect(&self) -> Result<Self::Connection, Self::Error> {
        self.ask(CONNECTOR);
        if self.0.asked[CONNECTOR].load(SeqCst) == 1 {
            Err(Asks(self.clone()))
        } else {
            Ok(Asks(self.clone()))
        }
    }

    async fn check(&self, _: &mut Self::Connection) -> Result<(), Self::Error> {
        self.ask(CONNECTOR);
        Ok(())
    }

    fn is_broken(&self, _: &mut Self::Connection) -> bool {
        self.ask(IS_BROKEN);
        false
    }

    async fn close(&self, connection: Self::Connection) {
        self.ask(CONNECTOR);
        drop(connection);
    }
}

impl Gate for Asker {
    fn admit(&self) -> Result<Token, Rejected> {
        self.ask(GATE);
        Ok(Token::new(0))
    }

    fn settle(&self, _: Token, _: Option<Outcome>) {
        self.ask(GATE);
    }
}

struct Waking(Asks<WAKER_DROP>);

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.0.0.ask(WAKE);
    }
}

/// Each waker is its own, so that the pool has to exchange it, and holds the last count of it.
fn polled(get: &mut swiftwater_pool::Get<Asker>, asker: &Asker) -> bool {
    let waker = Waker::from(Arc::new(Waking(Asks(asker.clone()))));
    Pin::new(get).poll(&mut Context::from_waker(&waker)).is_pending()
}

async fn everything_happens(asker: Asker) {
    let time = asker.clone();
    let start = tokio::time::Instant::now();
    let clock = Clock::custom(move || {
        time.ask(CLOCK);
        start.elapsed()
    });
    let builder = Pool::builder().clock(clock).gate(Arc::new(asker.clone())).check(Check::Always).max_size(1);
    let pool = Arc::new(builder.build(asker.clone()).unwrap());
    assert!(asker.0.pool.set(Arc::downgrade(&pool)).is_ok());
    let held = pool.get().await.expect("the second attempt succeeds");
    let (mut one, mut two) = (pool.get(), pool.get());
    for _ in 0..2 {
        assert!(polled(&mut one, &asker) && polled(&mut two, &asker));
    }
    drop(held);
    drop(one);
    drop(two);
    drop(pool.get().await.expect("checked"));
    pool.close().await;
}

#[test]
fn no_lock_is_held_while_foreign_code_runs() {
    let (done, is_done) = mpsc::channel();
    let asker = Asker::default();
    let inside = asker.clone();
    // On a thread of its own: if a lock were held, it would not come back.
    let thread = thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(everything_happens(inside));
        done.send(()).unwrap();
    });
    assert!(is_done.recv_timeout(Duration::from_secs(60)).is_ok(), "it hangs, or has panicked");
    thread.join().unwrap();
    for (from, asked) in asker.0.asked.iter().enumerate() {
        assert!(asked.load(SeqCst) > 0, "never asked from {from}");
    }
}
