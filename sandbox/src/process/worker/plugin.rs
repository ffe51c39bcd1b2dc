//! The plugin in its worker: receives it, maps it, checks what was mapped, calls its entries.
#![expect(unsafe_code, reason = "dlopen, and calls of a plugin's entries")]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use themis_messages::instance::Concurrency;
use themis_messages::lifecycle::MapError;
use themis_messages::limits::{HOOK_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, STATE_BYTES_MAX};
use themis_messages::manifest::{AbiVersion, Capability};
use themis_messages::sandbox::SetupStep;
use themis_plugin::abi::{self, Slice};

use super::super::layout::{NEAR_REPLY, Op, STATUS_MISSING};
use super::super::wire::{self, PluginFile};
use super::Memory;
use super::serve::{Room, Turn};
use super::services::{Data, HostTable};
use crate::admission::Descriptor;
use crate::native::{Entries, Target, entries_in_memory, lend, prefix};

/// What the host says of the plugin it sends.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Described {
    pub(in super::super) name: String,
    pub(in super::super) version: String,
    pub(in super::super) struct_size: u32,
    pub(in super::super) abi: (u16, u16),
    pub(in super::super) features: u64,
    pub(in super::super) log: bool,
    pub(in super::super) clock: bool,
    pub(in super::super) metrics: bool,
    pub(in super::super) resources: bool,
    /// Paths of its data files, in the order they are sent.
    pub(in super::super) data: Vec<String>,
}

impl Described {
    pub(in super::super) fn new(
        descriptor: &Descriptor,
        capabilities: &[Capability],
        data: Vec<String>,
    ) -> Self {
        let grants = |capability| capabilities.contains(&capability);
        Self {
            name: descriptor.name.to_string(),
            version: descriptor.version.to_string(),
            struct_size: descriptor.struct_size,
            abi: (descriptor.abi.major, descriptor.abi.minor),
            features: descriptor.features,
            log: grants(Capability::Log),
            clock: grants(Capability::Clock),
            metrics: grants(Capability::Metrics),
            resources: grants(Capability::Resources),
            data,
        }
    }

    fn descriptor(&self) -> Option<Descriptor> {
        Some(Descriptor {
            struct_size: self.struct_size,
            abi: AbiVersion { major: self.abi.0, minor: self.abi.1 },
            features: self.features,
            name: self.name.parse().ok()?,
            version: self.version.parse().ok()?,
        })
    }
}

/// Why a plugin is not mapped.
pub(super) enum LoadFault {
    Setup(SetupStep, Errno),
    Map(MapError),
}

/// As it is told to the host: a word, and the rest.
const LOADER: &str = "loader";
const NOT_VERIFIED: &str = "not-the-verified-image";
const CHANGED: &str = "descriptor-changed";
const NULL: &str = "null-entry";
const SETUP: &str = "setup";

impl LoadFault {
    pub(super) fn told(&self) -> String {
        match self {
            Self::Setup(step, errno) => {
                format!("{SETUP}\0{} {}", *step as u8, errno.raw_os_error())
            }
            Self::Map(MapError::NotTheVerifiedImage { what }) => format!("{NOT_VERIFIED}\0{what}"),
            Self::Map(MapError::DescriptorChanged { field }) => format!("{CHANGED}\0{field}"),
            Self::Map(MapError::NullEntry { entry }) => format!("{NULL}\0{entry}"),
            Self::Map(error) => format!("{LOADER}\0{error}"),
        }
    }
}

/// What the host makes of a worker's words: whatever they are, they mean a refusal.
pub(in super::super) fn fault_told(told: &str) -> Result<MapError, (SetupStep, i32)> {
    let (kind, rest) = told.split_once('\0').unwrap_or((LOADER, told));
    let what = rest.to_owned();
    Ok(match kind {
        NOT_VERIFIED => MapError::NotTheVerifiedImage { what },
        CHANGED => MapError::DescriptorChanged { field: known(rest) },
        NULL => MapError::NullEntry { entry: known(rest) },
        SETUP => {
            let (step, errno) = rest.split_once(' ').unwrap_or_default();
            let step = step.parse().ok().and_then(SetupStep::from_repr);
            return Err((step.unwrap_or(SetupStep::Files), errno.parse().unwrap_or(libc::EIO)));
        }
        _ => MapError::Loader { what },
    })
}

/// Names of a descriptor's fields and entries.
fn known(name: &str) -> &'static str {
    const NAMES: [&str; 12] = [
        "magic",
        "struct_size",
        "abi_major",
        "abi_minor",
        "features",
        "name",
        "version",
        "init",
        "call",
        "shutdown",
        "save_state",
        "reload",
    ];
    NAMES.into_iter().find(|known| *known == name).unwrap_or("a field")
}

/// How a turn ended.
pub(super) struct Answer {
    pub(super) status: i32,
    pub(super) len: usize,
    pub(super) overflowed: bool,
}

impl Answer {
    pub(super) fn status(status: i32) -> Self {
        Self { status, len: 0, overflowed: false }
    }

    pub(super) fn bytes(status: i32, reply: Room, bytes: &[u8]) -> Self {
        let mut area = ReplyArea::new(reply, MESSAGE_BYTES_MAX, true);
        area.append(bytes);
        Self { status, len: area.len, overflowed: false }
    }
}

/// Takes a reply where the host will read it.
struct ReplyArea {
    room: Room,
    cap: usize,
    len: usize,
    /// A text that is too long is cut; anything else is refused whole.
    cuts: bool,
    overflowed: bool,
}

impl ReplyArea {
    fn new(room: Room, cap: usize, cuts: bool) -> Self {
        Self { room, cap, len: 0, cuts, overflowed: false }
    }

    /// Appends what there is room for under the cap.
    fn append(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(self.cap - self.len)];
        let (before, after) = (self.len, self.len + bytes.len());
        let Room { near, far } = self.room;
        let start = if after <= NEAR_REPLY { near } else { far };
        // SAFETY: `after` is at most `cap`, which the far place has, and the near one where it is chosen; only this thread
        // writes to either. A plugin that passes a part of the area itself is served by a copy that allows overlap.
        unsafe {
            if before <= NEAR_REPLY && after > NEAR_REPLY {
                ptr::copy_nonoverlapping(near, far, before);
            }
            ptr::copy(bytes.as_ptr(), start.add(before), bytes.len());
        }
        self.len = after;
    }
}

impl Target for ReplyArea {
    const KIND: usize = 1 << (usize::BITS - 2);

    fn take(&mut self, chunk: Slice) -> bool {
        let room = self.cap - self.len;
        let fits = chunk.len <= room && !self.overflowed;
        self.overflowed |= !fits;
        if !fits && !self.cuts {
            return false;
        }
        // SAFETY: valid during this call by the ABI.
        self.append(unsafe { prefix(chunk, room) });
        fits
    }
}

/// A mapped plugin, for good.
pub(super) struct Plugin {
    entries: Entries,
    concurrency: Concurrency,
    instance: AtomicPtr<c_void>,
    host: HostTable,
}

impl Plugin {
    /// Receives the files, closes the connection, maps the image, and gives up what that needed.
    pub(super) fn load(
        memory: &'static Memory,
        described: &[u8],
        control: OwnedFd,
    ) -> Result<&'static Self, LoadFault> {
        let setup = |errno| LoadFault::Setup(SetupStep::Files, errno);
        let described: Described =
            serde_json::from_slice(described).map_err(|_ours| setup(Errno::INVAL))?;
        let (image, data) = receive(&control, &described).map_err(setup)?;
        // Before any of its code runs.
        drop(control);
        let loaded = open(&image);
        drop(image);
        super::strict_filter().map_err(|errno| LoadFault::Setup(SetupStep::StrictFilter, errno))?;
        let descriptor = described.descriptor().ok_or_else(|| setup(Errno::INVAL))?;
        let symbol = loaded.map_err(LoadFault::Map)?;
        let (entries, concurrency) =
            entries_in_memory(symbol, &descriptor).map_err(LoadFault::Map)?;
        let host = HostTable::new(memory, &described, data);
        let instance = AtomicPtr::new(ptr::null_mut());
        Ok(Box::leak(Box::new(Self { entries, concurrency, instance, host })))
    }

    pub(super) fn concurrency(&self) -> Concurrency {
        self.concurrency
    }

    /// What the host has to know: whether it saves, whether it takes state, whether it has a health hook.
    pub(super) fn traits(&self) -> [u8; 3] {
        let Entries { save_state, reload, health, .. } = &self.entries;
        [save_state.is_some(), reload.is_some(), health.is_some()].map(u8::from)
    }

    fn instance(&self) -> *mut c_void {
        self.instance.load(Ordering::Acquire)
    }

    pub(super) fn call(&self, turn: &Turn) -> Answer {
        into_reply(turn, MESSAGE_BYTES_MAX, false, |sink| {
            let (method, request) = (turn.method, Slice::new(turn.request));
            // SAFETY: the entry is the verified image's, the instance is initialised, request and sink outlive the call.
            unsafe { (self.entries.call)(self.instance(), method, request, sink) }
        })
    }

    pub(super) fn hook(&self, turn: &Turn) -> Answer {
        match turn.op {
            Op::Init => self.init(turn),
            Op::Health => self.plain(self.entries.health),
            Op::Shutdown => self.plain(Some(self.entries.shutdown)),
            Op::SaveState => self.save_state(turn),
            Op::Reload => self.reload(turn),
            Op::Load | Op::Call | Op::Leave => Answer::status(STATUS_MISSING),
        }
    }

    fn init(&self, turn: &Turn) -> Answer {
        into_reply(turn, HOOK_MESSAGE_BYTES_MAX, true, |sink| {
            let mut instance = ptr::null_mut();
            let config = Slice::new(turn.request);
            // SAFETY: the entry is the verified image's; the host's structure lives as long as the process.
            let code =
                unsafe { (self.entries.init)(self.host.as_ptr(), config, &raw mut instance, sink) };
            self.instance.store(instance, Ordering::Release);
            code
        })
    }

    fn plain(&self, entry: Option<abi::PlainFn>) -> Answer {
        let Some(entry) = entry else { return Answer::status(STATUS_MISSING) };
        // SAFETY: the entry is the verified image's, and the instance is initialised: the host keeps the order.
        Answer::status(unsafe { entry(self.instance()) })
    }

    fn save_state(&self, turn: &Turn) -> Answer {
        let Some(save_state) = self.entries.save_state else {
            return Answer::status(STATUS_MISSING);
        };
        // SAFETY: as for `call`.
        into_reply(turn, STATE_BYTES_MAX, false, |sink| unsafe {
            save_state(self.instance(), sink)
        })
    }

    fn reload(&self, turn: &Turn) -> Answer {
        let Some(reload) = self.entries.reload else { return Answer::status(STATUS_MISSING) };
        let (from, state) = turn.request.split_at(turn.first_len);
        // SAFETY: as for `call`.
        into_reply(turn, HOOK_MESSAGE_BYTES_MAX, true, |sink| unsafe {
            reload(self.instance(), Slice::new(from), Slice::new(state), sink)
        })
    }
}

fn into_reply(
    turn: &Turn,
    cap: usize,
    cuts: bool,
    entry: impl FnOnce(*const abi::Reply) -> i32,
) -> Answer {
    let mut area = ReplyArea::new(turn.reply, cap, cuts);
    let loan = lend(&mut area);
    let status = entry(loan.as_ptr());
    drop(loan);
    Answer { status, len: area.len, overflowed: area.overflowed }
}

/// The image, and its data files mapped for reading.
fn receive(control: &OwnedFd, described: &Described) -> Result<(OwnedFd, Data), Errno> {
    let next = |index: u32| -> Result<(OwnedFd, usize), Errno> {
        let (file, fds) = wire::receive::<PluginFile>(control)?.ok_or(Errno::PIPE)?;
        let fd = fds.into_iter().next().ok_or(Errno::BADF)?;
        let bytes = usize::try_from(file.bytes).map_err(|_too_big| Errno::FBIG)?;
        if file.index == index { Ok((fd, bytes)) } else { Err(Errno::PROTO) }
    };
    let (image, _) = next(0)?;
    let mut data = BTreeMap::new();
    for (index, path) in (1..).zip(&described.data) {
        let (fd, bytes) = next(index)?;
        data.insert(path.clone(), map_data(&fd, bytes)?);
    }
    Ok((image, data))
}

fn map_data(fd: &OwnedFd, bytes: usize) -> Result<&'static [u8], Errno> {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    if bytes == 0 {
        return Ok(&[]);
    }
    // SAFETY: a new mapping at an address the system chooses.
    let start = unsafe { mmap(ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::PRIVATE, fd, 0)? };
    // SAFETY: the file is sealed and as long as the host says, and the mapping stays.
    Ok(unsafe { std::slice::from_raw_parts(start.cast(), bytes) })
}

/// Lets the system's loader map the image, for good: its constructors run.
fn open(image: &OwnedFd) -> Result<*const abi::Descriptor, MapError> {
    let path = format!("/proc/self/fd/{}", image.as_raw_fd());
    let refused = |error: libloading::Error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let what = source.unwrap_or_else(|| error.to_string()).replace(&path, "the image");
        MapError::Loader { what }
    };
    // SAFETY: this runs constructors, which nobody trusts: everything they could reach has been given up.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }.map_err(refused)?;
    let library = ManuallyDrop::new(library);
    // SAFETY: the symbol's address is taken as a pointer, and checked before it is followed.
    let symbol = unsafe { library.get::<*const abi::Descriptor>(abi::DESCRIPTOR_SYMBOL) }
        .map_err(refused)?;
    Ok(*symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_in_words_that_are_understood() {
        let faults = [
            MapError::NotTheVerifiedImage { what: "its build id".to_owned() },
            MapError::DescriptorChanged { field: "version" },
            MapError::NullEntry { entry: "call" },
            MapError::Loader { what: "no such symbol".to_owned() },
        ];
        for fault in faults {
            let told = LoadFault::Map(fault.clone()).told();
            let understood = fault_told(&told).unwrap();
            assert_eq!(understood.code(), fault.code());
        }
        let setup = LoadFault::Setup(SetupStep::StrictFilter, Errno::NOSYS).told();
        assert_eq!(fault_told(&setup), Err((SetupStep::StrictFilter, libc::ENOSYS)));
    }

    #[test]
    fn whatever_else_is_told_is_a_refusal() {
        for told in ["", "\0", "setup\0", "setup\0999 x", "descriptor-changed\0\u{1F980}", "x\0y"] {
            match fault_told(told) {
                Ok(error) => assert!(error.code().starts_with("map.")),
                Err((step, errno)) => assert_eq!((step, errno), (SetupStep::Files, libc::EIO)),
            }
        }
    }
}
