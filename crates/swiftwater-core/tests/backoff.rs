//! Backoff: bounds, spread and repetition.

use std::time::Duration;

use swiftwater_core::Backoff;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The longest of many draws of each of the first `attempts` delays.
fn longest(backoff: &Backoff, attempts: usize) -> Vec<Duration> {
    let mut longest = vec![Duration::ZERO; attempts];
    for seed in 0..2_000 {
        let mut backoff = backoff.clone().seed(seed);
        for most in &mut longest {
            *most = backoff.next_delay().max(*most);
        }
    }
    longest
}

#[test]
fn the_bound_doubles_from_the_base_up_to_the_cap_and_is_nearly_reached() {
    let seen = longest(&Backoff::new(ms(100), ms(1_500)), 7);
    for (seen, bound) in seen.into_iter().zip([100, 200, 400, 800, 1_500, 1_500, 1_500]) {
        assert!(seen <= ms(bound), "{seen:?} is above {bound} ms");
        assert!(seen >= ms(bound * 98 / 100), "{seen:?} is far below {bound} ms");
    }
}

#[test]
fn no_delay_is_below_the_floor() {
    let mut backoff = Backoff::new(ms(10), ms(1_000)).floor(ms(50)).seed(1);
    // The bounds 10, 20 and 40 ms are below the floor: it is waited for exactly.
    let first: Vec<_> = (0..3).map(|_| backoff.next_delay()).collect();
    assert_eq!(first, [ms(50); 3]);
    for _ in 0..10_000 {
        let delay = backoff.next_delay();
        assert!(delay >= ms(50) && delay <= ms(1_000), "{delay:?}");
    }
}

#[test]
fn a_floor_above_the_cap_is_the_cap() {
    let mut backoff = Backoff::new(ms(10), ms(100)).floor(ms(500));
    assert_eq!(backoff.next_delay(), ms(100));
}

#[test]
fn a_base_above_the_cap_is_the_cap() {
    for delay in longest(&Backoff::new(ms(500), ms(100)), 3) {
        assert!(delay <= ms(100));
    }
}

#[test]
fn a_zero_base_never_waits_however_often() {
    let mut backoff = Backoff::new(Duration::ZERO, Duration::MAX);
    for _ in 0..1_000 {
        assert_eq!(backoff.next_delay(), Duration::ZERO);
    }
}

#[test]
fn a_tiny_base_reaches_a_distant_cap_by_doubling_only() {
    // 1 ns doubled 40 times is 18 minutes: the 41st delay must not jump to the cap of a year.
    let year = Duration::from_secs(31_536_000);
    let seen = longest(&Backoff::new(Duration::from_nanos(1), year), 42);
    assert!(seen[40] <= Duration::from_nanos(1 << 40), "{:?}", seen[40]);
    assert!(seen[40] >= Duration::from_nanos((1 << 40) / 100 * 98), "{:?}", seen[40]);
}

#[test]
fn nothing_overflows_after_many_attempts_with_the_longest_times() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::MAX).seed(3);
    for attempt in 0..10_000 {
        assert_eq!(backoff.attempts(), attempt);
        let _ = backoff.next_delay();
    }
    let mut longest = Backoff::new(Duration::MAX, Duration::MAX).floor(Duration::MAX);
    assert_eq!(longest.next_delay(), Duration::MAX);
}

#[test]
fn delays_are_spread_evenly_between_floor_and_bound() {
    let mut backoff = Backoff::new(ms(1_100), ms(1_100)).floor(ms(100)).seed(42);
    let mut tenths = [0u32; 10];
    for _ in 0..100_000 {
        let above = backoff.next_delay() - ms(100);
        tenths[(above.as_nanos() * 10 / 1_000_000_001) as usize] += 1;
    }
    // 10,000 expected; the deviation is below 100 with probability 0.7, below 500 always but for one in a million.
    for (tenth, count) in tenths.iter().enumerate() {
        assert!((9_500..=10_500).contains(count), "tenth {tenth} holds {count}");
    }
}

#[test]
fn a_seed_repeats_the_delays_and_another_does_not() {
    let draw = |mut backoff: Backoff| -> Vec<_> { (0..20).map(|_| backoff.next_delay()).collect() };
    let make = || Backoff::new(ms(100), ms(10_000));
    assert_eq!(draw(make().seed(7)), draw(make().seed(7)));
    assert_ne!(draw(make().seed(7)), draw(make().seed(8)));
    assert_ne!(draw(make()), draw(make()), "without a seed each draws its own");
}

#[test]
fn clones_of_an_unseeded_template_do_not_march_in_step() {
    let template = Backoff::new(ms(10_000), ms(10_000));
    let delays: std::collections::BTreeSet<_> = (0..50).map(|_| template.clone().next_delay()).collect();
    assert!(delays.len() > 45, "{} different delays of 50", delays.len());
}

#[test]
fn a_clone_of_a_seeded_one_goes_on_where_it_stood() {
    let mut backoff = Backoff::new(ms(100), ms(10_000)).seed(9);
    backoff.next_delay();
    let mut clone = backoff.clone();
    assert_eq!(clone.attempts(), 1);
    assert_eq!(clone.next_delay(), backoff.next_delay());
}

#[test]
fn reset_starts_over_at_the_base() {
    let mut backoff = Backoff::new(ms(1), ms(100_000)).seed(5);
    for _ in 0..15 {
        backoff.next_delay();
    }
    backoff.reset();
    assert_eq!(backoff.attempts(), 0);
    assert!(backoff.next_delay() <= ms(1));
}
