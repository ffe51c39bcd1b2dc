//! The forged files: one row for each way to make a reader see something else, or too much.

mod archives;
mod entries;
mod sizes;

use super::forge::{Member, Zip};

/// Where an attack has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// In `read`: nothing has been decompressed.
    Read,
    /// In `extract`: only the data show it.
    Extract,
}

pub(super) struct Row {
    /// Of the list, or "own" for what it does not have.
    pub(super) attack: &'static str,
    pub(super) what: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) stage: Stage,
    pub(super) code: &'static str,
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = entries::names();
    rows.extend(entries::kinds());
    rows.extend(entries::mismatches());
    rows.extend(entries::headers());
    rows.extend(archives::whole_files());
    rows.extend(archives::second_archives());
    rows.extend(archives::end_records());
    rows.extend(sizes::sizes());
    rows.extend(sizes::data());
    rows
}

/// Attack, what it does, the file, its code.
type Plain<T> = (&'static str, &'static str, T, &'static str);

fn refused_in(stage: Stage, rows: impl IntoIterator<Item = Plain<Zip>>) -> Vec<Row> {
    let row = |(attack, what, zip, code): Plain<Zip>| Row {
        attack,
        what,
        bytes: zip.build(),
        stage,
        code,
    };
    rows.into_iter().map(row).collect()
}

fn refused_bytes(rows: impl IntoIterator<Item = Plain<Vec<u8>>>) -> Vec<Row> {
    let row = |(attack, what, bytes, code)| Row { attack, what, bytes, stage: Stage::Read, code };
    rows.into_iter().map(row).collect()
}

fn good() -> Member {
    Member::deflated("manifest.json", "{\"schema\": 1, \"schema\": 1, \"schema\": 1}")
}

/// A good entry and one more.
fn with(member: Member) -> Zip {
    Zip::of([good(), member])
}

fn named(name: impl AsRef<[u8]>) -> Zip {
    with(Member::stored(name, "evil"))
}
