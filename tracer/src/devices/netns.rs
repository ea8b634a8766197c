//! The network namespaces of this machine: which there are, and running code
//! inside them.
//!
//! A namespace is known by its inode, which is what the kernel has in
//! `ns.inum`. It is found through what keeps it alive: a process in it, or a
//! bind mount of it, named (`/run/netns/NAME`) or elsewhere (Docker keeps the
//! ones of its overlay networks, which have no process, in
//! `/run/docker/netns`). One that is kept only by an open file, by a single
//! thread of a process or by a mount of another mount namespace is not found.

use std::{
    collections::HashSet,
    ffi::{OsString, c_void},
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    panic,
    path::{Path, PathBuf},
    ptr, thread,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    ioctl::{Ioctl, IoctlOutput, Opcode, opcode},
    thread::LinkNameSpaceType,
};
use thiserror::Error;

use super::text::{did_you_mean, printable};

/// How many network namespaces are looked at.
pub const MAX_NETNS: usize = 4096;

/// How many processes are looked at in search of network namespaces.
const MAX_PROCESSES: usize = 1 << 18;

/// Where `ip netns` keeps the named ones; the second is most often a link to
/// the first.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// What `statfs` says of the file system of namespaces.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

const OWN: &str = "/proc/self/ns/net";

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    /// Its inode: `ns.inum` of the kernel's `struct net`.
    pub inode: u32,
    /// Its name in `/run/netns`, printable.
    pub name: Option<String>,
    /// A file that stands for it, as long as what keeps it there does.
    pub path: PathBuf,
}

/// Why a network namespace could not be found or entered.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// No name given at all.
    #[error("no network namespace given: expects NAME (ip netns list), PID or PATH")]
    Empty,
    /// No such name.
    #[error("no network namespace named '{name}' in /run/netns (ip netns list){hint}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Names close to it: empty, or begins with a comma.
        hint: String,
    },
    /// A name and a file, but no longer a namespace.
    #[error(
        "'{path}' is a leftover of a network namespace that is gone \
         (ip netns delete {name}, then ip netns add {name})"
    )]
    Leftover {
        /// The name asked for.
        name: String,
        /// The file.
        path: String,
    },
    /// No such process.
    #[error("no process {0}, nor a network namespace of that name (ps -e, ip netns list)")]
    NoProcess(u32),
    /// A process that is ending has none.
    #[error("process {0} has no network namespace any more: it is ending")]
    Ending(u32),
    /// A file, but not a network namespace.
    #[error("'{0}' is not a network namespace (such as /run/netns/NAME or /proc/PID/ns/net)")]
    NotNetns(String),
    /// The file cannot be looked at.
    #[error("cannot read '{path}': {source}{}", way_out(*.source))]
    Read {
        /// The file.
        path: String,
        /// The system's reason.
        source: Errno,
    },
    /// Nothing that is known keeps it alive any more.
    #[error("network namespace {0} is gone")]
    Gone(String),
    /// The kernel does not let this process in.
    #[error("cannot enter network namespace {label}: {source}{}", needs_admin(*.source))]
    Enter {
        /// What it is called.
        label: String,
        /// The system's reason.
        source: Errno,
    },
    /// No thread to run in.
    #[error("cannot start a thread for network namespace {label}: {source}")]
    Thread {
        /// What it is called.
        label: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// What [`scan`] found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The network namespaces, each once.
    pub netns: Vec<Netns>,
    /// What could not be looked at, as sentences for the user.
    pub problems: Vec<String>,
}

impl Netns {
    /// What to call it: its name, `own`, `pid N`, or where it is mounted.
    pub fn label(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        if self.path == Path::new(OWN) {
            return "own".to_owned();
        }
        match pid_of(&self.path) {
            Some(pid) => format!("pid {pid}"),
            None => printable(self.path.as_os_str().as_bytes()),
        }
    }

    /// Moves the calling thread into it.
    fn join(&self) -> Result<(), NetnsError> {
        if current().is_ok_and(|inode| inode == self.inode) {
            return Ok(());
        }
        let fd = match self.open() {
            // What kept it may have ended while something else still does.
            Err(NetnsError::Gone(label)) => scan()
                .netns
                .into_iter()
                .find(|other| other.inode == self.inode)
                .ok_or(NetnsError::Gone(label))?
                .open()?,
            opened => opened?,
        };
        rustix::thread::move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|source| NetnsError::Enter {
                label: self.label(),
                source,
            })
    }

    fn open(&self) -> Result<OwnedFd, NetnsError> {
        match open(&self.path) {
            // A path can stand for another one by now: names and process ids
            // are used again.
            Ok(Some((fd, inode))) if inode == self.inode => Ok(fd),
            Ok(_) | Err(Errno::NOENT | Errno::SRCH | Errno::NOTDIR) => {
                Err(NetnsError::Gone(self.label()))
            }
            Err(source) => Err(unreadable(&self.path, source)),
        }
    }
}

/// The process id in `/proc/PID/ns/net`.
fn pid_of(path: &Path) -> Option<u32> {
    let path = path.to_str()?.strip_prefix("/proc/")?;
    path.strip_suffix("/ns/net")?.parse().ok()
}

/// Runs `f` on a thread of its own inside the network namespace, and gives what
/// it returned. Sockets opened there stay in that namespace.
///
/// Needs `CAP_SYS_ADMIN`, unless it is the caller's own one.
pub fn with<T: Send>(netns: &Netns, f: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| {
        let inside = || {
            netns.join()?;
            Ok(f())
        };
        let handle = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, inside)
            .map_err(|source| NetnsError::Thread {
                label: netns.label(),
                source,
            })?;
        match handle.join() {
            Ok(result) => result,
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}

/// The network namespace of the calling thread.
pub fn own() -> Result<Netns, NetnsError> {
    let inode = current()?;
    let path = if matches!(link_inode(Path::new(OWN)), Ok(Some(process)) if process == inode) {
        PathBuf::from(OWN)
    } else {
        let thread = rustix::thread::gettid();
        PathBuf::from(format!("/proc/self/task/{thread}/ns/net"))
    };
    Ok(named_as(inode, path))
}

/// The network namespaces that can be found: the caller's own one, the named
/// ones, those mounted elsewhere and those of processes. At most [`MAX_NETNS`];
/// what cannot be read is left out.
#[cfg(test)]
pub fn list() -> Vec<Netns> {
    scan().netns
}

/// The network namespace the user means: the NAME of one in `/run/netns`, the
/// PID of a process in it, or a PATH (with a `/` in it).
pub fn find(spec: &str) -> Result<Netns, NetnsError> {
    if spec.is_empty() {
        return Err(NetnsError::Empty);
    }
    if spec.contains('/') {
        let path = PathBuf::from(spec);
        return match identify(&path) {
            Ok(Some(inode)) => Ok(named_as(inode, path)),
            Ok(None) => Err(NetnsError::NotNetns(printable(spec.as_bytes()))),
            Err(source) => Err(unreadable(&path, source)),
        };
    }
    // As for ip(8), a name goes before a process id.
    if spec != "." && spec != ".." && !spec.contains('\0') {
        for directory in NAMED {
            let path = Path::new(directory).join(spec);
            match identify(&path) {
                Ok(Some(inode)) => {
                    return Ok(Netns {
                        inode,
                        name: Some(printable(spec.as_bytes())),
                        path,
                    });
                }
                Ok(None) => {
                    return Err(NetnsError::Leftover {
                        name: printable(spec.as_bytes()),
                        path: printable(path.as_os_str().as_bytes()),
                    });
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => {}
                Err(source) => return Err(unreadable(&path, source)),
            }
        }
    }
    if spec.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(pid) = spec.parse()
    {
        return of_process(pid);
    }
    let known = named();
    let names = known.iter().filter_map(|netns| netns.name.as_deref());
    Err(NetnsError::Unknown {
        name: printable(spec.as_bytes()),
        hint: did_you_mean(spec.as_bytes(), names.map(str::as_bytes)),
    })
}

/// The network namespace with this inode, if anything that is known keeps it.
pub fn by_inode(inode: u32) -> Option<Netns> {
    let own = own().ok().filter(|own| own.inode == inode);
    own.or_else(|| scan().netns.into_iter().find(|netns| netns.inode == inode))
}

/// Finds the network namespaces, and says what could not be looked at.
pub(super) fn scan() -> Scan {
    let mut scan = Scan::default();
    let mut seen = HashSet::new();
    // Own goes first, to be there whatever the bound; then the named ones, as
    // a name is the best there is to call one.
    let mut known = named();
    match own() {
        Ok(own) => known.insert(0, own),
        Err(problem) => scan.problems.push(problem.to_string()),
    }
    known.extend(mounted());
    for netns in known {
        if seen.insert(netns.inode) {
            scan.netns.push(netns);
        }
    }
    let mut hidden = 0_usize;
    match fs::read_dir("/proc") {
        Ok(entries) => {
            let pids = entries.filter_map(|entry| {
                let name = entry.ok()?.file_name();
                name.to_str()?.parse::<u32>().ok()
            });
            for (count, pid) in pids.enumerate() {
                if count >= MAX_PROCESSES {
                    scan.problems.push(format!(
                        "more than {MAX_PROCESSES} processes: \
                         the network namespaces of the others were not looked for"
                    ));
                    break;
                }
                if scan.netns.len() > MAX_NETNS {
                    break;
                }
                let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
                match link_inode(&path) {
                    Ok(Some(inode)) if seen.insert(inode) => scan.netns.push(Netns {
                        inode,
                        name: None,
                        path,
                    }),
                    Err(Errno::ACCESS | Errno::PERM) => hidden += 1,
                    // Seen before, or the process has ended.
                    _ => {}
                }
            }
        }
        Err(problem) => scan.problems.push(format!("cannot list /proc: {problem}")),
    }
    if hidden > 0 {
        scan.problems.push(format!(
            "the network namespaces of some processes ({hidden}) could not be read \
             (needs root with CAP_SYS_PTRACE)"
        ));
    }
    if scan.netns.len() > MAX_NETNS {
        scan.netns.truncate(MAX_NETNS);
        scan.problems.push(format!(
            "more than {MAX_NETNS} network namespaces: the others were left out"
        ));
    }
    scan
}

/// Those in `/run/netns`, sorted by name.
fn named() -> Vec<Netns> {
    let mut found: Vec<Netns> = Vec::new();
    for directory in NAMED {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            let name = printable(entry.file_name().as_bytes());
            let known = |netns: &Netns| netns.name.as_deref() == Some(&name);
            if found.iter().any(known) {
                continue;
            }
            if let Ok(Some(inode)) = identify(&path) {
                found.push(Netns {
                    inode,
                    name: Some(name),
                    path,
                });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Those bound anywhere in the caller's mount namespace.
fn mounted() -> Vec<Netns> {
    let Ok(mounts) = fs::read("/proc/thread-self/mountinfo") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for line in mounts.split(|byte| *byte == b'\n') {
        let Some((inode, path)) = mounted_netns(line) else {
            continue;
        };
        // Another mount may hide it.
        if identify(&path) == Ok(Some(inode)) {
            found.push(Netns {
                inode,
                name: None,
                path,
            });
        }
    }
    found
}

/// The network namespace and the path in a line of `mountinfo`, if it is of
/// one.
fn mounted_netns(line: &[u8]) -> Option<(u32, PathBuf)> {
    // id parent major:minor root mountpoint options…
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let inode = parse_inode(fields.next()?)?;
    Some((inode, unescape_mount(fields.next()?)))
}

/// Undoes the `\ooo` which the kernel writes for white space and backslashes.
fn unescape_mount(mut text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        let digits = rest.first_chunk::<3>().filter(|_| byte == b'\\');
        let code = digits.and_then(|digits| {
            let digits = str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match code {
            Some(code) => {
                path.push(code);
                text = rest.get(3..).unwrap_or_default();
            }
            None => path.push(byte),
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

fn of_process(pid: u32) -> Result<Netns, NetnsError> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    match link_inode(&path) {
        Ok(Some(inode)) => Ok(named_as(inode, path)),
        Ok(None) => Err(NetnsError::NotNetns(path.display().to_string())),
        Err(Errno::NOENT | Errno::SRCH) => {
            if Path::new(&format!("/proc/{pid}")).exists() {
                Err(NetnsError::Ending(pid))
            } else {
                Err(NetnsError::NoProcess(pid))
            }
        }
        Err(source) => Err(unreadable(&path, source)),
    }
}

fn named_as(inode: u32, path: PathBuf) -> Netns {
    let name = named()
        .into_iter()
        .find(|netns| netns.inode == inode)
        .and_then(|netns| netns.name);
    Netns { inode, name, path }
}

/// The inode of the calling thread's network namespace.
fn current() -> Result<u32, NetnsError> {
    let path = Path::new("/proc/thread-self/ns/net");
    match link_inode(path) {
        Ok(Some(inode)) => Ok(inode),
        Ok(None) => Err(NetnsError::NotNetns(path.display().to_string())),
        Err(source) => Err(unreadable(path, source)),
    }
}

/// The inode of the network namespace that this file stands for, or none when
/// it is something else.
fn identify(path: &Path) -> Result<Option<u32>, Errno> {
    Ok(open(path)?.map(|(_, inode)| inode))
}

/// Opens this file if it stands for a network namespace; gives its inode too.
fn open(path: &Path) -> Result<Option<(OwnedFd, u32)>, Errno> {
    // With O_PATH nothing happens to whatever else it is.
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatfs(&file)?.f_type != NSFS_MAGIC {
        return Ok(None);
    }
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    let fd = rustix::fs::open(same, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: the file is of nsfs, whose request this is.
    let kind = unsafe { rustix::ioctl::ioctl(&fd, GetKind) }?;
    if kind != LinkNameSpaceType::Network as IoctlOutput {
        return Ok(None);
    }
    let inode = u32::try_from(rustix::fs::fstat(&fd)?.st_ino);
    Ok(inode.ok().map(|inode| (fd, inode)))
}

/// `NS_GET_NSTYPE`: which kind of namespace the open file stands for.
struct GetKind;

// SAFETY: the request takes no argument and writes to no memory; its result is
// what the call returns.
unsafe impl Ioctl for GetKind {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::none(0xb7, 3)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        returned: IoctlOutput,
        _: *mut c_void,
    ) -> rustix::io::Result<IoctlOutput> {
        Ok(returned)
    }
}

/// The inode in the text (`net:[INODE]`) of one of the links in `/proc` to the
/// network namespaces of processes and threads.
fn link_inode(link: &Path) -> Result<Option<u32>, Errno> {
    let text = rustix::fs::readlink(link, Vec::new())?;
    Ok(parse_inode(text.as_bytes()))
}

fn parse_inode(text: &[u8]) -> Option<u32> {
    let inode = text.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    str::from_utf8(inode).ok()?.parse().ok()
}

fn unreadable(path: &Path, source: Errno) -> NetnsError {
    NetnsError::Read {
        path: printable(path.as_os_str().as_bytes()),
        source,
    }
}

fn way_out(problem: Errno) -> &'static str {
    match problem {
        Errno::ACCESS | Errno::PERM => " (needs root with CAP_SYS_PTRACE)",
        Errno::NOENT | Errno::NOTDIR => " (ip netns list, lsns -t net)",
        _ => "",
    }
}

fn needs_admin(problem: Errno) -> &'static str {
    match problem {
        Errno::PERM | Errno::ACCESS => {
            " (needs CAP_SYS_ADMIN, also in the user namespace that owns it: run as root)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_is_listed_and_enterable() {
        let own = own().unwrap();
        assert!(own.inode > 0);
        assert!(list().iter().any(|netns| netns.inode == own.inode));
        let inside = with(&own, || current().unwrap()).unwrap();
        assert_eq!(inside, own.inode);
        assert_eq!(by_inode(own.inode), Some(own));
        assert_eq!(by_inode(1), None);
    }

    #[test]
    fn finds_by_pid_and_path() {
        let own = own().unwrap();
        let pid = std::process::id().to_string();
        assert_eq!(find(&pid).unwrap().inode, own.inode);
        assert_eq!(find(OWN).unwrap().inode, own.inode);
    }

    #[test]
    fn says_what_is_wrong_and_the_way_out() {
        let text = |spec| find(spec).unwrap_err().to_string();
        assert_eq!(
            text("no-such-netns"),
            "no network namespace named 'no-such-netns' in /run/netns (ip netns list)"
        );
        assert_eq!(
            text("4294967295"),
            "no process 4294967295, nor a network namespace of that name \
             (ps -e, ip netns list)"
        );
        assert_eq!(
            text("/dev/null"),
            "'/dev/null' is not a network namespace \
             (such as /run/netns/NAME or /proc/PID/ns/net)"
        );
        assert!(text("/proc/self/ns/mnt").contains("is not a network namespace"));
        assert!(text("/no/such").contains("'/no/such'"));
        assert!(text("").contains("NAME"));
        assert!(text("..").contains("named '..'"));
        assert!(text("99999999999999999999").contains("no network namespace named"));
        assert!(text("a\x1b\0").contains("'a\\x1b\\x00'"));
    }

    #[test]
    fn a_reused_path_is_not_entered() {
        let stale = Netns {
            inode: 1,
            name: None,
            path: PathBuf::from(OWN),
        };
        assert!(matches!(with(&stale, || ()), Err(NetnsError::Gone(_))));
        let ended = Netns {
            inode: 1,
            name: Some("blue".to_owned()),
            path: PathBuf::from("/run/netns/no-such"),
        };
        let problem = with(&ended, || ()).unwrap_err();
        assert_eq!(problem.to_string(), "network namespace blue is gone");
    }

    #[test]
    fn reads_mountinfo() {
        let line =
            b"201 30 0:4 net:[4026532288] /run/docker/netns/1-a\\040b rw shared:9 - nsfs nsfs rw";
        let path = PathBuf::from("/run/docker/netns/1-a b");
        assert_eq!(mounted_netns(line), Some((4026532288, path)));
        assert_eq!(mounted_netns(b"22 1 8:1 / / rw - ext4 /dev/sda1 rw"), None);
        assert_eq!(mounted_netns(b""), None);
        assert_eq!(unescape_mount(b"a\\"), PathBuf::from("a\\"));
        assert_eq!(unescape_mount(b"a\\04"), PathBuf::from("a\\04"));
        assert_eq!(unescape_mount(b"\\134x"), PathBuf::from("\\x"));
    }

    #[test]
    fn labels() {
        let label = |path: &str| {
            let netns = Netns {
                inode: 1,
                name: None,
                path: PathBuf::from(path),
            };
            netns.label()
        };
        assert_eq!(label(OWN), "own");
        assert_eq!(label("/proc/42/ns/net"), "pid 42");
        assert_eq!(label("/run/docker/netns/1-abc"), "/run/docker/netns/1-abc");
    }
}
