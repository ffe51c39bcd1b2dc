//! What is kept of replaced versions is counted, explained, and bounded.

use themis_kernel::config::WhenSpent;
use themis_kernel::event::LifecycleEvent;
use themis_kernel::lifecycle::Retention;
use themis_kernel::{Config, Kernel, PluginRef};
use themis_tests::{Fixture, Site};

const VERSIONS: usize = 5;

fn site() -> (Site, Vec<String>) {
    let site = Site::new();
    let paths = (0..VERSIONS)
        .map(|number| site.add(&Fixture::c("counter.c", "counter", &format!("1.0.{number}"))))
        .collect();
    (site, paths)
}

fn reasons(plugin: PluginRef) -> Vec<(String, Retention, u64)> {
    let kept = plugin.info().budget.generations.into_iter();
    kept.map(|it| (it.version.to_string(), it.reason, it.leases)).collect()
}

#[test]
fn every_generation_that_is_kept_has_a_reason() {
    if themis_tests::only_in_process("an image goes with its worker") {
        return;
    }
    let (site, paths) = site();
    let kernel = site.start(&["counter"]);
    let reload = |path: &str| kernel.reloads().reload_module_blocking("counter", path).unwrap();
    let plugin = kernel.loader().load_blocking(&paths[0], None).unwrap();
    let lease = plugin.lease().unwrap();
    for path in &paths[1..4] {
        reload(path);
    }
    use Retention::{Leased, Parked, Previous, Serving};
    let of = |version: &str, reason, leases| (version.to_owned(), reason, leases);
    // Every step but the lease's end is done by the time its reload is answered, or a moment later.
    let expected = [
        of("1.0.0", Leased, 1),
        of("1.0.1", Parked, 0),
        of("1.0.2", Previous, 0),
        of("1.0.3", Serving, 0),
    ];
    while reasons(plugin) != expected {
        std::thread::yield_now();
    }
    drop(lease);
    while reasons(plugin) != expected[1..] {
        std::thread::yield_now();
    }
    let budget = plugin.info().budget;
    assert_eq!(budget.images, 4, "an image is mapped for good");
    let files: u64 = paths[..4]
        .iter()
        .map(|path| site.root().join(path).join("linux-x86_64/libcounter.so"))
        .map(|path| std::fs::metadata(path).unwrap().len())
        .sum();
    assert!(budget.image_bytes >= files, "{} of {files}", budget.image_bytes);
    let totals = kernel.budget();
    assert_eq!((totals.generations, totals.images, totals.leases), (3, 4, 0));
    assert_eq!(totals.image_bytes, budget.image_bytes);
    kernel.shutdown_blocking();
}

/// Leases on every version, until the budget is spent.
fn spend(config: Config, paths: &[String]) -> (Kernel, PluginRef, Vec<Result<(), &'static str>>) {
    let kernel = Kernel::start_blocking(config).unwrap();
    let plugin = kernel.loader().load_blocking(&paths[0], None).unwrap();
    let mut leases = vec![plugin.lease().unwrap()];
    let mut outcomes = Vec::new();
    for path in &paths[1..] {
        let outcome = kernel.reloads().reload_module_blocking("counter", path);
        outcomes.push(outcome.map(drop).map_err(|error| error.code()));
        leases.push(plugin.lease().unwrap());
    }
    drop(leases);
    (kernel, plugin, outcomes)
}

#[test]
fn a_spent_budget_refuses_the_load_and_what_serves_serves_on() {
    let (site, paths) = site();
    let mut config = site.config(&["counter"]);
    config.budget.generations = 3;
    let (kernel, plugin, outcomes) = spend(config, &paths);
    assert_eq!(outcomes, [Ok(()), Ok(()), Err("load.budget_spent"), Err("load.budget_spent")]);
    assert_eq!(plugin.call(1, b"").unwrap().bytes, b"1.0.2");
    kernel.shutdown_blocking();
}

#[test]
fn images_count_by_their_bytes_and_only_once() {
    if themis_tests::only_in_process("an image goes with its worker") {
        return;
    }
    let (site, paths) = site();
    let mut config = site.config(&["counter"]);
    // Room for two of them: a file of some 16 KiB each, and pages of their own.
    config.budget.image_bytes = 64 << 10;
    let (kernel, plugin, outcomes) = spend(config, &paths);
    assert!(outcomes.contains(&Err("load.budget_spent")), "{outcomes:?}");
    let used = plugin.info().budget.image_bytes;
    assert!(used <= 64 << 10, "{used}");
    // What is mapped already costs nothing more.
    kernel.reloads().reload_module_blocking("counter", &paths[0]).unwrap();
    assert_eq!(plugin.info().budget.image_bytes, used);
    kernel.shutdown_blocking();
}

#[test]
fn a_budget_that_only_warns_tells_and_goes_on() {
    let (site, paths) = site();
    let mut config = site.config(&["counter"]);
    config.budget.generations = 2;
    config.budget.when_spent = WhenSpent::Warn;
    let kernel = Kernel::start_blocking(config).unwrap();
    let mut events = kernel.subscribe();
    let plugin = kernel.loader().load_blocking(&paths[0], None).unwrap();
    let leases: Vec<_> = paths[1..]
        .iter()
        .map(|path| {
            let lease = plugin.lease().unwrap();
            kernel.reloads().reload_module_blocking("counter", path).unwrap();
            lease
        })
        .collect();
    let told = loop {
        if let LifecycleEvent::BudgetExceeded { what, .. } =
            events.next_blocking().unwrap().unwrap().what
        {
            break what;
        }
    };
    assert_eq!(told, "2 generations are initialised, the limit is 2");
    drop(leases);
    kernel.shutdown_blocking();
}
