//! Any bytes as a recording: it is read or refused, told in every form, compared
//! and written as packets, and nothing of that panics, hangs or takes more memory
//! than a file may cost.
//!
//! Blocks are compressed and have checksums, so most changes of a file would only
//! show that those are looked at. The mutator changes what is in them and writes
//! the file anew.

#![no_main]
#![expect(dead_code, reason = "tracing is not fuzzed")]

use std::io::{self, Write};

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

// Its modules, at the place where they expect one another.
include!(concat!(env!("OUT_DIR"), "/modules.rs"));

const COULD_NOT_TRACE: u8 = 125;

const HEADER: usize = 16;
const BLOCK_HEADER: usize = 16;
/// No more of a file's content is mutated.
const MAX_CONTENT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| told(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // The file itself is damaged now and then, too.
    let Some(content) = content(&data[..size]).filter(|_| !seed.is_multiple_of(16)) else {
        return fuzzer_mutate(data, size, max_size);
    };
    let mut room = content;
    let size_before = room.len();
    room.resize((size_before + 4096).min(MAX_CONTENT).max(size_before), 0);
    let capacity = room.len();
    let length = fuzzer_mutate(&mut room, size_before, capacity);
    let file = packed(&data[..HEADER], &room[..length]);
    match data.get_mut(..file.len()) {
        Some(place) if file.len() <= max_size => {
            place.copy_from_slice(&file);
            file.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});

/// What is in the blocks of a file, if they are whole.
fn content(file: &[u8]) -> Option<Vec<u8>> {
    let mut rest = file.get(HEADER..)?;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let number = |at: usize| {
            let bytes = rest.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes) as usize)
        };
        let (stored, length) = (number(4)?, number(8)?);
        if length > MAX_CONTENT {
            return None;
        }
        let bytes = rest.get(BLOCK_HEADER..BLOCK_HEADER.checked_add(stored)?)?;
        all.extend(lz4_flex::block::decompress(bytes, length).ok()?);
        rest = &rest[BLOCK_HEADER + stored..];
    }
    (!all.is_empty() && all.len() <= MAX_CONTENT).then_some(all)
}

/// A file with one block of this.
fn packed(header: &[u8], content: &[u8]) -> Vec<u8> {
    let stored = lz4_flex::block::compress(content);
    let mut file = header.to_vec();
    let lengths = [stored.len() as u32, content.len() as u32].map(u32::to_le_bytes);
    let mut sum = crc32fast::Hasher::new();
    file.extend(b"BLCK");
    for part in [&lengths[0][..], &lengths[1], &stored] {
        sum.update(part);
    }
    file.extend(lengths.concat());
    file.extend(sum.finalize().to_le_bytes());
    file.extend(stored);
    file
}

/// Tells it in a form that depends on it, so that all of them have their turn.
fn told(data: &[u8]) {
    use cli::Format;
    let pick = crc32fast::hash(data);
    let formats = [
        Format::Table,
        Format::Lines,
        Format::Json,
        Format::Markdown,
        Format::Html,
    ];
    let manner = story::Manner {
        format: formats[pick as usize % formats.len()],
        stack: pick & 64 != 0,
        appended: pick & 128 != 0,
        ledgers: true,
    };
    let filters = ["", "inner ip6 or uid 0", "not (outer port 1111 or dev t0)"];
    let filter = filters[(pick >> 8) as usize % filters.len()];
    let Ok((mut recording, begin)) = record::Recording::open(data) else {
        return;
    };
    let mut out = Checked {
        page: manner.format == Format::Html,
    };
    let about = view::about::About {
        scope: begin.scope,
        recording: Some(("file".to_owned(), begin.tracer)),
        part: Vec::new(),
    };
    let mut story = story::Story::new(begin.start, manner, about, &mut out);
    if !filter.is_empty() {
        let program = filter::program(filter, &filter::Host).expect("it parses");
        let selection = flows::Selection::default().by_filter(program);
        story.book_mut().select(selection);
    }
    story.begin().expect("nothing fails to be written");
    let mut samples = Vec::new();
    loop {
        match recording.next() {
            Ok(Some(event)) => {
                story.take(&event);
                if let event::Event::Records(more) = event {
                    samples.extend(more);
                } else if matches!(event, event::Event::Counts(_)) {
                    story.refresh().expect("nothing fails to be written");
                }
            }
            Ok(None) => break,
            Err(_) => {
                story.break_off();
                break;
            }
        }
    }
    let packets = pcapng::Packets::begin(io::sink(), story.start(), 200);
    let mut packets = packets.expect("nothing fails to be written");
    for sample in &samples {
        let written = packets.packet(story.book(), sample);
        written.expect("nothing fails to be written");
    }
    packets.finish().expect("nothing fails to be written");
    story.conclude().expect("nothing fails to be written");
}

/// Whatever is told can be shown on a terminal, and a page runs nothing.
struct Checked {
    page: bool,
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let control = |byte: &u8| (*byte < 0x20 && *byte != b'\n') || *byte == 0x7f;
        assert!(!bytes.iter().any(control), "{:?}", bytes.escape_ascii());
        let script = || bytes.windows(7).any(|part| part == b"<script");
        assert!(!self.page || !script(), "{:?}", bytes.escape_ascii());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
