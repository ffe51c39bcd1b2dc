//! What a plugin in this process can ask of the host: callbacks that check, cap and never panic outwards.
#![expect(unsafe_code, reason = "the host's side of the C ABI")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use themis_messages::ids::PluginName;
use themis_messages::limits::{LOG_LINE_BYTES_MAX, PATH_BYTES_MAX, PLUGIN_COUNTERS_MAX};
use themis_messages::manifest::Capability;
use themis_plugin::abi::{self, Slice};

use crate::admission::SealedFile;

/// Longest name of a counter: it becomes a metric label.
const COUNTER_NAME_BYTES_MAX: usize = 64;

/// How much a plugin's log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something looks wrong.
    Warn,
    /// Worth knowing.
    Info,
    /// For finding faults.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Levels beyond the ABI's are taken as the nearest one: no line is lost for its level.
    pub(crate) const fn from_abi(level: u32) -> Self {
        match level {
            0 | abi::LOG_ERROR => Self::Error,
            abi::LOG_WARN => Self::Warn,
            abi::LOG_INFO => Self::Info,
            abi::LOG_DEBUG => Self::Debug,
            _ => Self::Trace,
        }
    }
}

/// Takes log lines: valid UTF-8, at most [`LOG_LINE_BYTES_MAX`] and a little, no control characters.
pub type LogSink = Arc<dyn Fn(LogLevel, &str) + Send + Sync>;
/// Takes additions to counters with names of `[a-z0-9_]{1,64}`.
pub type CounterSink = Arc<dyn Fn(&str, u64) + Send + Sync>;

/// What one instance may use of the host.
#[derive(Clone)]
pub struct HostServices {
    /// Whose instance it is: counters are bounded per plugin.
    pub plugin: PluginName,
    /// What its manifest lists and the operator grants.
    pub capabilities: Vec<Capability>,
    /// Where its log lines go.
    pub log: LogSink,
    /// Where its counts go.
    pub counter: CounterSink,
    /// Its `data` files by path.
    pub data: Arc<BTreeMap<String, SealedFile>>,
}

impl fmt::Debug for HostServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostServices")
            .field("plugin", &self.plugin)
            .field("capabilities", &self.capabilities)
            .field("data", &self.data.keys())
            .finish_non_exhaustive()
    }
}

/// The C structure an instance is given, with what lies behind it. Must outlive the instance.
pub(super) struct HostTable {
    table: Box<abi::Host>,
    /// Kept alive: `table.ctx` points to it.
    _context: Arc<Context>,
}

// SAFETY: the table is never written after it was made, and its pointer leads to a `Context`, which is
// `Sync` itself.
unsafe impl Send for HostTable {}
// SAFETY: as above.
unsafe impl Sync for HostTable {}

impl HostTable {
    pub(super) fn new(services: HostServices) -> Self {
        let names = CounterNames::of(&services.plugin);
        let context = Arc::new(Context { services, names });
        let table = Box::new(abi::Host {
            struct_size: size_of::<abi::Host>() as u32,
            abi_major: abi::ABI_MAJOR,
            abi_minor: abi::ABI_MINOR,
            ctx: Arc::as_ptr(&context).cast_mut().cast(),
            log,
            now_ns,
            counter_add,
            resource_read,
        });
        Self { table, _context: context }
    }

    pub(super) fn as_ptr(&self) -> *const abi::Host {
        &raw const *self.table
    }
}

struct Context {
    services: HostServices,
    names: Arc<CounterNames>,
}

impl Context {
    fn grants(&self, capability: Capability) -> bool {
        self.services.capabilities.contains(&capability)
    }
}

/// The counter names a plugin has used, over all its generations: metrics live as long as the process.
#[derive(Default)]
struct CounterNames {
    used: RwLock<BTreeSet<String>>,
}

impl CounterNames {
    fn of(plugin: &PluginName) -> Arc<Self> {
        static ALL: Mutex<BTreeMap<PluginName, Arc<CounterNames>>> = Mutex::new(BTreeMap::new());
        Arc::clone(ALL.lock().entry(plugin.clone()).or_default())
    }

    /// Whether the name may be counted under; takes a free place for a new one.
    fn admits(&self, name: &str) -> bool {
        if self.used.read().contains(name) {
            return true;
        }
        let mut used = self.used.write();
        if !used.contains(name) && used.len() >= PLUGIN_COUNTERS_MAX {
            return false;
        }
        used.insert(name.to_owned());
        true
    }
}

/// Whether a plugin in another process may count under this name: places are shared by all its generations.
pub(crate) fn admits_counter(plugin: &PluginName, name: &str) -> bool {
    CounterNames::of(plugin).admits(name)
}

/// Runs the host's side of a callback: a panic must not enter the plugin.
pub(crate) fn guarded<R>(otherwise: R, work: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

/// At most the first `max` bytes of what a plugin passed.
///
/// # Safety
/// `slice` is valid for reads during `'a`, as the ABI promises.
pub(crate) unsafe fn prefix<'a>(slice: Slice, max: usize) -> &'a [u8] {
    if slice.ptr.is_null() || slice.len == 0 {
        return &[];
    }
    // SAFETY: not NULL, and valid for `len` bytes by the caller's promise, so for fewer as well.
    unsafe { std::slice::from_raw_parts(slice.ptr, slice.len.min(max)) }
}

/// Text from a plugin, fit for a log: invalid UTF-8 replaced, control characters blanked, a cut marked.
pub(crate) fn clean_text(bytes: &[u8], cut: bool) -> String {
    let whole = match std::str::from_utf8(bytes) {
        // A cut can fall into a character: that one is dropped.
        Err(error) if cut && error.error_len().is_none() => &bytes[..error.valid_up_to()],
        Ok(_) | Err(_) => bytes,
    };
    let text = String::from_utf8_lossy(whole);
    let blanked = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut clean: String = blanked.collect();
    if cut {
        clean.push('…');
    }
    clean
}

/// The context behind a host structure.
///
/// # Safety
/// `ctx` is a [`HostTable`]'s that is still alive.
unsafe fn context<'a>(ctx: *mut c_void) -> &'a Context {
    // SAFETY: the caller's promise; the context is only ever shared.
    unsafe { &*ctx.cast::<Context>() }
}

unsafe extern "C" fn log(ctx: *mut c_void, level: u32, message: Slice) {
    guarded((), || {
        // SAFETY: the ABI lets plugins call this until shutdown returned; the table lives that long.
        let context = unsafe { context(ctx) };
        if context.grants(Capability::Log) {
            // SAFETY: valid during this call by the ABI.
            let bytes = unsafe { prefix(message, LOG_LINE_BYTES_MAX) };
            let text = clean_text(bytes, message.len > bytes.len());
            (context.services.log)(LogLevel::from_abi(level), &text);
        }
    });
}

unsafe extern "C" fn now_ns(ctx: *mut c_void) -> i64 {
    /// One origin for the process: times stay comparable across generations.
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    guarded(0, || {
        // SAFETY: as for `log`.
        if unsafe { context(ctx) }.grants(Capability::Clock) {
            i64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(i64::MAX)
        } else {
            0
        }
    })
}

unsafe extern "C" fn counter_add(ctx: *mut c_void, name: Slice, delta: u64) {
    guarded((), || {
        // SAFETY: as for `log`.
        let context = unsafe { context(ctx) };
        // SAFETY: valid during this call by the ABI.
        let bytes = unsafe { prefix(name, COUNTER_NAME_BYTES_MAX + 1) };
        let Some(name) = counter_name(bytes) else { return };
        if context.grants(Capability::Metrics) && context.names.admits(name) {
            (context.services.counter)(name, delta);
        }
    });
}

/// `[a-z0-9_]{1,64}`.
pub(crate) fn counter_name(bytes: &[u8]) -> Option<&str> {
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    let fits = (1..=COUNTER_NAME_BYTES_MAX).contains(&bytes.len());
    std::str::from_utf8(bytes).ok().filter(|_| fits && bytes.iter().all(allowed))
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
        let file = std::str::from_utf8(path)
            .ok()
            .filter(|_| context.grants(Capability::Resources))
            .and_then(|path| context.services.data.get(path));
        let Some(file) = file else { return NO_SUCH_FILE };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = file.bytes().get(start..).unwrap_or_default();
        let count = rest.len().min(cap);
        if count == 0 || dst.is_null() {
            return 0;
        }
        // SAFETY: `dst` is valid for `cap` bytes by the ABI, `rest` has at least `count`, and a sealed
        // file's mapping is read-only, so that the two cannot overlap.
        unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), dst, count) };
        i64::try_from(count).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_plugin_is_made_fit_for_a_log() {
        assert_eq!(clean_text(b"plain", false), "plain");
        assert_eq!(clean_text(b"a\nb\x1b[0m\0", false), "a b [0m ");
        assert_eq!(clean_text(b"\xffx", false), "\u{fffd}x");
        let cut = "aé".as_bytes();
        assert_eq!(clean_text(&cut[..2], true), "a…");
        assert_eq!(clean_text(&cut[..2], false), "a\u{fffd}");
    }

    #[test]
    fn counter_names_are_metric_labels() {
        let longest = "a".repeat(64);
        for good in ["a", "hits_2", longest.as_str()] {
            assert_eq!(counter_name(good.as_bytes()), Some(good));
        }
        let longer = "a".repeat(65);
        for bad in ["", "A", "a-b", "a b", "ä", "a\0", longer.as_str()] {
            assert_eq!(counter_name(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_plugin_has_so_many_counters_over_all_its_generations() {
        let plugin: PluginName = "counts-much".parse().unwrap();
        for number in 0..PLUGIN_COUNTERS_MAX {
            assert!(CounterNames::of(&plugin).admits(&format!("c{number}")));
        }
        let later = CounterNames::of(&plugin);
        assert!(!later.admits("one_more"));
        assert!(later.admits("c0"), "known ones stay");
        assert!(CounterNames::of(&"counts-little".parse().unwrap()).admits("one_more"));
    }
}
