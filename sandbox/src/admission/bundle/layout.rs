//! Whether the local entries fill the file from its first byte to the directory, and are what it says.

use crate::admission::bundle::central::{Listed, extra_id};
use crate::admission::bundle::end::{Directory, before_the_archive, unaccounted};
use crate::admission::bundle::file_bytes_max;
use crate::admission::bundle::raw::{Common, Fields, LOCAL_BYTES, Local, STORED, range};
use themis_messages::bundle::{At, BundleFault, EntryFault};
use themis_messages::limits::{
    BUNDLE_RATIO_FREE_BYTES, BUNDLE_RATIO_MAX, BUNDLE_UNPACKED_BYTES_MAX,
};

/// An entry's local header and where its data lie.
#[derive(Debug, Clone, Copy)]
struct Placed<'l, 'a> {
    listed: &'l Listed<'a>,
    common: Common,
    name: &'a [u8],
    extra: &'a [u8],
    data: u64,
}

impl Placed<'_, '_> {
    fn end(&self) -> u64 {
        self.data + u64::from(self.listed.common.packed)
    }

    /// A fault of this entry, at its local header.
    fn refuse(&self, fault: EntryFault) -> BundleFault {
        let at = At::new(self.listed.name.as_bytes(), self.listed.local);
        BundleFault::Entry { at, fault }
    }
}

/// The data of each entry, in the order of `listed`.
pub(super) fn check<'a>(
    bytes: &'a [u8],
    directory: &Directory,
    listed: &[Listed<'a>],
) -> Result<Vec<&'a [u8]>, BundleFault> {
    let placed: Vec<_> =
        listed.iter().map(|listed| place(bytes, directory, listed)).collect::<Result<_, _>>()?;
    check_places(bytes, directory, &placed)?;
    check_sizes(listed)?;
    placed.iter().try_for_each(compare)?;
    let data = |placed: &Placed<'_, 'a>| {
        range(bytes, placed.data, u64::from(placed.listed.common.packed)).unwrap_or_default()
    };
    Ok(placed.iter().map(data).collect())
}

fn place<'l, 'a>(
    bytes: &'a [u8],
    directory: &Directory,
    listed: &'l Listed<'a>,
) -> Result<Placed<'l, 'a>, BundleFault> {
    let offset = listed.local;
    let fault = || BundleFault::Header { offset, why: "no entry where the directory says" };
    let room = directory.start.checked_sub(offset).ok_or_else(fault)?;
    let mut from = Fields(range(bytes, offset, room).unwrap_or_default());
    let common = Local::read(&mut from).ok_or_else(fault)?.common;
    let name = from.bytes(common.name_len).ok_or_else(fault)?;
    let extra = from.bytes(common.extra_len).ok_or_else(fault)?;
    let data = offset + LOCAL_BYTES + u64::from(common.name_len) + u64::from(common.extra_len);
    Ok(Placed { listed, common, name, extra, data })
}

/// Every byte before the directory belongs to exactly one entry.
fn check_places(
    bytes: &[u8],
    directory: &Directory,
    placed: &[Placed<'_, '_>],
) -> Result<(), BundleFault> {
    let mut ordered: Vec<_> = placed.iter().collect();
    ordered.sort_by_key(|placed| placed.listed.local);
    let mut next = 0;
    for placed in ordered {
        let offset = placed.listed.local;
        if offset < next || placed.end() > directory.start {
            return Err(placed.refuse(EntryFault::Overlap));
        }
        if offset > next && next == 0 {
            return Err(before_the_archive(bytes, offset));
        }
        if offset > next {
            return Err(unaccounted(bytes, next, offset));
        }
        next = placed.end();
    }
    if next < directory.start {
        return Err(unaccounted(bytes, next, directory.start));
    }
    Ok(())
}

/// What the headers say, before anything is unpacked.
fn check_sizes(listed: &[Listed<'_>]) -> Result<(), BundleFault> {
    let mut total = 0_u64;
    for entry in listed {
        let (size, packed) = (u64::from(entry.common.size), u64::from(entry.common.packed));
        if entry.common.method == STORED && size != packed {
            return Err(entry.refuse(EntryFault::LyingSize { size }));
        }
        if is_bomb(packed, size) {
            return Err(entry.refuse(EntryFault::Bomb { packed, size }));
        }
        let max = file_bytes_max(entry.name);
        if size > max {
            return Err(entry.refuse(EntryFault::FileTooLarge { size, max }));
        }
        total = total.saturating_add(size);
    }
    if total > BUNDLE_UNPACKED_BYTES_MAX {
        return Err(BundleFault::TotalTooLarge { size: total, max: BUNDLE_UNPACKED_BYTES_MAX });
    }
    Ok(())
}

/// Whether data shrank more than code and data do.
pub(super) fn is_bomb(packed: u64, size: u64) -> bool {
    size > BUNDLE_RATIO_FREE_BYTES && size > packed.saturating_mul(BUNDLE_RATIO_MAX)
}

/// Both headers say the same.
fn compare(placed: &Placed<'_, '_>) -> Result<(), BundleFault> {
    let (here, listed) = (placed.common, placed.listed.common);
    if !placed.extra.is_empty() {
        return Err(placed.refuse(EntryFault::ExtraField { id: extra_id(placed.extra) }));
    }
    let fields = [
        ("format version", here.needed == listed.needed),
        ("flags", here.flags == listed.flags),
        ("method", here.method == listed.method),
        ("time", here.time == listed.time),
        ("date", here.date == listed.date),
        ("CRC-32", here.crc == listed.crc),
        ("packed size", here.packed == listed.packed),
        ("size", here.size == listed.size),
        ("name", placed.name == placed.listed.name.as_bytes()),
    ];
    match fields.iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(placed.refuse(EntryFault::HeaderMismatch { field })),
        None => Ok(()),
    }
}
