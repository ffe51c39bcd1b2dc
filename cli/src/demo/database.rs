//! A SQLite database of the airports whose functions are plugins.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use themis_kernel::PluginRef;

use super::airports::Airport;
use super::work::Caller;
use crate::output::Failure;

const DISTANCE_KM: u32 = 1;
const FOLD: u32 = 1;

/// Opens a database in memory, fills it, and backs `distance_km` and `fold` with the plugins.
pub(crate) fn open(
    airports: &[Airport],
    geo: PluginRef,
    text: PluginRef,
    caller: &Arc<Caller>,
) -> Result<Connection, Failure> {
    let connection = Connection::open_in_memory().map_err(failed)?;
    fill(&connection, airports).map_err(failed)?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    let own = Arc::clone(caller);
    connection
        .create_scalar_function("distance_km", 4, flags, move |context| {
            distance_km(context, geo, &own)
        })
        .map_err(failed)?;
    let own = Arc::clone(caller);
    connection
        .create_scalar_function("fold", 1, flags, move |context| {
            let request: String = context.get(0)?;
            let reply = own.call(text, FOLD, request.as_bytes())?;
            let folded = String::from_utf8_lossy(&reply.bytes).into_owned();
            own.check_fold(&request, &folded);
            Ok(folded)
        })
        .map_err(failed)?;
    Ok(connection)
}

fn distance_km(context: &Context<'_>, geo: PluginRef, caller: &Caller) -> rusqlite::Result<f64> {
    let points = (context.get(0)?, context.get(1)?, context.get(2)?, context.get(3)?);
    let unreadable = |error: &dyn std::fmt::Display| {
        rusqlite::Error::UserFunctionError(error.to_string().into())
    };
    let request = rmp_serde::to_vec(&points).map_err(|error| unreadable(&error))?;
    let reply = caller.call(geo, DISTANCE_KM, &request)?;
    let km = rmp_serde::from_slice(&reply.bytes).map_err(|error| unreadable(&error))?;
    caller.check_distance(&reply, points, km);
    Ok(km)
}

fn fill(connection: &Connection, airports: &[Airport]) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE airports (icao TEXT, name TEXT, city TEXT, country TEXT, lat REAL, lon REAL);
         BEGIN;",
    )?;
    let mut insert = connection.prepare("INSERT INTO airports VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for it in airports {
        insert.execute((&it.icao, &it.name, &it.city, &it.country, it.lat, it.lon))?;
    }
    connection.execute_batch("COMMIT; CREATE INDEX by_place ON airports (lat, lon);")
}

pub(crate) fn failed(error: rusqlite::Error) -> Failure {
    Failure::new("demo.database", error)
}
