//! `tracer report FILE`: a recording, told as the run itself would have been.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Result, anyhow};

use crate::{
    cli::Options,
    devices::printable,
    event::Event,
    record::{Broken, Recording},
    session::Usage,
    story::{Ending, Manner, Story},
};

/// Tells what is in the file, as far as it can be read; then, if that was not
/// all, why.
pub fn run(options: &Options, path: &Path) -> Result<u8> {
    refuse_tracing(options)?;
    let name = printable(path.as_os_str().as_encoded_bytes());
    let file = File::open(path).map_err(|error| anyhow!("cannot read {name}: {error}"))?;
    let (ending, broken) = tell(file, options, BufWriter::new(io::stdout()))
        .map_err(|error| anyhow!("{name}: {error:#}"))?;
    if let Some(broken) = broken {
        let _ = writeln!(
            io::stderr(),
            "tracer: {name}: {broken}; shown is what is before"
        );
    }
    Ok(ending.exit_status)
}

/// What was traced is what was recorded.
pub fn refuse_tracing(options: &Options) -> Result<()> {
    let given = [
        ("--dev", options.dev.is_some()),
        ("--netns", options.netns.is_some()),
        ("--filter", options.filter.is_some()),
        ("--duration", options.duration.is_some()),
        ("--all-drops", options.all_drops),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(Usage(format!(
            "{option} says what to trace: give it to tracer record"
        ))
        .into()),
    }
}

/// Tells a recording; gives why it breaks off, if it does.
fn tell(input: impl Read, options: &Options, out: impl Write) -> Result<(Ending, Option<Broken>)> {
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
    let mut story = Story::new(start, manner, out);
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
    Ok((story.conclude()?, broken))
}
