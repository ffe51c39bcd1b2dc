//! Plugin bundles: a plugin directory as one `<name>-<version>.tdb` file, read from memory and packed.
//!
//! A bundle is a zip with one possible reading. Zip readers differ in where they look for the directory, in
//! whether they believe it or the local headers, and in what they do about names that occur twice; an archive
//! can be made that shows each of them something else. Here the whole file has to be accounted for:
//!
//! ```text
//! 0 ─▶ header name data │ header name data │ … │ directory │ end record ◀─ last byte
//! ```
//!
//! Local entries follow each other without a gap from the first byte on, the directory begins where the last
//! one ends, the end record where the directory ends, and the file ends with it. There are no extra fields,
//! comments, data descriptors, directories or links in it, both headers of an entry agree in every field,
//! and counts, sizes, names and ratio are capped. [`Bundle::read`] checks all of that before anything is
//! decompressed, and takes memory only for a capped list of entries. [`Entry::extract`] then inflates one
//! entry, never beyond its stated size, and checks the CRC-32. Nothing is written to disk, and what is packed
//! inside an entry stays packed.
//!
//! What a bundle vouches for is nothing: trust comes from the signature over the manifest and the digests in
//! it, which the admission checks on what comes out of here exactly as on a directory.
//!
//! # Why no zip library
//!
//! What has passed the check is a list of byte ranges, each stored or one raw deflate stream. A zip library
//! would parse the same bytes a second time, by more lenient rules, and its answer would have to be compared
//! with ours: it can only disagree. `zip` 9.8 with nothing but deflate also brings an ordered map, a second
//! compressor and their like, some fifteen crates. `miniz_oxide` forbids unsafe code in itself, is the
//! decompressor the standard library's backtraces use, and needs one tiny crate more.

use themis_messages::limits::{FILE_BYTES_MAX, MANIFEST_BYTES_MAX, OPENPGP_BYTES_MAX};
use themis_messages::manifest::{MANIFEST_FILE, OPENPGP_FILE};

mod central;
mod end;
mod inflate;
mod layout;
mod names;
mod raw;
mod reader;
mod writer;

pub use reader::{Bundle, Entry};
pub use writer::{PackError, pack, pack_into};

/// How large the file with this path may be, in bytes.
fn file_bytes_max(path: &str) -> u64 {
    match path {
        MANIFEST_FILE => MANIFEST_BYTES_MAX,
        OPENPGP_FILE => OPENPGP_BYTES_MAX,
        _ => FILE_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests;
