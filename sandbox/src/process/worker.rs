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

use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::Ordering;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use rustix::io::Errno;
use rustix::net::SocketType;
use themis_messages::sandbox::{Layer, Layers, SetupStep};

use super::layout::{CONTROL_FD, DOWN_FD, Down, MAGIC, SLOTS_MAX, UP_FD, Up, file_bytes};
use super::seccomp;
use super::shared::Region;
use super::wire::{self, Failed as Told};
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
    let memory = match prepare() {
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

fn prepare() -> Result<(&'static Memory, Layers), Failed> {
    let memory = map().map_err(|errno| (SetupStep::Memory, errno))?;
    load_libraries();
    let setup = &memory.down.header().setup;
    let wanted = Wanted {
        memory_bytes: setup.memory_bytes.load(Ordering::Relaxed),
        cap_memory: setup.cap_memory.load(Ordering::Relaxed) != 0,
        pids: setup.pids.load(Ordering::Relaxed),
    };
    let mut layers = lockdown::lock_down(wanted)?;
    if memory.down.seal() && memory.up.seal() {
        layers = layers.with(Layer::SealedMappings);
    }
    crash::install(memory.up.header()).map_err(|errno| (SetupStep::Handlers, errno))?;
    wide_filter().map_err(|errno| (SetupStep::WideFilter, errno))?;
    Ok((memory, layers.with(Layer::Seccomp)))
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

fn wide_filter() -> Result<(), Errno> {
    let [_files, soft @ ..] = seccomp::SOFT;
    for (errno, calls) in soft {
        apply(seccomp::refusal(errno, calls))?;
    }
    apply(seccomp::fatal())?;
    apply(seccomp::allow_list(&seccomp::wide(std::process::id())))
}

/// On every thread: a constructor may have started some.
fn strict_filter() -> Result<(), Errno> {
    let [(errno, files), ..] = seccomp::SOFT;
    apply(seccomp::refusal(errno, files))?;
    apply(seccomp::allow_list(&seccomp::strict(std::process::id())))
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
