//! What a point on earth may be.

use themis_plugin::Error;

/// Refuses what is no latitude and longitude in degrees.
///
/// # Errors
/// A bad request that names the number.
pub(crate) fn check(lat: f64, lon: f64) -> Result<(), Error> {
    if !(-90.0..=90.0).contains(&lat) {
        return Err(Error::bad_request(format_args!("latitude {lat} is not within -90 to 90")));
    }
    if !(-180.0..=180.0).contains(&lon) {
        return Err(Error::bad_request(format_args!("longitude {lon} is not within -180 to 180")));
    }
    Ok(())
}
