//! Circuit breakers: what they do to a service and its clients, in virtual time.
//!
//! An entrant is a [`Policy`](policy::Policy) and how to make one. Ours is the real crate, on a manual clock; the rivals are
//! ports of their rules, since none of them takes its time from outside. Each scenario is one file, whose head says what
//! the model is. Nothing in here depends on real time, on threads or on addresses: a seed decides everything.

mod detection;
mod events;
mod fleet;
mod hang;
mod metastable;
mod ours;
mod policy;
mod rivals;
mod server;
mod shards;
mod stampede;

use crate::report::Scenario;

pub fn scenarios() -> Vec<Scenario> {
    let of = |name, form, run| Scenario { name, form, run };
    vec![
        of("metastable", Some("short trigger"), metastable::short),
        of("metastable", Some("long trigger"), metastable::long),
        of("stampede", Some("one attempt"), stampede::one_attempt),
        of("stampede", Some("three attempts"), stampede::three_attempts),
        of("shards", None, shards::run),
        of("hang", Some("calls time out"), hang::time_outs),
        of("hang", Some("callers leave"), hang::abandoned),
        of("hang", Some("after a crash"), hang::after_crash),
        of("detection", None, detection::run),
    ]
}
