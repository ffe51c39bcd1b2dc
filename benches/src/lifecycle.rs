//! Load, swap, reload, rollback: what an operator waits for and a caller must not notice.

use std::cell::Cell;
use std::path::Path;

use themis_tests::{Fixture, Site};

use crate::report::{Row, Times};

const RUNS: usize = 200;

/// A plugin of about 1 MB, as the promise says.
fn megabyte(version: &str) -> Fixture {
    Fixture::c("counter.c", "counter", version).flag("-DPADDING=1048576")
}

/// What reading the file and hashing it costs by itself.
fn read_file(path: &Path) -> Times {
    Times::of(RUNS, || {
        std::hint::black_box(std::fs::read(path).expect("readable"));
    })
}

/// From the request to serving, verified, mapped, initialised and on record; the file is in the page cache.
pub(crate) fn load() -> Row {
    let site = Site::new();
    // Every load has a digest of its own, so that every load maps.
    let paths: Vec<_> = (0..RUNS).map(|run| site.add(&megabyte(&format!("1.0.{run}")))).collect();
    let kernel = site.start(&["counter"]);
    let mut times = Times::new();
    for path in &paths {
        let started = std::time::Instant::now();
        kernel.loader().load_blocking(path, None).expect("loads");
        times.add(started.elapsed(), 1);
        kernel.unload_blocking("counter").expect("unloads");
    }
    kernel.shutdown_blocking();
    let library = site.root().join(&paths[0]).join("linux-x86_64/libcounter.so");
    let (p50_ns, baseline_ns) = (times.p50(), read_file(&library).p50());
    Row {
        what: "load: verify, map, init, 1 MB, warm",
        must: "<= 200 ms",
        goal: "<= 10 ms",
        p50_ns,
        p99_ns: times.p99(),
        baseline: "reading the file",
        baseline_ns,
        must_held: p50_ns <= 200_000_000,
        goal_met: p50_ns <= 10_000_000,
    }
}

/// All that callers can notice of a reload: the pointer store.
pub(crate) fn swap() -> Row {
    let (mut swaps, mut stores) = (Times::new(), Times::new());
    reloads(|receipt| swaps.add(receipt.swap, 1));
    let pointer = std::sync::atomic::AtomicUsize::new(0);
    stores.merge(&Times::of(RUNS, || pointer.store(1, std::sync::atomic::Ordering::SeqCst)));
    let p50_ns = swaps.p50();
    Row {
        what: "swap: what callers see",
        must: "-",
        goal: "one pointer store",
        p50_ns,
        p99_ns: swaps.p99(),
        baseline: "an atomic store, timed alone",
        baseline_ns: stores.p50(),
        must_held: true,
        goal_met: p50_ns <= 10_000,
    }
}

/// A whole reload of a 1 MB plugin without calls in flight.
pub(crate) fn reload() -> Row {
    let mut times = Times::new();
    reloads(|receipt| times.add(receipt.total, 1));
    let p50_ns = times.p50();
    Row {
        what: "swap end to end, no calls in flight, 1 MB",
        must: "<= 150 ms",
        goal: "<= 5 ms",
        p50_ns,
        p99_ns: times.p99(),
        baseline: "two synced log writes",
        baseline_ns: synced_writes().p50(),
        must_held: p50_ns <= 150_000_000,
        goal_met: p50_ns <= 5_000_000,
    }
}

/// Two small synced writes: the intent and the outcome cannot be cheaper.
fn synced_writes() -> Times {
    use std::io::Write as _;
    let dir = Site::new();
    let mut file = std::fs::File::create(dir.path().join("log")).expect("a file");
    Times::of(RUNS, || {
        for _ in 0..2 {
            file.write_all(&[0; 512]).expect("written");
            file.sync_data().expect("synced");
        }
    })
}

fn reloads(mut each: impl FnMut(themis_kernel::lifecycle::ReloadReceipt)) {
    let site = Site::new();
    let paths = [site.add(&megabyte("1.0.0")), site.add(&megabyte("2.0.0"))];
    let kernel = site.start(&["counter"]);
    kernel.loader().load_blocking(&paths[0], None).expect("loads");
    let next = Cell::new(1);
    for _ in 0..RUNS {
        let path = &paths[next.get() % 2];
        next.set(next.get() + 1);
        each(kernel.reloads().reload_module_blocking("counter", path).expect("reloads"));
    }
    kernel.shutdown_blocking();
}

/// From the request to the swap; the audit record follows.
pub(crate) fn rollback() -> Row {
    let site = Site::new();
    let paths = [site.add(&megabyte("1.0.0")), site.add(&megabyte("2.0.0"))];
    let kernel = site.start(&["counter"]);
    kernel.loader().load_blocking(&paths[0], None).expect("loads");
    kernel.reloads().reload_module_blocking("counter", &paths[1]).expect("reloads");
    let times = Times::of(RUNS * 5, || {
        kernel.reloads().rollback_blocking("counter").expect("rolls back");
    });
    kernel.shutdown_blocking();
    let p50_ns = times.p50();
    Row {
        what: "rollback, answered",
        must: "<= 500 ms",
        goal: "<= 1 ms",
        p50_ns,
        p99_ns: times.p99(),
        baseline: "a thread's round trip over channels",
        baseline_ns: channel_round_trip().p50(),
        must_held: p50_ns <= 500_000_000,
        goal_met: p50_ns <= 1_000_000,
    }
}

fn channel_round_trip() -> Times {
    let (ask, asked) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<()>>();
    let answering = std::thread::spawn(move || {
        while let Ok(reply) = asked.recv() {
            reply.send(()).expect("awaited");
        }
    });
    let times = Times::of(RUNS * 5, || {
        let (reply, answer) = std::sync::mpsc::channel();
        ask.send(reply).expect("answered");
        answer.recv().expect("an answer");
    });
    drop(ask);
    answering.join().expect("ends");
    times
}
