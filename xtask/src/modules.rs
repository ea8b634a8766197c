//! Kernel modules that go into a guest: those of tunnels and of the networks
//! around them, with all they depend on.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{kernels::Kernel, paths, process};

/// Module names, as far as a kernel has them; `*` at the end stands for any rest.
/// All cryptographic ones come too.
const WANTED: &[&str] = &[
    // Tunnels.
    "sit",
    "tunnel4",
    "tunnel6",
    "ipip",
    "gre",
    "ip_gre",
    "ip6_gre",
    "ip6_tunnel",
    "fou",
    "fou6",
    "vxlan",
    "geneve",
    "bareudp",
    "gtp",
    "amt",
    "wireguard",
    "ovpn",
    "ip_vti",
    "ip6_vti",
    "xfrm_interface",
    "l2tp_*",
    "mpls_*",
    "openvswitch",
    "vport_*",
    // IPsec.
    "esp4",
    "esp6",
    "ah4",
    "ah6",
    "ipcomp",
    "ipcomp6",
    "xfrm_user",
    "xfrm4_tunnel",
    "xfrm6_tunnel",
    // Devices.
    "veth",
    "dummy",
    "bridge",
    "br_netfilter",
    "tun",
    "8021q",
    "macvlan",
    "macvtap",
    "ipvlan",
    "vrf",
    "bonding",
    "ifb",
    "nlmon",
    // Traffic control and filters.
    "sch_*",
    "cls_*",
    "act_*",
    "nf_tables",
    "nft_*",
    "nf_conntrack*",
    "nf_reject*",
    "nf_nat*",
    // Tools.
    "af_packet",
    "packet_diag",
    "inet_diag",
    "udp_diag",
    "tcp_diag",
    "raw_diag",
    "netlink_diag",
    "pktgen",
];

/// Copies the wanted modules, decompressed, to `into` and indexes them there;
/// `instead` replaces modules by name.
pub fn stage(
    kernel: &Kernel,
    into: &Path,
    instead: &BTreeMap<String, PathBuf>,
) -> anyhow::Result<()> {
    let from = kernel.modules();
    let index = from.join("modules.dep");
    let text =
        fs::read_to_string(&index).with_context(|| format!("cannot read {}", index.display()))?;
    let to = into.join("lib/modules").join(&kernel.release);
    for module in closure(&text) {
        let name = module_name(&module);
        let target = to.join(&module).with_file_name(format!("{name}.ko"));
        paths::make(target.parent().unwrap_or(&to))?;
        let source = instead
            .get(&name)
            .cloned()
            .unwrap_or_else(|| from.join(&module));
        plain_copy(&source, &target)?;
    }
    for list in [
        "modules.builtin",
        "modules.builtin.modinfo",
        "modules.order",
    ] {
        if from.join(list).exists() {
            fs::copy(from.join(list), to.join(list))?;
        }
    }
    let depmod = process::find("depmod").unwrap_or_else(|| "depmod".into());
    process::quiet(
        Command::new(depmod)
            .arg("-b")
            .arg(into)
            .arg(&kernel.release),
    )
}

/// The wanted modules and their dependencies, by path below the modules' directory.
fn closure(modules_dep: &str) -> BTreeSet<String> {
    let needs: BTreeMap<&str, Vec<&str>> = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, needed)| (module, needed.split_whitespace().collect()))
        .collect();
    let mut todo: Vec<&str> = needs
        .keys()
        .copied()
        .filter(|module| is_wanted(module))
        .collect();
    let mut found = BTreeSet::new();
    while let Some(module) = todo.pop() {
        if found.insert(module.to_owned()) {
            todo.extend(needs.get(module).into_iter().flatten());
        }
    }
    found
}

fn is_wanted(path: &str) -> bool {
    // File names have dashes here and there; modules do not.
    let name = module_name(path).replace('-', "_");
    // Algorithms are loaded by their own names: no dependency tells which.
    path.contains("/crypto/")
        || WANTED.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *wanted,
        })
}

/// `sit` of `kernel/net/ipv6/sit.ko.xz`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).to_owned()
}

/// Copies a module, undoing its compression.
fn plain_copy(source: &Path, target: &Path) -> anyhow::Result<()> {
    let program = match source.extension().and_then(OsStr::to_str) {
        Some("ko") => {
            fs::copy(source, target)
                .with_context(|| format!("cannot copy {}", source.display()))?;
            return Ok(());
        }
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => bail!("{}: not a kernel module", source.display()),
    };
    let output = Command::new(program)
        .arg("-dc")
        .arg(source)
        .output()
        .with_context(|| format!("modules of this kernel need {program}: install it"))?;
    if !output.status.success() {
        bail!(
            "{}: {}",
            source.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    fs::write(target, output.stdout).with_context(|| format!("cannot write {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_comes_with_what_it_needs() {
        let found = closure(
            "kernel/net/ipv6/sit.ko.xz: kernel/net/ipv4/tunnel4.ko.xz kernel/net/ipv4/ip_tunnel.ko.xz\n\
             kernel/net/ipv4/tunnel4.ko.xz:\n\
             kernel/net/ipv4/ip_tunnel.ko.xz: kernel/lib/deep.ko\n\
             kernel/lib/deep.ko:\n\
             kernel/arch/x86/crypto/crc32c-intel.ko:\n\
             kernel/fs/ext4/ext4.ko.xz: kernel/lib/other.ko.xz\n\
             kernel/net/openvswitch/vport-vxlan.ko:\n\
             kernel/net/netfilter/nft_reject_inet.ko:\n",
        );
        let names: Vec<_> = found.iter().map(|module| module_name(module)).collect();
        assert_eq!(
            names,
            [
                "crc32c-intel",
                "deep",
                "ip_tunnel",
                "tunnel4",
                "sit",
                "nft_reject_inet",
                "vport-vxlan"
            ]
        );
    }
}
