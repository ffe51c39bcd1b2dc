//! What a plugin is: a value that the kernel makes, calls and ends.

use serde::de::DeserializeOwned;

use crate::{Error, Host};

/// A plugin. Its methods are ordinary functions, named in [`export!`](crate::export).
///
/// With `thread_safe: true` the type must also be [`Sync`]. Without, a lock of the SDK's own keeps calls
/// apart, whatever the host does.
pub trait Plugin: Sized + Send + 'static {
    /// Makes an instance. Has a deadline of five seconds.
    ///
    /// # Errors
    /// The version is not taken into service, and what served before goes on; the text is shown to the
    /// operator.
    fn init(host: Host, config: Config) -> Result<Self, Error>;

    /// Says whether the instance is well: asked before a version serves and now and then after.
    ///
    /// # Errors
    /// The instance is not well; the text is logged.
    fn health(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends the instance: called once, after the last call returned. The [`Host`] stops working when it
    /// returns.
    ///
    /// # Errors
    /// Logged; the instance is gone all the same.
    fn shutdown(self) -> Result<(), Error> {
        Ok(())
    }
}

/// A plugin that hands its state to its successor; opted into by `stateful: true` in
/// [`export!`](crate::export).
pub trait Stateful: Plugin {
    /// Writes what a successor needs to carry on. No call is under way: callers wait, so this and the successor's
    /// [`Stateful::reload`] together have 100 ms; what takes longer is called off.
    ///
    /// # Errors
    /// The reload is called off; this version serves on.
    fn save_state(&self) -> Result<Vec<u8>, Error>;

    /// Takes what a predecessor saved, after `init`.
    ///
    /// # Errors
    /// The reload is called off; the predecessor serves on.
    fn reload(&self, from_version: &str, state: &[u8]) -> Result<(), Error>;
}

/// The plugin's configuration: the manifest's defaults under the operator's settings, as one JSON object.
#[derive(Debug, Clone)]
pub struct Config {
    json: Vec<u8>,
}

impl Config {
    pub(crate) fn new(json: &[u8]) -> Self {
        Self { json: json.to_vec() }
    }

    /// The JSON text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.json
    }

    /// Reads the configuration into a type of the plugin's.
    ///
    /// # Errors
    /// The JSON does not fit the type; place and reason are in the text.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.json).map_err(|error| Error::new(format!("config: {error}")))
    }
}
