//! One initialised instance of an image.
//!
//! ```text
//! LIVE ──shutdown called──▶ ENDING ──returned──▶ ENDED
//! ```
//!
//! Dropped while ENDED, it gives back what the host lent to the plugin. Dropped earlier, it leaves that in
//! place for good: the plugin may still be using it.
#![expect(unsafe_code, reason = "calls a plugin's entries")]

use std::ffi::c_void;
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use themis_messages::instance::{
    CallStatus, Concurrency, HookError, ImageEvidence, Instance, ReplyBuffer, StateHooks,
};
use themis_messages::limits::{HOOK_MESSAGE_BYTES_MAX, STATE_BYTES_MAX};
use themis_plugin::abi::{self, Slice};

use super::image::Image;
use super::services::{HostServices, HostTable, clean_text};
use super::sink::{Message, lend};

const LIVE: u8 = 0;
const ENDING: u8 = 1;
const ENDED: u8 = 2;

/// What a call on an instance that was shut down is told: no plugin was asked.
const GONE: CallStatus = CallStatus::Fault(i32::MIN);

impl Image {
    /// Makes an instance. Blocks for as long as the plugin's init does.
    ///
    /// # Errors
    /// The plugin refused, or returned a code that the ABI does not know.
    pub fn init(
        self: &Arc<Self>,
        services: HostServices,
        config_json: &[u8],
    ) -> Result<Arc<dyn Instance>, HookError> {
        let host = HostTable::new(services);
        let mut instance = ptr::null_mut();
        let mut message = Message::default();
        let sink = lend(&mut message);
        let config = Slice::new(config_json);
        let init = self.mapped.entries.init;
        // SAFETY: the entry is the verified image's, all pointers are valid for the call, and the host's
        // structure until shutdown returned.
        let code = unsafe { init(host.as_ptr(), config, &raw mut instance, sink.as_ptr()) };
        drop(sink);
        hook_outcome(code, &message)?;
        Ok(Arc::new(NativeInstance {
            call: self.mapped.entries.call,
            instance,
            life: AtomicU8::new(LIVE),
            vitals: Mutex::new(()),
            hooks: Mutex::new(()),
            host: Some(host),
            image: Arc::clone(self),
        }))
    }
}

struct NativeInstance {
    /// A copy: a call should not have to go through the image for it.
    call: abi::CallFn,
    instance: *mut c_void,
    life: AtomicU8,
    /// Held by health and by shutdown: the plugin's memory must not go away under a health check. A hook that hangs
    /// in `save_state` or `reload` does not keep anybody from asking for health.
    vitals: Mutex<()>,
    /// Held by save_state, reload and shutdown, which never overlap. Taken before `vitals`.
    hooks: Mutex<()>,
    /// There until it is known that the plugin does not use it any more.
    host: Option<HostTable>,
    image: Arc<Image>,
}

// SAFETY: the instance pointer is only handed to the plugin's entries, which the ABI allows from any
// thread.
unsafe impl Send for NativeInstance {}
// SAFETY: as above. Calls on a plugin that is not thread-safe are kept apart by the caller, as
// `Instance::call` demands; health may overlap everything; shutdown happens once.
unsafe impl Sync for NativeInstance {}

impl Instance for NativeInstance {
    fn call(&self, method: u32, request: &[u8], reply: &mut ReplyBuffer<'_>) -> CallStatus {
        if self.life.load(Ordering::Acquire) != LIVE {
            return GONE;
        }
        let sink = lend(reply);
        let request = Slice::new(request);
        // SAFETY: the entry is the verified image's, the instance is live, request and sink outlive the
        // call.
        let code = unsafe { (self.call)(self.instance, method, request, sink.as_ptr()) };
        drop(sink);
        if reply.overflowed() {
            return CallStatus::ReplyTooLarge;
        }
        match code {
            abi::OK => CallStatus::Ok,
            abi::ERROR => CallStatus::PluginError,
            abi::UNKNOWN_METHOD => CallStatus::UnknownMethod,
            abi::BAD_REQUEST => CallStatus::BadRequest,
            code => CallStatus::Fault(code),
        }
    }

    fn concurrency(&self) -> Concurrency {
        self.image.mapped.concurrency
    }

    fn health(&self) -> Result<(), HookError> {
        let Some(health) = self.image.mapped.entries.health else { return Ok(()) };
        let _vitals = self.vitals.lock();
        self.check_live()?;
        // SAFETY: the entry is the verified image's; shutdown waits for the lock held here.
        hook_outcome(unsafe { health(self.instance) }, &Message::default())
    }

    fn state_hooks(&self) -> StateHooks {
        let entries = &self.image.mapped.entries;
        StateHooks { saves: entries.save_state.is_some(), takes: entries.reload.is_some() }
    }

    fn save_state(&self) -> Result<Vec<u8>, HookError> {
        let save_state = self.image.mapped.entries.save_state.ok_or(HookError::Missing)?;
        let _hooks = self.hooks.lock();
        self.check_live()?;
        let mut state = Vec::new();
        let mut buffer = ReplyBuffer::with_cap(&mut state, STATE_BYTES_MAX);
        let sink = lend(&mut buffer);
        // SAFETY: the entry is the verified image's, the instance is live and stays so while the lock is held, and the
        // sink outlives the call.
        let code = unsafe { save_state(self.instance, sink.as_ptr()) };
        drop(sink);
        // A hook that ignores the refusal has saved only a part.
        if buffer.overflowed() {
            return Err(HookError::TooLarge { max: STATE_BYTES_MAX });
        }
        if code != abi::OK {
            let kept = state.len().min(HOOK_MESSAGE_BYTES_MAX);
            let cut = kept < state.len();
            state.truncate(kept);
            hook_outcome(code, &Message { bytes: std::mem::take(&mut state), cut })?;
        }
        Ok(state)
    }

    fn reload(&self, from_version: &str, state: &[u8]) -> Result<(), HookError> {
        let reload = self.image.mapped.entries.reload.ok_or(HookError::Missing)?;
        let _hooks = self.hooks.lock();
        self.check_live()?;
        let mut message = Message::default();
        let sink = lend(&mut message);
        let (from, state) = (Slice::new(from_version.as_bytes()), Slice::new(state));
        // SAFETY: as for `save_state`; version and state outlive the call as well.
        let code = unsafe { reload(self.instance, from, state, sink.as_ptr()) };
        drop(sink);
        hook_outcome(code, &message)
    }

    fn shutdown(&self) -> Result<(), HookError> {
        let first =
            self.life.compare_exchange(LIVE, ENDING, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !first {
            return Ok(());
        }
        let _hooks = self.hooks.lock();
        let _vitals = self.vitals.lock();
        let shutdown = self.image.mapped.entries.shutdown;
        // SAFETY: the entry is the verified image's, called once; no other hook is under way, and the
        // caller lets no call be.
        let code = unsafe { shutdown(self.instance) };
        self.life.store(ENDED, Ordering::Release);
        hook_outcome(code, &Message::default())
    }

    fn evidence(&self) -> &ImageEvidence {
        self.image.evidence()
    }
}

impl NativeInstance {
    fn check_live(&self) -> Result<(), HookError> {
        if self.life.load(Ordering::Acquire) == LIVE {
            return Ok(());
        }
        Err(HookError::Refused { message: "the instance was shut down".to_owned() })
    }
}

impl fmt::Debug for NativeInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeInstance")
            .field("image", self.image.evidence())
            .field("life", &self.life.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Drop for NativeInstance {
    fn drop(&mut self) {
        if self.life.load(Ordering::Acquire) != ENDED {
            tracing::warn!(digest = %self.image.evidence().digest, "instance dropped without an end");
            std::mem::forget(self.host.take());
        }
    }
}

/// What a hook's code means. Of the ABI's refusals, 2 has no meaning for a hook.
fn hook_outcome(code: i32, message: &Message) -> Result<(), HookError> {
    match code {
        abi::OK => Ok(()),
        abi::ERROR | abi::BAD_REQUEST => Err(HookError::Refused { message: message.text() }),
        code => Err(HookError::Fault { code }),
    }
}

impl Message {
    fn text(&self) -> String {
        if self.bytes.is_empty() {
            return "it gave no reason".to_owned();
        }
        clean_text(&self.bytes, self.cut)
    }
}
