//! The native plugin ABI, byte for byte: the one definition that kernel and plugins share.
//!
//! `include/themis_plugin.h` says the same in C. Structures only ever grow at their end, and carry their
//! size first, so that either side can be older than the other. Offsets are asserted at compile time here
//! and in the header.

use core::ffi::c_void;
#[cfg(not(target_arch = "wasm32"))]
use core::mem::{offset_of, size_of};

/// A plugin built for another major is refused.
pub const ABI_MAJOR: u16 = 1;
/// A plugin built for a higher minor than the kernel's is refused.
pub const ABI_MINOR: u16 = 0;
/// First bytes of every descriptor.
pub const MAGIC: [u8; 8] = *b"THEMIS1\0";
/// Name of the exported descriptor, as the dynamic symbol table spells it.
pub const DESCRIPTOR_SYMBOL: &str = "themis_plugin";
/// Bytes of [`Descriptor::name`]; the last one is NUL.
pub const NAME_LEN: usize = 64;
/// Bytes of [`Descriptor::version`]; the last one is NUL.
pub const VERSION_LEN: usize = 32;

/// Feature bit 0: `call` may run on many threads at once. Without it the kernel lets calls in one by one.
pub const THREAD_SAFE: u64 = 1;
/// A kernel refuses a plugin that sets a bit in here that it does not know; the low half it may ignore.
pub const FEATURES_REQUIRED: u64 = 0xffff_ffff_0000_0000;

/// Return code: done.
pub const OK: i32 = 0;
/// Return code: the plugin's own error; the reply (or message) bytes are its text.
pub const ERROR: i32 = 1;
/// Return code: there is no such method.
pub const UNKNOWN_METHOD: i32 = 2;
/// Return code: the request is not what the method takes.
pub const BAD_REQUEST: i32 = 3;

/// Log level: something failed.
pub const LOG_ERROR: u32 = 1;
/// Log level: something looks wrong.
pub const LOG_WARN: u32 = 2;
/// Log level: worth knowing.
pub const LOG_INFO: u32 = 3;
/// Log level: for finding faults.
pub const LOG_DEBUG: u32 = 4;
/// Log level: everything.
pub const LOG_TRACE: u32 = 5;

/// Borrowed bytes. Valid only during the call that got them; `ptr` may be anything when `len` is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// First byte.
    pub ptr: *const u8,
    /// How many bytes.
    pub len: usize,
}

impl Slice {
    /// Borrows `bytes`; the caller keeps them alive for as long as the slice is used.
    #[must_use]
    pub const fn new(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }
}

/// [`Host::log`].
pub type LogFn = unsafe extern "C" fn(ctx: *mut c_void, level: u32, message: Slice);
/// [`Host::now_ns`].
pub type NowFn = unsafe extern "C" fn(ctx: *mut c_void) -> i64;
/// [`Host::counter_add`].
pub type CounterFn = unsafe extern "C" fn(ctx: *mut c_void, name: Slice, delta: u64);
/// [`Host::resource_read`].
pub type ResourceFn = unsafe extern "C" fn(
    ctx: *mut c_void,
    path: Slice,
    offset: u64,
    dst: *mut u8,
    cap: usize,
) -> i64;

/// What the kernel offers. Handed to init, valid until shutdown returns; its functions are never NULL, may
/// be called from any thread, and do nothing when the manifest lacks the capability.
#[repr(C)]
#[derive(Debug)]
pub struct Host {
    /// Bytes of the kernel's structure: what lies beyond is not there.
    pub struct_size: u32,
    /// The kernel's major.
    pub abi_major: u16,
    /// The kernel's minor.
    pub abi_minor: u16,
    /// First argument of every function.
    pub ctx: *mut c_void,
    /// Writes one log line. Capability `log`.
    pub log: LogFn,
    /// Nanoseconds on a clock that never goes back; 0 without capability `clock`.
    pub now_ns: NowFn,
    /// Adds to a counter named `[a-z0-9_]{1,64}`. Capability `metrics`.
    pub counter_add: CounterFn,
    /// Reads one of the plugin's `data` files: bytes read, 0 at its end, -1 = no such file or no
    /// capability `resources`.
    pub resource_read: ResourceFn,
}

/// [`Reply::write`].
pub type WriteFn = unsafe extern "C" fn(ctx: *mut c_void, chunk: Slice) -> i32;

/// Takes the bytes of one reply or error text. Valid only during the call that got it.
#[repr(C)]
#[derive(Debug)]
pub struct Reply {
    /// Bytes of the kernel's structure.
    pub struct_size: u32,
    /// First argument of [`Reply::write`].
    pub ctx: *mut c_void,
    /// Appends; 0 = taken, anything else = the cap is reached: stop.
    pub write: WriteFn,
}

/// [`Descriptor::init`].
pub type InitFn = unsafe extern "C" fn(
    host: *const Host,
    config_json: Slice,
    instance: *mut *mut c_void,
    message: *const Reply,
) -> i32;
/// [`Descriptor::call`].
pub type CallFn = unsafe extern "C" fn(
    instance: *mut c_void,
    method: u32,
    request: Slice,
    reply: *const Reply,
) -> i32;
/// [`Descriptor::health`] and [`Descriptor::shutdown`].
pub type PlainFn = unsafe extern "C" fn(instance: *mut c_void) -> i32;
/// [`Descriptor::save_state`].
pub type SaveStateFn = unsafe extern "C" fn(instance: *mut c_void, state: *const Reply) -> i32;
/// [`Descriptor::reload`].
pub type ReloadFn = unsafe extern "C" fn(
    instance: *mut c_void,
    from_version: Slice,
    state: Slice,
    message: *const Reply,
) -> i32;

/// What a plugin exports as `themis_plugin`: constant, in section `.themis`, readable from the file without
/// running anything. (The entries are addresses: in the file they are still zero.)
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Bytes of the plugin's structure.
    pub struct_size: u32,
    /// [`ABI_MAJOR`] the plugin was built for.
    pub abi_major: u16,
    /// [`ABI_MINOR`] the plugin was built for.
    pub abi_minor: u16,
    /// Feature bits.
    pub features: u64,
    /// NUL-padded, equal to the manifest's.
    pub name: [u8; NAME_LEN],
    /// NUL-padded, equal to the manifest's.
    pub version: [u8; VERSION_LEN],
    /// Makes an instance. Required.
    pub init: Option<InitFn>,
    /// Answers one call. Required.
    pub call: Option<CallFn>,
    /// Says whether the instance is well.
    pub health: Option<PlainFn>,
    /// Writes what a successor needs to carry on.
    pub save_state: Option<SaveStateFn>,
    /// Takes what a predecessor saved.
    pub reload: Option<ReloadFn>,
    /// Ends the instance. Required; owed exactly once after a successful init.
    pub shutdown: Option<PlainFn>,
}

// In a module only the numbers are of use: it is called through exports, and no structure leaves it.
#[cfg(not(any(
    target_arch = "wasm32",
    all(target_endian = "little", target_pointer_width = "64")
)))]
compile_error!("the native plugin ABI is defined for 64-bit little-endian machines only");

#[cfg(not(target_arch = "wasm32"))]
const _: () = {
    assert!(size_of::<Slice>() == 16 && offset_of!(Slice, len) == 8);

    assert!(offset_of!(Host, abi_major) == 4 && offset_of!(Host, abi_minor) == 6);
    assert!(offset_of!(Host, ctx) == 8 && offset_of!(Host, log) == 16);
    assert!(offset_of!(Host, now_ns) == 24 && offset_of!(Host, counter_add) == 32);
    assert!(offset_of!(Host, resource_read) == 40 && size_of::<Host>() == 48);

    assert!(offset_of!(Reply, ctx) == 8 && offset_of!(Reply, write) == 16);
    assert!(size_of::<Reply>() == 24);

    assert!(offset_of!(Descriptor, struct_size) == 8);
    assert!(offset_of!(Descriptor, abi_major) == 12 && offset_of!(Descriptor, abi_minor) == 14);
    assert!(offset_of!(Descriptor, features) == 16 && offset_of!(Descriptor, name) == 24);
    assert!(offset_of!(Descriptor, version) == 88 && offset_of!(Descriptor, init) == 120);
    assert!(offset_of!(Descriptor, call) == 128 && offset_of!(Descriptor, health) == 136);
    assert!(offset_of!(Descriptor, save_state) == 144 && offset_of!(Descriptor, reload) == 152);
    assert!(offset_of!(Descriptor, shutdown) == 160 && size_of::<Descriptor>() == 168);
};
