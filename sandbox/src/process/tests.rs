//! A worker from its start to its end, with the real program.
