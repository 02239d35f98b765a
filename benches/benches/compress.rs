//! What compressing a small answer costs, and undoing it. Every run checks its answers.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput};
use swiftwater_benches::pin;
use swiftwater_compress::{Accepted, Compressor, Decompressor, Fixed, Hints, Setting};

fn main() {
    pin(0);
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let body: String =
        (0..20).map(|n| format!("{{\"id\":{n},\"name\":\"product {n}\",\"price\":{}}},", n * 95)).collect();
    let body = body.as_bytes();
    let decompressor = Decompressor::builder().build().expect("valid options");
    let mut group = criterion.benchmark_group("compress");
    for setting in [Setting::gzip(6), Setting::brotli(4), Setting::zstd(3), Setting::lz4()] {
        let compressor = Compressor::builder().policy(Fixed(setting)).build().expect("valid options");
        let encode = || compressor.compress(&Hints::new(), black_box(body)).expect("it encodes");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("compress, {setting}"), |bencher| {
            bencher.iter(|| assert_eq!(encode().coding(), setting.coding()));
        });
        let encoded = encode();
        group.bench_function(format!("decompress, {setting}"), |bencher| {
            bencher.iter(|| {
                let plain = decompressor.decompress(setting.coding(), black_box(encoded.bytes()));
                assert!(plain.expect("it decodes") == body);
            });
        });
    }
    let (rules, accepted) =
        (Compressor::builder().build().expect("valid options"), Accepted::parse(["gzip, br"]));
    let hints = Hints::new().accepted(&accepted).content_type("application/json").size(120_000);
    let expected = rules.choose(&hints);
    group.bench_function("choose", |bencher| {
        bencher.iter(|| assert_eq!(rules.choose(black_box(&hints)).coding(), expected.coding()));
    });
    group.finish();
    criterion.final_summary();
}
