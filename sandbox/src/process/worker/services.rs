//! What a plugin in a worker can ask of the host: answered here, or left in shared memory for the host to read.
//!
//! No call to the host is ever made: the clock is the system's, data files are mapped, counters are sums that the host
//! looks at, and log lines wait in a ring. A plugin that logs faster than the host reads loses lines, and is told nothing.
#![expect(unsafe_code, reason = "the host's side of the C ABI")]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use themis_messages::limits::{LOG_LINE_BYTES_MAX, PATH_BYTES_MAX, PLUGIN_COUNTERS_MAX};
use themis_plugin::abi::{self, Slice};

use super::super::layout::{COUNTER_NAME_MAX, LOG_BYTES};
use super::Memory;
use super::plugin::Described;
use crate::native::{counter_name, guarded, prefix};

/// Data files by path.
pub(super) type Data = BTreeMap<String, &'static [u8]>;

/// The C structure an instance is given.
pub(super) struct HostTable(&'static abi::Host);

// SAFETY: the structure is never written after it was made, and its pointer leads to a `Context`, which is `Sync`.
unsafe impl Send for HostTable {}
// SAFETY: as above.
unsafe impl Sync for HostTable {}

struct Context {
    memory: &'static Memory,
    data: Data,
    log: bool,
    clock: bool,
    metrics: bool,
    resources: bool,
    origin_ns: u64,
    /// Names that counters have, in the order of their places.
    names: Mutex<Vec<String>>,
    /// Held while a line is written.
    writing: Mutex<()>,
}

impl HostTable {
    pub(super) fn new(memory: &'static Memory, described: &Described, data: Data) -> Self {
        let context: &'static Context = Box::leak(Box::new(Context {
            memory,
            data,
            log: described.log,
            clock: described.clock,
            metrics: described.metrics,
            resources: described.resources,
            origin_ns: memory.down.header().setup.origin_ns.load(Ordering::Relaxed),
            names: Mutex::default(),
            writing: Mutex::new(()),
        }));
        Self(Box::leak(Box::new(abi::Host {
            struct_size: size_of::<abi::Host>() as u32,
            abi_major: abi::ABI_MAJOR,
            abi_minor: abi::ABI_MINOR,
            ctx: std::ptr::from_ref(context).cast_mut().cast(),
            log,
            now_ns,
            counter_add,
            resource_read,
        })))
    }

    pub(super) fn as_ptr(&self) -> *const abi::Host {
        self.0
    }
}

impl Context {
    /// After what it tells of.
    fn told(&self) {
        self.memory.up.header().state.services.fetch_add(1, Ordering::Release);
    }

    fn write_line(&self, level: u32, text: &[u8]) {
        let up = self.memory.up.header();
        let _writing = self.writing.lock();
        let head = up.log.head.load(Ordering::Relaxed);
        let read = self.memory.down.header().log_read.word.load(Ordering::Acquire);
        let used = head.wrapping_sub(read) as usize;
        if used + 4 + text.len() > LOG_BYTES {
            up.state.log_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let level = u16::try_from(level).unwrap_or(u16::MAX).to_le_bytes();
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes();
        for (offset, byte) in (0_u32..).zip(level.iter().chain(&len).chain(text)) {
            let place = head.wrapping_add(offset) as usize % LOG_BYTES;
            up.log.bytes[place].store(*byte, Ordering::Relaxed);
        }
        let written = 4 + u32::try_from(text.len()).unwrap_or(0);
        up.log.head.store(head.wrapping_add(written), Ordering::Release);
        self.told();
    }

    fn add(&self, name: &str, delta: u64) {
        let counters = &self.memory.up.header().counters;
        let Some(place) = self.place_of(name) else { return };
        counters[place].value.fetch_add(delta, Ordering::Relaxed);
        self.told();
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        let mut names = self.names.lock();
        if let Some(place) = names.iter().position(|known| known == name) {
            return Some(place);
        }
        let place = names.len();
        if place == PLUGIN_COUNTERS_MAX {
            return None;
        }
        let up = self.memory.up.header();
        let counter = &up.counters[place];
        for (to, byte) in counter.name.iter().zip(name.bytes()) {
            to.store(byte, Ordering::Relaxed);
        }
        let len = u32::try_from(name.len().min(COUNTER_NAME_MAX)).unwrap_or(0);
        counter.name_len.store(len, Ordering::Relaxed);
        names.push(name.to_owned());
        up.state.counters.store(names.len() as u32, Ordering::Release);
        Some(place)
    }
}

/// The context behind a host structure.
///
/// # Safety
/// `ctx` is a [`HostTable`]'s.
unsafe fn context<'a>(ctx: *mut c_void) -> &'a Context {
    // SAFETY: the caller's promise; contexts are never freed.
    unsafe { &*ctx.cast::<Context>() }
}

unsafe extern "C" fn log(ctx: *mut c_void, level: u32, message: Slice) {
    guarded((), || {
        // SAFETY: the ABI passes what it was given.
        let context = unsafe { context(ctx) };
        if context.log {
            // SAFETY: valid during this call by the ABI. One byte more than a line may have tells that it was cut.
            context.write_line(level, unsafe { prefix(message, LOG_LINE_BYTES_MAX + 1) });
        }
    });
}

unsafe extern "C" fn now_ns(ctx: *mut c_void) -> i64 {
    guarded(0, || {
        // SAFETY: as for `log`.
        let context = unsafe { context(ctx) };
        if !context.clock {
            return 0;
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let origin = i64::try_from(context.origin_ns).unwrap_or(0);
        now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec) - origin
    })
}

unsafe extern "C" fn counter_add(ctx: *mut c_void, name: Slice, delta: u64) {
    guarded((), || {
        // SAFETY: as for `log`.
        let context = unsafe { context(ctx) };
        // SAFETY: valid during this call by the ABI.
        let bytes = unsafe { prefix(name, COUNTER_NAME_MAX + 1) };
        if let (true, Some(name)) = (context.metrics, counter_name(bytes)) {
            context.add(name, delta);
        }
    });
}

unsafe extern "C" fn resource_read(
    ctx: *mut c_void,
    path: Slice,
    offset: u64,
    dst: *mut u8,
    cap: usize,
) -> i64 {
    const NO_SUCH_FILE: i64 = -1;
    guarded(NO_SUCH_FILE, || {
        // SAFETY: as for `log`.
        let context = unsafe { context(ctx) };
        // SAFETY: valid during this call by the ABI.
        let path = unsafe { prefix(path, PATH_BYTES_MAX + 1) };
        let file = std::str::from_utf8(path).ok().filter(|_| context.resources);
        let Some(file) = file.and_then(|path| context.data.get(path)) else { return NO_SUCH_FILE };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = file.get(start..).unwrap_or_default();
        let count = rest.len().min(cap);
        if count == 0 || dst.is_null() {
            return 0;
        }
        // SAFETY: `dst` is valid for `cap` bytes by the ABI, `rest` has at least `count`; a plugin that passes a part of the
        // file itself cannot write there, and crashes.
        unsafe { std::ptr::copy(rest.as_ptr(), dst, count) };
        i64::try_from(count).unwrap_or(i64::MAX)
    })
}
