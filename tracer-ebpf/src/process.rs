//! Who sent the packet.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, generated,
};
use tracer_common::record::{Process, sender};

use crate::{
    globals::{config, offset},
    read,
};

const PF_KTHREAD: u32 = 0x0020_0000;
/// Sockets in these states are `request_sock` or `inet_timewait_sock`: shorter
/// than a `struct sock` (include/net/tcp_states.h).
const TCP_TIME_WAIT: u8 = 6;
const TCP_NEW_SYN_RECV: u8 = 12;

/// Fills a zeroed `process` for a packet of this `struct sock` (or 0) whose frame
/// is opened in `context`.
///
/// The current task is the sender only where the packet has a socket that a
/// file belongs to, and the program runs on that task's own stack: softirqs
/// borrow the task they interrupted but run on the interrupt stack.
#[inline(always)]
pub fn of(context: *mut c_void, sock: u64, process: &mut Process) {
    if sock == 0 {
        return;
    }
    process.flags = sender::SOCKET;
    if let Some(TCP_TIME_WAIT | TCP_NEW_SYN_RECV) = read::at::<u8>(sock, offset!(sk_state)) {
        return;
    }
    let user_socket = match read::at::<u64>(sock, offset!(sk_socket)) {
        Some(socket) if socket != 0 => {
            read::at::<u64>(socket, offset!(socket_file)).unwrap_or(0) != 0
        }
        _ => false,
    };
    if !user_socket {
        return;
    }
    process.flags |= sender::USER_SOCKET;
    process.uid = read::at(sock, offset!(sk_uid)).unwrap_or(0);

    // SAFETY: the helper has no preconditions.
    let task = unsafe { generated::bpf_get_current_task() };
    let Some(stack) = read::at::<u64>(task, offset!(task_stack)) else {
        return;
    };
    let flags: u32 = read::at(task, offset!(task_flags)).unwrap_or(PF_KTHREAD);
    let here = read::address(context.cast_const().cast::<u8>());
    if flags & PF_KTHREAD != 0 || here.wrapping_sub(stack) >= u64::from(config!(stack_size)) {
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
