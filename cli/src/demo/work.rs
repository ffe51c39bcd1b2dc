//! The load: connections on threads of their own run real queries without pause, and check every answer.
//!
//! Lost means attempted, but neither answered nor refused by the plugin itself. Stale means that a call was
//! answered by a version after the moment from which only another one may answer: the kernel said so, or another
//! call had its answer from the newer version before this one began.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rusqlite::Connection;
use themis_kernel::call::{Answer, CallError};
use themis_kernel::{Lease, PluginRef};

use super::Sabotage;
use super::airports::{self, Airport};
use super::database;
use super::expect::{self, Distances};
use crate::output::Failure;

/// Connections, each on a thread of its own: more than the cores, so that they interrupt each other.
const CONNECTIONS: usize = 4;
/// A minute, in nanoseconds: a call that takes longer counts as that.
const LATENCY_MAX: u64 = 60_000_000_000;
const SEARCHED: &str = "sao paulo";
/// The version that passes every test and then fails.
pub(crate) const FAULTY: &str = "1.3.0";

/// Which generation of `geo` may answer now, as all callers see it.
#[derive(Debug, Default)]
struct Expected {
    /// Zero while a change is under way.
    generation: AtomicU64,
    /// What answered before the change.
    old: AtomicU64,
    /// Whether the new generation has answered during the change.
    new_seen: AtomicBool,
}

/// What was counted, by one connection or by all.
#[derive(Debug, Default, Clone)]
pub(crate) struct Totals {
    pub(crate) attempted: u64,
    pub(crate) answered: u64,
    /// By the plugin itself.
    pub(crate) refused: u64,
    /// Those of them that the faulty version is to blame for: what callers saw of it.
    pub(crate) seen_failing: u64,
    pub(crate) wrong: u64,
    pub(crate) stale: u64,
    pub(crate) bad_queries: u64,
    /// Statements that held a lease, and those of them that saw more than one version.
    pub(crate) held: u64,
    pub(crate) mixed: u64,
    /// Calls under way.
    calling: u64,
    /// Answers of `geo` by version.
    versions: BTreeMap<String, u64>,
    /// What served `geo` at the end.
    pub(crate) last_version: String,
}

impl Totals {
    pub(crate) fn lost(&self) -> u64 {
        self.attempted - self.answered - self.refused - self.calling
    }

    pub(crate) fn by_version(&self, version: &str) -> u64 {
        self.versions.get(version).copied().unwrap_or(0)
    }

    fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.answered += other.answered;
        self.refused += other.refused;
        self.seen_failing += other.seen_failing;
        self.wrong += other.wrong;
        self.stale += other.stale;
        self.bad_queries += other.bad_queries;
        self.held += other.held;
        self.mixed += other.mixed;
        self.calling += other.calling;
        for (version, count) in &other.versions {
            *self.versions.entry(version.clone()).or_default() += count;
        }
    }
}

/// The books of one connection.
#[derive(Debug)]
struct Books {
    totals: Totals,
    /// Of the last second, in nanoseconds.
    latency: Histogram<u64>,
}

/// Makes the calls of one connection and keeps its books.
#[derive(Debug)]
pub(crate) struct Caller {
    books: Mutex<Books>,
    distances: Distances,
    expected: Arc<Expected>,
    /// Which claim to break, once.
    sabotage: Option<(Sabotage, Arc<AtomicBool>)>,
    /// The version that the statement under way holds, and what has answered it.
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    generation: Option<u64>,
}

impl Caller {
    /// Runs one statement with every call of `geo` on one version.
    fn holding<T>(&self, geo: PluginRef, statement: impl FnOnce() -> T) -> Result<T, Failure> {
        let lease = geo.lease()?;
        *self.held() = Some(Held { lease, generation: None });
        let done = statement();
        *self.held() = None;
        self.books().totals.held += 1;
        Ok(done)
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On the version the statement holds, if it holds one.
    fn call_plugin(
        &self,
        plugin: PluginRef,
        is_geo: bool,
        method: u32,
        request: &[u8],
    ) -> (Result<Answer, CallError>, bool) {
        let mut held = self.held();
        let Some(held) = held.as_mut().filter(|_| is_geo) else {
            return (plugin.call(method, request), false);
        };
        let outcome = held.lease.call(method, request);
        if let Ok(answer) = &outcome {
            let generation = answer.served_by.generation.0;
            if *held.generation.get_or_insert(generation) != generation {
                self.books().totals.mixed += 1;
            }
        }
        (outcome, true)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // The books stay usable when a thread panicked over them: they are counts.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls and counts.
    pub(crate) fn call(
        &self,
        plugin: PluginRef,
        method: u32,
        request: &[u8],
    ) -> rusqlite::Result<Answer> {
        {
            let mut books = self.books();
            books.totals.attempted += 1;
            books.totals.calling += 1;
        }
        let is_geo = plugin.name().as_str() == "geo";
        let before = self.expected.generation.load(Ordering::SeqCst);
        let new_seen = self.expected.new_seen.load(Ordering::SeqCst);
        let started = Instant::now();
        let (outcome, is_held) = self.call_plugin(plugin, is_geo, method, request);
        let took = started.elapsed();
        match outcome {
            Ok(mut answer) => {
                let generation = answer.served_by.generation.0;
                // A held version may answer for as long as it is held.
                let stale = is_geo && !is_held && self.is_stale(before, new_seen, generation);
                let swallowed = is_geo && self.sabotaged(&mut answer);
                let mut books = self.books();
                books.totals.calling -= 1;
                books.totals.stale += u64::from(stale);
                books.totals.answered += u64::from(!swallowed);
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                books.latency.saturating_record(nanos);
                if is_geo {
                    let version = answer.served_by.version.to_string();
                    *books.totals.versions.entry(version).or_default() += 1;
                }
                Ok(answer)
            }
            Err(error) => {
                let mut books = self.books();
                books.totals.calling -= 1;
                if matches!(error, CallError::Plugin { .. } | CallError::BadRequest { .. }) {
                    books.totals.refused += 1;
                }
                if is_of(&error, FAULTY) {
                    books.totals.seen_failing += 1;
                }
                Err(rusqlite::Error::UserFunctionError(Box::new(error)))
            }
        }
    }

    fn is_stale(&self, before: u64, new_seen: bool, generation: u64) -> bool {
        let expected = &self.expected;
        let settled = before != 0 && before == expected.generation.load(Ordering::SeqCst);
        if settled {
            return generation != before;
        }
        let old = generation == expected.old.load(Ordering::SeqCst);
        if before == 0 && !old {
            expected.new_seen.store(true, Ordering::SeqCst);
        }
        before == 0 && old && new_seen
    }

    /// Breaks the claim it was asked to break; whether the answer is to be swallowed.
    fn sabotaged(&self, answer: &mut Answer) -> bool {
        let Some((sabotage, armed)) = &self.sabotage else { return false };
        let breaks = matches!(sabotage, Sabotage::Lost | Sabotage::Wrong);
        if !breaks || !armed.swap(false, Ordering::SeqCst) {
            return false;
        }
        if *sabotage == Sabotage::Wrong {
            // In the exponent: far away from any distance, and still well formed.
            if let Some(byte) = answer.bytes.get_mut(1) {
                *byte ^= 0x40;
            }
        }
        *sabotage == Sabotage::Lost
    }

    pub(crate) fn check_distance(&self, answer: &Answer, points: (f64, f64, f64, f64), km: f64) {
        let version = answer.served_by.version.to_string();
        if !self.distances.accept(&version, points, km) {
            self.books().totals.wrong += 1;
        }
    }

    pub(crate) fn check_fold(&self, request: &str, folded: &str) {
        if expect::fold(request) != folded {
            self.books().totals.wrong += 1;
        }
    }
}

/// Whether this version refused the call.
fn is_of(error: &CallError, version: &str) -> bool {
    matches!(error, CallError::Plugin { served_by, .. } if served_by.version.to_string() == version)
}

/// Whether a statement failed because the faulty version answered one of its calls: that was to be expected.
fn is_excused(error: &rusqlite::Error) -> bool {
    error.to_string().contains(FAULTY)
}

/// The running load.
pub(crate) struct Load {
    callers: Vec<Arc<Caller>>,
    threads: Vec<JoinHandle<Result<(), Failure>>>,
    stop: Arc<AtomicBool>,
    expected: Arc<Expected>,
    geo: PluginRef,
    /// Never gets anything: waiting on it is waiting for time to pass.
    clock: (Sender<()>, Receiver<()>),
}

impl Load {
    pub(crate) fn start(
        geo: PluginRef,
        text: PluginRef,
        sabotage: Option<Sabotage>,
    ) -> Result<Self, Failure> {
        let airports = Arc::new(airports::read()?);
        let armed = Arc::new(AtomicBool::new(true));
        let (stop, expected) = (Arc::new(AtomicBool::new(false)), Arc::new(Expected::default()));
        let mut load = Self {
            callers: Vec::new(),
            threads: Vec::new(),
            stop,
            expected,
            geo,
            clock: channel(),
        };
        for number in 0..CONNECTIONS {
            let latency = Histogram::new_with_bounds(1, LATENCY_MAX, 3)
                .map_err(|error| Failure::new("demo.load", error))?;
            let caller = Arc::new(Caller {
                books: Mutex::new(Books { totals: Totals::default(), latency }),
                distances: Distances::new(),
                expected: Arc::clone(&load.expected),
                sabotage: sabotage.map(|it| (it, Arc::clone(&armed))),
                held: Mutex::new(None),
            });
            load.callers.push(Arc::clone(&caller));
            let (stop, airports) = (Arc::clone(&load.stop), Arc::clone(&airports));
            load.threads.push(std::thread::spawn(move || {
                let connection = database::open(&airports, geo, text, &caller)?;
                query_until(&stop, &connection, &airports, (&caller, geo), number)
            }));
        }
        Ok(load)
    }

    /// From now on only what serves now may answer.
    pub(crate) fn expect(&self, geo: &PluginRef) {
        let generation = geo.info().generation.map_or(0, |generation| generation.0);
        self.expected.generation.store(generation, Ordering::SeqCst);
    }

    /// A change is about to begin: old and new may answer, but never old after new.
    pub(crate) fn expect_change(&self) {
        let old = self.expected.generation.load(Ordering::SeqCst);
        self.expected.old.store(old, Ordering::SeqCst);
        self.expected.new_seen.store(false, Ordering::SeqCst);
        self.expected.generation.store(0, Ordering::SeqCst);
    }

    /// A change is about to begin that may be taken back: old, new and old again may answer.
    pub(crate) fn expect_anything(&self) {
        self.expected.old.store(0, Ordering::SeqCst);
        self.expected.generation.store(0, Ordering::SeqCst);
    }

    /// Shows a line per second.
    pub(crate) fn watch(&self, seconds: u64, say: &impl Fn(&str)) {
        for _ in 0..seconds {
            let before = self.totals();
            // Nobody sends: this ends with the second.
            self.clock.1.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
            say(&self.line(&before));
        }
    }

    fn line(&self, before: &Totals) -> String {
        let now = self.totals();
        let mut latency: Option<Histogram<u64>> = None;
        for caller in &self.callers {
            let mut books = caller.books();
            match &mut latency {
                // All have the same precision, so adding cannot fail.
                Some(all) => drop(all.add(&books.latency)),
                None => latency = Some(books.latency.clone()),
            }
            books.latency.reset();
        }
        let micros = |quantile| {
            let nanos = latency.as_ref().map_or(0, |all| all.value_at_quantile(quantile));
            format!("{}.{} µs", nanos / 1_000, nanos % 1_000 / 100)
        };
        let answering: Vec<_> = now
            .versions
            .iter()
            .filter(|(version, count)| **count > before.by_version(version))
            .map(|(version, _)| version.as_str())
            .collect();
        let lost = now.lost();
        format!(
            "   {:>9} calls/s  p50 {}  p99 {}  lost {lost}  wrong {}  geo {}",
            now.answered - before.answered,
            micros(0.5),
            micros(0.99),
            now.wrong,
            answering.join(" and "),
        )
    }

    fn totals(&self) -> Totals {
        let mut all = Totals::default();
        for caller in &self.callers {
            all.add(&caller.books().totals);
        }
        all
    }

    /// Ends the load once every call under way is answered.
    pub(crate) fn end(self) -> Totals {
        self.stop.store(true, Ordering::SeqCst);
        let mut broken = 0;
        for thread in self.threads {
            broken += u64::from(!matches!(thread.join(), Ok(Ok(()))));
        }
        let mut all = Totals::default();
        for caller in &self.callers {
            all.add(&caller.books().totals);
        }
        all.bad_queries += broken;
        all.last_version =
            self.geo.info().version.map(|version| version.to_string()).unwrap_or_default();
        all
    }
}

/// Three kinds of queries in turn, each from another airport.
fn query_until(
    stop: &AtomicBool,
    connection: &Connection,
    airports: &[Airport],
    (caller, geo): (&Caller, PluginRef),
    number: usize,
) -> Result<(), Failure> {
    let found = airports.iter().filter(|it| expect::fold(&it.city).contains(SEARCHED)).count();
    // A step that shares no factor with the count visits every airport.
    let mut at = number * 7_919;
    while !stop.load(Ordering::SeqCst) {
        at += 7_919;
        let Some(airport) = airports.get(at % airports.len()) else { continue };
        let good = match at % 64 {
            0 => search(connection, found),
            1..=31 => nearest(connection, airport),
            _ => {
                let from = u32::try_from(at % airports.len()).unwrap_or(0);
                caller.holding(geo, || legs(connection, from))?
            }
        };
        match good {
            Ok(true) => {}
            Err(error) if is_excused(&error) => {}
            Ok(false) => caller.books().totals.bad_queries += 1,
            Err(error) => return Err(database::failed(error)),
        }
    }
    Ok(())
}

/// The ten nearest airports: in order, and the first is the place itself.
fn nearest(connection: &Connection, airport: &Airport) -> rusqlite::Result<bool> {
    let mut query = connection.prepare_cached(
        "SELECT distance_km(?1, ?2, lat, lon) AS km FROM airports
         WHERE lat BETWEEN ?1 - 2 AND ?1 + 2 AND lon BETWEEN ?2 - 2 AND ?2 + 2
         ORDER BY km LIMIT 10",
    )?;
    let rows = query.query_map((airport.lat, airport.lon), |row| row.get(0))?;
    let km: Vec<f64> = rows.collect::<Result<_, _>>()?;
    Ok(km.is_sorted() && km.first().is_some_and(|first| *first < 1e-3))
}

/// The great-circle legs of a round trip of twenty airports: longer than any of its legs.
fn legs(connection: &Connection, from: u32) -> rusqlite::Result<bool> {
    let mut query = connection.prepare_cached(
        "SELECT sum(km), max(km) FROM (
           SELECT distance_km(a.lat, a.lon, b.lat, b.lon) AS km
           FROM airports AS a JOIN airports AS b ON b.rowid = a.rowid % 28000 + 97
           WHERE a.rowid BETWEEN ?1 AND ?1 + 19)",
    )?;
    query.query_row([from], |row| {
        let (sum, longest): (Option<f64>, Option<f64>) = (row.get(0)?, row.get(1)?);
        Ok(sum >= longest)
    })
}

/// Every airport in a city called like "São Paulo", however it is spelt.
fn search(connection: &Connection, found: usize) -> rusqlite::Result<bool> {
    let mut query = connection
        .prepare_cached("SELECT count(*) FROM airports WHERE fold(city) LIKE '%' || ?1 || '%'")?;
    let count: i64 = query.query_row([SEARCHED], |row| row.get(0))?;
    Ok(usize::try_from(count) == Ok(found))
}
