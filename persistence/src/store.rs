//! The RocksDB store of one data directory, opened by one writer and any number of readers.
//!
//! ```text
//!            lock, private directory, known format
//!   absent ─────────────────────────────────────────▶ open ──drop──▶ closed
//!      │                                               │
//!      └── refused: a StoreError, nothing changed      └── a write fails: the caller is told; the database
//!                                                          itself takes no more writes until it is reopened
//! ```
//!
//! When the process dies, however it dies, the system releases the lock and the next opener replays the
//! write-ahead log. Nothing that was answered as durable is lost.

use std::fs::File;
use std::path::{Path, PathBuf};

use rocksdb::{
    ColumnFamily, DB, DBCompressionType, DBIteratorWithThreadMode, DBRecoveryMode, Direction,
    IteratorMode, LogLevel, Options, Snapshot, WriteBatch, WriteOptions,
};

use crate::keys;

mod directory;
pub mod error;

pub use self::error::StoreError;

/// The format this release writes and the newest it reads.
pub const FORMAT: u64 = 1;

/// Below the data directory, so that keys and caches of other parts have places of their own.
const DATABASE_DIR: &str = "store";
/// A file every RocksDB database has once it was created.
const CREATED_MARK: &str = "CURRENT";
const KEY_SPACES: [&str; 5] =
    [keys::DEFAULT, keys::META, keys::AUDIT, keys::REGISTRY, keys::EXPERIMENTS];

/// Memory that one key space collects before it writes a table file.
const WRITE_BUFFER_BYTES: usize = 4 << 20;
/// Write-ahead log kept before the oldest key space is written out; bounds the replay at start-up.
const WAL_BYTES_MAX: u64 = 32 << 20;
/// RocksDB's own log of what it does.
const INFO_LOG_BYTES_MAX: usize = 1 << 20;
const INFO_LOGS_KEPT: usize = 2;

/// What an answered write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Loss of power: the write-ahead log is on the disk before the answer. Takes earlier writes with it.
    Synced,
    /// The end of the process, kill -9 included; loss of power only once something later was synced.
    Buffered,
}

/// An open store. Dropping it closes it.
#[derive(Debug)]
pub struct Store {
    // Before the lock: fields are dropped in order, and the database must be closed when the lock is given up.
    db: DB,
    dir: PathBuf,
    /// `None` when opened for reading.
    lock: Option<File>,
    /// Dropped last: tells whoever waits that the store is closed.
    after_close: AfterClose,
}

/// Runs when it is dropped.
#[derive(Default)]
struct AfterClose(Option<Box<dyn FnOnce() + Send + Sync>>);

impl std::fmt::Debug for AfterClose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AfterClose").field(&self.0.is_some()).finish()
    }
}

impl Drop for AfterClose {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then();
        }
    }
}

impl Store {
    /// Runs `then` once the store is closed: when the last of those who share it lets go.
    pub fn after_close(&mut self, then: impl FnOnce() + Send + Sync + 'static) {
        self.after_close = AfterClose(Some(Box::new(then)));
    }

    /// Opens the store of a data directory for this process alone; makes both, private, when they are absent.
    ///
    /// # Errors
    /// [`StoreError`]: the directory is not private, another kernel has it, a newer release wrote it, or
    /// the database is damaged.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        directory::prepare(dir)?;
        let lock = directory::lock(dir)?;
        let database = dir.join(DATABASE_DIR);
        let is_new = !database.join(CREATED_MARK).exists();
        let mut options = options();
        options.create_if_missing(is_new);
        options.create_missing_column_families(true);
        if !is_new {
            known_key_spaces(dir, &database, &options)?;
        }
        let db = DB::open_cf_with_opts(&options, &database, families())
            .map_err(|error| database_error("be opened", &error))?;
        let store =
            Self { db, dir: dir.to_owned(), lock: Some(lock), after_close: AfterClose::default() };
        store.check_format()?;
        Ok(store)
    }

    /// Opens what is there now for reading, also while a kernel has it open; later writes are not seen.
    ///
    /// # Errors
    /// [`StoreError`] as for [`Store::open`], and [`StoreError::NotFound`].
    pub fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        directory::check(dir)?;
        let database = dir.join(DATABASE_DIR);
        if !database.join(CREATED_MARK).exists() {
            return Err(StoreError::NotFound { path: dir.to_owned() });
        }
        let options = options();
        // One that an older release made has fewer, and for reading none is made.
        let there = known_key_spaces(dir, &database, &options)?;
        let families = families().filter(|(name, _)| there.iter().any(|it| it == name));
        let db = DB::open_cf_with_opts_for_read_only(&options, &database, families, false)
            .map_err(|error| database_error("be opened for reading", &error))?;
        let store =
            Self { db, dir: dir.to_owned(), lock: None, after_close: AfterClose::default() };
        store.check_format()?;
        Ok(store)
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it can be written.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        self.lock.is_some()
    }

    /// Puts everything written so far on the disk.
    ///
    /// # Errors
    /// [`StoreError::Database`]: then nothing is known about the buffered writes.
    pub fn sync(&self) -> Result<(), StoreError> {
        if !self.is_writable() {
            return Err(StoreError::ReadOnly);
        }
        self.db.flush_wal(true).map_err(|error| database_error("sync", &error))
    }

    pub(crate) fn get(
        &self,
        space: &'static str,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let family = self.family(space)?;
        self.db.get_cf(family, key).map_err(|error| database_error("read", &error))
    }

    /// A batch that is written as a whole or not at all.
    pub(crate) fn batch(&self) -> Result<Batch<'_>, StoreError> {
        if !self.is_writable() {
            return Err(StoreError::ReadOnly);
        }
        Ok(Batch { store: self, inner: WriteBatch::default() })
    }

    /// One state of all key spaces, untouched by later writes.
    pub(crate) fn view(&self) -> View<'_> {
        View { store: self, snapshot: self.db.snapshot() }
    }

    /// One key space in order, as it is now.
    pub(crate) fn iterate(
        &self,
        space: &'static str,
        mode: IteratorMode<'_>,
    ) -> Result<Entries<'_>, StoreError> {
        Ok(Entries(self.db.iterator_cf(self.family(space)?, mode)))
    }

    /// What lies under keys that begin so, in order.
    pub(crate) fn with_prefix(
        &self,
        space: &'static str,
        prefix: &[u8],
    ) -> Result<Vec<Pair>, StoreError> {
        let from = IteratorMode::From(prefix, Direction::Forward);
        let mut found = Vec::new();
        // The database goes on past the prefix; this does not.
        for entry in self.iterate(space, from)? {
            let (key, value) = entry?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push((key, value));
        }
        Ok(found)
    }

    fn first_key(&self, space: &'static str) -> Result<Option<Box<[u8]>>, StoreError> {
        let first = self.iterate(space, IteratorMode::Start)?.next().transpose()?;
        Ok(first.map(|(key, _value)| key))
    }

    fn family(&self, name: &'static str) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(name).ok_or(StoreError::KeySpaceMissing { name })
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let Some(value) = self.get(keys::META, keys::FORMAT)? else {
            return self.write_format();
        };
        let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse::<u64>().ok());
        match number {
            Some(FORMAT) => Ok(()),
            Some(found) if found > FORMAT => {
                Err(StoreError::FormatTooNew { path: self.dir.clone(), found, supported: FORMAT })
            }
            Some(_) | None => Err(StoreError::FormatUnreadable { path: self.dir.clone() }),
        }
    }

    /// For a store just made, or one whose maker died before this line; never for one with data.
    fn write_format(&self) -> Result<(), StoreError> {
        let has_data =
            self.first_key(keys::META)?.is_some() || self.first_key(keys::AUDIT)?.is_some();
        if has_data || !self.is_writable() {
            return Err(StoreError::FormatUnreadable { path: self.dir.clone() });
        }
        let mut batch = self.batch()?;
        batch.put(keys::META, keys::FORMAT, FORMAT.to_string().as_bytes())?;
        batch.commit(Durability::Synced)
    }
}

/// A key and its value.
pub(crate) type Pair = (Box<[u8]>, Box<[u8]>);

/// Writes that happen together.
pub(crate) struct Batch<'a> {
    store: &'a Store,
    inner: WriteBatch,
}

impl Batch<'_> {
    pub(crate) fn put(
        &mut self,
        space: &'static str,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.inner.put_cf(self.store.family(space)?, key, value);
        Ok(())
    }

    pub(crate) fn commit(self, durability: Durability) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.store
            .db
            .write_opt(self.inner, &options)
            .map_err(|error| database_error("write", &error))
    }

    pub(crate) fn delete(&mut self, space: &'static str, key: &[u8]) -> Result<(), StoreError> {
        self.inner.delete_cf(self.store.family(space)?, key);
        Ok(())
    }
}

/// A consistent view of all key spaces.
pub(crate) struct View<'a> {
    store: &'a Store,
    snapshot: Snapshot<'a>,
}

impl View<'_> {
    pub(crate) fn get(
        &self,
        space: &'static str,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let family = self.store.family(space)?;
        self.snapshot.get_cf(family, key).map_err(|error| database_error("read", &error))
    }

    pub(crate) fn iterate(
        &self,
        space: &'static str,
        mode: IteratorMode<'_>,
    ) -> Result<Entries<'_>, StoreError> {
        let family = self.store.family(space)?;
        Ok(Entries(self.snapshot.iterator_cf(family, mode)))
    }
}

/// Keys and values of one key space in order.
pub(crate) struct Entries<'a>(DBIteratorWithThreadMode<'a, DB>);

impl Iterator for Entries<'_> {
    type Item = Result<(Box<[u8]>, Box<[u8]>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.0.next()?;
        Some(next.map_err(|error| database_error("read", &error)))
    }
}

/// Small and synchronous: a log of a few records a second needs neither threads nor compression.
fn options() -> Options {
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::None);
    options.set_max_background_jobs(2);
    options.set_max_file_opening_threads(1);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_paranoid_checks(true);
    // The default mode drops everything behind a damaged record and reports success.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options.set_keep_log_file_num(INFO_LOGS_KEPT);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// Each key space with the same options: RocksDB does not hand the database's own down.
fn families() -> impl Iterator<Item = (&'static str, Options)> {
    KEY_SPACES.into_iter().map(|name| (name, options()))
}

/// The key spaces there are, all of which have to be known.
fn known_key_spaces(
    dir: &Path,
    database: &Path,
    options: &Options,
) -> Result<Vec<String>, StoreError> {
    let names = DB::list_cf(options, database)
        .map_err(|error| database_error("list its key spaces", &error))?;
    match names.iter().find(|name| !KEY_SPACES.contains(&name.as_str())) {
        Some(name) => Err(StoreError::KeySpaceUnknown { path: dir.to_owned(), name: name.clone() }),
        None => Ok(names),
    }
}

fn database_error(action: &'static str, error: &rocksdb::Error) -> StoreError {
    StoreError::Database { action, error: error.to_string() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that a store accepts.
    pub(crate) fn private_dir() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    fn put(store: &Store, key: &[u8], value: &[u8]) {
        let mut batch = store.batch().unwrap();
        batch.put(keys::META, key, value).unwrap();
        batch.commit(Durability::Buffered).unwrap();
    }

    #[test]
    fn e20_a_second_opener_is_told_that_the_store_is_in_use() {
        let dir = private_dir();
        let first = Store::open(dir.path()).unwrap();
        let in_use = StoreError::Locked { path: dir.path().to_owned() };
        assert_eq!(Store::open(dir.path()).unwrap_err(), in_use);
        drop(first);
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn a_reader_needs_no_lock_sees_the_unflushed_log_and_cannot_write() {
        let dir = private_dir();
        let writer = Store::open(dir.path()).unwrap();
        put(&writer, b"k", b"before");
        let reader = Store::open_read_only(dir.path()).unwrap();
        put(&writer, b"k", b"after");
        assert_eq!(reader.get(keys::META, b"k").unwrap().as_deref(), Some(b"before".as_slice()));
        assert_eq!(
            reader.view().get(keys::META, b"k").unwrap().as_deref(),
            Some(b"before".as_slice())
        );
        assert_eq!(reader.batch().err(), Some(StoreError::ReadOnly));
        assert_eq!(reader.sync(), Err(StoreError::ReadOnly));
    }

    #[test]
    fn a_reader_makes_nothing() {
        let dir = private_dir();
        let missing = dir.path().join("none");
        for place in [dir.path(), missing.as_path()] {
            let refusal = Store::open_read_only(place).unwrap_err();
            assert_eq!(refusal, StoreError::NotFound { path: place.to_owned() });
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_a_known_format_is_opened() {
        let dir = private_dir();
        let path = dir.path().to_owned();
        let unreadable = StoreError::FormatUnreadable { path: path.clone() };
        let too_new = StoreError::FormatTooNew { path, found: FORMAT + 1, supported: FORMAT };
        let newer = (FORMAT + 1).to_string();
        let mut store = Store::open(dir.path()).unwrap();
        for (text, refusal) in
            [(newer.as_str(), too_new), ("0", unreadable.clone()), ("x", unreadable)]
        {
            put(&store, keys::FORMAT, text.as_bytes());
            drop(store);
            assert_eq!(Store::open(dir.path()).unwrap_err(), refusal, "{text:?}");
            assert_eq!(Store::open_read_only(dir.path()).unwrap_err(), refusal, "{text:?}");
            store = raw(dir.path());
        }
    }

    #[test]
    fn data_without_a_format_is_refused_and_nothing_without_one_is_new() {
        let dir = private_dir();
        drop(raw(dir.path()));
        drop(Store::open(dir.path()).unwrap());
        let store = raw(dir.path());
        let mut batch = store.batch().unwrap();
        batch.delete(keys::META, keys::FORMAT).unwrap();
        batch.put(keys::AUDIT, &keys::audit_key(1), b"x").unwrap();
        batch.commit(Durability::Buffered).unwrap();
        drop(store);
        let refusal = Store::open(dir.path()).unwrap_err();
        assert_eq!(refusal, StoreError::FormatUnreadable { path: dir.path().to_owned() });
    }

    #[test]
    fn a_key_space_of_a_newer_release_is_refused_by_name() {
        let dir = private_dir();
        let mut store = Store::open(dir.path()).unwrap();
        store.db.create_cf("tomorrow", &Options::default()).unwrap();
        drop(store);
        let refusal = StoreError::KeySpaceUnknown {
            path: dir.path().to_owned(),
            name: "tomorrow".to_owned(),
        };
        assert_eq!(Store::open(dir.path()).unwrap_err(), refusal);
        assert_eq!(Store::open_read_only(dir.path()).unwrap_err(), refusal);
    }

    #[test]
    fn damage_inside_the_write_ahead_log_is_refused() {
        let dir = private_dir();
        let copy = private_dir();
        let store = Store::open(dir.path()).unwrap();
        for n in 0..100_u8 {
            put(&store, &[n], &[n; 500]);
        }
        // A clean close would empty the log into a table: copy the files as kill -9 would leave them.
        let database = copy.path().join(DATABASE_DIR);
        std::fs::create_dir(&database).unwrap();
        for entry in std::fs::read_dir(dir.path().join(DATABASE_DIR)).unwrap() {
            let from = entry.unwrap().path();
            let mut bytes = std::fs::read(&from).unwrap();
            let middle = bytes.len() / 2;
            if from.extension().is_some_and(|extension| extension == "log") && middle > 0 {
                bytes[middle] ^= 1;
            }
            std::fs::write(database.join(from.file_name().unwrap()), bytes).unwrap();
        }
        assert_eq!(Store::open(copy.path()).unwrap_err().code(), "store.database");
        assert_eq!(Store::open_read_only(copy.path()).unwrap_err().code(), "store.database");
    }

    /// The database without a look at the format.
    fn raw(dir: &Path) -> Store {
        let lock = directory::lock(dir).unwrap();
        let mut options = options();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let db = DB::open_cf_with_opts(&options, dir.join(DATABASE_DIR), families()).unwrap();
        Store { db, dir: dir.to_owned(), lock: Some(lock), after_close: AfterClose::default() }
    }
}
