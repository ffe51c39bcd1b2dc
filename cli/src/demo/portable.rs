//! The act of the bundles: geo goes on as a wasm module from one file, with the same answers, and an endless loop runs out of
//! fuel.

use std::time::{Duration, Instant};

use themis_kernel::ids::Tier;
use themis_kernel::lifecycle::ReloadReceipt;
use themis_kernel::{Kernel, PluginRef};

use super::report::Claim;
use super::stage::Stage;
use super::work::Load;
use super::{Sabotage, airports};
use crate::output::Failure;

const DISTANCE: u32 = 1;
const HANG: u32 = 2;
const SERVE: u32 = 3;
/// What an endless loop may use in one call: some tenths of a second.
pub(super) const FUEL: u64 = 500_000_000;

/// What was seen.
#[derive(Debug)]
pub(super) struct Shown {
    reload: ReloadReceipt,
    /// Distances asked of both builds, and how many were not the same to the last bit.
    asked: u64,
    different: u64,
    fuel: Option<u64>,
    hang: String,
    hang_took: Duration,
    serves_again: bool,
}

pub(super) fn play(
    kernel: &Kernel,
    stage: &Stage,
    (load, geo): (&Load, PluginRef),
    sabotage: Option<Sabotage>,
    say: &impl Fn(&str),
) -> Result<Shown, Failure> {
    say("8. geo 1.0.0 again, from a bundle without a build for this machine: as wasm, under load");
    let requests = requests()?;
    let native = answers(geo, &requests)?;
    load.expect_change();
    let spared = sabotage == Some(Sabotage::Bundle);
    let path = if spared { stage.plugin("geo/1.0.0") } else { stage.bundle("geo") };
    let reload = kernel.reloads().reload_module_blocking("geo", path)?;
    load.expect(&geo);
    say(&format!("   {}; runs as {}", super::receipt(&reload), reload.tier));
    let fuel_before = geo.info().usage.and_then(|usage| usage.fuel).unwrap_or(0);
    let wasm = answers(geo, &requests)?;
    let different = native.iter().zip(&wasm).filter(|(native, wasm)| native != wasm).count();
    let fuel = geo.info().usage.and_then(|usage| usage.fuel);
    if let Some(fuel) = fuel {
        say(&format!(
            "   {} distances, {different} different; {} units of fuel meanwhile, the load included",
            requests.len(),
            fuel.saturating_sub(fuel_before)
        ));
    }

    say("9. rogue as wasm, in an endless loop");
    kernel.unload_blocking("rogue")?;
    let rogue = kernel.loader().load_blocking(stage.bundle("rogue"), None)?;
    let started = Instant::now();
    let hang = match rogue.call(HANG, b"") {
        Ok(_) => "it answered".to_owned(),
        Err(error) => {
            say(&format!("   {} after {:.2?}: {error}", error.code(), started.elapsed()));
            error.code().to_owned()
        }
    };
    let hang_took = started.elapsed();
    let serves_again = rogue.call(SERVE, b"").is_ok_and(|it| it.bytes == b"at your service");
    Ok(Shown {
        reload,
        asked: 2 * requests.len() as u64,
        different: different as u64,
        fuel,
        hang,
        hang_took,
        serves_again,
    })
}

/// From each airport to the next in the list.
fn requests() -> Result<Vec<Vec<u8>>, Failure> {
    let airports = airports::read()?;
    let pairs = airports.iter().zip(airports.iter().skip(1));
    let request = |(from, to): (&airports::Airport, &airports::Airport)| {
        rmp_serde::to_vec(&(from.lat, from.lon, to.lat, to.lon))
    };
    let requests: Result<_, _> = pairs.map(request).collect();
    requests.map_err(|error| Failure::new("demo.bundle", error))
}

fn answers(geo: PluginRef, requests: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Failure> {
    let answer = |request: &Vec<u8>| Ok(geo.call(DISTANCE, request)?.bytes);
    requests.iter().map(answer).collect()
}

impl Shown {
    /// Calls that the load does not know of.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    pub(super) fn claims(&self) -> [Claim; 4] {
        let Self { reload, asked, different, hang, hang_took, .. } = self;
        let again = if self.serves_again { "serves again" } else { "does not serve" };
        let fuel = self.fuel.map_or_else(|| "none".to_owned(), |fuel| format!("{fuel} units"));
        let runs = format!("{} {} after {:.2?}", reload.to, reload.tier, reload.total);
        let same = format!("{} asked, {different} different", asked / 2);
        let held = hang == "wasm.fuel_exhausted" && self.serves_again;
        [
            Claim::new("geo from a bundle, as wasm", runs, reload.tier == Tier::Wasm),
            Claim::new("the same answers as the native build", same, *different == 0 && *asked > 0),
            Claim::new("fuel geo has used", fuel, self.fuel.is_some_and(|fuel| fuel > 0)),
            Claim::new("an endless loop", format!("{hang} after {hang_took:.2?}, {again}"), held),
        ]
    }
}
