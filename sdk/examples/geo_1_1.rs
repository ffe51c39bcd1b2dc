//! Plugin `geo` 1.1.0: geodesic distances on the WGS-84 ellipsoid.

use themis_plugin::{Config, Error, Host, Plugin, Stateful, info};

#[path = "geo/point.rs"]
mod point;
#[path = "geo/tally.rs"]
mod tally;
#[path = "geo/vincenty.rs"]
mod vincenty;

/// Counts what it answers.
pub struct Geo {
    tally: tally::Tally,
}

impl Plugin for Geo {
    fn init(host: Host, _config: Config) -> Result<Self, Error> {
        info!(host, "geo 1.1.0: geodesic distances on the WGS-84 ellipsoid");
        Ok(Self { tally: tally::Tally::default() })
    }
}

impl Stateful for Geo {
    fn save_state(&self) -> Result<Vec<u8>, Error> {
        Ok(self.tally.save())
    }

    fn reload(&self, _from_version: &str, state: &[u8]) -> Result<(), Error> {
        self.tally.take(state)
    }
}

impl Geo {
    /// Kilometres between (lat1, lon1) and (lat2, lon2), in degrees.
    fn distance_km(&self, (lat1, lon1, lat2, lon2): (f64, f64, f64, f64)) -> Result<f64, Error> {
        point::check(lat1, lon1)?;
        point::check(lat2, lon2)?;
        self.tally.count();
        Ok(vincenty::vincenty_km(lat1, lon1, lat2, lon2))
    }

    /// How many distances were answered, by this version and those before it.
    fn answered(&self, _nothing: ()) -> Result<u64, Error> {
        Ok(self.tally.answered())
    }
}

themis_plugin::export! {
    plugin: Geo, name: "geo", version: "1.1.0", thread_safe: true, stateful: true,
    methods: { 1 => distance_km, 2 => answered }
}
