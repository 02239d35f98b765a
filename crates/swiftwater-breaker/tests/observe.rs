//! What a registry shows.

mod common;

use common::*;
use swiftwater_core::{NameTaken, Outcome, Registry};

#[test]
fn a_registry_renders_the_handle_and_forgets_it_with_the_last_clone() -> Result<(), NameTaken> {
    let (breaker, hand) = breaker(|b| b);
    let registry = Registry::new();
    registry.add("breaker", "supplier", &breaker)?;
    run(&breaker, Some(Outcome::Success));
    trip(&breaker);
    assert!(breaker.try_acquire().is_err());

    let page = registry.prometheus();
    for line in [
        "swiftwater_breaker_admitted_total{breaker=\"supplier\"} 6",
        "swiftwater_breaker_success_total{breaker=\"supplier\"} 1",
        "swiftwater_breaker_failure_total{breaker=\"supplier\"} 5",
        "swiftwater_breaker_trips_total{breaker=\"supplier\"} 1",
        "swiftwater_breaker_rejected_open_total{breaker=\"supplier\"} 2",
        "swiftwater_breaker_rejected_full_total{breaker=\"supplier\"} 0",
        "swiftwater_breaker_late_total{breaker=\"supplier\"} 0",
        "swiftwater_breaker_state{breaker=\"supplier\",state=\"open\"} 1",
    ] {
        assert!(page.contains(line), "{line}\nin\n{page}");
    }
    let left = reading(&breaker, "open_left");
    assert!((0.5..=1.0).contains(&left));
    hand.advance(CAP);
    assert_eq!(reading(&breaker, "open_left"), 0.0);
    assert!(registry.prometheus().contains("state=\"half_open\""));

    drop(breaker);
    assert_eq!(registry.prometheus(), "");
    Ok(())
}

#[test]
fn asking_for_the_state_moves_nothing() {
    let (breaker, hand) = breaker(|b| b);
    trip_and_wait(&breaker, &hand);
    let before = count(&breaker, "admitted");
    for _ in 0..10 {
        assert_eq!(breaker.state(), swiftwater_breaker::State::HalfOpen);
        let _ = format!("{breaker:?}");
    }
    assert_eq!(count(&breaker, "admitted"), before);
    assert_eq!(free_permits(&breaker, 10), 1);
}
