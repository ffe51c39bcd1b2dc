//! Plugin `geo` 1.0.0: great-circle distances on a sphere.

use themis_plugin::{Config, Error, Host, Plugin, info};

#[path = "geo/haversine.rs"]
mod haversine;
#[path = "geo/point.rs"]
mod point;

/// The plugin has no state.
pub struct Geo;

impl Plugin for Geo {
    fn init(host: Host, _config: Config) -> Result<Self, Error> {
        info!(host, "geo 1.0.0: great-circle distances on a sphere");
        Ok(Self)
    }
}

impl Geo {
    /// Kilometres between (lat1, lon1) and (lat2, lon2), in degrees.
    fn distance_km(&self, (lat1, lon1, lat2, lon2): (f64, f64, f64, f64)) -> Result<f64, Error> {
        point::check(lat1, lon1)?;
        point::check(lat2, lon2)?;
        Ok(haversine::haversine_km(lat1, lon1, lat2, lon2))
    }
}

themis_plugin::export! {
    plugin: Geo, name: "geo", version: "1.0.0", thread_safe: true,
    methods: { 1 => distance_km }
}
