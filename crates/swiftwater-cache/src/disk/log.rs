//! The files as their one writer sees them: appends, seals, evicts, and what becomes of what cannot be written.
//!
//! Records are gathered in `buffer` and counted in `next`, `lines` and `staged` as if they were written; `flush` makes it
//! true, or `roll_back` takes it all back. So a number is only spent on what is in the file, and a gap between numbers
//! always means that something is gone.
//!
//! What could not be written must not leave the past in its place. Its hash is a *void*: forgotten in memory at once, and on
//! disk by a removal that goes before everything else once something can be written again.

use std::{collections::VecDeque, fs::File, mem, path::PathBuf, sync::Arc, sync::atomic::Ordering::Relaxed};

use super::{
    error::DiskError,
    files::{self, Files, Segment, read_at},
    format::{self, BLOCK, Body, EMPTY_RECORD, Effect, Line, Place, SEGMENTS, SegmentHead, Slot, UNIT},
    index::Spot,
    queue::{Done, Op},
    shared::Shared,
};

pub(super) struct Log {
    pub(super) shared: Arc<Shared>,
    pub(super) files: Files,
    pub(super) control: Control,
    /// The longest that a segment may get.
    pub(super) segment: u64,
    /// The most that all segments together may take.
    pub(super) budget: u64,
    /// Oldest first; numbers are consecutive, up to and including the active one.
    pub(super) sealed: VecDeque<Sealed>,
    /// The sum of their lengths.
    pub(super) sealed_len: u64,
    pub(super) active: Option<Active>,
    /// The number of the next segment.
    pub(super) number: u64,
    /// The sequence number of the next record.
    pub(super) next: u64,
    pub(super) buffer: Vec<u8>,
    pub(super) staged: Vec<Staged>,
    pub(super) voids: Vec<u64>,
    /// How many of the voids are staged.
    pub(super) voids_staged: usize,
    /// There were too many voids: everything on disk is one.
    pub(super) clear: bool,
}

pub(super) struct Sealed {
    pub(super) segment: Arc<Segment>,
    pub(super) first: u64,
    pub(super) len: u64,
    /// May have more in the system's memory than on the device.
    pub(super) dirty: bool,
}

pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    pub(super) first: u64,
    /// Where the written records end.
    pub(super) end: u64,
    /// What the footer will say, of staged records too.
    pub(super) lines: Vec<Line>,
    pub(super) tail: Tail,
    /// As in [`Sealed`].
    pub(super) dirty: bool,
}

/// What follows the records of the active segment in its file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// A footer: it was sealed when it was closed, and nothing was added since.
    Footer,
    /// Something that was cut short.
    Garbage,
    Nothing,
}

impl Active {
    fn head(&self) -> SegmentHead {
        SegmentHead { number: self.segment.number, first: self.first }
    }

    /// How long it is once it is sealed, with so many bytes of staged records.
    pub(super) fn sealed_len(&self, staged: usize) -> u64 {
        self.end + staged as u64 + footer_len(self.lines.len())
    }
}

/// The control file, locked for as long as it is open.
pub(super) struct Control {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) slot: Slot,
}

impl Control {
    pub(super) fn write(&mut self, files: &Files, mark: u64) -> Result<(), DiskError> {
        self.slot.mark = mark;
        self.slot.turn += 1;
        // In turns, so that one is always whole.
        let at = self.slot.turn % 2 * BLOCK as u64;
        files.write(&self.file, &self.path, &self.slot.write(), at)
    }
}

/// A record in the buffer.
pub(super) struct Staged {
    hash: u64,
    /// What the index has until it is written. Voids have none: nothing there waits for them.
    from: Option<Spot>,
    place: Option<Place>,
    done: Option<Done>,
}

impl Log {
    /// Writes them all, or says of each that it is lost. With their tickets, and who waits for the removals among them.
    pub(super) fn write<'a>(&mut self, mut ops: impl Iterator<Item = (u64, &'a Op)>, removals: Vec<Done>) {
        let mut removals = removals.into_iter();
        let mut outcome = self.stage_voids();
        let mut unstaged = None;
        while outcome.is_ok() {
            let Some((ticket, op)) = ops.next() else {
                outcome = self.flush();
                break;
            };
            outcome = self.make_room(record_len(op));
            match outcome {
                Ok(()) => self.stage(ticket, op, &mut removals),
                Err(_) => unstaged = Some((ticket, op)),
            }
        }
        if let Err(error) = outcome {
            self.lose(unstaged.into_iter().chain(ops), removals, &error);
        }
    }

    /// Leaves everything such that it is found again, whatever the system does next.
    pub(super) fn close(&mut self) -> Result<(), DiskError> {
        let flushed = self.stage_voids().and_then(|()| self.flush());
        if let Err(error) = flushed {
            self.roll_back();
            // The past is still in the files, and nothing else says that it is past.
            self.destroy();
            return Err(error);
        }
        self.seal()?;
        for sealed in self.sealed.iter_mut().filter(|sealed| sealed.dirty) {
            self.files.sync(&sealed.segment.file, &sealed.segment.path)?;
            sealed.dirty = false;
        }
        let directory = self.shared.path.clone();
        self.files.sync(&self.control.file, &self.control.path)?;
        // The names of the segments, before the file that vouches for them.
        self.files.sync_directory(&directory)?;
        let (new, clean) = (directory.join(files::CLEAN_NEW), directory.join(files::CLEAN));
        let file = self.files.create(&new)?;
        self.files.write(&file, &new, &format::write_clean(self.control.slot.id, self.next - 1), 0)?;
        self.files.sync(&file, &new)?;
        std::fs::rename(&new, &clean).map_err(DiskError::io("rename", &new))?;
        self.files.sync_directory(&directory)
    }

    fn id(&self) -> u64 {
        self.control.slot.id
    }

    /// What all segments take, or will when what is staged is written and the active one sealed.
    pub(super) fn used(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, |active| active.sealed_len(self.buffer.len()));
        self.sealed_len + active
    }

    /// Makes the active segment one that takes a record of this length, and the budget, too.
    fn make_room(&mut self, record: usize) -> Result<(), DiskError> {
        if self.buffer.len() >= BATCH {
            self.flush()?;
        }
        let added = (record + UNIT) as u64;
        // First, since what gets a second chance goes to the active segment.
        self.evict_for(added + empty_len())?;
        if self.fits(added) { Ok(()) } else { self.next_segment() }
    }

    fn fits(&self, added: u64) -> bool {
        let fits = |active: &Active| active.sealed_len(self.buffer.len()) + added <= self.segment;
        self.active.as_ref().is_some_and(fits)
    }

    fn next_segment(&mut self) -> Result<(), DiskError> {
        self.flush()?;
        self.seal()?;
        let path = files::segment_path(&self.shared.path, self.number);
        let file = self.files.create(&path)?;
        let head = SegmentHead { number: self.number, first: self.next };
        if let Err(error) = self.files.write(&file, &path, &head.write(self.id()), 0) {
            // Without a head it is as if it were not there; the next attempt takes the same name.
            let _ = self.files.remove(&path);
            return Err(error);
        }
        let segment = Arc::new(Segment { number: self.number, path, file });
        self.shared.segments().push_back(segment.clone());
        self.number += 1;
        let (first, end) = (self.next, BLOCK as u64);
        let (lines, tail) = (Vec::new(), Tail::Nothing);
        self.active = Some(Active { segment, first, end, lines, tail, dirty: true });
        Ok(())
    }

    /// Evicts the oldest segments until so much more fits, and what may be written again of the next one.
    fn evict_for(&mut self, added: u64) -> Result<(), DiskError> {
        let needed = added + self.segment / 2 + empty_len();
        while self.used() + needed > self.budget || self.sealed.len() >= MAX_SEGMENTS {
            let Some(oldest) = self.sealed.front() else { break };
            let (segment, len) = (oldest.segment.clone(), oldest.len);
            let head = SegmentHead { number: segment.number, first: oldest.first };
            let lines = read_footer(&segment.file, len, self.id(), head).ok().flatten();
            if let Some(lines) = &lines {
                self.rewrite(&segment, lines, len / 2)?;
            }
            // Before anything else is written, so that there never is a file too many; whoever has it open reads on.
            self.files.remove(&segment.path)?;
            self.sealed_len -= len;
            self.sealed.pop_front();
            self.shared.segments().pop_front();
            match lines {
                Some(lines) => {
                    for line in lines {
                        if let Effect::Put(place) = line.effect {
                            self.shared.index.settle(line.hash, Spot::Disk(place), None);
                        }
                    }
                }
                // A footer that is damaged: by looking at every entry.
                None => self.shared.index.retain(|place| place.after(head.number) > 0),
            }
            self.shared.stats.segments_evicted.add(1);
        }
        Ok(())
    }

    /// Gives what was read of the oldest segment a second chance: writes it again, up to so many bytes. Less than all of
    /// the segment, or evicting would gain nothing where everything is read.
    ///
    /// Only what the index still has there, so nothing that was superseded, be it by an operation in the queue or in the
    /// buffer: these cover it. What comes later is written after it.
    fn rewrite(&mut self, segment: &Segment, lines: &[Line], most: u64) -> Result<(), DiskError> {
        // What is in the buffer shares neither its failures nor its end.
        self.flush()?;
        if self.stage_again(segment, lines, most).and_then(|()| self.flush()).is_err() {
            // It goes without. But not while parts of it are in the file, where the index would not know of them.
            self.roll_back();
            self.trim()?;
        }
        Ok(())
    }

    fn stage_again(&mut self, segment: &Segment, lines: &[Line], mut most: u64) -> Result<(), DiskError> {
        let mut record = Vec::new();
        for line in lines {
            let Effect::Put(place) = line.effect else { continue };
            let added = (place.len() + UNIT) as u64;
            if added > most || !self.shared.index.is_wanted(line.hash, place) {
                continue;
            }
            record.resize(place.len(), 0);
            let read = read_at(&segment.file, &mut record, place.offset()).unwrap_or(0);
            let Some(body) = format::whole_put(&record[..read], self.id(), line.hash) else { continue };
            if self.used() + added + empty_len() > self.budget {
                break;
            }
            if self.buffer.len() >= BATCH {
                self.flush()?;
            }
            if !self.fits(added) {
                self.next_segment()?;
            }
            self.stage_record(line.hash, Some(Spot::Disk(place)), Body::Again(body), None);
            most -= added;
        }
        Ok(())
    }

    /// Takes the voids to write, which undoes what is on disk of them.
    fn stage_voids(&mut self) -> Result<(), DiskError> {
        if self.clear {
            self.make_room(EMPTY_RECORD)?;
            self.stage_record(0, None, Body::Clear, None);
        }
        while let Some(hash) = self.voids.get(self.voids_staged).copied() {
            self.make_room(EMPTY_RECORD)?;
            // Making room may have written the others, and let go of them.
            self.voids_staged += 1;
            self.stage_record(hash, None, Body::Remove, None);
        }
        Ok(())
    }

    fn stage(&mut self, ticket: u64, op: &Op, removals: &mut impl Iterator<Item = Done>) {
        let from = Some(Spot::Queue(ticket));
        match &op.item {
            Some(item) => self.stage_record(op.hash, from, Body::Put(&item.key, &item.value), None),
            None => self.stage_record(op.hash, from, Body::Remove, removals.next()),
        }
    }

    /// Room was made for it.
    fn stage_record(&mut self, hash: u64, from: Option<Spot>, body: Body<'_>, done: Option<Done>) {
        let id = self.id();
        let Some(active) = &mut self.active else { return };
        let (start, offset) = (self.buffer.len(), active.end + self.buffer.len() as u64);
        format::write_record(&mut self.buffer, id, self.next, hash, body);
        let place = Place::new(active.segment.number, offset, self.buffer.len() - start);
        let effect = match body {
            Body::Clear => Effect::Clear,
            Body::Again(_) | Body::Put(..) => Effect::Put(place),
            Body::Remove => Effect::Remove,
        };
        active.lines.push(Line { hash, effect });
        self.next += 1;
        let place = matches!(effect, Effect::Put(_)).then_some(place);
        self.staged.push(Staged { hash, from, place, done });
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.trim()?;
        let Some(active) = &mut self.active else { return Ok(()) };
        let Segment { file, path, .. } = &*active.segment;
        if let Err(error) = self.files.write(file, path, &self.buffer, active.end) {
            active.tail = Tail::Garbage;
            return Err(error);
        }
        active.end += self.buffer.len() as u64;
        active.dirty = true;
        self.buffer.clear();
        // A mark that lags behind only makes less of what is damaged later noticed.
        let _ = self.control.write(&self.files, self.next - 1);
        for staged in self.staged.drain(..) {
            if let Some(from) = staged.from {
                self.shared.index.settle(staged.hash, from, staged.place);
                self.shared.stats.rewritten.add(u64::from(matches!(from, Spot::Disk(_))));
            }
            if let Some(done) = staged.done {
                // Whoever asked may have left.
                let _ = done.send(Ok(()));
            }
        }
        // What is staged begins with the voids.
        self.voids.drain(..mem::take(&mut self.voids_staged));
        self.clear = false;
        if self.voids.is_empty() {
            self.shared.voids.store(false, Relaxed);
        }
        self.shared.used.store(self.used() + control_len(), Relaxed);
        Ok(())
    }

    /// Cuts off what follows the records.
    fn trim(&mut self) -> Result<(), DiskError> {
        if let Some(active) = self.active.as_mut().filter(|active| active.tail != Tail::Nothing) {
            self.files.cut(&active.segment.file, &active.segment.path, active.end)?;
            active.tail = Tail::Nothing;
        }
        Ok(())
    }

    /// Ends the active segment.
    fn seal(&mut self) -> Result<(), DiskError> {
        if self.active.as_ref().is_some_and(|active| active.tail == Tail::Garbage) {
            self.trim()?;
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        let Segment { file, path, .. } = &*active.segment;
        if active.tail == Tail::Nothing {
            active.dirty = true;
            let mut footer = Vec::new();
            format::write_footer(&mut footer, self.control.slot.id, active.head(), active.end, &active.lines);
            if let Err(error) = self.files.write(file, path, &footer, active.end) {
                active.tail = Tail::Garbage;
                return Err(error);
            }
        }
        let (segment, first, len) = (active.segment.clone(), active.first, active.sealed_len(0));
        let dirty = active.dirty;
        self.sealed_len += len;
        self.sealed.push_back(Sealed { segment, first, len, dirty });
        self.active = None;
        Ok(())
    }

    /// As if nothing had been staged since the last flush; what was.
    fn roll_back(&mut self) -> Vec<Staged> {
        let staged = mem::take(&mut self.staged);
        if let Some(active) = &mut self.active {
            active.lines.truncate(active.lines.len() - staged.len());
        }
        self.next -= staged.len() as u64;
        self.buffer.clear();
        self.voids_staged = 0;
        staged
    }

    fn lose<'a>(
        &mut self,
        rest: impl Iterator<Item = (u64, &'a Op)>,
        removals: impl Iterator<Item = Done>,
        error: &DiskError,
    ) {
        // Before the index changes: who finds nothing there must know that there may be something on disk.
        self.shared.voids.store(true, Relaxed);
        let mut waiting = Vec::new();
        for staged in self.roll_back() {
            if let Some(from) = staged.from {
                self.lose_one(staged.hash, from, staged.place.is_some());
            }
            waiting.extend(staged.done);
        }
        for (ticket, op) in rest {
            self.lose_one(op.hash, Spot::Queue(ticket), op.item.is_some());
        }
        waiting.extend(removals);
        self.voids.sort_unstable();
        self.voids.dedup();
        if self.voids.len() > MAX_VOIDS {
            self.voids = Vec::new();
            self.clear = true;
            self.shared.index.retain(|_| false);
        }
        // They are small: where a value does not fit any more, they may.
        let retried = self.stage_voids().and_then(|()| self.flush());
        if retried.is_err() {
            self.roll_back();
        }
        for done in waiting {
            let _ = done.send(retried.as_ref().map_or_else(|_| Err(error.again()), |()| Ok(())));
        }
    }

    fn lose_one(&mut self, hash: u64, from: Spot, put: bool) {
        self.shared.index.settle(hash, from, None);
        self.voids.push(hash);
        self.shared.stats.lost.add(u64::from(put));
    }

    /// Removes every segment: that needs no room.
    fn destroy(&mut self) {
        for segment in self.shared.segments().drain(..) {
            let _ = self.files.remove(&segment.path);
        }
        self.sealed.clear();
        self.sealed_len = 0;
        self.active = None;
    }
}

/// The lines of a segment's footer, if it has a whole one. Its own head was read before.
pub(super) fn read_footer(
    file: &File,
    len: u64,
    id: u64,
    head: SegmentHead,
) -> std::io::Result<Option<Vec<Line>>> {
    let mut tail = [0; BLOCK];
    let Some(at) = len.checked_sub(BLOCK as u64) else { return Ok(None) };
    if read_at(file, &mut tail, at)? < BLOCK {
        return Ok(None);
    }
    let Some((at, bytes)) = format::footer_at(&tail, id, head, len) else { return Ok(None) };
    let mut lines = vec![0; bytes];
    if read_at(file, &mut lines, at)? < bytes {
        return Ok(None);
    }
    Ok(format::read_lines(&lines, &tail, id, head.number))
}

fn record_len(op: &Op) -> usize {
    op.item.as_ref().map_or(EMPTY_RECORD, |item| {
        // Whoever put it has looked.
        format::record_len(&item.key, item.value.len()).unwrap_or(usize::MAX / 2)
    })
}

pub(super) fn footer_len(lines: usize) -> u64 {
    (lines * UNIT + BLOCK) as u64
}

/// A segment without records, once it is sealed.
fn empty_len() -> u64 {
    BLOCK as u64 + footer_len(0)
}

/// What a segment has besides the longest record that fits.
pub(super) fn overhead() -> u64 {
    BLOCK as u64 + footer_len(1)
}

/// The length of the control file.
pub(super) fn control_len() -> u64 {
    2 * BLOCK as u64
}

/// The two files that say all was closed are never there together, but one may follow the other.
pub(super) fn clean_len() -> u64 {
    BLOCK as u64
}

/// Written at once: large enough that the system call does not matter.
pub(super) const BATCH: usize = 1 << 20;
/// Beyond that, what cannot be written is forgotten wholesale.
const MAX_VOIDS: usize = if cfg!(test) { 16 } else { 1 << 16 };
/// So many are told apart, with the active one and two that may be sealed before the next is evicted.
pub(super) const MAX_SEGMENTS: usize = SEGMENTS - 4;
