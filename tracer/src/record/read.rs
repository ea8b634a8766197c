//! Events from a recording.

use std::io::Read;

use super::{
    blocks::{Blocks, Broken, damaged},
    items::{Begin, Decoder, End, Said},
};
use crate::event::Event;

/// See the module.
pub struct Recording<R> {
    blocks: Blocks<R>,
    decoder: Decoder,
    /// What is left of the current block.
    block: Vec<u8>,
    at: usize,
    end: Option<End>,
}

impl<R: Read> Recording<R> {
    /// Reads as far as the start.
    pub fn open(input: R) -> Result<(Self, Begin), Broken> {
        let mut blocks = Blocks::open(input)?;
        let block = blocks.next()?.ok_or(Broken::Cut)?.to_vec();
        let mut rest = &block[..];
        let (begin, decoder) = Decoder::begin(&mut rest)?;
        let at = block.len() - rest.len();
        let recording = Self {
            blocks,
            decoder,
            block,
            at,
            end: None,
        };
        Ok((recording, begin))
    }

    /// What came next; none at the end.
    pub fn next(&mut self) -> Result<Option<Event>, Broken> {
        while self.end.is_none() {
            let mut rest = self.block.get(self.at..).unwrap_or_default();
            let said = self.decoder.next(&mut rest)?;
            self.at = self.block.len() - rest.len();
            match said {
                Said::Event(event) => return Ok(Some(event)),
                Said::End(end) => self.end = Some(end),
                Said::Nothing => {
                    let block = self.blocks.next()?.ok_or(Broken::Cut)?;
                    self.block.clear();
                    self.block.extend_from_slice(block);
                    self.at = 0;
                }
            }
        }
        if self.at < self.block.len() || self.blocks.next()?.is_some() {
            return Err(damaged("there is something behind its end"));
        }
        Ok(None)
    }

    /// How it ended, if it did.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }
}
