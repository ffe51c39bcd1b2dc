//! Where a zip's directory is: the end record at the very end of the file, and nothing else that could be one.

use crate::admission::bundle::raw::{
    CENTRAL, END, END_BYTES, End, LOCAL, LOCATOR_64, LOCATOR_64_BYTES, begins, range,
};
use themis_messages::bundle::BundleFault;
use themis_messages::limits::{BUNDLE_BYTES_MAX, BUNDLE_ENTRIES_MAX};

/// The directory: it ends where the end record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) entries: u16,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Finds the directory, and refuses a file that could be read as having another.
pub(super) fn locate(bytes: &[u8]) -> Result<Directory, BundleFault> {
    let size = bytes.len() as u64;
    if size > BUNDLE_BYTES_MAX {
        return Err(BundleFault::TooLarge { size, max: BUNDLE_BYTES_MAX });
    }
    let at = size.saturating_sub(END_BYTES);
    let Some(end) = End::read_at(bytes, at) else { return Err(without_end(bytes)) };
    if end.comment_len != 0 {
        return Err(BundleFault::Truncated { what: "the comment", offset: size });
    }
    check_numbers(&end, at)?;
    let (start, stop) = (u64::from(end.offset), end.directory_end());
    if stop > at {
        return Err(BundleFault::Truncated { what: "the directory", offset: start });
    }
    if begins(bytes, start, CENTRAL) {
        if stop < at {
            return Err(before_the_end(bytes, stop, at));
        }
        return Ok(Directory { entries: end.entries, start, end: at });
    }
    // Offsets count from where the archive once began.
    let shift = at - stop;
    if shift != 0 && begins(bytes, start + shift, CENTRAL) {
        return Err(before_the_archive(bytes, shift));
    }
    Err(BundleFault::Header { offset: start, why: "no directory where the end record says" })
}

fn check_numbers(end: &End, offset: u64) -> Result<(), BundleFault> {
    let words = [end.disk, end.directory_disk, end.entries_here, end.entries];
    if words.contains(&u16::MAX) || [end.size, end.offset].contains(&u32::MAX) {
        return Err(BundleFault::Zip64 { offset });
    }
    if end.disk != 0 || end.directory_disk != 0 || end.entries_here != end.entries {
        return Err(BundleFault::Split { offset });
    }
    match usize::from(end.entries) {
        0 => Err(BundleFault::Empty),
        1..=BUNDLE_ENTRIES_MAX => Ok(()),
        _ => Err(BundleFault::TooMany { entries: u64::from(end.entries) }),
    }
}

/// The file does not end in an end record: says why, as well as can be told.
fn without_end(bytes: &[u8]) -> BundleFault {
    let size = bytes.len() as u64;
    // An end record counts if its directory lies right before it; others are bytes of some entry.
    let mut ends = positions(bytes, END).filter_map(|at| {
        let end = End::read_at(bytes, at)?;
        let whole = end.directory_end() == at && at + END_BYTES < size;
        let directory = end.entries == 0 || begins(bytes, u64::from(end.offset), CENTRAL);
        (whole && directory).then_some((at, end))
    });
    if let Some((at, end)) = ends.next() {
        if ends.next().is_some() {
            return BundleFault::TwoDirectories { offset: at };
        }
        let (offset, comment) = (at + END_BYTES, u64::from(end.comment_len));
        return match size - offset {
            rest if rest == comment => BundleFault::Comment { offset: at, bytes: comment },
            rest if rest < comment => BundleFault::Truncated { what: "the comment", offset },
            rest => BundleFault::Trailing { offset: offset + comment, bytes: rest - comment },
        };
    }
    if begins(bytes, 0, LOCAL) {
        return BundleFault::Truncated { what: "the end record", offset: size };
    }
    BundleFault::NotAZip { found: looks_like(bytes) }
}

/// What lies between the directory and the end record.
fn before_the_end(bytes: &[u8], from: u64, to: u64) -> BundleFault {
    let locator = to.saturating_sub(LOCATOR_64_BYTES);
    if locator >= from && begins(bytes, locator, LOCATOR_64) {
        return BundleFault::Zip64 { offset: locator };
    }
    unaccounted(bytes, from, to)
}

/// What lies before the first entry, up to `to`.
pub(super) fn before_the_archive(bytes: &[u8], to: u64) -> BundleFault {
    match second_end(bytes, 0, to) {
        Some(offset) => BundleFault::TwoDirectories { offset },
        None => BundleFault::Prepended { found: looks_like(bytes), offset: to },
    }
}

/// What lies where nothing should: another archive's end, or just bytes.
pub(super) fn unaccounted(bytes: &[u8], from: u64, to: u64) -> BundleFault {
    match second_end(bytes, from, to) {
        Some(offset) => BundleFault::TwoDirectories { offset },
        None => BundleFault::Gap { offset: from, bytes: to.saturating_sub(from) },
    }
}

fn second_end(bytes: &[u8], from: u64, to: u64) -> Option<u64> {
    let part = range(bytes, from, to.checked_sub(from)?)?;
    positions(part, END).next().map(|at| from + at)
}

fn positions(bytes: &[u8], signature: [u8; 4]) -> impl Iterator<Item = u64> {
    let found = move |(at, four): (usize, &[u8])| (four == signature).then_some(at as u64);
    bytes.windows(4).enumerate().filter_map(found)
}

/// What a file's first bytes say it is.
fn looks_like(bytes: &[u8]) -> &'static str {
    const KINDS: [(&[u8], &str); 11] = [
        (b"\x7fELF", "an ELF file"),
        (b"\0asm", "a wasm module"),
        (b"MZ", "a Windows program"),
        (b"#!", "a script"),
        (b"\x1f\x8b", "a gzip file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"\xfd7zXZ", "an xz file"),
        (b"BZh", "a bzip2 file"),
        (b"7z\xbc\xaf", "a 7z archive"),
        (b"Rar!", "a rar archive"),
        (b"{", "text, perhaps JSON"),
    ];
    if bytes.is_empty() {
        return "an empty file";
    }
    if range(bytes, 257, 5).is_some_and(|magic| magic == b"ustar") {
        return "a tar archive";
    }
    let known = KINDS.iter().find(|(magic, _)| bytes.starts_with(magic));
    known.map_or("something else", |(_, kind)| kind)
}
