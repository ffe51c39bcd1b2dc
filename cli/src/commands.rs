//! The commands besides the demo, by subject.

pub(crate) mod audit;
pub(crate) mod plugin;
pub(crate) mod run;
pub(crate) mod signing;
