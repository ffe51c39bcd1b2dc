//! The whole component, against programs that play gpg and against gpg itself.

mod ends;
mod fixtures;
mod floods;
mod hostile;
mod keys;
mod mock;
mod real;
mod trust;
