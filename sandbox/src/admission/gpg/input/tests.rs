//! Tests: which files gpg gets to read.

use std::fs;
use std::io::{Read as _, Seek as _};
use std::os::fd::AsFd as _;

use super::*;

#[test]
fn only_regular_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .unwrap();
    for (name, code) in [
        (dir.path(), "gpg.signature_not_a_file"),
        (&pipe, "gpg.signature_not_a_file"),
        (Path::new("/dev/zero"), "gpg.signature_not_a_file"),
        (&dir.path().join("gone"), "gpg.signature_io"),
        (Path::new(""), "gpg.signature_io"),
        (Path::new("a\0b"), "gpg.signature_io"),
    ] {
        assert_eq!(path(GpgInput::Signature, name, None).unwrap_err().code(), code, "{name:?}");
        assert_eq!(read_signature(name, 100).unwrap_err().code(), code, "{name:?}");
    }
    let open_dir = fs::File::open(dir.path()).unwrap();
    assert_eq!(
        open(GpgInput::Data, open_dir.as_fd(), None).unwrap_err().code(),
        "gpg.data_not_a_file"
    );
}

#[test]
fn a_signature_has_a_largest_size() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("sig");
    fs::write(&name, [7; 100]).unwrap();
    let file = fs::File::open(&name).unwrap();
    assert_eq!(read_signature(&name, 100).unwrap(), [7; 100]);
    assert_eq!(path(GpgInput::Signature, &name, Some(100)).unwrap(), name);
    for error in [
        read_signature(&name, 99).unwrap_err(),
        read_open(file.as_fd(), &name, 99).unwrap_err(),
        path(GpgInput::Signature, &name, Some(99)).unwrap_err(),
        open(GpgInput::Signature, file.as_fd(), Some(99)).unwrap_err(),
    ] {
        assert_eq!(error.code(), "gpg.signature_too_large");
        assert!(error.to_string().ends_with("over the limit of 99 bytes"), "{error}");
    }
}

#[test]
fn a_file_that_is_longer_than_it_said_is_too_large_as_well() {
    // The system makes this one up as it is read, so it is said to be empty.
    let made_up = Path::new("/proc/self/maps");
    assert_eq!(read_signature(made_up, 10).unwrap_err().code(), "gpg.signature_too_large");
}

#[test]
fn an_open_file_is_read_from_its_beginning_and_left_where_it_was() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[1; 10_000]).unwrap();
    let read = read_open(file.as_fd(), Path::new("test"), 1 << 20).unwrap();
    assert_eq!(read, [1; 10_000]);
    assert_eq!(file.stream_position().unwrap(), 10_000);
}

#[test]
fn a_sealed_copy_is_whole_and_final() {
    let copy = sealed(b"packet").unwrap();
    let mut text = String::new();
    let path = open(GpgInput::Signature, copy.as_fd(), None).unwrap();
    fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "packet");
    assert_eq!(rustix::io::write(&copy, b"x"), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(&copy, 0), Err(Errno::PERM));
}
