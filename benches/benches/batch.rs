//! What a batcher costs an item: alone, and in company. One thread; the handler answers at once. Every run checks its
//! answers.

use std::{convert::Infallible, time::Duration};

use criterion::{Criterion, Throughput};
use swiftwater_batch::Batcher;
use swiftwater_benches::pin;

fn main() {
    pin(0);
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let batcher = runtime.block_on(async {
        let handler = |items: Vec<u64>| async {
            items.into_iter().map(|item| Ok(item + 1)).collect::<Vec<Result<_, Infallible>>>()
        };
        Batcher::builder(handler).max_items(100).build().expect("valid options")
    });
    let mut group = criterion.benchmark_group("batch");
    for items in [1_u64, 8, 64] {
        group.throughput(Throughput::Elements(items));
        group.bench_function(format!("{items} at a time"), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let calls: Vec<_> = (0..items).map(|item| batcher.call(item)).collect();
                    for (item, call) in (0..items).zip(calls) {
                        assert_eq!(call.await.expect("an answer"), item + 1);
                    }
                });
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
