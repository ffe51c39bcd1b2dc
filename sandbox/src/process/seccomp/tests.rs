//! What the filters let through.
