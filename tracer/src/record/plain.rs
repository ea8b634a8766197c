//! Plain numbers in a file: little-endian, one behind the other, under names
//! that the file itself lists. A reader takes those whose names it knows; what
//! is not there is zero, what it does not know is passed over.

use std::{array, collections::HashMap};

use serde::{Deserialize, Serialize};
use tracer_common::{
    flow::Flow,
    record::{Process, Record, Route},
    tally::{DeviceKey, DeviceTally, LikeKey, LikeTally, PassedKey, Tally, TallyKey},
};

/// Most fields that a list of them may have.
const MAX_FIELDS: usize = 4096;
/// Most bytes that the fields of a list may take.
pub const MAX_SIZE: usize = 64 << 10;

/// `["key.flow.src", 1, 16]`: the name of a number or of an array of them, the
/// bytes of each, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field(pub String, pub usize, pub usize);

/// The fields of one thing, in their order.
pub type Layout = Vec<Field>;

/// Something made of numbers only.
pub trait Plain: Sized {
    /// Lists its numbers, their names behind this one.
    fn list(name: &str, layout: &mut Layout);
    /// Writes them.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads them in the same order.
    fn take(from: &mut Numbers<'_>) -> Self;

    fn list_array(name: &str, count: usize, layout: &mut Layout) {
        for n in 0..count {
            Self::list(&under(name, &n.to_string()), layout);
        }
    }

    fn take_array<const N: usize>(from: &mut Numbers<'_>) -> [Self; N] {
        array::from_fn(|_| Self::take(from))
    }
}

/// The layout that this version writes.
pub fn layout<T: Plain>() -> Layout {
    let mut layout = Layout::new();
    T::list("", &mut layout);
    layout
}

fn under(name: &str, part: &str) -> String {
    match name {
        "" => part.to_owned(),
        name => format!("{name}.{part}"),
    }
}

/// Where a number, or an array of them, is in a file.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    offset: usize,
    /// Of all of them.
    length: usize,
    /// Bytes of each.
    bytes: usize,
}

/// Where the numbers of a thing are in a file.
#[derive(Debug)]
pub struct Plan {
    /// In the order of our own layout.
    places: Vec<At>,
    /// Bytes of the thing in the file.
    size: usize,
}

impl Plan {
    /// How to read a `T` from where it was written in this layout. Fails with
    /// the reason.
    pub fn of<T: Plain>(theirs: &Layout) -> Result<Self, String> {
        if theirs.len() > MAX_FIELDS {
            return Err(format!("a layout of {} fields", theirs.len()));
        }
        let mut offset: usize = 0;
        let mut known = HashMap::new();
        for Field(name, bytes, count) in theirs {
            if !matches!(bytes, 1 | 2 | 4 | 8) {
                return Err(format!("numbers of {bytes} bytes"));
            }
            let (bytes, length) = (*bytes, bytes.saturating_mul(*count));
            let at = At {
                offset,
                length,
                bytes,
            };
            known.insert(name.as_str(), at);
            offset = offset.saturating_add(length);
        }
        if offset > MAX_SIZE {
            return Err(format!("a layout of {offset} bytes"));
        }
        let places = layout::<T>()
            .iter()
            .map(|Field(name, ..)| known.get(name.as_str()).copied().unwrap_or_default())
            .collect();
        let size = offset;
        Ok(Self { places, size })
    }

    /// Reads one; gives what is behind it too. None if the bytes are too few, or
    /// a number is greater than this version has room for.
    pub fn read<'a, T: Plain>(&self, bytes: &'a [u8]) -> Option<(T, &'a [u8])> {
        let (thing, rest) = bytes.split_at_checked(self.size)?;
        let mut from = Numbers {
            bytes: thing,
            places: &self.places,
            overflow: false,
        };
        let thing = T::take(&mut from);
        (!from.overflow).then_some((thing, rest))
    }
}

/// The numbers of one thing, one after the other.
pub struct Numbers<'a> {
    bytes: &'a [u8],
    places: &'a [At],
    overflow: bool,
}

impl<'a> Numbers<'a> {
    /// The bytes of the next, and how many each has; none if the file has none of
    /// that name.
    fn next(&mut self) -> (&'a [u8], usize) {
        let Some((at, rest)) = self.places.split_first() else {
            return (&[], 0);
        };
        self.places = rest;
        let bytes = self.bytes.get(at.offset..at.offset + at.length);
        (bytes.unwrap_or_default(), at.bytes)
    }
}

/// A number of up to eight bytes.
fn wide(bytes: &[u8]) -> u64 {
    let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    bytes.iter().rev().fold(0, fold)
}

macro_rules! numbers {
    ($($number:ty),+) => {$(
        impl Plain for $number {
            fn list(name: &str, layout: &mut Layout) {
                Self::list_array(name, 1, layout);
            }

            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut Numbers<'_>) -> Self {
                let [number] = Self::take_array(from);
                number
            }

            fn list_array(name: &str, count: usize, layout: &mut Layout) {
                layout.push(Field(name.to_owned(), size_of::<Self>(), count));
            }

            fn take_array<const N: usize>(from: &mut Numbers<'_>) -> [Self; N] {
                let (bytes, size) = from.next();
                let mut all = [0; N];
                if size == size_of::<Self>() {
                    let (numbers, _) = bytes.as_chunks();
                    for (number, bytes) in all.iter_mut().zip(numbers) {
                        *number = Self::from_le_bytes(*bytes);
                    }
                } else if size > 0 {
                    // Another version had more or less room for it.
                    for (number, bytes) in all.iter_mut().zip(bytes.chunks_exact(size)) {
                        match Self::try_from(wide(bytes)) {
                            Ok(value) => *number = value,
                            Err(_) => from.overflow = true,
                        }
                    }
                }
                all
            }
        }
    )+};
}

numbers!(u8, u16, u32, u64, i32);

impl<T: Plain, const N: usize> Plain for [T; N] {
    fn list(name: &str, layout: &mut Layout) {
        T::list_array(name, N, layout);
    }

    fn put(&self, out: &mut Vec<u8>) {
        for item in self {
            item.put(out);
        }
    }

    fn take(from: &mut Numbers<'_>) -> Self {
        T::take_array(from)
    }
}

/// What is counted, and how much of it.
impl<K: Plain, V: Plain> Plain for (K, V) {
    fn list(name: &str, layout: &mut Layout) {
        K::list(&under(name, "key"), layout);
        V::list(&under(name, "value"), layout);
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut Numbers<'_>) -> Self {
        (K::take(from), V::take(from))
    }
}

/// The type of a field, by the field.
fn list_field<T, F: Plain>(_: fn(&T) -> &F, name: &str, layout: &mut Layout) {
    F::list(name, layout);
}

macro_rules! plain {
    ($($thing:ident { $($field:ident),+ $(,)? })+) => {$(
        impl Plain for $thing {
            fn list(name: &str, layout: &mut Layout) {
                $(list_field(
                    |thing: &Self| &thing.$field,
                    &under(name, stringify!($field)),
                    layout,
                );)+
            }

            fn put(&self, out: &mut Vec<u8>) {
                // All fields: a new one does not compile before it is listed.
                let Self { $($field),+ } = self;
                $($field.put(out);)+
            }

            fn take(from: &mut Numbers<'_>) -> Self {
                // In the order in which they stand here.
                Self { $($field: Plain::take(from)),+ }
            }
        }
    )+};
}

plain! {
    Flow { src, dst, sport, dport, ethertype, proto, icmp_type }
    Route {
        dst, src, gateway, dev, dev_ifindex, mark, oif, netns, table, table_errno, seen_at,
        gateway_family,
    }
    Process { comm, cgroup, tgid, uid, flags, iif }
    Record {
        version, size, cpu, time_ns, key, dev, kind, mtu, length, mark, outer_length, outer,
        origin, freed_dev, freed_ifindex, freed_netns, route, process, counters, stack, path,
        path_len, first, number,
    }
    TallyKey {
        flow, location, ifindex, netns, sender_ifindex, sender_netns, seen, reason, outer_dport,
        route_errno, route_type, route, outcome, freed_by, counters, told, told_type, told_code,
        outer_proto, reserved,
    }
    Tally { packets, bytes, last_ns }
    PassedKey { netns, ifindex, dst, ethertype, proto, icmp_type, port, reserved }
    LikeKey { netns, ifindex, mark, uid, cpu, size, flags }
    LikeTally { sent, dropped, lost }
    DeviceKey { netns, ifindex }
    DeviceTally { packets_in, sent, dropped, unexplained }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(thing: &impl Plain) -> Vec<u8> {
        let mut out = Vec::new();
        thing.put(&mut out);
        out
    }

    /// A record with every byte its own.
    fn record() -> Record {
        let bytes: Vec<u8> = (0..size_of::<Record>()).map(|n| (n * 7) as u8).collect();
        let (record, rest) = Plan::of::<Record>(&layout::<Record>())
            .unwrap()
            .read(&bytes)
            .unwrap();
        assert!(rest.is_empty(), "no padding: {} bytes left", rest.len());
        record
    }

    #[test]
    fn what_is_written_is_read() {
        let record = record();
        let bytes = encoded(&record);
        assert_eq!(bytes[8..16], record.time_ns.to_le_bytes());
        let plan = Plan::of::<Record>(&layout::<Record>()).unwrap();
        assert_eq!(plan.read(&bytes).unwrap(), (record, &[][..]));
        assert!(plan.read::<Record>(&bytes[1..]).is_none());
    }

    #[test]
    fn fields_go_by_their_names() {
        let tally = (
            DeviceKey {
                netns: 1,
                ifindex: 2,
            },
            3_u64,
        );
        // As another version may write it: in another order, one unknown, and
        // one not there.
        let theirs = vec![
            Field("new".to_owned(), 2, 3),
            Field("value".to_owned(), 8, 1),
            Field("key.ifindex".to_owned(), 4, 1),
        ];
        let mut bytes = vec![0xff; 6];
        bytes.extend(tally.1.to_le_bytes());
        bytes.extend(2_u32.to_le_bytes());
        bytes.push(9);
        let plan = Plan::of::<(DeviceKey, u64)>(&theirs).unwrap();
        let ((key, value), rest) = plan.read::<(DeviceKey, u64)>(&bytes).unwrap();
        assert_eq!((key.netns, key.ifindex, value, rest), (0, 2, 3, &[9][..]));
    }

    #[test]
    fn arrays_may_have_another_length() {
        let theirs = vec![Field(String::new(), 2, 2)];
        let plan = Plan::of::<[u16; 3]>(&theirs).unwrap();
        let (numbers, _) = plan.read::<[u16; 3]>(&[1, 0, 2, 0]).unwrap();
        assert_eq!(numbers, [1, 2, 0]);
    }

    #[test]
    fn a_number_may_have_another_size() {
        let theirs = vec![
            Field("ifindex".to_owned(), 8, 1),
            Field("netns".to_owned(), 2, 1),
        ];
        let plan = Plan::of::<DeviceKey>(&theirs).unwrap();
        let mut bytes = [7, 1, 0, 0, 0, 0, 0, 0, 5, 1];
        let (key, _) = plan.read::<DeviceKey>(&bytes).unwrap();
        assert_eq!((key.ifindex, key.netns), (0x107, 0x105));
        // More than there is room for is no zero.
        bytes[4] = 1;
        assert!(plan.read::<DeviceKey>(&bytes).is_none());
    }

    #[test]
    fn layouts_that_cannot_be_are_refused() {
        let field = |bytes, count| vec![Field("x".to_owned(), bytes, count)];
        for theirs in [
            field(3, 1),
            field(usize::MAX, usize::MAX),
            field(8, usize::MAX),
            vec![Field(String::new(), 1, 0); MAX_FIELDS + 1],
        ] {
            assert!(Plan::of::<DeviceKey>(&theirs).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_layout_and_any_bytes(
            fields in proptest::collection::vec(
                ("netns|ifindex|x", 0_usize..9, 0_usize..20), 0..5),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let theirs = fields.into_iter().map(|(a, b, c)| Field(a, b, c)).collect();
            if let Ok(plan) = Plan::of::<DeviceKey>(&theirs) {
                let _ = plan.read::<DeviceKey>(&bytes);
            }
        }
    }
}
