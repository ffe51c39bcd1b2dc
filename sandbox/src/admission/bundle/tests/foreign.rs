//! Archives of other packers as they come: accepted where they are plain, refused with advice where not.
//!
//! Made by Python 3.11's `zipfile` and by Info-ZIP 3.0 from a manifest, a signature and `data/t.csv`.

use super::contents;
use crate::admission::bundle::Bundle;

fn is_the_plugin(archive: &[u8]) {
    let all = contents(archive).unwrap();
    assert_eq!(all["manifest.json"], br#"{"schema":1,"name":"geo"}"#);
    assert_eq!(all["plugin.sig"], [b's'; 64]);
    let csv: String = (1..=9).map(|i| format!("a;b;c;{i}\n")).collect();
    assert_eq!(all["data/t.csv"], csv.as_bytes());
}

fn refusal(archive: &[u8]) -> (&'static str, String) {
    let fault = Bundle::read(archive).unwrap_err();
    (fault.code(), fault.to_string())
}

#[test]
fn what_python_writes_to_a_file_is_accepted() {
    // Stored; `writestr` gives a mode without type.
    is_the_plugin(include_bytes!("fixtures/python.zip"));
    let deflated = include_bytes!("fixtures/python-deflated.zip");
    is_the_plugin(deflated);
    assert_eq!(contents(deflated).unwrap()["data/größe"], b"x");
}

#[test]
fn what_python_writes_to_a_pipe_or_of_directories_is_refused_with_advice() {
    let (code, message) = refusal(include_bytes!("fixtures/python-stream.zip"));
    assert_eq!(code, "bundle.data_descriptor");
    assert!(message.contains("themis pack"), "{message}");
    let (code, message) = refusal(include_bytes!("fixtures/python-tree.zip"));
    assert_eq!(code, "bundle.directory_entry");
    assert!(message.contains("themis pack"), "{message}");
}

#[test]
fn what_info_zip_writes_is_accepted_without_extra_fields_and_directories() {
    is_the_plugin(include_bytes!("fixtures/infozip-XD.zip"));
    let (code, message) = refusal(include_bytes!("fixtures/infozip.zip"));
    assert_eq!(code, "bundle.extra_field");
    assert!(message.contains("themis pack") && message.contains("zip -X -D"), "{message}");
    let (code, message) = refusal(include_bytes!("fixtures/infozip-stream.zip"));
    assert_eq!(code, "bundle.data_descriptor");
    assert!(message.contains("themis pack"), "{message}");
}
