//! Files that are more than one archive, or not quite one.

use super::super::forge::{End, Member, Zip};
use super::Stage::Read;
use super::{Row, good, refused_bytes, refused_in, with};

pub(super) fn whole_files() -> Vec<Row> {
    let zip = Zip::of([good(), Member::stored("a", "abc")]);
    let elf = b"\x7fELF\x02\x01\x01 a whole program".to_vec();
    let junk = zip.clone().with(|zip| zip.before = elf.clone());
    let adjusted = junk.clone().with(|zip| zip.adjusted = true);
    let like_an_entry = adjusted.clone().with(|zip| zip.before = b"PK\x03\x04 but none".to_vec());
    let early = like_an_entry.clone().with(|zip| zip.adjusted = false);
    let after = |after: &[u8]| zip.clone().with(|zip| zip.after = after.to_vec());
    let comment = |comment: &[u8]| zip.clone().with(|zip| zip.end.comment = comment.to_vec());
    let gap = zip.clone().with(|zip| zip.before_directory = b"hidden".to_vec());
    let late_gap = zip.clone().with(|zip| zip.after_directory = b"hidden".to_vec());
    let mut hidden = Member::stored("hidden", "x");
    hidden.data.extend(b"between");
    let inner_gap = Zip::of([good(), hidden, Member::stored("a", "abc")]);
    let bytes = zip.build();
    let mut tar = vec![0; 1024];
    tar[..8].copy_from_slice(b"evil.txt");
    tar[257..262].copy_from_slice(b"ustar");
    let rows = refused_in(
        Read,
        [
            ("B11", "ELF and zip", junk, "bundle.prepended"),
            ("B11", "ELF and zip, offsets adjusted", adjusted, "bundle.prepended"),
            ("B11", "begins like an entry", like_an_entry, "bundle.prepended"),
            ("B11", "begins like an entry, offsets not adjusted", early, "bundle.prepended"),
            ("B12", "one byte after", after(b"\0"), "bundle.trailing"),
            ("B12", "much after", after(&[7; 100_000]), "bundle.trailing"),
            ("B12", "comment", comment(b"hello"), "bundle.comment"),
            (
                "B12",
                "comment and more",
                comment(b"hello").with(|zip| zip.after = b"!".to_vec()),
                "bundle.trailing",
            ),
            ("own", "gap before the directory", gap, "bundle.gap"),
            ("own", "gap after the directory", late_gap, "bundle.gap"),
            ("own", "gap between entries", inner_gap, "bundle.gap"),
        ],
    );
    let cut = |len: usize| bytes[..len].to_vec();
    let mut all = rows;
    all.extend(refused_bytes([
        ("B21", "cut in the directory", cut(bytes.len() - 40), "bundle.truncated"),
        ("B21", "cut in the end record", cut(bytes.len() - 1), "bundle.truncated"),
        ("B21", "cut in the data", cut(50), "bundle.truncated"),
        ("B25", "tar", tar, "bundle.not_a_zip"),
        ("B25", "gzip", b"\x1f\x8b\x08\0 and so on".repeat(9), "bundle.not_a_zip"),
        ("own", "nothing", Vec::new(), "bundle.not_a_zip"),
        ("own", "a library", elf.repeat(9), "bundle.not_a_zip"),
        ("own", "no entries", Zip::default().build(), "bundle.empty"),
        ("own", "an entry, but none listed", with_count(&zip, 0), "bundle.empty"),
    ]));
    all
}

fn with_count(zip: &Zip, count: u16) -> Vec<u8> {
    zip.clone()
        .with(|zip| (zip.end.entries, zip.end.entries_here) = (Some(count), Some(count)))
        .build()
}

pub(super) fn second_archives() -> Vec<Row> {
    let (one, two) = (Zip::of([good()]), Zip::of([Member::stored("evil.so", "evil")]));
    let (first, second) = (one.build(), two.build());
    let end = first[first.len() - 22..].to_vec();
    let adjusted = two.clone().with(|zip| (zip.before, zip.adjusted) = (first.clone(), true));
    let in_comment = one.clone().with(|zip| zip.end.comment = second.clone());
    let adjusted_in_comment = {
        let mut before = one.clone().with(|zip| zip.end.comment = vec![0; second.len()]).build();
        before.truncate(first.len());
        two.clone().with(|zip| (zip.before, zip.adjusted) = (before, true))
    };
    let both_listed = {
        // The second directory lists the first archive's entry too.
        let shared = good().with(|m| (m.listed_only, m.offset) = (true, Some(0)));
        let evil = Member::stored("evil.so", "evil");
        Zip::of([evil, shared]).with(|zip| (zip.before, zip.adjusted) = (first.clone(), true))
    };
    let hidden_in_gap = one.clone().with(|zip| zip.before_directory = second.clone());
    // A second end record inside the comment that does not end the file.
    let decoy = {
        let comment = [&end[..], b"!"].concat();
        one.clone().with(|zip| zip.end.comment = comment)
    };
    let rows = [
        ("B13", "zip in the comment", in_comment.build(), "bundle.two_directories"),
        (
            "B13",
            "zip in the comment, adjusted",
            adjusted_in_comment.build(),
            "bundle.two_directories",
        ),
        ("B13", "end record twice", [&first[..], &end].concat(), "bundle.two_directories"),
        ("B13", "second directory", both_listed.build(), "bundle.two_directories"),
        ("B13", "zip in a gap", hidden_in_gap.build(), "bundle.two_directories"),
        ("B13", "end record in the comment", decoy.build(), "bundle.comment"),
        ("B14", "two archives", [&first[..], &second].concat(), "bundle.two_directories"),
        ("B14", "two archives, adjusted", adjusted.build(), "bundle.two_directories"),
        ("B14", "the same twice", [&first[..], &first].concat(), "bundle.two_directories"),
        ("B14", "two archives and more", [&first[..], &second, b"!"].concat(), "bundle.trailing"),
    ];
    refused_bytes(rows)
}

pub(super) fn end_records() -> Vec<Row> {
    let with_end =
        |change: fn(&mut End)| with(Member::stored("a", "x")).with(|zip| change(&mut zip.end));
    let locator = {
        // Record and locator as zip64 has them between directory and end record.
        let mut zip64 = b"PK\x06\x06".to_vec();
        zip64.extend([0; 52]);
        zip64.extend(b"PK\x06\x07");
        zip64.extend([0; 16]);
        with(Member::stored("a", "x")).with(|zip| zip.after_directory = zip64)
    };
    let zip64 = "bundle.zip64";
    let rows = [
        ("own", "zip64 locator", locator, zip64),
        ("own", "zip64 count", with_end(|end| end.entries = Some(u16::MAX)), zip64),
        ("own", "zip64 directory", with_end(|end| end.offset = Some(u32::MAX)), zip64),
        ("own", "zip64 directory size", with_end(|end| end.size = Some(u32::MAX)), zip64),
        ("own", "second disk", with_end(|end| end.disk = 1), "bundle.split"),
        (
            "own",
            "directory on a second disk",
            with_end(|end| end.directory_disk = 1),
            "bundle.split",
        ),
        ("own", "counts differ", with_end(|end| end.entries_here = Some(1)), "bundle.split"),
        (
            "own",
            "counts too few",
            with_end(|end| (end.entries, end.entries_here) = (Some(1), Some(1))),
            "bundle.header",
        ),
        (
            "own",
            "counts too many",
            with_end(|end| (end.entries, end.entries_here) = (Some(3), Some(3))),
            "bundle.truncated",
        ),
        (
            "B21",
            "directory beyond the end",
            with_end(|end| end.size = Some(5_000)),
            "bundle.truncated",
        ),
        (
            "own",
            "no directory there",
            with_end(|end| (end.offset, end.size) = (Some(3), Some(5))),
            "bundle.header",
        ),
        (
            "own",
            "directory within the directory",
            with_end(|end| end.size = Some(50)),
            "bundle.gap",
        ),
    ];
    let mut rows = refused_in(Read, rows);
    let no_entry = |offset| with(Member::stored("a", "x").with(|m| m.offset = Some(offset)));
    let mut damaged = with(Member::stored("a", "x")).build();
    let at = damaged.len() - 22 - 47;
    damaged[at + 3] ^= 1;
    rows.extend(refused_bytes([("own", "no directory entry", damaged, "bundle.header")]));
    rows.extend(refused_in(
        Read,
        [
            ("own", "no entry there", no_entry(3), "bundle.header"),
            ("own", "entry beyond the directory", no_entry(9_999_999), "bundle.header"),
        ],
    ));
    rows
}
