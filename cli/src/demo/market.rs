//! The act of the marketplace: geo is published to a registry, a mirror that changed one bit is refused, and `themis registry
//! install` brings what its publisher signed.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use themis_kernel::admission::pack_dir;
use themis_kernel::registry::publish::Validity;
use themis_kernel::{Kernel, PluginRef};

use super::Sabotage;
use super::report::Claim;
use super::stage::{Shop, Stage};
use crate::output::Failure;

/// What was seen.
#[derive(Debug)]
pub(super) struct Shown {
    /// What the mirror came to.
    mirror: String,
    /// What was installed from the registry.
    installed: String,
    /// What serves then.
    serves: String,
}

pub(super) fn play(
    kernel: &Kernel,
    stage: &Stage,
    geo: PluginRef,
    sabotage: Option<Sabotage>,
    say: &impl Fn(&str),
) -> Result<Shown, Failure> {
    let shop = stage.shop();
    say(&format!("10. geo 1.1.0 is published at {}", shop.url));
    publish(stage, shop)?;
    let mirror = shop.dir.join("mirror");
    copy(&shop.registry.public(), &mirror)?;
    if sabotage != Some(Sabotage::Mirror) {
        flip(&bundle_below(&mirror.join("targets/geo"))?)?;
    }
    *shop.shown.lock() = mirror;
    say("    a mirror of it, with one bit of the bundle changed");
    let refused = match install(stage) {
        Ok(done) => done,
        Err(failure) => {
            say(&format!(
                "    themis registry install geo@^1: {}: {}",
                failure.code, failure.message
            ));
            failure.code
        }
    };
    *shop.shown.lock() = shop.registry.public();
    say("    the registry itself");
    let installed = install(stage).unwrap_or_else(|failure| failure.code);
    say(&format!("    themis registry install geo@^1: {installed}"));
    let found = kernel.marketplace().last_request_stats_blocking()?;
    if let Some(stats) = found {
        say(&format!(
            "    {} requests, {} bytes, {:.1?}",
            stats.attempts, stats.bytes, stats.total_time
        ));
    }
    Ok(Shown { mirror: refused, installed, serves: super::version(&geo) })
}

fn publish(stage: &Stage, shop: &Shop) -> Result<(), Failure> {
    let (dir, bundle) = (stage.plugin("geo/1.1.0"), shop.dir.join("geo-1.1.0.tdb"));
    pack_dir(&dir, Some(&bundle))?;
    // It is to come back from the registry.
    std::fs::remove_dir_all(dir).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(failed)?.block_on(async {
        shop.registry.add(&bundle, &stage.publisher()).await?;
        shop.registry.publish(Validity::default()).await?;
        Ok(())
    })
}

/// As an operator does it: with the program, through the kernel's socket.
fn install(stage: &Stage) -> Result<String, Failure> {
    let program = std::env::current_exe().map_err(failed)?;
    let run = Command::new(program)
        .args(["--json", "registry", "install", "geo@^1", "--socket"])
        .arg(stage.socket())
        .output()
        .map_err(failed)?;
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    if !run.status.success() {
        let error = &read(&run.stderr)["error"];
        let text = |key: &str| error[key].as_str().unwrap_or("no reason was given").to_owned();
        return Err(Failure { code: text("code"), message: text("message") });
    }
    let installed = &read(&run.stdout)["installed"][0];
    let text = |key: &str| installed[key].as_str().unwrap_or("nothing").to_owned();
    let serves = if installed["serves"] == true { ", serves" } else { "" };
    Ok(format!("{} {}{serves}", text("plugin"), text("version")))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let (from, to) = {
            let entry = entry.map_err(failed)?;
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            std::fs::copy(&from, &to).map_err(failed)?;
        }
    }
    Ok(())
}

fn bundle_below(dir: &Path) -> Result<PathBuf, Failure> {
    let mut entries = std::fs::read_dir(dir).map_err(failed)?;
    match entries.next() {
        Some(entry) => Ok(entry.map_err(failed)?.path()),
        None => Err(Failure::new("demo.market", "nothing was published")),
    }
}

fn flip(path: &Path) -> Result<(), Failure> {
    let mut bytes = std::fs::read(path).map_err(failed)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    std::fs::write(path, bytes).map_err(failed)
}

fn failed(error: std::io::Error) -> Failure {
    Failure::new("demo.market", error)
}

impl Shown {
    pub(super) fn claims(&self) -> [Claim; 2] {
        let Self { mirror, installed, serves } = self;
        let right = installed == "geo 1.1.0, serves" && serves == "1.1.0";
        [
            Claim::new(
                "refused: a mirror that changed one bit",
                mirror.clone(),
                mirror == "registry.digest",
            ),
            Claim::new("installed from the registry", installed.clone(), right),
        ]
    }
}
