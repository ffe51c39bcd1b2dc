//! A bundle that passed the check, and its entries.

use std::convert::Infallible;
use std::io::Write;

use crate::admission::bundle::inflate::{Stop, inflate_exactly};
use crate::admission::bundle::names::{Clash, first_clash};
use crate::admission::bundle::raw::STORED;
use crate::admission::bundle::{central, end, layout};
use themis_messages::bundle::{At, BundleFault, EntryFault, show};

/// Most that is set aside for an entry before its bytes come, in bytes.
const FIRST_ROOM: usize = 1 << 20;

/// A bundle in memory whose structure has been checked; no entry has been unpacked yet.
#[derive(Debug, Clone)]
pub struct Bundle<'a> {
    entries: Vec<Entry<'a>>,
}

/// One file of a bundle, still packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    path: &'a str,
    method: u16,
    crc: u32,
    size: u32,
    data: &'a [u8],
    /// Of its local header.
    offset: u64,
}

impl<'a> Bundle<'a> {
    /// Checks that the bytes are a bundle, from the first to the last. Nothing is decompressed; at most
    /// [`BUNDLE_ENTRIES_MAX`](themis_messages::limits::BUNDLE_ENTRIES_MAX) entries are kept, which borrow the bytes.
    ///
    /// The bytes must not change while the bundle is used: a copy nobody else can write, of at most
    /// [`BUNDLE_BYTES_MAX`](themis_messages::limits::BUNDLE_BYTES_MAX).
    ///
    /// # Errors
    /// [`BundleFault`]: the first reason found to refuse it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, BundleFault> {
        let directory = end::locate(bytes)?;
        let listed = central::read(bytes, &directory)?;
        if let Some((entry, clash)) = first_clash(&listed, |entry| entry.name) {
            return Err(entry.refuse(clash_fault(clash)));
        }
        let data = layout::check(bytes, &directory, &listed)?;
        let entry = |(listed, data): (&central::Listed<'a>, &'a [u8])| Entry {
            path: listed.name,
            method: listed.common.method,
            crc: listed.common.crc,
            size: listed.common.size,
            data,
            offset: listed.local,
        };
        Ok(Self { entries: listed.iter().zip(data).map(entry).collect() })
    }

    /// Its files, in the order of its directory.
    #[must_use]
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// The file with exactly this path.
    ///
    /// # Errors
    /// [`BundleFault::MissingFile`].
    pub fn open(&self, path: &str) -> Result<Entry<'a>, BundleFault> {
        let found = self.entries.iter().find(|entry| entry.path == path);
        found.copied().ok_or_else(|| BundleFault::MissingFile { name: show(path) })
    }
}

fn clash_fault(clash: Clash<'_>) -> EntryFault {
    match clash {
        Clash::Duplicate => EntryFault::Duplicate,
        Clash::Case { other } => EntryFault::CaseCollision { other: show(other) },
        Clash::Inside { file } => EntryFault::FileAndDirectory { file: show(file) },
    }
}

impl<'a> Entry<'a> {
    /// Path inside the plugin.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// Size in bytes as it unpacks: more or fewer is a fault.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.size)
    }

    /// Size in bytes as it lies in the bundle.
    #[must_use]
    pub fn packed_size(&self) -> u64 {
        self.data.len() as u64
    }

    /// Unpacks it into `into`: at most [`Entry::size`] bytes, whatever the data hold.
    ///
    /// What was written counts only when this returns `Ok`: a wrong checksum shows at the end.
    ///
    /// # Errors
    /// [`BundleFault`] with what is wrong with the data, or why they could not be written.
    pub fn extract(&self, into: &mut impl Write) -> Result<(), BundleFault> {
        self.each_piece(|piece| into.write_all(piece))
            .map_err(|stop| self.explain(stop, |error| error.to_string()))
    }

    /// Unpacks it into memory: at most [`Entry::size`] bytes.
    ///
    /// # Errors
    /// [`BundleFault`] with what is wrong with the data.
    pub fn to_vec(&self) -> Result<Vec<u8>, BundleFault> {
        // The size is only what the header says: memory follows the bytes.
        let room = usize::try_from(self.size()).unwrap_or(FIRST_ROOM).min(FIRST_ROOM);
        let mut bytes = Vec::with_capacity(room);
        let keep = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        self.each_piece(keep)
            .map_err(|stop| self.explain(stop, |never: Infallible| match never {}))?;
        Ok(bytes)
    }

    fn each_piece<E>(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), Failure<E>> {
        let mut hasher = crc32fast::Hasher::new();
        if self.method == STORED {
            hasher.update(self.data);
            self.check_crc(hasher)?;
            return take(self.data).map_err(|error| Failure::Stop(Stop::Taker(error)));
        }
        let piece = |piece: &[u8]| {
            hasher.update(piece);
            take(piece)
        };
        inflate_exactly(self.data, self.size(), piece).map_err(Failure::Stop)?;
        self.check_crc(hasher)
    }

    fn check_crc<E>(&self, hasher: crc32fast::Hasher) -> Result<(), Failure<E>> {
        match hasher.finalize() {
            found if found == self.crc => Ok(()),
            found => Err(Failure::Checksum { found }),
        }
    }

    fn explain<E>(&self, failure: Failure<E>, words: impl FnOnce(E) -> String) -> BundleFault {
        let fault = match failure {
            Failure::Stop(Stop::Size) => EntryFault::LyingSize { size: self.size() },
            Failure::Stop(Stop::Stream(why)) => EntryFault::Deflate { why },
            Failure::Stop(Stop::Taker(error)) => EntryFault::Write { error: words(error) },
            Failure::Checksum { found } => EntryFault::Checksum { expected: self.crc, found },
        };
        BundleFault::Entry { at: At::new(self.path.as_bytes(), self.offset), fault }
    }
}

/// Why an entry was not unpacked.
enum Failure<E> {
    Stop(Stop<E>),
    Checksum { found: u32 },
}
