//! The table `[workers]`: how worker processes are had.

use serde::Deserialize;
use themis_messages::limits::WORKER_CALLS_MAX;
use toml::Spanned;

use super::error::ConfigError;
use super::source::Source;
use super::{Program, WorkersConfig};

/// More than this many idle processes help nobody.
const POOL_MAX: u64 = 64;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct WorkersToml {
    program: Option<Spanned<String>>,
    pool: Option<Spanned<u64>>,
    calls: Option<Spanned<u64>>,
}

pub(super) fn read(source: &Source<'_>, table: &WorkersToml) -> Result<WorkersConfig, ConfigError> {
    let mut workers = WorkersConfig::default();
    if let Some(program) = &table.program {
        workers.program = Program::At(source.resolve(program)?);
    }
    if let Some(pool) = within(source, &table.pool, 0, POOL_MAX)? {
        workers.pool = usize::try_from(pool).unwrap_or(workers.pool);
    }
    if let Some(calls) = within(source, &table.calls, 1, u64::from(WORKER_CALLS_MAX))? {
        workers.calls = u32::try_from(calls).unwrap_or(workers.calls);
    }
    Ok(workers)
}

fn within(
    source: &Source<'_>,
    value: &Option<Spanned<u64>>,
    min: u64,
    max: u64,
) -> Result<Option<u64>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    let is = *value.get_ref();
    if (min..=max).contains(&is) {
        return Ok(Some(is));
    }
    Err(source.invalid(value.span(), format!("want {min} to {max}, not {is}")))
}
