//! The commands besides the demo, by subject.

use std::path::Path;

use crate::output::Failure;

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod plugin;
pub(crate) mod run;
pub(crate) mod scaffold;
pub(crate) mod signing;

/// Bundles are a later release's: said clearly, instead of what a directory's reader would say of one.
fn refuse_bundle(path: &Path) -> Result<(), Failure> {
    if path.extension().is_none_or(|extension| extension != "tdb") {
        return Ok(());
    }
    let message = format!("{}: bundles are not part of this release", path.display());
    Err(Failure::new("bundle.unsupported", message))
}
