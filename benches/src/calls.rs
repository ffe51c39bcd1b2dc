//! Look-up and call: what every statement of a database pays.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;

use themis_kernel::admission::{self, PluginRoot};
use themis_kernel::lifecycle::LoadRequest;
use themis_tests::{Fixture, Site};

use crate::report::{Row, Times};

const READERS: usize = 8;
const BATCHES: usize = 2_000;
const BATCH: u32 = 1_000;

fn counter(version: &str) -> Fixture {
    Fixture::c("counter.c", "counter", version)
}

/// Runs `read` on eight threads while `write` goes on.
fn with_readers(read: impl Fn() + Sync, write: impl Fn() + Sync) -> Times {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                write();
            }
        });
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| Times::of_batches(BATCHES / READERS, BATCH, &read)))
            .collect();
        let mut all = Times::new();
        for reader in readers {
            all.merge(&reader.join().expect("a reader"));
        }
        done.store(true, Ordering::Relaxed);
        writer.join().expect("the writer");
        all
    })
}

/// Look-up by name with eight readers and a writer that reloads all the time.
pub(crate) fn look_up() -> Row {
    let site = Site::new();
    let paths = [site.add(&counter("1.0.0")), site.add(&counter("2.0.0"))];
    let kernel = site.start(&["counter"]);
    kernel.loader().load_blocking(&paths[0], None).expect("loads");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let reload = || {
        let path = &paths[next.fetch_add(1, Ordering::Relaxed) % 2];
        kernel.reloads().reload_module_blocking("counter", path).expect("reloads");
    };
    let ours = with_readers(
        || {
            black_box(kernel.plugin(black_box("counter")));
        },
        reload,
    );
    // The plain alternative: a lock around a map of counted references, replaced as often.
    let map = RwLock::new(HashMap::from([("counter".to_owned(), Arc::new(0_u64))]));
    let baseline = with_readers(
        || {
            black_box(map.read().expect("lock").get(black_box("counter")).map(Arc::clone));
        },
        || {
            reload();
            map.write().expect("lock").insert("counter".to_owned(), Arc::new(1));
        },
    );
    kernel.shutdown_blocking();
    let (p50_ns, baseline_ns) = (ours.p50(), baseline.p50());
    Row {
        what: "look-up by name, 8 readers, reloading writer",
        must: "<= 1 us",
        goal: "<= 50 ns p50, >= 3x RwLock<HashMap>",
        p50_ns,
        p99_ns: ours.p99(),
        baseline: "RwLock<HashMap<String, Arc>>",
        baseline_ns,
        must_held: p50_ns <= 1_000,
        goal_met: p50_ns <= 50 && baseline_ns >= 3 * p50_ns,
    }
}

/// A call through the kernel beside the same call on the bare instance: the function pointer and its reply sink.
pub(crate) fn call() -> Row {
    let site = Site::new();
    let path = site.add(&counter("1.0.0"));
    let kernel = site.start(&["counter"]);
    let plugin = kernel.loader().load_blocking(&path, None).expect("loads");
    let bare = bare_instance(&site, &path);
    let request = [7_u8; 64];
    let mut reply = Vec::with_capacity(64);
    let (mut ours, mut baseline) = (Times::new(), Times::new());
    for _ in 0..20 {
        ours.merge(&Times::of_batches(BATCHES / 20, BATCH, || {
            reply.clear();
            black_box(plugin.call_into(2, black_box(&request), &mut reply)).expect("answers");
        }));
        baseline.merge(&Times::of_batches(BATCHES / 20, BATCH, || {
            reply.clear();
            bare(black_box(&request), &mut reply);
        }));
    }
    kernel.shutdown_blocking();
    let (p50_ns, baseline_ns) = (ours.p50(), baseline.p50());
    Row {
        what: "in-process call, 64 bytes echoed",
        must: "-",
        goal: "<= 50 ns over the bare function",
        p50_ns,
        p99_ns: ours.p99(),
        baseline: "bare instance",
        baseline_ns,
        must_held: true,
        goal_met: p50_ns.saturating_sub(baseline_ns) <= 50,
    }
}

/// The same image, initialised once more, called without the kernel.
fn bare_instance(site: &Site, path: &str) -> impl Fn(&[u8], &mut Vec<u8>) + use<> {
    let config = site.config(&["counter"]);
    let root = PluginRoot::open(&site.root()).expect("a root");
    let request = LoadRequest::at(path);
    let now = themis_tests::now();
    let scratch = site.path().join("var/images");
    let admitted = admission::admit(&root, &request, &config.policy(), now, &scratch);
    let instance = themis_tests::bare_instance(&admitted.expect("admitted"));
    move |request, reply| {
        let mut buffer = themis_kernel::instance::ReplyBuffer::new(reply);
        black_box(instance.call(2, request, &mut buffer));
    }
}
