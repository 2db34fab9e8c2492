//! The system calls that a function's program may not make.
//!
//! A list of what is denied, since nobody knows what an interpreter with its libraries needs: whatever
//! reaches into other processes, rearranges the machine, gets around a filter, or out of the group of
//! processes that is killed when the time is over. A denied call fails with EPERM; a program of another
//! architecture's calls is killed, which is the crate's own rule.

use libc::{c_long, c_ulong};
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// What may not be called at all.
const DENIED: &[c_long] = &[
    // Other processes: their memory, their descriptors, what they execute. The server is one of them.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Out of the group that is killed as a whole.
    libc::SYS_setsid,
    libc::SYS_setpgid,
    // Another view of the file system, and files by a handle, which no folder's mode protects.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    // Namespaces, in which an unprivileged process gets privileges over parts of the kernel. `clone` is
    // looked at below.
    libc::SYS_unshare,
    libc::SYS_setns,
    // The kernel itself: another one, modules, programs in it, its log, its settings.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_syslog,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // The clock, which sessions and schedules go by.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // Key rings, which processes of one user share.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Calls that are made where no filter looks.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // What exploits stop the kernel with at the moment that they need.
    libc::SYS_userfaultfd,
];

/// Loading another kernel from a file, and the processor's own: ports, segments.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[c_long] =
    &[libc::SYS_kexec_file_load, libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[c_long] = &[];

/// What tells the calls of the x32 ABI, which have the architecture of x86-64 and would pass.
#[cfg(target_arch = "x86_64")]
const X32: Option<c_long> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const X32: Option<c_long> = None;
/// Calls that have another number there: ptrace, kexec_load, process_vm_readv, process_vm_writev,
/// ioctl, move_pages (Linux, arch/x86/entry/syscalls/syscall_64.tbl). Old kernels took them without the
/// mark too.
const OTHERWISE_X32: [c_long; 6] = [521, 528, 539, 540, 514, 533];

/// Flags of `clone` that make namespaces (linux/sched.h): cgroups, UTS, IPC, users, processes, network,
/// mounts, time.
const NAMESPACES: [u64; 8] = [
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
    0x0002_0000,
    0x0000_0080,
];

/// Requests of `ioctl` that type into the terminal that the server was started from (TIOCSTI), or
/// paste into it (TIOCLINUX).
const TYPING: [c_ulong; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// The filters, to be applied one after the other. Both hold; a filter knows one answer only.
///
/// # Errors
/// On an architecture that the crate does not know.
pub(super) fn filters() -> Result<[BpfProgram; 2], Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    // What `clone3` is to do stands in memory, where no filter looks. The C library falls back to
    // `clone` if it is not there.
    let unseen = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([program(denied()?, libc::EPERM, arch)?, program(unseen, libc::ENOSYS, arch)?])
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn program(rules: Rules, errno: libc::c_int, arch: TargetArch) -> Result<BpfProgram, Error> {
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch);
    Ok(filter.and_then(BpfProgram::try_from)?)
}

fn denied() -> Result<Rules, Error> {
    let mut rules: Rules = BTreeMap::new();
    rules.extend(DENIED.iter().chain(DENIED_HERE).map(|call| (*call, Vec::new())));
    rules.insert(libc::SYS_clone, any(NAMESPACES.map(|flag| (0, Is::MaskedEq(flag), flag)))?);
    rules.insert(libc::SYS_ioctl, any(TYPING.map(|request| (1, Is::Eq, request)))?);
    // Limits of others: the second and later arguments are one's own affair.
    rules.insert(libc::SYS_prlimit64, any([(0, Is::Ne, 0)])?);
    if let Some(x32) = X32 {
        let here: Vec<_> = rules.iter().map(|(call, rule)| (*call | x32, rule.clone())).collect();
        rules.extend(here);
        rules.extend(
            OTHERWISE_X32.iter().flat_map(|call| [(*call, Vec::new()), (*call | x32, Vec::new())]),
        );
        rules.insert(libc::SYS_clone3 | x32, Vec::new());
    }
    Ok(rules)
}

/// Matches where any of these is so of an argument's lower half.
fn any<const N: usize>(cases: [(u8, Is, u64); N]) -> Result<Vec<SeccompRule>, Error> {
    let rule = |(argument, is, value)| {
        let condition = SeccompCondition::new(argument, Length::Dword, is, value)?;
        SeccompRule::new(vec![condition])
    };
    Ok(cases.into_iter().map(rule).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_filters_can_be_written() {
        let [denied, unseen] = filters().expect("an architecture that is known");
        assert!(denied.len() > DENIED.len() && !unseen.is_empty());
        assert!(denied.len() < 4096, "the kernel's own bound (BPF_MAXINSNS)");
    }
}
