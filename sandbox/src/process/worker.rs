//! The worker: one process for one instance of one plugin, locked down before the plugin is mapped.
//!
//! ```text
//! exec ▶ shared memory ▶ libraries ▶ lock-down ▶ wide filter ▶ READY (in the pool)
//!      ▶ plugin's files arrive ▶ dlopen: constructors run ▶ strict filter on every thread ▶ serves ▶ killed
//! ```
//!
//! From the plugin's first instruction on, nothing that this process says is believed: what it writes lies in memory that
//! the host checks, and what it may do is decided by the kernel. It ends by being killed; it never ends by itself but when
//! the host is gone.
#![expect(unsafe_code, reason = "maps what it inherited, and lives in it for good")]

use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketType;
use themis_messages::sandbox::{Layer, Layers, SetupStep};

use super::layout::{CONTROL_FD, DOWN_FD, Down, MAGIC, SLOTS_MAX, UP_FD, Up, file_bytes};
use super::seccomp;
use super::shared::Region;
use super::wire::{self, Told};
use lockdown::{Failed, Wanted};

mod crash;
mod lockdown;
mod plugin;
mod serve;
mod services;

pub(super) use plugin::{Described, fault_told};

/// What every plugin may need, mapped while files can still be found. Those that a system lacks, no plugin of it needs.
const LIBRARIES: [&str; 5] =
    ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2"];

/// No system has larger pages. Asking for the size reads files that are out of reach by then.
const PAGE_MAX: usize = 64 << 10;

/// The memory a worker lives in.
pub(super) struct Memory {
    pub(super) down: Region<Down>,
    pub(super) up: Region<Up>,
    pub(super) slots: usize,
}

/// Serves one plugin until the process is killed.
pub(super) fn run() -> Result<(), Errno> {
    // SAFETY: only looked at; whatever it is stays open.
    let inherited = unsafe { BorrowedFd::borrow_raw(CONTROL_FD) };
    if rustix::net::sockopt::socket_type(inherited)? != SocketType::SEQPACKET {
        return Err(Errno::INVAL);
    }
    // SAFETY: the spawner has put it there for this process.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    let memory = match prepare(&control) {
        Ok((memory, layers)) => {
            memory.up.header().state.layers.store(layers.bits(), Ordering::SeqCst);
            serve::write_event();
            memory
        }
        Err((step, errno)) => {
            let (step, errno) = (step as u32, errno.raw_os_error());
            return wire::send(&control, &Told { step, errno }, &[]);
        }
    };
    serve::serve(memory, control)
}

fn prepare(control: &OwnedFd) -> Result<(&'static Memory, Layers), Failed> {
    let memory = map().map_err(|errno| (SetupStep::Memory, errno))?;
    show_maps(control).map_err(|errno| (SetupStep::Files, errno))?;
    load_libraries();
    let setup = &memory.down.header().setup;
    let wanted = Wanted {
        memory_bytes: setup.memory_bytes.load(Ordering::Relaxed),
        cap_memory: setup.cap_memory.load(Ordering::Relaxed) != 0,
        pids: setup.pids.load(Ordering::Relaxed),
        host: setup.host.load(Ordering::Relaxed),
    };
    let mut layers = lockdown::lock_down(wanted)?;
    // It dies with the host from here on. Should that have been too late, nobody holds the other end any more.
    still_there(control).map_err(|errno| (SetupStep::Channels, errno))?;
    if memory.down.seal() && memory.up.seal() {
        layers = layers.with(Layer::SealedMappings);
    }
    crash::install(memory.up.header()).map_err(|errno| (SetupStep::Handlers, errno))?;
    let strict = StrictFilter::make().map_err(|errno| (SetupStep::WideFilter, errno))?;
    wide_filter(strict.address()).map_err(|errno| (SetupStep::WideFilter, errno))?;
    STRICT.get_or_init(|| strict);
    Ok((memory, layers.with(Layer::Seccomp)))
}

/// Hands the host this process's memory map, which it may have no right to open once the process has another user.
fn show_maps(control: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let maps = rustix::fs::open("/proc/self/maps", flags, Mode::empty())?;
    wire::send(control, &Told { step: 0, errno: 0 }, &[maps.as_fd()])
}

fn still_there(control: &OwnedFd) -> Result<(), Errno> {
    let mut polled = [PollFd::new(control, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&at_once)))?;
    if polled[0].revents().is_empty() { Ok(()) } else { Err(Errno::PIPE) }
}

/// Maps what the host shares, and closes the descriptors: a plugin could map them as code.
fn map() -> Result<&'static Memory, Errno> {
    // SAFETY: the spawner has put both there for this process.
    let files = unsafe { (OwnedFd::from_raw_fd(DOWN_FD), OwnedFd::from_raw_fd(UP_FD)) };
    let first = Region::<Down>::map(&files.0, file_bytes(0), false)?;
    let setup = &first.header().setup;
    let slots = setup.slots.load(Ordering::Relaxed) as usize;
    if setup.magic.load(Ordering::Relaxed) != MAGIC || !(2..=SLOTS_MAX).contains(&slots) {
        return Err(Errno::INVAL);
    }
    let bytes = file_bytes(slots);
    let down = Region::map(&files.0, bytes, false)?;
    let up = Region::map(&files.1, bytes, true)?;
    Ok(Box::leak(Box::new(Memory { down, up, slots })))
}

fn load_libraries() {
    for library in LIBRARIES {
        // SAFETY: libraries of the system, whose constructors every program runs.
        let loaded = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) };
        std::mem::forget(loaded);
    }
}

/// The filter for later, where a plugin can neither write nor put something else: the wide filter lets nothing be
/// installed but what stands at this address.
struct StrictFilter {
    program: &'static libc::sock_fprog,
}

// SAFETY: nothing ever writes to the program or to what it points to.
unsafe impl Send for StrictFilter {}
// SAFETY: as above.
unsafe impl Sync for StrictFilter {}

static STRICT: OnceLock<StrictFilter> = OnceLock::new();

impl StrictFilter {
    /// In pages of its own, that can only be read. Where the kernel cannot seal them, the host is told with the other
    /// mappings.
    fn make() -> Result<Self, Errno> {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
        let filter = seccomp::strict_program(std::process::id());
        let filter = filter.map_err(|seccomp::BadFilter| Errno::INVAL)?;
        let instructions = size_of_val(filter.as_slice());
        let bytes = (size_of::<libc::sock_fprog>() + instructions).next_multiple_of(PAGE_MAX);
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address the system chooses.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, rights, MapFlags::PRIVATE)? };
        let program = start.cast::<libc::sock_fprog>();
        // SAFETY: both fit into the mapping one after the other, which is aligned for either; the instructions of the
        // library are the kernel's, byte for byte, as it asserts itself. Nobody else knows of the mapping yet.
        unsafe {
            let list = program.add(1).cast::<libc::sock_filter>();
            std::ptr::copy_nonoverlapping(filter.as_ptr().cast(), list, filter.len());
            let len = u16::try_from(filter.len()).map_err(|_too_long| Errno::TOOBIG)?;
            program.write(libc::sock_fprog { len, filter: list });
            mprotect(start, bytes, MprotectFlags::READ)?;
            // Before Linux 6.10 there is no such call.
            libc::syscall(libc::SYS_mseal, start, bytes, 0_usize);
            Ok(Self { program: &*program })
        }
    }

    fn address(&self) -> u64 {
        std::ptr::from_ref(self.program).addr() as u64
    }

    /// On every thread: a constructor may have started some.
    fn install(&self) -> Result<(), Errno> {
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
        // SAFETY: the program and its instructions are never unmapped.
        let done = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, self.program) };
        match done {
            0 => Ok(()),
            // A thread has a filter of its own.
            thread if thread > 0 => Err(Errno::SRCH),
            _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }
}

fn wide_filter(strict: u64) -> Result<(), Errno> {
    let [_files, soft @ ..] = seccomp::SOFT;
    for (errno, calls) in soft {
        apply(seccomp::refusal(errno, calls))?;
    }
    apply(seccomp::fatal())?;
    apply(seccomp::allow_list(&seccomp::wide(std::process::id(), strict)))
}

fn strict_filter() -> Result<(), Errno> {
    STRICT.get().ok_or(Errno::INVAL)?.install()
}

fn apply(filter: Result<seccompiler::BpfProgram, seccomp::BadFilter>) -> Result<(), Errno> {
    let filter = filter.map_err(|seccomp::BadFilter| Errno::INVAL)?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|error| match error {
        seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error) => {
            Errno::from_io_error(&error).unwrap_or(Errno::IO)
        }
        // A thread has a filter of its own.
        seccompiler::Error::ThreadSync(_) => Errno::SRCH,
        seccompiler::Error::Backend(_) | seccompiler::Error::EmptyFilter => Errno::INVAL,
    })
}
