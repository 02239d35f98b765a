//! What a pool costs a checkout and its return, in one task, with connections that are open. Every run checks its answers.

use std::{convert::Infallible, time::Duration};

use criterion::Criterion;
use swiftwater_benches::pin;
use swiftwater_pool::{Check, Pool};

#[derive(Clone, Copy)]
struct Manager;

impl bb8::ManageConnection for Manager {
    type Connection = u64;
    type Error = Infallible;

    async fn connect(&self) -> Result<u64, Infallible> {
        Ok(7)
    }

    async fn is_valid(&self, _: &mut u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut u64) -> bool {
        false
    }
}

fn main() {
    pin(0);
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let pool = runtime.block_on(async {
        let pool = Pool::builder().max_size(10).check(Check::Never).build(Manager).expect("valid options");
        drop(pool.get().await.expect("it connects"));
        pool
    });
    let mut group = criterion.benchmark_group("pool");
    group.bench_function("get, return", |bencher| {
        bencher.iter(|| assert_eq!(*runtime.block_on(pool.get()).expect("a connection"), 7));
    });
    group.bench_function("try_get, return", |bencher| {
        bencher.iter(|| assert_eq!(*pool.try_get().expect("a connection"), 7));
    });
    group.bench_function("with", |bencher| {
        bencher.iter(|| {
            let used = runtime.block_on(pool.with(async |connection| *connection));
            assert_eq!(used.expect("a connection"), 7);
        });
    });
    group.bench_function("state", |bencher| bencher.iter(|| assert_eq!(pool.state().idle, 1)));
    group.finish();
    criterion.final_summary();
}
