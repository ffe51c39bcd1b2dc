//! The directory's entries, each checked on its own.

use crate::admission::bundle::end::Directory;
use crate::admission::bundle::raw::{
    CENTRAL_BYTES, Central, Common, DEFLATE, FLAG_UTF8, Fields, STORED, range,
};
use themis_messages::admit::PathFault;
use themis_messages::bundle::{At, BundleFault, EntryFault, NEEDED_MAX};
use themis_messages::manifest::check_relative_path;

const FLAG_DESCRIPTOR: u16 = 1 << 3;
/// Encrypted, strongly encrypted, header values masked.
const FLAGS_ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
/// How hard deflate tried: tells the reader nothing.
const FLAGS_EFFORT: u16 = 0b110;
/// The extra field that holds sizes and offset beyond 32 bits.
const EXTRA_ZIP64: u16 = 1;

const DOS_VOLUME: u32 = 0x08;
const DOS_DIRECTORY: u32 = 0x10;

const MODE_TYPE: u32 = 0o170_000;
const MODE_SPECIAL: u32 = 0o7_000;
/// Writers that know no types leave it out.
const TYPE_UNSAID: u32 = 0;
const TYPE_REGULAR: u32 = 0o100_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_SYMLINK: u32 = 0o120_000;

/// An entry as the directory has it; its name is a path inside a plugin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) name: &'a str,
    pub(super) common: Common,
    /// Of its local header, as the directory says.
    pub(super) local: u64,
    /// Of its directory entry.
    offset: u64,
}

impl Listed<'_> {
    /// A fault of this entry, as the directory has it.
    pub(super) fn refuse(&self, fault: EntryFault) -> BundleFault {
        BundleFault::Entry { at: At::new(self.name.as_bytes(), self.offset), fault }
    }
}

/// Reads the whole directory.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    directory: &Directory,
) -> Result<Vec<Listed<'a>>, BundleFault> {
    let all = range(bytes, directory.start, directory.end - directory.start).unwrap_or_default();
    let mut from = Fields(all);
    let mut listed = Vec::with_capacity(usize::from(directory.entries));
    for _ in 0..directory.entries {
        let offset = directory.end - from.0.len() as u64;
        listed.push(entry(&mut from, offset)?);
    }
    if !from.0.is_empty() {
        let offset = directory.end - from.0.len() as u64;
        let why = "the directory is longer than the entries the end record counts";
        return Err(BundleFault::Header { offset, why });
    }
    Ok(listed)
}

fn entry<'a>(from: &mut Fields<'a>, offset: u64) -> Result<Listed<'a>, BundleFault> {
    if (from.0.len() as u64) < CENTRAL_BYTES {
        return Err(BundleFault::Truncated { what: "the directory", offset });
    }
    let why = "want a directory entry here";
    let header = Central::read(from).ok_or(BundleFault::Header { offset, why })?;
    let cut = || BundleFault::Truncated { what: "a directory entry", offset };
    let name = from.bytes(header.common.name_len).ok_or_else(cut)?;
    let extra = from.bytes(header.common.extra_len).ok_or_else(cut)?;
    from.bytes(header.comment_len).ok_or_else(cut)?;
    let name = check_entry(&header, name, extra)
        .map_err(|fault| BundleFault::Entry { at: At::new(name, offset), fault })?;
    Ok(Listed { name, common: header.common, local: u64::from(header.offset), offset })
}

fn check_entry<'a>(header: &Central, name: &'a [u8], extra: &[u8]) -> Result<&'a str, EntryFault> {
    check_flags(header.common.flags)?;
    check_zip64(header, extra)?;
    check_format(header)?;
    if !extra.is_empty() {
        return Err(EntryFault::ExtraField { id: extra_id(extra) });
    }
    if header.comment_len != 0 {
        return Err(EntryFault::Comment { bytes: header.comment_len });
    }
    check_attributes(header.external)?;
    check_name(name, header.common.flags & FLAG_UTF8 != 0)
}

fn check_flags(flags: u16) -> Result<(), EntryFault> {
    if flags & FLAGS_ENCRYPTED != 0 {
        return Err(EntryFault::Encrypted);
    }
    if flags & FLAG_DESCRIPTOR != 0 {
        return Err(EntryFault::DataDescriptor);
    }
    if flags & !(FLAG_UTF8 | FLAGS_EFFORT) != 0 {
        return Err(EntryFault::Flags { flags });
    }
    Ok(())
}

fn check_zip64(header: &Central, extra: &[u8]) -> Result<(), EntryFault> {
    let numbers = [header.common.packed, header.common.size, header.offset];
    let large = numbers.contains(&u32::MAX) || header.disk == u16::MAX;
    if large || (!extra.is_empty() && extra_id(extra) == EXTRA_ZIP64) {
        return Err(EntryFault::Zip64);
    }
    match header.disk {
        0 => Ok(()),
        _ => Err(EntryFault::Split),
    }
}

fn check_format(header: &Central) -> Result<(), EntryFault> {
    let (method, needed) = (header.common.method, header.common.needed);
    if ![STORED, DEFLATE].contains(&method) {
        return Err(EntryFault::Method { method });
    }
    if needed > NEEDED_MAX {
        return Err(EntryFault::Version { needed });
    }
    match header.made_by >> 8 {
        0 | 3 => Ok(()),
        host => Err(EntryFault::HostSystem { host }),
    }
}

/// The first of the extra fields; 0 when there is not even room for its id.
pub(super) fn extra_id(extra: &[u8]) -> u16 {
    Fields(extra).u16().unwrap_or_default()
}

/// The mode counts whatever system it was made on: readers differ in whether they look.
fn check_attributes(external: u32) -> Result<(), EntryFault> {
    let mode = external >> 16;
    match mode & MODE_TYPE {
        TYPE_UNSAID | TYPE_REGULAR => {}
        TYPE_SYMLINK => return Err(EntryFault::Symlink),
        TYPE_DIRECTORY => return Err(EntryFault::DirectoryEntry),
        _ => return Err(EntryFault::SpecialFile { mode }),
    }
    if mode & MODE_SPECIAL != 0 {
        return Err(EntryFault::Setuid { mode });
    }
    if external & DOS_DIRECTORY != 0 {
        return Err(EntryFault::DirectoryEntry);
    }
    if external & DOS_VOLUME != 0 {
        return Err(EntryFault::SpecialFile { mode });
    }
    Ok(())
}

fn check_name(name: &[u8], said_utf8: bool) -> Result<&str, EntryFault> {
    let not_utf8 = EntryFault::Path { fault: PathFault::NotUtf8 };
    // Without the flag, what is not ASCII is in some code page: readers would differ about the name.
    if !said_utf8 && !name.is_ascii() {
        return Err(not_utf8);
    }
    let Ok(name) = std::str::from_utf8(name) else { return Err(not_utf8) };
    let file = match name {
        "/" => name,
        _ => name.strip_suffix('/').unwrap_or(name),
    };
    match check_relative_path(file) {
        Err(PathFault::Absolute) if name.starts_with('/') => Err(EntryFault::AbsolutePath),
        Err(PathFault::Absolute) => Err(EntryFault::DrivePath),
        Err(fault) => Err(EntryFault::Path { fault }),
        Ok(()) if name.ends_with('/') => Err(EntryFault::DirectoryEntry),
        Ok(()) => Ok(name),
    }
}
