//! What a region counts.

use swiftwater_core::{Counter, Desc, Unit, Visitor};

macro_rules! counters {
    ($($field:ident $desc:ident $help:literal;)*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Stats {
            $(pub(crate) $field: Counter,)*
        }

        impl Stats {
            pub(crate) fn observe(&self, visitor: &mut dyn Visitor) {
                $(visitor.counter(&$desc, self.$field.read());)*
            }
        }

        $(static $desc: Desc = Desc::new(stringify!($field), Unit::Count, $help);)*
    };
}

counters! {
    hits HITS "lookups that found a value which may be served";
    misses_absent MISSES_ABSENT "lookups that found nothing";
    misses_expired MISSES_EXPIRED "lookups that found a value beyond its lifetime";
    misses_stale MISSES_STALE "lookups that found a value with an invalidated dependency";
    misses_off MISSES_OFF "lookups while the region was switched off";
    stale_served STALE_SERVED "callers who got a value that had expired or was invalidated softly, as the region allows";
    loads LOADS "loaders run";
    refreshes REFRESHES "of these, in the background";
    load_failures LOAD_FAILURES "loaders that gave an error or panicked";
    joins JOINS "callers who waited for a load that was running already";
    unstored UNSTORED "loaded values that were not stored because something moved meanwhile, or for want of a lifetime";
    inserts INSERTS "values stored by hand";
    stores STORES "values taken for the source";
    store_failures STORE_FAILURES "calls of the sink that gave an error or panicked";
    evictions EVICTIONS "values that had to make room for another";
    swept SWEPT "values that a sweep let go of";
    too_heavy TOO_HEAVY "values that were heavier than a shard and not stored";
}

pub(crate) static MODE: Desc = Desc::new("mode", Unit::Count, "on or off");
pub(crate) static MAX_LOADS: Desc = Desc::new("max_loads", Unit::Count, "how many loads may run at a time");
pub(crate) static MAX_PENDING: Desc = Desc::new("max_pending", Unit::Count, "how many writes may be pending");
pub(crate) static PENDING: Desc =
    Desc::new("pending", Unit::Count, "writes that have not arrived at the source yet");
pub(crate) static ENTRIES: Desc = Desc::new("entries", Unit::Count, "values in memory, served or not");
pub(crate) static WEIGHT: Desc = Desc::new("weight", Unit::Count, "weight of the values in memory");
pub(crate) static CAPACITY: Desc =
    Desc::new("capacity", Unit::Count, "highest weight of the values in memory");
