//! Safe access to what the kernel offers a plugin.
//!
//! The kernel's own side of it is another thing in a native library than in a module: each border has its own.

use std::fmt;

use crate::abi;
#[cfg(not(target_arch = "wasm32"))]
use crate::native::Gate as Access;
#[cfg(target_arch = "wasm32")]
use crate::wasm::Imports as Access;

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

/// What the kernel offers. Each part needs a capability in the manifest: without it, it does nothing in a native library,
/// and a wasm module that uses it is refused.
#[derive(Clone)]
pub struct Host {
    access: Access,
}

impl Host {
    pub(crate) fn new(access: Access) -> Self {
        Self { access }
    }

    /// Writes one log line. Capability `log`. See also [`info!`](crate::info) and its siblings.
    pub fn log(&self, level: Level, message: impl fmt::Display) {
        self.access.log(level, &message.to_string());
    }

    /// Nanoseconds on a clock that never goes back; 0 without capability `clock`.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        self.access.now_ns()
    }

    /// Adds to the plugin's counter `name` (`[a-z0-9_]{1,64}`). Capability `metrics`.
    pub fn counter_add(&self, name: &str, delta: u64) {
        self.access.counter_add(name, delta);
    }

    /// Reads from the plugin's `data` file `path` into `buffer`: how many bytes, 0 at its end. `None` when
    /// there is no such file, or no capability `resources`.
    pub fn resource_read(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let read = self.access.resource_read(path, offset, buffer);
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
