//! Entries that unpack to too much, to something else, or share their bytes.

use miniz_oxide::deflate::compress_to_vec;

use super::super::forge::{Member, Zip};
use super::Stage::{Extract, Read};
use super::{Row, refused_in, with};
use themis_messages::limits::{FILE_BYTES_MAX, MANIFEST_BYTES_MAX};

pub(super) fn sizes() -> Vec<Row> {
    let zeros = |name: &str, size: usize| Member::deflated(name, vec![0; size]);
    let claims = |name: &str, size: u64| {
        let data = vec![7; (size / 100) as usize + 1];
        let member = Member::stored(name, data).both(|header| {
            header.method = 8;
            header.size = size as u32;
        });
        Zip::of([member])
    };
    let huge = (0..3).map(|i| zeros(&format!("{i}"), 4 << 20).both(|h| h.size = u32::MAX - 1));
    let large = (0..5).flat_map(|i| claims(&format!("{i}"), FILE_BYTES_MAX).members);
    let many = (0..65_000).map(|i| Member::stored(format!("{i}"), ""));
    let blob = Member::deflated("0", (0..2_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<_>>());
    let shared = (0..200).map(|i| {
        let name = format!("{i}").into_bytes();
        let again = blob.clone().with(|m| (m.central.name, m.offset) = (name, Some(0)));
        again.with(|m| m.listed_only = i != 0)
    });
    let mut rows = refused_in(
        Read,
        [
            ("B15", "zeros", with(zeros("a", 1 << 20)), "bundle.bomb"),
            ("B15", "13 GB claimed in three entries", Zip::of(huge), "bundle.bomb"),
            (
                "B15",
                "a large manifest",
                claims("manifest.json", MANIFEST_BYTES_MAX + 1),
                "bundle.file_too_large",
            ),
            ("B15", "a large file", claims("a", FILE_BYTES_MAX + 1), "bundle.file_too_large"),
            ("B15", "five large files", Zip::of(large), "bundle.total_too_large"),
            ("B17", "200 names for one blob", Zip::of(shared), "bundle.overlap"),
            ("B18", "65,000 entries", Zip::of(many), "bundle.too_many"),
        ],
    );
    rows.extend(overlaps());
    rows
}

fn overlaps() -> Vec<Row> {
    // The first entry's data hold the second entry, header and all: a stored block quotes it.
    let inner = Zip::of([Member::stored("inner", "abc")]).build();
    let inner = &inner[..30 + 5 + 3];
    let outer = Member::stored("outer", inner);
    let quoted =
        Member::stored("inner", "abc").with(|m| (m.listed_only, m.offset) = (true, Some(35)));
    let into_directory = Member::stored("a", "abc").both(|h| (h.packed, h.size) = (20, 20));
    let beyond = Member::stored("a", "abc").both(|h| (h.packed, h.size) = (1 << 30, 1 << 30));
    let rows = [
        ("B17", "an entry quoted in another", Zip::of([outer, quoted]), "bundle.overlap"),
        ("B17", "data into the directory", Zip::of([into_directory]), "bundle.overlap"),
        ("B17", "data beyond the file", Zip::of([beyond]), "bundle.overlap"),
    ];
    refused_in(Read, rows)
}

pub(super) fn data() -> Vec<Row> {
    let lying =
        |size: u32, real: usize| with(Member::deflated("a", vec![0; real]).both(|h| h.size = size));
    let wrong_crc = |member: Member| with(member.both(|header| header.crc ^= 0x8000_0000));
    let stream = |data: Vec<u8>| {
        let packed = data.len() as u32;
        with(Member::deflated("a", "abc").both(|h| h.packed = packed).with(|m| m.data = data))
    };
    let whole = compress_to_vec(b"abc", 9);
    let longer = [&whole[..], b"more"].concat();
    let twice = [&whole[..], &whole].concat();
    let rows = [
        ("B16", "says 10, is 8 MiB", lying(10, 8 << 20), "bundle.lying_size"),
        ("B16", "says 0, is 1", lying(0, 1), "bundle.lying_size"),
        ("B16", "says more than it is", lying(11, 10), "bundle.lying_size"),
        (
            "own",
            "checksum of stored data",
            wrong_crc(Member::stored("a", "abc")),
            "bundle.checksum",
        ),
        (
            "own",
            "checksum of deflated data",
            wrong_crc(Member::deflated("a", "abc")),
            "bundle.checksum",
        ),
        ("own", "no deflate stream", stream(b"\x07\xff\xff".to_vec()), "bundle.deflate"),
        ("own", "no data", stream(Vec::new()), "bundle.deflate"),
        ("own", "stream cut short", stream(whole[..whole.len() - 1].to_vec()), "bundle.deflate"),
        ("own", "stream and more", stream(longer), "bundle.deflate"),
        ("own", "two streams", stream(twice), "bundle.deflate"),
    ];
    let mut all = refused_in(Extract, rows);
    let stored = with(Member::stored("a", "abc").both(|header| header.size = 4));
    all.extend(refused_in(Read, [("B16", "stored, two sizes", stored, "bundle.lying_size")]));
    all
}
