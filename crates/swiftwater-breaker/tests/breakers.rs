//! A breaker for each key: bounded, and what is forgotten is what is missed least.

mod common;

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    fmt,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use common::{BASE, run, run_many};
use proptest::prelude::*;
use swiftwater_breaker::{
    Breaker, Breakers, BreakersBuilder, Builder, Cause, State, consecutive, failure_rate,
};
use swiftwater_core::{
    Clock, Desc, Gate, Hand, KnobError, Observe, Outcome, Registry, Tunable, Visitor, conformance,
};

const IDLE: Duration = Duration::from_secs(60);

fn template(clock: Clock) -> Builder {
    Breaker::builder().trip_when(consecutive(2)).open_for(BASE..=BASE).clock(clock)
}

fn breakers<K: Hash + Eq + Send + Sync + 'static>(
    adjust: impl FnOnce(BreakersBuilder<K>) -> BreakersBuilder<K>,
) -> (Breakers<K>, Hand) {
    let (clock, hand) = Clock::manual();
    let builder = Breakers::builder(template(clock)).idle_timeout(IDLE);
    (adjust(builder).build().expect("valid options"), hand)
}

fn open(breaker: &Breaker) {
    run_many(breaker, Outcome::Failure, 2);
    assert_eq!(breaker.state(), State::Open);
}

/// A counter or gauge of the registry itself.
fn reading<K: fmt::Display + Send + Sync + 'static>(breakers: &Breakers<K>, name: &str) -> f64 {
    struct Find<'a>(&'a str, f64);
    impl Visitor for Find<'_> {
        fn counter(&mut self, desc: &'static Desc, value: u64) {
            self.gauge(desc, value as f64);
        }
        fn gauge(&mut self, desc: &'static Desc, value: f64) {
            if desc.name == self.0 {
                self.1 = value;
            }
        }
        fn part(&mut self, _: &'static str, _: &dyn fmt::Display, _: &dyn Observe) {}
    }
    let mut find = Find(name, f64::NAN);
    breakers.observe(&mut find);
    find.1
}

#[test]
fn a_key_has_one_breaker_and_shares_its_fate_with_no_other() {
    let (breakers, _hand) = breakers::<String>(|b| b);
    open(&breakers.get("left"));
    assert_eq!(breakers.get("left").state(), State::Open);
    assert_eq!(breakers.get("right").state(), State::Closed);
    assert_eq!((breakers.len(), breakers.is_empty()), (2, false));
    assert!(breakers.peek("middle").is_none());
    assert_eq!(breakers.peek("left").expect("there").state(), State::Open);
}

#[test]
fn a_removed_key_starts_anew_and_its_old_handle_goes_on() {
    let (breakers, _hand) = breakers::<u32>(|b| b);
    let old = breakers.get(&7);
    open(&old);
    assert_eq!(breakers.remove(&7).expect("there").state(), State::Open);
    assert!(breakers.remove(&7).is_none());
    assert_eq!(breakers.get(&7).state(), State::Closed);
    assert!(old.try_acquire().is_err());
}

#[test]
fn there_are_never_more_keys_than_the_maximum() {
    for max_keys in [1, 2, 100, 5000] {
        let (breakers, _hand) = breakers::<u64>(|b| b.max_keys(max_keys));
        for key in 0..3 * max_keys as u64 {
            breakers.get(&key);
            assert!(breakers.len() <= max_keys);
        }
        assert!(breakers.len() >= max_keys * 8 / 10, "{} of {max_keys}", breakers.len());
        let made = reading(&breakers, "made");
        assert_eq!(made, reading(&breakers, "keys") + reading(&breakers, "evicted_full"));
    }
}

#[test]
fn nor_do_racing_threads_make_more() {
    let (breakers, _hand) = breakers::<u64>(|b| b.max_keys(50));
    thread::scope(|scope| {
        for thread in 0..4 {
            let breakers = &breakers;
            scope.spawn(move || {
                for key in 0..2000 {
                    run(&breakers.get(&(key * (1 + thread) % 300)), Some(Outcome::Success));
                    assert!(breakers.len() <= 50);
                }
            });
        }
    });
}

#[test]
fn racers_for_a_new_key_get_the_same_breaker() {
    for _ in 0..200 {
        let (breakers, _hand) = breakers::<u64>(|b| b);
        let failures = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let breaker = breakers.get(&1);
                    if let Ok(permit) = breaker.try_acquire() {
                        permit.finish(Outcome::Failure);
                        failures.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!((failures.into_inner(), breakers.get(&1).state()), (2, State::Open));
        assert_eq!(breakers.len(), 1);
    }
}

#[test]
fn an_open_breaker_outlives_any_number_of_healthy_keys() {
    let (breakers, hand) = breakers::<u64>(|b| b.max_keys(64));
    open(&breakers.get(&0));
    breakers.get(&1).force_closed();
    for key in 2..2000 {
        hand.advance(Duration::from_millis(1));
        breakers.get(&key);
    }
    assert!(breakers.peek(&0).is_some_and(|breaker| breaker.state() == State::HalfOpen));
    assert!(breakers.peek(&1).is_some_and(|breaker| breaker.state() == State::ForcedClosed));
    assert_eq!(breakers.len(), 64);
}

#[test]
fn room_is_made_even_if_nothing_is_healthy() {
    let (breakers, _hand) = breakers::<u64>(|b| b.max_keys(8));
    for key in 0..100 {
        open(&breakers.get(&key));
    }
    assert_eq!(breakers.len(), 8);
}

#[test]
fn what_is_in_somebodys_hands_goes_after_what_is_not() {
    let (breakers, hand) = breakers::<u64>(|b| b.max_keys(8));
    let held: Vec<_> = (0..4).map(|key| breakers.get(&key)).collect();
    for key in 100..200 {
        hand.advance(Duration::from_secs(1));
        breakers.get(&key);
    }
    for (key, held) in (0..4).zip(&held) {
        open(held);
        assert!(breakers.peek(&key).is_some_and(|breaker| breaker.state() == State::Open), "{key}");
    }
}

#[test]
fn the_least_recently_used_goes_first() {
    let (breakers, hand) = breakers::<u64>(|b| b.max_keys(10));
    for key in 0..10 {
        hand.advance(Duration::from_secs(1));
        breakers.get(&key);
    }
    hand.advance(Duration::from_secs(1));
    breakers.get(&0); // used again
    hand.advance(Duration::from_secs(1));
    breakers.get(&10);
    assert!(breakers.peek(&1).is_none());
    assert!((2..=10).chain([0]).all(|key| breakers.peek(&key).is_some()));
}

#[test]
fn idle_keys_go_and_open_forced_and_held_ones_stay() {
    let (breakers, hand) = breakers::<u64>(|b| b);
    for key in 0..10 {
        breakers.get(&key);
    }
    let held = breakers.get(&1);
    breakers.get(&2).force_open();
    breakers.get(&3).force_closed();
    hand.advance(IDLE - Duration::from_millis(1));
    breakers.get(&4);
    open(&breakers.get(&5));
    assert_eq!(breakers.evict_idle(), 0);
    hand.advance(Duration::from_millis(1));
    assert_eq!(breakers.evict_idle(), 5);
    let left: HashSet<u64> = (0..10).filter(|key| breakers.peek(key).is_some()).collect();
    assert_eq!(left, HashSet::from([1, 2, 3, 4, 5]));
    drop(held);
    hand.advance(IDLE);
    assert_eq!(breakers.evict_idle(), 3, "by now the open one may be probed, which a new one does as well");
    assert_eq!(reading(&breakers, "evicted_idle"), 8.0);
}

#[test]
fn idle_keys_go_by_themselves_as_new_ones_come() {
    let (breakers, hand) = breakers::<u64>(|b| b.max_keys(1000));
    for key in 0..500 {
        breakers.get(&key);
    }
    hand.advance(IDLE);
    for key in 1000..1250 {
        breakers.get(&key);
    }
    assert!(breakers.len() <= 260, "{}", breakers.len());
}

#[test]
fn without_an_idle_timeout_nothing_is_idle() {
    let (breakers, hand) = breakers::<u64>(|b| b.idle_timeout(None));
    breakers.get(&1);
    hand.advance(1000 * IDLE);
    assert_eq!(breakers.evict_idle(), 0);
}

#[test]
fn a_knob_turns_all_keys_and_those_to_come() -> Result<(), KnobError> {
    let (breakers, _hand) = breakers::<u64>(|b| b);
    let before = breakers.get(&1);
    let mut knobs = HashMap::new();
    breakers.knobs(&mut |knob| drop(knobs.insert(knob.name(), knob)));
    assert_eq!(knobs["failure_threshold"].get()?, 2.0);
    knobs["failure_threshold"].set(3.0)?;
    for breaker in [before, breakers.get(&2)] {
        run_many(&breaker, Outcome::Failure, 2);
        assert_eq!(breaker.state(), State::Closed);
        run_many(&breaker, Outcome::Failure, 1);
        assert_eq!(breaker.state(), State::Open);
    }
    conformance::tunable(&breakers);
    Ok(())
}

#[test]
fn no_key_that_is_made_while_a_knob_turns_is_left_behind() {
    for _ in 0..50 {
        let (breakers, _hand) = breakers::<u64>(|b| b);
        thread::scope(|scope| {
            scope.spawn(|| (0..200).for_each(|key| drop(breakers.get(&key))));
            breakers.knobs(&mut |knob| {
                if knob.name() == "failure_threshold" {
                    (3..20).for_each(|value| assert_eq!(knob.set(f64::from(value)), Ok(f64::from(value))));
                }
            });
        });
        breakers.for_each(|key, breaker| {
            breaker.knobs(&mut |knob| {
                assert!(knob.name() != "failure_threshold" || knob.get() == Ok(19.0), "key {key}");
            });
        });
    }
}

#[test]
fn events_name_their_key() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let by_template = Arc::new(AtomicUsize::new(0));
    let (clock, _hand) = Clock::manual();
    let (told, counted) = (seen.clone(), by_template.clone());
    let template = template(clock).on_event(move |_| {
        counted.fetch_add(1, SeqCst);
    });
    let breakers: Breakers<String> = Breakers::builder(template)
        .on_event(move |key: &String, event| told.lock().unwrap().push((key.clone(), event.to, event.cause)))
        .build()
        .expect("valid options");
    open(&breakers.get("b"));
    breakers.get("a").force_open();
    let expected = [
        ("b".to_owned(), State::Open, Cause::Consecutive),
        ("a".to_owned(), State::ForcedOpen, Cause::ByHand),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(by_template.load(SeqCst), 2);
}

#[test]
fn every_key_is_seen_once_and_under_no_lock() {
    let (breakers, _hand) = breakers::<u64>(|b| b.max_keys(5000));
    for key in 0..2000 {
        breakers.get(&key);
    }
    let mut seen = HashSet::new();
    breakers.for_each(|key, _| {
        assert!(seen.insert(*key));
        breakers.remove(key); // would wait for ever under a lock
    });
    assert_eq!((seen.len(), breakers.len()), (2000, 0));
}

#[test]
fn a_registry_renders_every_key() {
    let (breakers, _hand) = breakers::<String>(|b| b);
    open(&breakers.get("left"));
    breakers.get("right");
    conformance::observe(&breakers);
    let registry = Registry::new();
    registry.add("breakers", "shards", &breakers).expect("a free name");
    let page = registry.prometheus();
    assert!(page.contains("swiftwater_breakers_keys{breakers=\"shards\"} 2"), "{page}");
    assert!(page.contains("key=\"left\""), "{page}");
}

#[test]
fn nonsense_is_refused_by_name() {
    let refused = |builder: BreakersBuilder<u8>| builder.build().expect_err("nonsense").to_string();
    let builder = || Breakers::<u8>::builder(Breaker::builder());
    assert!(refused(builder().max_keys(0)).contains("max_keys = 0"));
    assert!(refused(builder().max_keys(1_000_001)).contains("max_keys = 1000001"));
    assert!(refused(builder().idle_timeout(Duration::from_millis(999))).contains("idle_timeout = 999ms"));
    assert!(refused(Breakers::builder(Breaker::builder().probes(0))).contains("probes = 0"));
}

#[test]
fn seeded_keys_do_not_open_in_step() {
    let (clock, _hand) = Clock::manual();
    let template = || Breaker::builder().trip_when(consecutive(1)).clock(clock.clone()).seed(7);
    let times = || {
        let breakers: Breakers<u32> = Breakers::builder(template()).build().expect("valid options");
        (0..20)
            .map(|key| {
                run(&breakers.get(&key), Some(Outcome::Failure));
                breakers.get(&key).events(0)[0].open_for
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(times(), times(), "but it can be repeated");
    assert!(times().into_iter().collect::<HashSet<_>>().len() > 15);
}

/// A key whose comparison panics on demand.
#[derive(Clone)]
struct Hostile(u32, Arc<AtomicBool>);

impl PartialEq for Hostile {
    fn eq(&self, other: &Self) -> bool {
        if self.1.load(SeqCst) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        self.0 == other.0
    }
}

impl Eq for Hostile {}

impl Hash for Hostile {
    fn hash<H: Hasher>(&self, _: &mut H) {} // all alike
}

#[test]
fn a_key_whose_comparison_panics_breaks_nothing() {
    let (breakers, _hand) = breakers::<Hostile>(|b| b.max_keys(4));
    let panics = Arc::new(AtomicBool::new(false));
    let key = |number| Hostile(number, panics.clone());
    (0..3).for_each(|number| drop(breakers.get(&key(number))));
    panics.store(true, SeqCst);
    for number in 0..10 {
        assert!(catch_unwind(AssertUnwindSafe(|| drop(breakers.get(&key(number))))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(breakers.remove(&key(number))))).is_err());
    }
    panics.store(false, SeqCst);
    for number in 0..10 {
        run(&breakers.get(&key(number)), Some(Outcome::Success));
    }
    assert_eq!(breakers.len(), 4);
}

#[test]
fn a_borrowed_key_finds_what_an_owned_one_made() {
    let (breakers, _hand) = breakers::<String>(|b| b);
    let owned: String = "host:443".into();
    let borrowed: &str = owned.borrow();
    open(&breakers.get(&owned));
    assert_eq!(breakers.get(borrowed).state(), State::Open);
}

#[test]
fn handles_cross_threads() {
    fn is_send_sync<T: Send + Sync>() {}
    is_send_sync::<Breakers<String>>();
    is_send_sync::<BreakersBuilder<String>>();
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Advance(u64),
    EvictIdle,
    Fail(u8),
    Get(u8),
    Remove(u8),
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..90_000u64).prop_map(Op::Advance),
        1 => Just(Op::EvictIdle),
        3 => (0..12u8).prop_map(Op::Fail),
        4 => (0..12u8).prop_map(Op::Get),
        1 => (0..12u8).prop_map(Op::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    /// With room for all: a map that forgets what was last used long ago and is not open.
    #[test]
    fn it_is_a_map_that_forgets_what_is_idle(ops in prop::collection::vec(ops(), 1..80)) {
        let (breakers, hand) = breakers::<u8>(|b| b.max_keys(100));
        // Last use in milliseconds, failures in a row, open until.
        let mut twin: HashMap<u8, (u64, u32, u64)> = HashMap::new();
        let mut now = 0;
        let idle = |now: u64, &(used, _, until): &(u64, u32, u64)| now >= used + 60_000 && now >= until;
        for op in ops {
            // A miss may forget idle keys as well, so the twin is asked about those that are not.
            match op {
                Op::Advance(ms) => {
                    now += ms;
                    hand.advance(Duration::from_millis(ms));
                }
                Op::EvictIdle => {
                    breakers.evict_idle();
                    twin.retain(|_, entry| !idle(now, entry));
                    prop_assert_eq!(breakers.len(), twin.len());
                }
                Op::Fail(key) | Op::Get(key) => {
                    let known = breakers.peek(&key).is_some();
                    if !known && let Some(gone) = twin.remove(&key) {
                        prop_assert!(idle(now, &gone), "{key} was forgotten");
                    }
                    prop_assert_eq!(known, twin.contains_key(&key));
                    let breaker = breakers.get(&key);
                    let entry = twin.entry(key).or_insert((now, 0, 0));
                    if now - entry.0 >= 100 {
                        entry.0 = now; // what `touch` rounds to
                    }
                    if let Op::Fail(_) = op {
                        if now < entry.2 {
                            prop_assert!(breaker.try_acquire().is_err());
                        } else {
                            run(&breaker, Some(Outcome::Failure));
                            // Open before, so that this was the probe; or the second in a row.
                            entry.1 = if entry.2 > 0 { 2 } else { entry.1 + 1 };
                            if entry.1 >= 2 {
                                let left = breaker.events(0).last().expect("it opened").open_for;
                                entry.2 = now + left.as_micros().div_ceil(1000) as u64;
                            }
                        }
                    }
                }
                Op::Remove(key) => {
                    let removed = breakers.remove(&key).is_some();
                    let gone = twin.remove(&key);
                    prop_assert!(removed == gone.is_some() || gone.is_some_and(|gone| idle(now, &gone)));
                }
            }
        }
    }
}

#[test]
fn a_rate_over_keys_is_each_keys_own() {
    let (clock, _hand) = Clock::manual();
    let template = Breaker::builder().trip_when(failure_rate(0.5).min_calls(4)).clock(clock);
    let breakers: Breakers<u8> = Breakers::builder(template).build().expect("valid options");
    for _ in 0..3 {
        run(&breakers.get(&1), Some(Outcome::Failure));
        run(&breakers.get(&2), Some(Outcome::Success));
    }
    assert_eq!((breakers.get(&1).state(), breakers.get(&2).state()), (State::Closed, State::Closed));
    run(&breakers.get(&1), Some(Outcome::Failure));
    assert_eq!(breakers.get(&1).state(), State::Open);
    assert!(breakers.get(&2).admit().is_ok());
}
