//! The example plugins' distances against reference values.

#[path = "../../examples/geo/haversine.rs"]
mod haversine;
#[path = "../../examples/geo/vincenty.rs"]
mod vincenty;

use haversine::{MEAN_RADIUS_KM, haversine_km};
use vincenty::vincenty_km;

/// Latitude and longitude in degrees.
type Point = (f64, f64);

/// Kilometres that Karney's algorithm (GeographicLib) gives on WGS-84, exact to a few nanometres.
const GEODESICS: [(&str, Point, Point, f64); 11] = [
    ("across a city", (52.5597, 13.2877), (52.3667, 13.5033), 25.999_227_159),
    ("London to New York", (51.4706, -0.461_941), (40.639_801, -73.7789), 5_554.539_939_171),
    (
        "Sydney to Santiago",
        (-33.946_098, 151.177_002),
        (-33.393_001, -70.785_797),
        11_362.612_681_007,
    ),
    (
        "Madrid to Wellington, nearly antipodal",
        (40.471_926, -3.562_64),
        (-41.327_201_843_3, 174.804_992_676),
        19_848.767_598_834,
    ),
    ("where Vincenty's iteration diverges", (0.0, 0.0), (0.5, 179.7), 19_944.127_420_750),
    ("along the equator, too far", (0.0, 0.0), (0.0, 179.9), 20_003.008_421_509),
    ("antipodes on the equator", (0.0, 0.0), (0.0, 180.0), 20_003.931_458_625),
    ("antipodes", (30.0, -10.0), (-30.0, 170.0), 20_003.931_458_625),
    ("pole to pole", (90.0, 0.0), (-90.0, 77.0), 20_003.931_458_625),
    ("across the date line", (-18.0553, 179.34), (-13.829_999, -172.007_996), 1_037.348_010_142),
    ("the same place", (10.0, 10.0), (10.0, 10.0), 0.0),
];

#[test]
fn the_ellipsoid_is_right_to_a_millimetre_everywhere() {
    const MILLIMETRE: f64 = 1e-6;
    for (what, (lat1, lon1), (lat2, lon2), expected) in GEODESICS {
        for found in [vincenty_km(lat1, lon1, lat2, lon2), vincenty_km(lat2, lon2, lat1, lon1)] {
            assert!((found - expected).abs() < MILLIMETRE, "{what}: {found} is not {expected}");
        }
    }
}

#[test]
fn the_sphere_is_within_its_known_error_of_the_ellipsoid() {
    for (what, (lat1, lon1), (lat2, lon2), expected) in GEODESICS {
        let found = haversine_km(lat1, lon1, lat2, lon2);
        assert!((found - expected).abs() <= 0.0056 * expected, "{what}: {found} for {expected}");
    }
    let half_round = haversine_km(0.0, 0.0, 0.0, 180.0);
    assert!((half_round - std::f64::consts::PI * MEAN_RADIUS_KM).abs() < 1e-9);
}
