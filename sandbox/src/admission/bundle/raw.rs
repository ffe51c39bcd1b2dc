//! Records of a zip as they lie in the file; all numbers are little-endian.

/// Begins a local header.
pub(super) const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// Begins a directory entry.
pub(super) const CENTRAL: [u8; 4] = *b"PK\x01\x02";
/// Begins the end record.
pub(super) const END: [u8; 4] = *b"PK\x05\x06";
/// Begins the zip64 record that tells where the zip64 end record is.
pub(super) const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";

/// Length of a local header without its name, in bytes.
pub(super) const LOCAL_BYTES: u64 = 30;
/// Length of a directory entry without its name, in bytes.
pub(super) const CENTRAL_BYTES: u64 = 46;
/// Length of the end record without comment, in bytes.
pub(super) const END_BYTES: u64 = 22;
/// Length of the zip64 locator, in bytes.
pub(super) const LOCATOR_64_BYTES: u64 = 20;

/// The entry's data as they are.
pub(super) const STORED: u16 = 0;
/// One raw deflate stream.
pub(super) const DEFLATE: u16 = 8;

/// The name is UTF-8.
pub(super) const FLAG_UTF8: u16 = 1 << 11;

/// What local header and directory entry both have, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Common {
    pub(super) needed: u16,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) time: u16,
    pub(super) date: u16,
    pub(super) crc: u32,
    pub(super) packed: u32,
    pub(super) size: u32,
    pub(super) name_len: u16,
    pub(super) extra_len: u16,
}

impl Common {
    fn read(from: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            needed: from.u16()?,
            flags: from.u16()?,
            method: from.u16()?,
            time: from.u16()?,
            date: from.u16()?,
            crc: from.u32()?,
            packed: from.u32()?,
            size: from.u32()?,
            name_len: from.u16()?,
            extra_len: from.u16()?,
        })
    }

    fn write(&self, to: &mut Vec<u8>) {
        for field in [self.needed, self.flags, self.method, self.time, self.date] {
            to.extend(field.to_le_bytes());
        }
        for field in [self.crc, self.packed, self.size] {
            to.extend(field.to_le_bytes());
        }
        for field in [self.name_len, self.extra_len] {
            to.extend(field.to_le_bytes());
        }
    }
}

/// A local header, without its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local {
    pub(super) common: Common,
}

impl Local {
    /// Reads one, unless it is cut short or something else.
    pub(super) fn read(from: &mut Fields<'_>) -> Option<Self> {
        (from.take()? == LOCAL).then_some(())?;
        Some(Self { common: Common::read(from)? })
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.extend(LOCAL);
        self.common.write(to);
    }
}

/// A directory entry, without its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Central {
    /// Format version in the low byte, the writer's system in the high one.
    pub(super) made_by: u16,
    pub(super) common: Common,
    pub(super) comment_len: u16,
    pub(super) disk: u16,
    pub(super) internal: u16,
    /// DOS attributes in the low byte, the Unix mode in the high half.
    pub(super) external: u32,
    /// Of the local header.
    pub(super) offset: u32,
}

impl Central {
    /// Reads one, unless it is cut short or something else.
    pub(super) fn read(from: &mut Fields<'_>) -> Option<Self> {
        (from.take()? == CENTRAL).then_some(())?;
        Some(Self {
            made_by: from.u16()?,
            common: Common::read(from)?,
            comment_len: from.u16()?,
            disk: from.u16()?,
            internal: from.u16()?,
            external: from.u32()?,
            offset: from.u32()?,
        })
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.extend(CENTRAL);
        to.extend(self.made_by.to_le_bytes());
        self.common.write(to);
        for field in [self.comment_len, self.disk, self.internal] {
            to.extend(field.to_le_bytes());
        }
        for field in [self.external, self.offset] {
            to.extend(field.to_le_bytes());
        }
    }
}

/// The end record, without a comment.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) disk: u16,
    pub(super) directory_disk: u16,
    pub(super) entries_here: u16,
    pub(super) entries: u16,
    /// Of the directory, in bytes.
    pub(super) size: u32,
    /// Of the directory.
    pub(super) offset: u32,
    pub(super) comment_len: u16,
}

impl End {
    /// Reads the one at an offset, unless it is cut short or something else.
    pub(super) fn read_at(bytes: &[u8], offset: u64) -> Option<Self> {
        let mut from = Fields(range(bytes, offset, END_BYTES)?);
        (from.take()? == END).then_some(())?;
        Some(Self {
            disk: from.u16()?,
            directory_disk: from.u16()?,
            entries_here: from.u16()?,
            entries: from.u16()?,
            size: from.u32()?,
            offset: from.u32()?,
            comment_len: from.u16()?,
        })
    }

    /// Where the directory it tells of ends.
    pub(super) fn directory_end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.size)
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.extend(END);
        for field in [self.disk, self.directory_disk, self.entries_here, self.entries] {
            to.extend(field.to_le_bytes());
        }
        for field in [self.size, self.offset] {
            to.extend(field.to_le_bytes());
        }
        to.extend(self.comment_len.to_le_bytes());
    }
}

/// What is still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next bytes, if there are as many.
    pub(super) fn bytes(&mut self, len: u16) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}

/// A range of the file, if it lies in it.
pub(super) fn range(bytes: &[u8], from: u64, len: u64) -> Option<&[u8]> {
    let end = usize::try_from(from.checked_add(len)?).ok()?;
    bytes.get(usize::try_from(from).ok()?..end)
}

/// Whether a record with this signature begins at an offset.
pub(super) fn begins(bytes: &[u8], offset: u64, signature: [u8; 4]) -> bool {
    range(bytes, offset, 4).is_some_and(|found| found == signature)
}
