//! Tells the host how the worker ends, from the signal that ends it.
//!
//! The handlers touch atomics in shared memory and make two system calls, so that they may run anywhere. What they write
//! is the plugin's to forge: it can only accuse itself. What counts is how the system says that the process ended.
#![expect(unsafe_code, reason = "signal handlers")]

use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use libc::{c_int, c_void, siginfo_t};
use rustix::io::Errno;

use super::super::layout::{SLOTS_MAX, Up};
use super::super::seccomp::FATAL;

/// Where the handlers write: the mapping lives as long as the process.
static UP: OnceLock<&'static Up> = OnceLock::new();

/// Signals that a crash ends in.
const CRASHES: [c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGABRT];

/// Installs the handlers.
pub(super) fn install(up: &'static Up) -> Result<(), Errno> {
    UP.get_or_init(|| up);
    for signal in CRASHES {
        // Once: what comes again ends the process.
        handle(signal, crashed as *const () as usize, libc::SA_RESETHAND)?;
    }
    handle(libc::SIGSYS, refused as *const () as usize, 0)
}

fn handle(signal: c_int, handler: usize, flags: c_int) -> Result<(), Errno> {
    // SAFETY: an action of zeros is a valid one.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags | libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: the action is valid and its handler does only what a handler may.
    let done = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    if done == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// A fault: noted, and then it happens again without a handler. An abort does not: it is an exit with its number.
unsafe extern "C" fn crashed(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the system passes a valid structure; for these signals the field is set or zero.
    let address = unsafe { (*info).si_addr() }.addr() as u64;
    let sent = signal == libc::SIGABRT;
    tell(signal, -1, if sent { 0 } else { address });
    if sent {
        // The first process of a namespace is not ended by what it sends itself.
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(128 + signal) }
    }
}

/// A refused system call: noted, and then one that the kernel kills for.
unsafe extern "C" fn refused(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    /// Where `si_syscall` lies: behind the three numbers of every structure, their padding, and an address.
    const SYSCALL: usize = 24;
    // SAFETY: the system passes a structure of 128 bytes, in which SIGSYS has the call's number there.
    let syscall = unsafe { info.cast::<u8>().add(SYSCALL).cast::<c_int>().read_unaligned() };
    tell(signal, syscall, 0);
    // SAFETY: the call is answered by killing the process; should it return, the exit ends it.
    unsafe {
        libc::syscall(FATAL);
        libc::_exit(128 + signal);
    }
}

/// Fills the crash line once, and wakes whoever waits for a reply.
fn tell(signal: c_int, syscall: c_int, address: u64) {
    let Some(up) = UP.get() else { return };
    if up.state.ending.swap(1, Ordering::SeqCst) != 0 {
        return;
    }
    up.crash.syscall.store(syscall, Ordering::SeqCst);
    up.crash.address.store(address, Ordering::SeqCst);
    // Last: the host reads the rest once this is set.
    up.crash.signal.store(signal, Ordering::SeqCst);
    for slot in &up.slots[..SLOTS_MAX] {
        // A turn that nobody asked for makes its waiter look.
        slot.turn.fetch_add(u32::MAX / 2, Ordering::SeqCst);
        // SAFETY: wakes sleepers; nothing is read or written.
        unsafe {
            libc::syscall(libc::SYS_futex, slot.turn.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
        }
    }
    // For those who wait without a thread.
    super::serve::write_event();
}
