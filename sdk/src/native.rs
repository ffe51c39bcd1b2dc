//! The border of a native library: the C entries behind [`export!`](crate::export), and the gate to the host.
//!
//! ```text
//! init ──ok──▶ instance (one heap value) ──shutdown──▶ gone, host gate closed
//!   └──error or panic──▶ nothing is left, host gate closed
//! ```
#![expect(unsafe_code, reason = "the border between the C ABI and safe Rust")]

use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock};

use crate::abi::{self, Reply, Slice};
use crate::runtime::{Exported, Instance, Refusal, check_identity, told};
use crate::{Error, Host, Level};

/// The way to the kernel's structure. That is valid until shutdown returns, but safe code may keep a [`Host`] for longer,
/// in a static or on another thread: so every use goes through here, and behind a closed gate every function does nothing.
#[derive(Clone)]
pub(crate) struct Gate(Arc<RwLock<Option<Raw>>>);

/// The kernel's structure, checked to be large enough.
struct Raw(*const abi::Host);

// SAFETY: the ABI promises that the host's functions may be called from any thread, and nobody writes to
// the structure.
unsafe impl Send for Raw {}
// SAFETY: as above; the structure is only read.
unsafe impl Sync for Raw {}

impl Gate {
    /// Wraps the kernel's structure; `None` when it is not one that this SDK can use.
    ///
    /// # Safety
    /// `raw` is NULL or points to a host structure of the size it says, valid until [`Gate::close`].
    unsafe fn open(raw: *const abi::Host) -> Option<Self> {
        // SAFETY: NULL or valid, says the caller; every host has at least the size and version fields.
        let usable = !raw.is_null()
            && unsafe {
                (*raw).struct_size as usize >= size_of::<abi::Host>()
                    && (*raw).abi_major == abi::ABI_MAJOR
            };
        usable.then(|| Self(Arc::new(RwLock::new(Some(Raw(raw))))))
    }

    /// Waits for uses under way and lets no more through.
    fn close(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn with<R>(&self, closed: R, use_it: impl FnOnce(&abi::Host) -> R) -> R {
        let gate = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match &*gate {
            // SAFETY: the gate is open, so `close` has not returned and the structure is valid.
            Some(raw) => use_it(unsafe { &*raw.0 }),
            None => closed,
        }
    }

    pub(crate) fn log(&self, level: Level, text: &str) {
        self.with((), |host| {
            // SAFETY: never NULL by the ABI; `text` outlives the call.
            unsafe { (host.log)(host.ctx, level as u32, Slice::new(text.as_bytes())) }
        });
    }

    pub(crate) fn now_ns(&self) -> i64 {
        // SAFETY: never NULL by the ABI.
        self.with(0, |host| unsafe { (host.now_ns)(host.ctx) })
    }

    pub(crate) fn counter_add(&self, name: &str, delta: u64) {
        self.with((), |host| {
            // SAFETY: never NULL by the ABI; `name` outlives the call.
            unsafe { (host.counter_add)(host.ctx, Slice::new(name.as_bytes()), delta) }
        });
    }

    pub(crate) fn resource_read(&self, path: &str, offset: u64, buffer: &mut [u8]) -> i64 {
        self.with(-1, |host| {
            let path = Slice::new(path.as_bytes());
            // SAFETY: never NULL by the ABI; path and buffer outlive the call, and the host writes at most
            // `buffer.len()` bytes.
            unsafe {
                (host.resource_read)(host.ctx, path, offset, buffer.as_mut_ptr(), buffer.len())
            }
        })
    }
}

/// What the kernel's opaque instance pointer points to.
struct Shell<P: Exported> {
    instance: Instance<P>,
    gate: Gate,
}

/// The constant that a plugin exports. Name and version are checked while it is compiled.
#[must_use]
pub const fn descriptor<P: Exported>() -> abi::Descriptor {
    check_identity::<P>();
    let stateful = P::STATE.is_some();
    abi::Descriptor {
        magic: abi::MAGIC,
        struct_size: size_of::<abi::Descriptor>() as u32,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        features: P::FEATURES,
        name: padded(P::NAME),
        version: padded(P::VERSION),
        init: Some(init::<P>),
        call: Some(call::<P>),
        health: Some(health::<P>),
        save_state: if stateful { Some(save_state::<P>) } else { None },
        reload: if stateful { Some(reload::<P>) } else { None },
        shutdown: Some(shutdown::<P>),
    }
}

const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let text = text.as_bytes();
    let mut bytes = [0; N];
    let mut at = 0;
    while at < text.len() {
        bytes[at] = text[at];
        at += 1;
    }
    bytes
}

/// # Safety
/// `slice` is valid for reads during `'a`, as the ABI promises.
unsafe fn bytes<'a>(slice: Slice) -> &'a [u8] {
    if slice.ptr.is_null() || slice.len == 0 {
        return &[];
    }
    // SAFETY: not NULL, and valid by the caller's promise.
    unsafe { std::slice::from_raw_parts(slice.ptr, slice.len) }
}

/// Appends to a sink; `false` when it would not take the bytes.
///
/// # Safety
/// `sink` is NULL or valid, as the ABI promises.
unsafe fn write(sink: *const Reply, bytes: &[u8]) -> bool {
    // SAFETY: NULL or valid by the caller's promise.
    let Some(sink) = (unsafe { sink.as_ref() }) else { return false };
    // SAFETY: `write` is never NULL by the ABI, and `bytes` outlives the call.
    bytes.is_empty() || unsafe { (sink.write)(sink.ctx, Slice::new(bytes)) } == 0
}

/// Writes what the kernel is told, and says which code goes with it.
///
/// # Safety
/// As for [`write`].
unsafe fn answer(sink: *const Reply, outcome: &Result<Vec<u8>, Refusal>) -> i32 {
    let (bytes, code) = told(outcome);
    // SAFETY: the caller's promise.
    let written = unsafe { write(sink, bytes) };
    // An answer that was not taken is none; a text that was cut is still an error.
    if written || code != abi::OK { code } else { abi::ERROR }
}

/// The ABI's `init`.
///
/// # Safety
/// As the ABI promises: pointers valid or NULL, `host` until `shutdown` returns.
pub unsafe extern "C" fn init<P: Exported>(
    host: *const abi::Host,
    config: Slice,
    instance: *mut *mut c_void,
    message: *const Reply,
) -> i32 {
    // SAFETY: NULL or valid until shutdown by the ABI; `close` is called before that ends.
    let Some(gate) = (unsafe { Gate::open(host) }) else {
        let why = "the host's structure is missing, too small or of another ABI";
        // SAFETY: NULL or valid during this call by the ABI.
        unsafe { write(message, why.as_bytes()) };
        return abi::ERROR;
    };
    // SAFETY: valid during this call by the ABI.
    let config = unsafe { bytes(config) };
    match Instance::<P>::new(Host::new(gate.clone()), config) {
        Ok(made) if instance.is_null() => {
            finish(Shell { instance: made, gate });
            abi::ERROR
        }
        Ok(made) => {
            let shell = Box::into_raw(Box::new(Shell { instance: made, gate }));
            // SAFETY: not NULL, and valid for a write by the ABI.
            unsafe { ptr::write(instance, shell.cast()) };
            abi::OK
        }
        Err(error) => {
            gate.close();
            // SAFETY: NULL or valid during this call by the ABI.
            unsafe { write(message, error.text().as_bytes()) };
            abi::ERROR
        }
    }
}

/// Ends an instance whatever the plugin does.
fn finish<P: Exported>(shell: Shell<P>) -> i32 {
    let Shell { instance, gate } = shell;
    let outcome = instance.shutdown();
    let code = hook_code(&gate, "shutdown", &outcome);
    gate.close();
    code
}

/// Code of a hook that has no sink: its text goes to the log.
fn hook_code(gate: &Gate, hook: &str, outcome: &Result<(), Error>) -> i32 {
    match outcome {
        Ok(()) => abi::OK,
        Err(error) => {
            gate.log(Level::Warn, &format!("{hook}: {error}"));
            abi::ERROR
        }
    }
}

/// The ABI's `call`.
///
/// # Safety
/// As the ABI promises: `instance` from a successful `init` and not shut down; the rest valid or NULL.
pub unsafe extern "C" fn call<P: Exported>(
    instance: *mut c_void,
    method: u32,
    request: Slice,
    reply: *const Reply,
) -> i32 {
    // SAFETY: `init` wrote this pointer, and shutdown does not overlap a call.
    let Some(shell) = (unsafe { instance.cast::<Shell<P>>().as_ref() }) else { return abi::ERROR };
    // SAFETY: valid during this call by the ABI.
    let outcome = shell.instance.call(method, unsafe { bytes(request) });
    // SAFETY: NULL or valid during this call by the ABI.
    unsafe { answer(reply, &outcome) }
}

/// The ABI's `health`.
///
/// # Safety
/// As for [`call`]; the kernel waits for it before `shutdown`.
pub unsafe extern "C" fn health<P: Exported>(instance: *mut c_void) -> i32 {
    // SAFETY: `init` wrote this pointer, and shutdown waits for health.
    let Some(shell) = (unsafe { instance.cast::<Shell<P>>().as_ref() }) else { return abi::ERROR };
    hook_code(&shell.gate, "health", &shell.instance.health())
}

/// The ABI's `save_state`.
///
/// # Safety
/// As for [`call`].
pub unsafe extern "C" fn save_state<P: Exported>(
    instance: *mut c_void,
    state: *const Reply,
) -> i32 {
    // SAFETY: `init` wrote this pointer, and shutdown does not overlap this hook.
    let Some(shell) = (unsafe { instance.cast::<Shell<P>>().as_ref() }) else { return abi::ERROR };
    // SAFETY: NULL or valid during this call by the ABI.
    unsafe { answer(state, &shell.instance.save_state()) }
}

/// The ABI's `reload`.
///
/// # Safety
/// As for [`call`].
pub unsafe extern "C" fn reload<P: Exported>(
    instance: *mut c_void,
    from_version: Slice,
    state: Slice,
    message: *const Reply,
) -> i32 {
    // SAFETY: `init` wrote this pointer, and shutdown does not overlap this hook.
    let Some(shell) = (unsafe { instance.cast::<Shell<P>>().as_ref() }) else { return abi::ERROR };
    // SAFETY: both valid during this call by the ABI.
    let (from_version, state) = unsafe { (bytes(from_version), bytes(state)) };
    let outcome = shell.instance.reload(from_version, state);
    // SAFETY: NULL or valid during this call by the ABI.
    unsafe { answer(message, &outcome) }
}

/// The ABI's `shutdown`.
///
/// # Safety
/// As for [`call`]; exactly once, when nothing else is under way.
pub unsafe extern "C" fn shutdown<P: Exported>(instance: *mut c_void) -> i32 {
    if instance.is_null() {
        return abi::ERROR;
    }
    // SAFETY: `init` made this pointer from a box of this type, and shutdown comes once.
    finish(*unsafe { Box::from_raw(instance.cast::<Shell<P>>()) })
}

/// What the kernel's loader looks for in a native library.
#[doc(hidden)]
#[macro_export]
macro_rules! __entries {
    ($plugin:ty $(, $stateful:tt)?) => {
        /// What the kernel's loader looks for.
        #[allow(non_upper_case_globals, reason = "the name is the ABI's")]
        #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".themis"))]
        #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__themis"))]
        #[unsafe(no_mangle)]
        #[used]
        pub static themis_plugin: $crate::abi::Descriptor = $crate::native::descriptor::<$plugin>();
    };
}
