//! The file as it lies on the disk: a header, then blocks, each compressed and
//! checked by itself, so that one that is only half there is told from one that
//! is whole.

use std::io::{self, Read};

use thiserror::Error;

/// No text begins like this, and a transfer that takes it for text changes it.
pub const MAGIC: [u8; 8] = *b"\x89TRACER\n";
/// Version of the format. Readers refuse a higher one.
pub const VERSION: u32 = 1;
/// Magic, version, zero.
pub const HEADER: usize = 16;
/// At the beginning of each block.
const MARK: [u8; 4] = *b"BLCK";
/// Mark, stored length, real length, checksum.
const BLOCK_HEADER: usize = 16;
/// Longest block, before and after compression.
pub const MAX_BLOCK: usize = 4 << 20;

/// Why there is nothing more to read.
#[derive(Debug, Error)]
pub enum Broken {
    #[error("it is no recording")]
    NotARecording,
    #[error("it was written by a newer tracer (format {0}, this one reads {VERSION})")]
    Newer(u32),
    #[error("it ends in the middle: it was cut, or tracer was killed, or still writes to it")]
    Cut,
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
}

pub(super) fn damaged(what: impl Into<String>) -> Broken {
    Broken::Damaged(what.into())
}

/// The first bytes of a file.
pub fn header() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// A whole block with this content.
pub fn block(content: &[u8]) -> Vec<u8> {
    let stored = lz4_flex::block::compress(content);
    let lengths = lengths(stored.len(), content.len());
    let mut block = Vec::with_capacity(BLOCK_HEADER + stored.len());
    block.extend_from_slice(&MARK);
    block.extend_from_slice(&lengths);
    block.extend_from_slice(&checksum(&lengths, &stored).to_le_bytes());
    block.extend_from_slice(&stored);
    block
}

fn lengths(stored: usize, content: usize) -> [u8; 8] {
    // Both are far below 4 GiB: a block is begun anew long before.
    let [stored, content] = [stored, content].map(|length| (length as u32).to_le_bytes());
    let mut lengths = [0; 8];
    lengths[..4].copy_from_slice(&stored);
    lengths[4..].copy_from_slice(&content);
    lengths
}

fn checksum(lengths: &[u8; 8], stored: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(lengths);
    hasher.update(stored);
    hasher.finalize()
}

/// Blocks from a file.
pub struct Blocks<R> {
    input: R,
    stored: Vec<u8>,
    content: Vec<u8>,
}

impl<R: Read> Blocks<R> {
    /// Reads the header.
    pub fn open(mut input: R) -> Result<Self, Broken> {
        let mut header = [0; HEADER];
        let length = fill(&mut input, &mut header)?;
        let begins = length.min(MAGIC.len());
        if begins == 0 || header.get(..begins) != MAGIC.get(..begins) {
            return Err(Broken::NotARecording);
        }
        if length < HEADER {
            return Err(Broken::Cut);
        }
        let version = number(&header[8..12]);
        if version > VERSION as usize {
            return Err(Broken::Newer(version as u32));
        }
        Ok(Self {
            input,
            stored: Vec::new(),
            content: Vec::new(),
        })
    }

    /// The content of the next block; none at the end of the file.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Broken> {
        let mut header = [0; BLOCK_HEADER];
        match fill(&mut self.input, &mut header)? {
            0 => return Ok(None),
            BLOCK_HEADER => {}
            _ => return Err(Broken::Cut),
        }
        let (stored, content) = (number(&header[4..8]), number(&header[8..12]));
        if header[..4] != MARK {
            return Err(damaged("no block begins where one should"));
        }
        // Before there is memory for it.
        if stored > lz4_flex::block::get_maximum_output_size(MAX_BLOCK) || content > MAX_BLOCK {
            return Err(damaged("a block is longer than any"));
        }
        self.stored.resize(stored, 0);
        if fill(&mut self.input, &mut self.stored)? < stored {
            return Err(Broken::Cut);
        }
        if checksum(&lengths(stored, content), &self.stored) as usize != number(&header[12..]) {
            return Err(damaged("the checksum of a block is wrong"));
        }
        self.content.resize(content, 0);
        match lz4_flex::block::decompress_into(&self.stored, &mut self.content) {
            Ok(length) if length == content => Ok(Some(&self.content)),
            _ => Err(damaged("a block cannot be decompressed")),
        }
    }
}

/// Four bytes as a length.
fn number(bytes: &[u8]) -> usize {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
}

/// Reads as much as there is.
fn fill(input: &mut impl Read, mut buffer: &mut [u8]) -> io::Result<usize> {
    let all = buffer.len();
    while !buffer.is_empty() {
        match input.read(buffer) {
            Ok(0) => break,
            Ok(length) => buffer = buffer.get_mut(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all - buffer.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(contents: &[&[u8]]) -> Vec<u8> {
        let mut file = header().to_vec();
        for content in contents {
            file.extend(block(content));
        }
        file
    }

    fn read(file: &[u8]) -> (Vec<Vec<u8>>, Option<Broken>) {
        let mut all = Vec::new();
        let mut blocks = match Blocks::open(file) {
            Ok(blocks) => blocks,
            Err(broken) => return (all, Some(broken)),
        };
        loop {
            match blocks.next() {
                Ok(Some(content)) => all.push(content.to_vec()),
                Ok(None) => return (all, None),
                Err(broken) => return (all, Some(broken)),
            }
        }
    }

    #[test]
    fn blocks_come_back_whole() {
        let long = vec![7; 100_000];
        let file = file(&[b"one", b"", &long]);
        assert!(file.len() < 2000, "{}", file.len());
        let (all, broken) = read(&file);
        assert_eq!(all, [b"one".to_vec(), Vec::new(), long]);
        assert!(broken.is_none());
    }

    #[test]
    fn a_cut_anywhere_is_noticed() {
        let file = file(&[b"one", b"two"]);
        let ends = [HEADER, HEADER + block(b"one").len(), file.len()];
        for end in 0..file.len() {
            let (all, broken) = read(&file[..end]);
            assert_eq!(all.len(), ends[1..].iter().filter(|at| **at <= end).count());
            match broken {
                None => assert!(ends.contains(&end), "{end}"),
                Some(Broken::Cut) => assert!(end > 0, "{end}"),
                Some(Broken::NotARecording) => assert_eq!(end, 0),
                other => panic!("{end}: {other:?}"),
            }
        }
    }

    #[test]
    fn each_bit_counts() {
        let file = file(&[b"one", b"two"]);
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (all, broken) = read(&flipped);
            // The version may be lower, and what is reserved may be anything.
            if !(64..128).contains(&bit) {
                assert!(broken.is_some(), "bit {bit}");
                assert!(all.len() < 2, "bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        for other in [&b"#!/bin/sh\n"[..], b"", b"\x89PNG\r\n\x1a\n________"] {
            assert!(matches!(read(other).1, Some(Broken::NotARecording)));
        }
        let mut newer = file(&[b"one"]);
        newer[8] = 2;
        assert!(matches!(read(&newer).1, Some(Broken::Newer(2))));
    }

    #[test]
    fn a_length_is_checked_before_it_is_believed() {
        let mut huge = file(&[]);
        huge.extend_from_slice(&MARK);
        huge.extend_from_slice(&[0xff; 12]);
        let mut blocks = Blocks::open(&huge[..]).unwrap();
        assert!(matches!(blocks.next(), Err(Broken::Damaged(_))));
        assert_eq!(
            (blocks.stored.capacity(), blocks.content.capacity()),
            (0, 0)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut file = header().to_vec();
            file.extend(&bytes);
            let _ = read(&bytes);
            let _ = read(&file);
        }

        #[test]
        fn any_stored_bytes(stored in proptest::collection::vec(any::<u8>(), 0..256), content in 0..4096_usize) {
            // A right checksum on wrong data.
            let lengths = lengths(stored.len(), content);
            let mut file = header().to_vec();
            file.extend_from_slice(&MARK);
            file.extend_from_slice(&lengths);
            file.extend_from_slice(&checksum(&lengths, &stored).to_le_bytes());
            file.extend_from_slice(&stored);
            let _ = read(&file);
        }
    }
}
