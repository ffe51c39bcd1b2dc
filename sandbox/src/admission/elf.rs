//! Looks at a shared library as the system loader would, and refuses what must not be mapped.
//!
//! Everything is found the way the loader finds it: program headers, then the dynamic table by its address,
//! then strings, symbols and hash tables by theirs. Section headers, which only linkers and debuggers read,
//! are not looked at. The bytes are hostile until their signature has been verified, and this code may see
//! them before: every offset is checked, and nothing here allocates by a number from the file.

use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf;
use object::read::elf::{
    FileHeader as _, GnuHashTable, HashTable, NoteIterator, ProgramHeader as _, Sym as _,
};
use object::read::{ReadRef as _, StringTable};
use themis_messages::admit::AdmitError;
use themis_messages::limits::IMAGE_SPAN_BYTES_MAX;
use themis_messages::manifest::Manifest;
use themis_plugin::abi;

use super::descriptor::Descriptor;

mod facts;

pub(super) use facts::LIST_MAX;

type Header = elf::FileHeader64<LittleEndian>;
type Segment = elf::ProgramHeader64<LittleEndian>;
type Dyn = elf::Dyn64<LittleEndian>;
type Symbol = elf::Sym64<LittleEndian>;

const LE: LittleEndian = LittleEndian;
/// No loader looks at more, and no linker writes as many.
const SEGMENTS_MAX: usize = 128;
/// The smallest page: segments that share one overlay each other's bytes.
const PAGE: u64 = 4096;
/// Longest name that is read: a table without NULs must not be walked once for each symbol.
const NAME_MAX: u64 = 64 << 10;
/// Longest text from the file that an error repeats.
const TEXT_MAX: usize = 120;

/// Libraries of the system itself. Anything else would be code that nobody signed.
const SYSTEM_LIBRARIES: [&[u8]; 8] = [
    b"libc.so.6",
    b"libm.so.6",
    b"libgcc_s.so.1",
    b"libpthread.so.0",
    b"libdl.so.2",
    b"librt.so.1",
    b"ld-linux-x86-64.so.2",
    b"ld-linux-aarch64.so.1",
];

/// Name of this machine, and its number in ELF.
const MACHINE: (&str, elf::Machine) = if cfg!(target_arch = "x86_64") {
    ("x86_64", elf::EM_X86_64)
} else {
    ("aarch64", elf::EM_AARCH64)
};

/// Everything that is looked at before a signed library may be mapped; answers what it says of itself.
pub(super) fn preflight(
    path: &Path,
    bytes: &[u8],
    manifest: &Manifest,
) -> Result<Descriptor, AdmitError> {
    let elf = Image::parse(path, bytes)?;
    elf.refuse_hazards()?;
    elf.build_id()?;
    let descriptor = elf.descriptor()?;
    descriptor.check_against(path, manifest)?;
    Ok(descriptor)
}

/// A well-formed shared library for this machine.
#[derive(Debug)]
pub(super) struct Image<'a> {
    path: PathBuf,
    bytes: &'a [u8],
    segments: &'a [Segment],
    loads: Vec<Load>,
    dynamic: &'a [Dyn],
    strings: &'a [u8],
    symbols: &'a [Symbol],
}

/// One range the loader maps.
#[derive(Debug, Clone, Copy)]
struct Load {
    address: u64,
    offset: u64,
    file_size: u64,
}

impl<'a> Image<'a> {
    /// Checks that the loader could make sense of the file.
    ///
    /// # Errors
    /// [`AdmitError::ElfFormat`] or [`AdmitError::ElfArchitecture`].
    pub(super) fn parse(path: &Path, bytes: &'a [u8]) -> Result<Self, AdmitError> {
        let broken = Broken(path);
        let header = header(broken, bytes)?;
        let segments = header.program_headers(LE, bytes).map_err(|error| broken.is(error))?;
        if segments.len() > SEGMENTS_MAX {
            return Err(broken.is(format!("{} program headers", segments.len())));
        }
        let loads = loads(broken, bytes, segments)?;
        let mut image = Self {
            path: path.to_owned(),
            bytes,
            segments,
            loads,
            dynamic: &[],
            strings: &[],
            symbols: &[],
        };
        image.dynamic = image.dynamic_table()?;
        image.strings = image.string_table()?;
        image.symbols = image.symbol_table()?;
        Ok(image)
    }

    fn broken(&self, why: impl ToString) -> AdmitError {
        Broken(&self.path).is(why)
    }

    /// The file's bytes from an address to the end of the segment that holds it.
    fn at_address(&self, address: u64) -> Option<&'a [u8]> {
        let load = self
            .loads
            .iter()
            .find(|load| address.checked_sub(load.address).is_some_and(|at| at < load.file_size))?;
        let skip = address.checked_sub(load.address)?;
        self.bytes.read_bytes_at(load.offset.checked_add(skip)?, load.file_size - skip).ok()
    }

    fn slice_at<T: object::pod::Pod>(&self, address: u64, count: usize) -> Option<&'a [T]> {
        let (slice, _) = object::pod::slice_from_bytes(self.at_address(address)?, count).ok()?;
        Some(slice)
    }

    /// The loader takes the table from its address in memory and reads up to the first null entry.
    fn dynamic_table(&self) -> Result<&'a [Dyn], AdmitError> {
        let mut tables = self.segments.iter().filter(|s| s.p_type(LE) == elf::PT_DYNAMIC);
        let (Some(table), None) = (tables.next(), tables.next()) else {
            return Err(self.broken("it has not exactly one dynamic table"));
        };
        let outside = || self.broken("its dynamic table lies outside the file");
        let room = self.at_address(table.p_vaddr(LE)).ok_or_else(outside)?;
        let count = room.len() / size_of::<Dyn>();
        let (all, _) = object::pod::slice_from_bytes::<Dyn>(room, count)
            .map_err(|()| self.broken("its dynamic table is not aligned"))?;
        let end = all.iter().position(|entry| entry.d_tag.get(LE) == elf::DT_NULL);
        end.and_then(|end| all.get(..end))
            .ok_or_else(|| self.broken("its dynamic table has no end"))
    }

    /// The value of an entry that may be there once: of several, readers differ in which they take.
    fn entry(&self, tag: elf::DynamicTag) -> Result<Option<u64>, AdmitError> {
        let mut found = self.dynamic.iter().filter(|entry| entry.d_tag.get(LE) == tag);
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(Some(entry.d_val.get(LE))),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => {
                Err(self.broken(format!("its dynamic table has tag {:#x} twice", tag.0)))
            }
        }
    }

    fn required(&self, tag: elf::DynamicTag, what: &str) -> Result<u64, AdmitError> {
        self.entry(tag)?.ok_or_else(|| self.broken(format!("it has no {what}")))
    }

    fn string_table(&self) -> Result<&'a [u8], AdmitError> {
        let address = self.required(elf::DT_STRTAB, "string table")?;
        let size = self.required(elf::DT_STRSZ, "size of its string table")?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.at_address(address)
            .and_then(|room| room.get(..size))
            .ok_or_else(|| self.broken("its string table lies outside the file"))
    }

    /// The table itself does not say how long it is; the hash tables do.
    fn symbol_table(&self) -> Result<&'a [Symbol], AdmitError> {
        let address = self.required(elf::DT_SYMTAB, "symbol table")?;
        let size = self.required(elf::DT_SYMENT, "symbol size")?;
        if size != size_of::<Symbol>() as u64 {
            return Err(self.broken(format!("its symbols are {size} bytes each")));
        }
        let outside = || self.broken("its hash table lies outside the file");
        let mut count = 0;
        if let Some(address) = self.entry(elf::DT_GNU_HASH)? {
            let room = self.at_address(address).ok_or_else(outside)?;
            let table =
                GnuHashTable::<Header>::parse(LE, room).map_err(|error| self.broken(error))?;
            // Of a library that exports nothing, the table is empty and no length can be had.
            count = table.symbol_table_length(LE).unwrap_or(0);
        }
        if let Some(address) = self.entry(elf::DT_HASH)? {
            let room = self.at_address(address).ok_or_else(outside)?;
            let table = HashTable::<Header>::parse(LE, room).map_err(|error| self.broken(error))?;
            count = count.max(table.symbol_table_length());
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.slice_at(address, count)
            .ok_or_else(|| self.broken("its symbol table lies outside the file"))
    }

    fn string(&self, offset: u64) -> Result<&'a [u8], AdmitError> {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        let end = (self.strings.len() as u64).min(u64::from(offset).saturating_add(NAME_MAX));
        StringTable::new(self.strings, 0, end)
            .get(offset)
            .map_err(|()| self.broken("a name lies outside its string table or has no end"))
    }

    fn symbol_name(&self, symbol: &Symbol) -> Result<&'a [u8], AdmitError> {
        self.string(symbol.st_name(LE).into())
    }

    /// Everything that must not be mapped into the host, in the order in which it is looked for: the `Elf…`
    /// variants of [`AdmitError`]. Admission refuses for the first, `inspect` tells all.
    pub(super) fn hazards(&self) -> impl Iterator<Item = AdmitError> {
        self.segment_hazards().chain(self.dynamic_hazards()).chain(self.unique_symbols())
    }

    /// Refuses for the first hazard.
    ///
    /// # Errors
    /// The `Elf…` variants of [`AdmitError`].
    pub(super) fn refuse_hazards(&self) -> Result<(), AdmitError> {
        self.hazards().next().map_or(Ok(()), Err)
    }

    fn segment_hazards(&self) -> impl Iterator<Item = AdmitError> {
        let executable_stack = || AdmitError::ElfExecutableStack { path: self.path.clone() };
        let both = elf::PF_W.0 | elf::PF_X.0;
        let found = self.segments.iter().enumerate().filter_map(move |(segment, header)| {
            let flags = header.p_flags(LE).0;
            if header.p_type(LE) == elf::PT_GNU_STACK {
                (flags & elf::PF_X.0 != 0).then(executable_stack)
            } else {
                let path = || self.path.clone();
                (flags & both == both)
                    .then(|| AdmitError::ElfWritableCode { path: path(), segment })
            }
        });
        // Without the header the loader assumes an executable stack.
        let says = self.segments.iter().any(|header| header.p_type(LE) == elf::PT_GNU_STACK);
        found.chain((!says).then(executable_stack))
    }

    fn dynamic_hazards(&self) -> impl Iterator<Item = AdmitError> {
        self.dynamic.iter().flat_map(|entry| {
            let value = entry.d_val.get(LE);
            let found = match entry.d_tag.get(LE) {
                elf::DT_TEXTREL => [Some(self.text_relocations()), None],
                elf::DT_FLAGS => self.flags_hazards(value),
                elf::DT_FLAGS_1 => self.flags_1_hazards(value),
                elf::DT_RPATH => [Some(self.search_path("RPATH", value)), None],
                elf::DT_RUNPATH => [Some(self.search_path("RUNPATH", value)), None],
                elf::DT_FILTER => [Some(self.filter("FILTER")), None],
                elf::DT_AUXILIARY => [Some(self.filter("AUXILIARY")), None],
                elf::DT_AUDIT => [Some(self.filter("AUDIT")), None],
                elf::DT_DEPAUDIT => [Some(self.filter("DEPAUDIT")), None],
                elf::DT_NEEDED => [self.foreign_library(value), None],
                _ => [None, None],
            };
            found.into_iter().flatten()
        })
    }

    fn flags_hazards(&self, flags: u64) -> [Option<AdmitError>; 2] {
        let static_tls = || AdmitError::ElfStaticTls { path: self.path.clone() };
        [
            (flags & elf::DF_TEXTREL.0 != 0).then(|| self.text_relocations()),
            (flags & elf::DF_STATIC_TLS.0 != 0).then(static_tls),
        ]
    }

    fn flags_1_hazards(&self, flags: u64) -> [Option<AdmitError>; 2] {
        let before_others = elf::DF_1_GLOBAL.0 | elf::DF_1_INTERPOSE.0;
        [
            (flags & elf::DF_1_PIE.0 != 0).then(|| self.broken("it is a program")),
            (flags & before_others != 0)
                .then(|| self.broken("it asks for its symbols to be used by others")),
        ]
    }

    fn text_relocations(&self) -> AdmitError {
        AdmitError::ElfTextRelocations { path: self.path.clone() }
    }

    fn search_path(&self, tag: &'static str, value: u64) -> AdmitError {
        self.string(value).map_or_else(
            |broken| broken,
            |value| AdmitError::ElfSearchPath { path: self.path.clone(), tag, value: text(value) },
        )
    }

    fn filter(&self, tag: &'static str) -> AdmitError {
        AdmitError::ElfFilter { path: self.path.clone(), tag }
    }

    fn foreign_library(&self, value: u64) -> Option<AdmitError> {
        match self.string(value) {
            Ok(library) if SYSTEM_LIBRARIES.contains(&library) => None,
            Ok(library) => {
                Some(AdmitError::ElfNeeded { path: self.path.clone(), library: text(library) })
            }
            Err(broken) => Some(broken),
        }
    }

    fn unique_symbols(&self) -> impl Iterator<Item = AdmitError> {
        let unique = self
            .symbols
            .iter()
            .filter(|symbol| symbol.st_bind() == elf::STB_GNU_UNIQUE && !symbol.is_undefined(LE));
        unique.map(|symbol| match self.symbol_name(symbol) {
            Ok(symbol) => {
                AdmitError::ElfUniqueSymbol { path: self.path.clone(), symbol: text(symbol) }
            }
            Err(broken) => broken,
        })
    }

    /// Reads the descriptor from where the loader would put it.
    ///
    /// # Errors
    /// [`AdmitError::DescriptorMissing`] and what [`Descriptor::parse`] says.
    pub(super) fn descriptor(&self) -> Result<Descriptor, AdmitError> {
        let symbol = self.descriptor_symbol()?;
        let plain = matches!(symbol.st_type(), elf::STT_OBJECT | elf::STT_NOTYPE);
        if !plain || symbol.st_shndx(LE) == elf::SHN_ABS {
            return Err(self.invalid("its symbol is not an object"));
        }
        let bytes = self
            .at_address(symbol.st_value(LE))
            .ok_or_else(|| self.invalid("it lies outside the file"))?;
        // The symbol's size says how far the object goes.
        let size = usize::try_from(symbol.st_size(LE)).unwrap_or(usize::MAX);
        Descriptor::parse(&self.path, bytes.get(..size).unwrap_or(bytes))
    }

    /// The one symbol under which a descriptor is found.
    fn descriptor_symbol(&self) -> Result<&'a Symbol, AdmitError> {
        let mut found = None;
        for symbol in self.symbols {
            if !is_exported(symbol)
                || self.symbol_name(symbol)? != abi::DESCRIPTOR_SYMBOL.as_bytes()
            {
                continue;
            }
            if found.replace(symbol).is_some() {
                return Err(self.broken("it exports two descriptors"));
            }
        }
        let missing = || AdmitError::DescriptorMissing { path: self.path.clone() };
        found.ok_or_else(missing)
    }

    fn invalid(&self, why: &str) -> AdmitError {
        let path = self.path.clone();
        AdmitError::DescriptorInvalid { path, field: "themis_plugin", why: why.to_owned() }
    }

    /// The build id the linker put in, as hexadecimal.
    ///
    /// # Errors
    /// [`AdmitError::ElfFormat`] when the notes are broken.
    pub(super) fn build_id(&self) -> Result<Option<String>, AdmitError> {
        for segment in self.segments.iter().filter(|s| s.p_type(LE) == elf::PT_NOTE) {
            let size = usize::try_from(segment.p_filesz(LE)).unwrap_or(usize::MAX);
            let room = self.at_address(segment.p_vaddr(LE)).and_then(|room| room.get(..size));
            let room = room.ok_or_else(|| self.broken("its notes lie outside the file"))?;
            let mut notes = NoteIterator::<Header>::new(LE, segment.p_align(LE), room)
                .map_err(|error| self.broken(error))?;
            while let Some(note) = notes.next().map_err(|error| self.broken(error))? {
                if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
                    return Ok(Some(hex::encode(note.desc())));
                }
            }
        }
        Ok(None)
    }
}

/// Whether others can find the symbol.
fn is_exported(symbol: &Symbol) -> bool {
    matches!(symbol.st_bind(), elf::STB_GLOBAL | elf::STB_WEAK)
        && matches!(symbol.st_visibility(), elf::STV_DEFAULT | elf::STV_PROTECTED)
        && !symbol.is_undefined(LE)
}

/// Makes errors about one file.
#[derive(Clone, Copy)]
struct Broken<'p>(&'p Path);

impl Broken<'_> {
    fn is(self, why: impl ToString) -> AdmitError {
        AdmitError::ElfFormat { path: self.0.to_owned(), why: why.to_string() }
    }
}

fn header<'a>(broken: Broken<'_>, bytes: &'a [u8]) -> Result<&'a Header, AdmitError> {
    if !bytes.starts_with(&elf::ELFMAG) {
        return Err(broken.is("it does not begin as an ELF file"));
    }
    let other = |found: String| AdmitError::ElfArchitecture {
        path: broken.0.to_owned(),
        found,
        wanted: MACHINE.0,
    };
    match (bytes.get(4), bytes.get(5)) {
        (Some(2), Some(1)) => {}
        (Some(1), _) => return Err(other("a 32-bit machine".to_owned())),
        (_, Some(2)) => return Err(other("a big-endian machine".to_owned())),
        (_, _) => return Err(broken.is("its class or byte order does not exist")),
    }
    let header = Header::parse(bytes).map_err(|error| broken.is(error))?;
    let machine = header.e_machine(LE);
    if machine != MACHINE.1 {
        return Err(other(machine_name(machine)));
    }
    if header.e_type(LE) != elf::ET_DYN {
        return Err(broken.is(format!("it is of type {}", header.e_type(LE).0)));
    }
    Ok(header)
}

fn machine_name(machine: elf::Machine) -> String {
    match machine {
        elf::EM_X86_64 => "x86_64".to_owned(),
        elf::EM_AARCH64 => "aarch64".to_owned(),
        elf::EM_RISCV => "riscv".to_owned(),
        elf::EM_PPC64 => "ppc64".to_owned(),
        other => format!("machine number {}", other.0),
    }
}

/// The mapped ranges: inside the file, in order, never two on one page.
fn loads(broken: Broken<'_>, bytes: &[u8], segments: &[Segment]) -> Result<Vec<Load>, AdmitError> {
    let mut loads: Vec<Load> = Vec::new();
    let (mut first, mut next_free) = (None, 0_u64);
    for segment in segments.iter().filter(|s| s.p_type(LE) == elf::PT_LOAD) {
        let (offset, file_size) = segment.file_range(LE);
        let (address, size) = (segment.p_vaddr(LE), segment.p_memsz(LE));
        let end = address.checked_add(size);
        let fits = offset.checked_add(file_size).is_some_and(|end| end <= bytes.len() as u64);
        let page = address - address % PAGE;
        let first = *first.get_or_insert(page);
        let sane = fits && file_size <= size && address % PAGE == offset % PAGE;
        match end.and_then(|end| end.checked_next_multiple_of(PAGE)) {
            Some(end) if sane && page >= next_free && end - first <= IMAGE_SPAN_BYTES_MAX => {
                next_free = end;
            }
            Some(_) | None => return Err(broken.is("a segment has an impossible place or size")),
        }
        loads.push(Load { address, offset, file_size });
    }
    if loads.is_empty() {
        return Err(broken.is("it has nothing to map"));
    }
    Ok(loads)
}

/// Foreign text for an error: short, and without anything a terminal would obey.
fn text(bytes: &[u8]) -> String {
    let cut = bytes.get(..TEXT_MAX).unwrap_or(bytes);
    String::from_utf8_lossy(cut).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests;
