//! A tracer: runs a program and kills it before its nth system call.
//!
//! Nothing that the kernel can see lies between the return of one call and the entry of the next,
//! so that a kill after call n is the kill before call n + 1.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// How a traced run ended.
pub struct Traced {
    /// System calls that were entered, by number.
    pub calls: BTreeMap<i64, u64>,
    /// The calls in their order.
    pub sequence: Vec<i64>,
    /// Whether it was killed.
    pub killed: bool,
}

/// Runs `command` and kills it before its system call number `kill_at`, counted from 1; with
/// `None`, or when it makes fewer calls, it runs to its end.
pub fn trace(command: &mut Command, kill_at: Option<u64>) -> Traced {
    // SAFETY: `ptrace(TRACEME)` is safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let none = std::ptr::null_mut::<libc::c_void>();
            if libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    // Waited for by `waitpid`, which is how a tracer hears of its stops.
    #[allow(clippy::zombie_processes)]
    let child = command.spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut traced = Traced { calls: BTreeMap::new(), sequence: Vec::new(), killed: false };
    let mut status = wait(pid);
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    request(libc::PTRACE_SETOPTIONS, pid, options as usize);
    let mut pass = 0;
    let mut entering = false;
    loop {
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            return traced;
        }
        request(libc::PTRACE_SYSCALL, pid, pass);
        status = wait(pid);
        pass = 0;
        if !libc::WIFSTOPPED(status) {
            continue;
        }
        let signal = libc::WSTOPSIG(status);
        if signal != libc::SIGTRAP | 0x80 {
            // A signal of its own is passed on, but not the one of its exec.
            pass = if signal == libc::SIGTRAP { 0 } else { signal as usize };
            continue;
        }
        // Each call has two stops.
        entering = !entering;
        if !entering {
            continue;
        }
        let call = current_call(pid);
        *traced.calls.entry(call).or_default() += 1;
        traced.sequence.push(call);
        if kill_at == Some(traced.sequence.len() as u64) {
            traced.killed = true;
            // SAFETY: the child is ours and has not been waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            while !libc::WIFSIGNALED(status) && !libc::WIFEXITED(status) {
                status = wait(pid);
            }
            return traced;
        }
    }
}

fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is valid; the child is ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert_eq!(waited, pid, "{}", std::io::Error::last_os_error());
    status
}

fn request(request: libc::c_uint, pid: i32, argument: usize) {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests take a number where others take a pointer.
    unsafe { libc::ptrace(request, pid, none, argument as *mut libc::c_void) };
}

/// Source: ptrace(2), `PTRACE_GET_SYSCALL_INFO`: the number is at offset 24 of an entry stop.
fn current_call(pid: i32) -> i64 {
    const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
    let mut info = [0_u8; 88];
    // SAFETY: `info` is as long as is said.
    unsafe {
        libc::ptrace(GET_SYSCALL_INFO, pid, info.len(), info.as_mut_ptr().cast::<libc::c_void>())
    };
    const ENTRY: u8 = 1;
    if info[0] != ENTRY {
        return -1;
    }
    i64::from_ne_bytes(info[24..32].try_into().unwrap())
}

/// Whether a call only looks: a scan of `/proc` makes thousands of these.
pub fn only_looks(call: i64) -> bool {
    [libc::SYS_read, libc::SYS_close, libc::SYS_statx, libc::SYS_openat, libc::SYS_getdents64]
        .contains(&call)
}

/// Names of the calls that the tool makes; others are shown by number.
pub fn name(call: i64) -> String {
    macro_rules! names {
        ($($name:ident)*) => {
            [$((paste(stringify!($name)), libc::$name)),*]
        };
    }
    fn paste(name: &str) -> &str {
        name.trim_start_matches("SYS_")
    }
    let known = names![
        SYS_read SYS_write SYS_close SYS_fstat SYS_lseek SYS_mmap SYS_mprotect SYS_munmap SYS_brk
        SYS_rt_sigaction SYS_rt_sigprocmask SYS_ioctl SYS_pread64 SYS_pwrite64 SYS_mremap
        SYS_madvise SYS_getpid SYS_execve SYS_exit SYS_exit_group SYS_fcntl SYS_flock SYS_ftruncate
        SYS_getcwd SYS_sigaltstack SYS_prctl SYS_gettid SYS_futex SYS_sched_getaffinity
        SYS_getdents64 SYS_set_tid_address SYS_clock_gettime SYS_openat SYS_mkdirat SYS_unlinkat
        SYS_renameat SYS_newfstatat SYS_set_robust_list SYS_fallocate SYS_prlimit64 SYS_getrandom
        SYS_bpf SYS_statx SYS_rseq SYS_pidfd_send_signal SYS_clone3 SYS_pidfd_open SYS_geteuid
        SYS_poll SYS_ppoll SYS_wait4 SYS_waitid SYS_fdatasync SYS_fsync SYS_fstatfs SYS_pipe2
        SYS_dup2 SYS_socket SYS_connect SYS_sendto SYS_recvfrom SYS_clock_nanosleep SYS_clone
        SYS_readlink SYS_access SYS_arch_prctl SYS_mkdir SYS_rmdir SYS_unlink SYS_rename
        SYS_getuid SYS_statfs SYS_faccessat2 SYS_readlinkat SYS_restart_syscall SYS_tgkill
        SYS_writev SYS_stat SYS_open SYS_setpgid SYS_uname SYS_sysinfo SYS_inotify_init1
        SYS_inotify_add_watch
    ];
    let found = known.iter().find(|(_, number)| *number == call);
    found.map_or_else(|| format!("#{call}"), |(name, _)| (*name).to_owned())
}
