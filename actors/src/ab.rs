//! A/B tests between versions of a plugin: who gets which, what came of it, and when that is evidence.
//!
//! ```text
//! unit ─▶ assign ─▶ arm ─▶ outcomes ─▶ moments ─▶ evidence ─▶ decide ─▶ winner, roll back, or go on
//!                                                   └── simulate: how often that is wrong
//! ```
//!
//! | module | what it answers |
//! |---|---|
//! | [`assign`] | which arm a unit gets |
//! | [`recorder`] | what happened, counted on the caller's thread |
//! | [`moments`] | how many, how much, how scattered |
//! | [`posterior`] | how probable it is that one arm is better |
//! | [`sequence`] | in which range the difference lies, whenever one looks |
//! | [`mismatch`] | whether the arms got the units they should have |
//! | [`lifecycle`] | what an experiment is, and what it can become |
//! | [`policy`] | whether there is evidence to stop |
//! | [`spec`] | what somebody wants to know |
//! | [`simulate`] | how often a policy is wrong, and how long it takes |
//!
//! All of that is pure, but for the counting. [`live`] is an experiment as callers see it, [`manager`] the actor that begins,
//! judges and ends them.

pub mod assign;
pub mod lifecycle;
pub mod live;
pub mod manager;
pub mod mismatch;
pub mod moments;
pub mod policy;
pub mod posterior;
pub mod recorder;
pub mod report;
pub mod sequence;
pub mod simulate;
pub mod spec;
