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
//! | [`moments`] | how many, how much, how scattered |
//! | [`posterior`] | how probable it is that one arm is better |
//! | [`sequence`] | in which range the difference lies, whenever one looks |
//! | [`mismatch`] | whether the arms got the units they should have |
//! | [`policy`] | whether there is evidence to stop |
//! | [`simulate`] | how often a policy is wrong, and how long it takes |
//!
//! Everything here is pure: no clock, no store, no thread.

pub mod assign;
pub mod mismatch;
pub mod moments;
pub mod policy;
pub mod posterior;
pub mod sequence;
pub mod simulate;
