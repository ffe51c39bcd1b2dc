//! Tests: each way in which the setup can be wrong has its own error.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use tempfile::TempDir;

use super::*;

struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(site.path("bin")).unwrap();
        fs::create_dir_all(site.path("home")).unwrap();
        fs::write(site.path("bin/gpg"), "").unwrap();
        fs::write(site.path("home/pub.gpg"), "").unwrap();
        for (name, mode) in
            [("bin", 0o755), ("bin/gpg", 0o755), ("home", 0o700), ("home/pub.gpg", 0o600)]
        {
            site.mode(name, mode);
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn code(&self) -> &'static str {
        let (program, home) = (self.path("bin/gpg"), self.path("home"));
        match check(&program, &home, &home.join("pub.gpg")) {
            Ok(_) => "ok",
            Err(error) => {
                assert!(!error.to_string().is_empty());
                error.code()
            }
        }
    }
}

#[test]
fn a_sound_setup_is_accepted() {
    let site = Site::new();
    assert_eq!(site.code(), "ok");
    site.mode("home", 0o755);
    site.mode("home/pub.gpg", 0o444);
    site.mode("bin/gpg", 0o555);
    assert_eq!(site.code(), "ok", "others may read");
}

#[test]
fn what_is_missing_is_named() {
    for (name, code) in [
        ("bin/gpg", "gpg.program_missing"),
        ("bin", "gpg.program_missing"),
        ("home/pub.gpg", "gpg.keyring_missing"),
        ("home", "gpg.home_missing"),
    ] {
        let site = Site::new();
        fs::rename(site.path(name), site.path("elsewhere")).unwrap();
        assert_eq!(site.code(), code);
        // A link that leads nowhere is no better.
        symlink("/nonexistent", site.path(name)).unwrap();
        assert_eq!(site.code(), code);
    }
}

#[test]
fn relative_paths_are_refused_by_what_they_are() {
    let site = Site::new();
    let (program, home) = (site.path("bin/gpg"), site.path("home"));
    let keyring = home.join("pub.gpg");
    let code = |program: &Path, home: &Path, keyring: &Path| {
        check(program, home, keyring).unwrap_err().code()
    };
    assert_eq!(code(Path::new("gpg"), &home, &keyring), "gpg.program_not_absolute");
    assert_eq!(code(Path::new(""), &home, &keyring), "gpg.program_not_absolute");
    assert_eq!(code(&program, Path::new("~/.gnupg"), &keyring), "gpg.home_not_absolute");
    assert_eq!(code(&program, &home, Path::new("pub.gpg")), "gpg.keyring_not_absolute");
}

#[test]
fn what_others_can_write_is_refused() {
    for (name, code) in [
        ("bin/gpg", "gpg.program_writable"),
        ("bin", "gpg.program_writable"),
        ("home/pub.gpg", "gpg.keyring_writable"),
        ("home", "gpg.home_writable"),
    ] {
        let site = Site::new();
        let before = fs::metadata(site.path(name)).unwrap().permissions().mode();
        for bits in [0o020, 0o002, 0o022] {
            site.mode(name, (before | bits) & 0o777);
            assert_eq!(site.code(), code, "{name} {bits:o}");
        }
    }
    // The sticky bit excuses a directory above, but not the home itself.
    let site = Site::new();
    site.mode("bin", 0o1777);
    assert_eq!(site.code(), "ok");
    site.mode("home", 0o1777);
    assert_eq!(site.code(), "gpg.home_writable");
}

#[test]
fn a_link_is_judged_by_where_it_leads() {
    let site = Site::new();
    fs::create_dir(site.path("open")).unwrap();
    fs::rename(site.path("bin/gpg"), site.path("open/gpg")).unwrap();
    symlink(site.path("open/gpg"), site.path("bin/gpg")).unwrap();
    site.mode("open", 0o755);
    assert_eq!(site.code(), "ok");
    site.mode("open", 0o777);
    assert_eq!(site.code(), "gpg.program_writable");
}

#[test]
fn what_belongs_to_somebody_else_is_refused() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    for (name, code) in [
        ("bin/gpg", "gpg.program_owner"),
        ("bin", "gpg.program_owner"),
        ("home/pub.gpg", "gpg.keyring_owner"),
        ("home", "gpg.home_owner"),
    ] {
        let site = Site::new();
        chown(site.path(name), Some(12345), None).unwrap();
        assert_eq!(site.code(), code);
    }
}

#[test]
fn what_is_of_another_kind_is_refused() {
    let site = Site::new();
    site.mode("bin/gpg", 0o644);
    assert_eq!(site.code(), "gpg.program_not_executable");
    let (program, home) = (site.path("bin/gpg"), site.path("home"));
    let keyring = home.join("pub.gpg");
    let code = |program: &Path, home: &Path, keyring: &Path| {
        check(program, home, keyring).unwrap_err().code()
    };
    assert_eq!(code(&home, &home, &keyring), "gpg.program_wrong_type");
    assert_eq!(code(&program, &keyring, &keyring), "gpg.home_wrong_type");
    assert_eq!(code(&program, &home, &home), "gpg.keyring_wrong_type");
    assert_eq!(code(&program, &home, Path::new("/dev/null")), "gpg.keyring_wrong_type");
    assert_eq!(code(&program, &home, &keyring.join("below")), "gpg.keyring_io");
}
