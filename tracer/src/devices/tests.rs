//! [`Snapshot`], and the whole module against the running kernel.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    process::{Command, Output},
};

use super::*;

fn device(netns: u32, ifindex: u32, name: &[u8]) -> ((u32, u32), Device) {
    let device = Device {
        ifindex,
        netns,
        name: name.to_vec(),
        altnames: vec![[b"alt-", name].concat()],
        ..Device::default()
    };
    ((netns, ifindex), device)
}

fn example() -> Snapshot {
    Snapshot {
        ports: Vec::new(),
        devices: HashMap::from([
            device(1, 1, b"lo"),
            device(2, 1, b"lo"),
            device(1, 2, b"vxlan10"),
            device(2, 2, b"a\xff\x1b"),
        ]),
        names: HashMap::from([(1, "own".to_owned()), (2, "blue".to_owned())]),
        problems: Vec::new(),
    }
}

#[test]
fn finds_devices_by_any_name() {
    let snapshot = example();
    let found = |name: &[u8], netns| {
        let device = snapshot.find_dev(name, netns).unwrap();
        (device.netns, device.ifindex)
    };
    assert_eq!(found(b"vxlan10", None), (1, 2));
    assert_eq!(found(b"alt-vxlan10", None), (1, 2));
    assert_eq!(found(b"lo", Some(2)), (2, 1));
    assert_eq!(found(b"a\xff\x1b", None), (2, 2));
}

#[test]
fn what_may_be_a_tunnel_is_not_called_none() {
    assert!(example().has_no_tunnels(), "hardware has no kind");
    let with = |kind: &str| {
        let mut snapshot = example();
        let (key, mut device) = device(2, 3, b"x");
        kind.clone_into(&mut device.kind);
        snapshot.devices.insert(key, device);
        snapshot.has_no_tunnels()
    };
    assert!(with("veth") && with("bridge"));
    for kind in ["vxlan", "sit", "wireguard", "heard-of-by-nobody"] {
        assert!(!with(kind), "{kind}");
    }
}

#[test]
fn says_which_devices_there_are() {
    let snapshot = example();
    let text = |name: &[u8], netns| snapshot.find_dev(name, netns).unwrap_err().to_string();
    assert_eq!(
        text(b"vxlan1", None),
        "no device named 'vxlan1' in any network namespace, did you mean vxlan10? (ip link)"
    );
    assert_eq!(
        text(b"vxlan10", Some(2)),
        "no device named 'vxlan10' in network namespace blue (ip link)"
    );
    assert_eq!(
        text(b"\x1b[m", Some(3)),
        "no device named '\\x1b[m' in network namespace net:[3] (ip link)"
    );
    assert_eq!(
        text(b"a\xff", None),
        "no device named 'a\\xff' in any network namespace, did you mean lo, a\\xff\\x1b? (ip link)"
            .replace("lo, ", "")
    );
    assert_eq!(
        text(b"lo", None),
        "device 'lo' is in 2 network namespaces (own, blue): say which one"
    );
}

#[test]
fn own_devices_are_read_without_rights() {
    let own = netns::own().unwrap();
    let devices = link::dump(&own).unwrap().devices;
    let lo = devices.iter().find(|device| device.name == b"lo").unwrap();
    assert_eq!((lo.ifindex, lo.netns), (1, own.inode));
    let snapshot = snapshot(Some(&own));
    assert_eq!(snapshot.problems, [""; 0]);
    assert!(snapshot.find_dev("lo", Some(own.inode)).is_ok());
}

/// Runs ip(8).
fn ip<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    Command::new("ip").args(arguments).output().unwrap()
}

pub fn words(command: &str) -> Output {
    ip(command.split_whitespace())
}

pub fn must(output: &Output) {
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip: {problem}");
}

/// A named network namespace, deleted at the end of the test.
pub struct Scratch(pub String);

impl Scratch {
    pub fn new(what: &str) -> Self {
        let name = format!("tracer-{what}-{}", std::process::id());
        must(&words(&format!("netns add {name}")));
        Self(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = words(&format!("netns delete {}", self.0));
    }
}

#[test]
fn reads_a_vxlan_device_back() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, for network namespaces");
        return;
    }
    let scratch = Scratch::new("vxlan");
    let name = &scratch.0;
    let made = words(&format!(
        "-n {name} link add vx0 mtu 1400 type vxlan id 42 \
         remote 192.0.2.2 local 192.0.2.1 dstport 4790 ttl 33"
    ));
    if String::from_utf8_lossy(&made.stderr).contains("Unknown device type") {
        eprintln!("skipped: this kernel has no vxlan");
        return;
    }
    must(&made);
    must(&words(&format!(
        "-n {name} link property add dev vx0 altname overlay-of-the-north"
    )));
    must(&words(&format!(
        "-n {name} link add vx1 type vxlan external dstport 4791"
    )));
    must(&words(&format!(
        "-n {name} link add vx2 type vxlan id 7 remote 2001:db8::2 dstport 4792"
    )));
    // A name that is neither UTF-8 nor harmless on a terminal.
    let odd = b"v\xff\x1b[31m";
    must(&ip([
        b"-n" as &[u8],
        name.as_bytes(),
        b"link",
        b"add",
        odd,
        b"type",
        b"veth",
        b"peer",
        b"name",
        b"v1",
    ]
    .map(OsStr::from_bytes)));
    must(&words(&format!("-n {name} link set v1 up")));

    let netns = netns::find(name).unwrap();
    assert_eq!(netns.name.as_deref(), Some(name.as_str()));
    assert_ne!(netns.inode, netns::own().unwrap().inode);
    assert!(netns::list().contains(&netns));
    let path = netns.path.to_str().unwrap();
    assert_eq!(netns::find(path).unwrap().inode, netns.inode);
    let inside = netns::with(&netns, || netns::own().unwrap()).unwrap();
    assert_eq!((inside.inode, &inside.name), (netns.inode, &netns.name));

    let all = snapshot(None);
    let found = |name: &[u8]| all.find_dev(name, Some(netns.inode)).unwrap();
    let expected = Device {
        ifindex: found(b"vx0").ifindex,
        netns: netns.inode,
        name: b"vx0".to_vec(),
        altnames: vec![b"overlay-of-the-north".to_vec()],
        kind: "vxlan".to_owned(),
        local: Some("192.0.2.1".parse().unwrap()),
        remote: Some("192.0.2.2".parse().unwrap()),
        key: Some("42".to_owned()),
        vni: Some(42),
        port: Some(4790),
        mtu: 1400,
        ttl: Some(33),
        forwards4: Some(false),
        forwards6: Some(false),
        ipv6_disabled: Some(false),
        ..Device::default()
    };
    assert_eq!(*found(b"overlay-of-the-north"), expected);
    assert_eq!(all.netns_label(netns.inode), *name);

    let vx1 = found(b"vx1");
    assert!(vx1.external && vx1.vni.is_none() && vx1.key.is_none());
    assert_eq!(vx1.port, Some(4791));
    let vx2 = found(b"vx2");
    assert_eq!(vx2.remote, Some("2001:db8::2".parse().unwrap()));
    let veth = found(odd);
    let v1 = found(b"v1");
    assert_eq!((veth.kind.as_str(), veth.link), ("veth", Some(v1.ifindex)));
    assert!(v1.up && !veth.up);
    assert_eq!(link::dump(&netns).unwrap().devices.len(), 6);

    // What is gone is said, and the rest goes on.
    drop(scratch);
    let problem = link::dump(&netns).unwrap_err().to_string();
    assert_eq!(
        problem,
        format!("network namespace {} is gone", netns.label())
    );
    let gone = snapshot(Some(&netns));
    assert_eq!(gone.problems, [problem]);
    assert!(gone.devices.is_empty());
}
