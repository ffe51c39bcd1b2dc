//! Safe access to what the kernel offers a plugin.
//!
//! The kernel's structure is valid until shutdown returns, but safe code may keep a [`Host`] for longer, in
//! a static or on another thread. So every use goes through a gate that the SDK closes after shutdown;
//! behind a closed gate every function does nothing.
#![expect(unsafe_code, reason = "calls the host's C functions")]

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::abi;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Something failed.
    Error = abi::LOG_ERROR,
    /// Something looks wrong.
    Warn = abi::LOG_WARN,
    /// Worth knowing.
    Info = abi::LOG_INFO,
    /// For finding faults.
    Debug = abi::LOG_DEBUG,
    /// Everything.
    Trace = abi::LOG_TRACE,
}

/// What the kernel offers. Each part needs a capability in the manifest and does nothing without it.
#[derive(Clone)]
pub struct Host {
    gate: Arc<RwLock<Option<Raw>>>,
}

/// The kernel's structure, checked to be large enough.
struct Raw(*const abi::Host);

// SAFETY: the ABI promises that the host's functions may be called from any thread, and nobody writes to
// the structure.
unsafe impl Send for Raw {}
// SAFETY: as above; the structure is only read.
unsafe impl Sync for Raw {}

impl Host {
    /// Wraps the kernel's structure; `None` when it is not one that this SDK can use.
    ///
    /// # Safety
    /// `raw` is NULL or points to a host structure of the size it says, valid until [`Host::close`].
    pub(crate) unsafe fn open(raw: *const abi::Host) -> Option<Self> {
        // SAFETY: NULL or valid, says the caller; every host has at least the size and version fields.
        let usable = !raw.is_null()
            && unsafe {
                (*raw).struct_size as usize >= size_of::<abi::Host>()
                    && (*raw).abi_major == abi::ABI_MAJOR
            };
        usable.then(|| Self { gate: Arc::new(RwLock::new(Some(Raw(raw)))) })
    }

    /// Waits for uses under way and lets no more through.
    pub(crate) fn close(&self) {
        self.gate.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn with<R>(&self, closed: R, use_it: impl FnOnce(&abi::Host) -> R) -> R {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        match &*gate {
            // SAFETY: the gate is open, so `close` has not returned and the structure is valid.
            Some(raw) => use_it(unsafe { &*raw.0 }),
            None => closed,
        }
    }

    /// Writes one log line. Capability `log`. See also [`info!`](crate::info) and its siblings.
    pub fn log(&self, level: Level, message: impl fmt::Display) {
        let text = message.to_string();
        self.with((), |host| {
            // SAFETY: never NULL by the ABI; `text` outlives the call.
            unsafe { (host.log)(host.ctx, level as u32, abi::Slice::new(text.as_bytes())) }
        });
    }

    /// Nanoseconds on a clock that never goes back; 0 without capability `clock`.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        // SAFETY: never NULL by the ABI.
        self.with(0, |host| unsafe { (host.now_ns)(host.ctx) })
    }

    /// Adds to the plugin's counter `name` (`[a-z0-9_]{1,64}`). Capability `metrics`.
    pub fn counter_add(&self, name: &str, delta: u64) {
        self.with((), |host| {
            // SAFETY: never NULL by the ABI; `name` outlives the call.
            unsafe { (host.counter_add)(host.ctx, abi::Slice::new(name.as_bytes()), delta) }
        });
    }

    /// Reads from the plugin's `data` file `path` into `buffer`: how many bytes, 0 at its end. `None` when
    /// there is no such file, or no capability `resources`.
    pub fn resource_read(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let read = self.with(-1, |host| {
            let path = abi::Slice::new(path.as_bytes());
            // SAFETY: never NULL by the ABI; path and buffer outlive the call, and the host writes at most
            // `buffer.len()` bytes.
            unsafe {
                (host.resource_read)(host.ctx, path, offset, buffer.as_mut_ptr(), buffer.len())
            }
        });
        usize::try_from(read).ok().map(|read| read.min(buffer.len()))
    }

    /// The whole of the plugin's `data` file `path`.
    #[must_use]
    pub fn resource(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 16 << 10];
        loop {
            match self.resource_read(path, bytes.len() as u64, &mut chunk)? {
                0 => return Some(bytes),
                read => bytes.extend_from_slice(chunk.get(..read)?),
            }
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

/// Logs an error through a [`Host`]: `error!(self.host, "no table {name}")`.
#[macro_export]
macro_rules! error {
    ($host:expr, $($message:tt)+) => { $host.log($crate::Level::Error, format_args!($($message)+)) };
}

/// Logs a warning through a [`Host`].
#[macro_export]
macro_rules! warn {
    ($host:expr, $($message:tt)+) => { $host.log($crate::Level::Warn, format_args!($($message)+)) };
}

/// Logs something worth knowing through a [`Host`].
#[macro_export]
macro_rules! info {
    ($host:expr, $($message:tt)+) => { $host.log($crate::Level::Info, format_args!($($message)+)) };
}

/// Logs something for finding faults through a [`Host`].
#[macro_export]
macro_rules! debug {
    ($host:expr, $($message:tt)+) => { $host.log($crate::Level::Debug, format_args!($($message)+)) };
}
