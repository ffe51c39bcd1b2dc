//! What lasts: thousands of reloads of a stateful plugin under load, and the death of every actor under load.
//!
//! These say more than a median, so they have tables of their own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use comfy_table::Table;
use serde::Serialize;
use themis_kernel::drill::{self, Victim};
use themis_kernel::{Kernel, PluginRef};
use themis_tests::{Fixture, Site};

use crate::report::{Times, time};

const VERSION: u32 = 1;
const ADD: u32 = 6;
const READ: u32 = 7;
/// Reloads before memory is looked at: queues, buffers of the store and pools of the allocator fill up first.
const WARM_UP: usize = 500;

/// One endurance run.
#[derive(Debug, Serialize)]
pub(crate) struct Endurance {
    reloads: usize,
    digests: usize,
    callers: usize,
    calls: u64,
    /// Attempted and not answered.
    lost: u64,
    /// Answered for another version, or writes that the plugin's count does not have.
    wrong: u64,
    per_reload_us: u64,
    /// What the images cost by the kernel's own account, since the warm-up.
    budget_bytes: u64,
    /// What the process grew by since the warm-up: shared pages are the images' files.
    shared_bytes: i64,
    anonymous_bytes: i64,
}

/// Reloads a stateful plugin so often, by turns to each of `digests` versions, while `callers` threads call it.
pub(crate) fn reloads(reloads: usize, digests: usize, callers: usize) -> Endurance {
    let site = Site::new();
    let versions = (0..digests).map(|number| format!("1.0.{number}"));
    let paths: Vec<_> =
        versions.map(|it| site.add(&Fixture::c("stateful.c", "stateful", &it))).collect();
    let kernel = site.start(&["stateful"]);
    let plugin = kernel.loader().load_blocking(&paths[0], None).expect("loads");
    let load = Load::default();
    let (mut before, mut after) = (Memory::default(), Memory::default());
    let mut took = Duration::ZERO;
    std::thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| load.call(plugin));
        }
        // The first digests only: the others are mapped when it counts.
        let warm = |turn: usize| turn % digests.min(2);
        for turn in 0..WARM_UP {
            reload(&kernel, &paths[warm(turn + 1)]);
        }
        before = Memory::of(plugin);
        let began = Instant::now();
        for turn in 0..reloads {
            reload(&kernel, &paths[(WARM_UP + turn + 1) % digests]);
        }
        took = began.elapsed();
        after = Memory::of(plugin);
        load.stop.store(true, Ordering::SeqCst);
    });
    let reply = plugin.call(READ, b"").expect("answers").bytes;
    let counted = u64::from_le_bytes(reply.try_into().expect("eight bytes"));
    let [calls, lost, wrong, writes] =
        [&load.calls, &load.lost, &load.wrong, &load.writes].map(|it| it.load(Ordering::SeqCst));
    kernel.shutdown_blocking();
    Endurance {
        reloads,
        digests,
        callers,
        calls,
        lost,
        wrong: wrong + counted.abs_diff(writes),
        per_reload_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / reloads as u64,
        budget_bytes: after.budget - before.budget,
        shared_bytes: after.shared - before.shared,
        anonymous_bytes: after.anonymous - before.anonymous,
    }
}

fn reload(kernel: &Kernel, path: &str) {
    kernel.reloads().reload_module_blocking("stateful", path).expect("reloads");
}

/// What callers do and count.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    calls: AtomicU64,
    lost: AtomicU64,
    wrong: AtomicU64,
    writes: AtomicU64,
}

impl Load {
    fn call(&self, plugin: PluginRef) {
        while !self.stop.load(Ordering::SeqCst) {
            self.calls.fetch_add(2, Ordering::Relaxed);
            match plugin.call(VERSION, b"") {
                Ok(answer) => {
                    let version = answer.served_by.version.to_string();
                    let wrong = answer.bytes != version.as_bytes();
                    self.wrong.fetch_add(u64::from(wrong), Ordering::Relaxed);
                }
                Err(_) => _ = self.lost.fetch_add(1, Ordering::Relaxed),
            }
            match plugin.call(ADD, b"") {
                Ok(_) => self.writes.fetch_add(1, Ordering::Relaxed),
                Err(_) => self.lost.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
}

/// What the process has, and what the kernel accounts for.
#[derive(Default, Clone, Copy)]
struct Memory {
    budget: u64,
    shared: i64,
    anonymous: i64,
}

impl Memory {
    fn of(plugin: PluginRef) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("readable");
        let kib = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            number.and_then(|number| number.parse::<i64>().ok()).unwrap_or(0) * 1_024
        };
        let budget = plugin.info().budget.image_bytes;
        Self { budget, shared: kib("RssShmem:"), anonymous: kib("RssAnon:") }
    }
}

/// The table for people.
pub(crate) fn table(runs: &[Endurance]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "reloads under load",
        "digests",
        "callers",
        "calls",
        "lost",
        "wrong",
        "per reload",
        "budget grew",
        "image pages grew",
        "other memory grew",
    ]);
    let kib = |bytes: i64| format!("{} KiB", bytes / 1_024);
    for run in runs {
        table.add_row([
            run.reloads.to_string(),
            run.digests.to_string(),
            run.callers.to_string(),
            run.calls.to_string(),
            run.lost.to_string(),
            run.wrong.to_string(),
            time(run.per_reload_us * 1_000),
            kib(i64::try_from(run.budget_bytes).unwrap_or(i64::MAX)),
            kib(run.shared_bytes),
            kib(run.anonymous_bytes),
        ]);
    }
    table
}

/// How long callers waited while actors died.
#[derive(Debug, Serialize)]
pub(crate) struct Deaths {
    victim: String,
    kills: usize,
    calls: u64,
    lost: u64,
    p99_ns: u64,
    /// To the same callers left alone, measured between the kills.
    ratio: f64,
}

/// Kills each actor some times under load, and compares with callers that are left alone.
pub(crate) fn deaths() -> Vec<Deaths> {
    let site = Site::new();
    let path = site.add(&Fixture::c("stateful.c", "stateful", "1.0.0"));
    let names = {
        let kernel = site.start(&["stateful"]);
        let roles = drill::roles(&kernel);
        kernel.shutdown_blocking();
        roles
    };
    let victims = names.into_iter().map(Victim::Role);
    victims
        .chain([Victim::Plugin("stateful".to_owned())])
        .map(|it| die(&site, &path, &it))
        .collect()
}

/// Phases of a tenth of a second, by turns undisturbed and with a death at the beginning.
fn die(site: &Site, path: &str, victim: &Victim) -> Deaths {
    const KILLS: usize = 4;
    const PHASE: Duration = Duration::from_millis(100);
    let kernel = site.start(&["stateful"]);
    let plugin = kernel.loader().load_blocking(path, None).expect("loads");
    let killer = drill::killer(&kernel);
    let (stop, disturbed) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut times = BTreeMap::from([(false, Times::new()), (true, Times::new())]);
    let (mut calls, mut lost) = (0, 0);
    std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| timed(plugin, &stop, &disturbed))).collect();
        // Nobody sends: receiving is waiting.
        let (_clock, tick) = std::sync::mpsc::channel::<()>();
        for _ in 0..KILLS {
            for disturb in [false, true] {
                disturbed.store(disturb, Ordering::SeqCst);
                if disturb {
                    assert!(killer.kill(victim), "{victim:?} is there");
                }
                tick.recv_timeout(PHASE).unwrap_or_default();
            }
        }
        stop.store(true, Ordering::SeqCst);
        for caller in callers {
            let own = caller.join().expect("callers do not panic");
            (calls, lost) = (calls + own.calls, lost + own.lost);
            for (disturbed, own) in own.times {
                times.entry(disturbed).or_insert_with(Times::new).merge(&own);
            }
        }
    });
    kernel.shutdown_blocking();
    let p99 = |disturbed: bool| times.get(&disturbed).map_or(0, Times::p99);
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = p99(true) as f64 / p99(false).max(1) as f64;
    let victim = match victim {
        Victim::Role(name) => (*name).to_owned(),
        Victim::Plugin(name) => format!("actor of {name}"),
    };
    Deaths { victim, kills: KILLS, calls, lost, p99_ns: p99(true), ratio }
}

/// What one caller saw.
struct Seen {
    calls: u64,
    lost: u64,
    times: BTreeMap<bool, Times>,
}

fn timed(plugin: PluginRef, stop: &AtomicBool, disturbed: &AtomicBool) -> Seen {
    let times = BTreeMap::from([(false, Times::new()), (true, Times::new())]);
    let mut seen = Seen { calls: 0, lost: 0, times };
    while !stop.load(Ordering::Relaxed) {
        let phase = disturbed.load(Ordering::Relaxed);
        let began = Instant::now();
        let answered = plugin.call(ADD, b"").is_ok();
        let took = began.elapsed();
        seen.calls += 1;
        seen.lost += u64::from(!answered);
        if let Some(times) = seen.times.get_mut(&phase) {
            times.add(took, 1);
        }
    }
    seen
}

/// The table for people.
pub(crate) fn deaths_table(deaths: &[Deaths]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "killed under load",
        "times",
        "calls",
        "lost",
        "callers' p99",
        "to undisturbed",
    ]);
    for it in deaths {
        table.add_row([
            it.victim.clone(),
            it.kills.to_string(),
            it.calls.to_string(),
            it.lost.to_string(),
            time(it.p99_ns),
            format!("{:.2}", it.ratio),
        ]);
    }
    table
}
