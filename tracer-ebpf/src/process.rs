//! Who sent the packet.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, generated,
};
use tracer_common::record::{Process, sender};

use crate::{
    globals::{config, offset},
    read::{self, PROBED, TYPED},
};

const PF_KTHREAD: u32 = 0x0020_0000;
/// Sockets in these states are `request_sock` or `inet_timewait_sock`: shorter
/// than a `struct sock` (include/net/tcp_states.h).
const TCP_TIME_WAIT: u8 = 6;
const TCP_NEW_SYN_RECV: u8 = 12;

/// Fills a zeroed `record.process` for a packet of this `struct sock` (or 0)
/// whose frame is opened in `context`. `room` is for `read::through`.
///
/// The current task is the sender only where the packet has a socket that a
/// file belongs to, and the program runs on that task's own stack: softirqs
/// borrow the task they interrupted but run on the interrupt stack.
#[inline(always)]
pub fn of<const TYPED: bool>(
    context: *mut c_void,
    sock: u64,
    room: &mut u64,
    process: &mut Process,
) {
    if sock == 0 {
        return;
    }
    process.flags = sender::SOCKET;
    if let Some(TCP_TIME_WAIT | TCP_NEW_SYN_RECV) =
        read::field::<TYPED, u8>(sock, offset!(sk_state))
    {
        return;
    }
    let user_socket = match read::field::<TYPED, u64>(sock, offset!(sk_socket)) {
        Some(socket) if socket != 0 => {
            read::field::<TYPED, u64>(socket, offset!(socket_file)).unwrap_or(0) != 0
        }
        _ => false,
    };
    if !user_socket {
        return;
    }
    process.flags |= sender::USER_SOCKET;
    process.uid = read::field::<TYPED, u32>(sock, offset!(sk_uid)).unwrap_or(0);

    let here = read::through(room, context as u64);
    if TYPED && config!(typed_task) != 0 {
        // SAFETY: the helper has no preconditions.
        let task = unsafe { generated::bpf_get_current_task_btf() } as u64;
        if is_running::<TYPED>(here, task, room) {
            typed(task, process);
        }
        return;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { generated::bpf_get_current_task() };
    if !is_running::<PROBED>(here, task, room) {
        return;
    }
    process.flags |= sender::PROCESS_CONTEXT;
    process.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    process.uid = bpf_get_current_uid_gid() as u32;
    // SAFETY: the helper has no preconditions.
    process.cgroup = unsafe { generated::bpf_get_current_cgroup_id() };
    if let Ok(comm) = bpf_get_current_comm() {
        process.comm = comm;
    }
}

/// Is `here` on the stack of this user's task?
#[inline(always)]
fn is_running<const TYPED: bool>(here: u64, task: u64, room: &mut u64) -> bool {
    let Some(stack) = read::field::<TYPED, u64>(task, offset!(task_stack)) else {
        return false;
    };
    let stack = read::through(room, stack);
    let flags: u32 = read::field::<TYPED, u32>(task, offset!(task_flags)).unwrap_or(PF_KTHREAD);
    flags & PF_KTHREAD == 0 && here.wrapping_sub(stack) < u64::from(config!(stack_size))
}

/// What the helpers would say of the running task, from its own structure.
#[inline(always)]
fn typed(task: u64, process: &mut Process) {
    process.flags |= sender::PROCESS_CONTEXT;
    process.tgid = read::field::<TYPED, u32>(task, offset!(task_tgid)).unwrap_or(0);
    // The verifier may want to see that it is one.
    if let Some(cred) = read::field::<TYPED, u64>(task, offset!(task_cred))
        && cred != 0
    {
        process.uid = read::field::<TYPED, u32>(cred, offset!(cred_uid)).unwrap_or(0);
    }
    if let Some(set) = read::field::<TYPED, u64>(task, offset!(task_cgroups))
        && let Some(cgroup) = read::field::<TYPED, u64>(set, offset!(css_set_cgroup))
        && let Some(node) = read::field::<TYPED, u64>(cgroup, offset!(cgroup_node))
    {
        process.cgroup = read::field::<TYPED, u64>(node, offset!(cgroup_id)).unwrap_or(0);
    }
    read::typed_string(&mut process.comm, task, offset!(task_comm));
}
