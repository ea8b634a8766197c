//! What is told of a run: events in, text and an exit status out. Live tracing
//! and `tracer report` tell by the same one.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use anyhow::{Context as _, Result};
use tracer_common::{flow::Flow, tally::TallyKey};

use crate::{
    cli::Format,
    event::{Event, Start},
    flows::{Book, Counts, Report, Row},
    view::{
        about::About,
        html::{self, Page, Timeline},
        json, lines, markdown, summary,
    },
};

/// How to tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    pub format: Format,
    /// With the kernel's stack of each drop.
    pub stack: bool,
    /// Line by line as it happens, where the format is one for people.
    pub appended: bool,
    /// With the devices' ledgers at each refresh, where the format is JSON.
    pub ledgers: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Packets that vanished.
    pub drops: u64,
    /// Was everything counted?
    pub complete: bool,
    pub exit_status: u8,
}

/// See the module.
pub struct Story<W> {
    start: Start,
    book: Book,
    manner: Manner,
    about: About,
    /// When packets vanished, and how many of each count by then; where the
    /// format shows it.
    timeline: Timeline,
    vanished: HashMap<TallyKey, u64>,
    vanished_in_all: u64,
    /// How many packets of a row were told already.
    told: HashMap<(u32, u32, Flow, &'static str, u8), u64>,
    /// It ends before the run did.
    broken_off: bool,
    out: W,
    /// Whoever read our output has left: the exit status is all that is told.
    unread: bool,
}

impl<W: Write> Story<W> {
    pub fn new(start: Start, manner: Manner, about: About, out: W) -> Self {
        Self {
            book: Book::new(&start),
            timeline: Timeline::begin(start.time_ns),
            vanished: HashMap::new(),
            vanished_in_all: 0,
            start,
            manner,
            about,
            told: HashMap::new(),
            broken_off: false,
            out,
            unread: false,
        }
    }

    pub fn start(&self) -> &Start {
        &self.start
    }

    pub fn book(&self) -> &Book {
        &self.book
    }

    pub fn book_mut(&mut self) -> &mut Book {
        &mut self.book
    }

    /// Has whoever read it left?
    pub fn is_unread(&self) -> bool {
        self.unread
    }

    /// Whoever read it has left.
    pub fn unread(&mut self) {
        self.unread = true;
    }

    /// Tells what comes before everything else.
    pub fn begin(&mut self) -> Result<()> {
        let Start {
            kernel,
            arch,
            attached,
            missing,
            ..
        } = &self.start;
        match self.manner.format {
            Format::Json => self.print(&json::start(kernel, arch, attached, missing)),
            _ => Ok(()),
        }
    }

    /// Takes in what came next.
    pub fn take(&mut self, event: &Event) {
        self.book.take(event);
        if let Event::Counts(counts) = event
            && self.manner.format == Format::Html
        {
            self.plot(counts);
        }
    }

    /// Notes what vanished until these counts were read.
    fn plot(&mut self, counts: &Counts) {
        for key in counts.tallies.keys() {
            let now = self.book.vanished(key);
            // Where it has no room in the book, there is none of it.
            let before = match now {
                0 => self.vanished.remove(key),
                now => self.vanished.insert(*key, now),
            };
            let before = before.unwrap_or(0);
            self.vanished_in_all = (self.vanished_in_all + now).saturating_sub(before);
        }
        if self.timeline.wants(counts.time_ns) {
            self.timeline.add(counts.time_ns, self.vanished_in_all);
        }
    }

    /// What came next will never be known.
    pub fn break_off(&mut self) {
        self.broken_off = true;
    }

    /// Everything known now.
    pub fn report(&mut self) -> Report {
        Report {
            broken_off: self.broken_off,
            ..self.book.report()
        }
    }

    /// Tells what is new.
    pub fn refresh(&mut self) -> Result<()> {
        let report = self.report();
        self.rows(&report)?;
        if self.manner.format == Format::Json && self.manner.ledgers {
            self.devices(&report)?;
        }
        Ok(())
    }

    /// Tells everything that is left to say.
    pub fn conclude(mut self) -> Result<Ending> {
        let report = self.report();
        match self.manner.format {
            Format::Json => {
                self.rows(&report)?;
                self.devices(&report)?;
                self.print(&json::end(&report))?;
            }
            Format::Markdown => {
                let (began, stack) = (self.time(self.start.time_ns), self.manner.stack);
                let text = markdown::render(&self.start, &self.about, &report, &began, stack);
                self.print(text.trim_end())?;
            }
            Format::Html => {
                let end = self.book.counts().time_ns;
                self.timeline.add(end, report.drops());
                let page = Page {
                    start: &self.start,
                    about: &self.about,
                    timeline: &self.timeline,
                    clock: |time| self.time(time),
                    stack: self.manner.stack,
                };
                let text = html::render(&page, &report);
                self.print(text.trim_end())?;
            }
            Format::Table if !self.manner.appended => {
                self.print(summary::render(&report, self.manner.stack).trim_end())?;
            }
            Format::Table | Format::Lines => {
                self.rows(&report)?;
                self.print(summary::devices(&report).trim_end())?;
            }
        }
        Ok(ending(&report))
    }

    /// Prints the rows that have packets nobody was told of yet.
    fn rows(&mut self, report: &Report) -> Result<()> {
        for row in &report.rows {
            let key = &row.evidence.key;
            let id = (key.netns, key.ifindex, key.flow, row.cause.id, key.outcome);
            let before = self.told.insert(id, row.count).unwrap_or(0);
            let new = row.count.saturating_sub(before);
            if new == 0 {
                continue;
            }
            self.row(row, new)?;
        }
        Ok(())
    }

    fn row(&mut self, row: &Row, new: u64) -> Result<()> {
        let time = self.time(row.last_ns);
        let line = match self.manner.format {
            Format::Json => json::drop(row, new, &time, self.manner.stack),
            Format::Table | Format::Lines => lines::row(row, new, &time, self.manner.stack),
            // It is told as a whole.
            Format::Markdown | Format::Html => return Ok(()),
        };
        self.print(&line)
    }

    fn devices(&mut self, report: &Report) -> Result<()> {
        for ledger in &report.ledgers {
            self.print(&json::device(ledger))?;
        }
        Ok(())
    }

    fn print(&mut self, line: &str) -> Result<()> {
        if self.unread {
            return Ok(());
        }
        match writeln!(self.out, "{line}").and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.unread = true;
                Ok(())
            }
            result => result.context("cannot write to stdout"),
        }
    }

    /// The time of day of a kernel time, RFC 3339.
    fn time(&self, monotonic_ns: u64) -> String {
        let nanoseconds = i128::from(self.start.clock_ns) + i128::from(monotonic_ns);
        jiff::Timestamp::from_nanosecond(nanoseconds)
            .map(|time| format!("{time:.6}"))
            .unwrap_or_default()
    }
}

/// The verdict on the whole run.
pub fn ending(report: &Report) -> Ending {
    let drops = report.drops();
    let complete = report.is_complete();
    Ending {
        drops,
        complete,
        exit_status: if drops > 0 {
            1
        } else if report.is_certain() {
            0
        } else {
            crate::COULD_NOT_TRACE
        },
    }
}
