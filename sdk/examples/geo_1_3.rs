//! Plugin `geo` 1.3.0: a release that passes every test before it serves, and then fails: it must be gone again soon.

use std::sync::atomic::{AtomicBool, Ordering};

use themis_plugin::{Config, Error, Host, Plugin, Stateful, info};

#[path = "geo/point.rs"]
mod point;
#[path = "geo/tally.rs"]
mod tally;
#[path = "geo/vincenty.rs"]
mod vincenty;

/// Remembers whether it has answered before, and breaks over it.
pub struct Geo {
    tally: tally::Tally,
    warm: AtomicBool,
}

impl Plugin for Geo {
    fn init(host: Host, _config: Config) -> Result<Self, Error> {
        info!(host, "geo 1.3.0: geodesic distances, with a cache");
        Ok(Self { tally: tally::Tally::default(), warm: AtomicBool::new(false) })
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
    /// Right the first time, which is the self-test.
    fn distance_km(&self, (lat1, lon1, lat2, lon2): (f64, f64, f64, f64)) -> Result<f64, Error> {
        point::check(lat1, lon1)?;
        point::check(lat2, lon2)?;
        if self.warm.swap(true, Ordering::Relaxed) {
            return Err(Error::new("the cache is full, and eviction is not written yet"));
        }
        self.tally.count();
        Ok(vincenty::vincenty_km(lat1, lon1, lat2, lon2))
    }

    fn answered(&self, _nothing: ()) -> Result<u64, Error> {
        Ok(self.tally.answered())
    }
}

themis_plugin::export! {
    plugin: Geo, name: "geo", version: "1.3.0", thread_safe: true, stateful: true,
    methods: { 1 => distance_km, 2 => answered }
}
