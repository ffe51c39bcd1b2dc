//! Entries whose names, modes or headers are wrong.

use super::super::forge::{Header, Member, Zip};
use super::Stage::Read;
use super::{Row, good, named, refused_in, with};

pub(super) fn names() -> Vec<Row> {
    let latin1 = Member::stored(b"gr\xf6\xdfe", "x").both(|header| header.flags = 0);
    let not_utf8 = Member::stored(b"gr\xf6\xdfe", "x");
    let unsaid = Member::stored("größe", "x").both(|header| header.flags = 0);
    let rows = [
        ("B1", "upwards", named("../../evil.so"), "bundle.path"),
        ("B1", "upwards in the middle", named("a/../../evil.so"), "bundle.path"),
        ("B2", "upwards, backslashes", named("..\\..\\evil.dll"), "bundle.path"),
        ("B2", "backslash", named("a\\evil.dll"), "bundle.path"),
        ("B3", "absolute", named("/tmp/evil"), "bundle.absolute_path"),
        ("B3", "absolute, twice", named("//tmp/evil"), "bundle.absolute_path"),
        ("B3", "the root", named("/"), "bundle.absolute_path"),
        ("B3", "a share", named("\\\\server\\evil"), "bundle.path"),
        ("B4", "drive", named("C:\\evil.dll"), "bundle.drive_path"),
        ("B4", "drive, relative", named("c:evil.dll"), "bundle.drive_path"),
        ("B4", "stream", named("evil.txt:stream"), "bundle.path"),
        ("B19", "NUL", named("a\0b"), "bundle.path"),
        ("B19", "escape sequence", named("\u{1b}[2Jevil"), "bundle.path"),
        ("own", "empty name", named(""), "bundle.path"),
        ("own", "empty component", named("a//b"), "bundle.path"),
        ("own", "dot component", named("./a"), "bundle.path"),
        ("own", "reserved on Windows", named("data/NUL.txt"), "bundle.path"),
        ("own", "too long", named("a/".repeat(257)), "bundle.path"),
        ("own", "very long", named("a".repeat(65_535)), "bundle.path"),
        ("own", "code page", with(latin1), "bundle.path"),
        ("own", "not UTF-8", with(not_utf8), "bundle.path"),
        ("own", "UTF-8, but not said", with(unsaid), "bundle.path"),
        ("B7", "manifest twice", with(good()), "bundle.duplicate"),
        ("B8", "case", named("MANIFEST.JSON"), "bundle.case_collision"),
        (
            "B8",
            "case beyond ASCII",
            Zip::of([Member::stored("Ä", ""), Member::stored("ä", "")]),
            "bundle.case_collision",
        ),
        ("own", "file in a file", named("manifest.json/a"), "bundle.file_and_directory"),
        ("own", "file in a file, case", named("Manifest.JSON/b/a"), "bundle.file_and_directory"),
    ];
    refused_in(Read, rows)
}

pub(super) fn kinds() -> Vec<Row> {
    let link = || Member::stored("link", "/etc/passwd").mode(0o120_777);
    let of_mode = |mode| with(Member::stored("a", "x").mode(mode));
    let dos = |attributes: u32| with(Member::stored("a", "x").with(|m| m.external = attributes));
    let linked = Member::stored("dir", "/etc").mode(0o120_777);
    let unix_mode_on_dos = link().with(|m| m.made_by = 20);
    let rows = [
        ("B5", "symlink", with(link()), "bundle.symlink"),
        ("B5", "symlink, said to be from DOS", with(unix_mode_on_dos), "bundle.symlink"),
        (
            "B6",
            "file through a symlink",
            Zip::of([linked, Member::stored("dir/passwd", "x")]),
            "bundle.symlink",
        ),
        ("B20", "setuid", of_mode(0o104_755), "bundle.setuid"),
        ("B20", "setgid", of_mode(0o102_755), "bundle.setuid"),
        ("B20", "sticky", of_mode(0o101_755), "bundle.setuid"),
        ("B20", "setuid without type", of_mode(0o004_755), "bundle.setuid"),
        ("own", "character device", of_mode(0o020_666), "bundle.special_file"),
        ("own", "block device", of_mode(0o060_666), "bundle.special_file"),
        ("own", "pipe", of_mode(0o010_666), "bundle.special_file"),
        ("own", "socket", of_mode(0o140_666), "bundle.special_file"),
        ("own", "unknown type", of_mode(0o150_666), "bundle.special_file"),
        ("own", "volume label", dos(0x08), "bundle.special_file"),
        ("own", "directory by name", named("a/"), "bundle.directory_entry"),
        ("own", "directory by mode", of_mode(0o040_755), "bundle.directory_entry"),
        ("own", "directory by DOS attribute", dos(0x10), "bundle.directory_entry"),
        (
            "own",
            "made on OS/2",
            with(Member::stored("a", "x").with(|m| m.made_by = 6 << 8 | 20)),
            "bundle.host_system",
        ),
    ];
    refused_in(Read, rows)
}

/// Both headers of an entry, disagreeing.
pub(super) fn mismatches() -> Vec<Row> {
    let other = |change: fn(&mut Header)| with(Member::deflated("a.so", "abcabcabc").local(change));
    let mismatch = "bundle.header_mismatch";
    let extra = "bundle.extra_field";
    let rows = [
        ("B9", "name", other(|h| h.name = b"b.so".to_vec()), mismatch),
        ("B9", "longer name", other(|h| h.name = b"../../a.so".to_vec()), mismatch),
        ("B9", "name in another case", other(|h| h.name = b"A.so".to_vec()), mismatch),
        ("B10", "CRC-32", other(|h| h.crc ^= 1), mismatch),
        ("B10", "size", other(|h| h.size += 1), mismatch),
        ("B10", "packed size", other(|h| h.packed -= 1), mismatch),
        ("B10", "no sizes at all", other(|h| (h.crc, h.packed, h.size) = (0, 0, 0)), mismatch),
        ("own", "method", other(|h| h.method = 0), mismatch),
        ("own", "flags", other(|h| h.flags = 2), mismatch),
        ("own", "encrypted before its data", other(|h| h.flags = 1), mismatch),
        ("own", "format", other(|h| h.needed = 10), mismatch),
        ("own", "date", other(|h| h.date += 1), mismatch),
        ("own", "time", other(|h| h.time += 1), mismatch),
        ("own", "extra field before its data", other(|h| h.extra = b"UT\0\0".to_vec()), extra),
    ];
    refused_in(Read, rows)
}

/// Both headers of an entry, agreeing on what no bundle has.
pub(super) fn headers() -> Vec<Row> {
    let flags = |flags: u16| with(Member::stored("a", "x").both(|h| h.flags = flags));
    let method = |method| with(Member::stored("a", "x").both(|h| h.method = method));
    let extra = |extra: &[u8]| with(Member::stored("a", "x").both(|h| h.extra = extra.to_vec()));
    let rows = [
        ("B22", "encrypted", flags(1), "bundle.encrypted"),
        ("B22", "strongly encrypted", flags(1 << 6), "bundle.encrypted"),
        ("B22", "masked headers", flags(1 << 13), "bundle.encrypted"),
        ("B22", "bzip2", method(12), "bundle.method"),
        ("B22", "deflate64", method(9), "bundle.method"),
        ("B22", "zstd", method(93), "bundle.method"),
        ("B22", "AES", method(99), "bundle.method"),
        ("B22", "unknown", method(u16::MAX), "bundle.method"),
        ("own", "data descriptor", flags(1 << 3), "bundle.data_descriptor"),
        ("own", "patched data", flags(1 << 5), "bundle.flags"),
        (
            "own",
            "needs 6.3",
            with(Member::stored("a", "x").both(|h| h.needed = 63)),
            "bundle.version",
        ),
        ("own", "times", extra(b"UT\x05\0\x03\0\0\0\0"), "bundle.extra_field"),
        ("own", "another name", extra(b"up\x09\0\x01\0\0\0\0evil"), "bundle.extra_field"),
        ("own", "half an extra field", extra(b"U"), "bundle.extra_field"),
        ("own", "zip64 extra field", extra(b"\x01\0\x08\0\0\0\0\0\0\0\0\0"), "bundle.zip64"),
        (
            "own",
            "zip64 size",
            with(Member::stored("a", "x").both(|h| h.size = u32::MAX)),
            "bundle.zip64",
        ),
        (
            "own",
            "zip64 offset",
            with(Member::stored("a", "x").with(|m| m.offset = Some(u32::MAX))),
            "bundle.zip64",
        ),
        (
            "own",
            "comment",
            with(Member::stored("a", "x").with(|m| m.comment = b"hi".to_vec())),
            "bundle.comment",
        ),
        (
            "own",
            "entry on another disk",
            with(Member::stored("a", "x").with(|m| m.disk = 1)),
            "bundle.split",
        ),
    ];
    refused_in(Read, rows)
}
