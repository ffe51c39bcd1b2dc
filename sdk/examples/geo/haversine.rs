//! Great-circle distance on a sphere.

use libm::{asin, cos, sin};

/// Mean radius of the earth in kilometres (IUGG).
pub(crate) const MEAN_RADIUS_KM: f64 = 6371.0088;

/// Distance in kilometres between two points in degrees, on a sphere of the mean radius.
#[must_use]
pub(crate) fn haversine_km(lat1: f64, lon1: f64, lat2: f64, lon2: f64) -> f64 {
    let (phi1, phi2) = (lat1.to_radians(), lat2.to_radians());
    let half_lat = sin((phi2 - phi1) / 2.0);
    let half_lon = sin((lon2 - lon1).to_radians() / 2.0);
    let h = half_lat * half_lat + cos(phi1) * cos(phi2) * half_lon * half_lon;
    // Rounding can push h over 1 at antipodes.
    2.0 * MEAN_RADIUS_KM * asin(h.min(1.0).sqrt())
}
