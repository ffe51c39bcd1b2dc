//! Answers and errors of a call.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::{GenerationId, PluginName, PluginVersion};
use crate::sandbox::Verdict;

/// Who gave an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedBy {
    /// The version that answered.
    pub version: PluginVersion,
    /// The generation that answered.
    pub generation: GenerationId,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The reply's bytes, in the encoding the method's manifest entry names.
    pub bytes: Vec<u8>,
    /// Who gave it.
    pub served_by: ServedBy,
}

/// Which method a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method<'a> {
    /// By its number: no look-up.
    Id(u32),
    /// By the name the serving version's manifest gives it.
    Name(&'a str),
}

impl From<u32> for Method<'_> {
    fn from(id: u32) -> Self {
        Self::Id(id)
    }
}

impl<'a> From<&'a str> for Method<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No version of the plugin serves: never loaded, unloaded, or the kernel is shut down.
    #[error("plugin {plugin} is not loaded: load it, or check `themis plugin list`")]
    NotLoaded {
        /// The plugin.
        plugin: PluginName,
    },
    /// The plugin is quarantined; it serves again after a successful load of another version or a release.
    #[error("plugin {plugin} is quarantined: {reason}")]
    Quarantined {
        /// The plugin.
        plugin: PluginName,
        /// What it did.
        reason: String,
    },
    /// The plugin answered with an error of its own.
    #[error("plugin {plugin} {version} refused the call: {text}", version = served_by.version)]
    Plugin {
        /// The plugin.
        plugin: PluginName,
        /// The plugin's text, with invalid UTF-8 replaced.
        text: String,
        /// Who refused.
        served_by: ServedBy,
    },
    /// The serving version has no such method.
    #[error("plugin {plugin} has no method {method}")]
    UnknownMethod {
        /// The plugin.
        plugin: PluginName,
        /// The method as asked for: name or number.
        method: String,
    },
    /// The plugin could not read the request.
    #[error("plugin {plugin} could not read the request of method {method}")]
    BadRequest {
        /// The plugin.
        plugin: PluginName,
        /// The method as asked for.
        method: String,
    },
    /// The plugin returned a code outside the ABI.
    #[error("plugin {plugin} {version} failed with code {code}", version = served_by.version)]
    Fault {
        /// The plugin.
        plugin: PluginName,
        /// The code.
        code: i32,
        /// Who failed.
        served_by: ServedBy,
    },
    /// The request is over the ABI's cap; the plugin was not called.
    #[error("request of {size} bytes to plugin {plugin} is over the limit of {max}")]
    RequestTooLarge {
        /// The plugin.
        plugin: PluginName,
        /// Bytes of the request.
        size: usize,
        /// The cap.
        max: usize,
    },
    /// The plugin wrote more than a reply may hold.
    #[error("reply of plugin {plugin} is over the limit of {max} bytes")]
    ReplyTooLarge {
        /// The plugin.
        plugin: PluginName,
        /// The cap.
        max: usize,
    },
    /// The plugin takes one call at a time and the one before did not end.
    #[error("plugin {plugin} takes one call at a time and was busy for {limit:?}")]
    SerialWait {
        /// The plugin.
        plugin: PluginName,
        /// How long the caller waited.
        limit: Duration,
    },
    /// As many calls as it may carry out at once were under way, and none of them ended.
    #[error(
        "plugin {plugin} was busy with other calls for {limit:?}: let it have more at once (`workers.calls`)"
    )]
    Busy {
        /// The plugin.
        plugin: PluginName,
        /// How long the caller waited.
        limit: Duration,
    },
    /// The process it ran in ended, before or during the call.
    #[error("plugin {plugin} {version}: {verdict}", version = served_by.version)]
    Ended {
        /// The plugin.
        plugin: PluginName,
        /// How it ended.
        verdict: Arc<Verdict>,
        /// What ran in it.
        served_by: ServedBy,
    },
    /// The runtime gave up on the call's task ([`call_async`] only).
    ///
    /// [`call_async`]: https://docs.rs/tokio/latest/tokio/task/fn.spawn_blocking.html
    #[error("the call to plugin {plugin} was abandoned: {what}")]
    Abandoned {
        /// The plugin.
        plugin: PluginName,
        /// What happened to the task.
        what: String,
    },
}

impl CallError {
    /// Stable code for programs, metrics and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotLoaded { .. } => "call.not_loaded",
            Self::Quarantined { .. } => "call.quarantined",
            Self::Plugin { .. } => "call.plugin_error",
            Self::UnknownMethod { .. } => "call.unknown_method",
            Self::BadRequest { .. } => "call.bad_request",
            Self::Fault { .. } => "call.fault",
            Self::RequestTooLarge { .. } => "call.request_too_large",
            Self::ReplyTooLarge { .. } => "call.reply_too_large",
            Self::SerialWait { .. } => "call.serial_wait",
            Self::Busy { .. } => "call.busy",
            Self::Ended { verdict, .. } => verdict.code(),
            Self::Abandoned { .. } => "call.abandoned",
        }
    }
}
