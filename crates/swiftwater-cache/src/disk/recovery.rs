//! Opening a directory: whose it is, and what of it may be believed.
//!
//! A segment that is damaged where it matters, or of another number than its name, is treated as if it were not there. The
//! consecutive numbers show what is not there, and the laws in [`super`] say what that costs.

use std::{
    collections::{VecDeque, hash_map::RandomState},
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, Hasher},
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    builder::Options,
    error::DiskError,
    files::{self, Files, Segment, read_at, segment_number, segment_path},
    format::{self, BLOCK, Effect, Head, Line, MAX_RECORD, SegmentHead, Slot, UNIT},
    index::Index,
    log::{
        Active, Control, Log, MAX_SEGMENTS, Sealed, Tail, clean_len, control_len, footer_len, read_footer,
    },
    shared::Shared,
};

/// Opens the directory; nobody else has it from here on.
pub(super) fn open(options: &Options, files: Files) -> Result<Log, DiskError> {
    let directory = &options.path;
    create(directory, &files)?;
    let (file, path) = lock_control(directory)?;
    let known = read_control(&file, &path)?;
    let boot = boot();
    let found = Found::list(directory)?;
    let budget = options.capacity - control_len() - clean_len();
    let budget = match found.foreign {
        // What is not ours is left alone, but it is there.
        Some((ref path, foreign)) => match budget.checked_sub(foreign) {
            Some(budget) if budget >= 3 * options.segment => budget,
            _ => return Err(DiskError::Foreign { path: path.clone() }),
        },
        None => budget,
    };

    let clean_path = directory.join(files::CLEAN);
    let clean = known.and_then(|slot| format::read_clean(&found.clean, slot.id));
    // Who closed it has made it safe; if nobody did, only this boot still has all that was written.
    let believed = known.filter(|slot| clean.is_some() || (slot.boot == boot && boot != 0));
    let mut recovered = Recovered::default();
    if let Some(slot) = believed {
        for number in &found.numbers {
            recovered.add(&segment_path(directory, *number), *number, slot.id)?;
        }
        // Something is missing at the end; or, once it was closed, there is more than there can be.
        let wrong_end = |reached| clean.map_or(reached < slot.mark, |mark| reached != mark);
        if wrong_end(recovered.reached(clean.unwrap_or(slot.mark))) {
            recovered.forget_all();
        }
    }
    if recovered.parts.last().map(|last| last.head.number) < found.foreign_number {
        // The next segments would have to jump over it, and their numbers are consecutive.
        recovered.forget_all();
    }
    recovered.shrink_to(budget);
    // Oldest first, so that if this is cut short, what is left is still a log without a gap.
    let kept: Vec<u64> = recovered.parts.iter().map(|part| part.segment.number).collect();
    for number in found.numbers.iter().filter(|number| !kept.contains(number)) {
        files.remove(&segment_path(directory, *number))?;
    }

    let id = believed.filter(|_| !kept.is_empty()).map_or_else(random, |slot| slot.id);
    let next = recovered.next.unwrap_or(1);
    let slot = Slot { id, boot, mark: next - 1, turn: 0 };
    let mut control = Control { file, path, slot };
    // Both slots: none may be left of another life. Before the clean file goes, which nothing could replace.
    control.write(&files, next - 1)?;
    control.write(&files, next - 1)?;
    if found.has_clean {
        files.remove(&clean_path)?;
    }
    // From here on it cannot come back, whatever is written and whatever happens then.
    files.sync_directory(directory)?;

    let last = kept.last().copied().max(found.foreign_number).unwrap_or(0);
    Ok(recovered.into_log(options, files, control, budget, last + 1, clean.is_some()))
}

/// What stands in the directory.
#[derive(Default)]
struct Found {
    /// Of our segments, ascending.
    numbers: Vec<u64>,
    /// One that is named like a segment and is not ours, and the length of them all.
    foreign: Option<(PathBuf, u64)>,
    /// The highest number of those.
    foreign_number: Option<u64>,
    clean: Vec<u8>,
    has_clean: bool,
}

impl Found {
    fn list(directory: &Path) -> Result<Self, DiskError> {
        let mut found = Self::default();
        let list = || DiskError::io("list", directory);
        for entry in fs::read_dir(directory).map_err(list())? {
            let entry = entry.map_err(list())?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let number = segment_number(name);
            let clean = name == files::CLEAN || name == files::CLEAN_NEW;
            if number.is_none() && !clean {
                continue;
            }
            let path = entry.path();
            let is_file = entry.file_type().map_err(DiskError::io("look at", &path))?.is_file();
            let start = if is_file { read_start(&path)? } else { Vec::new() };
            let ours = is_file && format::is_ours(&start);
            match number {
                Some(number) if ours => found.numbers.push(number),
                Some(_) => {
                    let len = entry.metadata().map_err(DiskError::io("look at", &path))?.len();
                    let others = found.foreign.map_or(0, |(_, len)| len);
                    found.foreign_number = found.foreign_number.max(number);
                    found.foreign = Some((path, others.saturating_add(len)));
                }
                // We need the name.
                None if !ours => return Err(DiskError::Foreign { path }),
                // It never became what it was to be; the next close makes it anew.
                None if name == files::CLEAN_NEW => {
                    fs::remove_file(&path).map_err(DiskError::io("remove", &path))?;
                }
                None => {
                    found.clean = start;
                    found.has_clean = true;
                }
            }
        }
        found.numbers.sort_unstable();
        Ok(found)
    }
}

/// The part of the log that is believed so far.
struct Recovered {
    parts: Vec<Part>,
    index: Index,
    /// The sequence number that has to come next.
    next: Option<u64>,
}

impl Default for Recovered {
    fn default() -> Self {
        Self { parts: Vec::new(), index: Index::new(), next: None }
    }
}

struct Part {
    segment: Arc<Segment>,
    head: SegmentHead,
    /// Where its records end.
    end: u64,
    lines: Lines,
    len: u64,
    sealed: bool,
}

/// Those of the last segment are needed to go on with it.
enum Lines {
    Count(usize),
    Kept(Vec<Line>),
}

impl Part {
    /// Its length once it is sealed.
    fn sealed_len(&self) -> u64 {
        let lines = match &self.lines {
            Lines::Count(count) => *count,
            Lines::Kept(lines) => lines.len(),
        };
        if self.sealed { self.len } else { self.end + footer_len(lines) }
    }
}

impl Recovered {
    fn add(&mut self, path: &Path, number: u64, id: u64) -> Result<(), DiskError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(path).map_err(DiskError::io("open", path))?;
        let failed = || DiskError::io("read", path);
        let len = file.metadata().map_err(failed())?.len();
        let mut start = [0; BLOCK];
        let read = read_at(&file, &mut start, 0).map_err(failed())?;
        let Some(head) = SegmentHead::read(&start[..read], id).filter(|head| head.number == number) else {
            return Ok(());
        };
        let joins = self.parts.last().is_none_or(|last| last.head.number + 1 == number)
            && self.next.is_none_or(|next| next == head.first);
        if !joins {
            // What is missing may have superseded any of it.
            self.forget_all();
        }
        let footer = read_footer(&file, len, id, head).map_err(failed())?;
        let sealed = footer.is_some();
        let (lines, end) = match footer {
            Some(lines) => {
                let end = len - footer_len(lines.len());
                (lines, end)
            }
            None => scan(&file, id, head).map_err(failed())?,
        };
        for line in &lines {
            match line.effect {
                Effect::Clear => self.index.clear(),
                Effect::Put(place) => self.index.restore(line.hash, Some(place)),
                Effect::Remove => self.index.restore(line.hash, None),
            }
        }
        self.next = Some(head.first + lines.len() as u64);
        if let Some(last) = self.parts.last_mut()
            && let Lines::Kept(lines) = &last.lines
        {
            last.lines = Lines::Count(lines.len());
        }
        let segment = Arc::new(Segment { number, path: path.to_owned(), file });
        self.parts.push(Part { segment, head, end, lines: Lines::Kept(lines), len, sealed });
        Ok(())
    }

    /// The number of the last record; if there is no segment at all, that there should be.
    fn reached(&self, mark: u64) -> u64 {
        // An empty directory has nothing that could be wrong.
        self.next.map_or(mark, |next| next - 1)
    }

    fn forget_all(&mut self) {
        *self = Self::default();
    }

    /// The capacity may be smaller than it was.
    fn shrink_to(&mut self, budget: u64) {
        let mut used: u64 = self.parts.iter().map(Part::sealed_len).sum();
        let mut gone = 0;
        while used > budget || self.parts.len() - gone > MAX_SEGMENTS {
            let Some(part) = self.parts.get(gone) else { break };
            used -= part.sealed_len();
            gone += 1;
        }
        if gone == self.parts.len() {
            // Without a segment the numbers start again, and so does everything.
            return self.forget_all();
        }
        self.parts.drain(..gone);
        if let Some(oldest) = self.parts.first().filter(|_| gone > 0).map(|part| part.head.number) {
            let kept = self.parts.len();
            self.index.retain(|place| place.after(oldest) < kept);
        }
    }

    fn into_log(
        mut self,
        options: &Options,
        files: Files,
        control: Control,
        budget: u64,
        number: u64,
        clean: bool,
    ) -> Log {
        let next = control.slot.mark + 1;
        let segments: VecDeque<_> = self.parts.iter().map(|part| part.segment.clone()).collect();
        // It goes on where it ended, so that opening often does not make many small files.
        let active = self.parts.pop().map(|part| Active {
            first: part.head.first,
            end: part.end,
            dirty: !clean,
            tail: match part.sealed {
                true => Tail::Footer,
                false if part.len > part.end => Tail::Garbage,
                false => Tail::Nothing,
            },
            lines: match part.lines {
                Lines::Count(_) => Vec::new(),
                Lines::Kept(lines) => lines,
            },
            segment: part.segment,
        });
        let sealed: VecDeque<_> = (self.parts.into_iter())
            .map(|part| Sealed {
                first: part.head.first,
                len: part.sealed_len(),
                // Whoever wrote it may have been ended before it was safe.
                dirty: !clean,
                segment: part.segment,
            })
            .collect();
        let Options { path, capacity, segment, queue, limit } = options.clone();
        let shared = Shared::new(path, control.slot.id, capacity, limit, queue, self.index, segments);
        let log = Log {
            shared: Arc::new(shared),
            files,
            control,
            segment,
            budget,
            sealed_len: sealed.iter().map(|sealed| sealed.len).sum(),
            sealed,
            active,
            number,
            next,
            buffer: Vec::new(),
            staged: Vec::new(),
            voids: Vec::new(),
            voids_staged: 0,
            clear: false,
        };
        log.shared.used.store(log.used() + control_len(), Relaxed);
        log
    }
}

/// The records of a segment without a footer, up to the first one that is not what has to stand there, and where that is.
fn scan(file: &File, id: u64, head: SegmentHead) -> io::Result<(Vec<Line>, u64)> {
    let mut window = Window { file, at: 0, bytes: Vec::new() };
    let (mut lines, mut at) = (Vec::new(), BLOCK as u64);
    loop {
        let sequence = head.first + lines.len() as u64;
        let Some(record) = Head::read(window.get(at, format::EMPTY_RECORD)?) else { break };
        if record.sequence != sequence || !record.is_whole(window.get(at, record.len())?, id) {
            break;
        }
        let next = at + record.len().next_multiple_of(UNIT) as u64;
        if next > format::MAX_SEGMENT {
            break;
        }
        lines.push(record.line(head.number, at));
        at = next;
    }
    Ok((lines, at))
}

/// A part of a file that moves forward.
struct Window<'a> {
    file: &'a File,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Up to so many bytes from there; fewer where the file ends.
    fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let start = (at - self.at) as usize;
        if self.bytes.len() < start + len {
            // Zeros straight from the system: a short file does not touch most of them.
            self.bytes = vec![0; len.clamp(WINDOW, MAX_RECORD)];
            let read = read_at(self.file, &mut self.bytes, at)?;
            self.bytes.truncate(read);
            self.at = at;
        }
        let start = (at - self.at) as usize;
        Ok(&self.bytes[start..self.bytes.len().min(start + len)])
    }
}

/// Makes the directory such that a loss of power does not take it away with all that will be in it.
fn create(directory: &Path, files: &Files) -> Result<(), DiskError> {
    let missing =
        directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).count();
    fs::create_dir_all(directory).map_err(DiskError::io("create the directory", directory))?;
    for parent in directory.ancestors().skip(1).take(missing) {
        let here = parent.as_os_str().is_empty();
        files.sync_directory(if here { Path::new(".") } else { parent })?;
    }
    Ok(())
}

fn lock_control(directory: &Path) -> Result<(File, PathBuf), DiskError> {
    let path = directory.join(files::CONTROL);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(&path).map_err(DiskError::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((file, path)),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
            Err(DiskError::Locked { path: directory.to_owned() })
        }
        Err(error) => Err(DiskError::io("lock", &path)(error.into())),
    }
}

/// The newest slot that is whole, if the file is ours.
fn read_control(file: &File, path: &Path) -> Result<Option<Slot>, DiskError> {
    let mut bytes = vec![0; control_len() as usize];
    let len = read_at(file, &mut bytes, 0).map_err(DiskError::io("read", path))?;
    bytes.truncate(len);
    let slots = bytes.chunks(BLOCK);
    // One that was cut short is taken for ours if the other one is, or if there is no other one.
    if !bytes.is_empty() && !slots.clone().any(|slot| !slot.is_empty() && format::is_ours(slot)) {
        return Err(DiskError::Foreign { path: path.to_owned() });
    }
    let slots: Vec<Slot> = slots.filter_map(Slot::read).collect();
    Ok(slots.into_iter().max_by_key(|slot| slot.turn))
}

fn read_start(path: &Path) -> Result<Vec<u8>, DiskError> {
    let failed = || DiskError::io("read", path);
    let file = File::open(path).map_err(failed())?;
    let mut start = vec![0; BLOCK];
    let len = read_at(&file, &mut start, 0).map_err(failed())?;
    start.truncate(len);
    Ok(start)
}

/// Which boot of the system this is; 0 where that cannot be known.
fn boot() -> u128 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0)
}

/// Not a secret: enough that no two lives of directories share it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Read at once while a segment is looked through.
const WINDOW: usize = 1 << 20;
