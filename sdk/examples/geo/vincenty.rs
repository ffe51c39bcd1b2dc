//! Geodesic distance on the WGS-84 ellipsoid: Vincenty's inverse series, and a search where it diverges.
//!
//! Vincenty's iteration on the longitude does not converge between nearly antipodal points. There the same
//! series are read the other way: the azimuth at the first point decides at which longitude the geodesic
//! meets the second point's parallel, and that longitude rises steadily with the azimuth, so bisection
//! always finds it.

use libm::{atan, atan2, cos, hypot, sincos, tan};

/// Equatorial radius of WGS-84 in kilometres.
const A: f64 = 6378.137;
/// Flattening of WGS-84.
const F: f64 = 1.0 / 298.257_223_563;
/// Polar radius in kilometres.
const B: f64 = A * (1.0 - F);
/// Rounds of Vincenty's iteration; where it converges at all, far fewer are needed.
const ROUNDS: usize = 24;
/// Halvings of the azimuth: enough to use up an f64.
const HALVINGS: usize = 64;

/// The geodesic on the auxiliary sphere, between two reduced latitudes.
struct Arc {
    /// Spherical length in radians, with sine and cosine.
    sigma: f64,
    sin_sigma: f64,
    cos_sigma: f64,
    /// Sine of the azimuth at the equator.
    sin_alpha: f64,
    /// Square of its cosine.
    cos2_alpha: f64,
    /// Cosine of twice the length from the equator to the arc's middle.
    cos_2m: f64,
}

impl Arc {
    /// Longitude on the ellipsoid is shorter than on the sphere by this much.
    fn longitude_excess(&self) -> f64 {
        let c = F / 16.0 * self.cos2_alpha * (4.0 + F * (4.0 - 3.0 * self.cos2_alpha));
        let inner = self.cos_2m + c * self.cos_sigma * (2.0 * self.cos_2m * self.cos_2m - 1.0);
        (1.0 - c) * F * self.sin_alpha * (self.sigma + c * self.sin_sigma * inner)
    }

    fn length_km(&self) -> f64 {
        let u2 = self.cos2_alpha * (A * A - B * B) / (B * B);
        let a = 1.0 + u2 / 16384.0 * (4096.0 + u2 * (-768.0 + u2 * (320.0 - 175.0 * u2)));
        let b = u2 / 1024.0 * (256.0 + u2 * (-128.0 + u2 * (74.0 - 47.0 * u2)));
        let c2 = self.cos_2m * self.cos_2m;
        let s2 = self.sin_sigma * self.sin_sigma;
        let third = b / 6.0 * self.cos_2m * (4.0 * s2 - 3.0) * (4.0 * c2 - 3.0);
        let second = b / 4.0 * (self.cos_sigma * (2.0 * c2 - 1.0) - third);
        B * a * (self.sigma - b * self.sin_sigma * (self.cos_2m + second))
    }
}

/// Distance in kilometres between two points in degrees, on WGS-84.
#[must_use]
pub(crate) fn vincenty_km(lat1: f64, lon1: f64, lat2: f64, lon2: f64) -> f64 {
    let reduced = |lat: f64| atan((1.0 - F) * tan(lat.to_radians()));
    let (u1, u2) = (reduced(lat1), reduced(lat2));
    // The shorter way round, as an angle from 0 to pi.
    let turn = (lon2 - lon1).rem_euclid(360.0);
    let longitude = turn.min(360.0 - turn).to_radians();
    iterate(u1, u2, longitude).unwrap_or_else(|| search(u1, u2, longitude)).length_km()
}

/// Vincenty's iteration; `None` where it does not settle.
fn iterate(u1: f64, u2: f64, longitude: f64) -> Option<Arc> {
    let (sin1, cos1) = sincos(u1);
    let (sin2, cos2) = sincos(u2);
    let mut lambda = longitude;
    for _ in 0..ROUNDS {
        let (sin_lambda, cos_lambda) = sincos(lambda);
        let sin_sigma = hypot(cos2 * sin_lambda, cos1 * sin2 - sin1 * cos2 * cos_lambda);
        let cos_sigma = sin1 * sin2 + cos1 * cos2 * cos_lambda;
        let sin_alpha = if sin_sigma == 0.0 { 0.0 } else { cos1 * cos2 * sin_lambda / sin_sigma };
        let cos2_alpha = 1.0 - sin_alpha * sin_alpha;
        // On the equator the middle is everywhere, and its factor is zero.
        let cos_2m =
            if cos2_alpha < 1e-15 { 0.0 } else { cos_sigma - 2.0 * sin1 * sin2 / cos2_alpha };
        let sigma = atan2(sin_sigma, cos_sigma);
        let arc = Arc { sigma, sin_sigma, cos_sigma, sin_alpha, cos2_alpha, cos_2m };
        let next = longitude + arc.longitude_excess();
        if next > std::f64::consts::PI {
            return None;
        }
        if (next - lambda).abs() < 1e-13 {
            return Some(arc);
        }
        lambda = next;
    }
    None
}

/// Bisects the azimuth at the first point until the geodesic meets the second.
fn search(u1: f64, u2: f64, longitude: f64) -> Arc {
    // Mirrored so that the first point is south of the equator and farther from it than the second.
    let (far, near) = if u1.abs() >= u2.abs() { (u1, u2) } else { (u2, u1) };
    let (south, other) = if far > 0.0 { (-far, -near) } else { (far, near) };
    let (mut low, mut high) = (0.0, std::f64::consts::PI);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if shoot(south, other, middle).1 < longitude { low = middle } else { high = middle }
    }
    shoot(south, other, 0.5 * (low + high)).0
}

/// Follows the geodesic that leaves the first point at `azimuth` to the second point's parallel: the arc
/// and the longitude it covers.
fn shoot(u1: f64, u2: f64, azimuth: f64) -> (Arc, f64) {
    let (sin1, cos1) = sincos(u1);
    // A hair south of the equator, so that an arc leaving it southwards counts as going round.
    let sin1 = sin1.min(-f64::MIN_POSITIVE);
    let (sin2, cos2) = sincos(u2);
    let (sin_azimuth, cos_azimuth) = sincos(azimuth);
    let sin_alpha = sin_azimuth * cos1;
    let sine = sin_azimuth * sin1;
    let cos2_alpha = (cos_azimuth * cos_azimuth + sine * sine).min(1.0);
    // Northwards when it meets the parallel: cos(azimuth there) * cos(latitude there).
    let north1 = cos_azimuth * cos1;
    let north2 = (north1 * north1 + (cos2 * cos2 - cos1 * cos1)).max(0.0).sqrt();
    let (sigma1, sigma2) = (atan2(sin1, north1), atan2(sin2, north2));
    let (omega1, omega2) = (atan2(sin_alpha * sin1, north1), atan2(sin_alpha * sin2, north2));
    let sigma = sigma2 - sigma1;
    let (sin_sigma, cos_sigma) = sincos(sigma);
    let cos_2m = cos(sigma1 + sigma2);
    let arc = Arc { sigma, sin_sigma, cos_sigma, sin_alpha, cos2_alpha, cos_2m };
    let covered = omega2 - omega1 - arc.longitude_excess();
    (arc, covered)
}
