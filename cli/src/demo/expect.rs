//! What the plugins have to answer, by formulas of the host's own that share no code with them.

use geographiclib_rs::{Geodesic, InverseGeodesic as _};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Mean radius of the earth in kilometres, as geo 1.0 uses it.
const RADIUS_KM: f64 = 6_371.008_8;
/// A millimetre, in kilometres: far above what rounding does, far below what a wrong formula does.
const TOLERANCE_KM: f64 = 1e-6;

/// Distances as each version has to compute them.
#[derive(Debug)]
pub(crate) struct Distances {
    ellipsoid: Geodesic,
}

impl Distances {
    pub(crate) fn new() -> Self {
        Self { ellipsoid: Geodesic::wgs84() }
    }

    /// Whether `version` may answer `km` for these points; a version that never serves may answer nothing.
    pub(crate) fn accept(&self, version: &str, points: (f64, f64, f64, f64), km: f64) -> bool {
        let wanted = match version {
            "1.0.0" => haversine_km(points),
            "1.1.0" => self.ellipsoid_km(points),
            _ => return false,
        };
        (km - wanted).abs() <= TOLERANCE_KM
    }

    /// By Karney's method, which converges everywhere; the plugin uses Vincenty's.
    fn ellipsoid_km(&self, (lat1, lon1, lat2, lon2): (f64, f64, f64, f64)) -> f64 {
        let metres: f64 = self.ellipsoid.inverse(lat1, lon1, lat2, lon2);
        metres / 1_000.0
    }
}

/// The great circle on a sphere, by the angle between two vectors.
fn haversine_km((lat1, lon1, lat2, lon2): (f64, f64, f64, f64)) -> f64 {
    let (lat1, lat2) = (lat1.to_radians(), lat2.to_radians());
    let (sin_dlon, cos_dlon) = (lon2 - lon1).to_radians().sin_cos();
    let across =
        (lat2.cos() * sin_dlon).hypot(lat1.cos() * lat2.sin() - lat1.sin() * lat2.cos() * cos_dlon);
    let along = lat1.sin() * lat2.sin() + lat1.cos() * lat2.cos() * cos_dlon;
    RADIUS_KM * across.atan2(along)
}

/// Lower case without diacritics: decomposed, marks dropped, and the letters that do not decompose.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.nfd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase) {
        match c {
            'ø' => folded.push('o'),
            'đ' | 'ð' => folded.push('d'),
            'ł' => folded.push('l'),
            'ı' => folded.push('i'),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'ß' => folded.push_str("ss"),
            'þ' => folded.push_str("th"),
            other => folded.push(other),
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// New York JFK to London Heathrow.
    const JFK_LHR: (f64, f64, f64, f64) = (40.639_447, -73.779_317, 51.470_6, -0.461_941);

    #[test]
    fn the_two_versions_differ_by_what_the_earth_is_flattened() {
        let distances = Distances::new();
        let (sphere, ellipsoid) = (haversine_km(JFK_LHR), distances.ellipsoid_km(JFK_LHR));
        assert!((5_530.0..5_550.0).contains(&sphere), "{sphere}");
        assert!((10.0..25.0).contains(&(ellipsoid - sphere)), "{ellipsoid} - {sphere}");
        assert!(distances.accept("1.0.0", JFK_LHR, sphere));
        assert!(!distances.accept("1.1.0", JFK_LHR, sphere));
        assert!(!distances.accept("1.2.0", JFK_LHR, sphere));
    }

    #[test]
    fn folding_drops_case_and_marks() {
        for (text, folded) in
            [("São Paulo", "sao paulo"), ("ÅLESUND", "alesund"), ("Łódź", "lodz"), ("Køge", "koge")]
        {
            assert_eq!(fold(text), folded);
        }
    }
}
