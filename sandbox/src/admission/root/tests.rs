//! Nothing leads out of the root, whichever way names are resolved.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, mknodat};

use super::*;
use crate::admission::fixtures::{make_dir, write};

const BOTH: [Resolver; 2] = [Resolver::Openat2, Resolver::Walk];

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { dir: tempfile::tempdir().unwrap() };
        write(&tree.at("root/a/b/file"), b"inside");
        write(&tree.at("outside/file"), b"outside");
        tree
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn root(&self, resolver: Resolver) -> PluginRoot {
        PluginRoot::open(&self.at("root")).unwrap().with_resolver(resolver)
    }

    /// The verdict on reading a path below the root; both resolvers must agree on it.
    fn read(&self, path: &str) -> Result<Vec<u8>, AdmitError> {
        let [first, second] = BOTH.map(|resolver| {
            let root = self.root(resolver);
            let components = root.components(Path::new(path))?;
            root.dir()?.open_path(&components.join("/"))?.read(100)
        });
        assert_eq!(first, second, "{path}: the resolvers disagree");
        first
    }

    fn code(&self, path: &str) -> &'static str {
        self.read(path).unwrap_err().code()
    }
}

#[test]
fn what_lies_below_is_read_by_every_spelling_of_its_path() {
    let tree = Tree::new();
    let absolute = tree.at("root/a/b/file");
    for path in ["a/b/file", "./a/b/file", "a//b/./file", absolute.to_str().unwrap()] {
        assert_eq!(tree.read(path).unwrap(), b"inside", "{path}");
    }
    symlink(tree.at("root"), tree.at("link")).unwrap();
    let through = PluginRoot::open(&tree.at("link")).unwrap();
    for spelling in ["link/a", "root/a"] {
        assert_eq!(through.components(&tree.at(spelling)).unwrap(), ["a"], "{spelling}");
    }
}

/// A29: paths that lead out, as text.
#[test]
fn a29_paths_that_lead_out_are_refused_before_the_file_system_is_asked() {
    let tree = Tree::new();
    let outside = tree.at("outside/file");
    let back = tree.at("root/../outside/file");
    let sibling = tree.at("root2/file");
    for path in [
        "../outside/file",
        "a/../../outside/file",
        "a/..",
        "/etc/passwd",
        outside.to_str().unwrap(),
        back.to_str().unwrap(),
        sibling.to_str().unwrap(),
    ] {
        assert_eq!(tree.code(path), "path.escapes", "{path}");
    }
    let long = "x".repeat(5_000);
    for path in ["", ".", "a\0b", "a\nb", "a/b\\file", "NUL", "a/b/file.", long.as_str()] {
        assert_eq!(tree.code(path), "path.invalid", "{path:.20}");
    }
    let bytes = OsStr::from_bytes(b"a/\xff");
    let root = tree.root(Resolver::Walk);
    let refused = root.components(Path::new(bytes)).unwrap_err();
    assert!(matches!(refused, AdmitError::PathInvalid { fault: PathFault::NotUtf8, .. }));
}

/// A31: links of every kind, at the end or on the way, to a file or a directory, inside or outside.
#[test]
fn a31_links_are_refused_wherever_they_lead() {
    let tree = Tree::new();
    symlink(tree.at("outside/file"), tree.at("root/out")).unwrap();
    symlink(tree.at("outside"), tree.at("root/outdir")).unwrap();
    symlink("a/b/file", tree.at("root/in")).unwrap();
    symlink("a", tree.at("root/indir")).unwrap();
    symlink("nowhere", tree.at("root/dangling")).unwrap();
    symlink("loop", tree.at("root/loop")).unwrap();
    symlink("/proc/self/root", tree.at("root/magic")).unwrap();
    for path in ["out", "outdir/file", "in", "indir/b/file", "dangling", "loop", "magic/etc/passwd"]
    {
        let error = tree.read(path).unwrap_err();
        assert!(matches!(error, AdmitError::PathSymlink { .. }), "{path}: {error}");
        assert!(error.is_permission(), "{path}");
    }
}

#[test]
fn only_regular_files_are_read_and_nothing_hangs() {
    let tree = Tree::new();
    mknodat(CWD, tree.at("root/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = UnixListener::bind(tree.at("root/socket")).unwrap();
    for path in ["pipe", "socket", "a", "a/b/file/x"] {
        assert_eq!(tree.code(path), "path.wrong_file_type", "{path}");
    }
    assert_eq!(tree.code("absent"), "path.not_found");
    assert_eq!(tree.code("absent/file"), "path.not_found");
}

#[test]
fn what_others_can_write_is_refused_at_every_level() {
    for path in ["root", "root/a", "root/a/b", "root/a/b/file"] {
        let tree = Tree::new();
        let bits = fs::metadata(tree.at(path)).unwrap().permissions().mode() & 0o7777;
        for extra in [0o020, 0o002] {
            let root = tree.root(Resolver::Openat2);
            let mode = bits | extra;
            fs::set_permissions(tree.at(path), fs::Permissions::from_mode(mode)).unwrap();
            let error = root.dir().and_then(|dir| dir.open_path("a/b/file")).unwrap_err();
            let expected = AdmitError::WritableByOthers { path: tree.at(path), mode };
            assert_eq!(error, expected, "also when it changed after the root was opened");
            fs::set_permissions(tree.at(path), fs::Permissions::from_mode(bits)).unwrap();
        }
        assert_eq!(tree.read("a/b/file").unwrap(), b"inside");
    }
}

#[test]
fn what_belongs_to_somebody_else_is_refused() {
    let tree = Tree::new();
    let other = 12_345;
    if std::os::unix::fs::chown(tree.at("root/a/b/file"), Some(other), None).is_err() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let expected = AdmitError::ForeignOwner { path: tree.at("root/a/b/file"), uid: other };
    assert_eq!(tree.read("a/b/file").unwrap_err(), expected);
}

#[test]
fn a_root_that_cannot_be_trusted_is_not_opened() {
    let tree = Tree::new();
    let open =
        |path: &str| PluginRoot::open(&tree.at(path)).map(drop).map_err(|error| error.code());
    assert_eq!(open("root"), Ok(()));
    assert_eq!(open("absent"), Err("path.not_found"));
    assert_eq!(open("outside/file"), Err("path.wrong_file_type"));
    fs::set_permissions(tree.at("root"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(open("root"), Err("path.writable_by_others"));
}

#[test]
fn the_root_stays_the_one_that_was_opened() {
    let tree = Tree::new();
    let root = tree.root(Resolver::Openat2);
    fs::rename(tree.at("root"), tree.at("old")).unwrap();
    write(&tree.at("root/a/b/file"), b"swapped");
    assert_eq!(root.dir().unwrap().open_path("a/b/file").unwrap().read(100).unwrap(), b"inside");
}

#[test]
fn reading_stops_at_the_cap_even_when_the_size_was_smaller() {
    let tree = Tree::new();
    let root = tree.root(Resolver::Openat2);
    let open = || root.dir().unwrap().open_path("a/b/file").unwrap();
    assert_eq!(open().read(6).unwrap(), b"inside");
    assert_eq!(open().read(5).unwrap_err().code(), "file.too_large");
    let opened = open();
    write(&tree.at("root/a/b/file"), &[7; 50]);
    assert_eq!(opened.read(10).unwrap_err().code(), "file.too_large");
}

#[test]
fn listing_is_sorted_and_bounded() {
    let tree = Tree::new();
    for name in ["c", "d", "b"] {
        make_dir(&tree.at("root").join(name));
    }
    let root = tree.root(Resolver::Openat2);
    let names = |max| -> Vec<String> {
        let entries = root.dir().unwrap().entries(max).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names(10), ["a", "b", "c", "d"]);
    assert_eq!(names(10), ["a", "b", "c", "d"], "a second listing starts at the beginning");
    assert_eq!(names(2).len(), 2);
}
