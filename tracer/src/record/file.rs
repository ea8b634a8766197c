//! The file that is written: where, how much, and what becomes of older ones.
//!
//! What is written is appended, a whole block at a time, at least each time the
//! counts are read. Whatever stops the tracer costs what came since.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tracer_common::{record::Record, tally::TallyKey};

use super::{
    blocks::{self, HEADER, MAGIC},
    items::{self, End, Scope},
};
use crate::{
    devices::printable,
    event::{Event, Sample, Start},
    flows::Counts,
    session::Usage,
};

/// A block is written when it has grown to this.
const BLOCK: usize = 256 << 10;

/// How much older than the counts a record may be that they do not include yet:
/// a packet is counted after it was looked at.
const SLACK_NS: u64 = 10_000_000;

/// Most records that are repeated in the next file.
const MAX_NEWEST: usize = 4096;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a file, at which the next one is begun.
    pub size: Option<u64>,
    /// Most files: FILE, FILE.1 and so on.
    pub files: u32,
}

/// A file that may be written. Dropped before anything was, it leaves nothing
/// behind that was not there.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    limits: Limits,
    file: File,
    /// It was not there before, and nothing is in it.
    new: bool,
}

impl Output {
    /// Makes the file. One that is there is only written over if it is a
    /// recording, and if `force` says so; not before there is something to write.
    pub fn open(path: &Path, limits: Limits, force: bool) -> Result<Self> {
        let limits = Limits {
            // Without a size there is no other.
            files: if limits.size.is_some() {
                limits.files
            } else {
                1
            },
            ..limits
        };
        for n in 1..limits.files {
            may_be_overwritten(&numbered(path, n), force)?;
        }
        let there = may_be_overwritten(path, force)?;
        let new = there.is_none();
        let file = match there {
            Some(file) => file,
            None => create(path)?,
        };
        let path = path.to_owned();
        Ok(Self {
            path,
            limits,
            file,
            new,
        })
    }

    /// Begins the recording.
    pub fn begin(mut self, start: &Start, scope: Scope) -> Result<Recorder> {
        let file = self.file.try_clone();
        let file = file.with_context(|| cannot("write", &self.path))?;
        let mut recorder = Recorder {
            path: self.path.clone(),
            limits: self.limits,
            scope,
            file,
            written: 0,
            begun: 0,
            earlier: 0,
            block: Vec::new(),
            base: Counts::default(),
            since: HashMap::new(),
            uncounted: Vec::new(),
            newest: HashMap::new(),
        };
        // Whatever it was before: only its owner may read it.
        let owners = Permissions::from_mode(0o600);
        if recorder.file.metadata().is_ok_and(|about| about.is_file()) {
            let closed = recorder.file.set_permissions(owners);
            closed.with_context(|| cannot("close to others", &self.path))?;
        }
        recorder.begin(start)?;
        self.new = false;
        Ok(recorder)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.new {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", shown(path))
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// `FILE.1`, the one before.
fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{n}"));
    name.into()
}

/// Makes a file that only its owner may read: packets and names of processes
/// are nobody else's business.
fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| cannot("make", path))
}

/// Opens what is there, if anything is; refuses what must not be lost.
fn may_be_overwritten(path: &Path, force: bool) -> Result<Option<File>> {
    // A link that leads nowhere is something, too.
    let about = match path.symlink_metadata() {
        Ok(link) if link.is_symlink() => path.metadata(),
        about => about,
    };
    let about = match about {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        about => about.with_context(|| cannot("look at", path))?,
    };
    if about.is_dir() {
        let text = format!(
            "{0} is a directory: name a file in it, such as -o {0}/tracer.rec",
            shown(path)
        );
        return Err(Usage(text).into());
    }
    let refuse = |what: &str| -> anyhow::Error {
        Usage(format!("{} {what}: name another file", shown(path))).into()
    };
    if !about.is_file() {
        return Err(refuse("is no file that can be written over"));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| cannot("write", path))?;
    let mut begin = Vec::new();
    (&file)
        .take(MAGIC.len() as u64)
        .read_to_end(&mut begin)
        .with_context(|| cannot("read", path))?;
    // An empty one is what mktemp makes.
    if !begin.is_empty() && begin != MAGIC {
        return Err(refuse("exists and is no recording"));
    }
    if !begin.is_empty() && !force {
        let text = format!("{} exists: --force writes over recordings", shown(path));
        return Err(Usage(text).into());
    }
    Ok(Some(file))
}

/// Writes events.
pub struct Recorder {
    path: PathBuf,
    limits: Limits,
    scope: Scope,
    file: File,
    /// Bytes in the file; always whole blocks.
    written: u64,
    /// Bytes of its beginning: what is repeated from the file before.
    begun: u64,
    /// Bytes in the files before.
    earlier: u64,
    /// Items that are not written yet.
    block: Vec<u8>,
    /// The counts when the file was begun: each file counts from zero.
    base: Counts,
    /// The newest records since the last counts, where another file may follow.
    since: HashMap<TallyKey, Sample>,
    /// Those of them that the last counts may not include.
    uncounted: Vec<Sample>,
    /// The newest record of each sort, for the next file: of a storm that goes on
    /// there may come no other for long.
    newest: HashMap<TallyKey, Record>,
}

impl Recorder {
    fn begin(&mut self, start: &Start) -> Result<()> {
        let header = blocks::header();
        self.file
            .set_len(0)
            .and_then(|()| io::Seek::rewind(&mut self.file))
            .and_then(|()| self.file.write_all(&header))
            .with_context(|| cannot("write", &self.path))?;
        self.written = HEADER as u64;
        items::put_begin(start, &self.scope, &mut self.block);
        self.flush()
    }

    /// Takes what came next.
    pub fn append(&mut self, event: &Event) -> Result<()> {
        let mut block = std::mem::take(&mut self.block);
        let rebased = self.rebase(event);
        let put = items::put(
            rebased.as_ref().unwrap_or(event),
            &mut block,
            |block| match block.len() < BLOCK {
                true => Ok(()),
                false => self.write(block),
            },
        );
        self.block = block;
        put
    }

    /// What is remembered for the next file; counts as this one has them.
    fn rebase(&mut self, event: &Event) -> Option<Event> {
        self.limits.size?;
        match event {
            Event::Records(samples) => {
                for sample in samples {
                    let key = sample.record.key;
                    self.since.insert(key, sample.clone());
                    if self.newest.len() >= MAX_NEWEST && !self.newest.contains_key(&key) {
                        self.forget_the_oldest();
                    }
                    self.newest.insert(key, sample.record);
                }
                None
            }
            Event::Counts(counts) => {
                let oldest = counts.time_ns.saturating_sub(SLACK_NS);
                let since = std::mem::take(&mut self.since).into_values();
                self.uncounted = since
                    .filter(|sample| sample.record.time_ns >= oldest)
                    .collect();
                Some(Event::Counts(counts.since(&self.base)))
            }
            _ => None,
        }
    }

    /// Makes room for what comes: the older half is over, most likely.
    fn forget_the_oldest(&mut self) {
        let mut times: Vec<u64> = self.newest.values().map(|record| record.time_ns).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.newest.retain(|_, record| record.time_ns > median);
    }

    /// Writes what there is.
    pub fn flush(&mut self) -> Result<()> {
        let mut block = std::mem::take(&mut self.block);
        let written = self.write(&mut block);
        self.block = block;
        written
    }

    /// Writes a block, whole or not at all.
    fn write(&mut self, block: &mut Vec<u8>) -> Result<()> {
        if block.is_empty() {
            return Ok(());
        }
        let bytes = blocks::block(block);
        block.clear();
        if let Err(error) = self.file.write_all(&bytes) {
            let _ = self.file.set_len(self.written);
            return Err(error).with_context(|| {
                format!(
                    "{} (what was recorded before can be read)",
                    cannot("write", &self.path)
                )
            });
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Is it time for another file?
    pub fn is_full(&self) -> bool {
        let is_full = |size| self.written >= size && self.written > self.begun;
        self.limits.size.is_some_and(is_full)
    }

    /// Begins the next file: with what is known, and counts from these on.
    pub fn rotate(&mut self, start: &Start, known: &[Event], counts: &Counts) -> Result<()> {
        self.end(true)?;
        self.earlier += self.written;
        for n in (0..self.limits.files.saturating_sub(1)).rev() {
            let from = match n {
                0 => self.path.clone(),
                n => numbered(&self.path, n),
            };
            match fs::rename(&from, numbered(&self.path, n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| cannot("rename", &from));
                }
                _ => {}
            }
        }
        if self.limits.files < 2 {
            fs::remove_file(&self.path).with_context(|| cannot("remove", &self.path))?;
        }
        self.file = create(&self.path)?;
        self.base = counts.clone();
        self.begin(start)?;
        for event in known {
            self.append(event)?;
        }
        let mut uncounted = std::mem::take(&mut self.uncounted);
        let repeated: HashSet<TallyKey> = uncounted.iter().map(|it| it.record.key).collect();
        // Most of the file is for what comes.
        let room = self.limits.size.unwrap_or(u64::MAX) / 4;
        let most = usize::try_from(room).unwrap_or(usize::MAX) / size_of::<Record>();
        let newest = self.newest.values();
        let mut others: Vec<Record> = newest
            .filter(|it| !repeated.contains(&it.key))
            .copied()
            .collect();
        others.sort_unstable_by_key(|record| Reverse(record.time_ns));
        others.truncate(most);
        uncounted.extend(others.iter().map(|record| Sample {
            record: *record,
            // The file before has them.
            stack: Vec::new(),
            packet: None,
        }));
        self.append(&Event::Records(uncounted))?;
        self.flush()?;
        self.begun = self.written;
        Ok(())
    }

    fn end(&mut self, continued: bool) -> Result<()> {
        items::put_end(&End { continued }, &mut self.block);
        self.flush()
    }

    /// Ends it. Gives the path as it is shown, and the bytes that were written.
    pub fn finish(mut self) -> Result<(String, u64)> {
        self.end(false)?;
        Ok((shown(&self.path), self.earlier + self.written))
    }
}
