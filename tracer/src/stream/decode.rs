//! Bytes to a record. Never panics, on any bytes.

use thiserror::Error;
use tracer_common::{
    ABI_VERSION,
    record::{Head, Notice, Record},
};

use crate::event::Packet;

/// Why bytes are not a record.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("{0} bytes instead of {size}, or {more} with a packet", size = size_of::<Record>(), more = WITH_PACKET)]
    Length(usize),
    #[error("version {0} instead of {ABI_VERSION}")]
    Version(u16),
}

/// What is told beside records (`record::notice`), if this is that.
pub fn notice(bytes: &[u8]) -> Option<u32> {
    let [a, b, c, d, what @ ..] = *<&[u8; size_of::<Notice>()]>::try_from(bytes).ok()?;
    let is_ours = u16::from_ne_bytes([a, b]) == ABI_VERSION
        && usize::from(u16::from_ne_bytes([c, d])) == size_of::<Notice>();
    is_ours.then(|| u32::from_ne_bytes(what))
}

const WITH_PACKET: usize = size_of::<Record>() + size_of::<Head>();

/// Reads one record, and the packet's bytes behind it where there are any.
pub fn decode(bytes: &[u8]) -> Result<(Record, Option<Packet>), DecodeError> {
    // The kernel gives them in multiples of eight, and so both are.
    let (record, head) = match bytes.len() {
        WITH_PACKET => bytes.split_at(size_of::<Record>()),
        length if length == size_of::<Record>() => (bytes, &[][..]),
        length => return Err(DecodeError::Length(length)),
    };
    // SAFETY: there are enough bytes, and every pattern of bytes is a Record:
    // integers and arrays of them, without padding.
    let record = unsafe { record.as_ptr().cast::<Record>().read_unaligned() };
    if record.version != ABI_VERSION {
        return Err(DecodeError::Version(record.version));
    }
    if usize::from(record.size) != size_of::<Record>() {
        return Err(DecodeError::Length(record.size.into()));
    }
    let packet = (!head.is_empty()).then(|| {
        // SAFETY: likewise a Head.
        let head = unsafe { head.as_ptr().cast::<Head>().read_unaligned() };
        let kept = head.bytes.get(..usize::from(head.kept))?;
        Packet::new(head.start, head.length, kept)
    });
    Ok((record, packet.flatten()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_and_foreign_records_are_refused() {
        assert_eq!(decode(&[]), Err(DecodeError::Length(0)));
        let bytes = [0xff; size_of::<Record>()];
        assert_eq!(decode(&bytes), Err(DecodeError::Version(0xffff)));
        let mut bytes = [0; size_of::<Record>()];
        bytes[..2].copy_from_slice(&ABI_VERSION.to_ne_bytes());
        assert_eq!(decode(&bytes), Err(DecodeError::Length(0)));
    }

    #[test]
    fn a_notice_is_no_record() {
        let mut bytes = [0; 8];
        assert_eq!((notice(&bytes), notice(&[])), (None, None));
        bytes[..2].copy_from_slice(&ABI_VERSION.to_ne_bytes());
        bytes[2] = 8;
        bytes[4] = 1;
        let what = u32::from_ne_bytes([1, 0, 0, 0]);
        assert_eq!(notice(&bytes), Some(what));
        assert!(decode(&bytes).is_err());
    }

    #[test]
    fn a_packet_stands_behind_its_record() {
        use tracer_common::record::start;

        let mut bytes = [0; WITH_PACKET];
        bytes[..2].copy_from_slice(&ABI_VERSION.to_ne_bytes());
        bytes[2..4].copy_from_slice(&(size_of::<Record>() as u16).to_ne_bytes());
        let Ok((_, None)) = decode(&bytes) else {
            panic!("there is none");
        };
        let head = size_of::<Record>();
        bytes[head..head + 4].copy_from_slice(&1400u32.to_ne_bytes());
        bytes[head + 4..head + 6].copy_from_slice(&3u16.to_ne_bytes());
        bytes[head + 6..head + 8].copy_from_slice(&start::ETHERNET.to_ne_bytes());
        bytes[head + 8..head + 12].copy_from_slice(&[7, 8, 9, 10]);
        let (_, packet) = decode(&bytes).unwrap();
        let packet = packet.unwrap();
        assert_eq!((packet.length, &packet.bytes[..]), (1400, &[7, 8, 9][..]));
        // More than there can be.
        bytes[head + 4..head + 6].copy_from_slice(&300u16.to_ne_bytes());
        assert_eq!(decode(&bytes).unwrap().1, None);
        assert!(decode(&bytes[..WITH_PACKET - 1]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
            let _ = decode(&bytes);
        }
    }
}
