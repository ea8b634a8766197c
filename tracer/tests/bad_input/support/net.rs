//! A network namespace with a tunnel that swallows everything.

use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    net::UdpSocket,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_name};

/// How the cause is called that its packets vanish for.
pub const CAUSE: &str = "no-fdb-entry";

/// The namespace, until it is dropped.
pub struct Net {
    pub name: String,
}

impl Net {
    /// One with a vxlan device of this name, which forwards to nowhere. Says
    /// so where the kernel makes none.
    pub fn new(dev: impl AsRef<[u8]>) -> Option<Self> {
        Self::named("", dev)
    }

    /// The same, with this in the namespace's name.
    pub fn named(suffix: &str, dev: impl AsRef<[u8]>) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dev = OsStr::from_bytes(dev.as_ref());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tracer-{}-{number}{suffix}", std::process::id());
        ip(["netns", "add", &name].map(OsStr::new)).expect("ip netns add");
        let net = Self { name };
        // Only what is sent on purpose is to vanish.
        net.inside(|| fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"))
            .expect("no IPv6");
        let vxlan = ["type", "vxlan", "id", "42", "dstport", "4789"];
        let mut link = vec![OsStr::new("link"), OsStr::new("add"), dev];
        link.extend(vxlan.map(OsStr::new));
        if let Err(problem) = net.ip(&link) {
            eprintln!("skipped: this kernel makes no vxlan device: {problem}");
            return None;
        }
        for words in [
            &["address", "add", "192.168.9.1/24", "dev", ""][..],
            &["link", "set", "", "up"],
            &[
                "neighbour",
                "add",
                "192.168.9.2",
                "lladdr",
                "02:00:00:00:00:02",
                "dev",
                "",
            ],
        ] {
            // The empty word stands for the device.
            let words = words.iter().map(|word| match *word {
                "" => dev,
                word => OsStr::new(word),
            });
            net.ip(&words.collect::<Vec<_>>()).expect("ip");
        }
        Some(net)
    }

    /// Lets packets vanish, sent by a thread of this name.
    pub fn send(&self, packets: u32, comm: &[u8]) {
        self.inside(|| {
            set_name(&CString::new(comm).expect("no zero in it")).expect("a name");
            let socket = UdpSocket::bind("192.168.9.1:0").expect("an address of the tunnel");
            for _ in 0..packets {
                socket
                    .send_to(b"lost", "192.168.9.2:9")
                    .expect("sending does not fail: the drop is silent");
            }
        });
    }

    fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let enter_and_run = || {
            let netns = File::open(format!("/run/netns/{}", self.name)).expect("its file");
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter");
            f()
        };
        thread::scope(|scope| scope.spawn(enter_and_run).join().expect("no panic"))
    }

    fn ip(&self, arguments: &[&OsStr]) -> Result<(), String> {
        let own = ["-n", &self.name].map(OsStr::new);
        ip(own.into_iter().chain(arguments.iter().copied()))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Err(problem) = ip(["netns", "delete", &self.name].map(OsStr::new)) {
            eprintln!("{problem}");
        }
    }
}

fn ip<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
