//! Makes zip files in which every field can be wrong; it shares no code with what it tests.

use miniz_oxide::deflate::compress_to_vec;

/// What both headers of an entry have.
#[derive(Clone)]
pub(super) struct Header {
    pub(super) needed: u16,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) time: u16,
    pub(super) date: u16,
    pub(super) crc: u32,
    pub(super) packed: u32,
    pub(super) size: u32,
    pub(super) name: Vec<u8>,
    pub(super) extra: Vec<u8>,
}

impl Header {
    fn write(&self, to: &mut Vec<u8>) {
        words(to, &[self.needed, self.flags, self.method, self.time, self.date]);
        longs(to, &[self.crc, self.packed, self.size]);
        words(to, &[self.name.len() as u16, self.extra.len() as u16]);
    }
}

#[derive(Clone)]
pub(super) struct Member {
    pub(super) local: Header,
    pub(super) central: Header,
    pub(super) made_by: u16,
    pub(super) comment: Vec<u8>,
    pub(super) disk: u16,
    pub(super) external: u32,
    pub(super) data: Vec<u8>,
    /// Where the directory says the local header is, instead of where it is.
    pub(super) offset: Option<u32>,
    /// Only in the directory.
    pub(super) listed_only: bool,
}

impl Member {
    /// As honest as can be, not compressed.
    pub(super) fn stored(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        Self::new(name.as_ref(), 0, content, content.to_vec())
    }

    /// As honest as can be, deflated.
    pub(super) fn deflated(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        Self::new(name.as_ref(), 8, content, compress_to_vec(content, 9))
    }

    fn new(name: &[u8], method: u16, content: &[u8], data: Vec<u8>) -> Self {
        let header = Header {
            needed: 20,
            flags: if name.is_ascii() { 0 } else { 0x800 },
            method,
            time: 0,
            date: 0x21,
            crc: crc32fast::hash(content),
            packed: data.len() as u32,
            size: content.len() as u32,
            name: name.to_vec(),
            extra: Vec::new(),
        };
        Self {
            local: header.clone(),
            central: header,
            made_by: 3 << 8 | 20,
            comment: Vec::new(),
            disk: 0,
            external: 0o100_644 << 16,
            data,
            offset: None,
            listed_only: false,
        }
    }

    /// Changes both headers.
    pub(super) fn both(mut self, change: impl Fn(&mut Header)) -> Self {
        change(&mut self.local);
        change(&mut self.central);
        self
    }

    pub(super) fn local(mut self, change: impl FnOnce(&mut Header)) -> Self {
        change(&mut self.local);
        self
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Gives it a mode, type bits included.
    pub(super) fn mode(self, mode: u32) -> Self {
        self.with(|member| member.external = mode << 16)
    }
}

/// The end record; what is `None` is told as it is.
#[derive(Clone, Default)]
pub(super) struct End {
    pub(super) disk: u16,
    pub(super) directory_disk: u16,
    pub(super) entries_here: Option<u16>,
    pub(super) entries: Option<u16>,
    pub(super) size: Option<u32>,
    pub(super) offset: Option<u32>,
    pub(super) comment: Vec<u8>,
}

#[derive(Clone, Default)]
pub(super) struct Zip {
    /// Before everything; offsets do not count it unless `adjusted`.
    pub(super) before: Vec<u8>,
    pub(super) adjusted: bool,
    pub(super) members: Vec<Member>,
    pub(super) before_directory: Vec<u8>,
    pub(super) after_directory: Vec<u8>,
    pub(super) end: End,
    pub(super) after: Vec<u8>,
}

impl Zip {
    pub(super) fn of(members: impl IntoIterator<Item = Member>) -> Self {
        Self { members: members.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let base = if self.adjusted { 0 } else { self.before.len() };
        let (mut zip, mut directory) = (self.before.clone(), Vec::new());
        for member in &self.members {
            let offset = (zip.len() - base) as u32;
            if !member.listed_only {
                zip.extend(b"PK\x03\x04");
                member.local.write(&mut zip);
                zip.extend(&member.local.name);
                zip.extend(&member.local.extra);
                zip.extend(&member.data);
            }
            directory.extend(b"PK\x01\x02");
            words(&mut directory, &[member.made_by]);
            member.central.write(&mut directory);
            words(&mut directory, &[member.comment.len() as u16, member.disk, 0]);
            longs(&mut directory, &[member.external, member.offset.unwrap_or(offset)]);
            directory.extend(&member.central.name);
            directory.extend(&member.central.extra);
            directory.extend(&member.comment);
        }
        zip.extend(&self.before_directory);
        let offset = (zip.len() - base) as u32;
        zip.extend(&directory);
        zip.extend(&self.after_directory);

        let (end, count) = (&self.end, self.members.len() as u16);
        zip.extend(b"PK\x05\x06");
        let counts = [end.entries_here.unwrap_or(count), end.entries.unwrap_or(count)];
        words(&mut zip, &[end.disk, end.directory_disk, counts[0], counts[1]]);
        let size = end.size.unwrap_or(directory.len() as u32);
        longs(&mut zip, &[size, end.offset.unwrap_or(offset)]);
        words(&mut zip, &[end.comment.len() as u16]);
        zip.extend(&end.comment);
        zip.extend(&self.after);
        zip
    }
}

fn words(to: &mut Vec<u8>, words: &[u16]) {
    words.iter().for_each(|word| to.extend(word.to_le_bytes()));
}

fn longs(to: &mut Vec<u8>, longs: &[u32]) {
    longs.iter().for_each(|long| to.extend(long.to_le_bytes()));
}
