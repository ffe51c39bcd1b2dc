//! Experiments with real plugins: units keep their arm, winners become current without a lost call, arms that die leave.

use std::time::Duration;

use themis_kernel::ab::lifecycle::{Promotion, Status};
use themis_kernel::ab::policy::{Allocation, GivenUp, Policy};
use themis_kernel::ab::spec::{Label, Spec, Treatment};
use themis_kernel::call::CallError;
use themis_kernel::lifecycle::Retention;
use themis_kernel::{Config, Kernel, PluginRef};
use themis_tests::{Fixture, Site};

struct Bench {
    site: Site,
    config: Config,
    kernel: Kernel,
    counter: PluginRef,
}

impl Bench {
    /// Version 1.0.0 serves, 1.1.0 lies beside it.
    fn new(tier: &str) -> Self {
        Self::of(tier, |version| Fixture::c("counter.c", "counter", version))
    }

    fn of(tier: &str, fixture: impl Fn(&str) -> Fixture) -> Self {
        let site = Site::new();
        for version in ["1.0.0", "1.1.0"] {
            site.add(&fixture(version));
        }
        let mut config = site.config(&["counter"]);
        config.default_tier = tier.parse().unwrap();
        config.probation.window = Duration::ZERO;
        let kernel = Kernel::start_blocking(config.clone()).unwrap();
        let counter = kernel.loader().load_blocking("counter/1.0.0", None).unwrap();
        Self { site, config, kernel, counter }
    }

    fn spec(&self, id: &str) -> Spec {
        let treatment = Treatment { name: "next".parse().unwrap(), path: "counter/1.1.0".into() };
        let (id, plugin) = (id.parse().unwrap(), "counter".parse().unwrap());
        let mut spec = Spec::new(id, plugin, vec![treatment]).unwrap();
        spec.policy = Policy { duration_min: Duration::ZERO, ..Policy::default() };
        spec
    }

    /// The kernel ends in good order and starts again.
    fn again(self) -> Self {
        let Self { site, kernel, config, .. } = self;
        kernel.shutdown_blocking();
        let kernel = Kernel::start_blocking(config.clone()).unwrap();
        let counter = kernel.loader().load_blocking("counter/1.0.0", None).unwrap();
        Self { site, kernel, counter, config }
    }

    /// The version that serves a unit, and its arm.
    fn served(&self, unit: u32) -> (String, Option<String>) {
        let served = self.counter.call_for(unit.to_string().as_bytes(), "version", b"").unwrap();
        let arm = served.assigned.map(|it| it.arm().to_owned());
        (String::from_utf8(served.answer.bytes).unwrap(), arm)
    }

    /// Waits for what the kernel does by itself, as its own ticks allow.
    fn until(&self, id: &str, done: impl Fn(&Status) -> bool) -> Status {
        let mut events = self.kernel.subscribe();
        loop {
            let status = self.kernel.experiments().report(id).unwrap().status;
            if done(&status) {
                return status;
            }
            drop(themis_tests::block_on(async {
                tokio::time::timeout(Duration::from_millis(50), events.next()).await
            }));
        }
    }
}

#[test]
fn a_unit_keeps_its_arm_and_outcomes_are_counted() {
    let bench = Bench::new("in-process");
    assert_eq!(bench.served(1), ("1.0.0".to_owned(), None), "there is no experiment");
    let experiments = bench.kernel.experiments();
    experiments.create_blocking(bench.spec("first")).unwrap();
    let arms: Vec<_> = (0..1_000).map(|unit| bench.served(unit)).collect();
    for (version, arm) in &arms {
        let right = if version == "1.1.0" { "next" } else { "control" };
        assert_eq!(arm.as_deref(), Some(right));
    }
    let next = arms.iter().filter(|(version, _)| version == "1.1.0").count();
    assert!((400..600).contains(&next), "{next}");
    assert!((0..1_000).all(|unit| bench.served(unit) == arms[unit as usize]));
    assert_eq!(
        bench.counter.call("version", b"").unwrap().bytes,
        b"1.0.0",
        "others get what serves"
    );

    let report = experiments.report("first").unwrap();
    let units: f64 = report.arms.iter().filter_map(|arm| arm.units).sum();
    assert!((units - 1_000.0).abs() < 5.0, "two thousand calls of a thousand units: {units}");
    experiments.record_outcome("first", "next", 1.0).unwrap();
    experiments.record_event("first", "next", "rows", 17.0).unwrap();
    assert_eq!(experiments.report("first").unwrap().arms[1].requests, 1);
    for (test, variant, value, code) in [
        ("second", "next", 1.0, "ab.unknown"),
        ("first", "last", 1.0, "ab.unknown_arm"),
        ("first", "next", f64::NAN, "ab.value"),
        ("first", "next", 0.5, "ab.value"),
    ] {
        let error = experiments.record_outcome(test, variant, value).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    assert_eq!(experiments.create_blocking(bench.spec("first")).unwrap_err().code(), "ab.exists");
    assert_eq!(experiments.create_blocking(bench.spec("second")).unwrap_err().code(), "ab.busy");
    experiments.stop_blocking("first").unwrap();
    assert_eq!(bench.served(1), ("1.0.0".to_owned(), None));
    experiments.record_outcome("first", "next", 1.0).unwrap();
    let report = experiments.report("first").unwrap();
    assert_eq!((report.status, report.arms[1].requests), (Status::Cancelled, 1), "late: dropped");
    assert_eq!(report.dropped, 3);
    assert_eq!(experiments.stop_blocking("first").unwrap_err().code(), "ab.not_now");
    bench.kernel.shutdown_blocking();
}

#[test]
fn the_winner_becomes_current_without_a_lost_call() {
    for tier in ["in-process", "process"] {
        let bench = Bench::new(tier);
        let experiments = bench.kernel.experiments();
        experiments.create_blocking(bench.spec("win")).unwrap();
        // One in ten converts with the control, one in five with the treatment; everybody calls until it is over.
        let mut unit = 0_u32;
        let status = loop {
            let served =
                bench.counter.call_for(unit.to_string().as_bytes(), "version", b"").unwrap();
            let version = String::from_utf8(served.answer.bytes).unwrap();
            if let Some(arm) = served.assigned {
                arm.converted(unit.is_multiple_of(if version == "1.1.0" { 5 } else { 10 }));
            }
            unit += 1;
            let status = experiments.report("win").unwrap().status;
            let promoted = |it: &Status| {
                matches!(it, Status::Concluded { promotion: Promotion::Promoted, .. })
            };
            if promoted(&status) {
                break status;
            }
        };
        assert!(matches!(status, Status::Concluded { arm: 1, .. }), "{status:?}");
        assert_eq!(bench.counter.call("version", b"").unwrap().bytes, b"1.1.0", "{tier}");
        assert_eq!(bench.served(3), ("1.1.0".to_owned(), None));
        let receipt = bench.counter.info().receipt.unwrap();
        assert_eq!(receipt.to.to_string(), "1.1.0", "an ordinary reload, with its receipt");
        let records = bench.kernel.audit_records_blocking(0, 1_000).unwrap();
        let told: Vec<_> = records
            .iter()
            .filter(|it| format!("{:?}", it.event) == "Experiment")
            .filter_map(|it| it.reason.clone())
            .collect();
        assert!(told.iter().any(|it| it.contains("next has won")), "{told:?}");
        assert!(told.iter().any(|it| it.contains("promoted")), "{told:?}");
        bench.kernel.shutdown_blocking();
    }
}

#[test]
fn an_arm_that_does_not_load_leaves_everything_as_it_was() {
    let bench = Bench::new("in-process");
    let mut spec = bench.spec("broken");
    spec.treatments[0].path = "counter/9.9.9".into();
    let experiments = bench.kernel.experiments();
    assert_eq!(experiments.create_blocking(spec).unwrap_err().code(), "path.not_found");
    assert_eq!(bench.served(1), ("1.0.0".to_owned(), None));
    assert_eq!(experiments.report("broken").unwrap().status, Status::Cancelled);
    let treatment = bench.spec("x").treatments.remove(0);
    type Change<'c> = &'c dyn Fn(&mut Spec);
    let wrong: [(Change<'_>, &str); 4] = [
        (&|it| it.treatments.push(treatment.clone()), "ab.weights"),
        (&|it| it.treatments.clear(), "ab.weights"),
        (&|it| it.treatments[0].name = "control".parse().unwrap(), "ab.twice"),
        (&|it| it.allocation = Allocation::Thompson { floor: 0.01 }, "ab.allocation"),
    ];
    for (change, code) in wrong {
        let mut spec = bench.spec("wrong");
        change(&mut spec);
        assert_eq!(experiments.create_blocking(spec).unwrap_err().code(), code);
    }
    let spec = Spec { plugin: "nobody".parse().unwrap(), ..bench.spec("nobody") };
    assert_eq!(experiments.create_blocking(spec).unwrap_err().code(), "ab.not_serving");
    assert!("Ümlaut".parse::<Label>().is_err());
    bench.kernel.shutdown_blocking();
}

#[test]
fn an_arm_whose_process_dies_leaves_the_split() {
    // Method 5100 aborts.
    let flags = ["-DPARALLEL", "-DNAME=\"counter\""];
    let bench = Bench::of("process", |version| {
        let hostile = Fixture::c("hostile.c", "counter", version);
        flags.iter().fold(hostile, |it, flag| it.flag(flag))
    });
    bench.kernel.experiments().create_blocking(bench.spec("mortal")).unwrap();
    let serves = |unit: u32| {
        let served = bench.counter.call_for(&unit.to_le_bytes(), 1, b"").unwrap();
        served.answer.served_by.version.to_string()
    };
    let generations = bench.counter.info().budget.generations;
    let arm = generations.iter().find(|it| it.reason == Retention::Arm).unwrap();
    assert_eq!(arm.version.to_string(), "1.1.0");
    let unit = (0..100_u32).find(|unit| serves(*unit) == "1.1.0").unwrap();
    let ended = bench.counter.call_for(&unit.to_le_bytes(), 5100, b"").unwrap_err();
    assert!(matches!(ended, CallError::Ended { .. }), "{ended}");
    let status = bench.until("mortal", Status::is_over);
    assert_eq!(status, Status::RolledBack { why: GivenUp::NoTreatment });
    assert!((0..100).all(|unit| serves(unit) == "1.0.0"));
    bench.kernel.shutdown_blocking();
}

#[test]
fn a_promotion_that_fails_says_so_and_can_be_tried_again() {
    let bench = Bench::new("in-process");
    let experiments = bench.kernel.experiments();
    experiments.create_blocking(bench.spec("late")).unwrap();
    let dir = bench.site.root().join("counter/1.1.0");
    let away = bench.site.path().join("away");
    std::fs::rename(&dir, &away).unwrap();
    experiments.promote_blocking("late", "next").unwrap();
    let status = bench.until("late", themis_kernel::ab::manager::is_settled);
    assert!(
        matches!(&status, Status::Concluded { promotion: Promotion::Failed { code, .. }, .. } if code == "path.not_found"),
        "{status:?}"
    );
    assert_eq!(bench.served(1), ("1.0.0".to_owned(), None), "unpromoted");
    std::fs::rename(&away, &dir).unwrap();
    experiments.promote_blocking("late", "next").unwrap();
    let status = bench.until("late", themis_kernel::ab::manager::is_settled);
    assert!(
        matches!(status, Status::Concluded { promotion: Promotion::Promoted, .. }),
        "{status:?}"
    );
    assert_eq!(bench.counter.call("version", b"").unwrap().bytes, b"1.1.0");
    bench.kernel.shutdown_blocking();
}

/// 4.3 items 19 and 26: what was counted is counted once, and every unit has the arm it had.
#[test]
fn an_experiment_goes_on_after_a_restart() {
    let mut bench = Bench::new("in-process");
    bench.kernel.experiments().create_blocking(bench.spec("long")).unwrap();
    let arms: Vec<_> = (0..300).map(|unit| bench.served(unit)).collect();
    for round in 1..=3_u64 {
        let experiments = bench.kernel.experiments();
        for _ in 0..10 {
            experiments.record_outcome("long", "next", 1.0).unwrap();
            experiments.record_event("long", "control", "rows", 5.0).unwrap();
        }
        let before = experiments.report("long").unwrap();
        assert_eq!(before.arms[1].requests, 10 * round);
        // Enough of the control to judge by, if one arm alone could be judged.
        for number in 0..2_000_u32 {
            experiments.record_outcome("long", "control", f64::from(number % 2)).unwrap();
        }
        let before = experiments.report("long").unwrap();
        bench = bench.again();
        // Its arms are loaded again by the kernel itself.
        while bench.kernel.experiments().report("long").unwrap().arms.iter().any(|arm| !arm.serves)
        {
            std::thread::yield_now();
        }
        let after = bench.kernel.experiments().report("long").unwrap();
        assert_eq!(after.started, before.started);
        for (before, after) in before.arms.iter().zip(&after.arms) {
            assert_eq!((before.requests, before.units), (after.requests, after.units));
            assert_eq!((before.mean, before.latency_p99), (after.mean, after.latency_p99));
        }
        assert!((0..300).all(|unit| bench.served(unit) == arms[unit as usize]));
    }
    bench.kernel.experiments().stop_blocking("long").unwrap();
    let bench = bench.again();
    assert_eq!(bench.kernel.experiments().report("long").unwrap().status, Status::Cancelled);
    assert_eq!(bench.served(1).1, None);
    bench.kernel.shutdown_blocking();
}
