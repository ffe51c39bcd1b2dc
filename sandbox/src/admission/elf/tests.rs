//! Real libraries with every hazard there is a flag for, the rest patched in, and damage at random.

use std::fs;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::admission::fixtures::{geo, library};

fn path() -> &'static Path {
    Path::new("lib.so")
}

/// The whole pre-flight, as admission runs it.
fn preflight(bytes: &[u8]) -> Result<(Descriptor, Option<String>), AdmitError> {
    // The readers want aligned bytes, as a mapping is; a vector's start is.
    let image = Image::parse(path(), bytes)?;
    image.refuse_hazards()?;
    let build_id = image.build_id()?;
    Ok((image.descriptor()?, build_id))
}

fn refusal(bytes: &[u8]) -> AdmitError {
    preflight(bytes).unwrap_err()
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()).into()
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// Offsets of the program headers of a type.
fn headers(bytes: &[u8], kind: elf::ProgramType) -> Vec<usize> {
    let (start, count) = (u64_at(bytes, 32), u16_at(bytes, 56));
    let all = (0..count).map(|i| start + i * 56);
    all.filter(|at| bytes[*at..at + 4] == kind.0.to_le_bytes()).collect()
}

fn put(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// Replaces the value of a dynamic entry, or the whole first entry of that tag by another.
fn put_dynamic(bytes: &[u8], tag: elf::DynamicTag, new: (elf::DynamicTag, u64)) -> Vec<u8> {
    let table = headers(bytes, elf::PT_DYNAMIC)[0];
    let mut at = u64_at(bytes, table + 8);
    while bytes[at..at + 8] != tag.0.to_le_bytes() {
        at += 16;
    }
    put(&put(bytes, at, &new.0.0.to_le_bytes()), at + 8, &new.1.to_le_bytes())
}

#[test]
fn a_plain_library_passes_with_every_linker_and_hash_table() {
    let mut flags = vec![
        "-Wl,--hash-style=gnu",
        "-Wl,--hash-style=sysv",
        "-Wl,--hash-style=both",
        "-Wl,-z,noseparate-code",
        "-Wl,-z,relro,-z,now",
        "-s",
    ];
    if Command::new("ld.lld").arg("--version").output().is_ok() {
        flags.extend(["-fuse-ld=lld"]);
    }
    for flag in flags {
        let Some(bytes) = library("geo", "1.0.0", "", &[flag, "-Wl,--build-id=0xdeadbeef"]) else {
            return;
        };
        let (descriptor, build_id) = preflight(&bytes).unwrap();
        assert_eq!(descriptor.name.as_str(), "geo", "{flag}");
        assert_eq!(build_id.as_deref(), Some("deadbeef"), "{flag}");
    }
    let bytes = library("geo", "1.0.0", "", &["-Wl,--build-id=none"]).unwrap();
    assert_eq!(preflight(&bytes).unwrap().1, None);
}

#[test]
fn section_headers_do_not_matter() {
    let Some(bytes) = geo() else { return };
    let mut blind = put(&bytes, 40, &u64::MAX.to_le_bytes());
    blind = put(&blind, 58, &[0xff; 6]);
    assert_eq!(preflight(&blind), preflight(&bytes));
}

#[test]
fn hazards_a_compiler_can_make_are_refused() {
    let initial_exec = "extern __thread int x; __thread int x; int *tls(void) { return &x; }
        __attribute__((visibility(\"default\"))) int *(*use)(void) = tls;";
    let unique = "__asm__(\".pushsection .data\\n.globl uq\\n.type uq,@gnu_unique_object\\n\
        .size uq,4\\nuq: .long 1\\n.popsection\");";
    let pointer = "extern int printf(const char *, ...); __attribute__((section(\".text.p\")))
        int (*const p)(const char *, ...) = printf;";
    let cases: [(&str, &[&str], &str); 11] = [
        ("", &["-Wl,-z,execstack"], "elf.executable_stack"),
        ("", &["-Wl,-rpath,/tmp"], "elf.search_path"),
        ("", &["-Wl,--disable-new-dtags,-rpath,$ORIGIN"], "elf.search_path"),
        ("", &["-Wl,-F,libevil.so"], "elf.filter"),
        ("", &["-Wl,-f,libevil.so"], "elf.filter"),
        ("", &["-Wl,--audit,libevil.so"], "elf.filter"),
        ("", &["-Wl,-P,libevil.so"], "elf.filter"),
        (initial_exec, &["-ftls-model=initial-exec"], "elf.static_tls"),
        (unique, &[], "elf.unique_symbol"),
        (pointer, &["-Wl,-z,notext"], "elf.text_relocations"),
        ("", &["-Wl,-z,global"], "elf.format"),
    ];
    for (source, flags, code) in cases {
        let Some(bytes) = library("geo", "1.0.0", source, flags) else { return };
        assert_eq!(refusal(&bytes).code(), code, "{flags:?}: {}", refusal(&bytes));
    }
}

/// A32: a library nobody signed is not pulled in, by name or by path.
#[test]
fn a32_needed_libraries_are_the_systems_own() {
    let evil = "int evil(void) { return 666; }";
    let dir = tempfile::tempdir().unwrap();
    let Some(other) = library("evil", "1.0.0", &format!("EXPORT {evil}"), &[]) else { return };
    let file = dir.path().join("libevil.so");
    fs::write(&file, other).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let bytes = library("geo", "1.0.0", "", &["-Wl,--no-as-needed", &file]).unwrap();
    let needed = AdmitError::ElfNeeded { path: path().to_owned(), library: file };
    assert_eq!(refusal(&bytes), needed);
    let flags = ["-Wl,--no-as-needed", "-lm", "-lpthread", "-ldl", "-lrt", "-lgcc_s"];
    let bytes = library("geo", "1.0.0", "", &flags).unwrap();
    assert!(preflight(&bytes).is_ok(), "the short list is allowed");
}

#[test]
fn hazards_no_compiler_makes_are_refused_too() {
    let Some(bytes) = geo() else { return };
    let code = |bytes: &[u8]| refusal(bytes).code();
    let loads = headers(&bytes, elf::PT_LOAD);
    for load in &loads {
        assert_eq!(code(&put(&bytes, load + 4, &[7])), "elf.writable_code");
    }
    let stack = headers(&bytes, elf::PT_GNU_STACK)[0];
    let without = put(&bytes, stack, &elf::PT_NULL.0.to_le_bytes());
    assert_eq!(code(&without), "elf.executable_stack", "not to say is to ask for one");
    let relabel = |tag, value| put_dynamic(&bytes, elf::DT_RELA, (tag, value));
    assert_eq!(code(&relabel(elf::DT_TEXTREL, 0)), "elf.text_relocations");
    assert_eq!(code(&relabel(elf::DT_FLAGS, 4)), "elf.text_relocations");
    assert_eq!(code(&relabel(elf::DT_FLAGS, 16)), "elf.static_tls");
    assert_eq!(code(&relabel(elf::DT_FLAGS_1, 0x400)), "elf.format");
    assert_eq!(code(&relabel(elf::DT_NEEDED, 0)), "elf.needed", "the empty name");
    assert_eq!(code(&relabel(elf::DT_NEEDED, u64::MAX)), "elf.format");
    assert_eq!(code(&relabel(elf::DT_SYMTAB, 0)), "elf.format", "two symbol tables");
}

/// A33: what is no library for this machine is refused by what it is.
#[test]
fn a33_files_for_other_machines_are_refused() {
    for empty in [&b""[..], b"\x7fELF", b"\0asm\x01\0\0\0", b"#!/bin/sh\n", b"MZ"] {
        assert_eq!(refusal(empty).code(), "elf.format");
    }
    let Some(bytes) = geo() else { return };
    for (at, new, found) in [
        (18, &[8, 0][..], "machine number 8"),
        (18, &[243, 0], "riscv"),
        (4, &[1], "a 32-bit machine"),
        (5, &[2], "a big-endian machine"),
    ] {
        let error = refusal(&put(&bytes, at, new));
        assert!(
            matches!(&error, AdmitError::ElfArchitecture { found: it, .. } if it == found),
            "{error}"
        );
    }
    for kind in [0, 1, 2, 4] {
        assert_eq!(refusal(&put(&bytes, 16, &[kind, 0])).code(), "elf.format");
    }
    let program = put_dynamic(&bytes, elf::DT_RELA, (elf::DT_FLAGS_1, elf::DF_1_PIE.0));
    assert_eq!(refusal(&program).code(), "elf.format");
}

#[test]
fn impossible_places_and_sizes_are_refused() {
    let Some(bytes) = geo() else { return };
    let huge = u64::MAX.to_le_bytes();
    let loads = headers(&bytes, elf::PT_LOAD);
    for load in &loads {
        for field in [8, 16, 32, 40] {
            assert_eq!(refusal(&put(&bytes, load + field, &huge)).code(), "elf.format", "{field}");
        }
        let span = (IMAGE_SPAN_BYTES_MAX + 1).to_le_bytes();
        assert_eq!(refusal(&put(&bytes, load + 40, &span)).code(), "elf.format", "too much space");
    }
    // Two segments on one page: the second covers what was checked of the first.
    let first = &bytes[loads[0]..loads[0] + 56];
    assert_eq!(refusal(&put(&bytes, loads[1], first)).code(), "elf.format");
    for tag in [elf::DT_STRTAB, elf::DT_SYMTAB, elf::DT_GNU_HASH, elf::DT_STRSZ, elf::DT_SYMENT] {
        for value in [u64::MAX, 1 << 40] {
            let broken = put_dynamic(&bytes, tag, (tag, value));
            assert_eq!(refusal(&broken).code(), "elf.format", "{tag} = {value:#x}");
        }
    }
    let dynamic = headers(&bytes, elf::PT_DYNAMIC)[0];
    let without = put(&bytes, dynamic, &elf::PT_NULL.0.to_le_bytes());
    assert_eq!(refusal(&without).code(), "elf.format");
}

#[test]
fn a_library_that_shows_no_descriptor_is_refused() {
    let Some(hidden) = library("geo", "1.0.0", "", &["-DEXPORT="]) else { return };
    assert_eq!(refusal(&hidden).code(), "descriptor.missing");
    let local = library("geo", "1.0.0", "", &["-Dthemis_plugin=other"]).unwrap();
    assert_eq!(refusal(&local).code(), "descriptor.missing");
    let unknown = library("geo", "1.0.0", "", &["-DFEATURES=(1ull<<40)"]).unwrap();
    assert_eq!(refusal(&unknown).code(), "descriptor.unknown_feature");
    let bad = library("Geo", "1.0.0", "", &[]).unwrap();
    assert_eq!(refusal(&bad).code(), "descriptor.invalid");
}

#[test]
fn every_truncation_is_survived() {
    let Some(bytes) = geo() else { return };
    let headers_end = u64_at(&bytes, 32) + 56 * u16_at(&bytes, 56);
    for end in (0..headers_end).chain((headers_end..bytes.len()).step_by(61)) {
        let verdict = preflight(&bytes[..end]);
        assert!(end >= headers_end || verdict.is_err(), "cut at {end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each case damages the library 64 times over: headers, tables and strings are hit often.
    #[test]
    fn damage_never_panics(
        seed in proptest::collection::vec((any::<u32>(), any::<u8>(), any::<bool>()), 64),
    ) {
        static LIBRARY: std::sync::OnceLock<Option<Vec<u8>>> = std::sync::OnceLock::new();
        let Some(bytes) = LIBRARY.get_or_init(geo) else { return Ok(()) };
        let dynamic = headers(bytes, elf::PT_DYNAMIC)[0];
        let table = u64_at(bytes, dynamic + 8);
        let mut all = bytes.clone();
        for (at, byte, tables) in seed {
            let at = at as usize;
            // Half of the damage goes where it is read: the header page and the dynamic table.
            let at = match (tables, at % 2) {
                (true, 0) => at % 0x600,
                (true, _) => table + at % 0x200,
                (false, _) => at % bytes.len(),
            };
            let one = put(bytes, at.min(bytes.len() - 1), &[byte]);
            let _verdict = preflight(&one);
            all[at.min(bytes.len() - 1)] = byte;
            let _verdict = preflight(&all);
        }
    }

    #[test]
    fn noise_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 64..512)) {
        bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        bytes[16..20].copy_from_slice(&[3, 0, 62, 0]);
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..58].copy_from_slice(&[56, 0, 3, 0]);
        prop_assert!(preflight(&bytes).is_err());
    }
}
