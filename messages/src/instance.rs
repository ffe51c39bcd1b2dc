//! The one contract that every isolation tier fulfils: an initialised instance that can be called.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::Digest;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::sandbox::{Isolation, Usage, Verdict};

/// What a tier hands to the actors: one initialised instance of an image.
///
/// The methods block. [`Instance::call`] runs on the caller's thread; the hooks are run by the actors on
/// threads of their own, with a deadline.
pub trait Instance: Send + Sync + fmt::Debug {
    /// Answers one call by appending to `reply`.
    ///
    /// When [`Instance::concurrency`] is [`Concurrency::Serial`] the caller of this method must not let two
    /// calls overlap.
    fn call(&self, method: u32, request: &[u8], reply: &mut ReplyBuffer<'_>) -> CallStatus;

    /// Whether [`Instance::start_call`] begins calls.
    fn starts_calls(&self) -> bool {
        false
    }

    /// Begins a call that no thread waits for. What is kept is dropped when the call is over, also when the future is
    /// dropped before that.
    ///
    /// # Errors
    /// [`NotAsync`] gives everything back where calls run on their callers' threads.
    fn start_call(
        &self,
        method: u32,
        request: Vec<u8>,
        keep: Box<dyn Any + Send>,
    ) -> Result<CallFuture, NotAsync> {
        let _not_needed = method;
        Err(NotAsync { request, keep })
    }

    /// Whether calls may overlap.
    fn concurrency(&self) -> Concurrency;

    /// Asks the plugin whether it is well; `Ok` when it has no such hook.
    ///
    /// # Errors
    /// The plugin's own verdict or a fault.
    fn health(&self) -> Result<(), HookError>;

    /// Which of the state hooks it has.
    fn state_hooks(&self) -> StateHooks;

    /// Writes what a successor needs. The caller lets no call be under way; never overlaps init, reload, shutdown.
    ///
    /// # Errors
    /// The plugin refused, a fault, more than
    /// [`STATE_BYTES_MAX`](crate::limits::STATE_BYTES_MAX), or no such hook.
    fn save_state(&self) -> Result<Vec<u8>, HookError>;

    /// Takes over what a predecessor saved.
    ///
    /// # Errors
    /// The plugin refused, a fault, or no such hook.
    fn reload(&self, from_version: &str, state: &[u8]) -> Result<(), HookError>;

    /// Ends the instance. Owed exactly once; no call may be under way.
    ///
    /// # Errors
    /// The plugin's own complaint or a fault; the instance is gone all the same.
    fn shutdown(&self) -> Result<(), HookError>;

    /// What is mapped or running, for receipts.
    fn evidence(&self) -> &ImageEvidence;

    /// Tells once when the instance ends by itself, or by what it did: at once when it has already. Never for one that
    /// was shut down. An instance in the host's own process cannot.
    fn on_end(&self, told: OnEnd) {
        drop(told);
    }

    /// How it is confined; `None` in the host's own process.
    fn isolation(&self) -> Option<&Isolation> {
        None
    }

    /// What it has used, as far as its tier can tell.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Ends it at once, without a hook, whatever is inside. In the host's own process nobody can.
    fn abandon(&self, after: Duration) {
        let _nothing_to_be_done = after;
    }
}

/// A call under way: how it ended, and the bytes of its reply.
pub type CallFuture = Pin<Box<dyn Future<Output = (CallStatus, Vec<u8>)> + Send>>;

/// Calls of this instance run on their callers' threads.
pub struct NotAsync {
    /// As it was given.
    pub request: Vec<u8>,
    /// As it was given.
    pub keep: Box<dyn Any + Send>,
}

/// Told how an instance ended.
pub type OnEnd = Box<dyn FnOnce(Arc<Verdict>) + Send>;

/// Which of the state hooks an instance has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateHooks {
    /// It can save its state.
    pub saves: bool,
    /// It can take over what a predecessor saved.
    pub takes: bool,
}

/// Whether calls on one instance may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// The plugin declared itself thread-safe.
    Parallel,
    /// One call at a time.
    Serial,
}

/// Proof of what an instance runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEvidence {
    /// SHA-256 of the verified bytes, which are the mapped bytes.
    pub digest: Digest,
    /// Build id read from the mapped image, when the linker put one in: hexadecimal.
    pub build_id: Option<String>,
    /// Inode of the sealed file, found again in the process's memory map.
    pub inode: u64,
    /// Whether this image was mapped already (same digest loaded before).
    pub reused: bool,
    /// Size of the image's file in bytes.
    pub bytes: u64,
    /// Memory the image keeps for good, in bytes: its sealed file, page-rounded, and the private copies of its
    /// writable segments (memory size, page-rounded).
    pub resident_bytes: u64,
}

/// How a call ended, as the plugin ABI tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallStatus {
    /// 0: the reply is the answer.
    Ok,
    /// 1: the plugin's own error; the reply is its text.
    PluginError,
    /// 2: no such method.
    UnknownMethod,
    /// 3: the request is not what the method takes.
    BadRequest,
    /// The request is longer than [`MESSAGE_BYTES_MAX`]; nobody was asked.
    RequestTooLarge,
    /// As many calls as may be under way at once were, for so long; nobody was asked.
    Busy(Duration),
    /// The reply went over its cap.
    ReplyTooLarge,
    /// Any other return code: a fault of the plugin.
    Fault(i32),
    /// The process it ran in ended, before or during the call. One verdict for everybody who was inside.
    Ended(Arc<Verdict>),
}

/// Why a hook did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// The plugin refused, with its own text.
    #[error("the plugin refused: {message}")]
    Refused {
        /// The plugin's text, cut and with invalid UTF-8 replaced.
        message: String,
    },
    /// A return code outside the ABI.
    #[error("the plugin returned {code}, which the ABI does not know")]
    Fault {
        /// The code.
        code: i32,
    },
    /// The hook did not return in time; its thread is written off.
    #[error("the hook did not return within {limit:?}; its thread is written off")]
    Deadline {
        /// The limit it missed.
        limit: Duration,
    },
    /// The plugin has no such hook.
    #[error("it has no such hook")]
    Missing,
    /// It wrote more than it may.
    #[error("it wrote more than {max} bytes")]
    TooLarge {
        /// The cap.
        max: usize,
    },
    /// The process it ran in ended.
    #[error("{verdict}")]
    Ended {
        /// How.
        verdict: Arc<Verdict>,
    },
    /// The hook's thread could not be started, or died.
    #[error("the hook's thread failed: {what}")]
    Thread {
        /// What the system said.
        what: String,
    },
}

/// Collects the bytes of one reply up to a cap.
#[derive(Debug)]
pub struct ReplyBuffer<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    cap: usize,
    overflowed: bool,
}

impl<'a> ReplyBuffer<'a> {
    /// Appends to `bytes`, at most [`MESSAGE_BYTES_MAX`].
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self::with_cap(bytes, MESSAGE_BYTES_MAX)
    }

    /// Appends to `bytes`, at most `cap` bytes.
    pub fn with_cap(bytes: &'a mut Vec<u8>, cap: usize) -> Self {
        let start = bytes.len();
        Self { bytes, start, cap, overflowed: false }
    }

    /// Appends a chunk; `false` when that would go over the cap, and then nothing is appended.
    #[inline]
    #[must_use]
    pub fn write(&mut self, chunk: &[u8]) -> bool {
        let used = self.bytes.len() - self.start;
        if self.overflowed || chunk.len() > self.cap - used {
            self.overflowed = true;
            return false;
        }
        self.bytes.extend_from_slice(chunk);
        true
    }

    /// Where `len` bytes can be appended at once; `None` when they would go over the cap.
    #[must_use]
    pub fn room(&mut self, len: usize) -> Option<&mut Vec<u8>> {
        let used = self.bytes.len() - self.start;
        if self.overflowed || len > self.cap - used {
            self.overflowed = true;
            return None;
        }
        Some(self.bytes)
    }

    /// Whether a write was ever refused.
    #[inline]
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_over_its_cap_is_refused_for_good() {
        let mut bytes = b"kept".to_vec();
        let mut reply = ReplyBuffer::with_cap(&mut bytes, 4);
        assert!(reply.write(b"abc"));
        assert!(!reply.write(b"de"));
        assert!(!reply.write(b"d"), "after an overflow nothing more is taken");
        assert!(reply.overflowed());
        assert_eq!(bytes, b"keptabc");
    }
}
