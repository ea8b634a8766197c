//! Bytes to a record. Never panics, on any bytes.

use thiserror::Error;
use tracer_common::{
    ABI_VERSION,
    record::{Notice, Record},
};

/// Why bytes are not a record.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("{0} bytes instead of {size}", size = size_of::<Record>())]
    Length(usize),
    #[error("version {0} instead of {ABI_VERSION}")]
    Version(u16),
}

/// Do these bytes say that a tunnel came up?
pub fn is_notice(bytes: &[u8]) -> bool {
    let notice = Notice {
        version: ABI_VERSION,
        size: size_of::<Notice>() as u16,
        reserved: 0,
    };
    let [a, b] = notice.version.to_ne_bytes();
    let [c, d] = notice.size.to_ne_bytes();
    bytes == [a, b, c, d, 0, 0, 0, 0]
}

/// Reads one record.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    if bytes.len() < size_of::<Record>() {
        return Err(DecodeError::Length(bytes.len()));
    }
    // SAFETY: there are enough bytes, and every pattern of bytes is a Record:
    // integers and arrays of them, without padding.
    let record = unsafe { bytes.as_ptr().cast::<Record>().read_unaligned() };
    if record.version != ABI_VERSION {
        return Err(DecodeError::Version(record.version));
    }
    if usize::from(record.size) != size_of::<Record>() {
        return Err(DecodeError::Length(record.size.into()));
    }
    Ok(record)
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
        assert!(!is_notice(&bytes) && !is_notice(&[]));
        bytes[..2].copy_from_slice(&ABI_VERSION.to_ne_bytes());
        bytes[2] = 8;
        assert!(is_notice(&bytes) && decode(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
            let _ = decode(&bytes);
        }
    }
}
