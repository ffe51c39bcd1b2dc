//! The world's airports: 28,000 rows of real data, carried inside the program.

use serde::Deserialize;

use crate::output::Failure;

const CSV: &str = include_str!("../../../tests/data/airports.csv");

/// One airport.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Airport {
    pub(crate) icao: String,
    pub(crate) name: String,
    pub(crate) city: String,
    pub(crate) country: String,
    /// Degrees north.
    pub(crate) lat: f64,
    /// Degrees east.
    pub(crate) lon: f64,
}

/// All of them.
pub(crate) fn read() -> Result<Vec<Airport>, Failure> {
    let rows = csv::Reader::from_reader(CSV.as_bytes()).into_deserialize();
    rows.collect::<Result<_, _>>().map_err(|error| Failure::new("demo.airports", error))
}
