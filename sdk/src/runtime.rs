//! What is behind [`export!`](crate::export) on every target: a plugin's value, and what becomes of a call to it.
//!
//! The borders are `native.rs` and `wasm.rs`: bytes come in there, and go out with one of the ABI's codes.
//!
//! What a panic leaves behind is the plugin's value as it was at that moment; the SDK keeps serving from
//! it, and the kernel decides whether to. In a module a panic is a trap, and the kernel throws the instance away.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Config, Error, ErrorKind, Host, Plugin, Stateful, abi};

/// What [`export!`](crate::export) writes for a plugin.
pub trait Exported: Plugin {
    /// The plugin's name.
    const NAME: &'static str;
    /// The plugin's version.
    const VERSION: &'static str;
    /// Feature bits.
    const FEATURES: u64;
    /// How its state moves, when opted in.
    const STATE: Option<State<Self>> = None;
    /// Where the value lives between calls.
    type Slot: Slot<Self>;

    /// Answers one call.
    ///
    /// # Errors
    /// The method is unknown or refused.
    fn dispatch(&self, method: u32, request: &[u8]) -> Result<Vec<u8>, Refusal>;
}

/// The hooks of a [`Stateful`] plugin.
#[derive(Debug)]
pub struct State<P> {
    save: fn(&P) -> Result<Vec<u8>, Error>,
    take: fn(&P, &str, &[u8]) -> Result<(), Error>,
}

impl<P: Stateful> State<P> {
    /// The plugin's own.
    #[must_use]
    pub const fn hooks() -> Self {
        Self { save: P::save_state, take: P::reload }
    }
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

/// A plugin's value, made by `init` and ended by `shutdown`. No panic leaves it.
pub(crate) struct Instance<P: Exported>(P::Slot);

impl<P: Exported> Instance<P> {
    pub(crate) fn new(host: Host, config: &[u8]) -> Result<Self, Error> {
        contained(|| P::init(host, Config::new(config)).map(|plugin| Self(P::Slot::new(plugin))))
    }

    pub(crate) fn call(&self, method: u32, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        contained(|| self.0.with(|plugin| plugin.dispatch(method, request)))
    }

    pub(crate) fn health(&self) -> Result<(), Error> {
        // A plugin that takes one call at a time and is in one is at work: it has no more to say.
        contained(|| self.0.try_with(P::health).unwrap_or(Ok(())))
    }

    pub(crate) fn save_state(&self) -> Result<Vec<u8>, Refusal> {
        let hooks = state_hooks::<P>()?;
        contained(|| self.0.with(hooks.save).map_err(Refusal::Error))
    }

    pub(crate) fn reload(&self, from_version: &[u8], state: &[u8]) -> Result<Vec<u8>, Refusal> {
        let hooks = state_hooks::<P>()?;
        let taken = contained(|| {
            let from_version = std::str::from_utf8(from_version)?;
            self.0.with(|plugin| (hooks.take)(plugin, from_version, state))
        });
        Ok(taken.map(|()| Vec::new())?)
    }

    pub(crate) fn shutdown(self) -> Result<(), Error> {
        contained(|| self.0.into_inner().shutdown())
    }
}

fn state_hooks<P: Exported>() -> Result<State<P>, Error> {
    P::STATE.ok_or_else(|| Error::new("this plugin has no state"))
}

/// What the kernel is told of an outcome: the bytes of an answer or the text of a refusal, and the code that goes with
/// them.
pub(crate) fn told(outcome: &Result<Vec<u8>, Refusal>) -> (&[u8], i32) {
    match outcome {
        Ok(bytes) => (bytes, abi::OK),
        Err(Refusal::UnknownMethod) => (&[], abi::UNKNOWN_METHOD),
        Err(Refusal::Error(error)) => {
            let code = match error.kind() {
                ErrorKind::Own => abi::ERROR,
                ErrorKind::BadRequest => abi::BAD_REQUEST,
            };
            (error.text().as_bytes(), code)
        }
    }
}

/// Stops the compiler at a name or version that no manifest may have.
pub(crate) const fn check_identity<P: Exported>() {
    assert!(is_name(P::NAME), "a plugin's name is [a-z][a-z0-9_-]{{0,62}}");
    assert!(is_version(P::VERSION), "a plugin's version has no build metadata and no blanks");
    assert!(
        P::NAME.len() < abi::NAME_LEN && P::VERSION.len() < abi::VERSION_LEN,
        "name or version is too long: at most 63 and 31 bytes"
    );
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
