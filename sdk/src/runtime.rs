//! The C entries behind [`export!`](crate::export): pointers in, safe Rust inside, no panic out.
//!
//! ```text
//! init ──ok──▶ instance (one heap value) ──shutdown──▶ gone, host gate closed
//!   └──error or panic──▶ nothing is left, host gate closed
//! ```
//!
//! What a panic leaves behind is the plugin's value as it was at that moment; the SDK keeps serving from
//! it, and the kernel decides whether to.
#![expect(unsafe_code, reason = "the border between the C ABI and safe Rust")]

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::abi::{self, Reply, Slice};
use crate::{Config, Error, ErrorKind, Host, Plugin, Stateful};

/// What [`export!`](crate::export) writes for a plugin.
pub trait Exported: Plugin {
    /// The plugin's name.
    const NAME: &'static str;
    /// The plugin's version.
    const VERSION: &'static str;
    /// Feature bits.
    const FEATURES: u64;
    /// Entry that saves state, when opted in.
    const SAVE_STATE: Option<abi::SaveStateFn> = None;
    /// Entry that takes state over, when opted in.
    const RELOAD: Option<abi::ReloadFn> = None;
    /// Where the value lives between calls.
    type Slot: Slot<Self>;

    /// Answers one call.
    ///
    /// # Errors
    /// The method is unknown or refused.
    fn dispatch(&self, method: u32, request: &[u8]) -> Result<Vec<u8>, Refusal>;
}

/// Why a call has no answer.
#[derive(Debug)]
pub enum Refusal {
    /// No such method.
    UnknownMethod,
    /// The method refused.
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Holds a plugin's value so that `&self` is sound on whatever thread the host calls from.
pub trait Slot<P>: Send + Sync {
    /// Keeps the value.
    fn new(plugin: P) -> Self;
    /// Uses the value.
    fn with<R>(&self, use_it: impl FnOnce(&P) -> R) -> R;
    /// Uses the value unless a call is using it.
    fn try_with<R>(&self, use_it: impl FnOnce(&P) -> R) -> Option<R>;
    /// Gives the value back.
    fn into_inner(self) -> P;
}

/// For `thread_safe: true`.
#[derive(Debug)]
pub struct Parallel<P>(P);

impl<P: Plugin + Sync> Slot<P> for Parallel<P> {
    fn new(plugin: P) -> Self {
        Self(plugin)
    }

    fn with<R>(&self, use_it: impl FnOnce(&P) -> R) -> R {
        use_it(&self.0)
    }

    fn try_with<R>(&self, use_it: impl FnOnce(&P) -> R) -> Option<R> {
        Some(use_it(&self.0))
    }

    fn into_inner(self) -> P {
        self.0
    }
}

/// For `thread_safe: false`. The kernel lets calls in one by one, but asks for health beside them; the lock
/// makes both sound without taking anybody's word.
#[derive(Debug)]
pub struct Serial<P>(Mutex<P>);

impl<P: Plugin> Slot<P> for Serial<P> {
    fn new(plugin: P) -> Self {
        Self(Mutex::new(plugin))
    }

    fn with<R>(&self, use_it: impl FnOnce(&P) -> R) -> R {
        use_it(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn try_with<R>(&self, use_it: impl FnOnce(&P) -> R) -> Option<R> {
        use std::sync::TryLockError;
        match self.0.try_lock() {
            Ok(plugin) => Some(use_it(&plugin)),
            Err(TryLockError::Poisoned(poisoned)) => Some(use_it(&poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn into_inner(self) -> P {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the kernel's opaque instance pointer points to.
struct Shell<P: Exported> {
    slot: P::Slot,
    host: Host,
}

/// The constant that a plugin exports. Name and version are checked while it is compiled.
#[must_use]
pub const fn descriptor<P: Exported>() -> abi::Descriptor {
    assert!(is_name(P::NAME), "a plugin's name is [a-z][a-z0-9_-]{{0,62}}");
    assert!(is_version(P::VERSION), "a plugin's version has no build metadata and no blanks");
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
        save_state: P::SAVE_STATE,
        reload: P::RELOAD,
        shutdown: Some(shutdown::<P>),
    }
}

const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let text = text.as_bytes();
    assert!(text.len() < N, "name or version is too long: at most 63 and 31 bytes");
    let mut bytes = [0; N];
    let mut at = 0;
    while at < text.len() {
        bytes[at] = text[at];
        at += 1;
    }
    bytes
}

const fn is_name(text: &str) -> bool {
    let text = text.as_bytes();
    let mut at = 0;
    while at < text.len() {
        let first = at == 0;
        match text[at] {
            b'a'..=b'z' => {}
            b'0'..=b'9' | b'_' | b'-' if !first => {}
            _ => return false,
        }
        at += 1;
    }
    !text.is_empty()
}

const fn is_version(text: &str) -> bool {
    let text = text.as_bytes();
    let mut at = 0;
    while at < text.len() {
        if !text[at].is_ascii_alphanumeric() && text[at] != b'.' && text[at] != b'-' {
            return false;
        }
        at += 1;
    }
    !text.is_empty() && text[0].is_ascii_digit()
}

/// Reads the arguments, calls, encodes the answer: MessagePack, structures with their field names.
///
/// # Errors
/// The request is not one value of type `A`, the method refused, or its answer cannot be encoded.
pub fn typed<A: DeserializeOwned, R: Serialize>(
    mut request: &[u8],
    method: impl FnOnce(A) -> Result<R, Error>,
) -> Result<Vec<u8>, Error> {
    let arguments = A::deserialize(&mut rmp_serde::Deserializer::new(&mut request))
        .map_err(|error| Error::bad_request(format!("arguments: {error}")))?;
    if !request.is_empty() {
        return Err(Error::bad_request("arguments: bytes are left over"));
    }
    rmp_serde::to_vec_named(&method(arguments)?)
        .map_err(|error| Error::new(format!("answer: {error}")))
}

/// Runs plugin code; a panic becomes the text of an error.
fn contained<R, E: From<Error>>(code: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|payload| {
        Err(Error::new(format_args!("panicked: {}", panic_text(payload))).into())
    })
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "not with a text".to_owned(),
    };
    // Dropping a payload of an unknown type could panic again.
    std::mem::forget(payload);
    text
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

/// Writes bytes or the text of a refusal and says which code goes with it.
///
/// # Safety
/// As for [`write`].
unsafe fn answer(sink: *const Reply, outcome: &Result<Vec<u8>, Refusal>) -> i32 {
    let (bytes, code) = match outcome {
        Ok(bytes) => (bytes.as_slice(), abi::OK),
        Err(Refusal::UnknownMethod) => return abi::UNKNOWN_METHOD,
        Err(Refusal::Error(error)) => {
            let code = match error.kind() {
                ErrorKind::Own => abi::ERROR,
                ErrorKind::BadRequest => abi::BAD_REQUEST,
            };
            (error.text().as_bytes(), code)
        }
    };
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
    let host = unsafe { Host::open(host) };
    let outcome = contained(|| {
        let host = host.clone().ok_or_else(|| {
            Error::new("the host's structure is missing, too small or of another ABI")
        })?;
        // SAFETY: valid during this call by the ABI.
        let config = Config::new(unsafe { bytes(config) });
        let plugin = P::init(host.clone(), config)?;
        Ok::<_, Error>(Shell::<P> { slot: P::Slot::new(plugin), host })
    });
    match outcome {
        Ok(shell) if instance.is_null() => {
            finish(shell);
            abi::ERROR
        }
        Ok(shell) => {
            let shell = Box::into_raw(Box::new(shell));
            // SAFETY: not NULL, and valid for a write by the ABI.
            unsafe { ptr::write(instance, shell.cast()) };
            abi::OK
        }
        Err(error) => {
            if let Some(host) = host {
                host.close();
            }
            // SAFETY: NULL or valid during this call by the ABI.
            unsafe { write(message, error.text().as_bytes()) };
            abi::ERROR
        }
    }
}

/// Ends an instance whatever the plugin does.
fn finish<P: Exported>(shell: Shell<P>) -> i32 {
    let Shell { slot, host } = shell;
    let outcome = contained(|| slot.into_inner().shutdown());
    let code = hook_code(&host, "shutdown", &outcome);
    host.close();
    code
}

/// Code of a hook that has no sink: its text goes to the log.
fn hook_code(host: &Host, hook: &str, outcome: &Result<(), Error>) -> i32 {
    match outcome {
        Ok(()) => abi::OK,
        Err(error) => {
            host.log(crate::Level::Warn, format_args!("{hook}: {error}"));
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
    let request = unsafe { bytes(request) };
    let outcome = contained(|| shell.slot.with(|plugin| plugin.dispatch(method, request)));
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
    // A plugin that takes one call at a time and is in one is at work: it has no more to say.
    let outcome = contained(|| shell.slot.try_with(P::health).unwrap_or(Ok(())));
    hook_code(&shell.host, "health", &outcome)
}

/// The ABI's `save_state`.
///
/// # Safety
/// As for [`call`].
pub unsafe extern "C" fn save_state<P: Exported + Stateful>(
    instance: *mut c_void,
    state: *const Reply,
) -> i32 {
    // SAFETY: `init` wrote this pointer, and shutdown does not overlap this hook.
    let Some(shell) = (unsafe { instance.cast::<Shell<P>>().as_ref() }) else { return abi::ERROR };
    let outcome = contained(|| shell.slot.with(P::save_state).map_err(Refusal::Error));
    // SAFETY: NULL or valid during this call by the ABI.
    unsafe { answer(state, &outcome) }
}

/// The ABI's `reload`.
///
/// # Safety
/// As for [`call`].
pub unsafe extern "C" fn reload<P: Exported + Stateful>(
    instance: *mut c_void,
    from_version: Slice,
    state: Slice,
    message: *const Reply,
) -> i32 {
    // SAFETY: `init` wrote this pointer, and shutdown does not overlap this hook.
    let Some(shell) = (unsafe { instance.cast::<Shell<P>>().as_ref() }) else { return abi::ERROR };
    // SAFETY: both valid during this call by the ABI.
    let (from_version, state) = unsafe { (bytes(from_version), bytes(state)) };
    let outcome = contained(|| {
        let from_version = std::str::from_utf8(from_version)?;
        shell.slot.with(|plugin| plugin.reload(from_version, state))?;
        Ok::<_, Error>(Vec::new())
    });
    // SAFETY: NULL or valid during this call by the ABI.
    unsafe { answer(message, &outcome.map_err(Refusal::Error)) }
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
