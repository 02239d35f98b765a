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
    vec![
        Scenario { name: "metastable", run: metastable::short },
        Scenario { name: "metastable_long", run: metastable::long },
        Scenario { name: "stampede", run: stampede::run },
        Scenario { name: "shards", run: shards::run },
        Scenario { name: "hang", run: hang::time_outs },
        Scenario { name: "hang_abandoned", run: hang::abandoned },
        Scenario { name: "hang_after_crash", run: hang::after_crash },
        Scenario { name: "detection", run: detection::run },
    ]
}
