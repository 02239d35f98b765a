//! The registry holds weakly, keeps names apart and runs nobody's code under its lock.

use std::{fmt::Display, sync::Arc};

use swiftwater_core::{Desc, NameTaken, Observe, Observer, Registry, Unit, Visitor};

static SIZE: Desc = Desc::new("size", Unit::Count, "how big it is");

struct Fixed(f64);

impl Observe for Fixed {
    fn observe(&self, visitor: &mut dyn Visitor) {
        visitor.gauge(&SIZE, self.0);
    }
}

/// The components that a pass shows, in order.
fn shown(registry: &Registry) -> Vec<String> {
    struct Names(Vec<String>);
    impl Visitor for Names {
        fn part(&mut self, kind: &'static str, name: &dyn Display, _: &dyn Observe) {
            self.0.push(format!("{kind} {name}"));
        }
    }
    let mut names = Names(Vec::new());
    registry.visit(&mut names);
    names.0
}

#[test]
fn components_are_shown_in_the_order_of_adding() -> Result<(), NameTaken> {
    let (registry, part) = (Registry::new(), Arc::new(Fixed(1.0)));
    registry.add("pool", "orders", &part)?;
    registry.add("cache", "shop", &part)?;
    registry.add("pool", "articles", &part)?;
    assert_eq!(shown(&registry), ["pool orders", "cache shop", "pool articles"]);
    Ok(())
}

#[test]
fn a_dropped_component_vanishes_and_was_not_kept_alive() -> Result<(), NameTaken> {
    let (registry, part) = (Registry::new(), Arc::new(Fixed(1.0)));
    registry.add("pool", "orders", &part)?;
    assert_eq!(Arc::strong_count(&part), 1);
    drop(part);
    assert_eq!(shown(&registry), Vec::<String>::new());
    assert_eq!(registry.prometheus(), "");
    Ok(())
}

#[test]
fn a_name_is_taken_once_per_kind() -> Result<(), NameTaken> {
    let (registry, part) = (Registry::new(), Arc::new(Fixed(1.0)));
    registry.add("pool", "orders", &part)?;
    registry.add("cache", "orders", &part)?;
    let taken = registry.add("pool", "orders", &Arc::new(Fixed(2.0))).unwrap_err();
    assert_eq!((taken.kind, taken.name.as_str()), ("pool", "orders"));
    assert_eq!(taken.to_string(), "a pool named \"orders\" is registered already");
    assert_eq!(shown(&registry).len(), 2);
    Ok(())
}

#[test]
fn the_name_of_a_dropped_component_is_free_again() -> Result<(), NameTaken> {
    let (registry, old) = (Registry::new(), Arc::new(Fixed(1.0)));
    registry.add("pool", "orders", &old)?;
    drop(old);
    let new = Arc::new(Fixed(2.0));
    registry.add("pool", "orders", &new)?;
    assert!(registry.prometheus().contains("{pool=\"orders\"} 2\n"));
    Ok(())
}

#[test]
fn what_was_dropped_is_forgotten_at_the_next_add() -> Result<(), NameTaken> {
    let (registry, part) = (Registry::new(), Arc::new(Fixed(1.0)));
    for number in 0..100 {
        registry.add("pool", format!("short-lived {number}"), &Arc::new(Fixed(1.0)))?;
    }
    registry.add("pool", "orders", &part)?;
    assert_eq!(format!("{registry:?}"), "[(\"pool\", \"orders\")]");
    Ok(())
}

#[test]
fn a_component_may_use_the_registry_while_it_is_shown() -> Result<(), NameTaken> {
    struct Nosy(Arc<Registry>);
    impl Observe for Nosy {
        fn observe(&self, visitor: &mut dyn Visitor) {
            let late = Arc::new(Fixed(1.0));
            // Hangs if the registry's lock is held.
            let _ = self.0.add("pool", "late", &late);
            visitor.gauge(&SIZE, 1.0);
        }
    }
    let registry = Arc::new(Registry::new());
    let nosy = Arc::new(Nosy(registry.clone()));
    registry.add("pool", "nosy", &nosy)?;
    assert!(registry.prometheus().contains("nosy"));
    Ok(())
}

#[test]
fn a_conversion_may_use_the_registry_while_it_is_added() -> Result<(), NameTaken> {
    struct Nested<'a>(&'a Registry, Arc<Fixed>);
    impl From<Nested<'_>> for Observer {
        fn from(Nested(registry, part): Nested<'_>) -> Self {
            let _ = registry.add("pool", "inner", &part);
            Self::from(&part)
        }
    }
    let (registry, part) = (Registry::new(), Arc::new(Fixed(1.0)));
    registry.add("pool", "outer", Nested(&registry, part.clone()))?;
    assert_eq!(shown(&registry), ["pool inner", "pool outer"]);
    Ok(())
}

#[test]
fn a_closure_can_be_watched() -> Result<(), NameTaken> {
    let registry = Registry::new();
    let part = Arc::new(|visitor: &mut dyn Visitor| visitor.gauge(&SIZE, 3.0));
    registry.add("door", "front", &part)?;
    assert!(registry.prometheus().contains("swiftwater_door_size{door=\"front\"} 3\n"));
    Ok(())
}

#[test]
fn an_observer_knows_whether_its_target_lives() {
    let part = Arc::new(Fixed(1.0));
    let observer = Observer::from(&part);
    assert!(observer.upgrade().is_some());
    assert_eq!(format!("{observer:?}"), "Observer { alive: true }");
    drop(part);
    assert!(observer.upgrade().is_none());
    assert_eq!(format!("{observer:?}"), "Observer { alive: false }");
}
