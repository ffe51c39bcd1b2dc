//! The commands besides the demo, by subject.

pub(crate) mod ab;
pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod plugin;
pub(crate) mod registry;
pub(crate) mod run;
pub(crate) mod scaffold;
pub(crate) mod signing;
