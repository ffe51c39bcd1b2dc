//! `demo`: a SQLite database of the world's airports, its functions backed by plugins, queried without pause while
//! the plugins are signed, refused, loaded, replaced and rolled back underneath. Every claim is checked.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use themis_kernel::audit::{AuditEvent, AuditOutcome};
use themis_kernel::lifecycle::{Operation, ReloadReceipt};
use themis_kernel::persistence::audit_log::error::AuditError;
use themis_kernel::persistence::audit_log::read::{self, Direction};
use themis_kernel::persistence::audit_log::record::AuditRecord;
use themis_kernel::persistence::audit_log::verify::{VerifyReport, verify};
use themis_kernel::persistence::drill::flip_bit;
use themis_kernel::persistence::store::Store;
use themis_kernel::{Kernel, PluginRef};
use tokio::signal::unix::{SignalKind, signal};

mod airports;
mod database;
mod expect;
mod market;
mod portable;
mod report;
mod rogue;
mod stage;
mod work;

use crate::output::{Failure, Printer};
use report::{Claim, Report};
use stage::Stage;
use work::{Load, Totals};

/// Show the kernel at work under a real database.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// End after the closing table; exit 0 only if every claim in it was checked and held
    #[arg(long)]
    once: bool,
    /// Seconds of load between two steps
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Where the example plugins were built; by default beside this program
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    /// Break one claim on purpose, to see that the table notices
    #[arg(long, value_name = "CLAIM", requires = "once")]
    sabotage: Option<Sabotage>,
}

/// Which claim to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sabotage {
    /// One call is made whose answer nobody counts.
    Lost,
    /// One answer is changed on its way.
    Wrong,
    /// The rollback is left out.
    Rollback,
    /// One call is made that nobody counts but the plugin.
    State,
    /// New versions are not watched.
    Probation,
    /// The plugin that eats memory is spared.
    Memory,
    /// Not the bundle is loaded but the directory beside it.
    Bundle,
    /// The mirror is not tampered with.
    Mirror,
    /// One bit of the audit log is flipped.
    Audit,
}

/// More records than the demo leaves.
const AUDIT_RECORDS: usize = 10_000;
/// For how long a new version is watched.
const WINDOW: Duration = Duration::from_secs(10);
/// The method that answers how many distances were answered.
const ANSWERED: u32 = 2;

/// What the steps have shown.
struct Shown {
    refusals: Vec<(&'static str, String)>,
    reload: ReloadReceipt,
    failed_reload: String,
    /// How what serves after the faulty version came to serve.
    after_faulty: ReloadReceipt,
    rollback: Option<ReloadReceipt>,
    rollback_took: Duration,
    rogue: rogue::Shown,
    portable: portable::Shown,
    market: market::Shown,
    totals: Totals,
    /// Distances answered, as the plugin has counted them through all its versions.
    counted: u64,
}

pub(crate) fn run(arguments: &Arguments, printer: Printer) -> Result<(), Failure> {
    let say = |line: &str| printer.say(line);
    let stage = Stage::set(arguments.artifacts.as_deref())?;
    say("1. keys, signatures, discovery");
    let unwatched = arguments.sabotage == Some(Sabotage::Probation);
    let window = if unwatched { Duration::ZERO } else { WINDOW };
    let kernel = Kernel::start_blocking(stage.config(window)?)?;
    let shown = match play(arguments, &stage, &kernel, &say) {
        Ok(shown) => shown,
        Err(failure) => {
            kernel.shutdown_blocking();
            return Err(failure);
        }
    };
    if arguments.once {
        kernel.shutdown_blocking();
        return close(&shown, verify_offline(arguments, &stage), printer);
    }
    let audit = kernel.audit_verify_blocking().map_err(Failure::from);
    let told = kernel.audit_records_blocking(0, AUDIT_RECORDS).map_err(Failure::from);
    let closed = close(&shown, audit.and_then(|report| Ok((report, told?))), printer);
    let ended = linger(&stage, &say);
    kernel.shutdown_blocking();
    closed.and(ended)
}

/// Steps 1 to 10.
fn play(
    arguments: &Arguments,
    stage: &Stage,
    kernel: &Kernel,
    say: &impl Fn(&str),
) -> Result<Shown, Failure> {
    for found in kernel.discover_blocking()? {
        match found.result {
            Ok(plugin) => say(&format!(
                "   found   {} {}, signed by key {}",
                plugin.manifest.name, plugin.manifest.version, plugin.key_id
            )),
            Err(error) => say(&format!("   refused {}: {error}", error.code())),
        }
    }
    let refusals = stage.refusals(kernel);
    let loader = kernel.loader();
    let geo = loader.load_blocking("geo/1.0.0", None)?;
    let text = loader.load_blocking("text/1.0.0", None)?;
    say(&format!("   loaded  geo {} and text {}", version(&geo), version(&text)));

    // Its self-tests count as well.
    let before = answered(geo)?;
    let load = Load::start(geo, text, arguments.sabotage)?;
    let watch = |seconds: u64| load.watch(seconds, say);
    load.expect(&geo);
    watch(arguments.seconds);

    say("2. hot reload geo 1.0.0 -> 1.1.0 (haversine -> WGS-84 ellipsoid) under load");
    load.expect_change();
    let reload = kernel.reloads().reload_module_blocking("geo", "geo/1.1.0")?;
    load.expect(&geo);
    say(&format!("   {}", receipt(&reload)));
    watch(arguments.seconds);

    let failed_reload = try_failing(kernel, say);
    watch(arguments.seconds);
    let after_faulty = try_faulty(kernel, &load, geo, say)?;
    watch(arguments.seconds);
    say("5. roll geo back to 1.0.0");
    let (rollback, rollback_took) = roll_back(arguments, kernel, &load, &geo)?;
    if let Some(rollback) = &rollback {
        say(&format!("   {}; answered after {rollback_took:.2?}", receipt(rollback)));
    }
    watch(arguments.seconds);

    let rogue = rogue::play(kernel, &text, arguments.sabotage, say)?;
    watch(arguments.seconds);
    let portable = portable::play(kernel, stage, (&load, geo), arguments.sabotage, say)?;
    watch(arguments.seconds);
    let totals = load.end();
    if arguments.sabotage == Some(Sabotage::State) {
        uncounted(geo)?;
    }
    let counted = answered(geo)? - before - portable.asked();
    let market = market::play(kernel, stage, geo, arguments.sabotage, say)?;
    Ok(Shown {
        refusals,
        reload,
        failed_reload,
        after_faulty,
        rollback,
        rollback_took,
        rogue,
        portable,
        market,
        totals,
        counted,
    })
}

/// Reloads to the version whose init fails; answers the code it was refused with.
fn try_failing(kernel: &Kernel, say: &impl Fn(&str)) -> String {
    say("3. try geo 1.2.0, whose init fails");
    match kernel.reloads().reload_module_blocking("geo", "geo/1.2.0") {
        Ok(_) => "it was loaded".to_owned(),
        Err(error) => {
            say(&format!("   {}: {error}", error.code()));
            error.code().to_owned()
        }
    }
}

/// Reloads to the version that passes every test and then fails, and waits for what becomes of it.
fn try_faulty(
    kernel: &Kernel,
    load: &Load,
    geo: PluginRef,
    say: &impl Fn(&str),
) -> Result<ReloadReceipt, Failure> {
    say("4. reload geo to 1.3.0, which passes init and self-tests, and then fails");
    load.expect_anything();
    let reloads = kernel.reloads();
    let reload = reloads.reload_module_blocking("geo", "geo/1.3.0")?;
    say(&format!("   {}", receipt(&reload)));
    let after = reloads.settled_blocking("geo")?.unwrap_or(reload);
    load.expect(&geo);
    match &after.evidence {
        Some(evidence) => say(&format!("   swapped back to {} by itself: {evidence}", after.to)),
        None => say(&format!("   {} stays", after.to)),
    }
    Ok(after)
}

/// One call that only the plugin knows of.
fn uncounted(geo: PluginRef) -> Result<(), Failure> {
    let place = (0.0, 0.0, 0.0, 0.0);
    let request = rmp_serde::to_vec(&place).map_err(|error| Failure::new("demo.state", error))?;
    geo.call(1, &request)?;
    Ok(())
}

/// How many distances the plugin has answered, through all its versions.
fn answered(geo: PluginRef) -> Result<u64, Failure> {
    let nothing = rmp_serde::to_vec(&()).map_err(|error| Failure::new("demo.state", error))?;
    let answer = geo.call(ANSWERED, &nothing)?;
    rmp_serde::from_slice(&answer.bytes).map_err(|error| Failure::new("demo.state", error))
}

fn roll_back(
    arguments: &Arguments,
    kernel: &Kernel,
    load: &Load,
    geo: &PluginRef,
) -> Result<(Option<ReloadReceipt>, Duration), Failure> {
    if arguments.sabotage == Some(Sabotage::Rollback) {
        return Ok((None, Duration::ZERO));
    }
    load.expect_change();
    let started = Instant::now();
    let receipt = kernel.reloads().rollback_blocking("geo")?;
    let took = started.elapsed();
    load.expect(geo);
    Ok((Some(receipt), took))
}

fn version(plugin: &PluginRef) -> String {
    plugin.info().version.map(|version| version.to_string()).unwrap_or_default()
}

fn receipt(receipt: &ReloadReceipt) -> String {
    format!(
        "receipt: geo {} -> {}, verified {}…, mapped build id {}…, {:.2?} in all, swap {:.2?}",
        receipt.from.as_ref().map(ToString::to_string).unwrap_or_default(),
        receipt.to,
        receipt.digest.to_string().chars().take(12).collect::<String>(),
        receipt.build_id.as_deref().unwrap_or("none").chars().take(12).collect::<String>(),
        receipt.total,
        receipt.swap,
    )
}

/// The log as `themis audit verify` and `themis audit show` see it.
type Audit = (VerifyReport, Vec<AuditRecord>);

/// Step 11: the closing table.
fn close(shown: &Shown, audit: Result<Audit, Failure>, printer: Printer) -> Result<(), Failure> {
    let mut claims = claims(shown);
    let (events, complete, whole) = match &audit {
        Ok((report, records)) => {
            (report.records.to_string(), tells_everything(records), "unbroken".to_owned())
        }
        Err(failure) => {
            ("unreadable".to_owned(), false, format!("{}: {}", failure.code, failure.message))
        }
    };
    claims.push(Claim::new("events in the audit log", events, complete));
    claims.push(Claim::new("themis audit verify", whole, audit.is_ok()));
    let report = Report { claims };
    printer.show(&report, Report::table)?;
    match report.broken() {
        None => Ok(()),
        Some(claim) => Err(Failure::new("demo.claim", format!("did not hold: {claim}"))),
    }
}

/// Whether each step left the record it should have.
fn tells_everything(records: &[AuditRecord]) -> bool {
    use AuditEvent as E;
    use AuditOutcome as O;
    let expected = [
        (E::Load, O::Refused, Some("1.0.0"), Some("sig.missing")),
        (E::Load, O::Refused, Some("1.0.0"), Some("file.digest_mismatch")),
        (E::Load, O::Refused, Some("1.0.0"), Some("path.symlink")),
        (E::Load, O::Intent, Some("1.0.0"), None),
        (E::Load, O::Done, Some("1.0.0"), None),
        (E::Reload, O::Intent, Some("1.1.0"), None),
        (E::Reload, O::Done, Some("1.1.0"), None),
        (E::Reload, O::Failed, Some("1.2.0"), Some("init.refused")),
        (E::Reload, O::Done, Some("1.3.0"), None),
        (E::SwapBack, O::Done, Some("1.1.0"), Some("probation.errors")),
        (E::FirstCall, O::Done, Some("1.1.0"), None),
        (E::Rollback, O::Done, Some("1.0.0"), None),
        (E::Reload, O::Done, Some("1.0.0"), None),
        (E::WorkerEnd, O::Failed, Some("1.0.0"), Some("sandbox.memory_limit")),
        (E::WorkerEnd, O::Failed, Some("1.0.0"), Some("sandbox.deadline")),
        (E::Fetch, O::Refused, Some("1.1.0"), Some("registry.digest")),
        (E::Fetch, O::Done, Some("1.1.0"), None),
        (E::Install, O::Done, Some("1.1.0"), None),
    ];
    expected.into_iter().all(|(event, outcome, version, code)| {
        records.iter().any(|record| {
            let of_version = record.version.as_ref().map(ToString::to_string);
            record.event == event
                && record.outcome == outcome
                && of_version.as_deref() == version
                && record.code.as_deref() == code
        })
    })
}

/// On the data directory, without the kernel.
fn verify_offline(arguments: &Arguments, stage: &Stage) -> Result<Audit, Failure> {
    let data_dir = stage.config(WINDOW)?.data_dir;
    if arguments.sabotage == Some(Sabotage::Audit) {
        flip_bit(&Store::open(&data_dir)?, 3)?;
    }
    let store = Store::open_read_only(&data_dir)?;
    let report = verify(&store)?;
    let records = read::records(&store, Direction::OldestFirst { from: 0 })?.take(AUDIT_RECORDS);
    let records = records.map(|stored| Ok(stored?.record)).collect::<Result<_, AuditError>>()?;
    Ok((report, records))
}

fn claims(shown: &Shown) -> Vec<Claim> {
    let Shown { totals, reload, rollback, .. } = shown;
    let mut claims = Vec::new();
    for (what, code) in &shown.refusals {
        let wanted = stage::refusal_code(what);
        claims.push(Claim::new(format!("refused: {what}"), code.clone(), code == wanted));
    }
    let served = totals.answered;
    claims.push(Claim::new("calls served", served.to_string(), served > 10_000));
    let lost = totals.lost();
    claims.push(Claim::new("calls lost", lost.to_string(), lost == 0));
    claims.push(Claim::new("wrong answers", totals.wrong.to_string(), totals.wrong == 0));
    claims.push(Claim::new(
        "queries wrong",
        totals.bad_queries.to_string(),
        totals.bad_queries == 0,
    ));
    claims.push(Claim::new(
        "hot reload 1.0.0 -> 1.1.0",
        format!("{:.2?}, callers saw {:.2?}", reload.total, reload.swap),
        reload.operation == Operation::Reload && totals.by_version("1.1.0") > 0,
    ));
    let stale = totals.stale;
    claims.push(Claim::new("answers changed at one instant", format!("{stale} stale"), stale == 0));
    let (held, mixed) = (totals.held, totals.mixed);
    let told = format!("{held} held, {mixed} mixed");
    claims.push(Claim::new("statements held to one version", told, held > 0 && mixed == 0));
    let visible = totals.by_version("1.2.0");
    let never = visible == 0 && shown.failed_reload == "init.refused";
    let told = format!("{visible} answers, {}", shown.failed_reload);
    claims.push(Claim::new("1.2.0 never visible", told, never));
    claims.extend(of_faulty(shown));
    claims.push(Claim::new(
        "rollback to 1.0.0",
        match rollback {
            Some(_) => format!("{:.2?}", shown.rollback_took),
            None => "not done".to_owned(),
        },
        rollback.as_ref().is_some_and(|it| it.to.to_string() == "1.0.0")
            && shown.rollback_took < Duration::from_millis(500),
    ));
    let last = &totals.last_version;
    claims.push(Claim::new("served by 1.0.0 again", last.clone(), last == "1.0.0"));
    let (counted, served) =
        (shown.counted, totals.by_version("1.0.0") + totals.by_version("1.1.0"));
    claims.push(Claim::new(
        "call counter survived every change",
        format!("{counted} counted, {served} answered"),
        counted == served,
    ));
    claims.extend(shown.rogue.claims());
    claims.extend(shown.portable.claims());
    claims.extend(shown.market.claims());
    claims
}

/// The version that passes every test and then fails.
fn of_faulty(shown: &Shown) -> [Claim; 2] {
    let after = &shown.after_faulty;
    let told = match &after.evidence {
        Some(evidence) => format!("gone after {:.1?}", evidence.elapsed),
        None => "not swapped back".to_owned(),
    };
    let is_back = after.operation == Operation::SwapBack && after.to.to_string() == "1.1.0";
    let in_time = after.evidence.is_some_and(|evidence| evidence.elapsed < WINDOW);
    let seen = shown.totals.seen_failing;
    [
        Claim::new("1.3.0 swapped back by itself", told, is_back && in_time),
        Claim::new("errors callers saw of 1.3.0", seen.to_string(), seen > 0 && is_back),
    ]
}

/// Keeps the kernel running and says how to talk to it, until it is interrupted.
fn linger(stage: &Stage, say: &impl Fn(&str)) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new("demo.signal", error);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    say(&format!(
        "\nThe kernel keeps running until you press Ctrl-C. In another shell:\n\
         \n  export THEMIS_SOCKET={}\n\
         \x20 themis plugin list\n\
         \x20 echo -n 'São Paulo' | themis plugin call text fold\n\
         \x20 themis plugin reload geo {}\n\
         \x20 themis audit show",
        stage.socket().display(),
        stage.plugin("geo/1.1.0").display(),
    ));
    runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        Ok(())
    })
}
