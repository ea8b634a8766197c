//! The running kernel's functions by address and by name, from
//! `/proc/kallsyms`: what `sit_tunnel_xmit+0x1a2 [sit]` a return address is in,
//! and under which names a function can be attached to.
//!
//! Only code is kept: data, per-CPU and absolute symbols are not. It does not
//! know whether a function can be probed, what its arguments are, or which
//! functions were inlined into it.
//!
//! Reading costs mostly the kernel's time (it prints every symbol anew), so the
//! table is small enough to keep and [`Symbols`] can be loaded on another
//! thread while programs load.

use std::{
    collections::HashMap,
    fmt, fs,
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read},
    path::Path,
    sync::OnceLock,
};

use anyhow::Context as _;

const KALLSYMS: &str = "/proc/kallsyms";
const MODULES: &str = "/proc/modules";

/// The kernel hands out a page at a time; longer lines than this are no
/// symbols (`KSYM_NAME_LEN` is 512).
const BUFFER: usize = 64 << 10;

/// Beyond these the rest is left out: a real kernel has 60k to 300k symbols.
const MAX_SYMBOLS: usize = 4 << 20;
const MAX_NAME_BYTES: usize = 256 << 20;

/// No function is as long; an address further behind one is in no function we
/// know (a module that is gone, data).
const MAX_FUNCTION: u64 = 1 << 20;

/// The compiler puts room for patches before each function, with a symbol of its
/// own. It is never run, so nothing returns there: half of all symbols are left
/// out, and what ends in a call that does not return keeps its name.
const PREFIX: &str = "__pfx_";

/// All functions, in order of their addresses.
pub struct Symbols {
    entries: Vec<Entry>,
    names: String,
    /// Names by `Entry::module` - 1.
    modules: Vec<Box<str>>,
    /// Where modules end, by name: what is behind them (programs that came
    /// later) is not theirs.
    ends: HashMap<Box<[u8]>, u64>,
    index: OnceLock<Index>,
    /// Of `/proc/modules` at the time.
    fingerprint: u64,
}

/// 16 bytes, because there are so many.
#[derive(Clone, Copy)]
struct Entry {
    address: u64,
    name: u32,
    name_len: u16,
    /// 0: the kernel itself.
    module: u16,
}

/// What an address is in. Shown as the kernel shows it, `name+0x1a [module]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    pub function: &'a str,
    /// `bpf` and `__builtin__ftrace` are the kernel's names for code that is
    /// made at run time.
    pub module: Option<&'a str>,
    pub offset: u64,
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            function,
            module,
            offset,
        } = self;
        write!(f, "{function}+{offset:#x}")?;
        match module {
            Some(module) => write!(f, " [{module}]"),
            None => Ok(()),
        }
    }
}

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    pub name: &'a str,
    /// 0 if addresses are hidden.
    pub address: u64,
    pub module: Option<&'a str>,
}

/// A function as the compiler left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant<'a> {
    pub symbol: Symbol<'a>,
    /// False for `.cold`, a part that is jumped into: it turns up in addresses
    /// but is never called.
    pub entry: bool,
}

impl Symbols {
    /// Reads the running kernel's.
    pub fn load() -> anyhow::Result<Self> {
        // Before the symbols: a module that comes in between is seen next time.
        let loaded = fs::read(MODULES).unwrap_or_default();
        let read = || Self::from_reader(File::open(KALLSYMS)?);
        let symbols = read().with_context(|| format!("cannot read {KALLSYMS}"))?;
        Ok(Self {
            ends: module_ends(&loaded),
            fingerprint: modules_fingerprint(&loaded),
            ..symbols
        })
    }

    /// Reads text in the format of `/proc/kallsyms`, skipping what is not.
    pub fn from_reader(reader: impl Read) -> io::Result<Self> {
        let mut table = Table::default();
        for_each_line(reader, |line| table.add(line))?;
        let Table {
            mut entries,
            mut names,
            mut modules,
            ..
        } = table;
        if !entries.is_sorted_by_key(|entry| entry.address) {
            // Stable: of several names for an address the kernel shows the first.
            entries.sort_by_key(|entry| entry.address);
        }
        entries.shrink_to_fit();
        names.shrink_to_fit();
        modules.shrink_to_fit();
        Ok(Self {
            entries,
            names,
            modules,
            ends: HashMap::new(),
            index: OnceLock::new(),
            fingerprint: 0,
        })
    }

    /// Reads again if a module came or went since; says whether it did. Costs a
    /// short file if not. (Programs, listed as `[bpf]`, do not count.)
    pub fn reload_if_changed(&mut self) -> anyhow::Result<bool> {
        let fingerprint = modules_fingerprint(&fs::read(MODULES).unwrap_or_default());
        if fingerprint == self.fingerprint {
            return Ok(false);
        }
        *self = Self::load()?;
        Ok(true)
    }

    /// Is this module's code there? Also true for one that is built in, if it
    /// shows in `/sys/module`; those without version and parameters do not.
    pub fn module_loaded(name: &str) -> bool {
        let name = name.replace('-', "_");
        if name.is_empty() || name.contains(['/', '.', '\0']) {
            return false;
        }
        let directory = Path::new("/sys/module").join(&name);
        if directory.is_dir() {
            // Built-in ones have no state ("live", "coming", "going").
            return fs::read_to_string(directory.join("initstate"))
                .map_or(true, |state| state.trim_end() == "live");
        }
        // /sys need not be mounted.
        let modules = fs::read(MODULES).unwrap_or_default();
        module_lines(&modules)
            .any(|[module, _, state, _]| module == name.as_bytes() && state == b"Live")
    }

    /// How many functions there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Are there names but no addresses? The kernel shows zeros without
    /// `CAP_SYSLOG`, or to all with `kernel.kptr_restrict=2`.
    pub fn hidden(&self) -> bool {
        // Sorted: the last is the greatest.
        self.entries.last().is_some_and(|entry| entry.address == 0)
    }

    /// The function an address is in. As in the kernel's own messages, it is
    /// the nearest at or before, and the first of several names for one.
    pub fn resolve(&self, address: u64) -> Option<Location<'_>> {
        let after = self
            .entries
            .partition_point(|entry| entry.address <= address);
        let start = self.entries.get(after.checked_sub(1)?)?.address;
        let first = self.entries.partition_point(|entry| entry.address < start);
        let entry = self.entries.get(first)?;
        let function = self.name(entry);
        let offset = address - start;
        // Code ends at these; what follows is data (vmlinux.lds.S).
        let end = matches!(function, "_etext" | "_einittext");
        if start == 0 || offset > MAX_FUNCTION || end {
            return None;
        }
        let module = self.module(entry);
        if module
            .and_then(|module| self.ends.get(module.as_bytes()))
            .is_some_and(|end| address >= *end)
        {
            return None;
        }
        Some(Location {
            function,
            module,
            offset,
        })
    }

    /// All functions of exactly this name; static ones may be in several
    /// modules, or several times in one.
    pub fn find<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Symbol<'a>> {
        self.same_stem(name)
            .filter(move |symbol| symbol.name == name)
    }

    /// The function and what the compiler made of it (`NAME.isra.0`,
    /// `NAME.constprop.0`, `NAME.part.0`, `NAME.cold`): itself first, then in
    /// order of addresses.
    pub fn clones(&self, name: &str) -> Vec<Variant<'_>> {
        let mut variants: Vec<_> = self
            .same_stem(name)
            .filter_map(|symbol| {
                let suffix = symbol.name.strip_prefix(name)?;
                let entry = !suffix.split('.').any(|part| part == "cold");
                is_clone_suffix(suffix).then_some(Variant { symbol, entry })
            })
            .collect();
        variants.sort_by_key(|variant| variant.symbol.name != name);
        variants
    }

    fn same_stem(&self, name: &str) -> impl Iterator<Item = Symbol<'_>> + use<'_> {
        let index = self.index.get_or_init(|| Index::build(self));
        let positions = index.positions(name).iter();
        positions.filter_map(|position| {
            let entry = self.entries.get(*position as usize)?;
            Some(Symbol {
                name: self.name(entry),
                address: entry.address,
                module: self.module(entry),
            })
        })
    }

    fn name(&self, entry: &Entry) -> &str {
        let start = entry.name as usize;
        self.names
            .get(start..start + usize::from(entry.name_len))
            .unwrap_or_default()
    }

    fn module(&self, entry: &Entry) -> Option<&str> {
        let module = usize::from(entry.module).checked_sub(1)?;
        self.modules.get(module).map(|name| &**name)
    }
}

/// A table in the making.
#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    names: String,
    modules: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u16>,
    /// The module of the line before: they come in runs.
    last_module: u16,
}

impl Table {
    /// `ffffffff81000000 T _stext`, or `ffffffffc0201000 t name\t[module]`
    /// (`kernel/kallsyms.c`, `s_show`).
    fn add(&mut self, line: &[u8]) {
        let Some((address, code, name, module)) = split_line(line) else {
            return;
        };
        let full =
            self.entries.len() >= MAX_SYMBOLS || self.names.len() + name.len() > MAX_NAME_BYTES;
        let Ok(name_len) = u16::try_from(name.len()) else {
            return;
        };
        if full || !matches!(code, b't' | b'T' | b'w' | b'W') || name.starts_with(PREFIX) {
            return;
        }
        let Some(module) = self.module_number(module) else {
            return;
        };
        let start = self.names.len() as u32;
        self.names.push_str(name);
        self.entries.push(Entry {
            address,
            name: start,
            name_len,
            module,
        });
    }

    fn module_number(&mut self, name: Option<&str>) -> Option<u16> {
        let Some(name) = name else { return Some(0) };
        let last = usize::from(self.last_module).checked_sub(1);
        if last
            .and_then(|last| self.modules.get(last))
            .is_some_and(|last| **last == *name)
        {
            return Some(self.last_module);
        }
        self.last_module = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = u16::try_from(self.modules.len() + 1).ok()?;
                self.modules.push(name.into());
                self.numbers.insert(name.into(), number);
                number
            }
        };
        Some(self.last_module)
    }
}

/// Address, type letter, name and module.
fn split_line(line: &[u8]) -> Option<(u64, u8, &str, Option<&str>)> {
    let space = line.iter().take(17).position(|byte| *byte == b' ')?;
    let (digits, rest) = line.split_at_checked(space)?;
    let [b' ', code, b' ', rest @ ..] = rest else {
        return None;
    };
    let mut address = 0;
    for digit in digits {
        address = address << 4 | u64::from(char::from(*digit).to_digit(16)?);
    }
    let rest = str::from_utf8(rest).ok()?;
    let (name, module) = match rest.split_once('\t') {
        None => (rest, None),
        Some((name, module)) => {
            let module = module.trim_end().strip_prefix('[')?.strip_suffix(']')?;
            (name, Some(module))
        }
    };
    (!digits.is_empty() && !name.is_empty()).then_some((address, *code, name, module))
}

/// Calls for each line that fits the buffer, without copying it.
fn for_each_line(mut reader: impl Read, mut call: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    // Within a line too long for the buffer.
    let mut skipping = false;
    loop {
        let count = match reader.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if count == 0 {
            if !skipping {
                call(buffer.get(..filled).unwrap_or_default());
            }
            return Ok(());
        }
        filled += count;
        let mut lines = buffer.get(..filled).unwrap_or_default();
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = lines.split_at(end);
            if !skipping {
                call(line);
            }
            skipping = false;
            lines = rest.get(1..).unwrap_or_default();
        }
        let left = lines.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
        if filled == BUFFER {
            skipping = true;
            filled = 0;
        }
    }
}

/// Functions by the hash of their name up to the first dot, which a function
/// and its clones have in common.
struct Index {
    /// Where each bucket starts in `order`, and where the last ends.
    starts: Vec<u32>,
    /// Positions in `Symbols::entries`, by bucket, then by address.
    order: Vec<u32>,
}

impl Index {
    fn build(symbols: &Symbols) -> Self {
        let count = symbols.entries.len();
        let buckets = (count / 4).next_power_of_two();
        let mut index = Self {
            starts: vec![0; buckets + 1],
            order: vec![0; count],
        };
        let hashes: Vec<u32> = symbols
            .entries
            .iter()
            .map(|entry| index.bucket(symbols.name(entry)) as u32)
            .collect();
        // Counting sort: sizes, their running sum, then each to its place.
        for hash in &hashes {
            if let Some(start) = index.starts.get_mut(*hash as usize) {
                *start += 1;
            }
        }
        let mut sum = 0;
        for start in &mut index.starts {
            sum += *start;
            *start = sum;
        }
        // Backwards, moving each end to its start.
        for (position, hash) in hashes.iter().enumerate().rev() {
            let Some(start) = index.starts.get_mut(*hash as usize) else {
                continue;
            };
            *start -= 1;
            if let Some(place) = index.order.get_mut(*start as usize) {
                *place = position as u32;
            }
        }
        index
    }

    fn positions(&self, name: &str) -> &[u32] {
        let bucket = self.bucket(name);
        match self.starts.get(bucket..bucket + 2) {
            Some([start, end]) => self
                .order
                .get(*start as usize..*end as usize)
                .unwrap_or_default(),
            _ => &[],
        }
    }

    fn bucket(&self, name: &str) -> usize {
        // FNV-1a.
        let hash = stem(name).bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        // One start more than buckets, and those are a power of two.
        (hash ^ hash >> 15) as usize & (self.starts.len() - 2)
    }
}

fn stem(name: &str) -> &str {
    name.split_once('.').map_or(name, |(stem, _)| stem)
}

/// `.isra.0`, `.constprop.0.cold`, `.llvm.1234`; also nothing at all.
fn is_clone_suffix(suffix: &str) -> bool {
    const WORDS: &[&str] = &[
        "isra",
        "constprop",
        "part",
        "cold",
        "localalias",
        "lto_priv",
        "llvm",
        "__uniq",
    ];
    let mut parts = suffix.split('.');
    parts.next() == Some("")
        && parts.all(|part| {
            WORDS.contains(&part)
                || !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// Changes when a module comes, goes or moves, not when it is used.
fn modules_fingerprint(modules: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for fields in module_lines(modules) {
        fields.hash(&mut hasher);
    }
    hasher.finish()
}

/// Where each module ends at the latest: it begins with its code, and the size
/// is that of all its parts. None where the kernel hides addresses.
fn module_ends(modules: &[u8]) -> HashMap<Box<[u8]>, u64> {
    let end = |size: &[u8], address: &[u8]| {
        let size: u64 = str::from_utf8(size).ok()?.parse().ok()?;
        let address = str::from_utf8(address).ok()?.strip_prefix("0x")?;
        let address = u64::from_str_radix(address, 16).ok()?;
        (address != 0).then(|| address.saturating_add(size))
    };
    module_lines(modules)
        .filter_map(|[name, size, _, address]| Some((name.into(), end(size, address)?)))
        .collect()
}

/// The modules there are, in whatever state.
pub fn modules() -> Vec<String> {
    let text = fs::read(MODULES).unwrap_or_default();
    let names = module_lines(&text).map(|[name, ..]| String::from_utf8_lossy(name).into_owned());
    names.collect()
}

/// Name, size, state and address of each line of `/proc/modules`:
/// `sit 40960 0 - Live 0xffffffffc05f2000`. The rest says who uses it.
fn module_lines(modules: &[u8]) -> impl Iterator<Item = [&[u8]; 4]> {
    modules.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let (name, size) = (fields.next()?, fields.next()?);
        let (state, address) = (fields.nth(2)?, fields.next()?);
        Some([name, size, state, address])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000010 t __pfx_ip_rcv
ffffffff81000020 T ip_rcv
ffffffff81000100 D jiffies
ffffffff81000200 t ip_rcv.part.0
ffffffff81000300 t ip_rcv.cold
ffffffff81000400 W ip_rcv_core
ffffffff81000500 t ip_rcv.isra.0.llvm.123
ffffffff81001000 T _etext
ffffffffc0002000 t send4\t[wireguard]
ffffffffc0001000 t send4\t[other]
ffffffffc0001000 t alias\t[other]
ffffffffc0003000 t bpf_prog_6deef7357e7b4530\t[bpf]
";

    fn sample() -> Symbols {
        Symbols::from_reader(TEXT.as_bytes()).unwrap()
    }

    fn shown(symbols: &Symbols, address: u64) -> Option<String> {
        symbols
            .resolve(address)
            .map(|location| location.to_string())
    }

    #[test]
    fn addresses() {
        let symbols = sample();
        assert_eq!(symbols.len(), 12, "all but the data and what is never run");
        assert!(!symbols.hidden() && !symbols.is_empty());
        let shown = |address| shown(&symbols, address);
        assert_eq!(
            shown(0xffff_ffff_8100_0004).unwrap(),
            "_stext+0x4",
            "the first name"
        );
        assert_eq!(
            shown(0xffff_ffff_8100_0010).unwrap(),
            "_stext+0x10",
            "a call at the end that did not return"
        );
        assert_eq!(shown(0xffff_ffff_8100_0120).unwrap(), "ip_rcv+0x100");
        assert_eq!(shown(0xffff_ffff_8100_0300).unwrap(), "ip_rcv.cold+0x0");
        assert_eq!(shown(0xffff_ffff_8100_1000), None, "after the code");
        assert_eq!(
            shown(0xffff_ffff_c000_1001).unwrap(),
            "send4+0x1 [other]",
            "sorted, stable"
        );
        assert_eq!(
            shown(0xffff_ffff_c000_2001).unwrap(),
            "send4+0x1 [wireguard]"
        );
        assert_eq!(
            shown(0xffff_ffff_c000_3010).unwrap(),
            "bpf_prog_6deef7357e7b4530+0x10 [bpf]"
        );
        assert_eq!(shown(u64::MAX), None, "too far");
        assert_eq!((shown(0), shown(0xffff_ffff_80ff_ffff)), (None, None));
    }

    #[test]
    fn modules_end() {
        let loaded = "other 4096 0 - Live 0xffffffffc0001000\n\
                      wireguard 256 1 x, Live 0xffffffffc0002000 (O)\n\
                      hidden 16384 0 - Live 0x0000000000000000\nodd\n";
        let ends = module_ends(loaded.as_bytes());
        assert_eq!(ends.len(), 2);
        let symbols = Symbols { ends, ..sample() };
        let shown = |address| shown(&symbols, address);
        assert!(shown(0xffff_ffff_c000_20ff).is_some());
        assert_eq!(shown(0xffff_ffff_c000_2100), None);
        assert!(shown(0xffff_ffff_c000_3010).is_some(), "made at run time");
    }

    #[test]
    fn names() {
        let symbols = sample();
        let modules: Vec<_> = symbols.find("send4").map(|symbol| symbol.module).collect();
        assert_eq!(modules, [Some("other"), Some("wireguard")]);
        assert_eq!(symbols.find("__pfx_ip_rcv").count(), 0);
        assert_eq!(symbols.find("jiffies").count(), 0);
        assert_eq!(symbols.find("").count(), 0);
        let variants: Vec<_> = symbols.clones("ip_rcv");
        let variants: Vec<_> = variants.iter().map(|v| (v.symbol.name, v.entry)).collect();
        assert_eq!(
            variants,
            [
                ("ip_rcv", true),
                ("ip_rcv.part.0", true),
                ("ip_rcv.cold", false),
                ("ip_rcv.isra.0.llvm.123", true)
            ]
        );
        assert_eq!(symbols.clones("ip_rcv.isra.0").len(), 1);
        assert!(symbols.clones("ip").is_empty());
    }

    #[test]
    fn weird_lines_are_skipped() {
        let long = "x".repeat(3 * BUFFER);
        let text = format!(
            "\n \nnonsense\n12 T\n12  T x\ng T x\n T x\n11112222333344445 T x\n12 T \n\
             12 T x\t[\n12 T x\tm\n1 T {long}\n2 T {}\n3 T ok\n4 t in\t[m] \n5 T last",
            "y".repeat(1000)
        );
        let symbols = Symbols::from_reader(text.as_bytes()).unwrap();
        let names: Vec<_> = symbols
            .entries
            .iter()
            .map(|entry| symbols.name(entry))
            .collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(names[1..], ["ok", "in", "last"]);
        assert_eq!(symbols.find("in").next().unwrap().module, Some("m"));
        let empty = Symbols::from_reader(&b""[..]).unwrap();
        assert!(empty.is_empty() && !empty.hidden());
        assert_eq!((empty.resolve(1), empty.clones("x").len()), (None, 0));
    }

    #[test]
    fn hidden_addresses() {
        let text = "0000000000000000 T a\n0000000000000000 t b\t[m]\n";
        let symbols = Symbols::from_reader(text.as_bytes()).unwrap();
        assert!(symbols.hidden());
        assert_eq!(symbols.resolve(5), None);
        assert_eq!(symbols.find("b").next().unwrap().module, Some("m"));
    }

    #[test]
    fn fingerprints_ignore_use() {
        let print = |text: &str| modules_fingerprint(text.as_bytes());
        let before = print("sit 40960 0 - Live 0x1\nip_tunnel 1 1 sit, Live 0x2\n");
        assert_eq!(
            before,
            print("sit 40960 7 - Live 0x1\nip_tunnel 1 2 sit, Live 0x2\n")
        );
        assert_ne!(before, print("ip_tunnel 1 1 sit, Live 0x2\n"));
        assert_ne!(
            before,
            print("sit 40960 0 - Live 0x3\nip_tunnel 1 1 sit, Live 0x2\n")
        );
        assert_eq!(print(""), print("strange\n"));
    }

    #[test]
    fn entries_are_small() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    proptest! {
        #[test]
        fn no_text_panics(lines in prop::collection::vec(
            "[0-9a-f]{0,18} {0,2}[tTwWDx]? {0,2}[a-c_.]{0,8}(\\.(isra|cold)\\.0)?(\t\\[[ab]\\])?", 0..40,
        )) {
            let symbols = Symbols::from_reader(lines.join("\n").as_bytes()).unwrap();
            for entry in &symbols.entries {
                let name = symbols.name(entry);
                prop_assert!(symbols.find(name).any(|symbol| symbol.address == entry.address));
                prop_assert!(symbols.clones(name).iter().any(|v| v.symbol.name == name));
                let at = symbols.resolve(entry.address);
                prop_assert!(at.is_none_or(|location| location.offset == 0));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let symbols = Symbols::from_reader(bytes.as_slice()).unwrap();
            prop_assert!(symbols.clones("a").len() <= symbols.len());
        }
    }

    #[test]
    fn the_running_kernel() {
        let Ok(mut symbols) = Symbols::load() else {
            eprintln!("skipped: no {KALLSYMS}");
            return;
        };
        assert!(!symbols.reload_if_changed().unwrap());
        let found = symbols.find("ip_rcv").next().unwrap();
        assert_eq!(found.module, None);
        if !symbols.hidden() {
            assert_eq!(shown(&symbols, found.address + 3).unwrap(), "ip_rcv+0x3");
        }
        assert!(!Symbols::module_loaded("no_such_module"));
        assert!(!Symbols::module_loaded("../module"));
    }
}
