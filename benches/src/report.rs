//! The rows of the table, and how times are collected.

use std::time::{Duration, Instant};

use comfy_table::Table;
use hdrhistogram::Histogram;
use serde::Serialize;

/// One promised number.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What is measured.
    pub(crate) what: &'static str,
    /// What the specification demands.
    pub(crate) must: &'static str,
    /// Where the project means to be.
    pub(crate) goal: &'static str,
    /// Median, in nanoseconds.
    pub(crate) p50_ns: u64,
    /// 99th percentile, in nanoseconds.
    pub(crate) p99_ns: u64,
    /// What it is compared with.
    pub(crate) baseline: &'static str,
    /// Median of the baseline, in nanoseconds.
    pub(crate) baseline_ns: u64,
    /// Whether the specification's bound held.
    pub(crate) must_held: bool,
    /// Whether the goal was met.
    pub(crate) goal_met: bool,
}

/// An hour, in tenths of a nanosecond: longer than anything here takes.
const TENTHS_MAX: u64 = 36_000_000_000_000;

/// Times of one thing.
#[derive(Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, TENTHS_MAX, 3).expect("valid bounds"))
    }

    /// Times `what` as often as asked.
    pub(crate) fn of(runs: usize, mut what: impl FnMut()) -> Self {
        let mut times = Self::new();
        for _ in 0..runs {
            let started = Instant::now();
            what();
            times.add(started.elapsed(), 1);
        }
        times
    }

    /// As [`Times::of`] for what is too short to be timed alone: the mean of each batch counts.
    pub(crate) fn of_batches(batches: usize, batch: u32, mut what: impl FnMut()) -> Self {
        let mut times = Self::new();
        for _ in 0..batches {
            let started = Instant::now();
            for _ in 0..batch {
                what();
            }
            times.add(started.elapsed(), batch);
        }
        times
    }

    pub(crate) fn add(&mut self, elapsed: Duration, batch: u32) {
        // Tenths of a nanosecond: a call is a few nanoseconds.
        let tenths = elapsed.as_nanos() * 10 / u128::from(batch);
        self.0.saturating_record(u64::try_from(tenths).unwrap_or(u64::MAX).max(1));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same precision and resize");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn p50(&self) -> u64 {
        self.0.value_at_quantile(0.5) / 10
    }

    pub(crate) fn p99(&self) -> u64 {
        self.0.value_at_quantile(0.99) / 10
    }
}

/// The table for people.
pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "what",
        "must",
        "held",
        "goal",
        "met",
        "p50",
        "p99",
        "baseline",
        "baseline p50",
        "ratio",
    ]);
    let yes = |held| if held { "yes" } else { "NO" };
    for row in rows {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = row.p50_ns as f64 / row.baseline_ns.max(1) as f64;
        table.add_row([
            row.what,
            row.must,
            yes(row.must_held),
            row.goal,
            yes(row.goal_met),
            &time(row.p50_ns),
            &time(row.p99_ns),
            row.baseline,
            &time(row.baseline_ns),
            &format!("{ratio:.2}"),
        ]);
    }
    table
}

/// A time in the unit people would use.
pub(crate) fn time(ns: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits for people")]
    let ns_float = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns_float / 1e3),
        _ => format!("{:.2} ms", ns_float / 1e6),
    }
}
