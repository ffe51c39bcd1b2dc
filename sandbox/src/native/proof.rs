//! Proves that what the system's loader mapped is the verified file, before any entry of it is called.
#![expect(unsafe_code, reason = "reads the memory of a freshly mapped image")]

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;

use object::LittleEndian;
use object::elf::{ELF_NOTE_GNU, FileHeader64, NT_GNU_BUILD_ID, PF_W, PT_LOAD};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use themis_messages::instance::{Concurrency, ImageEvidence};
use themis_messages::lifecycle::MapError;
use themis_plugin::abi;

use super::image::{Entries, Mapped};
use crate::admission::{Descriptor, SealedFile};

/// Checks everything there is to check about a mapped image.
pub(super) fn prove(
    descriptor: *const abi::Descriptor,
    file: &SealedFile,
    described: &Descriptor,
) -> Result<Mapped, MapError> {
    let address = descriptor.addr();
    let place = address..address.saturating_add(size_of::<abi::Descriptor>());
    let object = Object::around(&place).ok_or_else(|| differs("its descriptor is in no image"))?;
    let backed = file_backed(file.inode(), &object.span())
        .map_err(|error| differs(&format!("the memory map cannot be read: {error}")))?;
    if !covers(&backed, &place) {
        return Err(differs("its descriptor is not in a mapping of the verified file"));
    }
    // SAFETY: the whole structure lies in a readable mapping of the image, which is never unmapped. Its
    // fields are integers, bytes and optional function pointers, for which any bits will do.
    let descriptor = unsafe { descriptor.read_unaligned() };
    let (entries, concurrency) = checked(&descriptor, described, &object)?;
    let build_id = object.build_id(&backed);
    if build_id != file_build_id(file.bytes()) {
        return Err(differs("its build id is another"));
    }
    let evidence = ImageEvidence {
        digest: file.digest(),
        build_id: build_id.map(hex::encode),
        inode: file.inode(),
        reused: false,
        bytes: file.len(),
        resident_bytes: resident_bytes(file.bytes()),
    };
    Ok(Mapped { entries, concurrency, address, evidence })
}

/// Checks a descriptor in the memory of a process that has nobody to prove anything to: its image was mapped from a
/// file that cannot change, and the constructors of that image may have changed what it says.
pub(crate) fn entries_in_memory(
    descriptor: *const abi::Descriptor,
    described: &Descriptor,
) -> Result<(Entries, Concurrency), MapError> {
    let address = descriptor.addr();
    let place = address..address.saturating_add(size_of::<abi::Descriptor>());
    let object = Object::around(&place).ok_or_else(|| differs("its descriptor is in no image"))?;
    // SAFETY: the whole structure lies in a loaded segment, which is never unmapped. Any bits will do for its fields.
    let descriptor = unsafe { descriptor.read_unaligned() };
    checked(&descriptor, described, &object)
}

fn checked(
    descriptor: &abi::Descriptor,
    described: &Descriptor,
    object: &Object,
) -> Result<(Entries, Concurrency), MapError> {
    same_descriptor(descriptor, described)?;
    let entries = entries(descriptor, object)?;
    let thread_safe = descriptor.features & abi::THREAD_SAFE != 0;
    let concurrency = if thread_safe { Concurrency::Parallel } else { Concurrency::Serial };
    Ok((entries, concurrency))
}

fn differs(what: &str) -> MapError {
    MapError::NotTheVerifiedImage { what: what.to_owned() }
}

/// The constructors ran in between: a descriptor that they changed is not the signed one.
fn same_descriptor(mapped: &abi::Descriptor, described: &Descriptor) -> Result<(), MapError> {
    let name = padded_is(&mapped.name, described.name.as_str());
    let version = padded_is(&mapped.version, &described.version.to_string());
    let checks = [
        ("magic", mapped.magic == abi::MAGIC),
        ("struct_size", mapped.struct_size == described.struct_size),
        ("abi_major", mapped.abi_major == described.abi.major),
        ("abi_minor", mapped.abi_minor == described.abi.minor),
        ("features", mapped.features == described.features),
        ("name", name),
        ("version", version),
    ];
    match checks.into_iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(MapError::DescriptorChanged { field }),
        None => Ok(()),
    }
}

/// Whether a NUL-padded field holds exactly this text.
fn padded_is(field: &[u8], text: &str) -> bool {
    field.strip_prefix(text.as_bytes()).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

/// Reads the entries and checks that they are the image's own. One that the loader resolved elsewhere (a
/// global function called `shutdown` becomes libc's) would be called with the wrong arguments.
fn entries(descriptor: &abi::Descriptor, object: &Object) -> Result<Entries, MapError> {
    let inside = |entry: &str, address: usize| {
        if object.executable(address) {
            return Ok(());
        }
        Err(differs(&format!("entry {entry} points out of the image: declare it static")))
    };
    let null = |entry| MapError::NullEntry { entry };
    let init = descriptor.init.ok_or_else(|| null("init"))?;
    let call = descriptor.call.ok_or_else(|| null("call"))?;
    let shutdown = descriptor.shutdown.ok_or_else(|| null("shutdown"))?;
    inside("init", init as usize)?;
    inside("call", call as usize)?;
    inside("shutdown", shutdown as usize)?;
    if let Some(health) = descriptor.health {
        inside("health", health as usize)?;
    }
    if let Some(save_state) = descriptor.save_state {
        inside("save_state", save_state as usize)?;
    }
    if let Some(reload) = descriptor.reload {
        inside("reload", reload as usize)?;
    }
    let (save_state, reload) = (descriptor.save_state, descriptor.reload);
    Ok(Entries { init, call, health: descriptor.health, save_state, reload, shutdown })
}

/// One segment of a mapped object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    kind: u32,
    flags: u32,
    align: u64,
    /// In memory, as far as it comes from the file.
    range: Range<usize>,
}

/// A mapped object as the system's loader knows it.
#[derive(Debug)]
struct Object {
    segments: Vec<Segment>,
}

impl Object {
    /// The object that has the whole of `place` in one loaded segment.
    fn around(place: &Range<usize>) -> Option<Self> {
        let mut search = Search { place: place.clone(), found: None };
        let data = std::ptr::from_mut(&mut search).cast::<c_void>();
        // SAFETY: the callback takes exactly this type of data and does not outlive the call.
        unsafe { libc::dl_iterate_phdr(Some(visit), data) };
        search.found
    }

    fn loaded(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.kind == libc::PT_LOAD)
    }

    /// From its first loaded byte to its last.
    fn span(&self) -> Range<usize> {
        let start = self.loaded().map(|segment| segment.range.start).min().unwrap_or(0);
        let end = self.loaded().map(|segment| segment.range.end).max().unwrap_or(0);
        start..end
    }

    fn executable(&self, address: usize) -> bool {
        self.loaded()
            .any(|segment| segment.flags & libc::PF_X != 0 && segment.range.contains(&address))
    }

    /// The build id in memory, read only where the verified file is mapped.
    fn build_id(&self, backed: &[Range<usize>]) -> Option<Vec<u8>> {
        let notes = self.segments.iter().filter(|segment| segment.kind == libc::PT_NOTE);
        notes.filter(|note| covers(backed, &note.range)).find_map(|note| {
            let start = std::ptr::with_exposed_provenance::<u8>(note.range.start);
            // SAFETY: the range lies in readable mappings of the sealed file, which never go away.
            let bytes = unsafe { std::slice::from_raw_parts(start, note.range.len()) };
            gnu_build_id(NoteIterator::new(LittleEndian, note.align, bytes).ok()?)
        })
    }
}

struct Search {
    place: Range<usize>,
    found: Option<Object>,
}

/// Looks at one object; says 1 to end the walk.
///
/// # Safety
/// `data` points to a [`Search`], `info` to what the system's loader says of one object.
unsafe extern "C" fn visit(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise, for the time of this call.
    let (info, search) = unsafe { (&*info, &mut *data.cast::<Search>()) };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    let count = usize::from(info.dlpi_phnum);
    // SAFETY: the loader keeps `dlpi_phnum` headers there.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count) };
    let base = info.dlpi_addr as usize;
    let segments = headers.iter().map(|header| {
        let start = base.wrapping_add(header.p_vaddr as usize);
        let range = start..start.saturating_add(header.p_filesz as usize);
        Segment { kind: header.p_type, flags: header.p_flags, align: header.p_align, range }
    });
    let object = Object { segments: segments.collect() };
    let has_it = object.loaded().any(|segment| {
        segment.range.start <= search.place.start && search.place.end <= segment.range.end
    });
    if has_it {
        search.found = Some(object);
    }
    c_int::from(has_it)
}

/// Readable mappings of the file with this inode that touch `span`, in order.
fn file_backed(inode: u64, span: &Range<usize>) -> io::Result<Vec<Range<usize>>> {
    let maps = BufReader::new(File::open("/proc/self/maps")?);
    let mut found = Vec::new();
    for line in maps.split(b'\n') {
        let Some(mapping) = parse_mapping(&line?) else { continue };
        if mapping.range.start >= span.end {
            break;
        }
        if mapping.readable && mapping.inode == inode && mapping.range.end > span.start {
            found.push(mapping.range);
        }
    }
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    range: Range<usize>,
    readable: bool,
    inode: u64,
}

/// `start-end perms offset device inode [path]`.
fn parse_mapping(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let range = std::str::from_utf8(fields.next()?).ok()?;
    let (start, end) = range.split_once('-')?;
    let hex = |digits| usize::from_str_radix(digits, 16).ok();
    let readable = fields.next()?.first() == Some(&b'r');
    let inode = std::str::from_utf8(fields.nth(2)?).ok()?.parse().ok()?;
    Some(Mapping { range: hex(start)?..hex(end)?, readable, inode })
}

/// Whether ranges in order, without gaps, cover the wanted one.
fn covers(ranges: &[Range<usize>], wanted: &Range<usize>) -> bool {
    let mut reached = wanted.start;
    for range in ranges {
        if range.contains(&reached) {
            reached = range.end;
        }
    }
    reached >= wanted.end
}

/// What a mapped image costs for good: its sealed file and the private copies of its writable segments, both in
/// whole pages. What of it the plugin never touches is counted as well.
#[must_use]
pub fn resident_bytes(bytes: &[u8]) -> u64 {
    const PAGE: u64 = 4_096;
    let file = (bytes.len() as u64).next_multiple_of(PAGE);
    let Ok(header) = FileHeader64::<LittleEndian>::parse(bytes) else { return file };
    let segments = header.program_headers(LittleEndian, bytes).unwrap_or_default();
    let writable = segments.iter().filter(|segment| {
        segment.p_type(LittleEndian) == PT_LOAD && segment.p_flags(LittleEndian).contains(PF_W)
    });
    let private = writable.map(|segment| {
        let offset = segment.p_vaddr(LittleEndian) % PAGE;
        // Pre-flight has bounded the span; a sum that overflowed would be no memory size.
        offset.saturating_add(segment.p_memsz(LittleEndian)).div_ceil(PAGE).saturating_mul(PAGE)
    });
    private.fold(file, u64::saturating_add)
}

/// As [`file_build_id`], in hexadecimal.
pub(crate) fn build_id_of(bytes: &[u8]) -> Option<String> {
    file_build_id(bytes).map(hex::encode)
}

/// The build id in the file, when its linker put one in.
fn file_build_id(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    let segments = header.program_headers(LittleEndian, bytes).ok()?;
    segments
        .iter()
        .find_map(|segment| gnu_build_id(segment.notes(LittleEndian, bytes).ok().flatten()?))
}

fn gnu_build_id(mut notes: NoteIterator<'_, FileHeader64<LittleEndian>>) -> Option<Vec<u8>> {
    while let Ok(Some(note)) = notes.next() {
        if note.name() == ELF_NOTE_GNU && note.n_type(LittleEndian) == NT_GNU_BUILD_ID {
            return Some(note.desc().to_vec());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_memory_map_is_read() {
        let line = b"7f10a000-7f10b000 r-xp 00001000 00:01 4711   /memfd:themis (deleted)";
        let inode = 4711;
        let wanted = Mapping { range: 0x7f10_a000..0x7f10_b000, readable: true, inode };
        assert_eq!(parse_mapping(line), Some(wanted));
        let anonymous = parse_mapping(b"1000-2000 ---p 00000000 00:00 0 ").unwrap();
        assert_eq!((anonymous.readable, anonymous.inode), (false, 0));
        assert_eq!(parse_mapping(b""), None);
        assert_eq!(parse_mapping(b"\xff-\xff r--p 0 0 0"), None);
    }

    #[test]
    fn gaps_are_not_covered() {
        let ranges = [10..20, 20..30, 40..50];
        assert!(covers(&ranges, &(12..30)));
        for wanted in [5..12, 25..31, 25..45, 30..31, 60..61] {
            assert!(!covers(&ranges, &wanted), "{wanted:?}");
        }
    }

    #[test]
    fn this_very_code_is_found_in_memory() {
        let here = this_very_code_is_found_in_memory as *const () as usize;
        let object = Object::around(&(here..here + 1)).unwrap();
        assert!(object.executable(here));
        assert!(Object::around(&(1..2)).is_none());
    }
}
