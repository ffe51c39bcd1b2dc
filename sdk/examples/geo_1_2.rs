//! Plugin `geo` 1.2.0: a release that does not start, so that a reload to it must not be noticed.

use themis_plugin::{Config, Error, Host, Plugin, error};

/// Never comes into being.
pub struct Geo;

impl Plugin for Geo {
    fn init(host: Host, _config: Config) -> Result<Self, Error> {
        error!(host, "geo 1.2.0: no ellipsoid table");
        Err(Error::new("the ellipsoid table egm2008.bin is not installed"))
    }
}

impl Geo {
    fn distance_km(&self, _points: (f64, f64, f64, f64)) -> Result<f64, Error> {
        Err(Error::new("there is no table"))
    }

    fn answered(&self, _nothing: ()) -> Result<u64, Error> {
        Ok(0)
    }
}

themis_plugin::export! {
    plugin: Geo, name: "geo", version: "1.2.0", thread_safe: true,
    methods: { 1 => distance_km, 2 => answered }
}
