//! Waiting for a condition that another process brings about.

use std::time::{Duration, Instant};

/// How long `eventually` rests between two looks.
const REST: Duration = Duration::from_millis(10);

/// Looks at `condition` until it holds, resting for 10 ms in between; returns how many looks it took.
///
/// For what happens in another process and cannot be awaited. Needs a tokio runtime with its timer enabled.
///
/// # Panics
///
/// When `condition` does not hold `within` the given time, with `claim`: what should have become true. A look that has
/// started is not cut short.
///
/// # Cancel safety
///
/// Dropping it drops the look in progress, nothing else.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
///
/// let mut looks = 0;
/// let took = swiftwater_testkit::eventually(Duration::from_secs(5), "three looks", async || {
///     looks += 1;
///     looks == 3
/// })
/// .await;
/// assert_eq!(took, 3);
/// # }
/// ```
pub async fn eventually(within: Duration, claim: &str, mut condition: impl AsyncFnMut() -> bool) -> usize {
    let start = Instant::now();
    let mut looks = 1;
    while !condition().await {
        assert!(start.elapsed() < within, "not within {within:?} ({looks} looks): {claim}");
        tokio::time::sleep(REST).await;
        looks += 1;
    }
    looks
}
