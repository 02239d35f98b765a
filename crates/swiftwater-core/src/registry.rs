//! Where a service gathers what its components show.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::{self, Display, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Desc, Distribution, Observe, Unit, Visitor, observe::Observer};

/// Gathers [`Observe`]rs, weakly, and renders them as Prometheus text.
///
/// A component that was dropped disappears from the output by itself, and its name is free again.
///
/// No lock is held while components are shown, so they and visitors may call the registry. A pass allocates a list of
/// what is alive; it is meant for a scraper's pace, not for a request's.
///
/// ```
/// use std::sync::Arc;
/// use swiftwater_core::{Counter, Desc, Observe, Registry, Unit, Visitor};
///
/// struct Door(Counter);
/// impl Observe for Door {
///     fn observe(&self, visitor: &mut dyn Visitor) {
///         static OPENED: Desc = Desc::new("opened", Unit::Count, "how often it was opened");
///         visitor.counter(&OPENED, self.0.read());
///     }
/// }
///
/// let (registry, door) = (Registry::new(), Arc::new(Door(Counter::new())));
/// registry.add("door", "front", &door)?;
/// door.0.add(1);
/// assert!(registry.prometheus().ends_with("swiftwater_door_opened_total{door=\"front\"} 1\n"));
/// drop(door);
/// assert_eq!(registry.prometheus(), "");
/// # Ok::<(), swiftwater_core::NameTaken>(())
/// ```
#[derive(Default)]
pub struct Registry {
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    kind: &'static str,
    name: String,
    part: Observer,
}

impl Registry {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a component under its kind (`"pool"`) and its name (`"orders"`): `&Arc<impl Observe>` or a handle.
    ///
    /// # Errors
    ///
    /// [`NameTaken`] if a component that is still alive has that kind and name: two series of one name would make a
    /// scraper refuse the whole page.
    pub fn add(
        &self,
        kind: &'static str,
        name: impl Into<String>,
        part: impl Into<Observer>,
    ) -> Result<(), NameTaken> {
        // Before the lock, since conversions are the caller's code.
        let (name, part) = (name.into(), part.into());
        let mut entries = self.lock();
        entries.retain(|entry| entry.part.is_alive());
        if entries.iter().any(|entry| entry.kind == kind && entry.name == name) {
            return Err(NameTaken { kind, name });
        }
        entries.push(Entry { kind, name, part });
        Ok(())
    }

    /// Shows every living component to a visitor, each as a [`part`](Visitor::part), in the order of adding.
    pub fn visit(&self, visitor: &mut dyn Visitor) {
        // Upgraded first, so that no lock is held while components and visitors run.
        let living: Vec<_> = self
            .lock()
            .iter()
            .filter_map(|entry| Some((entry.kind, entry.name.clone(), entry.part.upgrade()?)))
            .collect();
        for (kind, name, part) in &living {
            visitor.part(kind, name, &**part);
        }
    }

    /// Everything as Prometheus text (exposition format 0.0.4).
    ///
    /// - A counter `hits` in the region `prices` of the cache `shop` becomes
    ///   `swiftwater_cache_region_hits_total{cache="shop",region="prices"}`, with the unit before `_total` where there is
    ///   one; metrics come in the order of their names.
    /// - A state is a gauge of 1 with the state as a label. It names the present state only.
    /// - Histograms have bucket ends at powers of two, inclusive: from 1 us to 69 s where the unit is
    ///   [`Unit::Seconds`], else from 1 to 2^30.
    /// - Characters that the format does not allow in names become `_`. Where a metric's or a label's name is taken in
    ///   another meaning, the later one gets its kind, or a `_`, appended.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut page = Page::default();
        self.visit(&mut page);
        page.finish()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Nothing runs under the lock that could leave the list half-changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().iter().map(|entry| (entry.kind, &entry.name))).finish()
    }
}

/// A living component has that kind and name already.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameTaken {
    /// The kind that was asked for.
    pub kind: &'static str,
    /// The name that was asked for.
    pub name: String,
}

impl Display for NameTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} named {:?} is registered already", self.kind, self.name)
    }
}

impl Error for NameTaken {}

/// A page in the making: samples grouped by metric, since the format wants each metric's lines together.
#[derive(Default)]
struct Page {
    metrics: BTreeMap<String, Metric>,
    /// The kinds and names of the parts that lead to the present one: `("cache", "shop")`, `("region", "prices")`.
    path: Vec<(&'static str, String)>,
}

struct Metric {
    kind: &'static str,
    help: &'static str,
    samples: String,
}

impl Page {
    /// Finds or makes the metric, and hands its name, the labels of the present part and its samples to `write`.
    fn sample(
        &mut self,
        desc: &'static Desc,
        kind: &'static str,
        write: impl FnOnce(&str, &Labels, &mut String),
    ) {
        let mut name = self.name_of(desc, kind);
        while self.metrics.get(&name).is_some_and(|metric| metric.kind != kind) {
            name.push('_');
            name.push_str(kind);
        }
        let mut labels = Labels::default();
        for (kind, name) in &self.path {
            labels.push(kind, name);
        }
        let metric = self.metrics.entry(name.clone()).or_insert_with(|| Metric {
            kind,
            help: desc.help,
            samples: String::new(),
        });
        write(&name, &labels, &mut metric.samples);
    }

    fn name_of(&self, desc: &Desc, kind: &str) -> String {
        let mut name = String::from("swiftwater");
        for part in self.path.iter().map(|(kind, _)| *kind).chain([desc.name]) {
            name.push('_');
            name.extend(part.chars().map(|c| if is_name(c) { c } else { '_' }));
        }
        name.push_str(match desc.unit {
            Unit::Bytes => "_bytes",
            Unit::Count => "",
            Unit::Ratio => "_ratio",
            Unit::Seconds => "_seconds",
        });
        if kind == "counter" {
            name.push_str("_total");
        }
        name
    }

    fn finish(self) -> String {
        let mut text = String::new();
        for (name, Metric { kind, help, samples }) in self.metrics {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        text
    }
}

impl Visitor for Page {
    fn counter(&mut self, desc: &'static Desc, value: u64) {
        self.sample(desc, "counter", |name, labels, out| match desc.unit {
            Unit::Seconds => line(out, name, labels, Float(value as f64 / NANOS)),
            Unit::Bytes | Unit::Count | Unit::Ratio => line(out, name, labels, value),
        });
    }

    fn gauge(&mut self, desc: &'static Desc, value: f64) {
        self.sample(desc, "gauge", |name, labels, out| {
            line(out, name, labels, Float(value));
        });
    }

    fn histogram(&mut self, desc: &'static Desc, value: &dyn Distribution) {
        let (powers, scale) = match desc.unit {
            Unit::Seconds => (10..=36, NANOS),
            Unit::Bytes | Unit::Count | Unit::Ratio => (0..=30, 1.0),
        };
        // Counted first, in one pass: a bucket belongs to the first end that is not below any of its values.
        let mut counts: Vec<(u64, u64)> = powers.map(|power| (1 << power, 0)).collect();
        let mut above = 0u64;
        value.buckets(&mut |range, count| {
            let first = counts.partition_point(|(end, _)| end < range.end());
            match counts.get_mut(first) {
                Some((_, total)) => *total += count,
                None => above += count,
            }
        });
        self.sample(desc, "histogram", |name, labels, out| {
            let bucket = format!("{name}_bucket");
            let mut up_to_here = 0;
            for (end, count) in counts {
                up_to_here += count;
                line(out, &bucket, &labels.up_to(&Float(end as f64 / scale)), up_to_here);
            }
            let total = up_to_here + above;
            line(out, &bucket, &labels.up_to(&"+Inf"), total);
            let sum = Float(value.sum() as f64 / scale);
            line(out, &format!("{name}_sum"), labels, sum);
            line(out, &format!("{name}_count"), labels, total);
        });
    }

    fn state(&mut self, desc: &'static Desc, value: &dyn Display) {
        self.sample(desc, "gauge", |name, labels, out| {
            line(out, name, &labels.with(desc.name, value), 1);
        });
    }

    fn part(&mut self, kind: &'static str, name: &dyn Display, inner: &dyn Observe) {
        self.path.push((kind, name.to_string()));
        inner.observe(self);
        self.path.pop();
    }
}

/// `cache="shop",region="prices"`
#[derive(Clone, Default)]
struct Labels {
    keys: Vec<String>,
    text: String,
}

impl Labels {
    fn with(&self, key: &str, value: &dyn Display) -> Self {
        let mut more = self.clone();
        more.push(key, value);
        more
    }

    fn up_to(&self, end: &dyn Display) -> Self {
        let mut more = self.clone();
        more.put("le".into(), end);
        more
    }

    fn push(&mut self, key: &str, value: &dyn Display) {
        let mut key: String = key.chars().map(|c| if is_name(c) { c } else { '_' }).collect();
        // Names that begin with two underscores belong to the scraper, and `le` to histograms.
        let reserved = key.starts_with("__") || key == "le";
        if reserved || !key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            key.insert_str(0, "part_");
        }
        while self.keys.contains(&key) {
            key.push('_');
        }
        self.put(key, value);
    }

    /// For keys that are known to be right.
    fn put(&mut self, key: String, value: &dyn Display) {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(self.text, "{key}=\"{value}\"");
        self.keys.push(key);
    }
}

/// A number as the format spells it.
struct Float(f64);

impl Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == f64::INFINITY {
            f.write_str("+Inf")
        } else if self.0 == f64::NEG_INFINITY {
            f.write_str("-Inf")
        } else {
            write!(f, "{}", self.0) // NaN is spelled the same
        }
    }
}

fn line(out: &mut String, name: &str, Labels { text, .. }: &Labels, value: impl Display) {
    let _ = if text.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{text}}} {value}")
    };
}

/// Not the colon, which the format keeps for recording rules.
fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

const NANOS: f64 = 1e9;
