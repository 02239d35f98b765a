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
/// A component that was dropped disappears from the output by itself.
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
        let name = name.into();
        let mut entries = self.lock();
        entries.retain(|entry| entry.part.upgrade().is_some());
        if entries
            .iter()
            .any(|entry| entry.kind == kind && entry.name == name)
        {
            return Err(NameTaken { kind, name });
        }
        entries.push(Entry {
            kind,
            name,
            part: part.into(),
        });
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
    /// A counter `hits` in the region `prices` of the cache `shop` becomes
    /// `swiftwater_cache_region_hits_total{cache="shop",region="prices"}`. States are 1 with the state as a label.
    /// Histograms of [`Unit::Seconds`] are rendered in seconds, with bucket ends at powers of two from 1 us to 69 s.
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
        f.debug_list()
            .entries(self.lock().iter().map(|entry| (entry.kind, &entry.name)))
            .finish()
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
    /// `swiftwater_cache_region`
    prefix: Vec<&'static str>,
    /// `cache="shop",region="prices"`
    labels: Vec<String>,
}

struct Metric {
    kind: &'static str,
    help: &'static str,
    samples: String,
}

impl Page {
    fn sample(
        &mut self,
        desc: &'static Desc,
        kind: &'static str,
        write: impl FnOnce(&str, &str, &mut String),
    ) {
        let suffix = match (kind, desc.unit) {
            ("counter", Unit::Bytes) => "_bytes_total",
            ("counter", Unit::Seconds) => "_seconds_total",
            ("counter", _) => "_total",
            (_, Unit::Bytes) => "_bytes",
            (_, Unit::Ratio) => "_ratio",
            (_, Unit::Seconds) => "_seconds",
            (_, Unit::Count) => "",
        };
        let mut name = String::from("swiftwater");
        for part in self.prefix.iter().chain([&desc.name]) {
            name.push('_');
            name.push_str(part);
        }
        name.push_str(suffix);
        let labels = self.labels.join(",");
        let metric = self.metrics.entry(name.clone()).or_insert_with(|| Metric {
            kind,
            help: desc.help,
            samples: String::new(),
        });
        write(&name, &labels, &mut metric.samples);
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
        self.sample(desc, "counter", |name, labels, out| {
            line(out, name, labels, value)
        });
    }

    fn gauge(&mut self, desc: &'static Desc, value: f64) {
        self.sample(desc, "gauge", |name, labels, out| line(out, name, labels, value));
    }

    fn histogram(&mut self, desc: &'static Desc, value: &dyn Distribution) {
        let (ends, scale) = match desc.unit {
            Unit::Seconds => (10..=36, 1e-9),
            Unit::Bytes | Unit::Count | Unit::Ratio => (0..=30, 1.0),
        };
        self.sample(desc, "histogram", |name, labels, out| {
            let mut buckets = Vec::new();
            value.buckets(&mut |range, count| buckets.push((*range.end(), count)));
            let total: u64 = buckets.iter().map(|(_, count)| count).sum();
            let comma = if labels.is_empty() { "" } else { "," };
            for power in ends {
                let end = 1u64 << power;
                let below: u64 = buckets
                    .iter()
                    .filter(|(high, _)| *high <= end)
                    .map(|(_, count)| count)
                    .sum();
                let le = end as f64 * scale;
                line(
                    out,
                    &format!("{name}_bucket"),
                    &format!("{labels}{comma}le=\"{le}\""),
                    below,
                );
            }
            line(
                out,
                &format!("{name}_bucket"),
                &format!("{labels}{comma}le=\"+Inf\""),
                total,
            );
            line(out, &format!("{name}_sum"), labels, value.sum() as f64 * scale);
            line(out, &format!("{name}_count"), labels, total);
        });
    }

    fn state(&mut self, desc: &'static Desc, value: &dyn Display) {
        let state = label(desc.name, value);
        self.sample(desc, "gauge", |name, labels, out| {
            let comma = if labels.is_empty() { "" } else { "," };
            line(out, name, &format!("{labels}{comma}{state}"), 1);
        });
    }

    fn part(&mut self, kind: &'static str, name: &dyn Display, inner: &dyn Observe) {
        self.prefix.push(kind);
        self.labels.push(label(kind, name));
        inner.observe(self);
        self.prefix.pop();
        self.labels.pop();
    }
}

fn label(key: &str, value: &dyn Display) -> String {
    let value = value
        .to_string()
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("{key}=\"{value}\"")
}

fn line(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{labels}}} {value}")
    };
}
