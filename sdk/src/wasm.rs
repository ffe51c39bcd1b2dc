//! The border of a wasm module: what it imports of the host, and the exports behind [`export!`](crate::export).
//!
//! Each import is called directly and from one place: the linker keeps those that the plugin uses, and the kernel refuses
//! a module that imports more than its manifest's capabilities. So nothing here may use one on the plugin's behalf:
//! the text of a failed hook goes through `reply`, which every module is granted.
#![expect(unsafe_code, reason = "the border between the module's exports and safe Rust")]

use std::alloc::Layout;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::{alloc, panic, ptr};

use crate::runtime::{self, Exported, Refusal, check_identity, told};
use crate::{Error, Host, Level, abi};

mod import {
    //! What the kernel offers a module. Pointers and lengths are of the module's own memory.

    #[link(wasm_import_module = "themis")]
    unsafe extern "C" {
        pub(super) fn reply(bytes: *const u8, len: usize);
        pub(super) fn log(level: u32, text: *const u8, len: usize);
        pub(super) safe fn now_ns() -> i64;
        pub(super) fn counter_add(name: *const u8, len: usize, delta: u64);
        pub(super) fn resource_read(
            path: *const u8,
            len: usize,
            offset: u64,
            to: *mut u8,
            cap: usize,
        ) -> i64;
    }
}

/// The way to the host, for as long as the module lives.
#[derive(Clone)]
pub(crate) struct Imports;

impl Imports {
    pub(crate) fn log(&self, level: Level, text: &str) {
        static PANICS: Once = Once::new();
        // A panic is a trap, and the kernel knows no text of it: a plugin that may log tells it there.
        PANICS.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                write_log(Level::Error, &panic.to_string());
                before(panic);
            }));
        });
        write_log(level, text);
    }

    pub(crate) fn now_ns(&self) -> i64 {
        import::now_ns()
    }

    pub(crate) fn counter_add(&self, name: &str, delta: u64) {
        // SAFETY: `name` outlives the call.
        unsafe { import::counter_add(name.as_ptr(), name.len(), delta) }
    }

    pub(crate) fn resource_read(&self, path: &str, offset: u64, buffer: &mut [u8]) -> i64 {
        let (to, cap) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: path and buffer outlive the call, and the host writes at most `cap` bytes.
        unsafe { import::resource_read(path.as_ptr(), path.len(), offset, to, cap) }
    }
}

fn write_log(level: Level, text: &str) {
    // SAFETY: `text` outlives the call.
    unsafe { import::log(level as u32, text.as_ptr(), text.len()) }
}

/// Tells the kernel an outcome, and answers its code.
fn answer(outcome: &Result<Vec<u8>, Refusal>) -> i32 {
    let (bytes, code) = told(outcome);
    if !bytes.is_empty() {
        // SAFETY: `bytes` outlives the call.
        unsafe { import::reply(bytes.as_ptr(), bytes.len()) };
    }
    code
}

/// As [`answer`], for a hook that has nothing to say when all is well.
fn answer_hook(outcome: Result<(), Error>) -> i32 {
    answer(&outcome.map(|()| Vec::new()).map_err(Refusal::Error))
}

/// Room for what the kernel passes; NULL when there is none. It is given back by [`take`].
#[must_use]
pub fn room(len: usize) -> *mut u8 {
    match Layout::array::<u8>(len) {
        // SAFETY: the layout is not of size zero.
        Ok(layout) if len > 0 => unsafe { alloc::alloc(layout) },
        Ok(_) => ptr::dangling_mut(),
        Err(_too_much) => ptr::null_mut(),
    }
}

/// What the kernel passes, from now on the plugin's.
///
/// # Safety
/// `len` is 0, or `bytes` came from [`room`] for just as many, all written, and was not taken yet.
#[must_use]
pub unsafe fn take(bytes: *mut u8, len: usize) -> Vec<u8> {
    if bytes.is_null() || len == 0 {
        return Vec::new();
    }
    // SAFETY: allocated by `room` with this layout and given away for good, says the caller.
    unsafe { Vec::from_raw_parts(bytes, len, len) }
}

/// The module's one instance, between `themis_init` and `themis_shutdown`.
pub struct Instance<P: Exported>(Mutex<Option<runtime::Instance<P>>>);

impl<P: Exported> Default for Instance<P> {
    fn default() -> Self {
        Self::none()
    }
}

impl<P: Exported> Instance<P> {
    /// Before `themis_init`.
    #[must_use]
    pub const fn none() -> Self {
        Self(Mutex::new(None))
    }

    fn lock(&self) -> MutexGuard<'_, Option<runtime::Instance<P>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, use_it: impl FnOnce(&runtime::Instance<P>) -> Result<Vec<u8>, Refusal>) -> i32 {
        // The kernel calls nothing before a successful `init`.
        self.lock().as_ref().map_or(abi::ERROR, |instance| answer(&use_it(instance)))
    }

    /// `themis_init`.
    pub fn init(&self, config: &[u8]) -> i32 {
        let made = runtime::Instance::new(Host::new(Imports), config);
        answer_hook(made.map(|made| *self.lock() = Some(made)))
    }

    /// `themis_call`.
    pub fn call(&self, method: u32, request: &[u8]) -> i32 {
        self.with(|instance| instance.call(method, request))
    }

    /// `themis_health`.
    pub fn health(&self) -> i32 {
        self.with(|instance| Ok(instance.health().map(|()| Vec::new())?))
    }

    /// `themis_save_state`.
    pub fn save_state(&self) -> i32 {
        self.with(runtime::Instance::save_state)
    }

    /// `themis_reload`.
    pub fn reload(&self, from_version: &[u8], state: &[u8]) -> i32 {
        self.with(|instance| instance.reload(from_version, state))
    }

    /// `themis_shutdown`.
    pub fn shutdown(&self) -> i32 {
        let instance = self.lock().take();
        instance.map_or(abi::ERROR, |instance| answer_hook(instance.shutdown()))
    }
}

const fn identity_parts<P: Exported>() -> [&'static str; 5] {
    const { assert!(abi::ABI_MAJOR == 1 && abi::ABI_MINOR == 0, "the text below says so") };
    [r#"{"name":""#, P::NAME, r#"","version":""#, P::VERSION, r#"","abi":"1.0"}"#]
}

/// Bytes of [`identity`].
#[must_use]
pub const fn identity_len<P: Exported>() -> usize {
    let parts = identity_parts::<P>();
    let (mut len, mut at) = (0, 0);
    while at < parts.len() {
        len += parts[at].len();
        at += 1;
    }
    len
}

/// The custom section by which the kernel knows the module. Name and version are checked while it is compiled: neither has
/// a character that JSON would escape.
#[must_use]
pub const fn identity<P: Exported, const LEN: usize>() -> [u8; LEN] {
    check_identity::<P>();
    let parts = identity_parts::<P>();
    let mut bytes = [0; LEN];
    let (mut part, mut filled) = (0, 0);
    while part < parts.len() {
        let (text, mut at) = (parts[part].as_bytes(), 0);
        while at < text.len() {
            bytes[filled] = text[at];
            (at, filled) = (at + 1, filled + 1);
        }
        part += 1;
    }
    bytes
}

/// What the kernel looks for in a module.
#[doc(hidden)]
#[macro_export]
macro_rules! __entries {
    ($plugin:ty $(, $stateful:tt)?) => {
        const _: () = {
            use $crate::wasm::{Instance, identity, identity_len, room, take};

            #[unsafe(link_section = "themis")]
            #[used]
            static IDENTITY: [u8; identity_len::<$plugin>()] = identity::<$plugin, _>();

            static INSTANCE: Instance<$plugin> = Instance::none();

            #[unsafe(no_mangle)]
            extern "C" fn themis_alloc(len: usize) -> *mut u8 {
                room(len)
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn themis_init(config: *mut u8, len: usize) -> i32 {
                // SAFETY: the kernel passes what it had made by `themis_alloc`, and filled.
                INSTANCE.init(&unsafe { take(config, len) })
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn themis_call(method: u32, request: *mut u8, len: usize) -> i32 {
                // SAFETY: as for `themis_init`.
                INSTANCE.call(method, &unsafe { take(request, len) })
            }

            #[unsafe(no_mangle)]
            extern "C" fn themis_health() -> i32 {
                INSTANCE.health()
            }

            $($crate::__state_entries! { $stateful })?

            #[unsafe(no_mangle)]
            extern "C" fn themis_shutdown() -> i32 {
                INSTANCE.shutdown()
            }
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __state_entries {
    (true) => {
        #[unsafe(no_mangle)]
        extern "C" fn themis_save_state() -> i32 {
            INSTANCE.save_state()
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn themis_reload(
            version: *mut u8,
            version_len: usize,
            state: *mut u8,
            state_len: usize,
        ) -> i32 {
            // SAFETY: as for `themis_init`.
            let version = unsafe { take(version, version_len) };
            // SAFETY: as for `themis_init`.
            INSTANCE.reload(&version, &unsafe { take(state, state_len) })
        }
    };
    (false) => {};
}
