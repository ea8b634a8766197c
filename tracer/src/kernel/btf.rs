//! The running kernel's description of its own types (BTF): where a member
//! lies, how big a struct is, what an enum's numbers mean, which functions
//! exist and what their arguments are called.
//!
//! Everything the programs need to know about a kernel's layout is asked here,
//! by name, when the tracer starts; nothing is remembered per version.
//!
//! It is not a general BTF library: it does not load, write, deduplicate or
//! relocate BTF, has no type graph to walk and knows only this machine's byte
//! order. Reading costs one pass over the types that notes where each starts;
//! names are hashed once, when the first one is asked for.
//!
//! The format is described in the kernel's `Documentation/bpf/btf.rst` and
//! `include/uapi/linux/btf.h`. The bytes are not trusted: no input panics,
//! memory stays within a small multiple of the input, and every walk along
//! types has an end.

use std::{
    fs::File,
    io::{self, Read as _},
    iter,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// Where the kernel shows its BTF, one file for itself and one per module.
const DIRECTORY: &str = "/sys/kernel/btf";

/// No kernel comes near: distributions have 4 to 8 MB.
const MAX_BYTES: usize = 64 << 20;

/// How many modifiers, array dimensions or nested anonymous structs are
/// followed before a type is taken for a loop.
const MAX_DEPTH: u32 = 32;

/// How many members one question may look at; `struct net_device` with
/// everything in it has some hundreds.
const MAX_MEMBERS: u32 = 1 << 20;

/// `BTF_MAGIC`, `struct btf_header` (uapi/linux/btf.h).
const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
const HEADER: usize = 24;
/// Length of a header that ends with `layout_off` and `layout_len` (7.1).
const HEADER_WITH_LAYOUT: usize = 32;
/// `sizeof(struct btf_type)`: `name_off`, `info`, `size` or `type`.
const RECORD: usize = 12;

/// `BTF_KIND_*` (uapi/linux/btf.h). FWD, VAR, DATASEC and DECL_TAG are only
/// stepped over.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// A set of kinds, one bit each.
#[derive(Clone, Copy)]
struct Kinds(u32);

impl Kinds {
    const COMPOSITE: Self = Self(1 << kind::STRUCT | 1 << kind::UNION);
    const ENUM: Self = Self(1 << kind::ENUM | 1 << kind::ENUM64);
    const FUNC: Self = Self(1 << kind::FUNC);
    const TYPEDEF: Self = Self(1 << kind::TYPEDEF);
    /// What can be asked for by name.
    const NAMED: Self = Self(Self::COMPOSITE.0 | Self::ENUM.0 | Self::FUNC.0 | Self::TYPEDEF.0);
    /// Say nothing about layout and are looked through.
    const MODIFIER: Self = Self(
        1 << kind::TYPEDEF
            | 1 << kind::VOLATILE
            | 1 << kind::CONST
            | 1 << kind::RESTRICT
            | 1 << kind::TYPE_TAG,
    );

    fn contains(self, kind: u32) -> bool {
        1u32.checked_shl(kind).is_some_and(|bit| self.0 & bit != 0)
    }
}

/// Why there is no usable BTF.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error("no BTF in {}: this kernel was built without CONFIG_DEBUG_INFO_BTF", .0.display())]
    NoKernel(PathBuf),
    #[error(
        "no BTF in {}: the module is not loaded, or was built without \
         CONFIG_DEBUG_INFO_BTF_MODULES", .0.display()
    )]
    NoModule(PathBuf),
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("BTF of more than {} MB", MAX_BYTES >> 20)]
    TooLong,
    #[error("not BTF: the magic is {0:#06x}")]
    Magic(u16),
    #[error("BTF of a machine with the other byte order")]
    ForeignOrder,
    #[error("BTF version {0}, only {VERSION} is known")]
    Version(u8),
    #[error("BTF is cut off in its {0}")]
    Section(&'static str),
    #[error("BTF strings do not begin or end with a NUL")]
    Strings,
    #[error("BTF ends inside type {id}")]
    CutOff { id: u32 },
    #[error("BTF type {id} has the unknown kind {kind}")]
    UnknownKind { kind: u32, id: u32 },
}

/// Where a member lies in its outermost struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the struct; for a bit-field the byte that holds
    /// its first bit.
    pub byte_offset: u32,
    /// Bytes to read: the size of the type, 0 where it has none (flexible
    /// array), or for a bit-field the bytes it touches.
    pub size: u32,
    /// For a bit-field: its first bit within the byte at `byte_offset`, counted
    /// as BTF does (from the least significant bit on little-endian), and how
    /// many bits it has.
    pub bit: Option<(u8, u8)>,
}

/// The types of the kernel, or of one module on top of the kernel's.
pub struct Btf {
    bytes: Vec<u8>,
    /// Where the type and the string section lie in `bytes`.
    types: Range<usize>,
    strings: Range<usize>,
    /// Where in `bytes` each type starts; the first has the id `first_id`.
    offsets: Vec<u32>,
    /// A module continues the ids and the string offsets of its base.
    first_id: u32,
    first_string: u32,
    pointer_size: u32,
    index: OnceLock<Index>,
    base: Option<Arc<Btf>>,
}

impl Btf {
    /// The running kernel's.
    pub fn vmlinux() -> Result<Self, BtfError> {
        let path = Path::new(DIRECTORY).join("vmlinux");
        Self::parse(read(&path, BtfError::NoKernel)?)
    }

    /// A loaded module's, on top of the kernel's.
    pub fn module(name: &str, base: &Arc<Self>) -> Result<Self, BtfError> {
        // Files and /sys know modules by underscores, people by either.
        let name = name.replace('-', "_");
        let path = Path::new(DIRECTORY).join(&name);
        if name.is_empty() || name.contains(['/', '\0', '.']) {
            return Err(BtfError::NoModule(path));
        }
        Self::parse_split(read(&path, BtfError::NoModule)?, base)
    }

    /// BTF that stands for itself.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        Self::parse_on(bytes, None)
    }

    /// BTF whose type ids and string offsets continue those of `base`
    /// (btf.rst, "split BTF").
    pub fn parse_split(bytes: Vec<u8>, base: &Arc<Self>) -> Result<Self, BtfError> {
        Self::parse_on(bytes, Some(Arc::clone(base)))
    }

    fn parse_on(bytes: Vec<u8>, base: Option<Arc<Self>>) -> Result<Self, BtfError> {
        if bytes.len() > MAX_BYTES {
            return Err(BtfError::TooLong);
        }
        let header = Header::read(&bytes)?;
        // The empty string at offset 0 belongs to the base where there is one,
        // and a module may have no strings of its own.
        let strings = bytes.get(header.strings.clone()).unwrap_or_default();
        let first = base.is_some() || strings.first() == Some(&0);
        let last = strings.is_empty() && base.is_some() || strings.last() == Some(&0);
        if !first || !last {
            return Err(BtfError::Strings);
        }
        let (first_id, first_string, pointer_size) = match base.as_deref() {
            None => (1, 0, 8),
            Some(base) => (base.next_id(), base.next_string(), base.pointer_size),
        };
        let mut btf = Self {
            types: header.types,
            strings: header.strings,
            offsets: Vec::new(),
            first_id,
            first_string,
            pointer_size,
            index: OnceLock::new(),
            base,
            bytes,
        };
        btf.offsets = btf.scan(&header.layout)?;
        if btf.base.is_none() {
            btf.pointer_size = btf.long_size().unwrap_or(8);
        }
        Ok(btf)
    }

    /// Notes where each type starts and that it lies within the section whole.
    fn scan(&self, layout: &Range<usize>) -> Result<Vec<u32>, BtfError> {
        let layout = self.bytes.get(layout.clone()).unwrap_or_default();
        let bytes = self.bytes.get(..self.types.end).unwrap_or_default();
        // An average type of a kernel takes 25 bytes.
        let mut offsets = Vec::with_capacity(self.types.len() / 24);
        let mut at = self.types.start;
        while at < self.types.end {
            let id = self.first_id.saturating_add(offsets.len() as u32);
            let info = u32_at(bytes, at + 4).ok_or(BtfError::CutOff { id })?;
            let (kind, count) = (kind_of(info), vlen_of(info));
            let (once, each) = tail_size(kind)
                .or_else(|| layout_of(layout, kind))
                .ok_or(BtfError::UnknownKind { kind, id })?;
            let end = at + RECORD + once + each * count;
            if end > self.types.end {
                return Err(BtfError::CutOff { id });
            }
            // Fits: `MAX_BYTES`.
            offsets.push(at as u32);
            at = end;
        }
        offsets.shrink_to_fit();
        Ok(offsets)
    }

    /// Byte offset and size of a member, by the path one would write in C from
    /// a variable of type `struct strukt`: `nd_net.net`. Anonymous structs and
    /// unions need no mention; pointers and arrays are not followed. A union or
    /// the name of a typedef of either will do for `strukt`.
    pub fn member(&self, strukt: &str, path: &str) -> Option<Member> {
        let mut container = self.named(strukt, Kinds::COMPOSITE)?;
        let mut bits = 0u64;
        let mut budget = MAX_MEMBERS;
        let mut steps = path.split('.').peekable();
        loop {
            let found = self.find_member(&container, steps.next()?, &mut budget, MAX_DEPTH)?;
            bits = bits.checked_add(found.bits)?;
            if steps.peek().is_none() {
                return self.place(bits, &found);
            }
            container = self
                .resolve(found.type_id)
                .filter(|record| Kinds::COMPOSITE.contains(record.kind()))?;
        }
    }

    /// Size of a struct or union in bytes.
    #[cfg(test)]
    pub fn size_of(&self, strukt: &str) -> Option<u32> {
        Some(self.named(strukt, Kinds::COMPOSITE)?.size_or_type)
    }

    /// The enumerators of an enum, in order of their declaration. Values of an
    /// unsigned 64 bit enum above `i64::MAX` come out negative.
    pub fn enum_values(&self, name: &str) -> Option<Vec<(i64, &str)>> {
        let record = self.named(name, Kinds::ENUM)?;
        let wide = record.kind() == kind::ENUM64;
        let values = record
            .entries(if wide { 12 } else { 8 })
            .filter_map(|entry| {
                let name = self.string(u32_at(entry, 0)?);
                let low = u32_at(entry, 4)?;
                let value = if wide {
                    (i64::from(u32_at(entry, 8)?) << 32) | i64::from(low)
                } else if record.flag() {
                    i64::from(low as i32)
                } else {
                    i64::from(low)
                };
                Some((value, name))
            });
        Some(values.collect())
    }

    /// Is there a function of this name? Those the compiler inlined everywhere,
    /// or whose copies disagree about their arguments, are not listed.
    pub fn has_func(&self, name: &str) -> bool {
        self.find(name, Kinds::FUNC).next().is_some()
    }

    /// Names of a function's parameters; `...` for variable arguments.
    pub fn func_params(&self, name: &str) -> Option<Vec<&str>> {
        let function = self.find(name, Kinds::FUNC).next()?;
        let prototype = self.record(function.size_or_type)?;
        if prototype.kind() != kind::FUNC_PROTO {
            return None;
        }
        let names = prototype.entries(8).filter_map(|entry| {
            let (name, type_id) = (u32_at(entry, 0)?, u32_at(entry, 4)?);
            // btf.rst: a last parameter without name and type is the ellipsis.
            Some(if (name, type_id) == (0, 0) {
                "..."
            } else {
                self.string(name)
            })
        });
        Some(names.collect())
    }

    /// Number of arguments a raw tracepoint hands to its programs, that is of
    /// its `TP_PROTO`. None if there is no such tracepoint.
    ///
    /// The kernel declares `typedef void (*btf_trace_NAME)(void *__data, ..)`
    /// for each (`include/trace/bpf_probe.h`).
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        let pointer = self
            .find(&format!("btf_trace_{name}"), Kinds::TYPEDEF)
            .find_map(|typedef| self.resolve(typedef.size_or_type))?;
        if pointer.kind() != kind::PTR {
            return None;
        }
        let prototype = self.resolve(pointer.size_or_type)?;
        if prototype.kind() != kind::FUNC_PROTO {
            return None;
        }
        prototype.count().checked_sub(1)
    }

    /// Names of those arguments. The typedef has none; the function that calls
    /// the probes has (`__traceiter_NAME`, `include/linux/tracepoint.h`, 5.10),
    /// or the one that runs the programs (`__bpf_trace_CLASS`), which bears
    /// the tracepoint's name only where that is also its class.
    #[cfg(test)]
    pub fn tracepoint_params(&self, name: &str) -> Option<Vec<&str>> {
        let count = self.tracepoint_args(name)?;
        ["__traceiter_", "__bpf_trace_"].iter().find_map(|prefix| {
            let names = self.func_params(&format!("{prefix}{name}"))?;
            let names = names.get(1..)?;
            let usable = names.len() == count && names.iter().all(|name| !name.is_empty());
            usable.then(|| names.to_vec())
        })
    }

    /// The first complete definition of this name among `kinds`, or what a
    /// typedef of this name stands for. Declarations (FWD, an enum without
    /// values) and empty structs only count where there is nothing better.
    fn named(&self, name: &str, kinds: Kinds) -> Option<Record<'_>> {
        let mut incomplete = None;
        for record in self.find(name, kinds) {
            if record.count() > 0 {
                return Some(record);
            }
            incomplete.get_or_insert(record);
        }
        incomplete.or_else(|| {
            self.find(name, Kinds::TYPEDEF)
                .filter_map(|typedef| self.resolve(typedef.size_or_type))
                .find(|record| kinds.contains(record.kind()))
        })
    }

    /// All types of this name and these kinds, a module's own before its base's.
    fn find<'a>(&'a self, name: &str, kinds: Kinds) -> impl Iterator<Item = Record<'a>> {
        // Strings end at a NUL: such a name, like none, matches nothing.
        let askable = !name.is_empty() && !name.as_bytes().contains(&0);
        iter::successors(askable.then_some(self), |btf| btf.base.as_deref()).flat_map(move |btf| {
            let index = btf.index.get_or_init(|| Index::build(btf));
            index.chain(name.as_bytes()).filter_map(move |position| {
                let record = btf.own_record(position)?;
                (kinds.contains(record.kind()) && btf.is_named(record.name_off, name))
                    .then_some(record)
            })
        })
    }

    /// Looks for a member in a struct and in the anonymous ones within it.
    fn find_member(
        &self,
        container: &Record<'_>,
        name: &str,
        budget: &mut u32,
        depth: u32,
    ) -> Option<FoundMember> {
        let depth = depth.checked_sub(1)?;
        if name.is_empty() {
            return None;
        }
        for entry in container.entries(12) {
            *budget = budget.checked_sub(1)?;
            let (name_off, type_id, offset) =
                (u32_at(entry, 0)?, u32_at(entry, 4)?, u32_at(entry, 8)?);
            // btf.rst: with kind_flag, 24 bits of offset below 8 of width.
            let (bits, width) = if container.flag() {
                (offset & 0x00ff_ffff, Some((offset >> 24) as u8))
            } else {
                (offset, None)
            };
            let bits = u64::from(bits);
            if self.is_named(name_off, name) {
                return Some(FoundMember {
                    type_id,
                    bits,
                    width,
                });
            }
            if self.is_named(name_off, "") {
                let inner = self
                    .resolve(type_id)
                    .filter(|record| Kinds::COMPOSITE.contains(record.kind()));
                let found = inner.and_then(|inner| self.find_member(&inner, name, budget, depth));
                if let Some(found) = found {
                    return Some(FoundMember {
                        bits: found.bits + bits,
                        ..found
                    });
                }
            }
        }
        None
    }

    /// Turns a distance in bits into what a reader needs.
    fn place(&self, mut bits: u64, found: &FoundMember) -> Option<Member> {
        let width = match found.width {
            // A struct with kind_flag says which of its members are bit-fields;
            // in others an odd integer is one.
            Some(0) => None,
            Some(width) => Some(width),
            None => self.odd_integer(found.type_id).map(|(offset, width)| {
                bits += u64::from(offset);
                width
            }),
        };
        let byte_offset = u32::try_from(bits / 8).ok()?;
        let first = (bits % 8) as u8;
        Some(match width {
            Some(width) => Member {
                byte_offset,
                size: (u32::from(first) + u32::from(width)).div_ceil(8),
                bit: Some((first, width)),
            },
            None if first == 0 => Member {
                byte_offset,
                size: self.size(found.type_id),
                bit: None,
            },
            None => return None,
        })
    }

    /// `BTF_INT_OFFSET` and `BTF_INT_BITS` of an integer that does not fill its
    /// bytes: how bit-fields were written before kind_flag.
    fn odd_integer(&self, type_id: u32) -> Option<(u8, u8)> {
        let record = self
            .resolve(type_id)
            .filter(|record| record.kind() == kind::INT)?;
        let [width, _, offset, _] = u32_at(record.tail, 0)?.to_le_bytes();
        let whole = u64::from(record.size_or_type) * 8 == u64::from(width);
        (offset != 0 || !whole).then_some((offset, width))
    }

    /// Bytes a type takes; 0 where that is unknown.
    fn size(&self, type_id: u32) -> u32 {
        let mut type_id = type_id;
        let mut count = 1u32;
        for _ in 0..MAX_DEPTH {
            let Some(record) = self.resolve(type_id) else {
                return 0;
            };
            let size = match record.kind() {
                kind::PTR => self.pointer_size,
                kind::ARRAY => {
                    // struct btf_array: type, index_type, nelems.
                    let (Some(element), Some(elements)) =
                        (u32_at(record.tail, 0), u32_at(record.tail, 8))
                    else {
                        return 0;
                    };
                    type_id = element;
                    count = count.checked_mul(elements).unwrap_or(0);
                    continue;
                }
                kind::INT
                | kind::STRUCT
                | kind::UNION
                | kind::ENUM
                | kind::ENUM64
                | kind::FLOAT => record.size_or_type,
                _ => 0,
            };
            return count.checked_mul(size).unwrap_or(0);
        }
        0
    }

    /// Size of `long`, which is that of a pointer in every kernel.
    fn long_size(&self) -> Option<u32> {
        (0..self.offsets.len())
            .filter_map(|position| self.own_record(position as u32))
            .filter(|record| record.kind() == kind::INT && matches!(record.size_or_type, 4 | 8))
            .find(|record| {
                ["long unsigned int", "long int", "unsigned long", "long"]
                    .iter()
                    .any(|name| self.is_named(record.name_off, name))
            })
            .map(|record| record.size_or_type)
    }

    /// The type itself, behind typedefs and qualifiers.
    fn resolve(&self, type_id: u32) -> Option<Record<'_>> {
        let mut record = self.record(type_id)?;
        for _ in 0..MAX_DEPTH {
            if !Kinds::MODIFIER.contains(record.kind()) {
                return Some(record);
            }
            record = self.record(record.size_or_type)?;
        }
        None
    }

    /// A type by its id; none for 0, which is `void`.
    fn record(&self, type_id: u32) -> Option<Record<'_>> {
        let mut home = self;
        while type_id < home.first_id {
            home = home.base.as_deref()?;
        }
        home.own_record(type_id - home.first_id)
    }

    fn own_record(&self, position: u32) -> Option<Record<'_>> {
        let at = *self.offsets.get(position as usize)? as usize;
        let bytes = self.bytes.get(at..self.types.end)?;
        let (head, tail) = bytes.split_at_checked(RECORD)?;
        Some(Record {
            name_off: u32_at(head, 0)?,
            info: u32_at(head, 4)?,
            size_or_type: u32_at(head, 8)?,
            tail,
        })
    }

    fn next_id(&self) -> u32 {
        self.first_id.saturating_add(self.offsets.len() as u32)
    }

    fn next_string(&self) -> u32 {
        self.first_string.saturating_add(self.strings.len() as u32)
    }

    /// The string section from this offset on: the string, its NUL, the rest.
    fn string_bytes(&self, offset: u32) -> &[u8] {
        let mut home = self;
        while offset < home.first_string {
            let Some(base) = home.base.as_deref() else {
                return &[];
            };
            home = base;
        }
        home.bytes
            .get(home.strings.clone())
            .and_then(|strings| strings.get((offset - home.first_string) as usize..))
            .unwrap_or_default()
    }

    /// Names are C identifiers of less than `KSYM_NAME_LEN` (512) bytes; what is
    /// far longer or not even UTF-8 has no name.
    fn string(&self, offset: u32) -> &str {
        let bytes = self.string_bytes(offset);
        let end = bytes
            .iter()
            .take(4096)
            .position(|byte| *byte == 0)
            .unwrap_or(0);
        bytes
            .get(..end)
            .and_then(|name| str::from_utf8(name).ok())
            .unwrap_or_default()
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let rest = self.string_bytes(offset).strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Where the sections lie in the bytes, checked to do so.
struct Header {
    types: Range<usize>,
    strings: Range<usize>,
    /// One `struct btf_layout` per kind (7.1); empty in older kernels.
    layout: Range<usize>,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, BtfError> {
        let cut_off = || BtfError::Section("header");
        let fixed: &[u8; HEADER] = bytes.first_chunk().ok_or_else(cut_off)?;
        let magic = u16::from_ne_bytes([fixed[0], fixed[1]]);
        if magic == MAGIC.swap_bytes() {
            return Err(BtfError::ForeignOrder);
        }
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        if fixed[2] != VERSION {
            return Err(BtfError::Version(fixed[2]));
        }
        let field = |at| u32_at(bytes, at).map(|value| value as usize);
        let length = field(4).ok_or_else(cut_off)?;
        if length < HEADER || length > bytes.len() {
            return Err(cut_off());
        }
        // Sections count from the end of the header.
        let section = |at, name| {
            let error = BtfError::Section(name);
            let (Some(offset), Some(size)) = (field(at), field(at + 4)) else {
                return Err(error);
            };
            let range = length
                .checked_add(offset)
                .and_then(|start| Some(start..start.checked_add(size)?));
            range.filter(|range| range.end <= bytes.len()).ok_or(error)
        };
        Ok(Self {
            types: section(8, "types")?,
            strings: section(16, "strings")?,
            layout: if length >= HEADER_WITH_LAYOUT {
                section(24, "layout")?
            } else {
                0..0
            },
        })
    }
}

/// One type as it is written: `struct btf_type` and what follows it.
#[derive(Clone, Copy)]
struct Record<'a> {
    name_off: u32,
    info: u32,
    size_or_type: u32,
    /// From the end of `struct btf_type` to the end of the section.
    tail: &'a [u8],
}

impl<'a> Record<'a> {
    fn kind(&self) -> u32 {
        kind_of(self.info)
    }

    /// `kind_flag`: bit-fields in a struct, signed values in an enum.
    fn flag(&self) -> bool {
        self.info >> 31 != 0
    }

    fn count(&self) -> usize {
        vlen_of(self.info)
    }

    /// Members, values or parameters.
    fn entries(&self, size: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.tail.chunks_exact(size).take(self.count())
    }
}

/// A member before bits are turned into bytes.
struct FoundMember {
    type_id: u32,
    bits: u64,
    /// Bits of a bit-field, 0 for none; not there if the struct does not say.
    width: Option<u8>,
}

/// `BTF_INFO_KIND`: 5 bits up to 7.0, 7 since; the two were zero before.
fn kind_of(info: u32) -> u32 {
    (info >> 24) & 0x7f
}

/// `BTF_INFO_VLEN`: 16 bits up to 7.0, 24 since; the eight were zero before.
fn vlen_of(info: u32) -> usize {
    (info & 0x00ff_ffff) as usize
}

/// How many bytes follow the `struct btf_type` of a kind: once, and for each of
/// its entries (btf.rst, "Type Encoding").
fn tail_size(kind: u32) -> Option<(usize, usize)> {
    Some(match kind {
        kind::INT | kind::VAR | kind::DECL_TAG => (4, 0),
        kind::ARRAY => (12, 0),
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => (0, 12),
        kind::ENUM | kind::FUNC_PROTO => (0, 8),
        // Of a FUNC the count is the linkage.
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => (0, 0),
        _ => return None,
    })
}

/// The same for a kind that is younger than this program, where the kernel
/// tells: `struct btf_layout { u8 info_sz; u8 elem_sz; u16 flags; }` by kind.
fn layout_of(layout: &[u8], kind: u32) -> Option<(usize, usize)> {
    // Kind 0 is not a type.
    let entry = layout
        .chunks_exact(4)
        .nth(kind as usize)
        .filter(|_| kind != 0)?;
    Some((usize::from(*entry.first()?), usize::from(*entry.get(1)?)))
}

/// Named types by the hash of their name.
struct Index {
    /// Per bucket its first type, per type the next in its bucket; both as
    /// position + 1, so that 0 ends a chain.
    heads: Vec<u32>,
    next: Vec<u32>,
}

impl Index {
    fn build(btf: &Btf) -> Self {
        let buckets = (btf.offsets.len() / 2).next_power_of_two();
        let mut index = Self {
            heads: vec![0; buckets],
            next: vec![0; btf.offsets.len()],
        };
        // Backwards: chains then run in the order of the types.
        for position in (0..btf.offsets.len()).rev() {
            let Some(record) = btf.own_record(position as u32) else {
                continue;
            };
            let name = btf.string_bytes(record.name_off);
            if !Kinds::NAMED.contains(record.kind()) || name.first().is_none_or(|c| *c == 0) {
                continue;
            }
            let bucket = index.bucket(name);
            if let (Some(head), Some(next)) =
                (index.heads.get_mut(bucket), index.next.get_mut(position))
            {
                *next = *head;
                *head = position as u32 + 1;
            }
        }
        index
    }

    /// Positions of the types that may bear this name.
    fn chain(&self, name: &[u8]) -> impl Iterator<Item = u32> + use<'_> {
        let head = self.heads.get(self.bucket(name)).copied().unwrap_or(0);
        iter::successors(head.checked_sub(1), |position| {
            self.next.get(*position as usize)?.checked_sub(1)
        })
    }

    /// FNV-1a of the name up to its NUL. The end of an absurdly long name is
    /// left out, so that many types cannot share the cost of one.
    fn bucket(&self, name: &[u8]) -> usize {
        let name = name.iter().take(64).take_while(|byte| **byte != 0);
        let hash = name.fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        (hash ^ (hash >> 15)) as usize & (self.heads.len() - 1)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read(path: &Path, absent: fn(PathBuf) -> BtfError) -> Result<Vec<u8>, BtfError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => absent(path.to_owned()),
        _ => BtfError::Read {
            path: path.to_owned(),
            source,
        },
    };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    // One byte more than there is lets the last read find the end.
    let mut bytes = Vec::with_capacity((length as usize).min(MAX_BYTES) + 1);
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// Writes BTF for tests.
#[cfg(test)]
pub(super) mod fixture {
    use super::*;

    pub(in super::super) struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
        first_string: u32,
        next_id: u32,
    }

    impl Builder {
        pub(in super::super) fn new() -> Self {
            Self {
                types: vec![],
                strings: vec![0],
                first_string: 0,
                next_id: 1,
            }
        }

        pub(in super::super) fn on(base: &Btf) -> Self {
            Self {
                types: vec![],
                strings: vec![],
                first_string: base.next_string(),
                next_id: base.next_id(),
            }
        }

        pub(in super::super) fn string(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let offset = self.first_string + self.strings.len() as u32;
            self.strings.extend(name.bytes().chain([0]));
            offset
        }

        pub(in super::super) fn add(
            &mut self,
            name: &str,
            kind: u32,
            flag: bool,
            count: usize,
            size_or_type: u32,
            tail: &[u32],
        ) -> u32 {
            let name = self.string(name);
            let info = u32::from(flag) << 31 | kind << 24 | count as u32;
            for word in [name, info, size_or_type].iter().chain(tail) {
                self.types.extend(word.to_ne_bytes());
            }
            self.next_id += 1;
            self.next_id - 1
        }

        pub(in super::super) fn int(&mut self, name: &str, size: u32, bits: u32) -> u32 {
            self.add(name, kind::INT, false, 0, size, &[bits])
        }

        /// Members: name, type, bits (with the width above, if `flag`).
        pub(in super::super) fn strukt(
            &mut self,
            name: &str,
            kind: u32,
            flag: bool,
            size: u32,
            members: &[(&str, u32, u32)],
        ) -> u32 {
            let tail: Vec<u32> = members
                .iter()
                .flat_map(|(name, id, bits)| [self.string(name), *id, *bits])
                .collect();
            self.add(name, kind, flag, members.len(), size, &tail)
        }

        pub(in super::super) fn enumeration(
            &mut self,
            name: &str,
            flag: bool,
            values: &[(&str, u32)],
        ) -> u32 {
            let tail: Vec<u32> = values
                .iter()
                .flat_map(|(name, value)| [self.string(name), *value])
                .collect();
            self.add(name, kind::ENUM, flag, values.len(), 4, &tail)
        }

        pub(in super::super) fn bytes(&self, layout: &[u8]) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let mut bytes = MAGIC.to_ne_bytes().to_vec();
            bytes.extend([VERSION, 0]);
            let length = if layout.is_empty() { 24 } else { 32 };
            for word in [length, 0, types, types, strings] {
                bytes.extend(u32::to_ne_bytes(word));
            }
            if !layout.is_empty() {
                bytes.extend((types + strings).to_ne_bytes());
                bytes.extend((layout.len() as u32).to_ne_bytes());
            }
            bytes.extend(&self.types);
            bytes.extend(&self.strings);
            bytes.extend(layout);
            bytes
        }

        pub(in super::super) fn build(&self) -> Btf {
            Btf::parse(self.bytes(&[])).unwrap()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{fixture::Builder, *};

    fn whole(byte_offset: u32, size: u32) -> Option<Member> {
        Some(Member {
            byte_offset,
            size,
            bit: None,
        })
    }

    fn bits(byte_offset: u32, size: u32, first: u8, width: u8) -> Option<Member> {
        Some(Member {
            byte_offset,
            size,
            bit: Some((first, width)),
        })
    }

    /// All kinds; structs with everything `member` has to look through.
    fn sample() -> Builder {
        let mut b = Builder::new();
        let int = b.int("int", 4, 32);
        b.int("long int", 8, 64);
        let flag = b.int("flag", 4, 2 << 16 | 3);
        let pointer = b.add("", kind::PTR, false, 0, 0, &[]);
        let array = b.add("", kind::ARRAY, false, 0, 0, &[int, int, 5]);
        let matrix = b.add("", kind::ARRAY, false, 0, 0, &[array, int, 2]);
        let flexible = b.add("", kind::ARRAY, false, 0, 0, &[int, int, 0]);
        b.add("outer", kind::FWD, false, 0, 0, &[]);
        let named = b.strukt(
            "named",
            kind::STRUCT,
            false,
            8,
            &[("x", int, 0), ("y", int, 32)],
        );
        let alias = b.add("named_t", kind::TYPEDEF, false, 0, named, &[]);
        let tagged = b.add("tag", kind::TYPE_TAG, false, 0, alias, &[]);
        let constant = b.add("", kind::CONST, false, 0, tagged, &[]);
        let volatile = b.add("", kind::VOLATILE, false, 0, constant, &[]);
        let restrict = b.add("", kind::RESTRICT, false, 0, volatile, &[]);
        let within = [("p", pointer, 0), ("", named, 0)];
        let union = b.strukt("", kind::UNION, false, 8, &within);
        b.strukt("outer", kind::STRUCT, false, 0, &[]);
        b.strukt(
            "outer",
            kind::STRUCT,
            true,
            96,
            &[
                ("first", int, 0),
                ("low", int, 3 << 24 | 33),
                ("wide", int, 10 << 24 | 38),
                ("", union, 64),
                ("inner", restrict, 128),
                ("m", matrix, 192),
                ("tail", flexible, 768),
            ],
        );
        b.strukt("outer", kind::STRUCT, false, 4, &[("second", int, 0)]);
        b.strukt(
            "old",
            kind::STRUCT,
            false,
            4,
            &[("a", flag, 8), ("b", int, 3)],
        );
        b.add("f", kind::FLOAT, false, 0, 8, &[]);
        b.enumeration("signed", true, &[("MINUS", u32::MAX), ("TWO", 2)]);
        b.enumeration("unsigned", false, &[("MASK", 0xffff_0000)]);
        let name = b.string("BIG");
        b.add("wide", kind::ENUM64, false, 1, 8, &[name, 1, 2]);
        let (data, skb) = (b.string("__data"), b.string("skb"));
        let anonymous = b.add("", kind::FUNC_PROTO, false, 2, 0, &[0, pointer, 0, pointer]);
        let named = [data, pointer, skb, pointer];
        let named = b.add("", kind::FUNC_PROTO, false, 2, 0, &named);
        let variadic = b.add("", kind::FUNC_PROTO, false, 2, 0, &[skb, pointer, 0, 0]);
        let pointer = b.add("", kind::PTR, false, 0, anonymous, &[]);
        b.add("btf_trace_free", kind::TYPEDEF, false, 0, pointer, &[]);
        let function = b.add("__traceiter_free", kind::FUNC, false, 1, named, &[]);
        b.add("printk", kind::FUNC, false, 1, variadic, &[]);
        let variable = b.add("jiffies", kind::VAR, false, 0, int, &[1]);
        b.add("bpf_kfunc", kind::DECL_TAG, false, 0, function, &[u32::MAX]);
        b.add(".data", kind::DATASEC, false, 1, 4, &[variable, 0, 4]);
        b
    }

    #[test]
    fn members_of_all_shapes() {
        let btf = sample().build();
        assert_eq!(btf.size_of("outer"), Some(96));
        assert_eq!(btf.size_of("named_t"), Some(8));
        assert_eq!(btf.size_of("int"), None);
        assert_eq!(btf.member("outer", "first"), whole(0, 4));
        assert_eq!(btf.member("outer", "low"), bits(4, 1, 1, 3));
        assert_eq!(btf.member("outer", "wide"), bits(4, 2, 6, 10));
        assert_eq!(btf.member("outer", "p"), whole(8, 8));
        assert_eq!(
            btf.member("outer", "y"),
            whole(12, 4),
            "two anonymous levels"
        );
        assert_eq!(
            btf.member("outer", "inner.y"),
            whole(20, 4),
            "behind modifiers"
        );
        assert_eq!(btf.member("outer", "inner"), whole(16, 8));
        assert_eq!(btf.member("outer", "m"), whole(24, 40));
        assert_eq!(btf.member("outer", "tail"), whole(96, 0));
        assert_eq!(
            btf.member("outer", "second"),
            None,
            "the first complete struct"
        );
        for path in [
            "",
            ".",
            "inner.",
            "first.x",
            "p.x",
            "m.x",
            "inner.z",
            "inner.y.y",
            "\0",
        ] {
            assert_eq!(btf.member("outer", path), None, "{path:?}");
        }
        assert_eq!(btf.member("old", "a"), bits(1, 1, 2, 3), "BTF_INT_OFFSET");
        assert_eq!(
            btf.member("old", "b"),
            None,
            "neither whole nor a bit-field"
        );
        assert_eq!(btf.member("", "first"), None);
        assert_eq!(btf.member("outer\0named", "x"), None);
    }

    #[test]
    fn enums_functions_and_tracepoints() {
        let btf = sample().build();
        assert_eq!(
            btf.enum_values("signed"),
            Some(vec![(-1, "MINUS"), (2, "TWO")])
        );
        assert_eq!(
            btf.enum_values("unsigned"),
            Some(vec![(0xffff_0000, "MASK")])
        );
        assert_eq!(btf.enum_values("wide"), Some(vec![((2 << 32) + 1, "BIG")]));
        assert_eq!(btf.enum_values("outer"), None);
        assert!(btf.has_func("printk") && !btf.has_func("outer"));
        assert_eq!(btf.func_params("printk"), Some(vec!["skb", "..."]));
        assert_eq!(btf.tracepoint_args("free"), Some(1));
        assert_eq!(btf.tracepoint_params("free"), Some(vec!["skb"]));
        assert_eq!(btf.tracepoint_args("absent"), None);
    }

    #[test]
    fn a_module_continues_its_base() {
        let base = Arc::new(sample().build());
        let mut b = Builder::on(&base);
        let new = b.strukt("tunnel", kind::STRUCT, false, 8, &[("net", 9, 32)]);
        b.strukt("named", kind::STRUCT, false, 4, &[("own", new, 0)]);
        let module = Btf::parse_split(b.bytes(&[]), &base).unwrap();
        assert_eq!(
            module.member("tunnel", "net.y"),
            whole(8, 4),
            "type 9 is the base's"
        );
        assert_eq!(
            module.member("named", "own.net.x"),
            whole(4, 4),
            "own before base"
        );
        assert_eq!(module.member("outer", "inner.y"), whole(20, 4));
        assert!(module.has_func("printk"));
        let empty = Btf::parse_split(Builder::on(&base).bytes(&[]), &base).unwrap();
        assert_eq!(empty.size_of("outer"), Some(96));
    }

    #[test]
    fn errors_name_the_cause() {
        let good = sample().bytes(&[]);
        let with = |at: usize, byte| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Btf::parse(bytes).err().unwrap().to_string()
        };
        assert!(with(0, 0).contains("magic"));
        assert!(with(2, 9).contains("version 9"));
        assert!(with(good.len() - 1, b'x').contains("NUL"));
        assert_eq!(with(24 + 7, 20), "BTF type 1 has the unknown kind 20");
        let mut swapped = good.clone();
        swapped.swap(0, 1);
        assert!(matches!(Btf::parse(swapped), Err(BtfError::ForeignOrder)));
        for length in 0..good.len() {
            assert!(Btf::parse(good[..length].to_vec()).is_err(), "{length}");
        }
        let base = Arc::new(sample().build());
        for name in ["", "..", "a/b", "no_such_module"] {
            assert!(matches!(
                Btf::module(name, &base),
                Err(BtfError::NoModule(_))
            ));
        }
    }

    #[test]
    fn a_described_kind_is_stepped_over() {
        let mut b = Builder::new();
        b.add("new", 21, false, 2, 0, &[7, 1, 1, 2, 2]);
        b.strukt("after", kind::STRUCT, false, 4, &[]);
        let mut layout = vec![0; 22 * 4];
        (layout[84], layout[85]) = (4, 8);
        assert_eq!(
            Btf::parse(b.bytes(&layout)).unwrap().size_of("after"),
            Some(4)
        );
        assert!(Btf::parse(b.bytes(&[])).is_err());
    }

    #[test]
    fn loops_end() {
        let mut b = Builder::new();
        b.add("t", kind::TYPEDEF, false, 0, 1, &[]);
        b.add("", kind::ARRAY, false, 0, 0, &[2, 2, 1]);
        let many = vec![("", 3, 0); 3000];
        b.strukt("s", kind::STRUCT, false, 4, &many);
        b.strukt("u", kind::STRUCT, false, 4, &[("t", 1, 0), ("a", 2, 0)]);
        let btf = b.build();
        assert_eq!(btf.size_of("t"), None);
        assert_eq!(btf.member("s", "x"), None);
        assert_eq!(btf.member("u", "t"), whole(0, 0));
        assert_eq!(btf.member("u", "a"), whole(0, 0));
    }

    /// Asks everything there is to ask.
    fn ask(btf: &Btf) {
        for name in [
            "outer",
            "old",
            "named_t",
            "t",
            "signed",
            "sk_buff",
            "net_device",
        ] {
            let _ = btf.size_of(name);
            let _ = btf.enum_values(name);
            for path in [
                "first",
                "y",
                "inner.y",
                "wide",
                "m",
                "a",
                "dev",
                "nd_net.net",
            ] {
                let _ = btf.member(name, path);
            }
        }
        let _ = (btf.enum_values("wide"), btf.func_params("printk"));
        let _ = (btf.tracepoint_args("free"), btf.tracepoint_params("free"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let base = Arc::new(sample().build());
            let mut framed = MAGIC.to_ne_bytes().to_vec();
            framed.extend([VERSION, 0]);
            framed.extend(&bytes);
            for bytes in [bytes, framed] {
                let _ = Btf::parse(bytes.clone()).map(|btf| ask(&btf));
                let _ = Btf::parse_split(bytes, &base).map(|btf| ask(&btf));
            }
        }

        #[test]
        fn no_mutation_panics(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
            small: bool,
        ) {
            let base = Arc::new(sample().build());
            let mut bytes = sample().bytes(&[]);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = if small { byte % 48 } else { byte };
            }
            let _ = Btf::parse(bytes.clone()).map(|btf| ask(&btf));
            let _ = Btf::parse_split(bytes, &base).map(|btf| ask(&btf));
        }
    }

    /// None where the machine that runs the tests has no BTF.
    fn real() -> Option<Btf> {
        match Btf::vmlinux() {
            Ok(btf) => Some(btf),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    #[test]
    fn the_running_kernel() {
        let Some(btf) = real() else { return };
        // These have not moved since 5.10.
        assert_eq!(btf.member("sk_buff", "dev"), whole(16, 8));
        assert_eq!(btf.member("iphdr", "saddr"), whole(12, 4));
        assert_eq!(
            btf.member("rtable", "dst.dev"),
            btf.member("dst_entry", "dev")
        );
        assert!(btf.member("net", "ns.inum").is_some());
        assert!(btf.member("net_device", "nd_net.net").is_some());
        assert_eq!(btf.member("sk_buff", "ip_summed"), bits(128, 1, 5, 2));
        assert!(
            btf.tracepoint_args("kfree_skb")
                .is_some_and(|args| args >= 2)
        );
        assert_eq!(btf.tracepoint_params("kfree_skb").unwrap()[0], "skb");
        assert_eq!(btf.func_params("ip_rcv").unwrap()[0], "skb");
    }

    #[test]
    fn a_damaged_real_kernel_does_not_panic() {
        let Some(Btf { bytes, types, .. }) = real() else {
            return;
        };
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20 {
            let mut bytes = bytes.clone();
            for _ in 0..2000 {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                // Mostly values that keep the walk going.
                let at = types.start + (state >> 33) as usize % (bytes.len() - types.start);
                bytes[at] = if at % 4 == 3 {
                    bytes[at]
                } else {
                    (state >> 20) as u8
                };
            }
            let _ = Btf::parse(bytes.clone()).map(|btf| ask(&btf));
            bytes.truncate(bytes.len() - (state >> 60) as usize);
            let _ = Btf::parse(bytes).map(|btf| ask(&btf));
        }
    }
}
