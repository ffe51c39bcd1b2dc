//! What the audit log promises, attacked case by case.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use expect_test::expect;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::limits::AUDIT_BATCH_MAX;

use super::error::{AuditError, VerifyFailure, VerifyFault};
use super::read::{Direction, StoredRecord, records};
use super::record::{AuditRecord, LeafHash};
use super::verify::{VerifyReport, verify};
use super::{AuditLog, Head};
use crate::moment::{BootId, Moment};
use crate::store::tests::private_dir;
use crate::store::{Durability, Store};
use crate::{drill, keys};

fn boot() -> BootId {
    BootId::parse("01234567-89ab-cdef-0123-456789abcdef").unwrap()
}

/// `second` seconds after some start, on both clocks.
fn at(second: u64) -> Moment {
    let time =
        jiff::Timestamp::from_second(1_800_000_000 + i64::try_from(second).unwrap()).unwrap();
    Moment { time, mono_ns: second * 1_000_000_000 }
}

fn entry(text: &str) -> AuditEntry {
    AuditEntry {
        reason: Some(text.to_owned()),
        ..AuditEntry::new(AuditEvent::Load, AuditOutcome::Done, "host")
    }
}

fn open(dir: &Path) -> AuditLog {
    AuditLog::open_in_boot(Arc::new(Store::open(dir).unwrap()), boot()).unwrap()
}

fn append(log: &mut AuditLog, count: u64) {
    for n in 0..count {
        log.append(&[entry(&n.to_string())], at(n), Durability::Buffered).unwrap();
    }
}

/// A log of `count` records whose store may be tampered with.
fn victim(count: u64) -> (tempfile::TempDir, Arc<Store>) {
    let dir = private_dir();
    let mut log = open(dir.path());
    append(&mut log, count);
    let store = Arc::clone(log.store());
    (dir, store)
}

fn raw(store: &Store, seq: u64) -> Vec<u8> {
    store.get(keys::AUDIT, &keys::audit_key(seq)).unwrap().unwrap()
}

fn overwrite(store: &Store, seq: u64, value: &[u8]) {
    let mut batch = store.batch().unwrap();
    batch.put(keys::AUDIT, &keys::audit_key(seq), value).unwrap();
    batch.commit(Durability::Buffered).unwrap();
}

fn delete(store: &Store, seq: u64) {
    let mut batch = store.batch().unwrap();
    batch.delete(keys::AUDIT, &keys::audit_key(seq)).unwrap();
    batch.commit(Durability::Buffered).unwrap();
}

fn set_head(store: &Store, value: &[u8]) {
    let mut batch = store.batch().unwrap();
    batch.put(keys::META, keys::AUDIT_HEAD, value).unwrap();
    batch.commit(Durability::Buffered).unwrap();
}

/// Replaces a record by one with other content and a right hash, as one who knows the format would.
fn rewrite(store: &Store, seq: u64, change: impl FnOnce(&mut AuditRecord)) -> LeafHash {
    let value = raw(store, seq);
    let (_leaf, bytes) = keys::parse_audit_value(&value).unwrap();
    let mut record = AuditRecord::decode(bytes).unwrap();
    change(&mut record);
    let bytes = record.encode().unwrap();
    let leaf = LeafHash::of(&bytes);
    overwrite(store, seq, &keys::audit_value(leaf, &bytes));
    leaf
}

fn failure(store: &Store) -> (u64, VerifyFault) {
    let VerifyFailure { seq, why } = verify(store).unwrap_err();
    (seq, why)
}

fn is_broken(store: &Arc<Store>) -> bool {
    let opened = AuditLog::open_in_boot(Arc::clone(store), boot());
    matches!(opened, Err(AuditError::Broken(_)))
}

fn seqs(records: &[StoredRecord]) -> Vec<u64> {
    records.iter().map(|record| record.seq).collect()
}

#[test]
fn an_empty_log_is_whole() {
    let dir = private_dir();
    let log = open(dir.path());
    assert_eq!(log.head(), Head::EMPTY);
    let nothing = VerifyReport {
        records: 0,
        first: None,
        last: None,
        head_hash: LeafHash::ZERO,
        clock_steps: 0,
    };
    assert_eq!(verify(log.store()), Ok(nothing));
    assert_eq!(log.read(1, 10), Ok(Vec::new()));
}

#[test]
fn the_chain_of_three_records_is_this() {
    let (_dir, store) = victim(3);
    let mut lines = String::new();
    for record in records(&store, Direction::OldestFirst { from: 1 }).unwrap() {
        let StoredRecord { seq, leaf, record, .. } = record.unwrap();
        let (leaf, prev) = (leaf.to_string(), record.prev.to_string());
        lines.push_str(&format!("{seq} {} {} <- {}\n", record.time, &leaf[..8], &prev[..8]));
    }
    expect![[r#"
        1 2027-01-15T08:00:00Z f0c4fb9d <- 00000000
        2 2027-01-15T08:00:01Z a53b00ec <- f0c4fb9d
        3 2027-01-15T08:00:02Z 01d208ba <- a53b00ec
    "#]]
    .assert_eq(&lines);
}

#[test]
fn records_are_read_in_both_directions_across_batches_and_reopening() {
    let dir = private_dir();
    let mut log = open(dir.path());
    let batch: Vec<_> = (0..3).map(|n| entry(&n.to_string())).collect();
    assert_eq!(log.append(&batch, at(1), Durability::Synced), Ok(vec![1, 2, 3]));
    drop(log);
    let mut log = open(dir.path());
    assert_eq!(log.append(&batch[..1], at(2), Durability::Buffered), Ok(vec![4]));
    assert_eq!(log.append(&[], at(2), Durability::Synced), Ok(vec![]));
    log.sync().unwrap();
    assert_eq!(seqs(&log.read(2, 2).unwrap()), [2, 3]);
    assert_eq!(seqs(&log.read(0, 100).unwrap()), [1, 2, 3, 4]);
    assert_eq!(seqs(&log.read(5, 100).unwrap()), [] as [u64; 0]);
    let newest: Result<Vec<_>, _> = log.newest().unwrap().take(3).collect();
    assert_eq!(seqs(&newest.unwrap()), [4, 3, 2]);
    let report = verify(log.store()).unwrap();
    assert_eq!((report.records, report.first, report.last), (4, Some(1), Some(4)));
    assert_eq!(report.head_hash, log.head().leaf);
}

#[test]
fn a_batch_over_the_limit_writes_nothing_and_the_log_goes_on() {
    let dir = private_dir();
    let mut log = open(dir.path());
    let entries = vec![entry("x"); AUDIT_BATCH_MAX + 1];
    let refusal = AuditError::BatchTooLarge { entries: AUDIT_BATCH_MAX + 1, max: AUDIT_BATCH_MAX };
    assert_eq!(log.append(&entries, at(0), Durability::Buffered), Err(refusal));
    assert_eq!(log.head(), Head::EMPTY);
    let answered = log.append(&entries[1..], at(0), Durability::Buffered).unwrap();
    assert_eq!(answered.len(), AUDIT_BATCH_MAX);
}

#[test]
fn a_reader_verifies_while_a_writer_runs_and_cannot_append() {
    let dir = private_dir();
    let mut writer = open(dir.path());
    append(&mut writer, 20);
    let store = Arc::new(Store::open_read_only(dir.path()).unwrap());
    append(&mut writer, 5);
    assert_eq!(verify(&store).unwrap().records, 20, "the log was never flushed to a table");
    let mut reader = AuditLog::open_in_boot(store, boot()).unwrap();
    let refusal = reader.append(&[entry("x")], at(99), Durability::Buffered).unwrap_err();
    assert_eq!(refusal.code(), "store.read_only");
    assert_eq!(verify(writer.store()).unwrap().records, 25);
}

#[test]
fn after_a_failed_write_the_log_is_closed() {
    let (dir, store) = victim(2);
    drop(store);
    let store = Arc::new(Store::open_read_only(dir.path()).unwrap());
    let mut log = AuditLog::open_in_boot(store, boot()).unwrap();
    assert_eq!(log.sync().unwrap_err().code(), "store.read_only");
    assert_eq!(log.sync(), Err(AuditError::Closed));
    assert_eq!(log.append(&[entry("x")], at(9), Durability::Buffered), Err(AuditError::Closed));
    assert_eq!(log.head().seq, 2);
}

#[test]
fn e1_an_edited_byte_is_found_in_its_record() {
    const RECORDS: u64 = 12;
    let (_dir, store) = victim(RECORDS);
    let cases = (1..=RECORDS, any::<prop::sample::Index>(), 1..=u8::MAX);
    TestRunner::default()
        .run(&cases, |(seq, index, mask)| {
            let before = raw(&store, seq);
            let mut after = before.clone();
            after[index.index(before.len())] ^= mask;
            overwrite(&store, seq, &after);
            let found = failure(&store);
            overwrite(&store, seq, &before);
            prop_assert_eq!(found, (seq, VerifyFault::Edited));
            prop_assert_eq!(verify(&store).unwrap().records, RECORDS);
            Ok(())
        })
        .unwrap();
}

#[test]
fn e1_a_drill_is_found_in_its_record() {
    let (_dir, store) = victim(3);
    drill::flip_bit(&store, 2).unwrap();
    assert_eq!(failure(&store), (2, VerifyFault::Edited));
    let refused = VerifyFailure { seq: 2, why: VerifyFault::Edited };
    let read: Vec<_> = records(&store, Direction::OldestFirst { from: 1 }).unwrap().collect();
    assert_eq!(read.len(), 3, "the others can still be read");
    assert_eq!(read[1], Err(AuditError::Broken(refused)));
    assert_eq!(drill::flip_bit(&store, 4), Err(AuditError::NoRecord { seq: 4 }));
}

#[test]
fn e1_the_first_of_several_edits_is_found() {
    let (_dir, store) = victim(9);
    for seq in [8, 5, 4] {
        drill::flip_bit(&store, seq).unwrap();
        assert_eq!(failure(&store), (seq, VerifyFault::Edited));
    }
}

#[test]
fn e1_an_edit_with_a_right_hash_is_found_by_the_chain() {
    for seq in 1..=5 {
        let (_dir, store) = victim(5);
        rewrite(&store, seq, |record| record.outcome = AuditOutcome::Failed);
        assert_eq!(failure(&store), (seq, VerifyFault::Rewritten));
        assert_eq!(is_broken(&store), seq == 5, "opening looks at the end only");

        let (_dir, store) = victim(5);
        rewrite(&store, seq, |record| record.prev = LeafHash::of(b"another"));
        assert_eq!(failure(&store), (seq, VerifyFault::WrongPrev));
    }
}

#[test]
fn e1_a_tail_chained_anew_is_found_at_the_head() {
    let (_dir, store) = victim(5);
    let mut prev = rewrite(&store, 3, |record| record.reason = None);
    for seq in 4..=5 {
        prev = rewrite(&store, seq, |record| record.prev = prev);
    }
    assert_eq!(failure(&store), (5, VerifyFault::Rewritten));
    assert!(is_broken(&store));
}

#[test]
fn e2_a_deleted_record_is_missed() {
    for seq in 1..=5 {
        let (_dir, store) = victim(5);
        delete(&store, seq);
        assert_eq!(failure(&store), (seq, VerifyFault::Missing));
    }
}

#[test]
fn e2_swapped_duplicated_and_moved_records_are_found() {
    let (_dir, store) = victim(6);
    let (third, fourth) = (raw(&store, 3), raw(&store, 4));
    overwrite(&store, 3, &fourth);
    overwrite(&store, 4, &third);
    assert_eq!(failure(&store), (3, VerifyFault::WrongSeq { found: 4 }), "swapped");

    let (_dir, store) = victim(6);
    overwrite(&store, 4, &raw(&store, 3));
    assert_eq!(failure(&store), (4, VerifyFault::WrongSeq { found: 3 }), "duplicated over another");

    let (_dir, store) = victim(6);
    for seq in (3..=6).rev() {
        overwrite(&store, seq + 1, &raw(&store, seq));
    }
    assert_eq!(failure(&store), (4, VerifyFault::WrongSeq { found: 3 }), "all behind it moved up");
}

#[test]
fn e2_inserted_records_are_found_wherever_they_are() {
    let (_dir, store) = victim(4);
    overwrite(&store, 0, &raw(&store, 1));
    assert_eq!(failure(&store), (0, VerifyFault::Unexpected), "in front");

    let (_dir, store) = victim(4);
    let mut batch = store.batch().unwrap();
    let between = [keys::audit_key(2).as_slice(), &[0]].concat();
    batch.put(keys::AUDIT, &between, &raw(&store, 2)).unwrap();
    batch.commit(Durability::Buffered).unwrap();
    assert_eq!(failure(&store), (2, VerifyFault::Unexpected), "between");

    // Everything behind it renumbered and chained anew: only the head still knows.
    let (_dir, store) = victim(4);
    overwrite(&store, 5, &raw(&store, 4));
    overwrite(&store, 4, &raw(&store, 3));
    let mut prev = rewrite(&store, 3, |record| record.reason = Some("forged".to_owned()));
    for seq in 4..=5 {
        prev = rewrite(&store, seq, |record| (record.seq, record.prev) = (seq, prev));
    }
    assert_eq!(failure(&store), (4, VerifyFault::Rewritten), "in the middle");
}

#[test]
fn e3_a_tail_cut_off_is_missed_by_the_head() {
    for kept in 0..5 {
        let (_dir, store) = victim(5);
        for seq in kept + 1..=5 {
            delete(&store, seq);
        }
        assert_eq!(failure(&store), (kept + 1, VerifyFault::Missing));
        assert!(is_broken(&store));
    }
}

#[test]
fn e3_what_the_head_does_not_count_is_found() {
    let (_dir, store) = victim(5);
    rewrite(&store, 5, |record| record.seq = 6);
    let sixth = raw(&store, 5);
    let (_dir, store) = victim(5);
    overwrite(&store, 6, &sixth);
    assert_eq!(failure(&store), (6, VerifyFault::Unexpected), "one more");
    assert!(is_broken(&store));

    let (_dir, store) = victim(5);
    let fourth = raw(&store, 4);
    let (leaf, _bytes) = keys::parse_audit_value(&fourth).unwrap();
    set_head(&store, &keys::head_value(Head { seq: 4, leaf }));
    assert_eq!(failure(&store), (5, VerifyFault::Unexpected), "the head put back");
    assert!(is_broken(&store));

    let (_dir, store) = victim(5);
    set_head(&store, &keys::head_value(Head { seq: 5, leaf: LeafHash::ZERO }));
    assert_eq!(failure(&store), (5, VerifyFault::Rewritten), "another head");
    assert!(is_broken(&store));
}

#[test]
fn e3_a_damaged_or_deleted_head_is_found() {
    let (_dir, store) = victim(2);
    set_head(&store, b"short");
    assert_eq!(failure(&store), (0, VerifyFault::Head));
    assert!(is_broken(&store));
    let mut batch = store.batch().unwrap();
    batch.delete(keys::META, keys::AUDIT_HEAD).unwrap();
    batch.commit(Durability::Buffered).unwrap();
    assert_eq!(failure(&store), (1, VerifyFault::Unexpected));
    assert!(is_broken(&store));
}

#[test]
fn e19_a_clock_that_jumps_changes_no_order_and_is_counted() {
    let dir = private_dir();
    let mut log = open(dir.path());
    append(&mut log, 3);
    let back = Moment { time: at(0).time, mono_ns: at(10).mono_ns };
    let forth = Moment { time: at(9_000).time, mono_ns: at(11).mono_ns };
    for now in [back, forth] {
        log.append(&[entry("jump")], now, Durability::Buffered).unwrap();
    }
    let report = verify(log.store()).unwrap();
    assert_eq!((report.records, report.clock_steps), (5, 2));
    let mono: Vec<_> =
        log.read(1, 10).unwrap().iter().map(|stored| stored.record.mono_ns).collect();
    assert!(mono.is_sorted());
    drop(log);

    // Another boot starts its own count: that is no step of the clock.
    let other = BootId::parse("00000000-0000-0000-0000-000000000000").unwrap();
    let store = Arc::new(Store::open(dir.path()).unwrap());
    let mut log = AuditLog::open_in_boot(store, other).unwrap();
    log.append(&[entry("after boot")], at(1), Durability::Buffered).unwrap();
    assert_eq!(verify(log.store()).unwrap().clock_steps, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_sequence_of_appends_makes_a_chain_that_verifies(
        batches in prop::collection::vec((prop::collection::vec("\\PC{0,40}", 0..6), any::<bool>(), any::<bool>()), 0..8)
    ) {
        let dir = private_dir();
        let mut log = open(dir.path());
        let mut written = Vec::new();
        for (texts, is_synced, reopens) in batches {
            let entries: Vec<_> = texts.iter().map(|text| entry(text)).collect();
            let durability = if is_synced { Durability::Synced } else { Durability::Buffered };
            log.append(&entries, at(1), durability).unwrap();
            written.extend(texts);
            if reopens {
                drop(log);
                log = open(dir.path());
            }
        }
        let count = u64::try_from(written.len()).unwrap();
        prop_assert_eq!(verify(log.store()).unwrap().records, count);
        let read = log.read(1, usize::MAX).unwrap();
        let reasons: Vec<_> = read.into_iter().filter_map(|stored| stored.record.reason).collect();
        prop_assert_eq!(reasons, written);
    }
}

// === Death and a full disk ===

/// Tells a test, started again as a child, where to write.
const CHILD_DIR: &str = "THEMIS_TEST_AUDIT_DIR";
const ACKNOWLEDGED: &str = "acknowledged ";

/// The child appends and says so until it is killed; what it said must be there.
#[test]
fn e14_what_was_acknowledged_is_there_after_kill_9() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        append_until_killed(Path::new(&dir));
    }
    for acknowledged in [1, 2, 7, 40] {
        let dir = private_dir();
        let last = kill_after(dir.path(), acknowledged);
        let reader = Store::open_read_only(dir.path()).unwrap();
        assert!(verify(&reader).unwrap().records >= last, "read before anything is repaired");
        drop(reader);
        let mut log = AuditLog::open(Arc::new(Store::open(dir.path()).unwrap())).unwrap();
        assert!(log.head().seq >= last);
        assert_eq!(verify(log.store()).unwrap().records, log.head().seq);
        let next = log.head().seq + 1;
        assert_eq!(
            log.append(&[entry("after")], Moment::now(), Durability::Synced),
            Ok(vec![next])
        );
        assert_eq!(verify(log.store()).unwrap().records, next);
    }
}

fn append_until_killed(dir: &Path) -> ! {
    let mut log = AuditLog::open(Arc::new(Store::open(dir).unwrap())).unwrap();
    let mut out = std::io::stdout().lock();
    let mut durability = [Durability::Synced, Durability::Buffered].into_iter().cycle();
    loop {
        let batch = [entry("intent"), entry("outcome")];
        let seqs = log.append(&batch, Moment::now(), durability.next().unwrap()).unwrap();
        writeln!(out, "{ACKNOWLEDGED}{}", seqs[1]).unwrap();
        out.flush().unwrap();
    }
}

/// Kills the child once it has acknowledged that many batches; the last number it was heard to acknowledge.
fn kill_after(dir: &Path, batches: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("audit_log::tests::e14_what_was_acknowledged_is_there_after_kill_9")
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let last = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix(ACKNOWLEDGED).and_then(|seq| seq.parse().ok()))
        .nth(batches - 1);
    child.kill().unwrap();
    child.wait().unwrap();
    last.expect("the child died before it was killed")
}

/// No file of the child may grow beyond 128 KiB, which is what a full disk looks like to it.
/// The write-ahead log of the database in `dir` that was written to last.
fn write_ahead_log(dir: &Path) -> PathBuf {
    let mut waiting = vec![dir.to_owned()];
    let mut logs = Vec::new();
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|it| it == "log") {
                logs.push(path);
            }
        }
    }
    logs.into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
}

/// Power fails in the middle of a write: what was whole before is there, the torn record is not, the log goes on.
#[test]
fn a_torn_last_record_is_left_out_and_the_log_goes_on() {
    for cut in [1, 7, 60, 200] {
        let (dir, store) = victim(3);
        drop(store);
        let log = write_ahead_log(dir.path());
        let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length - cut).unwrap();
        drop(file);
        let mut log = open(dir.path());
        append(&mut log, 2);
        let store = Arc::clone(log.store());
        let report = verify(&store).unwrap();
        assert!((2..5).contains(&report.records), "{cut} bytes cut: {} records", report.records);
    }
}

#[test]
fn e15_a_write_that_fails_is_an_error_and_closes_the_log() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        return append_until_full(Path::new(&dir));
    }
    let dir = private_dir();
    let output = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; ulimit -f 256; exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("audit_log::tests::e15_a_write_that_fails_is_an_error_and_closes_the_log")
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let last = text.lines().find_map(|line| line.strip_prefix(ACKNOWLEDGED)?.parse().ok());
    let last: u64 = last.expect("the child says how far it came");
    let log = open(dir.path());
    assert!(log.head().seq >= last, "{} of {last}", log.head().seq);
    assert_eq!(verify(log.store()).unwrap().records, log.head().seq);
}

fn append_until_full(dir: &Path) {
    let mut log = open(dir);
    let batch = vec![entry(&"x".repeat(900)); 8];
    let error = loop {
        match log.append(&batch, at(1), Durability::Synced) {
            Ok(_) => assert!(log.head().seq < 10_000, "nothing limits the size of files here"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "store.database", "{error}");
    assert_eq!(log.append(&batch, at(1), Durability::Synced), Err(AuditError::Closed));
    assert_eq!(log.sync(), Err(AuditError::Closed));
    println!("{ACKNOWLEDGED}{}", log.head().seq);
}
