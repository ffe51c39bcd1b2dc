//! Experiments: counting an outcome beside a locked map and the bare metrics macro, and looking at a thousand of them.

use std::collections::HashMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use themis_kernel::ab::assign::{Assignment, WEIGHTS_SUM, Weights};
use themis_kernel::ab::live::Live;
use themis_kernel::ab::report;
use themis_kernel::ab::spec::{Spec, Treatment};
use themis_tests::Timestamp;

use crate::report::{Row, Times};

const BATCHES: usize = 2_000;
const BATCH: u32 = 500;
const EXPERIMENTS: usize = 1_000;
const ROUNDS: usize = 10;

fn spec(id: usize) -> Spec {
    let treatment =
        Treatment { name: "next".parse().expect("a name"), path: PathBuf::from("geo/1.1.0") };
    let id = format!("experiment-{id}").parse().expect("a name");
    Spec::new(id, "geo".parse().expect("a name"), vec![treatment]).expect("two arms")
}

/// On so many threads at once, each in batches.
fn on_threads(threads: usize, what: impl Fn(u32) + Sync) -> Times {
    let mut all = Times::new();
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut number = 0;
                    Times::of_batches(BATCHES, BATCH, || {
                        what(number);
                        number += 1;
                    })
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().expect("it ends")).collect::<Vec<_>>()
    });
    times.iter().for_each(|it| all.merge(it));
    all
}

/// One outcome, and its latency, told to the arm that served.
fn record_on(threads: usize, what: &'static str) -> Vec<Row> {
    let live = Live::new(spec(0));
    let ours = on_threads(threads, |number| {
        live.record(1, f64::from(number % 10 / 9)).expect("a conversion");
    });
    let locked: Mutex<HashMap<(String, String), (u64, u64)>> = Mutex::default();
    let theirs = on_threads(threads, |number| {
        let key = ("experiment-0".to_owned(), "next".to_owned());
        let mut locked = locked.lock().expect("nobody panics");
        let entry = locked.entry(key).or_default();
        (entry.0, entry.1) = (entry.0 + 1, entry.1 + u64::from(number % 10 / 9));
    });
    let bare = on_threads(threads, |_| {
        metrics::counter!("bench_requests_total", "test" => "experiment-0", "variant" => "next")
            .increment(1);
    });
    let row = |baseline, times: &Times| Row {
        what,
        must: "<= 2 us",
        goal: "<= 150 ns",
        p50_ns: ours.p50(),
        p99_ns: ours.p99(),
        baseline,
        baseline_ns: times.p50(),
        must_held: ours.p99() <= 2_000,
        goal_met: ours.p50() <= 150,
    };
    vec![
        row("Mutex<HashMap<(String, String), …>>", &theirs),
        row("the metrics macro, without a recorder", &bare),
    ]
}

pub(crate) fn record() -> Vec<Row> {
    [
        (1, "an outcome counted, 1 thread"),
        (2, "an outcome counted, 2 threads"),
        (4, "an outcome counted, 4 threads"),
        (8, "an outcome counted, 8 threads"),
    ]
    .into_iter()
    .flat_map(|(threads, what)| record_on(threads, what))
    .collect()
}

pub(crate) fn assign() -> Row {
    let weights = Weights::even(2).expect("two arms");
    let assignment = Assignment::new("bench", WEIGHTS_SUM, &["control", "next"], &weights);
    let units: Vec<String> = (0..1_000).map(|unit| format!("user-{unit:08}-{unit:024}")).collect();
    let mut at = 0;
    let ours = Times::of_batches(BATCHES, BATCH, || {
        at = (at + 1) % units.len();
        black_box(assignment.arm_of(assignment.hash(units[at].as_bytes())));
    });
    let empty = Times::of_batches(BATCHES, BATCH, || {
        black_box(units[0].as_bytes());
    });
    Row {
        what: "assignment of a unit of 38 bytes to one of two arms",
        must: "-",
        goal: "<= 50 ns",
        p50_ns: ours.p50(),
        p99_ns: ours.p99(),
        baseline: "an empty loop",
        baseline_ns: empty.p50(),
        must_held: true,
        goal_met: ours.p50() <= 50,
    }
}

/// Everything that is looked at each second, for all of them.
pub(crate) fn evaluate() -> Row {
    let all: Vec<_> = (0..EXPERIMENTS).map(|id| Live::new(spec(id))).collect();
    for live in &all {
        for number in 0..2_000_u32 {
            live.record(0, f64::from(number % 20 / 19)).expect("a conversion");
            live.record(1, f64::from(number % 18 / 17)).expect("a conversion");
        }
    }
    let now = Timestamp::now();
    let mut ours = Times::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for live in &all {
            black_box(report::of(live, now));
        }
        ours.add(started.elapsed(), 1);
    }
    let goal = Duration::from_millis(100);
    Row {
        what: "1,000 running experiments looked at",
        must: "-",
        goal: "<= 100 ms",
        p50_ns: ours.p50(),
        p99_ns: ours.p99(),
        baseline: "the goal",
        baseline_ns: u64::try_from(goal.as_nanos()).unwrap_or(u64::MAX),
        must_held: true,
        goal_met: u128::from(ours.p50()) <= goal.as_nanos(),
    }
}

/// From what is kept to what counts again.
pub(crate) fn restore() -> Row {
    let live = Live::new(spec(0));
    for number in 0..20_000_u32 {
        live.record(1, f64::from(number % 20 / 19)).expect("a conversion");
    }
    let text = serde_json::to_vec(&live.stored()).expect("it can be written");
    let each = Times::of(EXPERIMENTS, || {
        let stored = serde_json::from_slice(&text).expect("it can be read");
        drop(black_box(Live::restore(stored)));
    });
    Row {
        what: "one of 10,000 experiments restored",
        must: "-",
        goal: "-",
        p50_ns: each.p50(),
        p99_ns: each.p99(),
        baseline: "reading its record's text",
        baseline_ns: Times::of(EXPERIMENTS, || {
            drop(black_box(serde_json::from_slice::<serde_json::Value>(&text).expect("JSON")));
        })
        .p50(),
        must_held: true,
        goal_met: true,
    }
}
