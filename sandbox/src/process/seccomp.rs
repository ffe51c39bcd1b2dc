//! The filters over system calls, as data: what a worker may do while a plugin is mapped, and what after.
//!
//! ```text
//! stage 1 (wide)     what serving needs, and what mapping a library needs: reading files, mapping code from them
//! stage 2 (strict)   what serving needs: memory, time, threads, waiting, its event and its error output
//! ```
//!
//! A call that is in no list ends the process. Those that ordinary libraries try and can do without are answered
//! with an error instead ([`SOFT`]). Filters add up, the sternest answer counts, and none can be taken away.
//!
//! A refused call first raises SIGSYS, whose handler notes the number and then makes [`FATAL`], which the kernel answers
//! by killing the process. The handler cannot be replaced: changing the disposition of SIGSYS is itself refused. A
//! process that blocks the signal is killed by the kernel. In no case is the call carried out.
//!
//! Arguments are compared in their lower 32 bits where the kernel looks at no more: a filter that compares 64 bits of an
//! ioctl's command can be got round by setting the upper ones.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::layout::{EVENT_FD, LOG_FD, OUT_FD};

// Instructions of a filter, as they are coded.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// Where the kernel puts the number, and the architecture.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const THIS_ARCH: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

/// Made on purpose once a refusal was noted: no libc makes it, and the kernel kills for it.
pub(super) const FATAL: c_long = libc::SYS_kexec_load;

/// One condition on an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// The argument has this value.
    Is(u8, u64),
    /// None of these bits are set.
    Without(u8, u64),
    /// Of the bits of the first mask exactly those of the second are set.
    Bits(u8, u64, u64),
    /// It is not this value.
    Not(u8, u64),
    /// It is this value, in all 64 bits.
    IsAddress(u8, u64),
}

/// A call that is let through: always when there are no alternatives, else when all conditions of one hold.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    pub(super) number: c_long,
    pub(super) alternatives: Vec<Vec<When>>,
}

const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
const PROT_WRITE: u64 = libc::PROT_WRITE as u64;
/// Flags of mmap that decide what is mapped; those about placement do not matter.
const MAP_KIND: u64 = (libc::MAP_SHARED
    | libc::MAP_PRIVATE
    | libc::MAP_ANONYMOUS
    | libc::MAP_HUGETLB
    | libc::MAP_LOCKED
    | libc::MAP_POPULATE) as u64;
const PRIVATE_MEMORY: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const PRIVATE_FILE: u64 = libc::MAP_PRIVATE as u64;
/// What pthread_create passes, exactly: a thread of this process, in no new namespace.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;
/// The operation of a futex, without its flags.
const FUTEX_COMMAND: u64 = 0x7f;
/// WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET, WAKE_BITSET: none that inherits priorities.
const FUTEX: [u64; 7] = [0, 1, 3, 4, 5, 9, 10];
/// NORMAL, WILLNEED, DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE, DONTDUMP, WIPEONFORK.
const ADVICE: [u64; 8] = [0, 3, 4, 8, 14, 15, 16, 18];
/// Flags of open that write, make or truncate.
const OPEN_WRITES: u64 = (libc::O_WRONLY
    | libc::O_RDWR
    | libc::O_CREAT
    | libc::O_TRUNC
    | libc::O_APPEND
    | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u64;

/// Calls that the kernel may let through without running the filter.
const FREE: &[c_long] = &[
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
];

/// Reading files while a plugin is mapped. What can be opened is for Landlock and the empty root to say.
const READING: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_lseek,
    libc::SYS_readlinkat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    // Receives the plugin's files.
    libc::SYS_recvmsg,
];

/// Calls that are refused with an error, because libraries try them and go on: `(error, calls)`. The first group is
/// answered so only once the plugin is mapped.
pub(super) const SOFT: [(i32, &[c_long]); 4] = [
    (
        libc::EACCES,
        &[
            libc::SYS_openat,
            libc::SYS_readlinkat,
            libc::SYS_faccessat2,
            libc::SYS_newfstatat,
            libc::SYS_statx,
            libc::SYS_getcwd,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_readlink,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_access,
        ],
    ),
    (libc::ENOSYS, &[libc::SYS_clone3, libc::SYS_sysinfo, libc::SYS_uname]),
    (libc::ENOTTY, &[libc::SYS_ioctl]),
    (libc::EPERM, &[libc::SYS_prlimit64]),
];

/// What serving needs. `pid` is the worker's own number, as it sees it.
pub(super) fn strict(pid: u32) -> Vec<Allowed> {
    let (out, log, event) = (OUT_FD as u64, LOG_FD as u64, EVENT_FD as u64);
    let pid = u64::from(pid);
    let mut list = free(FREE);
    list.extend([
        any_of(libc::SYS_futex, FUTEX.map(|op| vec![When::Bits(1, FUTEX_COMMAND, op)])),
        any_of(
            libc::SYS_mmap,
            [vec![When::Without(2, PROT_EXEC), When::Bits(3, MAP_KIND, PRIVATE_MEMORY)]],
        ),
        any_of(libc::SYS_mprotect, [vec![When::Without(2, PROT_EXEC)]]),
        any_of(
            libc::SYS_mremap,
            [vec![When::Without(3, !(libc::MREMAP_MAYMOVE as u64) & u64::from(u32::MAX))]],
        ),
        any_of(libc::SYS_madvise, ADVICE.map(|advice| vec![When::Is(2, advice)])),
        any_of(libc::SYS_getrandom, [0, 1, 4].map(|flags| vec![When::Is(2, flags)])),
        any_of(libc::SYS_read, [vec![When::Is(0, event)]]),
        any_of(libc::SYS_write, [out, log, event].map(|fd| vec![When::Is(0, fd)])),
        any_of(libc::SYS_writev, [out, log].map(|fd| vec![When::Is(0, fd)])),
        any_of(libc::SYS_tgkill, [vec![When::Is(0, pid), When::Is(2, libc::SIGABRT as u64)]]),
        any_of(libc::SYS_rt_sigaction, [vec![When::Not(0, libc::SIGSYS as u64)]]),
        any_of(libc::SYS_clone, [vec![When::Is(0, THREAD)]]),
        any_of(libc::SYS_prctl, [vec![When::Is(0, libc::PR_SET_NAME as u64)]]),
    ]);
    list.extend(SOFT.iter().flat_map(|(_, calls)| free(calls)));
    list
}

/// What mapping a plugin needs as well.
///
/// `strict` is where the program of the strict filter lies: no other can be installed, since a filter could also answer that
/// the strict one was.
pub(super) fn wide(pid: u32, strict: u64) -> Vec<Allowed> {
    // Listed again with the conditions of this stage.
    let again = [libc::SYS_openat, libc::SYS_mmap];
    #[cfg(target_arch = "x86_64")]
    let again = [&again[..], &[libc::SYS_open]].concat();
    let reading = |number: &c_long| READING.contains(number);
    let mut list = self::strict(pid);
    list.retain(|allowed| !again.contains(&allowed.number) && !reading(&allowed.number));
    list.extend(free(READING));
    let code = vec![When::Without(2, PROT_WRITE), When::Bits(3, MAP_KIND, PRIVATE_FILE)];
    let data = vec![When::Without(2, PROT_EXEC), When::Bits(3, MAP_KIND, PRIVATE_FILE)];
    let memory = vec![When::Without(2, PROT_EXEC), When::Bits(3, MAP_KIND, PRIVATE_MEMORY)];
    list.extend([
        any_of(libc::SYS_openat, [vec![When::Without(2, OPEN_WRITES)]]),
        // What is written to later must not become something else.
        any_of(
            libc::SYS_close,
            [[OUT_FD, LOG_FD, EVENT_FD].map(|fd| When::Not(0, fd as u64)).into()],
        ),
        any_of(libc::SYS_mmap, [code, data, memory]),
        any_of(
            libc::SYS_seccomp,
            [vec![
                When::Is(0, u64::from(libc::SECCOMP_SET_MODE_FILTER)),
                When::Is(1, libc::SECCOMP_FILTER_FLAG_TSYNC),
                When::IsAddress(2, strict),
            ]],
        ),
    ]);
    #[cfg(target_arch = "x86_64")]
    list.push(any_of(libc::SYS_open, [vec![When::Without(1, OPEN_WRITES)]]));
    let prctl = list.iter_mut().find(|allowed| allowed.number == libc::SYS_prctl);
    if let Some(prctl) = prctl {
        prctl.alternatives.push(vec![When::Is(0, libc::PR_SET_NO_NEW_PRIVS as u64)]);
    }
    list
}

fn free(numbers: &[c_long]) -> Vec<Allowed> {
    numbers.iter().map(|number| Allowed { number: *number, alternatives: Vec::new() }).collect()
}

fn any_of(number: c_long, alternatives: impl IntoIterator<Item = Vec<When>>) -> Allowed {
    Allowed { number, alternatives: alternatives.into_iter().collect() }
}

/// A filter that could not be built: a fault of the tables above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadFilter;

impl From<seccompiler::BackendError> for BadFilter {
    fn from(_fault_of_the_table: seccompiler::BackendError) -> Self {
        Self
    }
}

/// What serving needs, as one program: that it is there is then all that has to be known. Files are refused with an error,
/// before the list is looked at.
pub(super) fn strict_program(pid: u32) -> Result<BpfProgram, BadFilter> {
    let [(errno, files), ..] = SOFT;
    let mut program = refused_first(errno, files)?;
    program.extend(allow_list(&strict(pid))?);
    Ok(program)
}

/// Answers these calls with an error before anything else is looked at. Everything else, other architectures included,
/// falls through to what follows.
fn refused_first(errno: i32, calls: &[c_long]) -> Result<BpfProgram, BadFilter> {
    let step = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    let count = u8::try_from(calls.len()).map_err(|_too_many| BadFilter)?;
    // Past the list and its answer.
    let past = count.checked_add(2).ok_or(BadFilter)?;
    let mut program =
        vec![step(LOAD, 0, 0, ARCH), step(EQUAL, 0, past, THIS_ARCH), step(LOAD, 0, 0, NUMBER)];
    for (left, call) in (0..count).rev().zip(calls) {
        // The last one that is not met jumps over the answer.
        let unmet = u8::from(left == 0);
        program.push(step(EQUAL, left, unmet, u32::try_from(*call).map_err(|_wide| BadFilter)?));
    }
    program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()));
    Ok(program)
}

/// Lets through what is listed, and raises SIGSYS for everything else.
pub(super) fn allow_list(list: &[Allowed]) -> Result<BpfProgram, BadFilter> {
    let mut rules = BTreeMap::new();
    for Allowed { number, alternatives } in list {
        let alternatives: Result<Vec<_>, _> = alternatives.iter().map(|all| rule(all)).collect();
        rules.insert(*number, alternatives?);
    }
    let mut program = futexes_first();
    program.extend(build(rules, SeccompAction::Trap, SeccompAction::Allow)?);
    Ok(program)
}

/// Lets the two futex operations that every call makes through before anything else is looked at: a list is run from its
/// top, hundreds of steps, twice for each call that sleeps. Everything else falls through to the list.
fn futexes_first() -> BpfProgram {
    const AND: u16 = 0x54;
    /// The lower half of the second argument.
    const SECOND: u32 = 24;
    let step = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, ARCH),
        step(EQUAL, 0, 7, THIS_ARCH),
        step(LOAD, 0, 0, NUMBER),
        step(EQUAL, 0, 5, libc::SYS_futex as u32),
        step(LOAD, 0, 0, SECOND),
        step(AND, 0, 0, FUTEX_COMMAND as u32),
        step(EQUAL, 1, 0, libc::FUTEX_WAIT as u32),
        step(EQUAL, 0, 1, libc::FUTEX_WAKE as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Answers these calls with an error, and lets everything else through.
pub(super) fn refusal(errno: i32, calls: &[c_long]) -> Result<BpfProgram, BadFilter> {
    let rules = calls.iter().map(|number| (*number, Vec::new())).collect();
    build(rules, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()))
}

/// Kills for [`FATAL`], and lets everything else through to the other filters.
pub(super) fn fatal() -> Result<BpfProgram, BadFilter> {
    build(BTreeMap::from([(FATAL, Vec::new())]), SeccompAction::Allow, SeccompAction::KillProcess)
}

fn build(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, BadFilter> {
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, listed, arch)?.try_into()?)
}

fn rule(conditions: &[When]) -> Result<SeccompRule, BadFilter> {
    let conditions: Result<Vec<_>, _> = conditions.iter().map(|when| condition(*when)).collect();
    Ok(SeccompRule::new(conditions?)?)
}

fn condition(when: When) -> Result<SeccompCondition, BadFilter> {
    let width = match when {
        When::IsAddress(..) => SeccompCmpArgLen::Qword,
        When::Is(..) | When::Not(..) | When::Without(..) | When::Bits(..) => {
            SeccompCmpArgLen::Dword
        }
    };
    let (argument, operator, value) = match when {
        When::IsAddress(argument, value) | When::Is(argument, value) => {
            (argument, SeccompCmpOp::Eq, value)
        }
        When::Not(argument, value) => (argument, SeccompCmpOp::Ne, value),
        When::Without(argument, bits) => (argument, SeccompCmpOp::MaskedEq(bits), 0),
        When::Bits(argument, mask, bits) => (argument, SeccompCmpOp::MaskedEq(mask), bits),
    };
    Ok(SeccompCondition::new(argument, width, operator, value)?)
}

#[cfg(test)]
mod tests;
