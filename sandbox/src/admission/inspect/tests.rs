//! Every finding of a library with many faults, and that admission would refuse it for the first of them.

use std::fs;
use std::path::Path;

use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use serde_json::json;

use super::*;
use crate::admission::elf::Image;
use crate::admission::fixtures::{geo, library};

const INITIAL_EXEC: &str = "extern __thread int x; __thread int x; int *tls(void) { return &x; }
    __attribute__((visibility(\"default\"))) int *(*use)(void) = tls;";
const UNIQUE: &str = "__asm__(\".pushsection .data\\n.globl uq\\n.type uq,@gnu_unique_object\\n\
    .size uq,4\\nuq: .long 1\\n.popsection\");";
const POINTER: &str = "extern int printf(const char *, ...); __attribute__((section(\".text.p\")))
    int (*const p)(const char *, ...) = printf;";

fn looked_at(bytes: &[u8]) -> Inspection {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lib.so");
    fs::write(&file, bytes).unwrap();
    library_at(&file)
}

fn library_at(path: &Path) -> Inspection {
    let Inspected::Library(library) = inspect(path).unwrap() else { panic!("it is a library") };
    library
}

fn codes(inspection: &Inspection) -> Vec<&str> {
    inspection.findings.iter().map(|finding| finding.code).collect()
}

/// What admission says of the same bytes.
fn refusal(bytes: &[u8]) -> Option<AdmitError> {
    let image = match Image::parse(Path::new("lib.so"), bytes) {
        Ok(image) => image,
        Err(error) => return Some(error),
    };
    let looked = image.refuse_hazards().and_then(|()| image.build_id());
    looked.and_then(|_build_id| image.descriptor()).err()
}

#[track_caller]
fn finds(bytes: &[u8], wanted: &[&str]) {
    let inspection = looked_at(bytes);
    assert_eq!(codes(&inspection), wanted, "{:#?}", inspection.findings);
    assert!(inspection.findings.iter().all(|it| !it.what.is_empty() && !it.remedy.is_empty()));
    let first = refusal(bytes).map(|error| error.code());
    assert_eq!(first, wanted.first().copied(), "admission stops at the first finding");
}

#[test]
fn a_good_library_is_described() {
    let extra = "extern int system(const char *); int run(void);
        __attribute__((visibility(\"default\"))) int run(void) { return system(\"true\"); }";
    let flags = ["-Wl,--build-id=0xdeadbeef", "-Wl,--no-as-needed", "-lm"];
    let Some(bytes) = library("geo", "1.2.3", extra, &flags) else { return };
    finds(&bytes, &[]);
    let inspection = looked_at(&bytes);
    let descriptor = inspection.descriptor.unwrap();
    assert_eq!(
        (&*descriptor.name, &*descriptor.version, &*descriptor.abi),
        ("geo", "1.2.3", "1.0")
    );
    assert_eq!((descriptor.thread_safe, descriptor.features), (false, 0));
    let entries: Vec<_> = descriptor.entries.iter().map(|it| (it.name, it.present)).collect();
    let want = [
        ("init", true),
        ("call", true),
        ("health", false),
        ("save_state", false),
        ("reload", false),
        ("shutdown", true),
    ];
    assert_eq!(entries, want);
    assert_eq!(inspection.build_id.as_deref(), Some("deadbeef"));
    assert!(inspection.needed.contains(&"libm.so.6".to_owned()), "{:?}", inspection.needed);
    let system = Import { symbol: "system".to_owned(), does: "runs other programs" };
    assert_eq!(inspection.notable_imports, [system]);
    assert!(inspection.imports > 0);
    assert_eq!(inspection.exports.count, 2);
    assert!(inspection.exports.first.contains(&"themis_plugin".to_owned()));
    assert!(inspection.segments.iter().any(|segment| segment.rights == "r-x"));
    assert!(inspection.mapped_bytes >= 4096 && inspection.mapped_bytes.is_multiple_of(4096));
    assert_eq!(inspection.size, bytes.len() as u64);
}

#[test]
fn each_hazard_is_found_alone() {
    let cases: [(&str, &[&str], &str); 8] = [
        ("", &["-Wl,-z,execstack"], "elf.executable_stack"),
        ("", &["-Wl,-rpath,/tmp"], "elf.search_path"),
        ("", &["-Wl,-F,libevil.so"], "elf.filter"),
        (INITIAL_EXEC, &["-ftls-model=initial-exec"], "elf.static_tls"),
        (UNIQUE, &[], "elf.unique_symbol"),
        (POINTER, &["-Wl,-z,notext"], "elf.text_relocations"),
        ("", &["-Wl,-z,global"], "elf.format"),
        ("", &["-DEXPORT="], "descriptor.missing"),
    ];
    for (source, flags, code) in cases {
        let Some(bytes) = library("geo", "1.0.0", source, flags) else { return };
        finds(&bytes, &[code]);
    }
    let Some(unknown) = library("geo", "1.0.0", "", &["-DFEATURES=(1ull<<40)"]) else { return };
    finds(&unknown, &["descriptor.unknown_feature"]);
    finds(&library("Geo", "1.0.0", "", &[]).unwrap(), &["descriptor.invalid"]);
}

#[test]
fn all_hazards_of_one_library_are_found_in_the_order_of_admission() {
    let source = format!("{INITIAL_EXEC}\n{UNIQUE}\n{POINTER}");
    let flags = [
        "-Wl,-z,execstack",
        "-Wl,-rpath,/tmp",
        "-Wl,-F,libevil.so",
        "-Wl,-f,libworse.so",
        "-ftls-model=initial-exec",
        "-Wl,-z,notext",
        "-Wl,-z,global",
        "-DEXPORT=",
    ];
    let Some(bytes) = library("geo", "1.0.0", &source, &flags) else { return };
    let inspection = looked_at(&bytes);
    let mut found = codes(&inspection);
    let first = refusal(&bytes).unwrap().code();
    assert_eq!(found.first(), Some(&first));
    found.sort_unstable();
    let want = [
        "descriptor.missing",
        "elf.executable_stack",
        "elf.filter",
        "elf.filter",
        "elf.format",
        "elf.search_path",
        "elf.static_tls",
        "elf.text_relocations",
        "elf.unique_symbol",
    ];
    assert_eq!(found, want, "each once, though two entries say it has text relocations");
    // What can be told is told all the same.
    assert!(inspection.segments.len() > 1 && inspection.exports.count > 0);
}

#[test]
fn a_foreign_library_and_writable_code_are_found() {
    let Some(evil) = library("evil", "1.0.0", "", &[]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("libevil.so");
    fs::write(&file, evil).unwrap();
    let file = file.to_str().unwrap();
    let bytes = library("geo", "1.0.0", "", &["-Wl,--no-as-needed", file]).unwrap();
    finds(&bytes, &["elf.needed"]);
    assert!(looked_at(&bytes).needed.contains(&file.to_owned()));

    let mut bytes = geo().unwrap();
    let loads: Vec<usize> = {
        let header = elf::FileHeader64::<LittleEndian>::parse(&*bytes).unwrap();
        let all = header.program_headers(LittleEndian, &*bytes).unwrap().iter().enumerate();
        let loads = all.filter(|(_, it)| it.p_type(LittleEndian) == elf::PT_LOAD);
        loads.map(|(index, _)| 64 + 56 * index).collect()
    };
    for load in &loads {
        bytes[load + 4] = 7;
    }
    finds(&bytes, &vec!["elf.writable_code"; loads.len()]);
}

#[test]
fn what_is_no_library_has_one_finding() {
    finds(b"#!/bin/sh\n", &["elf.format"]);
    let Some(mut bytes) = geo() else { return };
    bytes[18] = 243;
    finds(&bytes, &["elf.architecture"]);
}

#[test]
fn a_directory_is_compared_with_its_manifest_signed_or_not() {
    let Some(bytes) = geo() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let manifest = |value: serde_json::Value| {
        fs::write(dir.join("manifest.json"), value.to_string()).unwrap();
    };
    let target = Target::HOST.as_str();
    let files =
        json!([{"path": "x.txt", "target": "data"}, {"path": "libgeo.so", "target": target}]);
    fs::write(dir.join("libgeo.so"), &bytes).unwrap();

    manifest(json!({"name": "geo", "version": "1.0.0", "abi": "1.0", "files": files}));
    assert_eq!(codes(&library_at(dir)), Vec::<&str>::new());
    manifest(json!({"name": "oeg", "version": "2.0.0", "abi": "1.0", "files": files}));
    let inspection = library_at(dir);
    assert_eq!(codes(&inspection), ["descriptor.mismatch", "descriptor.mismatch"]);
    assert!(inspection.findings[1].what.contains("2.0.0"), "{:?}", inspection.findings);

    manifest(json!({"files": [{"path": "../../etc/passwd", "target": target}]}));
    assert_eq!(inspect(dir).unwrap_err().code(), "path.invalid");
    manifest(json!({"files": []}));
    assert_eq!(inspect(dir).unwrap_err().code(), "manifest.no_target");
    fs::write(dir.join("manifest.json"), "{").unwrap();
    assert_eq!(inspect(dir).unwrap_err().code(), "manifest.syntax");
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    assert_eq!(inspect(&place("absent")).unwrap_err().code(), "path.not_found");
    let pipe = std::process::Command::new("mkfifo").arg(place("pipe")).status().unwrap();
    assert!(pipe.success());
    assert_eq!(inspect(&place("pipe")).unwrap_err().code(), "path.wrong_file_type");
    let large = fs::File::create(place("large")).unwrap();
    large.set_len(FILE_BYTES_MAX + 1).unwrap();
    assert_eq!(inspect(&place("large")).unwrap_err().code(), "file.too_large");
}
