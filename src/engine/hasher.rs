//! The hasher.
