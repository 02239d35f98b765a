//! What the layer counts.

use swiftwater_core::{Counter, Desc, Unit, Visitor};

macro_rules! counters {
    ($($field:ident $desc:ident $help:literal;)*) => {
        #[derive(Debug, Default)]
        pub(super) struct Stats {
            $(pub(super) $field: Counter,)*
        }

        impl Stats {
            pub(super) fn observe(&self, visitor: &mut dyn Visitor) {
                $(visitor.counter(&$desc, self.$field.read());)*
            }
        }

        $(static $desc: Desc = Desc::new(stringify!($field), Unit::Count, $help);)*
    };
}

counters! {
    hits HITS "lookups that found a value, on disk or on its way there";
    misses MISSES "lookups that found none";
    damaged DAMAGED "lookups that found a record which was not as it was written";
    puts PUTS "values taken in";
    removes REMOVES "keys removed";
    lost LOST "values that were taken in and could not be written";
    rewritten REWRITTEN "values that were written again, since they had been read, when their segment had to make room";
    segments_evicted SEGMENTS_EVICTED "segments that had to make room";
}

pub(super) static ENTRIES: Desc = Desc::new("entries", Unit::Count, "keys that have a value");
pub(super) static USED: Desc =
    Desc::new("used", Unit::Bytes, "length of all files, once the newest is sealed");
pub(super) static CAPACITY: Desc = Desc::new("capacity", Unit::Bytes, "most that all files may take");
pub(super) static QUEUED: Desc = Desc::new("queued", Unit::Bytes, "what waits to be written");
