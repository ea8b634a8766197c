//! `tracer report FILE`: a recording, told as the run itself would have been, or
//! a part of it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    cli::Options,
    devices::{did_you_mean, printable},
    event::{Event, Known},
    filter::{self, Recorded, World},
    flows::{Selection, until_zero},
    pcapng::{self, Packets},
    record::{Begin, Broken, Recording},
    session::Usage,
    story::{Manner, Story},
    view::about::About,
};

/// Tells what is in the file, as far as it can be read; then, if that was not
/// all, why.
/// `packets`: a file for those that vanished, and most bytes of each.
pub fn run(options: &Options, path: &Path, packets: Option<&(PathBuf, u32)>) -> Result<u8> {
    refuse(&[
        ("--duration", options.duration.is_some()),
        ("--all-drops", options.all_drops),
    ])?;
    let name = shown(path);
    let file = open(path)?;
    let selection = selection(options, path)?;
    // Before anything is told: it may not be possible.
    let packets = packets
        .map(|(path, snaplen)| anyhow::Ok((path, pcapng::create(path)?, *snaplen)))
        .transpose()?;
    let out = BufWriter::new(io::stdout());
    let told = tell(file, &name, options, selection, out);
    let (story, broken) = match told {
        Ok(told) => told,
        Err(error) => {
            // Nothing is in it yet.
            if let Some((path, ..)) = packets {
                let _ = fs::remove_file(path);
            }
            return Err(anyhow!("{name}: {error:#}"));
        }
    };
    if let Some((to, out, snaplen)) = packets {
        let written = write_packets(&story, open(path)?, out, snaplen);
        let (written, left_out) = written.with_context(|| shown(to)).inspect_err(|_| {
            // A part of it is no use, and stands in the way.
            let _ = fs::remove_file(to);
        })?;
        let _ = writeln!(
            io::stderr(),
            "tracer: wrote {}: {written} packets{}",
            shown(to),
            match left_out {
                0 => String::new(),
                n => format!(", and left out {n} that are no IP"),
            }
        );
    }
    let ending = story.conclude()?;
    if let Some(broken) = broken {
        let _ = writeln!(
            io::stderr(),
            "tracer: {name}: {broken}; shown is what is before"
        );
    }
    Ok(ending.exit_status)
}

/// What was traced is what was recorded: these options were given.
pub fn refuse(options: &[(&str, bool)]) -> Result<()> {
    match options.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(Usage(format!(
            "{option} says what to trace: give it to tracer record"
        ))
        .into()),
    }
}

pub fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

pub fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|error| anyhow!("cannot read {}: {error}", shown(path)))?;
    if file.metadata().is_ok_and(|about| about.is_dir()) {
        return Err(anyhow!("cannot read {}: it is a directory", shown(path)));
    }
    Ok(file)
}

/// Opens a recording for a comparison, and takes all of it in; false where it
/// breaks off, which is said.
pub fn take_in<T>(
    path: &Path,
    begin: impl FnOnce(Begin) -> Result<T>,
    mut take: impl FnMut(&mut T, &Event),
) -> Result<(T, bool)> {
    let name = shown(path);
    let opened = Recording::open(open(path)?);
    let (mut recording, start) = opened.map_err(|error| anyhow!("{name}: {error:#}"))?;
    let mut into = begin(start)?;
    loop {
        match recording.next() {
            Ok(Some(event)) => take(&mut into, &event),
            Ok(None) => return Ok((into, true)),
            Err(broken) => {
                let _ = writeln!(
                    io::stderr(),
                    "tracer: {name}: {broken}; compared is what is before"
                );
                return Ok((into, false));
            }
        }
    }
}

/// The host that the file was recorded on. Its names are looked up when an
/// expression has one.
pub fn world(path: &Path) -> impl World {
    Recorded(move || namespaces(path))
}

/// What network namespaces were called, as far as it can be read.
fn namespaces(path: &Path) -> Vec<(u32, String)> {
    contents(path).map_or_else(Vec::new, |contents| contents.netns)
}

/// What a recording has names of.
#[derive(Default)]
struct Contents {
    netns: Vec<(u32, String)>,
    devices: BTreeSet<Vec<u8>>,
}

/// Reads them as far as it goes; `None` where the file cannot be read twice.
fn contents(path: &Path) -> Option<Contents> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut contents = Contents::default();
    let (mut recording, _) = Recording::open(open(path).ok()?).ok()?;
    while let Ok(Some(event)) = recording.next() {
        match event {
            Event::Netns(more) => {
                for name in more {
                    if !contents.netns.contains(&name) && contents.netns.len() < MAX_NAMES {
                        contents.netns.push(name);
                    }
                }
            }
            Event::Devices(more) => {
                for Known { device, .. } in more {
                    if contents.devices.len() < MAX_NAMES {
                        contents.devices.insert(device.name);
                        contents.devices.extend(device.altnames);
                    }
                }
            }
            Event::Records(samples) => {
                let named = samples.iter().filter(|sample| sample.record.dev[0] != 0);
                for sample in named {
                    let name = until_zero(&sample.record.dev);
                    if contents.devices.len() < MAX_NAMES && !contents.devices.contains(name) {
                        contents.devices.insert(name.to_vec());
                    }
                }
            }
            _ => {}
        }
    }
    Some(contents)
}

/// Most names of namespaces, and of devices, that are looked through.
const MAX_NAMES: usize = 4096;

/// The part of the file that is asked for.
fn selection(options: &Options, path: &Path) -> Result<Selection> {
    let world = world(path);
    let mut selection = Selection::default();
    if let Some(text) = &options.filter {
        selection = selection.by_filter(filter::program(text, &world)?);
    }
    if let Some(spec) = &options.netns {
        // As it was given to tracer: a name, a path or, of a recording, an inode.
        let name = spec.rsplit('/').next().unwrap_or(spec);
        let name = match name.parse::<u32>() {
            Ok(inode) => format!("net:[{inode}]"),
            Err(_) => name.to_owned(),
        };
        let inode = world
            .netns(&name)
            .map_err(|why| Usage(format!("--netns: {why}")))?;
        selection = selection.by_netns(inode);
    }
    if let Some(name) = &options.dev {
        let contents = contents(path);
        if let Some(Contents { devices, .. }) = contents
            && devices.len() < MAX_NAMES
            && !devices.contains(name.as_bytes())
        {
            let known = devices.iter().map(Vec::as_slice);
            return Err(Usage(format!(
                "--dev: the recording has no device '{}'{}",
                printable(name.as_bytes()),
                did_you_mean(name.as_bytes(), known)
            ))
            .into());
        }
        selection = selection.by_dev(name.as_bytes()).ok_or_else(|| {
            let name = printable(name.as_bytes());
            Usage(format!("--dev: no device can be called '{name}'"))
        })?;
    }
    Ok(selection)
}

/// The same as options.
fn part(options: &Options) -> Vec<(&'static str, String)> {
    let dev = options.dev.as_ref();
    let dev = dev.map(|dev| printable(dev.as_bytes()));
    let given = [
        ("--dev", dev),
        ("--netns", options.netns.clone()),
        ("--filter", options.filter.clone()),
    ];
    let given = given.into_iter();
    given
        .filter_map(|(option, value)| Some((option, value?)))
        .collect()
}

/// Writes the packets of a recording that was taken in.
fn write_packets<W: Write>(
    story: &Story<impl Write>,
    input: impl Read,
    out: W,
    snaplen: u32,
) -> Result<(u64, u64)> {
    let mut packets = Packets::begin(out, story.start(), snaplen)?;
    let (mut recording, _) = Recording::open(input)?;
    // Where it breaks off, that was said.
    while let Ok(Some(event)) = recording.next() {
        if let Event::Records(samples) = event {
            // What is repeated from the file before stands there.
            let own = samples
                .iter()
                .filter(|sample| sample.record.time_ns >= story.start().time_ns);
            for sample in own {
                packets.packet(story.book(), sample)?;
            }
        }
    }
    packets.finish()
}

/// Takes a recording in, and tells what is told while it goes on; gives why it
/// breaks off, if it does.
fn tell<W: Write>(
    input: impl Read,
    name: &str,
    options: &Options,
    selection: Selection,
    out: W,
) -> Result<(Story<W>, Option<Broken>)> {
    let (mut recording, begin) = Recording::open(input)?;
    let start = begin.start;
    tracing::info!(
        "recorded by tracer {} on {} ({}), {} probes attached, {} missing",
        begin.tracer,
        start.kernel,
        start.arch,
        start.attached.len(),
        start.missing.len(),
    );
    if options.stack && !begin.scope.stack {
        tracing::warn!("recorded without --stack: there are none to show");
    }
    let manner = Manner {
        format: options.format,
        stack: options.stack,
        appended: options.interval.is_some(),
        ledgers: options.interval.is_some(),
    };
    let mut shown_ns = start.time_ns;
    let about = About {
        scope: begin.scope,
        recording: Some((name.to_owned(), printable(begin.tracer.as_bytes()))),
        part: part(options),
    };
    let mut story = Story::new(start, manner, about, out);
    story.book_mut().select(selection);
    story.begin()?;
    let broken = loop {
        let event = match recording.next() {
            Ok(Some(event)) => event,
            Ok(None) => break None,
            Err(broken) => break Some(broken),
        };
        story.take(&event);
        let (Event::Counts(counts), Some(interval)) = (&event, options.interval) else {
            continue;
        };
        if Duration::from_nanos(counts.time_ns.saturating_sub(shown_ns)) >= interval {
            shown_ns = counts.time_ns;
            story.refresh()?;
        }
        if story.is_unread() {
            break None;
        }
    };
    if broken.is_some() {
        story.break_off();
    }
    if recording.end().is_some_and(|end| end.continued) {
        tracing::info!("what came later is in another file");
    }
    Ok((story, broken))
}

#[cfg(test)]
mod tests;
