//! The process tier: what a plugin in a worker can do, and what becomes of it when it does more.

use themis_kernel::ids::Tier;
use themis_tests::{Fixture, Site};

#[test]
fn a_plugin_answers_from_its_worker() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let mut config = site.config(&[]);
    config.default_tier = Tier::Process;
    let kernel = themis_kernel::Kernel::start_blocking(config).unwrap();
    let loaded = kernel.loader().load_blocking(&path, None);
    let counter = loaded.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(counter.call("version", b"").unwrap().bytes, b"1.0.0");
    let started = std::time::Instant::now();
    for _ in 0..10_000 {
        assert_eq!(counter.call("echo", b"hello").unwrap().bytes, b"hello");
    }
    println!("{:?} a call", started.elapsed() / 10_000);
    kernel.shutdown_blocking();
}
