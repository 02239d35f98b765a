//! Caches that are broken on purpose, each in one rule, and a sound one that differs in nothing else.
//!
//! All of them know what a question is made of; a version cell for each row and one ticket say what is stale, as in ours.
//! Loads are joined. Where a race is a matter of a few instructions, everybody waits at that place.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

use fastrand::Rng;
use tokio::{sync::OnceCell, task::yield_now};

use crate::cache_oracle::{
    chaos::{Answer, Mark, Subject},
    source::{Promise, Question, Source},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Checked before it is stored, while an invalidation removes what is there, and never again.
    CheckedOnStore,
    /// The version of a row is the time in milliseconds: two things within one are a tie.
    CoarseClock,
    /// The ticket moves before the cell is written.
    EpochFirst,
    /// Who waits for a running load gets its value, whenever that began.
    Joined,
    /// A row that is written through is kept, although another write of it overlapped.
    Overlapping,
    /// What is found current gets the ticket that is read after it was looked at.
    RestampedLate,
    Sound,
    /// A load's stamp is taken at its end.
    StampedLate,
    /// Sound, and rows are written through: kept once the source has them, if no other write of the row overlapped.
    Through,
    /// Whatever a load gives is stored; an invalidation removes what is there.
    Unconditional,
    /// The last row of a question is read and not declared.
    Undeclared,
}

impl Rule {
    pub const ALL: [(Self, &str); 11] = [
        (Self::Sound, "none broken"),
        (Self::Through, "none broken, written through"),
        (Self::Unconditional, "stored unconditionally"),
        (Self::StampedLate, "stamp taken after the load"),
        (Self::Joined, "joined without validation"),
        (Self::EpochFirst, "epoch moved before the cell is written"),
        (Self::RestampedLate, "epoch read after the check"),
        (Self::CheckedOnStore, "checked on store only"),
        (Self::Undeclared, "undeclared dependency"),
        (Self::CoarseClock, "versions are milliseconds"),
        (Self::Overlapping, "overlapping writes kept"),
    ];

    pub fn is_sound(self) -> bool {
        matches!(self, Self::Sound | Self::Through)
    }

    /// Whether an invalidation removes entries, and readers check nothing.
    fn removes(self) -> bool {
        matches!(self, Self::CheckedOnStore | Self::Unconditional)
    }
}

pub struct Control {
    rule: Rule,
    source: Arc<Source>,
    start: Instant,
    ticket: AtomicU64,
    cells: Vec<AtomicU64>,
    map: Mutex<Map>,
}

#[derive(Default)]
struct Map {
    stored: HashMap<Question, Entry>,
    running: HashMap<Question, Arc<Load>>,
    writes: HashMap<usize, Writes>,
}

/// Of one row.
#[derive(Clone, Copy, Default)]
struct Writes {
    running: usize,
    begun: usize,
}

#[derive(Clone)]
struct Entry {
    versions: Arc<[u64]>,
    stamp: u64,
}

struct Load {
    stamp: u64,
    entry: OnceCell<Entry>,
}

impl Control {
    pub fn new(rule: Rule, source: &Arc<Source>) -> Self {
        Self {
            rule,
            source: source.clone(),
            start: Instant::now(),
            ticket: AtomicU64::new(0),
            cells: (0..source.rows()).map(|_| AtomicU64::new(0)).collect(),
            map: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        match self.rule {
            Rule::CoarseClock => self.start.elapsed().as_millis() as u64 + 1,
            _ => self.ticket.load(SeqCst),
        }
    }

    /// Whether nothing that the question is made of was invalidated since.
    fn current(&self, question: Question, stamp: u64) -> bool {
        let known = question.rows(self.source.rows()).count() - usize::from(self.rule == Rule::Undeclared);
        let mut rows = question.rows(self.source.rows()).take(known);
        rows.all(|row| self.cells[row].load(SeqCst) <= stamp)
    }

    async fn get(&self, question: Question, rng: &mut Rng) -> Arc<[u64]> {
        let asked = self.now();
        if let Some(entry) = self.find(question, asked).await {
            return entry;
        }
        loop {
            let load = {
                let mut map = self.map();
                let new = || Arc::new(Load { stamp: self.now(), entry: OnceCell::new() });
                map.running.entry(question).or_insert_with(new).clone()
            };
            let entry = load.entry.get_or_init(|| self.load(question, load.stamp, rng)).await;
            let mut good = self.current(question, entry.stamp);
            if self.rule == Rule::CheckedOnStore {
                yield_now().await;
            }
            good |= self.rule == Rule::Unconditional;
            let mut map = self.map();
            if map.running.get(&question).is_some_and(|running| Arc::ptr_eq(running, &load)) {
                map.running.remove(&question);
                if good {
                    map.stored.insert(question, entry.clone());
                }
            }
            // From before we asked, and something has happened since.
            let old = load.stamp < asked && !good;
            if !old || self.rule == Rule::Joined || self.rule == Rule::Unconditional {
                return entry.versions.clone();
            }
        }
    }

    async fn find(&self, question: Question, asked: u64) -> Option<Arc<[u64]>> {
        let entry = self.map().stored.get(&question).cloned()?;
        // The fast path; with times there is none, since many things have the same.
        if self.rule.removes() || (entry.stamp == asked && self.rule != Rule::CoarseClock) {
            return Some(entry.versions);
        }
        if !self.current(question, entry.stamp) {
            return None;
        }
        let mut seen = asked;
        if self.rule == Rule::RestampedLate {
            yield_now().await;
            seen = self.now();
        }
        if self.rule != Rule::CoarseClock
            && let Some(stored) = self.map().stored.get_mut(&question)
            && Arc::ptr_eq(&stored.versions, &entry.versions)
        {
            stored.stamp = stored.stamp.max(seen);
        }
        Some(entry.versions)
    }

    async fn load(&self, question: Question, stamp: u64, rng: &mut Rng) -> Entry {
        self.source.count_load();
        let mut versions = Vec::new();
        for row in question.rows(self.source.rows()) {
            versions.push(self.source.read(row, rng).await.expect("the weather is fair"));
        }
        let stamp = if self.rule == Rule::StampedLate { self.now() } else { stamp };
        Entry { versions: versions.into(), stamp }
    }

    async fn invalidate(&self, row: usize) {
        match self.rule {
            Rule::CoarseClock => _ = self.cells[row].fetch_max(self.now(), SeqCst),
            Rule::EpochFirst => {
                let version = self.ticket.fetch_add(1, SeqCst) + 1;
                yield_now().await;
                self.cells[row].fetch_max(version, SeqCst);
            }
            _ => loop {
                let before = self.ticket.load(SeqCst);
                self.cells[row].fetch_max(before + 1, SeqCst);
                if self.ticket.compare_exchange(before, before + 1, SeqCst, SeqCst).is_ok() {
                    break;
                }
            },
        }
        if self.rule.removes() {
            let rows = self.source.rows();
            self.map().stored.retain(|question, _| question.rows(rows).all(|of| of != row));
        }
    }

    async fn write_through(&self, row: usize, rng: &mut Rng) -> Option<Promise> {
        let version = self.source.draw(row);
        let before = {
            let mut map = self.map();
            let writes = map.writes.entry(row).or_default();
            writes.running += 1;
            writes.begun += 1;
            *writes
        };
        let stored = self.source.store(row, version, rng).await;
        self.invalidate(row).await;
        let mut map = self.map();
        let writes = map.writes.entry(row).or_default();
        writes.running -= 1;
        let overlapped = before.running > 1 || before.begun < writes.begun;
        stored.ok()?;
        if !overlapped || self.rule == Rule::Overlapping {
            let entry = Entry { versions: [version].into(), stamp: self.now() };
            map.stored.insert(Question { level: 0, key: row }, entry);
        }
        Some(Promise::strict(version))
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject for Control {
    async fn ask(&self, question: Question, rng: &mut Rng) -> Option<Answer> {
        Some(Answer::new(&self.get(question, rng).await, Mark::Fresh))
    }

    async fn change(&self, row: usize, rng: &mut Rng) -> Option<Promise> {
        if matches!(self.rule, Rule::Overlapping | Rule::Through) {
            return self.write_through(row, rng).await;
        }
        let version = self.source.write(row);
        self.invalidate(row).await;
        Some(Promise::strict(version))
    }
}
