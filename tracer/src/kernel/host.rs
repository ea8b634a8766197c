//! What this host is and what it allows: release, privileges, kprobes,
//! lockdown. Each refusal comes with its way out.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Result, bail};
use rustix::thread::{CapabilitySet, capabilities};

/// Where the kernel says how to make kprobes, if it can.
const KPROBE_PMU: &str = "/sys/bus/event_source/devices/kprobe/type";
const BTF: &str = "/sys/kernel/btf/vmlinux";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// `uname`: kernel release and machine.
pub fn release() -> (String, String) {
    let name = rustix::system::uname();
    (
        name.release().to_string_lossy().into_owned(),
        name.machine().to_string_lossy().into_owned(),
    )
}

/// How the kernel was built, as far as it decides what can be seen and what
/// tunnels there are.
const OPTIONS: &[&str] = &[
    "CONFIG_BPF_",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_FTRACE",
    "CONFIG_FUNCTION_TRACER",
    "CONFIG_KALLSYMS",
    "CONFIG_KPROBES",
    "CONFIG_PREEMPT",
    "CONFIG_AMT",
    "CONFIG_BAREUDP",
    "CONFIG_GENEVE",
    "CONFIG_GTP",
    "CONFIG_IPV6_",
    "CONFIG_L2TP",
    "CONFIG_NET_FOU",
    "CONFIG_NET_IPGRE",
    "CONFIG_NET_IPIP",
    "CONFIG_NET_IPVTI",
    "CONFIG_OVPN",
    "CONFIG_VXLAN",
    "CONFIG_WIREGUARD",
    "CONFIG_XFRM",
];

/// Options of the running kernel, where a distribution left them; and what it
/// says itself.
pub fn config() -> BTreeMap<String, String> {
    let word = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let mut facts = BTreeMap::from([
        ("kprobes".to_owned(), word(has_kprobes())),
        ("modules".to_owned(), word(has_modules())),
        ("realtime".to_owned(), word(is_realtime())),
    ]);
    let (release, _) = release();
    let places = [
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
    ];
    let text = places
        .iter()
        .find_map(|place| fs::read_to_string(place).ok());
    facts.extend(options(text.as_deref().unwrap_or_default()));
    facts
}

/// Those of [`OPTIONS`] that are set.
fn options(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines()
        .filter(|line| OPTIONS.iter().any(|option| line.starts_with(option)))
        .filter_map(|line| line.split_once('='))
        .map(|(option, value)| (option.to_owned(), value.trim_matches('"').to_owned()))
}

/// Are kprobes built in?
pub fn has_kprobes() -> bool {
    Path::new(KPROBE_PMU).exists()
}

/// Can modules come and go?
pub fn has_modules() -> bool {
    Path::new("/proc/modules").exists()
}

/// Is this kernel PREEMPT_RT, where bottom halves can be preempted? The version
/// says so (`UTS_VERSION`, scripts/mkcompile_h); the file came with the patches of
/// the time before PREEMPT_RT was part of the kernel.
pub fn is_realtime() -> bool {
    let version = rustix::system::uname()
        .version()
        .to_string_lossy()
        .into_owned();
    says_realtime(&version)
        || fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1")
}

fn says_realtime(version: &str) -> bool {
    version.split_whitespace().any(|word| word == "PREEMPT_RT")
}

/// Can a task be preempted in a program at a tracepoint? Since 7.0 ("tracing: Guard
/// __DECLARE_TRACE() use of __DO_TRACE_CALL() with SRCU-fast").
pub fn preempts_tracepoints() -> bool {
    let (release, _) = release();
    let major = release
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    major.is_some_and(|major: u32| major >= 7)
}

/// The lockdown mode, when it is one that keeps kernel memory from us.
pub fn lockdown() -> Option<String> {
    let text = fs::read_to_string(LOCKDOWN).ok()?;
    let mode = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?;
    (mode == "confidentiality").then(|| mode.to_owned())
}

/// Which capabilities are missing for tracing, in the kernel's names.
pub fn missing_capabilities() -> Vec<&'static str> {
    let held = capabilities(None)
        .map(|sets| sets.effective)
        .unwrap_or(CapabilitySet::empty());
    if held.contains(CapabilitySet::SYS_ADMIN) {
        return Vec::new();
    }
    [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
        // Entering other network namespaces, for the tunnels' settings.
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    ]
    .into_iter()
    .filter(|(capability, _)| !held.contains(*capability))
    .map(|(_, name)| name)
    .collect()
}

/// Fails, with the way out, where tracing cannot begin.
pub fn check() -> Result<()> {
    let missing = missing_capabilities();
    if missing.contains(&"CAP_BPF") || missing.contains(&"CAP_PERFMON") {
        bail!(
            "no privileges to trace: missing {} (run as root, or: setcap cap_bpf,cap_perfmon,cap_sys_admin,cap_sys_ptrace,cap_syslog+ep tracer)",
            missing.join(", ")
        );
    }
    if !Path::new(BTF).exists() {
        bail!(
            "no BTF: {BTF} is not there (boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, or mount /sys in this container)"
        );
    }
    if let Some(mode) = lockdown() {
        bail!(
            "kernel lockdown is in {mode} mode, which keeps kernel memory from BPF programs: boot with lockdown=integrity or without Secure Boot to trace"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_say_they_are_realtime() {
        assert!(says_realtime(
            "#1 SMP PREEMPT_RT Debian 7.3.4-1~bpo13+1 (2026-11-15)"
        ));
        assert!(!says_realtime(
            "#1 SMP PREEMPT_DYNAMIC Debian 6.12.118-1 (2026-11-20)"
        ));
    }

    #[test]
    fn options_that_are_set() {
        let text = "CONFIG_KPROBES=y\n# CONFIG_VXLAN is not set\nCONFIG_IPV6_SIT=m\nCONFIG_USB=y\n";
        let all: Vec<_> = options(text).collect();
        let pair = |option: &str, value: &str| (option.to_owned(), value.to_owned());
        assert_eq!(
            all,
            [pair("CONFIG_KPROBES", "y"), pair("CONFIG_IPV6_SIT", "m")]
        );
    }
}
