//! What the layer counts.

use swiftwater_core::{Counter, Desc, Unit, Visitor};

macro_rules! counters {
    ($($field:ident $desc:ident $unit:ident $help:literal;)*) => {
        #[derive(Debug, Default)]
        pub(super) struct Stats {
            $(pub(super) $field: Counter,)*
        }

        impl Stats {
            pub(super) fn observe(&self, visitor: &mut dyn Visitor) {
                $(visitor.counter(&$desc, self.$field.read());)*
            }
        }

        $(static $desc: Desc = Desc::new(stringify!($field), Unit::$unit, $help);)*
    };
}

counters! {
    hits HITS Count "lookups that found a value, on disk or on its way there";
    misses MISSES Count "lookups that found none";
    damaged DAMAGED Count "lookups that found a record which was not as it was written";
    puts PUTS Count "values taken in";
    removes REMOVES Count "keys removed";
    lost LOST Count "values that were taken in and could not be written";
    rewritten REWRITTEN Count "values that were written again, since they had been read, when their segment had to make room";
    segments_evicted SEGMENTS_EVICTED Count "segments that had to make room";
    bytes_in BYTES_IN Bytes "length of the values taken in";
    bytes_out BYTES_OUT Bytes "length of the values found";
}

pub(super) static ENTRIES: Desc = Desc::new("entries", Unit::Count, "keys that have a value");
pub(super) static USED: Desc =
    Desc::new("used", Unit::Bytes, "length of all files, once the newest is sealed");
pub(super) static CAPACITY: Desc = Desc::new("capacity", Unit::Bytes, "most that all files may take");
pub(super) static QUEUED: Desc = Desc::new("queued", Unit::Bytes, "what waits to be written");
