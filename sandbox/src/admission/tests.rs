//! Whole admissions: what is handed over, in which order refusals come, and the list of known attacks.

mod attacks;
mod detached;
mod order;
