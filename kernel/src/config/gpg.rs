//! The table `[gpg]`: which plugins must carry an OpenPGP signature as well, and the gpg that checks it.

use std::collections::BTreeSet;

use serde::Deserialize;
use themis_sandbox::admission::NameSet;
use themis_sandbox::admission::gpg::{Fingerprint, Gpg, GpgRule};
use toml::Spanned;

use super::error::ConfigError;
use super::file::{NameOrAll, name_set};
use super::source::Source;

/// Where Debian and its kin have it.
const PROGRAM: &str = "/usr/bin/gpg";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct GpgToml {
    program: Option<Spanned<String>>,
    home: Spanned<String>,
    keyring: Spanned<String>,
    fingerprints: Spanned<Vec<Spanned<String>>>,
    plugins: Spanned<Vec<NameOrAll>>,
}

/// A demand that nobody could meet, or that concerns nobody, is a mistake.
pub(super) fn read(source: &Source<'_>, table: GpgToml) -> Result<GpgRule, ConfigError> {
    let program = table.program.as_ref().map(|path| source.resolve(path)).transpose()?;
    let gpg = Gpg::new(
        program.unwrap_or_else(|| PROGRAM.into()),
        source.resolve(&table.home)?,
        source.resolve(&table.keyring)?,
    );
    let pinned = table.fingerprints.get_ref().iter().map(|text| {
        let parsed = text.get_ref().parse::<Fingerprint>();
        parsed.map_err(|error| source.invalid(text.span(), error.to_string()))
    });
    let fingerprints = pinned.collect::<Result<BTreeSet<_>, _>>()?;
    if fingerprints.is_empty() {
        let what = "name the fingerprint of at least one key that may sign";
        return Err(source.invalid(table.fingerprints.span(), what));
    }
    let span = table.plugins.span();
    let plugins = name_set(table.plugins.into_inner());
    if plugins == NameSet::Only(BTreeSet::new()) {
        return Err(
            source.invalid(span, "name the plugins that must be signed like this, or \"*\"")
        );
    }
    Ok(GpgRule { gpg, fingerprints, plugins })
}
