//! Compiled code is loaded only when it is this host's own.

use super::*;

fn engine() -> Engine {
    Engine::default()
}

fn module(engine: &Engine) -> (Digest, Module) {
    let module = Module::new(engine, wat::parse_str("(module (func (export \"f\")))").unwrap());
    (Digest([7; 32]), module.unwrap())
}

/// The one artefact of a cache that has stored one.
fn stored(dir: &Path, engine: &Engine) -> PathBuf {
    let cache = Cache::open(dir, engine).unwrap();
    let (digest, module) = module(engine);
    cache.store(digest, &module);
    cache.path(digest)
}

#[test]
fn what_was_compiled_is_loaded_by_the_next_host() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, engine) = (dir.path().join("compiled"), engine());
    stored(&dir, &engine);
    let cache = Cache::open(&dir, &engine).unwrap();
    let loaded = cache.load(&engine, Digest([7; 32])).unwrap();
    assert!(loaded.get_export("f").is_some());
    assert!(cache.load(&engine, Digest([8; 32])).is_none(), "of another module");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("key"))), (0o700, 0o600));
}

/// One changed byte anywhere is enough, in the code as in the authentication code.
#[test]
fn what_was_changed_is_removed_and_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, engine) = (dir.path().join("compiled"), engine());
    let good = std::fs::read(stored(&dir, &engine)).unwrap();
    let places = [0, MAC_BYTES - 1, MAC_BYTES, good.len() / 2, good.len() - 1];
    for place in places {
        let path = stored(&dir, &engine);
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let cache = Cache::open(&dir, &engine).unwrap();
        assert!(cache.load(&engine, Digest([7; 32])).is_none(), "byte {place}");
        assert!(!path.exists(), "byte {place}");
    }
    for length in [0, 1, MAC_BYTES, good.len() - 1] {
        let path = stored(&dir, &engine);
        std::fs::write(&path, &good[..length]).unwrap();
        let cache = Cache::open(&dir, &engine).unwrap();
        assert!(cache.load(&engine, Digest([7; 32])).is_none(), "{length} bytes");
        assert!(!path.exists(), "{length} bytes");
    }
}

#[test]
fn the_code_of_another_module_engine_or_host_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (here, engine) = (dir.path().join("here"), engine());
    let path = stored(&here, &engine);
    let cache = Cache::open(&here, &engine).unwrap();
    // Moved to where the code of another module would be.
    std::fs::rename(&path, cache.path(Digest([8; 32]))).unwrap();
    assert!(cache.load(&engine, Digest([8; 32])).is_none());

    let other = Engine::new(wasmtime::Config::new().cranelift_nan_canonicalization(true)).unwrap();
    let path = stored(&here, &engine);
    let of_other = Cache::open(&here, &other).unwrap();
    std::fs::rename(&path, of_other.path(Digest([7; 32]))).unwrap();
    assert!(of_other.load(&other, Digest([7; 32])).is_none());

    let elsewhere = Cache::open(&dir.path().join("elsewhere"), &engine).unwrap();
    std::fs::rename(stored(&here, &engine), elsewhere.path(Digest([7; 32]))).unwrap();
    assert!(elsewhere.load(&engine, Digest([7; 32])).is_none());
}

#[test]
fn what_others_can_write_is_not_read() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let dir = tempfile::tempdir().unwrap();
    let (dir, engine) = (dir.path().join("compiled"), engine());
    let cache = Cache::open(&dir, &engine).unwrap();
    let path = stored(&dir, &engine);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
    assert!(cache.load(&engine, Digest([7; 32])).is_none());
    let path = stored(&dir, &engine);
    let elsewhere = dir.join("elsewhere");
    std::fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(cache.load(&engine, Digest([7; 32])).is_none());
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Cache::open(&dir, &engine).is_err());
}

#[test]
fn the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, engine) = (dir.path().join("compiled"), engine());
    let cache = Cache::open(&dir, &engine).unwrap();
    for at in 0..WASM_ARTEFACTS_MAX + 3 {
        let file = File::create(dir.join(format!("{at:05}.code"))).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at as u64))
            .unwrap();
    }
    let path = stored(&dir, &engine);
    let left = std::fs::read_dir(&dir).unwrap().filter(|it| {
        it.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "code")
    });
    assert_eq!(left.count(), WASM_ARTEFACTS_MAX);
    assert!(path.exists() && !dir.join("00003.code").exists() && dir.join("00004.code").exists());
    drop(cache);
}
